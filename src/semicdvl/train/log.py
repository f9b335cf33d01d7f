"""What a person and a program can follow of a training: a progress bar, and one JSON line per event."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from semicdvl.files import unwritable, whole


class Log:
    """Writes RUN/log.jsonl and shows progress on standard error."""

    def __init__(self, path: Path, *, title: str, total: int, start: int = 0, quiet: bool = False) -> None:
        """Go on with the log at `path`; events of a lost end (step > start) are dropped from it."""
        self.path, self.title, self.total, self.start = path, title, total, start
        self._make_folder()
        self._keep_until(start)
        self._console = Console(stderr=True, quiet=quiet)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=quiet or not self._console.is_terminal,
        )
        self._task = self._bar.add_task(title, total=total, completed=start, note="")
        self._began, self._pairs = time.monotonic(), 0

    def __enter__(self) -> Log:
        """Start the bar."""
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the bar."""
        self._bar.stop()

    def step(self, step: int, *, terms: Mapping[str, float], health: Mapping[str, float], pairs: int) -> None:
        """Note one finished step (counted from 1): its loss terms by name and health numbers."""
        self._pairs += pairs
        rate = self._pairs / max(time.monotonic() - self._began, 1e-9)
        total = sum(terms.values())
        self._bar.update(self._task, completed=step, note=f"loss {total:.3f}  {rate:.1f} pairs/s")
        self._write({"step": step, "loss": total, **terms, **health, "pairs_per_s": round(rate, 2)})

    def validation(self, step: int, *, scores: Mapping[str, float], best: bool) -> None:
        """Note one validation."""
        self._write({"step": step, "validation": dict(scores), "best": best})
        shown = "  ".join(f"{name} {value:.3f}" for name, value in scores.items() if name in ("iou", "f1"))
        self._console.print(f"{self.title}: step {step}/{self.total}  validation {shown}{'  (best)' if best else ''}")

    def warn(self, step: int, text: str) -> None:
        """Note something the user should look at."""
        self._write({"step": step, "warning": text})
        self._console.print(f"[yellow]{self.title}: step {step}: {text}[/]")

    def _write(self, event: Mapping[str, object]) -> None:
        """Append one line."""
        try:
            with self.path.open("a", encoding="utf-8") as handle:
                handle.write(json.dumps(event) + "\n")
        except OSError as error:
            raise unwritable(self.path, error) from error

    def _make_folder(self) -> None:
        """Make the run directory."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(self.path.parent, error) from error

    def _keep_until(self, step: int) -> None:
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
        with whole(self.path) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
