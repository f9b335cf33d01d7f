"""The tiles of a detection over a Ray cluster: one actor per worker, with a share of the GPUs where there are any.

Reading, blending and writing stay in the process that was started; tiles go out and their answers come back in order, a
bounded number of them on the way. What is computed for a tile is `tiles.answer`, as in one process, so that the result
is the same to the byte wherever the numbers are computed alike (the same kind of processor, as many threads).

A worker gets its detector in one of two ways. Usually it builds it as the command did, from the files that the options
name, which it must find under the same paths: sessions of ONNX Runtime, compiled networks and networks on a GPU cannot
be sent. A detector that was fitted to the whole pair (`Detector.prepare`) carries its statistics and is sent as it is.
"""

from __future__ import annotations

import contextlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Any

from semicdvl.detection.tiles.tile_runner import ComputeTiles, TileExecutor, TileJob, detect_tile
from semicdvl.errors import ConfigError, SemicdvlError, WorkerError
from semicdvl.pseudo_labels.ray_executor import DriverEnvironment, connect_ray, start_actors
from semicdvl.types import Detector, TilePrediction, identify_detector

TILE_EXECUTORS = ("local", "ray")
TILES_IN_FLIGHT = 3
"""Tiles per worker that are sent and not yet taken back: one is computed while others travel."""
BuildDetector = Callable[[], Detector]


class DetectorWorker:
    """What an actor holds: the detector."""

    def __init__(self, here: DriverEnvironment) -> None:
        """Make the process like the one that asks."""
        here.apply()
        self.detector: Detector | None = None

    def build(self, build: BuildDetector, wanted: dict[str, Any]) -> SemicdvlError | None:
        """Build the detector; return what a user can mend about it.

        Not in `__init__`: what it is made of may be found only once the path is right.
        """
        try:
            self.detector = build()
        except SemicdvlError as error:
            return error
        if (found := identify_detector(self.detector)) != wanted:
            told = "All machines need the same files and the same versions of what computes, and one kind of device"
            return ConfigError(
                f"a worker of Ray has another detector than this process: {found}, not {wanted}. {told}."
            )
        return None

    def take(self, detector: Detector) -> None:
        """Take a detector as it is."""
        self.detector = detector

    def answer(self, job: TileJob, gsd_m: float | None) -> TilePrediction | SemicdvlError:
        """Return the answer, or the user's error, which Ray would wrap in one of its own."""
        assert self.detector is not None, "it was made ready"
        try:
            return detect_tile(self.detector, _copy_job(job), gsd_m=gsd_m)
        except SemicdvlError as error:
            return error


