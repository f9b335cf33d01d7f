"""Memory of this process: freed blocks are kept for the next ones, given back, and foreign code gets only so much."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

KEPT_BYTES = 2**30
"""Blocks up to this size are reused, and so much free memory is kept: a network at 1152 px takes and frees more than
256 MiB at a time."""
GPU_SIGNS = ("CUDA out of memory", "CUDA error: out of memory", "MPS backend out of memory")
NO_MEMORY_SIGNS = (*GPU_SIGNS, "can't allocate memory", "bad_alloc")
"""What torch says where it gets no memory; for that of the processor it has no error of its own."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Numbers of `mallopt` in `malloc.h` of glibc."""
_DATA_FIELD = 5
"""Place of the pages of data, which RLIMIT_DATA counts, in `/proc/self/statm`."""


def keep_freed_memory() -> None:
    """Let the C library reuse large blocks; without effect where it is not glibc.

    By default it returns every block above 32 MiB to the system, and memory at the end of its heap above twice that,
    and gets the next one as empty pages, each of which costs a page fault: a third to a half of the time of a network
    at 1088 px (`docs/performance.md`).
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)


def return_freed_memory() -> None:
    """Give the free memory that `keep_freed_memory` keeps back to the system, where a stage ends that needed much.

    The next stage takes other blocks, for which the pieces of the former one are often too small, so that both would
    add up. Without effect where the C library is not glibc.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


@dataclass
class _DataLimit:
    """The limit of this process's memory, which several threads may want to lower for a while."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _users: int = 0
    _before: tuple[int, int] = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)

    def lower(self, most_bytes: int) -> None:
        """Allow so much besides what this process has; the last thread decides."""
        with self._lock:
            if not self._users:
                self._before = resource.getrlimit(resource.RLIMIT_DATA)
            self._users += 1
            allowed = _measure_data_bytes() + min(most_bytes, _measure_free_bytes())
            given = [each for each in self._before if each != resource.RLIM_INFINITY]
            resource.setrlimit(resource.RLIMIT_DATA, (min([allowed, *given]), self._before[1]))

    def restore(self) -> None:
        """Set the limit back once no thread needs it any more."""
        with self._lock:
            self._users -= 1
            if not self._users:
                resource.setrlimit(resource.RLIMIT_DATA, self._before)


_data_limit = _DataLimit()


@contextlib.contextmanager
def limit_memory(most_bytes: int) -> Iterator[None]:
    """Let this process take at most so much memory besides what it has, and no more than the machine has free.

    For libraries that take whatever a file asks for: they fail, where the system would end this process. Other threads
    fail as well if they need more meanwhile. Without effect where the system is not Linux.
    """
    if sys.platform != "linux":
        yield
        return
    _data_limit.lower(most_bytes)
    try:
        yield
    finally:
        _data_limit.restore()


def _measure_data_bytes() -> int:
    """Return how much memory of its own this process has asked for, whether it was used or not."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[_DATA_FIELD]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _measure_free_bytes() -> int:
    """Return how much memory the machine can give without swapping."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) * 2**10


def describe_memory_error(error: BaseException) -> str | None:
    """Return what to do where memory did not suffice, in one line; None for an error of another kind."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if not isinstance(error, MemoryError) and not any(sign in reason for sign in NO_MEMORY_SIGNS):
        return None
    on_gpu = any(sign in reason for sign in GPU_SIGNS)
    place, instead = ("the GPU", ", or --device cpu") if on_gpu else ("this machine", "")
    return (
        f"{place} has not enough free memory ({reason}). Ask for less: a smaller --tile, or when training smaller "
        f"train.labelled_batch and train.unlabelled_batch (train.accumulate makes up for it){instead}. "
        "What is finished is kept: the same command resumes it."
    )
