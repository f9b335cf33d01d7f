"""The store's filler over a Ray cluster: one actor per worker, with a share of the GPUs where there are any."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semicdvl.ceg.config import CEGSettings
from semicdvl.errors import MissingExtraError, SemicdvlError, StoreError, WorkerError
from semicdvl.pseudo_labels.executor import WAIT_POLICY_VARIABLE, LabelRecord, ThreadCount, WorkerSettings
from semicdvl.pseudo_labels.store import PseudoLabelStore, StoreSpec
from semicdvl.types import PairFiles


@dataclass(frozen=True)
class DriverEnvironment:
    """Where the command was given.

    Attributes:
        folder: what relative paths, which stand in records too, are meant from.
        modules: where Python looks for modules.
        threads: how many of them compute.
        omp: OMP_NUM_THREADS, which Ray sets to 1 in an actor; None: not set.
    """

    folder: Path
    modules: tuple[str, ...]
    threads: ThreadCount
    omp: str | None

    @classmethod
    def current(cls) -> DriverEnvironment:
        """Return what this process is like."""
        return cls(Path.cwd(), tuple(sys.path), ThreadCount.current(), os.environ.get("OMP_NUM_THREADS"))

    def apply(self) -> None:
        """Make this process like the one that asks; Ray gives an actor one thread and a path of its own."""
        os.chdir(self.folder)
        sys.path.extend(entry for entry in self.modules if entry not in sys.path)
        os.environ.setdefault(WAIT_POLICY_VARIABLE, "PASSIVE")
        os.environ.pop("OMP_NUM_THREADS", None)
        if self.omp is not None:
            os.environ["OMP_NUM_THREADS"] = self.omp
        self.threads.apply()


class StoreWorker:
    """What an actor holds: the VLM and the store."""

    def __init__(self, here: DriverEnvironment) -> None:
        """Make the process like the one that asks."""
        here.apply()
        self.failed: SemicdvlError | None = None

    def build(self, crew: WorkerSettings, root: Path, spec: StoreSpec, settings: CEGSettings) -> None:
        """Build the parts, once; what goes wrong is told with the first pair.

        Not in `__init__`: what the crew is made of may be found only once the path is right.
        """
        try:
            self.filler = crew.build_labeler(root, spec, settings)
        except SemicdvlError as error:
            self.failed = error

    def label_pair(self, pair: PairFiles) -> LabelRecord | SemicdvlError:
        """Return the record of a pair, or the user's error, which Ray would wrap in one of its own."""
        if self.failed is not None:
            return self.failed
        try:
            return self.filler.label_pair(pair)
        except SemicdvlError as error:
            return error


def fill_on_ray(
    pairs: Sequence[PairFiles], crew: WorkerSettings, store: PseudoLabelStore, settings: CEGSettings
) -> Generator[LabelRecord]:
    """Fill pairs on the cluster that RAY_ADDRESS names or that is connected, else on a Ray started here for it.

    Raises:
        MissingExtraError: Ray is not installed.
        StoreError: an actor died.
    """
    with connect_ray(crew.workers) as ray:
        try:
            actors = start_actors(ray, StoreWorker, crew.workers)
            ray.get([one.build.remote(crew, store.root, store.spec, settings) for one in actors])
            done = ray.util.ActorPool(actors).map(lambda one, pair: one.fill.remote(pair), pairs)
            for record in done:
                if isinstance(record, SemicdvlError):
                    raise record
                yield record
        except ray.exceptions.RayActorError as error:
            raise StoreError(
                f"{store.root}: an actor of Ray died ({str(error).strip().splitlines()[-1]}). "
                "Run the same command again, perhaps with fewer --workers; what was done is kept."
            ) from error


@contextlib.contextmanager
def connect_ray(workers: int) -> Iterator[Any]:
    """Give Ray, on the cluster that RAY_ADDRESS names or that is connected, else one of this machine, started for it.

    Raises:
        MissingExtraError: Ray is not installed.
        WorkerError: no cluster answers at RAY_ADDRESS, or Ray does not start here.
    """
    ray = _import_ray()
    started_here = not ray.is_initialized()
    if started_here:
        _start_ray(ray, workers)
    try:
        yield ray
    finally:
        if started_here:
            ray.shutdown()


def _start_ray(ray: Any, workers: int) -> None:
    """Connect or start."""
    address = os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {} if address else {"num_cpus": workers, "include_dashboard": False}
    try:
        ray.init(log_to_driver=False, **options)
    except Exception as error:  # Ray raises plain ones, too, such as that a part of it took more than 15 s to start
        ray.shutdown()
        reason = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
        if address:
            remedy = f"Check that a cluster runs at RAY_ADDRESS={address}, or unset it to have one started here"
        else:
            remedy = "If the machine is busy, run the same command again, or leave out --engine ray"
        raise WorkerError(f"Ray does not start ({reason}). {remedy}.") from error


def start_actors(ray: Any, kind: type[Any], workers: int) -> list[Any]:
    """Return actors of a class, made with `DriverEnvironment`: one CPU each, and an even share of the GPUs where there
    are any.
    """
    gpus = min(1.0, ray.cluster_resources().get("GPU", 0) / workers)
    actor = ray.remote(num_cpus=1, num_gpus=gpus)(kind)
    return [actor.remote(DriverEnvironment.current()) for _ in range(workers)]


def _import_ray() -> Any:
    """Import Ray, its usage statistics switched off."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.util
    except ImportError as error:
        raise MissingExtraError("--engine ray needs Ray: install semicdvl[ray].") from error
    return ray
