"""What a user is told when something cannot be written, and which errors of writers mean just that."""

from __future__ import annotations

import errno
from pathlib import Path

from semicdvl.errors import OutputError

FULL_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
"""Errors of the system that are always about writing: disk full, over quota, file too large, read-only."""
ODD_FILE_ERRORS = frozenset({errno.ELOOP, errno.ENXIO})
"""Errors of the system about what is called as an output and is no file: a link, a named pipe, a device."""
HANDLE_ERRORS = frozenset({errno.EMFILE, errno.ENFILE})
"""Errors of the system about how many files are open at once, whatever the folder."""
REMEDIES = {
    **dict.fromkeys(ODD_FILE_ERRORS, "Delete it"),
    errno.EEXIST: "Delete the file or the broken link that stands in the place of a folder",
    errno.EISDIR: "Delete the folder that stands in the place of a file",
    errno.ENOTDIR: "Delete the file that stands in the place of a folder",
    errno.EACCES: "Allow writing there",
    errno.EPERM: "Allow writing there",
}
"""What helps against errors of the system that are not about space."""
WRITER_PACKAGES = frozenset(
    {
        "_sqlite3",
        "matplotlib",
        "pyarrow",
        "pyogrio",
        "rasterio",
        "safetensors",
        "safetensors_rust",
        "sqlite3",
        "zipfile",
    }
)
"""Packages whose own errors, raised while a file is written, say that it cannot be."""


def make_output_error(path: Path, error: BaseException) -> OutputError:
    """Return the error for a path that could not be written, with the reason that the system or the writer gives."""
    given = getattr(error, "strerror", None) or str(error)
    lines = str(given).strip().splitlines()
    reason = lines[0].rstrip(".") if lines else type(error).__name__
    code = getattr(error, "errno", None) or 0
    if code in HANDLE_ERRORS:
        return OutputError(
            f"{path}: cannot be written ({reason}). Allow more open files (ulimit -n), then run it again."
        )
    remedy = REMEDIES.get(code, "Free some space")
    return OutputError(f"{path}: cannot be written ({reason}). {remedy} or give another folder with -o.")


def is_writing_error(error: BaseException) -> bool:
    """Tell whether an error that came while a file was written is the system's or of the library that writes it."""
    if isinstance(error, OSError):
        return True
    kinds = (kind.__module__.partition(".")[0] for kind in type(error).__mro__)
    return any(package in WRITER_PACKAGES for package in kinds)


def describe_stream_error(error: BaseException) -> str | None:
    """Return what to tell a user whose terminal, pipe or log takes no more text; None for any other error.

    Errors about files name them, or were given a name by `make_output_error`.
    """
    if not isinstance(error, OSError) or error.errno not in FULL_ERRORS or error.filename is not None:
        return None
    return (
        f"standard output cannot be written ({error.strerror}). Free some space there, or send it elsewhere. "
        "What is finished is kept: the same command resumes it."
    )
