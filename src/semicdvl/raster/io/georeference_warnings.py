"""Suppress warnings of libraries from any number of threads, rasterio's on images without georeference first of all."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from rasterio.errors import NotGeoreferencedWarning

_LOCK = threading.RLock()
"""Python's warning filters belong to the process: two threads that change them at once undo each other's change."""


@contextmanager
def ignore_warnings(category: type[Warning], *, message: str = "") -> Iterator[None]:
    """Suppress a category of warnings inside the block; no other thread does so meanwhile.

    Keep the block short, and wait for no other thread in it.

    Args:
        category: the class of the warnings.
        message: a regular expression that their text begins with; empty: any.
    """
    with _LOCK, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message, category)
        yield


def ignore_not_georeferenced() -> AbstractContextManager[None]:
    """Suppress `NotGeoreferencedWarning` inside the block."""
    return ignore_warnings(NotGeoreferencedWarning)
