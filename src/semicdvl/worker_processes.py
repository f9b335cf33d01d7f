"""How worker processes compute exactly as the process that started them, and end when that ends."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

WAIT_POLICY_VARIABLE = "OMP_WAIT_POLICY"
"""Environment variable that says whether waiting threads spin ("ACTIVE") or sleep ("PASSIVE")."""


@dataclass(frozen=True)
class ThreadCount:
    """Number of compute threads, which a worker takes over from the process that started it.

    The last digit of a convolution depends on the number of threads, so with another number the results would not be
    equal to the byte. More threads than cores do little harm while waiting threads sleep. To give every worker fewer
    threads, and a single process the same number, set OMP_NUM_THREADS.

    Attributes:
        count: threads of torch; None where torch is not used.
    """

    count: int | None

    @classmethod
    def current(cls) -> ThreadCount:
        """Return the number of threads of this process."""
        return cls(sys.modules["torch"].get_num_threads() if "torch" in sys.modules else None)

    def apply(self) -> None:
        """Use this number of threads in this process."""
        if self.count is not None:
            import torch

            torch.set_num_threads(self.count)


@dataclass(frozen=True)
class DriverEnvironment:
    """Environment of the process that was started by the user, to be reproduced in its workers.

    Attributes:
        folder: working directory, which relative paths (also those in records) refer to.
        modules: `sys.path`.
        threads: number of compute threads.
        omp: value of OMP_NUM_THREADS, which Ray sets to 1 in an actor; None if it is not set.
    """

    folder: Path
    modules: tuple[str, ...]
    threads: ThreadCount
    omp: str | None

    @classmethod
    def current(cls) -> DriverEnvironment:
        """Return the environment of this process."""
        return cls(Path.cwd(), tuple(sys.path), ThreadCount.current(), os.environ.get("OMP_NUM_THREADS"))

    def apply(self) -> None:
        """Reproduce the environment in this process, which Ray started with one thread and a path of its own."""
        os.chdir(self.folder)
        sys.path.extend(entry for entry in self.modules if entry not in sys.path)
        os.environ.setdefault(WAIT_POLICY_VARIABLE, "PASSIVE")
        os.environ.pop("OMP_NUM_THREADS", None)
        if self.omp is not None:
            os.environ["OMP_NUM_THREADS"] = self.omp
        self.threads.apply()


@contextlib.contextmanager
def passive_waiting() -> Iterator[None]:
    """Let waiting threads of processes that are started within this context sleep, unless the user chose a policy."""
    given = os.environ.get(WAIT_POLICY_VARIABLE)
    os.environ.setdefault(WAIT_POLICY_VARIABLE, "PASSIVE")
    try:
        yield
    finally:
        if given is None:
            del os.environ[WAIT_POLICY_VARIABLE]


PARENT_ENDED = 75
"""Exit code of a worker whose parent has ended (EX_TEMPFAIL: start it again and it resumes)."""


def end_with_parent(pipe: int | None = None) -> None:
    """Let this process end as soon as the one that started it has ended, however that happens: `kill -9`, a crash.

    A thread waits for the end of a pipe whose other end only the parent holds; the system closes it with the parent.

    Args:
        pipe: the reading end; None: the one that `multiprocessing` keeps for its children.
    """
    import multiprocessing
    from multiprocessing.connection import wait

    parent = multiprocessing.parent_process()
    handle = pipe if pipe is not None else None if parent is None else parent.sentinel
    if handle is None:
        return

    def watch() -> None:
        wait([handle])
        os._exit(PARENT_ENDED)

    threading.Thread(target=watch, name="end with parent", daemon=True).start()
