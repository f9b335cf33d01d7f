"""The command that evaluates a change map."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.command import command
from tests.support.reference_maps import (
    REAL,
    vectors,
)


def test_the_command(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = vectors(tmp_path / "truth.gpkg", REAL)
    code, printed, _ = command(capsys, "evaluate", out, "--truth", truth, "--sample", 200)
    assert code == 0 and "objects by any overlap: recall" in printed and "changed area adjusted" in printed
    assert "0.6667" in printed and "evaluation.json" in printed
    for arguments, problem in (
        ((out,), "give RUN DATA"),
        ((out, tmp_path, "--truth", truth), "Leave one out"),
        ((out, tmp_path, "--area", truth), "Leave one out"),
        ((out, tmp_path, "--label-values", "1=changed"), "Leave one out"),
        ((out, tmp_path, "--sample", "300"), "Leave one out"),
        ((out, tmp_path, "--seed", "0"), "--seed is for a result of `detect`"),
        ((out, "--truth", truth, "--split", "test"), "--split is for a trained run"),
        ((out, "--truth", truth, "--dataset", "folder"), "--dataset is for a trained run"),
        ((out, "--truth", truth, "--tile", "64"), "--tile is for a trained run"),
        ((out, "--sample", "30", "--trust", "mine"), "--trust is for a trained run"),
        ((out, "--sample", "30", "--layer", "changes"), "--layer says how the file of --truth is read"),
        ((out, "--sample", "30", "--truth-nodata", "7"), "--truth-nodata says how the file of --truth is read"),
        ((tmp_path, "--truth", truth), "run.json"),
        ((out, "--truth", tmp_path / "none.gpkg"), "does not exist"),
        ((out, "--truth", tmp_path / "none.tif"), "does not exist"),
    ):
        code, _, complained = command(capsys, "evaluate", *arguments)
        assert code == 2 and problem in complained and "Traceback" not in complained
