"""Reading ahead and writing behind: order, bounds, and errors on either side."""

import threading
import time

import pytest

from semicdvl.detection.tiles.background_io import read_in_background, write_in_background


def threads() -> int:
    return sum(thread.name.startswith(("reading", "writing")) for thread in threading.enumerate())


def test_items_come_in_order_from_one_other_thread():
    makers = set()

    def items():
        for number in range(50):
            makers.add(threading.get_ident())
            yield number

    with read_in_background(items(), depth=2) as ahead:
        assert list(ahead) == list(range(50))
    assert len(makers) == 1 and threading.get_ident() not in makers and threads() == 0


def test_no_more_is_made_than_there_is_room_for():
    made = []

    def items():
        for number in range(20):
            made.append(number)
            yield number

    with read_in_background(items(), depth=2) as ahead:
        assert next(ahead) == 0
        time.sleep(0.3)
        assert len(made) <= 4, "one taken, two waiting, one being made"
    assert threads() == 0


def test_error_of_the_maker_is_raised_after_what_it_had_made():
    def items():
        yield 1
        raise KeyError("lost")

    taken = []
    with pytest.raises(KeyError, match="lost"), read_in_background(items(), depth=2) as ahead:
        taken.extend(ahead)
    with pytest.raises(KeyError, match="lost"), read_in_background(items(), depth=2) as ahead:
        for item in ahead:
            taken.append(item)
    assert taken[-1] == 1 and threads() == 0


def test_maker_is_closed_when_the_taker_stops():
    closed = threading.Event()

    def items():
        try:
            while True:
                yield 0
        finally:
            closed.set()

    with pytest.raises(ValueError, match="enough"), read_in_background(items(), depth=1) as ahead:
        for _ in ahead:
            raise ValueError("enough")
    assert closed.wait(5) and threads() == 0


def test_everything_is_put_away_before_the_end():
    away = []

    def take(items):
        for item in items:
            time.sleep(0.01)
            away.append((item, threading.get_ident()))

    with write_in_background(take, depth=1) as put:
        for number in range(9):
            put(number)
    assert [item for item, _ in away] == list(range(9)) and threading.get_ident() not in {who for _, who in away}


@pytest.mark.parametrize("late", [False, True])
def test_error_of_the_writer_is_raised(late):
    def take(items):
        for item in items:
            if item == (8 if late else 2):
                raise OSError(28, "full")

    with pytest.raises(OSError, match="full"), write_in_background(take, depth=1) as put:
        for number in range(9):
            put(number)
    assert threads() == 0


def test_error_of_the_giver_gives_up_the_rest():
    away = []

    def take(items):
        away.extend(items)

    with pytest.raises(KeyboardInterrupt), write_in_background(take, depth=1) as put:
        put(1)
        raise KeyboardInterrupt
    assert away in ([], [1]) and threads() == 0


def test_a_writer_that_stops_early_is_a_mistake():
    with pytest.raises(AssertionError, match="took less"), write_in_background(lambda items: None, depth=1) as put:
        for number in range(99):
            put(number)
    assert threads() == 0
