"""Put a finished folder in the place of an older one, so that a kill at any point leaves one of the two there.

Where the system can exchange two names in one step (`renameat2` of Linux, `renamex_np` of macOS), there is no moment
without a folder of that name. Elsewhere (some network file systems) the older folder is moved aside first:

    .old-OUT-xxxxxxxx/OUT    the older folder, for as long as the newer one is not in its place
    .part-OUT-xxxxxxxx       a folder that is being written, or what is left of the older one after the exchange

A set of files in a folder that stays (an evaluation beside its map) is made ready in a folder of its own first and then
moved file by file (`write_file_set`); a kill in between is made good by the next start:

    OUT/.part-ready/     the complete set; what is left of it has still to be moved

`sweep_leftovers` undoes what a killed process left of that: it brings an older folder back that has no successor, and
removes the rest. Whoever calls it holds the lock of the output (`locks`).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from semicdvl.outputs.messages import make_output_error

TEMPORARY_PREFIX = ".part-"
"""Prefix of files and folders that are being written, or were left by a writer that was killed."""
REPLACED_PREFIX = ".old-"
"""Prefix of folders that hold an older output while the newer one takes its place."""
READY_SET = f"{TEMPORARY_PREFIX}ready"
"""Folder that holds a complete set of files while they are moved to their places."""
LOCK_INSIDE = f"{TEMPORARY_PREFIX}lock"
"""Name of the lock of a folder whose parent cannot be written (`locks`); never swept."""

AT_FDCWD, RENAME_EXCHANGE, RENAME_SWAP = -100, 2, 2
"""Constants of Linux and macOS for `exchange_paths`."""
UNSUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM, errno.ENOTTY}
"""Errors by which a kernel or a file system says that it cannot exchange names."""
_SAFELY = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
"""A link is an error, and a named pipe without a reader is one, too, in place of a wait."""


def open_plain_file(path: str | os.PathLike[str], flags: int) -> int:
    """Open a file for writing; to be handed to `open` as its `opener`.

    Raises:
        OSError: it is a symbolic link or no regular file, or it cannot be opened.
    """
    try:
        handle = os.open(path, flags | _SAFELY, 0o644)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "It is a symbolic link, which is not written through", str(path)) from error
        if error.errno == errno.ENXIO:
            raise OSError(errno.ENXIO, "It is no regular file", str(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.ENXIO, "It is no regular file", str(path))
    return handle


def require_own_folder(folder: Path) -> None:
    """Refuse a link or a file in the place of a folder for unfinished work, which is emptied: it need not exist.

    Raises:
        OutputError: there is one, or the folder may not be read and written.
    """
    if folder.is_symlink():
        raise make_output_error(folder, OSError(errno.ELOOP, "It is a symbolic link, which is not written through"))
    if folder.exists() and not folder.is_dir():
        raise make_output_error(folder, OSError(errno.ENOTDIR, "It is a file"))
    if folder.exists() and not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise make_output_error(folder, OSError(errno.EACCES, os.strerror(errno.EACCES)))


def exchange_paths(first: Path, second: Path) -> bool:
    """Let two existing files or folders of one file system change names in one step.

    Returns:
        False where the system or the file system cannot do that; nothing has happened then.

    Raises:
        OSError: one of them does not exist, or may not be renamed.
    """
    library = ctypes.CDLL(None, use_errno=True)
    before, after = os.fsencode(first), os.fsencode(second)
    if sys.platform == "linux" and hasattr(library, "renameat2"):
        failed = library.renameat2(AT_FDCWD, before, AT_FDCWD, after, RENAME_EXCHANGE)
    elif sys.platform == "darwin" and hasattr(library, "renamex_np"):
        failed = library.renamex_np(before, after, RENAME_SWAP)
    else:
        return False
    if not failed:
        return True
    if (code := ctypes.get_errno()) in UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), str(second))


def replace_folder(folder: Path, path: Path) -> None:
    """Rename a finished folder to `path`, replacing the folder of that name; both must be on one file system.

    Whenever the process is killed, `path` is the older or the newer folder, or `sweep_leftovers` makes it so.

    Raises:
        OSError: a folder cannot be renamed.
    """
    sync_files(folder)
    if not path.exists():
        folder.replace(path)
    elif exchange_paths(folder, path):
        shutil.rmtree(folder, ignore_errors=True)  # it has the older content now
    else:
        _replace_in_two_steps(folder, path)


def _replace_in_two_steps(folder: Path, path: Path) -> None:
    """Move the older folder aside, then the newer one to its place; bring the older one back if that fails."""
    aside = Path(tempfile.mkdtemp(prefix=f"{REPLACED_PREFIX}{path.name}-", dir=path.parent))
    path.replace(aside / path.name)
    try:
        folder.replace(path)
    except OSError:
        (aside / path.name).replace(path)
        aside.rmdir()
        raise
    shutil.rmtree(aside, ignore_errors=True)


def sync_files(folder: Path) -> None:
    """Have the system write a folder's files to the disk, so that a power cut after their renaming loses nothing."""
    for path in folder.iterdir():
        if path.is_file() and not path.is_symlink():
            sync_file(path)


