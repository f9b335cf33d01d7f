"""The log of a training, for people and programs: a progress bar, one JSON line per event, and TensorBoard."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from pydantic import BaseModel, Field, ValidationError
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from semicdvl.atomic_files import write_atomically
from semicdvl.config import TrainConfig
from semicdvl.errors import CheckpointError
from semicdvl.metrics.pair_sets import find_undefined_scores
from semicdvl.outputs.exchange import open_plain_file
from semicdvl.outputs.messages import make_output_error
from semicdvl.reading.json_files import check_values, describe_fault
from semicdvl.text_files import read_text_file

SCORE_NAMES = {"val": "validation", "test": "test_selected", "last": "validation"}
"""Names of the scores that select the weights, by the pairs that they are of."""

NO_TENSORBOARD_WARNING = (
    "train.tensorboard is set, but TensorBoard is not installed: install semicdvl[track]. Until then log.jsonl alone "
    "has the numbers."
)


class LogEvent(BaseModel):
    """What is read of a line of the log; the names are stored."""

    step: int = Field(0, ge=0)
    validation: dict[str, float | None] | None = None


def read_events(path: Path) -> list[tuple[str, LogEvent]]:
    """Return the lines of a log with what they say; one that a killed process was writing is left out.

    Raises:
        CheckpointError: a line is not one that training writes.
    """
    found = []
    lines = read_text_file(path).split("\n")
    for number, line in enumerate(lines, 1):
        try:
            content = json.loads(line) if line.strip() else None
        except (ValueError, RecursionError):  # cut off
            continue
        if content is None:
            continue
        try:
            check_values(content, finite=False)  # a diverging loss is logged, too
            found.append((line, LogEvent.model_validate(content)))
        except (ValidationError, ValueError) as error:
            reason = describe_fault(error) if isinstance(error, ValidationError) else str(error)
            raise CheckpointError(
                f"{path}: line {number} was not written by training ({reason}). Delete the line, or the file: it is "
                "only a record of the past."
            ) from None
    return found


class TrainingLog:
    """Writes RUN/log.jsonl and shows progress on standard error."""

    def __init__(
        self,
        run: Path,
        config: TrainConfig,
        *,
        total_steps: int,
        start_step: int = 0,
        is_main: bool = True,
        quiet: bool = False,
    ) -> None:
        """Continue the log of a run; events after `start_step` are dropped from it, since they are logged again.

        Args:
            run: the run directory.
            config: names the pairs that select the weights, and whether TensorBoard's files are written too.
            total_steps: length of the training.
            start_step: number of steps that are done.
            is_main: False in all processes but the first: they write and show nothing.
            quiet: show nothing.
        """
        self.path, self.config, self.start_step = run / "log.jsonl", config, start_step
        self.title, self.total_steps, self.is_main = run.name, total_steps, is_main
        self._console = Console(stderr=True, quiet=quiet or not is_main)
        self._tensorboard: Any = None
        if is_main:
            self._make_folder()
            self._drop_events_after(start_step)
            if config.tensorboard:
                self._open_tensorboard()
        self._bar, self._losses = self._build_bar(), Text(style="dim", no_wrap=True, overflow="ellipsis")
        self._task = self._bar.add_task(self.title, total=total_steps, completed=start_step, note="")
        shown = is_main and not quiet and self._console.is_terminal
        self._live = Live(Group(self._bar, self._losses), console=self._console, transient=True) if shown else None
        self._began, self._pairs = time.monotonic(), 0

    def _build_bar(self) -> Progress:
        """Return the progress bar."""
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=self._console,
        )

    def __enter__(self) -> TrainingLog:
        """Start the bar; say where a training that was stopped goes on."""
        if self.start_step:
            self._console.print(
                f"{self.title}: continues after step {self.start_step}/{self.total_steps}, the last one that was saved",
                highlight=False,
                markup=False,
            )
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the bar."""
        if self._live is not None:
            self._live.stop()
        if self._tensorboard is not None:
            self._tensorboard.close()

    def log_step(self, step: int, *, terms: Mapping[str, float], diagnostics: Mapping[str, float], pairs: int) -> None:
        """Log one finished step (counted from 1): its loss terms by name, and diagnostics."""
        self._pairs += pairs
        rate = self._pairs / max(time.monotonic() - self._began, 1e-9)
        total = sum(terms.values())
        self._bar.update(self._task, completed=step, note=f"loss {total:.3f}  {rate:.1f} pairs/s")
        self._losses.plain = "  " + _summarise_terms(terms)
        self._append_event({"step": step, "loss": total, **terms, **diagnostics, "pairs_per_s": round(rate, 2)})
        named = {f"loss/{name}": value for name, value in terms.items()}
        named |= {f"health/{name}": value for name, value in diagnostics.items()}
        self._write_scalars(step, {"loss/total": total, "speed/pairs_per_s": rate} | named)

    def log_validation(self, step: int, *, scores: Mapping[str, float], best: bool) -> None:
        """Log the scores that select the weights; without any, that a checkpoint was saved.

        A score that the labels do not define is null in the line, and no point in TensorBoard.
        """
        name = SCORE_NAMES[self.config.select]
        undefined = find_undefined_scores(scores)
        stored = {score: None if score in undefined else value for score, value in scores.items()}
        self._append_event({"step": step, name: stored, "best": best})
        self._write_scalars(step, {f"{name}/{score}": value for score, value in stored.items() if value is not None})
        place = f"{self.title}: step {step}/{self.total_steps}"
        text = f"{name.replace('_', '-')} {_describe_selection(scores, best=best, select=self.config.select)}"
        self._console.print(f"{place}  {text if scores else 'saved'}", highlight=False)

    def flush(self) -> None:
        """Make TensorBoard write what it buffers, which a killed process would lose; JSON lines are never buffered."""
        if self._tensorboard is not None:
            self._tensorboard.flush()

    def log_warning(self, step: int, text: str) -> None:
        """Log something that the user should see."""
        self._append_event({"step": step, "warning": text})
        self._console.print(f"{self.title}: step {step}: {text}", style="yellow", markup=False)

    def _open_tensorboard(self) -> None:
        """Start TensorBoard's files; without TensorBoard, log a warning and continue."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.log_warning(self.start_step, NO_TENSORBOARD_WARNING)
            return
        folder, lost = self.path.parent / "tensorboard", self.start_step + 1
        self._tensorboard = SummaryWriter(str(folder), purge_step=lost)

    def _write_scalars(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write numbers for TensorBoard, where it is used."""
        if self._tensorboard is None:
            return
        for name, value in numbers.items():
            self._tensorboard.add_scalar(name, value, step)

    def _append_event(self, event: Mapping[str, object]) -> None:
        """Append one line."""
        if not self.is_main:
            return
        try:
            with open(self.path, "a", encoding="utf-8", opener=open_plain_file) as handle:
                handle.write(json.dumps(event) + "\n")
        except OSError as error:
            raise make_output_error(self.path, error) from error

    def _make_folder(self) -> None:
        """Make the run directory."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise make_output_error(self.path.parent, error) from error

    def _drop_events_after(self, step: int) -> None:
        """Drop the events after `step`: training resumes there and logs them again."""
        if not self.path.exists():
            return
        kept = [line for line, event in read_events(self.path) if event.step <= step]
        with write_atomically(self.path) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def _describe_selection(scores: Mapping[str, float], *, best: bool, select: str) -> str:
    """Return IoU and F1 of a validation, and whether the weights are kept for it."""
    undefined = find_undefined_scores(scores)
    shown = [
        f"{score} {'undefined' if score in undefined else format(scores[score], '.3f')}"
        for score in ("iou", "f1")
        if score in scores
    ]
    if "iou" in undefined:
        shown.append("(no change in the labels)" if select == "last" else "(no change in the labels: newest kept)")
    elif best and select != "last":
        shown.append("(best)")
    return "  ".join(shown)


def _summarise_terms(terms: Mapping[str, float]) -> str:
    """Return the loss as a sum that fits in a line: terms of one kind, which their first word names, added up."""
    kinds = dict[str, float]()
    for name, value in terms.items():
        kind = name.partition("_")[0]
        kinds[kind] = kinds.get(kind, 0.0) + value
    return " + ".join(f"{kind} {value:.3f}" for kind, value in kinds.items())
