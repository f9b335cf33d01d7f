"""Reading ahead and writing behind: each in one thread of its own, joined to the caller's by a short queue.

A short queue keeps either side from filling the memory; an error on one side ends the other and is raised in the
caller's thread. The threads and their errors are those of `concurrent.futures`.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

T = TypeVar("T")

_END: Any = object()
_POLL_S = 0.1
"""How often a thread that waits for room checks whether the other side is still there."""


@contextmanager
def read_in_background(items: Iterable[T], *, depth: int) -> Iterator[Iterator[T]]:
    """Give the items of an iterable in order, made in another thread up to `depth` ahead.

    All of the iterable runs in that one thread, its end included, so it may use handles that must not be shared (those
    of GDAL). An error in it is raised when its item is taken.
    """
    iterator = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="reading") as thread:
        pending: deque[Future[T]] = deque()

        def take() -> Iterator[T]:
            pending.extend(thread.submit(next, iterator, _END) for _ in range(depth))
            while (item := pending.popleft().result()) is not _END:
                pending.append(thread.submit(next, iterator, _END))
                yield item

        try:
            yield take()
        finally:
            for future in pending:
                future.cancel()
            if isinstance(iterator, Generator):
                thread.submit(iterator.close).result()


@contextmanager
def write_in_background(take: Callable[[Iterator[T]], None], *, depth: int) -> Iterator[Callable[[T], None]]:
    """Give a function that hands items over to `take`, which runs in another thread and gets all of them.

    The end of the `with` waits until everything is written or, after an error, gives up the rest. An error of `take` is
    raised by the function, or at the end.
    """
    items: queue.Queue[T] = queue.Queue(depth)
    aborted = threading.Event()

    def receive() -> Iterator[T]:
        while (item := items.get()) is not _END and not aborted.is_set():
            yield item
        if aborted.is_set():
            raise CancelledError

    with ThreadPoolExecutor(1, thread_name_prefix="writing") as thread:
        written = thread.submit(take, receive())

        def put(item: T) -> None:
            while not written.done():
                with suppress(queue.Full):
                    return items.put(item, timeout=_POLL_S)
            written.result()
            raise AssertionError("the thread took less than it was given")

        try:
            yield put
        except BaseException:
            aborted.set()
            with suppress(queue.Full):  # where it is full, an item wakes the thread
                items.put_nowait(_END)
            raise
        if not written.done():
            with suppress(AssertionError):  # it ended meanwhile
                put(_END)
        written.result()
