"""Work that overlaps in time: a thread that fetches ahead, and a thread that puts away what is done.

Both are joined to the main thread by short queues, so neither runs away with the memory; an error on either side ends
the other and is raised in the main thread.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from types import TracebackType
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_END: Any = object()
_WAIT_S = 0.1
"""How often a thread that waits looks whether the other side is still there."""


class _Stopped(Exception):
    """The other side is gone."""


class _Pipe(Generic[T]):
    """A short queue that either side can end."""

    def __init__(self, depth: int) -> None:
        self.items: queue.Queue[T] = queue.Queue(maxsize=depth)
        self.stopped = threading.Event()

    def put(self, item: T) -> None:
        """Hand an item over, waiting for room."""
        while not self.stopped.is_set():
            try:
                return self.items.put(item, timeout=_WAIT_S)
            except queue.Full:
                continue
        raise _Stopped

    def get(self) -> T:
        """Take the next item, waiting for one."""
        while not self.stopped.is_set():
            try:
                return self.items.get(timeout=_WAIT_S)
            except queue.Empty:
                continue
        raise _Stopped


class BackgroundReader(Generic[T]):
    """Items that a thread of its own makes, up to `depth` ahead of whoever takes them; to be used in a `with`.

    What makes the items runs in that thread alone, so it may own handles that must not be shared (GDAL's).
    """

    def __init__(self, items: Iterable[T], *, depth: int) -> None:
        """Remember what to make; the thread starts with the `with`."""
        self._items, self._pipe = items, _Pipe[Any](depth)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._make, name="reading", daemon=True)

    def _make(self) -> None:
        try:
            for item in self._items:
                self._pipe.put(item)
        except _Stopped:
            return
        except BaseException as error:  # raised again where the items are taken
            self._error = error
        finally:
            if isinstance(self._items, Generator):
                self._items.close()  # here and now: it may hold handles that are this thread's
        try:
            self._pipe.put(_END)
        except _Stopped:
            return

    def __enter__(self) -> BackgroundReader[T]:
        """Start."""
        self._thread.start()
        return self

    def __iter__(self) -> Iterator[T]:
        """Give the items, in order.

        Raises:
            BaseException: whatever ended their making.
        """
        while (item := self._pipe.get()) is not _END:
            yield item
        if self._error is not None:
            raise self._error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the thread, whether it is done or not."""
        self._pipe.stopped.set()
        self._thread.join()


class BackgroundWriter(Generic[T]):
    """A thread of its own that takes what it is given; to be used in a `with`.

    Leaving the `with` waits until everything is put away, or, after an error, gives up the rest.
    """

    def __init__(self, take: Callable[[Iterator[T]], None], *, depth: int) -> None:
        """Remember who takes the items (called once, with all of them); the thread starts with the `with`."""
        self._take, self._pipe = take, _Pipe[Any](depth)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="writing", daemon=True)

    def _work(self) -> None:
        try:
            self._take(self._given())
        except _Stopped:
            return
        except BaseException as error:  # raised again in the main thread
            self._error = error
        finally:
            self._pipe.stopped.set()

    def _given(self) -> Iterator[T]:
        while (item := self._pipe.get()) is not _END:
            yield item

    def put(self, item: T) -> None:
        """Hand an item over.

        Raises:
            BaseException: whatever went wrong with an earlier one.
        """
        try:
            self._pipe.put(item)
        except _Stopped:
            if self._error is not None:
                raise self._error from None
            raise AssertionError("the thread took less than it was given") from None

    def __enter__(self) -> BackgroundWriter[T]:
        """Start."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the thread; raise its error unless there is one already."""
        if error is not None:
            self._pipe.stopped.set()
        else:
            try:
                self._pipe.put(_END)
            except _Stopped:
                pass
        self._thread.join()
        if error is None and self._error is not None:
            raise self._error
