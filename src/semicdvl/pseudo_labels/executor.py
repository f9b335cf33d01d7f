"""Several processes fill one store: on this machine (`local`), or over a Ray cluster (`ray`).

Each worker builds its own VLM once and then takes pair after pair; what it does with a pair is `Filler.fill`, as in one
process, so the store comes out the same to the byte. Workers write into the store themselves: on a cluster it has to
lie on a file system that all nodes share, as have the images.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semicdvl.ceg.config import CEGSettings
from semicdvl.ceg.features import FeatureSource
from semicdvl.errors import ConfigError, SemicdvlError, StoreError
from semicdvl.pseudo_labels.generate import Filler
from semicdvl.pseudo_labels.locks import writing
from semicdvl.pseudo_labels.store import PseudoStore, StoreSpec
from semicdvl.types import VLM, PairFiles

ENGINES = ("local", "ray")
POLICY = "OMP_WAIT_POLICY"
AHEAD = 4
"""Pairs per worker that are handed out ahead of time."""
Record = dict[str, Any]
Run = Callable[[Sequence[PairFiles], "Crew", PseudoStore, CEGSettings], Generator[Record]]
"""An engine: fills pairs and yields their records in order."""


@dataclass(frozen=True)
class Crew:
    """Who does the work, and what each of them builds its parts from: it travels to other processes.

    Attributes:
        vlm: builds the VLM; a function of a module, perhaps with arguments (`functools.partial`).
        features: builds the source of features, or None.
        workers: number of processes.
        engine: `local` (this machine) or `ray`.
    """

    vlm: Callable[[], VLM]
    features: Callable[[], FeatureSource] | None = None
    workers: int = 1
    engine: str = "local"

    def __post_init__(self) -> None:
        """Refuse an unknown engine and no worker.

        Raises:
            ConfigError: so it is.
        """
        if self.engine not in ENGINES or self.workers < 1:
            raise ConfigError(
                f"engine '{self.engine}' with {self.workers} workers: give local or ray, and at least one worker."
            )

    @property
    def alone(self) -> bool:
        """Whether the work is done in the process that asks for it."""
        return self.engine == "local" and self.workers == 1

    def filler(self, root: Path, spec: StoreSpec, settings: CEGSettings) -> Filler:
        """Build the parts and what works with them.

        Raises:
            StoreError: the VLM built here is another one than that of the store.
        """
        vlm, features = self.vlm(), None if self.features is None else self.features()
        if vlm.identity != spec.vlm:
            raise StoreError(
                f"{root}: a worker has the VLM {vlm.identity}, the store is made with {spec.vlm}. "
                "All machines need the same weights and the same versions."
            )
        return Filler(PseudoStore(root, spec), settings, vlm, features)


def fill_with(
    pairs: Sequence[PairFiles], crew: Crew, *, spec: StoreSpec, settings: CEGSettings, root: Path
) -> Generator[Record]:
    """Do what `generate.generate` does, in several processes; yield the records in the order of the pairs.

    Interrupted, it waits for the pairs that are being worked on and keeps them.

    Args:
        pairs: the pairs.
        crew: who does it.
        spec: of the store, from `generate.spec_of`.
        settings: of change event generation.
        root: the store.

    Raises:
        MissingExtraError: Ray is not installed.
        StoreError: a worker died, or its VLM is another one; else as `generate.generate`.
    """
    run: Run = _local
    if crew.engine == "ray":
        from semicdvl.pseudo_labels.ray_executor import on_ray as run
    store = PseudoStore.create(root, spec)
    with writing(root):
        yield from run(pairs, crew, store, settings)


# ------------------------------------------------------------------------------------------------ this machine
_filler: Filler | SemicdvlError | None = None
"""The filler of this worker process, or why there is none."""


def _start(crew: Crew, root: Path, spec: StoreSpec, settings: CEGSettings, threads: Threads) -> None:
    """Make a process ready: it leaves Ctrl-C to its parent, which lets it finish its pair."""
    global _filler
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threads.adopt()
    try:
        _filler = crew.filler(root, spec, settings)
    except SemicdvlError as error:  # told with the first pair: a pool hides what goes wrong here
        _filler = error


def _fill(pair: PairFiles) -> Record:
    """Fill one pair in a worker process."""
    if isinstance(_filler, SemicdvlError):
        raise _filler
    assert _filler is not None, "the process was made ready"
    return _filler.fill(pair)


def _local(pairs: Sequence[PairFiles], crew: Crew, store: PseudoStore, settings: CEGSettings) -> Generator[Record]:
    """Fill pairs in processes of this machine. New ones (`spawn`): a forked copy of a threaded process can hang."""
    context = multiprocessing.get_context("spawn")
    with sleepy_threads():
        pool = ProcessPoolExecutor(
            crew.workers,
            mp_context=context,
            initializer=_start,
            initargs=(crew, store.root, store.spec, settings, Threads.here()),
        )
        waiting: deque[Future[Record]] = deque()
        try:
            for pair in pairs:
                waiting.append(pool.submit(_fill, pair))
                if len(waiting) >= crew.workers * AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise StoreError(
                f"{store.root}: a worker process died, perhaps for want of memory. Run the same command again with "
                "fewer --workers; what was done is kept."
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True)
class Threads:
    """How many threads compute. A worker takes as many as the process that asks, and it is told so.

    A convolution's last digit depends on the number of threads, so with fewer the answers would not be the same to the
    byte. More threads than cores do little harm if they sleep while they wait. To give each worker less, and one
    process the same, set OMP_NUM_THREADS.

    Attributes:
        count: threads of torch; None where torch is not used.
    """

    count: int | None

    @classmethod
    def here(cls) -> Threads:
        """Return what this process computes with."""
        return cls(sys.modules["torch"].get_num_threads() if "torch" in sys.modules else None)

    def adopt(self) -> None:
        """Compute so from now on."""
        if self.count is not None:
            import torch

            torch.set_num_threads(self.count)


@contextlib.contextmanager
def sleepy_threads() -> Iterator[None]:
    """Let the threads of processes that are started meanwhile sleep while they wait, unless the user has said how."""
    given = os.environ.get(POLICY)
    os.environ.setdefault(POLICY, "PASSIVE")
    try:
        yield
    finally:
        if given is None:
            del os.environ[POLICY]
