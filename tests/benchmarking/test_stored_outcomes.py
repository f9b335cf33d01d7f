"""The outcome of a run, as a suite finds it again: edited ones are refused by name, and sound ones stay as they are."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from tests.support.paths import ROOT

from semicdvl.benchmarking.processes import _print_outcome, read_outcome
from semicdvl.benchmarking.results import render_markdown, write_csv
from semicdvl.errors import InputError

OUTCOMES = sorted((ROOT / "tests/data/made_by_0.1/suite/jobs").glob("*.result.json"))


def read_changed(path: Path, change: dict[str, Any], place: dict[str, Any] | None = None) -> Any:
    content = json.loads(OUTCOMES[0].read_text()) | change
    path.write_text(json.dumps(content))
    return read_outcome(SimpleNamespace(result=path, place=place or {}))  # type: ignore[arg-type]


@pytest.mark.parametrize("path", OUTCOMES, ids=lambda path: path.name[:20])
def test_a_sound_outcome_stays_as_it_is(path: Path) -> None:
    stored = json.loads(path.read_text())
    place = {key: stored[key] for key in ("data", "method", "model", "labelled", "seed")}
    assert read_outcome(SimpleNamespace(result=path, place=place)) == stored  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"seeds": "abc"}, "seeds: "),
        ({"seeds": 5}, "seeds: "),
        ({"best_step": "x"}, "best_step: "),
        ({"steps": [1]}, "steps: "),
        ({"pairs": {"test": "x"}}, "pairs.test: "),
        ({"test": {"iou": None, "f1": 0.1, "precision": 0.1, "recall": 0.1}}, "a finished run without test scores"),
        ({"test": {"iou": 0.1, "f1": 0.1, "precision": 0.1, "recall": 0.1, "semantic_sek": "x"}}, "semantic_sek: "),
        ({"seconds": "x"}, "seconds: "),
    ],
)
def test_an_edited_outcome_is_refused(change: dict[str, Any], why: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=why):
        read_changed(tmp_path / "a.result.json", change)


def test_the_outcome_of_another_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="method: is the outcome of another run"):
        read_changed(tmp_path / "a.result.json", {"method": "x"}, {"method": "CVA", "seed": 0})
    assert read_changed(tmp_path / "a.result.json", {}, {"method": "CVA", "seed": 0, "new": 1})["method"] == "CVA"


@pytest.mark.parametrize("change", [{}, {"status": "failed", "error": "no"}, {"status": "odd"}, {"test_best": None}])
def test_what_is_read_can_be_shown(change: dict[str, Any], tmp_path: Path) -> None:
    found = read_changed(tmp_path / "a.result.json", change)
    write_csv(tmp_path / "a.csv", [found])
    assert found["method"] in render_markdown([found], title="t", compared=())
    _print_outcome(Console(quiet=True), found)
