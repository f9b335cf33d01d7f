"""Several processes fill one store: on this machine (`local`) or on a Ray cluster (`ray`).

Each worker builds its own VLM once and then labels pair after pair with `PseudoLabeler.label_pair`, as a single process
does, so the bytes of the store are the same. Workers write into the store themselves: on a cluster, the store and the
images must lie on a file system that all nodes share.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from semicdvl.ceg.config import CEGSettings
from semicdvl.errors import SemicdvlError, WorkerError
from semicdvl.pseudo_labels.generate import PseudoLabeler
from semicdvl.pseudo_labels.locks import leave_no_empty_store, lock_for_writing
from semicdvl.pseudo_labels.store import PseudoLabelStore
from semicdvl.pseudo_labels.store_spec import StoreSpec
from semicdvl.pseudo_labels.workers import WorkerSettings
from semicdvl.types import PairFiles
from semicdvl.worker_processes import ThreadCount, end_with_parent, passive_waiting

PAIRS_AHEAD = 4
"""Pairs per worker that are submitted ahead of time."""


def fill_with_workers(
    pairs: Sequence[PairFiles], workers: WorkerSettings, *, spec: StoreSpec, settings: CEGSettings, root: Path
) -> Generator[dict[str, Any]]:
    """Fill the store as `generate.generate_labels`, in several processes; yield the records in the order of the pairs.

    If it is interrupted, the labels of finished pairs are kept.

    Args:
        pairs: the pairs.
        workers: number of workers, and what they build their parts from.
        spec: specification of the store, from `generate.build_store_spec`.
        settings: settings of change event generation.
        root: folder of the store.

    Raises:
        MissingExtraError: Ray is not installed.
        StoreError: a worker's VLM differs from the store's; else as in `generate.generate_labels`.
        WorkerError: a worker died.
    """
    with ExitStack() as held:
        held.enter_context(leave_no_empty_store(root))
        store = PseudoLabelStore.create(root, spec)
        held.enter_context(lock_for_writing(root))
        if workers.engine == "ray":
            from semicdvl.pseudo_labels.ray_executor import fill_on_ray

            yield from fill_on_ray(pairs, workers, store, settings)
        else:
            yield from _fill_locally(pairs, workers, store, settings)


# ------------------------------------------------------------------------------------------------ this machine
_labeler: PseudoLabeler | SemicdvlError | None = None
"""What labels pairs in this worker process, or the error that prevented it from being built."""


def _start_worker(
    workers: WorkerSettings, root: Path, spec: StoreSpec, settings: CEGSettings, threads: ThreadCount
) -> None:
    """Prepare a worker process; it leaves Ctrl-C to its parent, which lets it finish its pair, and ends with it."""
    global _labeler
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threads.apply()
    try:
        _labeler = workers.build_labeler(root, spec, settings)
    except SemicdvlError as error:  # raised with the first pair: the pool hides exceptions of the initialiser
        _labeler = error


def _label_pair(pair: PairFiles) -> dict[str, Any]:
    """Label one pair in a worker process."""
    if isinstance(_labeler, SemicdvlError):
        raise _labeler
    assert _labeler is not None, "_start_worker runs first"
    return _labeler.label_pair(pair)


def _fill_locally(
    pairs: Sequence[PairFiles], workers: WorkerSettings, store: PseudoLabelStore, settings: CEGSettings
) -> Iterator[dict[str, Any]]:
    """Label pairs in processes of this machine; spawned ones, since a forked copy of a threaded process can hang."""
    context = multiprocessing.get_context("spawn")
    with passive_waiting():
        pool = ProcessPoolExecutor(
            workers.workers,
            mp_context=context,
            initializer=_start_worker,
            initargs=(workers, store.root, store.spec, settings, ThreadCount.current()),
        )
        waiting: deque[Future[dict[str, Any]]] = deque()
        try:
            for pair in pairs:
                waiting.append(pool.submit(_label_pair, pair))
                if len(waiting) >= workers.workers * PAIRS_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise WorkerError(
                f"{store.root}: a worker process died, perhaps because memory ran out. Finished work is kept: run the "
                "same command again, with fewer --workers if it happens again."
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
