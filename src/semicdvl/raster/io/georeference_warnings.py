"""Plain images without rasterio's warning that they lie nowhere, also where several threads open some at once."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from rasterio.errors import NotGeoreferencedWarning

_LOCK = threading.RLock()
"""Python's filters of warnings belong to the process: two threads that change them at once undo each other's."""


@contextmanager
def ignore_not_georeferenced() -> Iterator[None]:
    """Let no warning of a missing place out of the block."""
    with _LOCK, warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning):
        yield
