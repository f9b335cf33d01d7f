"""Scores of a trained run: those that its labels don't define, and which pairs they are of."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.command import command
from tests.support.tiny_training import build_tiny_recipe

import semicdvl as cd
from semicdvl.atomic_files import write_json
from semicdvl.cli.tables import build_metrics_table
from semicdvl.data.split_file import read_split, write_split
from semicdvl.errors import ConfigError
from semicdvl.metrics.change import ConfusionCounts
from semicdvl.metrics.objects import ObjectCounts
from semicdvl.metrics.pair_sets import PairSetCounts
from semicdvl.training.run import train_recipe


def test_scores_without_change_in_the_labels_are_undefined() -> None:
    scores = PairSetCounts(ConfusionCounts(tn=90, fp=10), ObjectCounts(predicted=2)).list_meaningful_scores()
    undefined = {name for name, value in scores.items() if math.isnan(value)}
    assert undefined == {"iou", "f1", "recall", "kappa", "object_recall", "object_f1"}
    assert scores["precision"] == 0 and scores["accuracy"] == 0.9
    column = list(build_metrics_table("t", {"test": scores}).columns[1].cells)
    assert column[list(scores).index("iou")] == "undefined" and column[list(scores).index("accuracy")] == "0.9000"


def test_precision_is_undefined_where_nothing_is_detected() -> None:
    scores = PairSetCounts(ConfusionCounts(tn=90, fn=10), ObjectCounts(actual=2)).list_meaningful_scores()
    assert {name for name, value in scores.items() if math.isnan(value)} == {"precision", "object_precision"}
    assert scores["iou"] == scores["recall"] == scores["object_recall"] == 0.0 and scores["accuracy"] == 0.9
    column = list(build_metrics_table("t", {"test": scores}).columns[1].cells)
    assert column[list(scores).index("precision")] == "undefined"


def test_pairs_of_the_training_are_told(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_recipe(build_tiny_recipe(data, None, method__name="supervised"), tmp_path / "run", quiet=True)
    code, printed, _ = command(capsys, "evaluate", tmp_path / "run", data, "--split", "all")
    told = "Of the 12 pairs that were scored 6 pairs are from the training of this run: these scores are too high."
    assert code == 0 and told in printed
    code, printed, _ = command(capsys, "evaluate", tmp_path / "run", data)
    assert code == 0 and "from the training" not in printed
    shutil.copytree(data, tmp_path / "elsewhere")
    code, printed, _ = command(capsys, "evaluate", tmp_path / "run", tmp_path / "elsewhere", "--split", "all")
    assert code == 0 and "from the training" not in printed


def test_other_data_without_lists_are_scored_as_a_whole(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_recipe(build_tiny_recipe(data, None, method__name="supervised"), tmp_path / "run", quiet=True)
    shutil.copytree(data, tmp_path / "elsewhere")
    code, _, complaint = command(capsys, "evaluate", tmp_path / "run", tmp_path / "elsewhere")
    assert code == 2 and "elsewhere: has no list of test pairs" in complaint
    assert "Take all labelled pairs (--split all), or write the names into list/test.txt." in complaint


def test_pairs_of_no_known_subset_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"split = 'train' is not known\. Give one of val, test, all\."):
        cd.evaluate(tmp_path / "run", data, split="train")  # type: ignore[arg-type]


def test_an_unfinished_training_is_told_where_its_network_is_used(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, told = tmp_path / "run", "run: its training has not finished, so these are its best weights so far."
    train_recipe(build_tiny_recipe(data, None, method__name="supervised"), run, quiet=True)
    images = [next((data / date).iterdir()) for date in ("A", "B")]
    commands = (
        ("evaluate", run, data),
        ("export", run, "-o", tmp_path / "m.onnx"),
        ("detect", *images, "-o", tmp_path / "out", "--model", run, "--device", "cpu", "--overwrite"),
    )
    for is_finished in (True, False):
        for arguments in commands:
            code, printed, complaint = command(capsys, *arguments)
            assert code == 0, complaint
            assert (told in printed) is not is_finished
        record = json.loads((run / "run.json").read_text())
        write_json(run / "run.json", record | {"status": "started"})


def test_a_run_whose_data_are_elsewhere_now_is_scored_and_told_by_names(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(data, tmp_path / "data")
    train_recipe(build_tiny_recipe(tmp_path / "data", None, method__name="supervised"), tmp_path / "run", quiet=True)
    shutil.move(tmp_path / "data", tmp_path / "moved")
    code, printed, complaint = command(capsys, "evaluate", tmp_path / "run", tmp_path / "moved", "--split", "all")
    assert code == 0 and "6 pairs are from the training of this run" in printed, complaint


def test_the_split_beside_a_run_is_its_own(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_recipe(build_tiny_recipe(data, None, method__name="supervised"), tmp_path / "run", quiet=True)
    split = tmp_path / "run" / "split.json"
    made = read_split(split)
    write_split(split, replace(made, labelled=made.test, test=made.labelled), root=data)
    code, _, complaint = command(capsys, "evaluate", tmp_path / "run", data)
    assert code == 2 and "split.json: is the split of another run than the run.json beside it" in complaint
    split.unlink()
    split.symlink_to("nowhere")
    code, _, complaint = command(capsys, "evaluate", tmp_path / "run", data, "--split", "all")
    assert code == 2 and "split.json: cannot be read (No such file or directory)" in complaint
