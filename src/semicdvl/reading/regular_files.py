"""The one way to read a file: it is a regular file, of a size that can be right, and nobody wrote to it meanwhile."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from semicdvl.errors import InputError
from semicdvl.reading.limits import MAX_COMPANION_TEXT_BYTES, MAX_NAME_BYTES, MAX_PATH_BYTES, MAX_TEXT_BYTES, MIB

KINDS = (
    (stat.S_ISFIFO, "is a named pipe"),
    (stat.S_ISSOCK, "is a socket"),
    (stat.S_ISCHR, "is a device"),
    (stat.S_ISBLK, "is a device"),
)
"""What is no file, and how an error calls it. Reading from these may never end."""
COMPANION_TEXTS = tuple(
    """
    .att .aux .clr .cpg .cst .dim .eph .geo .hdr .imd .j2w .jgw .jpw .mtl .pgw .points .pox .prj .pvl .qpj .rpb .rpc
    .rsc .stx .tab .tfw .tifw .til .txt .wld .wpw .xml
    """.split()
)
"""Suffixes of texts in which GDAL looks for georeference and metadata of other files, in lower case."""
EVERYDAY_TEXTS = (".geo", ".tab", ".txt", ".xml")
"""Those of them that files of any content have: a large one is that of an image only if its name says so."""
PLACE_ERRORS = frozenset({errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.EIO, errno.ESTALE})
"""Errors of the system about a name, a permission or a disk, and never about this program."""
CHANGED_REMEDY = "Run the same command again once the file is complete"


def find_path_fault(path: Path | str) -> str | None:
    """Return what makes a path impossible on any system; None if nothing does."""
    text = os.fspath(path)
    if "\0" in text:
        return "has a zero byte in its name"
    try:
        content = os.fsencode(text)
    except UnicodeEncodeError:
        return "has characters in its name that are no text"
    if len(content) > MAX_PATH_BYTES:
        return f"has {len(content):,} bytes in its name, and {MAX_PATH_BYTES:,} are possible"
    longest = max(map(len, content.split(b"/")))
    return f"has a name of {longest} bytes, and {MAX_NAME_BYTES} are possible" if longest > MAX_NAME_BYTES else None


def find_file_fault(path: Path | str) -> str | None:
    """Return why a path is neither a regular file nor a folder that can be read; None if it is, or does not exist.

    Every reader asks before it opens anything: opening a named pipe waits for a writer, and a device never ends.
    """
    fault = find_path_fault(path)
    if fault is not None:
        return fault
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        return f"cannot be read ({getattr(error, 'strerror', None) or error})"
    for is_kind, words in KINDS:
        if is_kind(mode):
            return words
    return None if os.access(path, os.R_OK) else f"cannot be read ({os.strerror(errno.EACCES)})"


def exists(path: Path | str) -> bool:
    """Tell whether there is a file or folder of a name that a file or a user gives, however long or odd it is.

    `Path.exists` and `Path.is_file` raise the error of the system for some names, such as those that are too long.
    """
    return os.path.exists(path)  # noqa: PTH110


def is_file(path: Path | str) -> bool:
    """Tell whether a name, however long or odd it is, is that of a file; see `exists`."""
    return os.path.isfile(path)  # noqa: PTH113


def require_file_or_folder(path: Path | str, *, remedy: str = "Give a regular file") -> None:
    """Refuse what is neither a regular file nor a folder; what does not exist is left to the reader.

    Raises:
        InputError: it is a named pipe, a socket or a device, or its name is impossible.
    """
    fault = find_file_fault(path)
    if fault is not None:
        raise InputError(shorten_path(path), fault, remedy)


def require_regular_file(path: Path, *, remedy: str, max_bytes: int | None = None) -> int:
    """Return the size in bytes of a file that is about to be read.

    Args:
        path: the file.
        remedy: what the error message advises to do.
        max_bytes: greatest size; None: any.

    Raises:
        InputError: it does not exist, is no regular file, or is too large.
    """
    require_file_or_folder(path, remedy=remedy)
    try:
        found = path.stat()
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", remedy) from error
    if stat.S_ISDIR(found.st_mode):
        raise InputError(path, "is a folder, not a file", remedy)
    if max_bytes is not None and found.st_size > max_bytes:
        problem = (
            f"has {found.st_size / MIB:,.0f} MiB, and files of this kind are read up to {max_bytes / MIB:,.0f} MiB"
        )
        raise InputError(path, problem, remedy)
    return found.st_size


def require_plain_companions(path: Path, *, remedy: str = "Delete it, or move it to another folder") -> None:
    """Refuse a file beside which lies something that would be opened with it, and that is no file or endless.

    GDAL looks for the georeference, the metadata and the overviews of an image, and for the parts of a layer, in files
    of the same folder (`a.tfw`, `a.tif.aux.xml`, `a_RPC.TXT`, `METADATA.DIM`, `a.dbf`, `a.gpkg-journal`, ...), some by
    their names, some by patterns. It waits for ever for a named pipe, and reads a device or an endless file to its end.

    Raises:
        InputError: there is a named pipe, a socket or a device whose name begins with that of the file or is that of
            metadata, or such a text of more than `limits.MAX_COMPANION_TEXT_BYTES`.
    """
    try:
        changed_ns = path.parent.stat().st_mtime_ns
    except OSError:  # whoever opens the file says what is wrong
        return
    for name, fault, is_large in _list_odd_files(str(path.parent), changed_ns):
        if _may_be_companion(name.casefold(), path, is_large=is_large):
            raise InputError(path, f"The file {name} beside it {fault}, and would be read with it", remedy)


def _may_be_companion(name: str, path: Path, *, is_large: bool) -> bool:
    """Tell whether GDAL may open a file, named in lower case, with another one in the same folder."""
    if name == path.name.casefold():
        return False
    stem = re.escape(path.stem.casefold())
    if re.match(rf"{stem}(\W|_)", name):
        return True
    if is_large and name.endswith(EVERYDAY_TEXTS):
        return re.search(rf"(\W|_){stem}(\W|_)|metadata|mtl\.txt$", name) is not None
    return name.endswith(COMPANION_TEXTS)


@lru_cache(maxsize=256)
def _list_odd_files(folder: str, changed_ns: int) -> tuple[tuple[str, str, bool], ...]:
    """Return what is no plain file in a folder: name, fault, and whether it is a text of too many bytes.

    Remembered: training opens files often.

    Args:
        folder: the folder.
        changed_ns: when a name in it was last added or removed; part of the key.
    """
    found = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            is_text = entry.name.casefold().endswith(COMPANION_TEXTS)
            if entry.is_dir(follow_symlinks=False) or (entry.is_file(follow_symlinks=False) and not is_text):
                continue
            with contextlib.suppress(OSError):
                facts = entry.stat()
                fault = next((words for is_kind, words in KINDS if is_kind(facts.st_mode)), None)
                is_large = fault is None and is_text and facts.st_size > MAX_COMPANION_TEXT_BYTES
                if is_large:
                    fault = f"has {facts.st_size / MIB:,.0f} MiB of text"
                if fault is not None:
                    found.append((entry.name, fault, is_large))
    return tuple(sorted(found))


def read_bytes(path: Path, *, remedy: str, max_bytes: int = MAX_TEXT_BYTES) -> bytes:
    """Return the content of a regular file.

    Raises:
        InputError: it does not exist, is no regular file, is too large, or cannot be read.
    """
    require_regular_file(path, remedy=remedy, max_bytes=max_bytes)
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", remedy) from error


def resolve_links(path: Path) -> Path:
    """Return an absolute path without links and `..`.

    Unlike `Path.resolve` of Python 3.11 and 3.12 it takes every path: where links lead in a circle or a name is too
    long, the rest of the path stays as it is, and whoever opens it says what is wrong.
    """
    return Path(os.path.realpath(path))


def describe_place_error(error: BaseException) -> str | None:
    """Return what to tell a user of an error of the system about a file or folder; None for any other error."""
    if not isinstance(error, OSError) or error.errno not in PLACE_ERRORS or error.filename is None:
        return None
    place = shorten_path(os.fsdecode(error.filename))
    return f"{place}: cannot be used ({error.strerror}). Check its name and its permissions."


def shorten_path(path: Path | str) -> str:
    """Return a path for a message: without control characters, and not longer than a few lines."""
    text = "".join(letter if letter.isprintable() else "?" for letter in os.fspath(path))
    return text if len(text) <= 400 else f"{text[:200]}...{text[-100:]}"


@dataclass(frozen=True)
class FileStamps:
    """Size and time of change of files at a moment.

    What was read of a file that somebody wrote to meanwhile is a mixture, and its hash that of neither content.

    Attributes:
        stamps: by file; None for one that did not exist.
    """

    stamps: dict[Path, tuple[int, int] | None]

    @classmethod
    def take(cls, paths: Iterable[Path]) -> FileStamps:
        """Return the stamps of files as they are now."""
        return cls({path: read_stamp(path) for path in dict.fromkeys(paths)})

    def find_changed(self) -> Path | None:
        """Return the first file that was written to since; one that is gone was still read as it was."""
        for path, earlier in self.stamps.items():
            now = read_stamp(path)
            if now is not None and now != earlier:
                return path
        return None

    def require_unchanged(self, *, outcome: str = "no result fits it", remedy: str = CHANGED_REMEDY) -> None:
        """Refuse what was made of files of which one was written to in the meantime.

        Raises:
            InputError: it was; the file is named.
        """
        if (path := self.find_changed()) is not None:
            raise InputError(path, f"was changed while it was read, so that {outcome}", remedy)


def read_stamp(path: Path) -> tuple[int, int] | None:
    """Return size and time of change of a file; None for one that does not exist."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns
