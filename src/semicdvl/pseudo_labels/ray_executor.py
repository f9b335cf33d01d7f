"""Pseudo-label generation on a Ray cluster: one actor per worker, with a share of the GPUs where there are any."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from semicdvl.ceg.config import CEGSettings
from semicdvl.errors import SemicdvlError
from semicdvl.pseudo_labels.store import PseudoLabelStore
from semicdvl.pseudo_labels.store_spec import StoreSpec
from semicdvl.pseudo_labels.workers import WorkerSettings
from semicdvl.ray_cluster import RayActorPool
from semicdvl.types import PairFiles
from semicdvl.worker_processes import DriverEnvironment

PAIRS_IN_FLIGHT = 4
"""Pairs per worker that are sent ahead of time."""


class StoreWorker:
    """State of an actor: the VLM and the store."""

    def __init__(self, environment: DriverEnvironment) -> None:
        """Reproduce the environment of the process that started the actor."""
        environment.apply()

    def build(
        self, workers: WorkerSettings, root: Path, spec: StoreSpec, settings: CEGSettings
    ) -> SemicdvlError | None:
        """Build the VLM and the store; return the error if that is not possible.

        Not in `__init__`: modules may be found only once the environment is applied.
        """
        try:
            self.labeler = workers.build_labeler(root, spec, settings)
        except SemicdvlError as error:
            return error
        return None

    def label_pair(self, pair: PairFiles) -> dict[str, Any] | SemicdvlError:
        """Return the record of a pair, or the error, which Ray would wrap in one of its own."""
        try:
            return self.labeler.label_pair(pair)
        except SemicdvlError as error:
            return error


def fill_on_ray(
    pairs: Sequence[PairFiles], workers: WorkerSettings, store: PseudoLabelStore, settings: CEGSettings
) -> Iterator[dict[str, Any]]:
    """Label pairs on a Ray cluster (see `ray_cluster.connect_ray`) and yield their records in order.

    Raises:
        MissingExtraError: Ray is not installed.
        WorkerError: an actor died.
    """
    with RayActorPool(StoreWorker, workers=workers.workers) as pool:
        pool.start()
        pool.call_all("build", workers, store.root, store.spec, settings)
        yield from pool.map_ordered("label_pair", ((pair,) for pair in pairs), in_flight=PAIRS_IN_FLIGHT)
