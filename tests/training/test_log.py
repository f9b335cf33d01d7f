"""The log of a training: JSON lines, the progress bar, and TensorBoard where it is installed."""

import json
import sys
from pathlib import Path

import pytest

from semicdvl.config import TrainConfig
from semicdvl.training.log import TrainingLog, read_events


def _logged(run: Path, *, start: int = 0, is_main: bool = True, **settings: object) -> list[dict]:
    config = TrainConfig(**settings)  # type: ignore[arg-type]
    with TrainingLog(run, config, total_steps=4, start_step=start, is_main=is_main, quiet=True) as log:
        for step in range(start + 1, 4):
            log.log_step(step, terms={"fit": 0.5, "odd": 0.25}, diagnostics={"sure": 0.125}, pairs=3)
        log.log_validation(3, scores={"iou": 0.75}, best=True)
    lines = (run / "log.jsonl").read_text().splitlines() if (run / "log.jsonl").exists() else []
    return [json.loads(line) for line in lines]


def test_a_line_has_every_term_and_their_sum(tmp_path: Path) -> None:
    events = _logged(tmp_path)
    assert [event["step"] for event in events] == [1, 2, 3, 3]
    assert {name: events[0][name] for name in ("loss", "fit", "odd", "sure")} == {
        "loss": 0.75,
        "fit": 0.5,
        "odd": 0.25,
        "sure": 0.125,
    }
    assert events[-1]["validation"] == {"iou": 0.75}
    assert [event["step"] for event in _logged(tmp_path, start=2)] == [1, 2, 3, 3]  # the lost end is written once


def test_a_score_that_nothing_defines_is_null_as_in_the_record(tmp_path: Path) -> None:
    scores = {"iou": 0.0, "precision": 0.0, "recall": 0.0, "accuracy": 0.75, "predicted_changed_frac": 0.0}
    with TrainingLog(tmp_path, TrainConfig(), total_steps=4, quiet=True) as log:
        log.log_validation(4, scores=scores, best=True)
    event = json.loads((tmp_path / "log.jsonl").read_text())
    assert event["validation"] == scores | {"precision": None}
    assert read_events(tmp_path / "log.jsonl")[0][1].validation == event["validation"]


def test_where_a_stopped_training_goes_on_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for start in (0, 2):
        with TrainingLog(tmp_path / "few", TrainConfig(), total_steps=4, start_step=start):
            pass
    assert capsys.readouterr().err == "few: continues after step 2/4, the last one that was saved\n"


def test_a_terminal_shows_the_bar_and_the_loss_by_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # takes standard error for a terminal
    monkeypatch.setenv("COLUMNS", "80")
    terms = {"supervised": 0.5, "vlm_change_weak": 0.25, "vlm_change_strong": 0.125}
    with TrainingLog(tmp_path, TrainConfig(), total_steps=4) as log:
        log.log_step(1, terms=terms, diagnostics={}, pairs=3)
    shown = capsys.readouterr().err
    assert "supervised 0.500 + vlm 0.375" in shown and "loss 0.875" in shown and "1/4" in shown


def test_only_the_first_process_writes(tmp_path: Path) -> None:
    assert _logged(tmp_path / "run", is_main=False) == [] and not (tmp_path / "run").exists()


def test_tensorboard_gets_the_same_numbers(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs semicdvl[track]")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _logged(tmp_path, tensorboard=True, select="test")
    read = EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    found = {name: [(event.step, event.value) for event in read.Scalars(name)] for name in read.Tags()["scalars"]}
    assert found["loss/total"] == [(1, 0.75), (2, 0.75), (3, 0.75)] and found["loss/odd"][0] == (1, 0.25)
    assert found["health/sure"][0] == (1, 0.125) and found["test_selected/iou"] == [(3, 0.75)]


def test_tensorboard_keeps_what_was_flushed_before_a_kill(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs semicdvl[track]")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with TrainingLog(tmp_path, TrainConfig(tensorboard=True), total_steps=4, quiet=True) as log:
        log.log_step(1, terms={"fit": 0.5}, diagnostics={}, pairs=3)
        log.flush()
        read = EventAccumulator(str(tmp_path / "tensorboard"))
        read.Reload()  # the file is still open, as when the process is killed now
        assert [event.step for event in read.Scalars("loss/fit")] == [1]


def test_without_tensorboard_a_warning_and_the_json_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    events = _logged(tmp_path, tensorboard=True)
    assert "install semicdvl[track]" in events[0]["warning"] and len(events) == 5
