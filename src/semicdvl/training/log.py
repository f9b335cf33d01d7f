"""What a person and a program can follow of a training: a progress bar, one JSON line per event, and TensorBoard."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from semicdvl.atomic_files import make_output_error, write_atomically

SCORE_NAMES = {"val": "validation", "test": "test_selected", "last": "validation"}
"""What the scores that choose the weights are called, by the pairs that they are of."""

NO_TENSORBOARD_WARNING = (
    "train.tensorboard is set, but TensorBoard is not installed: install semicdvl[track]. Until then log.jsonl alone "
    "has the numbers."
)


@dataclass(frozen=True)
class LogSettings:
    """What is written and shown.

    Attributes:
        title: what the progress bar calls the run.
        total: steps in all.
        selected_on: `val`; `test`: then every such score is written as test-selected; `last`: no score chooses.
        tensorboard: also write RUN/tensorboard/.
        main: False in all processes but the first, which write and show nothing.
        quiet: show nothing.
    """

    title: str
    total: int
    selected_on: Literal["val", "test", "last"] = "val"
    tensorboard: bool = False
    main: bool = True
    quiet: bool = False


class TrainingLog:
    """Writes RUN/log.jsonl and shows progress on standard error."""

    def __init__(self, path: Path, settings: LogSettings, *, start: int = 0) -> None:
        """Go on with the log at `path`; events of a lost end (step > start) are dropped from it."""
        self.path, self.settings, self.start = path, settings, start
        title, total, quiet = settings.title, settings.total, settings.quiet or not settings.main
        self._console = Console(stderr=True, quiet=quiet)
        self._tensorboard: Any = None
        if settings.main:
            self._make_folder()
            self._drop_events_after(start)
            if settings.tensorboard:
                self._open_tensorboard()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._task = self._bar.add_task(title, total=total, completed=start, note="")
        self._losses = Text(style="dim", no_wrap=True, overflow="ellipsis")
        shown = not quiet and self._console.is_terminal
        self._live = Live(Group(self._bar, self._losses), console=self._console, transient=True) if shown else None
        self._began, self._pairs = time.monotonic(), 0

    def __enter__(self) -> TrainingLog:
        """Start the bar."""
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

    def log_step(self, step: int, *, terms: Mapping[str, float], health: Mapping[str, float], pairs: int) -> None:
        """Note one finished step (counted from 1): its loss terms by name and health numbers."""
        self._pairs += pairs
        rate = self._pairs / max(time.monotonic() - self._began, 1e-9)
        total = sum(terms.values())
        self._bar.update(self._task, completed=step, note=f"loss {total:.3f}  {rate:.1f} pairs/s")
        self._losses.plain = "  " + _summarise_terms(terms)
        self._append_event({"step": step, "loss": total, **terms, **health, "pairs_per_s": round(rate, 2)})
        named = {f"loss/{name}": value for name, value in terms.items()}
        named |= {f"health/{name}": value for name, value in health.items()}
        self._write_scalars(step, {"loss/total": total, "speed/pairs_per_s": rate} | named)

    def log_validation(self, step: int, *, scores: Mapping[str, float], best: bool) -> None:
        """Note the scores that choose the weights; without any, that the state was saved."""
        name = SCORE_NAMES[self.settings.selected_on]
        self._append_event({"step": step, name: dict(scores), "best": best})
        self._write_scalars(step, {f"{name}/{score}": value for score, value in scores.items()})
        shown = "  ".join(f"{score} {value:.3f}" for score, value in scores.items() if score in ("iou", "f1"))
        what = name.replace("_", "-")
        place = f"{self.settings.title}: step {step}/{self.settings.total}"
        chosen = "  (best)" if best and self.settings.selected_on != "last" else ""
        self._console.print(f"{place}  {what} {shown}{chosen}" if scores else f"{place}  saved", highlight=False)

    def flush(self) -> None:
        """Have TensorBoard write what it holds back and a killed process would lose; lines are never held back."""
        if self._tensorboard is not None:
            self._tensorboard.flush()

    def log_warning(self, step: int, text: str) -> None:
        """Note something the user should look at."""
        self._append_event({"step": step, "warning": text})
        self._console.print(f"{self.settings.title}: step {step}: {text}", style="yellow", markup=False)

    def _open_tensorboard(self) -> None:
        """Start TensorBoard's files; without TensorBoard, say so and go on."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.log_warning(self.start, NO_TENSORBOARD_WARNING)
            return
        folder, lost = self.path.parent / "tensorboard", self.start + 1
        self._tensorboard = SummaryWriter(str(folder), purge_step=lost)

    def _write_scalars(self, step: int, numbers: Mapping[str, float]) -> None:
        """Hand numbers to TensorBoard."""
        if self._tensorboard is None:
            return
        for name, value in numbers.items():
            self._tensorboard.add_scalar(name, value, step)

    def _append_event(self, event: Mapping[str, object]) -> None:
        """Append one line."""
        if not self.settings.main:
            return
        try:
            with self.path.open("a", encoding="utf-8") as handle:
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
        """Drop the events after `step`: training goes on from there and will write them again."""
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                event = json.loads(line)
            except ValueError:  # the line that a killed process was writing
                continue
            if event.get("step", 0) <= step:
                kept.append(line)
        with write_atomically(self.path) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def _summarise_terms(terms: Mapping[str, float]) -> str:
    """Return the loss as a sum that fits in a line: terms of one kind, which their first word names, added up."""
    kinds = dict[str, float]()
    for name, value in terms.items():
        kind = name.partition("_")[0]
        kinds[kind] = kinds.get(kind, 0.0) + value
    return " + ".join(f"{kind} {value:.3f}" for kind, value in kinds.items())