class RayTileExecutor:
    """An engine for `run.detect`; to be used in a `with`, for as many pairs as one likes.

    Ray is started (or connected to: RAY_ADDRESS) with the first tile that there is to compute, and stopped with the
    `with` if it was started here.
    """

    def __init__(self, *, workers: int, build: BuildDetector | None = None, built: Detector | None = None) -> None:
        """Remember who does the work.

        Args:
            workers: number of actors.
            build: builds the detector; a function of a module, perhaps with arguments (`functools.partial`). None: the
                detector itself is sent.
            built: what it has built here; another detector than this one is sent as it is.

        Raises:
            ConfigError: no worker.
        """
        if workers < 1:
            raise ConfigError(f"--workers {workers}: wanted at least one.")
        self._workers, self._build, self._built = workers, build, built
        self._open = ExitStack()
        self._ray: Any = None
        self._actors: list[Any] = []
        self._held: Detector | None = None
        """The detector that the actors have."""

    def __enter__(self) -> RayTileExecutor:
        """Start nothing yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the actors, whatever they are at."""
        for actor in self._actors:
            with contextlib.suppress(Exception):  # one that is dead already
                self._ray.kill(actor)
        self._actors, self._held = [], None
        self._open.close()

    def bind(self, detector: Detector, *, gsd_m: float | None) -> ComputeTiles:
        """Return what computes tiles with this detector; the actors get it with the first tile."""
        return partial(self._answers, detector, gsd_m)

    def _answers(self, detector: Detector, gsd_m: float | None, jobs: Iterable[TileJob]) -> Iterator[TilePrediction]:
        """Give the answers in the order of the jobs.

        Raises:
            ConfigError: the detector cannot be sent, or is another one over there.
            MissingExtraError: Ray is not installed.
            WorkerError: an actor died.
        """
        waiting: deque[Any] = deque()
        at_work: dict[Any, int] = {}
        try:
            for job in jobs:
                if job.dates_HWC is None:  # nothing to look at
                    waiting.append(detect_tile(detector, job, gsd_m=gsd_m))
                else:
                    self._hand_over(detector)
                    waiting.append(self._sent(job, gsd_m, at_work))
                while waiting and (len(waiting) >= TILES_IN_FLIGHT * self._workers or self._is_here(waiting[0])):
                    yield self._taken(waiting.popleft(), at_work)
            while waiting:
                yield self._taken(waiting.popleft(), at_work)
        except Exception as error:
            self._refuse_dead(error)
            raise

    def _sent(self, job: TileJob, gsd_m: float | None, at_work: dict[Any, int]) -> Any:
        """Send a tile to the actor with the least to do; return the promise of its answer."""
        if at_work:
            for done in self._ray.wait(list(at_work), num_returns=len(at_work), timeout=0)[0]:
                del at_work[done]
        busy = Counter(at_work.values())
        least = min(range(self._workers), key=lambda at: busy[at])
        promise = self._actors[least].answer.remote(job, gsd_m)
        at_work[promise] = least
        return promise

    def _is_here(self, one: Any) -> bool:
        return isinstance(one, TilePrediction) or bool(self._ray.wait([one], timeout=0)[0])

    def _taken(self, one: Any, at_work: dict[Any, int]) -> TilePrediction:
        """Return an answer, waiting for it."""
        if isinstance(one, TilePrediction):
            return one
        found = self._ray.get(one)
        at_work.pop(one, None)
        if isinstance(found, SemicdvlError):
            raise found
        result: TilePrediction = found
        return result

    def _hand_over(self, detector: Detector) -> None:
        """Give the actors a detector, unless they have it."""
        if self._held is detector:
            return
        if not self._actors:
            self._ray = self._open.enter_context(connect_ray(self._workers))
            self._actors = start_actors(self._ray, DetectorWorker, self._workers)
        if self._build is not None and detector is self._built:
            wanted = identify_detector(detector)
            failed = self._ray.get([one.build.remote(self._build, wanted) for one in self._actors])
            for error in failed:
                if error is not None:
                    raise error
        else:
            sent = self._put(detector)
            self._ray.get([one.take.remote(sent) for one in self._actors])
        self._held = detector

    def _put(self, detector: Detector) -> Any:
        """Lay a detector down where all actors can take it."""
        try:
            return self._ray.put(detector)
        except Exception as error:
            raise ConfigError(
                f"{detector.name} cannot be sent to a worker of Ray ({type(error).__name__}: {error}). Leave out "
                "--engine ray; in Python, hand RayTiles what builds it."
            ) from error

    def _refuse_dead(self, error: Exception) -> None:
        """Raise the error of a user for an actor that is gone."""
        if self._ray is None or not isinstance(error, self._ray.exceptions.RayActorError):
            return
        self.__exit__(None, None, None)
        last = str(error).strip().splitlines()[-1]
        raise WorkerError(
            f"a worker of Ray died ({last}), perhaps for want of memory. What is done is kept: run the same command "
            "again, perhaps with fewer --workers."
        ) from error


def _copy_job(job: TileJob) -> TileJob:
    """Return a tile as a detector has it in one process: Ray gives arrays that cannot be written to."""
    if job.dates_HWC is None:
        return job
    t1_HWC, t2_HWC = job.dates_HWC
    return TileJob((t1_HWC.copy(), t2_HWC.copy()), job.valid_HW.copy())


@contextlib.contextmanager
def open_executor(name: str, *, workers: int, build: BuildDetector, built: Detector) -> Iterator[TileExecutor | None]:
    """Give the engine of that name; None for this process.

    Args:
        name: "local" or "ray".
        workers: processes of "ray".
        build: builds the detector once more.
        built: the detector that it has built.

    Raises:
        ConfigError: an unknown engine, or several workers of this process.
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
