"""The open pairs of a server: how many there are, and what two requests at one moment do."""

import shutil
from contextlib import ExitStack
from threading import Barrier, Thread

import pytest
from tests.support.review_scene import CONFIG

from semicdvl.review.app import build_server
from semicdvl.review.estimate import draw_places
from semicdvl.review.session import MAX_OPEN_PAIRS


@pytest.fixture
def sessions(scene, tmp_path):
    for number in range(MAX_OPEN_PAIRS + 2):
        shutil.copytree(scene, tmp_path / "many" / f"p{number}")
    opened = build_server(tmp_path / "many", config=CONFIG).sessions
    yield opened
    opened.close()


def test_more_pairs_than_are_kept_open_can_be_used_at_once(sessions) -> None:
    with ExitStack() as used:
        held = [used.enter_context(sessions.use(name)) for name in sessions.pairs]
        assert [session.store.count_states()["open"] for session in held] == [12] * len(sessions.pairs)


def test_two_windows_may_ask_for_the_places_at_the_same_moment(sessions, monkeypatch) -> None:
    """Both find none and draw the same; the second finds those of the first."""
    with sessions.use("p0") as session:
        both, faults = Barrier(2), []

        def find_nothing(_: str) -> None:
            both.wait(60)

        monkeypatch.setattr(session.store, "read_meta", find_nothing)

        def draw() -> None:
            try:
                draw_places(session.store, session.get_detected_map(), key="key")
            except Exception as error:
                faults.append(error)

        windows = [Thread(target=draw) for _ in range(2)]
        for window in windows:
            window.start()
        for window in windows:
            window.join(60)
        assert not faults and len(session.store.list_places()) == 100
