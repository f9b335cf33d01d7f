"""The errors that a user can cause, and what each is for.

    SemicdvlError
    ├── InputError         a file or an image that is missing, broken or does not fit the other one
    ├── ConfigError        a recipe, an option or a name that the program does not know
    ├── DataError          a data set or split that cannot be used (no labelled pair, contradicting lists, ...)
    ├── StoreError         a pseudo-label store that is broken, of another version or made for other images
    ├── CheckpointError    a folder that is not a run directory, or that holds another model
    ├── MissingExtraError  an optional package is needed; the text says which extra to install
    ├── OutputError        a folder that cannot be written: read-only, full disk, or holding something else
    ├── WorkerError        a worker process died; finished work is kept
    └── DivergedError      the training loss is not a number any more; the last good checkpoint is kept

Each message says what was found, what was expected and what to do. The command line prints it in one line and exits
with code 2, without a traceback. Any other exception is a mistake of this program and is shown with its traceback.
"""

from __future__ import annotations

from pathlib import Path

MAX_MESSAGE_CHARACTERS = 2_500
"""A longer message is cut in its middle."""


def _clean(text: str) -> str:
    """Return a message on one line, without characters that steer a terminal, and not endless."""
    text = "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.splitlines()))
    half = MAX_MESSAGE_CHARACTERS // 2
    return text if len(text) <= MAX_MESSAGE_CHARACTERS else f"{text[:half]} ... {text[-half:]}"


class SemicdvlError(Exception):
    """Base class of all errors that the user can correct.

    Examples:
        >>> import semicdvl as cd
        >>> try:
        ...     cd.create_vlm("arial")
        ... except cd.SemicdvlError as error:
        ...     print(error)
        unknown VLM 'arial'. Did you mean 'aerial'? Known: ...
    """

    def __init__(self, *parts: object) -> None:
        """Keep the message as text for a terminal: names in files may hold control characters, or be endless."""
        super().__init__(*(_clean(part) if isinstance(part, str) else part for part in parts))


class InputError(SemicdvlError):
    """A file that cannot be used; the message names the file, the problem and the remedy.

    Attributes:
        path: the file.
        problem: what is wrong with it.
        remedy: what to do.
    """

    def __init__(self, path: Path | str, problem: str, remedy: str) -> None:
        """Store the three parts; the message is `path: problem. remedy.`."""
        self.path, self.problem, self.remedy = str(path), problem, remedy
        super().__init__(f"{path}: {problem}. {remedy}{'' if remedy.endswith('?') else '.'}")

    def __reduce__(self) -> tuple[type[InputError], tuple[str, str, str]]:
        """Pickle with all three parts, so that a worker process can hand the error over."""
        return type(self), (self.path, self.problem, self.remedy)


class ConfigError(SemicdvlError):
    """A recipe, option or name that the program does not know."""


class DataError(SemicdvlError):
    """A data set or a split that cannot be used."""


class StoreError(SemicdvlError):
    """A pseudo-label store that is broken or belongs to other images."""


class CheckpointError(SemicdvlError):
    """A folder that is not a run directory, or that holds another model."""


class MissingExtraError(SemicdvlError):
    """An optional package is missing; the message names the extra to install."""


class OutputError(SemicdvlError):
    """An output that cannot be written."""


class WorkerError(SemicdvlError):
    """A worker process died; finished work is kept."""


class DivergedError(SemicdvlError):
    """The training loss is not a number any more; the last good checkpoint is kept."""
