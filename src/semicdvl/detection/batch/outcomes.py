"""What came out of a batch: one outcome per pair."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from semicdvl.reading.json_files import read_model
from semicdvl.reports.numbers import format_area, format_count

BATCH_FORMAT = "semicdvl-pairs"
INDEX_FILE, RECORD_FILE = "index.html", "pairs.json"


class PairEntry(BaseModel):
    """A pair in pairs.json, as far as it is read again; the names are stored."""

    name: str = Field(max_length=255)
    state: Literal["done", "kept", "failed"]
    error: str | None = None


class BatchRecord(BaseModel):
    """What pairs.json holds; the names are stored."""

    format: Literal["semicdvl-pairs"]
    pairs: list[PairEntry]


def read_batch_record(root: Path) -> BatchRecord:
    """Read the record of an earlier `detect --pairs`.

    Raises:
        InputError: there is none, or it is damaged.
    """
    return read_model(root / RECORD_FILE, BatchRecord, remedy="Run `semicdvl detect --pairs` again")


@dataclass(frozen=True)
class PairOutcome:
    """What came out of one pair.

    Attributes:
        name: of the pair, and of its folder.
        state: "done", "kept" (an earlier run did it) or "failed".
        objects: number of changed objects; this and the next four are None where the pair failed.
        changed_m2: changed area; also None where the size of a pixel is not known.
        changed_px: number of changed pixels.
        seen_px: number of pixels with data at both dates.
        by_kind: number of objects per kind of change.
        warnings: what a reader of the result should know.
        seconds: what the pair took in this run.
        error: why it failed.
    """

    name: str
    state: str
    objects: int | None = None
    changed_m2: float | None = None
    changed_px: int | None = None
    seen_px: int | None = None
    by_kind: dict[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    error: str | None = None

    @property
    def area_text(self) -> str:
        """The changed area with its unit."""
        return format_area(self.changed_m2 or float(self.changed_px or 0), metric=self.changed_m2 is not None)

    @property
    def summary(self) -> str:
        """What came out, in a few words."""
        if self.objects is None:
            return f"failed: {self.error}"
        notes = f", {format_count(len(self.warnings), 'note')}" if self.warnings else ""
        return f"{format_count(self.objects, 'changed object')}, {self.area_text}{notes}"


@dataclass(frozen=True)
class BatchResult:
    """What came out of all pairs.

    Attributes:
        root: the folder of the results.
        outcomes: one per pair, in the order of the table.

    Examples:
        >>> import semicdvl as cd
        >>> done = cd.detect_pairs(table, out, detector=cd.create_detector("cva"), progress=False)
        >>> len(done.outcomes), done.failed
        (1, ())
    """

    root: Path
    outcomes: tuple[PairOutcome, ...]

    @property
    def failed(self) -> tuple[PairOutcome, ...]:
        """The pairs that failed."""
        return tuple(outcome for outcome in self.outcomes if outcome.state == "failed")

    @property
    def summary(self) -> str:
        """All of it in a few lines."""
        states = [outcome.state for outcome in self.outcomes]
        counts = ((states.count("done"), "done"), (states.count("kept"), "done before"), (len(self.failed), "failed"))
        words = ", ".join(f"{count} {word}" for count, word in counts if count)
        return f"{format_count(len(states), 'pair')}: {words}\nindex:   {self.root / INDEX_FILE}"
