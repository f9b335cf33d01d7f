"""A pool of Ray actors that computes tasks in parallel and returns their results in order.

Detection sends tiles through it, and pseudo-label generation pairs. Ray's own `ActorPool` is not used, since it takes
all tasks at once: here only a bounded number is in flight, so that a raster is never held in memory, and a result that
is known without a worker keeps its place in the order.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any

from semicdvl.errors import ConfigError, MissingExtraError, SemicdvlError, WorkerError
from semicdvl.worker_processes import DriverEnvironment

MAX_DEATHS = 3
"""A task during which so many actors died is given up: it takes too much memory, or ends its process itself."""


@dataclass(frozen=True)
class Ready:
    """A task whose result is known without a worker; it keeps its place in the order of the results."""

    result: Any


@dataclass(eq=False)
class _SentTask:
    """A task that was sent to an actor, and what is needed to send it again."""

    method: str
    arguments: tuple[Any, ...]
    worker: int
    actor: Any
    reference: Any
    deaths: list[str] = field(default_factory=list)


class RayActorPool:
    """Actors of one class on a Ray cluster, used as a context manager.

    Nothing is started before `start`. Ray is connected to where RAY_ADDRESS or an earlier `ray.init` says, else it is
    started on this machine and stopped at the end of the context. Each actor gets one CPU and one GPU, or
    an even share where there are fewer of them than workers.

    An actor that dies is replaced, and what it was computing is computed again, so that the results are the same; a
    task in which `MAX_DEATHS` actors died ends the work.

    Methods of the actors return a `SemicdvlError` instead of raising it, since Ray wraps exceptions in its own; the
    pool raises it here.

    Attributes:
        workers: number of actors.
    """

    def __init__(self, actor_class: type[Any], *, workers: int) -> None:
        """Set up the pool.

        Args:
            actor_class: class of the actors; its constructor takes the `DriverEnvironment`.
            workers: number of actors.

        Raises:
            ConfigError: no worker.
        """
        if workers < 1:
            raise ConfigError(f"--workers {workers}: at least one worker is needed.")
        self.workers, self._class = workers, actor_class
        self._open = ExitStack()
        self._ray: Any = None
        self._actors: list[Any] = []
        self._running: dict[Any, int] = {}
        self._start_actor: Callable[[], Any] | None = None
        self._prepared: tuple[str, tuple[Any, ...]] | None = None

    def __enter__(self) -> RayActorPool:
        """Return the pool; nothing is started yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the actors, whatever they are computing."""
        for actor in self._actors:
            with contextlib.suppress(Exception):  # an actor that is dead already
                self._ray.kill(actor)
        self._actors = []
        self._running.clear()
        self._open.close()

    @property
    def is_started(self) -> bool:
        """Whether the actors run."""
        return bool(self._actors)

    def start(self) -> None:
        """Connect to Ray and start the actors, unless they run.

        Raises:
            MissingExtraError: Ray is not installed.
            WorkerError: no cluster answers at RAY_ADDRESS, or Ray does not start here.
        """
        if not self._actors:
            self._ray = self._open.enter_context(connect_ray(self.workers))
            self._start_actor = _define_actor(self._ray, self._class, self.workers)
            self._actors = [self._start_actor() for _ in range(self.workers)]

    def share(self, value: Any) -> Any:
        """Store a value on the cluster once, to be handed to all actors; anything that Ray can serialise."""
        return self._ray.put(value)

    def call_all(self, method: str, *arguments: Any) -> list[Any]:
        """Call a method of every actor and return the results once all are there.

        An actor that replaces a dead one gets the last of these calls again.

        Raises:
            SemicdvlError: a result is one.
            WorkerError: an actor died.
        """
        with self._report_dead_actor():
            results = self._ray.get([getattr(actor, method).remote(*arguments) for actor in self._actors])
        self._prepared = method, arguments
        for result in results:
            _raise_error(result)
        return list(results)

    def map_ordered(self, method: str, tasks: Iterable[tuple[Any, ...] | Ready], *, in_flight: int) -> Iterator[Any]:
        """Yield the results of tasks in their order.

        Args:
            method: method of the actors that computes a task.
            tasks: its arguments, or a result that is known already. Taken one by one, as results are used.
            in_flight: greatest number of tasks per actor that are sent and whose results are not yet yielded.

        Raises:
            SemicdvlError: the result of a task is one.
            WorkerError: an actor died again and again.
        """
        waiting: deque[_SentTask | Ready] = deque()
        with self._report_dead_actor():
            for task in tasks:
                waiting.append(task if isinstance(task, Ready) else self._send(method, task))
                while waiting and (len(waiting) >= in_flight * self.workers or self._is_finished(waiting[0])):
                    yield self._take(waiting.popleft())
            while waiting:
                yield self._take(waiting.popleft())

    def _send(self, method: str, arguments: tuple[Any, ...]) -> _SentTask:
        """Send a task to the actor with the fewest tasks."""
        if self._running:
            for done in self._ray.wait(list(self._running), num_returns=len(self._running), timeout=0)[0]:
                del self._running[done]
        busy = Counter(self._running.values())
        worker = min(range(self.workers), key=lambda index: busy[index])
        actor = self._actors[worker]
        task = _SentTask(method, arguments, worker, actor, getattr(actor, method).remote(*arguments))
        self._running[task.reference] = worker
        return task

    def _is_finished(self, entry: _SentTask | Ready) -> bool:
        return isinstance(entry, Ready) or bool(self._ray.wait([entry.reference], timeout=0)[0])

    def _take(self, entry: _SentTask | Ready) -> Any:
        """Return the result of a task, waiting for it; where its actor died, it is sent again."""
        if isinstance(entry, Ready):
            return entry.result
        while True:
            try:
                result = self._ray.get(entry.reference)
                break
            except self._ray.exceptions.RayActorError as error:
                self._running.pop(entry.reference, None)
                entry.deaths.append(str(error))
                if len(entry.deaths) >= MAX_DEATHS:
                    raise
                self._send_again(entry)
        self._running.pop(entry.reference, None)
        _raise_error(result)
        return result

    def _send_again(self, task: _SentTask) -> None:
        """Send a task of a dead actor to the actor that replaces it."""
        if self._actors[task.worker] is task.actor:
            assert self._start_actor is not None, "tasks are sent to actors that were started"
            self._actors[task.worker] = self._start_actor()
            if self._prepared is not None:
                method, arguments = self._prepared
                _raise_error(self._ray.get(getattr(self._actors[task.worker], method).remote(*arguments)))
        task.actor = self._actors[task.worker]
        task.reference = getattr(task.actor, task.method).remote(*task.arguments)
        self._running[task.reference] = task.worker

    @contextlib.contextmanager
    def _report_dead_actor(self) -> Iterator[None]:
        """Stop the pool and raise a `WorkerError` if an actor died."""
        try:
            yield
        except Exception as error:
            if self._ray is None or not isinstance(error, self._ray.exceptions.RayActorError):
                raise
            self.__exit__(None, None, None)
            reason = str(error).strip().splitlines()[-1]
            raise WorkerError(
                f"A Ray worker died ({reason}), perhaps because memory ran out. Finished work is kept: run the same "
                "command again, with fewer --workers if it happens again."
            ) from error


def _raise_error(result: Any) -> None:
    if isinstance(result, SemicdvlError):
        raise result


# ------------------------------------------------------------------------------------------------ cluster
@contextlib.contextmanager
def connect_ray(workers: int) -> Iterator[Any]:
    """Yield the module `ray`, connected to a cluster.

    That is the cluster at RAY_ADDRESS or the one connected already, else one that is started on this machine.

    Args:
        workers: number of CPUs of a cluster that is started here.

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
    """Connect to the cluster at RAY_ADDRESS, or start one on this machine."""
    address = os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {} if address else {"num_cpus": workers, "include_dashboard": False}
    try:
        ray.init(log_to_driver=False, **options)
    except Exception as error:  # also plain exceptions, such as for a component that takes more than 15 s to start
        ray.shutdown()
        reason = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
        if address:
            remedy = f"Check that a cluster runs at RAY_ADDRESS={address}, or unset it to have one started here"
        else:
            remedy = "If the machine is busy, run the same command again, or leave out --engine ray"
        raise WorkerError(f"Ray does not start ({reason}). {remedy}.") from error


def _define_actor(ray: Any, actor_class: type[Any], workers: int) -> Callable[[], Any]:
    """Return what starts an actor, with an even share of the CPUs and GPUs of the cluster."""
    present = ray.cluster_resources()
    cpus, gpus = (_share_evenly(present.get(kind, 0), workers) for kind in ("CPU", "GPU"))
    actor = ray.remote(num_cpus=cpus, num_gpus=gpus)(actor_class)
    environment = DriverEnvironment.current()
    return partial(actor.remote, environment)


def _share_evenly(count: float, workers: int) -> float:
    """Return how much of a resource each worker takes so that all have room: one, or a whole fraction of one.

    A share lies in one GPU: of 2 GPUs, 3 workers with 2/3 each would leave the third waiting for ever.
    """
    return 1 / math.ceil(workers / count) if count >= 1 else 0


def _import_ray() -> Any:
    """Import Ray with its usage statistics switched off."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("--engine ray needs Ray: install semicdvl[ray].") from error
    return ray
