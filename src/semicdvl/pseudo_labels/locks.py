"""Locks of a store that several processes fill: who is writing, and who is asking the VLM about which image.

    STORE/.locks/writing      held, shared, by every process that fills the store
    STORE/.locks/<key>        held by the one process that makes the file of this key

The locks are the operating system's (`flock`, through portalocker): they end with the process that holds them, however
it ends. They only save work and space. A store is correct without them, too, since every file is written atomically
under a key of its content; so where a file system has no locks, work continues and may be done twice.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import portalocker
from portalocker.exceptions import LockException

from semicdvl.atomic_files import leave_nothing_if_refused
from semicdvl.outputs.exchange import open_plain_file, require_own_folder, sweep_unfinished_files
from semicdvl.outputs.messages import make_output_error

LOCK_FOLDER = ".locks"
EXCLUSIVE, SHARED = portalocker.LockFlags.EXCLUSIVE, portalocker.LockFlags.SHARED
NON_BLOCKING = portalocker.LockFlags.NON_BLOCKING


@contextlib.contextmanager
def lock_for_writing(root: Path) -> Iterator[None]:
    """Mark this process as one that fills the store.

    The first such process removes unfinished files of processes that were killed; no other can be writing then.

    Raises:
        OutputError: the store cannot be written.
    """
    with _open_lock_file(root / LOCK_FOLDER / "writing") as handle:
        try:
            portalocker.lock(handle, EXCLUSIVE | NON_BLOCKING)
        except LockException:
            pass  # another process is writing, and unfinished files may be its own
        else:
            _remove_leftovers(root)
        with contextlib.suppress(LockException):
            portalocker.lock(handle, SHARED)
        yield


def list_records(root: Path) -> list[Path]:
    """Return the records of all labels of a store, without those that a process is writing, or left unfinished."""
    return sorted((root / "labels").glob("*/[!.]*.json"))


@contextlib.contextmanager
def leave_no_empty_store(root: Path) -> Iterator[None]:
    """Remove a store that the block made if it is refused before any pair was labelled, and nobody else fills it."""

    def is_worth_keeping() -> bool:
        if list_records(root):
            return True
        path = root / LOCK_FOLDER / "writing"
        with contextlib.suppress(OSError), open(path, "rb", opener=open_plain_file) as handle:
            try:
                portalocker.lock(handle, EXCLUSIVE | NON_BLOCKING)
            except LockException:
                return True  # others are writing, or it cannot be told
        return False

    with leave_nothing_if_refused(root, keep=is_worth_keeping):
        yield


def _remove_leftovers(root: Path) -> None:
    """Remove unfinished files and old locks."""
    sweep_unfinished_files(root, depth=3)
    for path in [path for path in (root / LOCK_FOLDER).iterdir() if path.name != "writing"]:
        with contextlib.suppress(OSError):
            path.unlink()


@contextlib.contextmanager
def lock_key(root: Path, key: str) -> Iterator[None]:
    """Wait until no other process makes the file of this key, and let others wait meanwhile.

    Raises:
        OutputError: the store cannot be written.
    """
    path = root / LOCK_FOLDER / key
    with _open_lock_file(path) as handle:
        with contextlib.suppress(LockException):
            portalocker.lock(handle, EXCLUSIVE)
        try:
            yield
        finally:  # a process that waited for this lock finds the file that was made meanwhile
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _open_lock_file(path: Path) -> Iterator[int]:
    """Open a lock file, made where there is none; what lies beside it is removed, so its folder is no link."""
    require_own_folder(path.parent)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = open_plain_file(path, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise make_output_error(path, error) from error
    try:
        yield handle
    finally:
        os.close(handle)
