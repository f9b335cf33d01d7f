"""Open plain images without rasterio's warning that they are not georeferenced, from any number of threads."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from rasterio.errors import NotGeoreferencedWarning

_LOCK = threading.RLock()
"""Python's warning filters belong to the process: two threads that change them at once undo each other's change."""


@contextmanager
def ignore_not_georeferenced() -> Iterator[None]:
    """Suppress `NotGeoreferencedWarning` inside the block."""
    with _LOCK, warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning):
        yield
