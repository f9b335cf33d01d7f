"""Several processes and one store: who is writing, and who is asking the VLM about which image.

    STORE/.locks/writing      held, shared, by every process that fills the store
    STORE/.locks/<key>        held by the one process that makes the file of this key

The locks are the operating system's (`flock`): they end with the process that holds them, however it ends. They only
save work and space. What a store holds is right without them, too, since every file is written whole under a key of
its content.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from semicdvl.atomic_files import TEMPORARY_PREFIX, make_output_error

LOCK_FOLDER = ".locks"


@contextlib.contextmanager
def lock_for_writing(root: Path) -> Iterator[None]:
    """Say that this process fills the store.

    The first of them to come removes what processes that were killed left half-written; nobody else is there then.

    Raises:
        OutputError: the store cannot be written.
    """
    with _open_lock_file(root / LOCK_FOLDER / "writing") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pass  # somebody else is writing: what is half-written may be theirs
        else:
            _remove_leftovers(root)
        with contextlib.suppress(OSError):  # a file system without locks: work goes on, perhaps twice
            fcntl.flock(handle, fcntl.LOCK_SH)
        yield


def _remove_leftovers(root: Path) -> None:
    """Remove temporary files and old locks."""
    leftovers = [*root.glob(f"{TEMPORARY_PREFIX}*"), *root.glob(f"*/*/{TEMPORARY_PREFIX}*")]
    for path in [*leftovers, *(path for path in (root / LOCK_FOLDER).iterdir() if path.name != "writing")]:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def lock_key(root: Path, key: str) -> Iterator[None]:
    """Wait until nobody else makes the file of this key, and keep others waiting meanwhile.

    Raises:
        OutputError: the store cannot be written.
    """
    path = root / LOCK_FOLDER / key
    with _open_lock_file(path) as handle:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            yield
        finally:  # one who waited for this very file finds what was made meanwhile
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _open_lock_file(path: Path) -> Iterator[int]:
    """Open a lock file, made where there is none."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise make_output_error(path, error) from error
    try:
        yield handle
    finally:
        os.close(handle)
