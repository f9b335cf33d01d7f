"""A dead actor is replaced, made ready like the first, and its tasks are computed again, in their order."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from semicdvl.errors import WorkerError
from semicdvl.ray_cluster import MAX_DEATHS, RayActorPool


class RayActorError(Exception):
    """What Ray raises for the result of a dead actor."""


class FakeRay:
    """Ray in this process: references are results, or the error that getting them raises."""

    exceptions = SimpleNamespace(RayActorError=RayActorError)

    def get(self, entry: Any) -> Any:
        if isinstance(entry, list):
            return [self.get(one) for one in entry]
        if isinstance(entry.result, Exception):
            raise entry.result
        return entry.result

    def wait(self, entries: list[Any], **_: Any) -> tuple[list[Any], list[Any]]:
        return entries, []

    def kill(self, actor: Any) -> None:
        actor.dead = True


class Actor:
    """Squares numbers once it is ready; it dies at the numbers of `deaths`, as often as they stand there."""

    started = 0

    def __init__(self, deaths: list[int]) -> None:
        Actor.started += 1
        self.deaths, self.dead, self.is_ready = deaths, False, False
        self.ready, self.square = SimpleNamespace(remote=self._ready), SimpleNamespace(remote=self._square)

    def _ready(self) -> Any:
        self.is_ready = True
        return SimpleNamespace(result=None)

    def _square(self, number: int) -> Any:
        assert self.is_ready, "a new actor is made ready first"
        if not self.dead and number in self.deaths:
            self.deaths.remove(number)
            self.dead = True
        return SimpleNamespace(result=RayActorError("killed") if self.dead else number**2)


def start_pool(deaths: list[int]) -> RayActorPool:
    pool, Actor.started = RayActorPool(Actor, workers=2), 0
    pool._ray, pool._start_actor = FakeRay(), lambda: Actor(deaths)
    pool._actors = [pool._start_actor() for _ in range(2)]
    pool.call_all("ready")
    return pool


class Reference(SimpleNamespace):
    """A hashable one."""

    __hash__ = object.__hash__  # type: ignore[assignment]


@pytest.fixture(autouse=True)
def hashable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.SimpleNamespace", Reference)


def test_tasks_of_a_dead_actor_are_computed_again() -> None:
    pool = start_pool([3, 8])
    assert list(pool.map_ordered("square", ((n,) for n in range(12)), in_flight=3)) == [n**2 for n in range(12)]
    assert Actor.started == 4


def test_a_task_that_ends_every_actor_ends_the_work() -> None:
    pool = start_pool([5] * MAX_DEATHS)
    with pytest.raises(WorkerError, match=r"A Ray worker died \(killed\).*Finished work is kept"):
        list(pool.map_ordered("square", ((n,) for n in range(12)), in_flight=3))
    assert not pool.is_started
