"""A folder of this program in the place of another kind of folder is called what it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.command import command
from tests.support.paths import ROOT

from semicdvl.reading.folder_kinds import describe_folder

OLD = ROOT / "tests" / "data" / "made_by_0.1"
RUN, STORE, OUT, DATA = (OLD / name for name in ("run", "store", "detected", "pairs"))
A_RUN, A_STORE, A_RESULT, A_DATA_SET = (
    "a trained run", "a pseudo-label store", "a result of `semicdvl detect`", "a data set"
)  # fmt: skip
BEFORE, AFTER = OLD / "before.tif", OLD / "after.tif"
CASES = [
    (("evaluate", RUN, "--truth", OLD / "truth.geojson"), RUN, A_RUN, A_RESULT),
    (("evaluate", STORE, "--truth", OLD / "truth.geojson"), STORE, A_STORE, A_RESULT),
    (("evaluate", OUT, "--truth", RUN), RUN, A_RUN, "an image"),
    (("evaluate", RUN, OUT), OUT, A_RESULT, A_DATA_SET),
    (("evaluate", RUN, STORE), STORE, A_STORE, A_DATA_SET),
    (("evaluate", STORE, DATA), STORE, A_STORE, A_RUN),
    (("suggest", RUN), RUN, A_RUN, A_RESULT),
    (("suggest", DATA), DATA, A_DATA_SET, A_RESULT),
    (("export", STORE, "-o", "new.onnx"), STORE, A_STORE, A_RUN),
    (("check", OUT, AFTER), OUT, A_RESULT, "an image"),
    (("check", DATA, AFTER), DATA, A_DATA_SET, "an image"),
    (("detect", BEFORE, STORE, "-o", "new"), STORE, A_STORE, "an image"),
    (("detect", BEFORE, AFTER, "-o", "new", "--model", STORE), STORE, A_STORE, A_RUN),
    (("detect", "--pairs", DATA, "-o", "new"), DATA, A_DATA_SET, "a table of pairs"),
    (("pseudo", RUN, "-o", "new"), RUN, A_RUN, A_DATA_SET),
    (("import-official", RUN, "-o", "new"), RUN, A_RUN, "a checkpoint of a public code"),
    (("prepare", "--before", BEFORE, "--after", AFTER, "--labels", STORE, "-o", "new"), STORE, A_STORE, "a layer"),
]


@pytest.mark.parametrize(
    ("arguments", "path", "found", "wanted"), CASES, ids=[f"{one[0][0]} {one[1].name}" for one in CASES]
)
def test_a_folder_of_another_kind_is_named(arguments, path, found, wanted, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, wrong = command(capsys, *arguments)
    assert code == 2 and len(wrong.strip().splitlines()) == 1
    assert str(path) in wrong and f"is {found}, not {wanted}" in wrong
    assert not list(tmp_path.iterdir()), "nothing is left"


def test_a_result_in_the_place_of_a_run_is_named(capsys) -> None:
    code, _, wrong = command(capsys, "export", OUT)
    assert code == 2 and f"the folder is {A_RESULT}" in wrong


def test_folders_are_known_by_their_records(tmp_path: Path) -> None:
    assert [describe_folder(path) for path in (RUN, STORE, OUT, DATA)] == [A_RUN, A_STORE, A_RESULT, A_DATA_SET]
    assert describe_folder(tmp_path) == "a folder"
    (tmp_path / "run.json").write_text("[" * 1000)
    assert describe_folder(tmp_path) == "a folder", "a damaged record says nothing"