def sync_file(path: Path) -> None:
    """Have the system write a file to the disk; file systems that cannot are left alone."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    finally:
        os.close(handle)


@contextlib.contextmanager
def write_file_set(folder: Path) -> Iterator[Path]:
    """Yield an empty folder for files that belong together and then take their places in `folder` together.

    The caller holds the lock of `folder`, so that an earlier set that a kill interrupted is complete already.

    Raises:
        OutputError: the folder cannot be written.
    """
    work = folder / f"{TEMPORARY_PREFIX}{secrets.token_hex(4)}"
    try:
        work.mkdir()
        yield work
        sync_files(work)
        work.replace(folder / READY_SET)
        finish_file_set(folder)
    except OSError as error:
        raise make_output_error(folder, error) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def finish_file_set(folder: Path) -> None:
    """Move the files of a complete set that a killed process did not move any more.

    Raises:
        OutputError: a file cannot be moved.
    """
    ready = folder / READY_SET
    if ready.is_dir() and not ready.is_symlink():
        for path in sorted(ready.iterdir()):
            try:
                path.replace(folder / path.name)
            except OSError as error:
                raise make_output_error(folder / path.name, error) from error
        ready.rmdir()


def sweep_leftovers(path: Path) -> None:
    """Bring back an older folder that was moved aside, and remove what killed writers of `path` left beside it.

    A set of files in `path` whose moving was interrupted is completed.

    Only the holder of the output's lock may call this: what another process is writing looks the same.

    Raises:
        OSError: the older folder cannot be moved back.
    """
    if not path.parent.is_dir():
        return
    prefix = f"({re.escape(TEMPORARY_PREFIX)}|{re.escape(REPLACED_PREFIX)})"
    mine = re.compile(rf"{prefix}{re.escape(path.name)}-[a-z0-9_]{{8}}")
    left = sorted(entry for entry in path.parent.iterdir() if mine.fullmatch(entry.name) and not entry.is_symlink())
    for folder in left:
        if folder.name.startswith(REPLACED_PREFIX) and (folder / path.name).exists() and not path.exists():
            (folder / path.name).replace(path)
        shutil.rmtree(folder, ignore_errors=True)
    finish_file_set(path)


def sweep_unfinished_files(folder: Path, *, depth: int = 1) -> None:
    """Remove unfinished files that a killed writer left in a folder and in its folders down to a depth.

    Folders that are links are not entered: what is there may be of another writer, who is at work.
    """
    for level in range(depth):
        for left in folder.glob("/".join(["*"] * level + [f"{TEMPORARY_PREFIX}*"])):
            above = [folder.joinpath(*left.relative_to(folder).parts[:part]) for part in range(1, level + 1)]
            if left.name in (LOCK_INSIDE, READY_SET) or any(parent.is_symlink() for parent in above):
                continue
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    left.unlink()
