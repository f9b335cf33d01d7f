"""Tell whether somebody wrote to a file while it was read: what was read of it is then a mixture."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from semicdvl.errors import InputError

_REMEDY = "Run the same command again once the file is complete"


@dataclass(frozen=True)
class FileStamps:
    """Size and time of change of files at a moment.

    Attributes:
        stamps: by file; None for one that did not exist.
    """

    stamps: dict[Path, tuple[int, int] | None]

    @classmethod
    def take(cls, paths: Iterable[Path]) -> FileStamps:
        """Return the stamps of files as they are now."""
        return cls({path: _stamp(path) for path in dict.fromkeys(paths)})

    def find_changed(self) -> Path | None:
        """Return the first file that was written to since; one that is gone was still read as it was."""
        for path, earlier in self.stamps.items():
            now = _stamp(path)
            if now is not None and now != earlier:
                return path
        return None

    def require_unchanged(self, *, outcome: str = "no result fits it", remedy: str = _REMEDY) -> None:
        """Refuse what was made of files of which one was written to in the meantime.

        Raises:
            InputError: it was; the file is named.
        """
        if (path := self.find_changed()) is not None:
            raise InputError(path, f"was changed while it was read, so that {outcome}", remedy)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns
