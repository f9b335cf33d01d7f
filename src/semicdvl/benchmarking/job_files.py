"""Where a run of a suite keeps its files: what trained runs and detectors have in common."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from semicdvl.atomic_files import hash_values


class JobFiles(ABC):
    """A run by its name below the suite's folder `out`."""

    out: Path

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of its files."""

    @property
    def run(self) -> Path:
        """Run directory; a detector makes none."""
        return self.out / "runs" / self.name

    @property
    def result(self) -> Path:
        """Where its outcome is written, whole, when it has ended."""
        return self.out / "jobs" / f"{self.name}.result.json"


def build_file_name(words: Sequence[str], determined_by: object, *, out: Path) -> str:
    """Return a file name that ends in a hash of what determines a run, independent of the suite's folder."""
    moved = str(determined_by).replace(str(out), "OUT")
    return f"{re.sub(r'[^a-z0-9.-]+', '-', '-'.join(words).lower())}-{hash_values(moved)[:8]}"
