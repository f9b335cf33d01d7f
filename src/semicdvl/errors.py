"""Every error that a user can cause, and what each is for.

    SemicdvlError
    ├── InputError         a file or an image that is missing, broken or does not fit its partner
    ├── ConfigError        a recipe, an option or a name that the program does not know
    ├── DataError          a data set or split that cannot be used as asked (no labelled pair, leaking lists, ...)
    ├── StoreError         a pseudo-label store that is broken, of another version or made for other images
    ├── CheckpointError    a run directory that is none, or that holds another model
    ├── MissingExtraError  an optional package is needed; the text says which extra to install
    ├── OutputError        a folder that cannot be written: read-only, full disk, or holding something else
    ├── WorkerError        a process that took a part of the work died; what is done is kept
    └── DivergedError      training met a loss that is not a number; the last good checkpoint is kept

Each message says what came, what was wanted and what to do. The command line prints it in one line and exits with
code 2; no traceback. Anything that is not a `SemicdvlError` is a mistake of this program and is shown whole.
"""

from __future__ import annotations

from pathlib import Path


class SemicdvlError(Exception):
    """Base of every error that the user can mend."""


class InputError(SemicdvlError):
    """A file that cannot be used, with the file and the remedy in the message."""

    def __init__(self, path: Path | str, problem: str, remedy: str) -> None:
        """Keep the three parts; the message joins them as `path: problem. remedy.`."""
        self.path, self.problem, self.remedy = str(path), problem, remedy
        super().__init__(f"{path}: {problem}. {remedy}.")

    def __reduce__(self) -> tuple[type[InputError], tuple[str, str, str]]:
        """Let a loader process hand the error over whole."""
        return type(self), (self.path, self.problem, self.remedy)


class ConfigError(SemicdvlError):
    """A recipe, option or name that the program does not know."""


class DataError(SemicdvlError):
    """A data set or a split that cannot be used as asked."""


class StoreError(SemicdvlError):
    """A pseudo-label store that is broken or belongs to other images."""


class CheckpointError(SemicdvlError):
    """A run directory that is none, or that holds another model."""


class MissingExtraError(SemicdvlError):
    """An optional package is missing; the message names the extra that brings it."""


class OutputError(SemicdvlError):
    """An output that cannot be written."""


class WorkerError(SemicdvlError):
    """A process that took a part of the work died; what was done is kept."""


class DivergedError(SemicdvlError):
    """The loss is not a number any more; the last good checkpoint is kept."""
