"""One process at a time on one output: a lock that names its holder and ends with it.

    .OUT.lock           beside the output, while somebody works on it
    OUT/.part-lock      instead, where the folder above cannot be written

The lock is the operating system's (`flock`, through portalocker): it ends with the process that holds it, however that
ends, so a lock of a dead process never has to be removed by hand. The file says who holds it: process, machine, since
when. On Linux, `flock` also works between the machines of an NFS share (version 4, or 3 with its lock daemon). Where a
file system has no locks at all, the content of the file stands in for it: a holder on this machine that lives, or one
on another machine, keeps others out; a dead one on this machine does not.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

import portalocker
from portalocker.exceptions import AlreadyLocked, LockException

from semicdvl.errors import OutputError
from semicdvl.outputs.exchange import LOCK_INSIDE, open_plain_file, sweep_leftovers
from semicdvl.outputs.messages import FULL_ERRORS, ODD_FILE_ERRORS, make_output_error

DEAD_HOLDER_WAIT_S = 10.0
"""How long the end of a lock is awaited whose holder is dead: children may keep it for a moment."""
POLL_S = 0.1
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class LockHolder:
    """Who holds a lock, as its file says.

    Attributes:
        pid: number of the process.
        host: name of the machine.
        since: when it took the lock, UTC.
    """

    pid: int
    host: str
    since: str

    @classmethod
    def current(cls) -> LockHolder:
        """Return this process."""
        return cls(os.getpid(), socket.gethostname(), datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"))

    def __str__(self) -> str:
        """Return the holder in words."""
        return f"process {self.pid} on {self.host}, since {self.since}"

    def is_dead(self) -> bool:
        """Tell whether the process ran on this machine and does not run any more."""
        if self.host != socket.gethostname():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:  # it lives, and belongs to somebody else
            return False
        return False


@dataclass
class _HeldLock:
    """A lock of this process: the thread that took it, and the open file."""

    thread: int
    handle: int


_held: dict[Path, _HeldLock] = {}
_guard = threading.RLock()


def _drop_in_child() -> None:
    """Close the locks that a forked child inherits, which would otherwise outlive their holder."""
    for lock in _held.values():
        with contextlib.suppress(OSError):
            os.close(lock.handle)
    _held.clear()


os.register_at_fork(after_in_child=_drop_in_child)


@contextlib.contextmanager
def lock_output(path: Path) -> Iterator[None]:
    """Hold the lock of an output, a file or a folder, which need not exist; a thread may take it several times.

    What killed processes left beside it is swept (`exchange.sweep_leftovers`), once the lock is held.

    Raises:
        OutputError: another process is working on it, or its place cannot be written.
    """
    place = Path(os.path.realpath(path))
    with _guard:
        mine = _held.get(place)
    if mine is not None:
        if mine.thread != threading.get_ident():
            raise OutputError(_describe_holder(path, LockHolder.current()))
        yield
        return
    with _make_missing_parents(place, path):
        is_shut_above = place.is_dir() and not os.access(place.parent, os.W_OK)
        file = place / LOCK_INSIDE if is_shut_above else place.parent / f".{place.name}.lock"
        with _guard:
            _held[place] = _HeldLock(threading.get_ident(), _acquire(file, path))
        try:
            try:
                sweep_leftovers(place)
            except OSError as error:
                raise make_output_error(place, error) from error
            yield
        finally:
            with _guard:
                held = _held.pop(place, None)
                if held is not None:  # a child that was forked meanwhile holds nothing
                    try:
                        with contextlib.suppress(OSError):
                            file.unlink()
                    finally:
                        with contextlib.suppress(OSError):
                            os.close(held.handle)


def lock_argument(name: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Return a decorator that lets a function hold the lock of the output that its argument `name` gives.

    Args:
        name: argument of the function: a path.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        signature = inspect.signature(function)

        @wraps(function)
        def run(*arguments: P.args, **options: P.kwargs) -> T:
            with lock_output(Path(signature.bind(*arguments, **options).arguments[name])):
                return function(*arguments, **options)

        return run

    return decorate


@contextlib.contextmanager
def _make_missing_parents(place: Path, path: Path) -> Iterator[None]:
    """Make the folders above an output; those that are empty afterwards are removed again.

    Args:
        place: where the output is.
        path: how the user called it.

    Raises:
        OutputError: they cannot be made, or the system says in the block that no more can be written, whoever wrote.
    """
    missing = [parent for parent in place.parents if not parent.exists()]
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise make_output_error(place, error) from error
    try:
        yield
    except OSError as error:
        if error.errno not in FULL_ERRORS:
            raise
        raise make_output_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            for parent in missing:
                parent.rmdir()


def _acquire(file: Path, path: Path) -> int:
    """Return the open file once its lock is held."""
    until = time.monotonic() + DEAD_HOLDER_WAIT_S
    while True:
        try:
            handle = open_plain_file(file, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise make_output_error(file if error.errno in ODD_FILE_ERRORS else path, error) from error
        if _try_to_lock(handle):
            with contextlib.suppress(OSError):  # its last holder may have removed it meanwhile
                if os.path.samestat(os.fstat(handle), file.stat()):
                    _write_holder(handle, path)
                    return handle
            os.close(handle)
            continue
        holder = _read_holder(handle)
        os.close(handle)
        alive = holder is not None and not holder.is_dead()
        if alive or time.monotonic() > until:
            raise OutputError(_describe_holder(path, holder, file=file))
        time.sleep(POLL_S)


def _try_to_lock(handle: int) -> bool:
    """Take the lock of an open file; where the file system has none, by what the file says."""
    try:
        portalocker.lock(handle, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
    except AlreadyLocked:
        return False
    except LockException:
        holder = _read_holder(handle)
        return holder is None or holder.is_dead()
    return True


def _write_holder(handle: int, path: Path) -> None:
    content = (json.dumps(vars(LockHolder.current())) + "\n").encode()
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, content, 0)
    except OSError as error:
        os.close(handle)
        raise make_output_error(path, error) from error


def _read_holder(handle: int) -> LockHolder | None:
    """Return who holds a lock; None where the file does not say it."""
    try:
        content = json.loads(os.pread(handle, 4096, 0))
        return LockHolder(int(content["pid"]), str(content["host"])[:100], str(content["since"])[:40])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _describe_holder(path: Path, holder: LockHolder | None, *, file: Path | None = None) -> str:
    """Return the message for an output that is locked."""
    who = "another process" if holder is None else f"another run ({holder})"
    text = f"{path}: {who} is writing to it. Wait for it, or give another name with -o."
    if holder is None or holder.host == socket.gethostname() or file is None:
        return text
    return f"{text} If it does not run any more, delete {file}."
