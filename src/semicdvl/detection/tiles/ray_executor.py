"""The tiles of a detection on a Ray cluster: one actor per worker, with a share of the GPUs where there are any.

Reading, blending and writing stay in the process that was started; tiles are sent and their predictions come back in
order, a bounded number of them at a time. A worker computes `tile_runner.detect_tile`, as a single process does, so the
result is equal to the byte wherever numbers are computed alike (same kind of processor, same number of threads).

A worker gets its detector in one of two ways. Usually it builds the detector from the files that the options name,
which it must find under the same paths: sessions of ONNX Runtime, compiled networks and networks on a GPU cannot be
sent. A detector that was fitted to the whole pair (`Detector.prepare`) carries its statistics and is sent as it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import TracebackType
from typing import Any

from semicdvl.detection.fingerprint import identify_detector
from semicdvl.detection.tiles.tile_runner import ComputeTiles, TileExecutor, TileJob, detect_tile
from semicdvl.errors import ConfigError, SemicdvlError
from semicdvl.ray_cluster import RayActorPool, Ready
from semicdvl.types import Detector, TilePrediction
from semicdvl.worker_processes import DriverEnvironment

TILE_EXECUTORS = ("local", "ray")
TILES_IN_FLIGHT = 3
"""Tiles per worker that are sent and not yet taken back: one is computed while others travel."""
BuildDetector = Callable[[], Detector]


class DetectorWorker:
    """State of an actor: the detector."""

    def __init__(self, environment: DriverEnvironment) -> None:
        """Reproduce the environment of the process that started the actor."""
        environment.apply()
        self.detector: Detector | None = None

    def build(self, build: BuildDetector, wanted: dict[str, Any]) -> SemicdvlError | None:
        """Build the detector; return the error if it cannot be built or differs from the driver's.

        Not in `__init__`: modules may be found only once the environment is applied.
        """
        try:
            self.detector = build()
        except SemicdvlError as error:
            return error
        if (found := identify_detector(self.detector)) != wanted:
            remedy = "All machines need the same files, the same versions of the packages and one kind of device"
            return ConfigError(
                f"a worker of Ray has another detector than this process: {found}, not {wanted}. {remedy}."
            )
        return None

    def take(self, detector: Detector) -> None:
        """Use a detector as it was sent."""
        self.detector = detector

    def predict_tile(self, job: TileJob, gsd_m: float | None) -> TilePrediction | SemicdvlError:
        """Return the prediction for a tile, or the error, which Ray would wrap in one of its own."""
        assert self.detector is not None, "build or take comes first"
        try:
            return detect_tile(self.detector, _copy_job(job), gsd_m=gsd_m)
        except SemicdvlError as error:
            return error


class RayTileExecutor:
    """Computes the tiles of `pipeline.write_detection` on Ray; a context manager, for any number of pairs.

    Ray is started, or connected to (RAY_ADDRESS), with the first tile that has to be computed, and stopped at the end
    of the context if it was started here.
    """

    def __init__(self, *, workers: int, build: BuildDetector | None = None, built: Detector | None = None) -> None:
        """Set up the executor; nothing is started yet.

        Args:
            workers: number of actors.
            build: builds the detector; a function of a module, perhaps with arguments (`functools.partial`). None: the
                detector itself is sent.
            built: what `build` returned in this process; any other detector is sent as it is.

        Raises:
            ConfigError: no worker.
        """
        self._pool = RayActorPool(DetectorWorker, workers=workers)
        self._build, self._built = build, built
        self._held: Detector | None = None
        """The detector that the actors have."""

    def __enter__(self) -> RayTileExecutor:
        """Return the executor."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the actors, whatever they are computing."""
        self._held = None
        self._pool.__exit__(kind, error, trace)

    def bind(self, detector: Detector, *, gsd_m: float | None) -> ComputeTiles:
        """Return what computes tiles with this detector; the actors get it with the first tile."""
        return partial(self._predict_tiles, detector, gsd_m)

    def _predict_tiles(
        self, detector: Detector, gsd_m: float | None, jobs: Iterable[TileJob]
    ) -> Iterator[TilePrediction]:
        """Yield the predictions in the order of the jobs.

        Raises:
            ConfigError: the detector cannot be sent, or the workers built another one.
            MissingExtraError: Ray is not installed.
            WorkerError: an actor died.
        """
        tasks = self._make_tasks(detector, gsd_m, jobs)
        yield from self._pool.map_ordered("predict_tile", tasks, in_flight=TILES_IN_FLIGHT)

    def _make_tasks(
        self, detector: Detector, gsd_m: float | None, jobs: Iterable[TileJob]
    ) -> Iterator[tuple[TileJob, float | None] | Ready]:
        """Yield a task per tile; tiles without data need no worker."""
        for job in jobs:
            if job.dates_HWC is None:
                yield Ready(detect_tile(detector, job, gsd_m=gsd_m))
            else:
                self._hand_over(detector)
                yield job, gsd_m

    def _hand_over(self, detector: Detector) -> None:
        """Give the actors a detector, unless they have it."""
        if self._held is detector and self._pool.is_started:
            return
        self._pool.start()
        if self._build is not None and detector is self._built:
            self._pool.call_all("build", self._build, identify_detector(detector))
        else:
            self._pool.call_all("take", self._share(detector))
        self._held = detector

    def _share(self, detector: Detector) -> Any:
        """Store a detector where all actors can take it."""
        try:
            return self._pool.share(detector)
        except Exception as error:
            raise ConfigError(
                f"{detector.name} cannot be sent to a worker of Ray ({type(error).__name__}: {error}). Leave out "
                "--engine ray; in Python, give RayTileExecutor a function that builds it."
            ) from error


def _copy_job(job: TileJob) -> TileJob:
    """Return a tile with writable arrays, as in a single process: those of Ray are read-only."""
    if job.dates_HWC is None:
        return job
    t1_HWC, t2_HWC = job.dates_HWC
    return TileJob((t1_HWC.copy(), t2_HWC.copy()), job.valid_HW.copy())


@contextlib.contextmanager
def open_executor(name: str, *, workers: int, build: BuildDetector, built: Detector) -> Iterator[TileExecutor | None]:
    """Give the executor of that name; None for this process.

    Args:
        name: "local" or "ray".
        workers: processes of "ray".
        build: builds the detector once more.
        built: the detector that it has built.

    Raises:
        ConfigError: an unknown executor, or several workers of this process.
    """
    if name not in TILE_EXECUTORS:
        raise ConfigError(f"engine '{name}' is unknown. Known: {', '.join(TILE_EXECUTORS)}.")
    if name == "local":
        if workers > 1:
            raise ConfigError(f"--workers {workers} are of --engine ray; one process computes with all cores anyway.")
        yield None
        return
    with RayTileExecutor(workers=workers, build=build, built=built) as engine:
        yield engine
