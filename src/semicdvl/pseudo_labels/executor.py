"""Several processes fill one store: on this machine (`local`), or over a Ray cluster (`ray`).

Each worker builds its own VLM once and then takes pair after pair; what it does with a pair is `Filler.label_pair`, as
in one
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
from semicdvl.ceg.features import FeatureExtractor
from semicdvl.errors import ConfigError, SemicdvlError, StoreError
from semicdvl.pseudo_labels.generate import PseudoLabeler
from semicdvl.pseudo_labels.locks import lock_for_writing
from semicdvl.pseudo_labels.store import PseudoLabelStore, StoreSpec
from semicdvl.types import VLM, PairFiles

EXECUTORS = ("local", "ray")
WAIT_POLICY_VARIABLE = "OMP_WAIT_POLICY"
PAIRS_AHEAD = 4
"""Pairs per worker that are handed out ahead of time."""
LabelRecord = dict[str, Any]
ExecutorFunction = Callable[
    [Sequence[PairFiles], "WorkerSettings", PseudoLabelStore, CEGSettings], Generator[LabelRecord]
]
"""An engine: fills pairs and yields their records in order."""


@dataclass(frozen=True)
class WorkerSettings:
    """Who does the work, and what each of them builds its parts from: it travels to other processes.

    Attributes:
        build_vlm: builds the VLM; a function of a module, perhaps with arguments (`functools.partial`).
        build_features: builds the source of features, or None.
        workers: number of processes.
        engine: `local` (this machine) or `ray`.
    """

    build_vlm: Callable[[], VLM]
    build_features: Callable[[], FeatureExtractor] | None = None
    workers: int = 1
    engine: str = "local"

    def __post_init__(self) -> None:
        """Refuse an unknown engine and no worker.

        Raises:
            ConfigError: so it is.
        """
        if self.engine not in EXECUTORS or self.workers < 1:
            raise ConfigError(
                f"engine '{self.engine}' with {self.workers} workers: give local or ray, and at least one worker."
            )

    @property
    def runs_in_process(self) -> bool:
        """Whether the work is done in the process that asks for it."""
        return self.engine == "local" and self.workers == 1

    def build_labeler(self, root: Path, spec: StoreSpec, settings: CEGSettings) -> PseudoLabeler:
        """Build the parts and what works with them.

        Raises:
            StoreError: the VLM built here is another one than that of the store.
        """
        vlm, features = self.build_vlm(), None if self.build_features is None else self.build_features()
        if vlm.identity != spec.vlm:
            raise StoreError(
                f"{root}: a worker has the VLM {vlm.identity}, the store is made with {spec.vlm}. "
                "All machines need the same weights and the same versions."
            )
        return PseudoLabeler(PseudoLabelStore(root, spec), settings, vlm, features)


def fill_with_workers(
    pairs: Sequence[PairFiles], workers: WorkerSettings, *, spec: StoreSpec, settings: CEGSettings, root: Path
) -> Generator[LabelRecord]:
    """Do what `generate.generate_labels` does, in several processes; yield the records in the order of the pairs.

    Interrupted, it waits for the pairs that are being worked on and keeps them.

    Args:
        pairs: the pairs.
        workers: who does it.
        spec: of the store, from `generate.build_store_spec`.
        settings: of change event generation.
        root: the store.

    Raises:
        MissingExtraError: Ray is not installed.
        StoreError: a worker died, or its VLM is another one; else as `generate.generate_labels`.
    """
    run: ExecutorFunction = _fill_locally
    if workers.engine == "ray":
        from semicdvl.pseudo_labels.ray_executor import fill_on_ray as run
    store = PseudoLabelStore.create(root, spec)
    with lock_for_writing(root):
        yield from run(pairs, workers, store, settings)


# ------------------------------------------------------------------------------------------------ this machine
_labeler: PseudoLabeler | SemicdvlError | None = None
"""The filler of this worker process, or why there is none."""


def _start_worker(
    crew: WorkerSettings, root: Path, spec: StoreSpec, settings: CEGSettings, threads: ThreadCount
) -> None:
    """Make a process ready: it leaves Ctrl-C to its parent, which lets it finish its pair."""
    global _labeler
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threads.apply()
    try:
        _labeler = crew.build_labeler(root, spec, settings)
    except SemicdvlError as error:  # told with the first pair: a pool hides what goes wrong here
        _labeler = error


def _label_pair(pair: PairFiles) -> LabelRecord:
    """Fill one pair in a worker process."""
    if isinstance(_labeler, SemicdvlError):
        raise _labeler
    assert _labeler is not None, "the process was made ready"
    return _labeler.label_pair(pair)


def _fill_locally(
    pairs: Sequence[PairFiles], crew: WorkerSettings, store: PseudoLabelStore, settings: CEGSettings
) -> Generator[LabelRecord]:
    """Fill pairs in processes of this machine. New ones (`spawn`): a forked copy of a threaded process can hang."""
    context = multiprocessing.get_context("spawn")
    with passive_waiting():
        pool = ProcessPoolExecutor(
            crew.workers,
            mp_context=context,
            initializer=_start_worker,
            initargs=(crew, store.root, store.spec, settings, ThreadCount.current()),
        )
        waiting: deque[Future[LabelRecord]] = deque()
        try:
            for pair in pairs:
                waiting.append(pool.submit(_label_pair, pair))
                if len(waiting) >= crew.workers * PAIRS_AHEAD:
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
class ThreadCount:
    """How many threads compute. A worker takes as many as the process that asks, and it is told so.

    A convolution's last digit depends on the number of threads, so with fewer the answers would not be the same to the
    byte. More threads than cores do little harm if they sleep while they wait. To give each worker less, and one
    process the same, set OMP_NUM_THREADS.

    Attributes:
        count: threads of torch; None where torch is not used.
    """

    count: int | None

    @classmethod
    def current(cls) -> ThreadCount:
        """Return what this process computes with."""
        return cls(sys.modules["torch"].get_num_threads() if "torch" in sys.modules else None)

    def apply(self) -> None:
        """Compute so from now on."""
        if self.count is not None:
            import torch

            torch.set_num_threads(self.count)


@contextlib.contextmanager
def passive_waiting() -> Iterator[None]:
    """Let the threads of processes that are started meanwhile sleep while they wait, unless the user has said how."""
    given = os.environ.get(WAIT_POLICY_VARIABLE)
    os.environ.setdefault(WAIT_POLICY_VARIABLE, "PASSIVE")
    try:
        yield
    finally:
        if given is None:
            del os.environ[WAIT_POLICY_VARIABLE]
