"""Suppress warnings of libraries from any number of threads, rasterio's on images without georeference first of all."""

from __future__ import annotations

import ctypes
import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache

import rasterio._base
from rasterio.errors import NotGeoreferencedWarning

_LOCK = threading.RLock()
"""Python's warning filters belong to the process: two threads that change them at once undo each other's change."""

LIBTIFF_SETTERS = ("TIFFSetErrorHandler", "gdal_TIFFSetErrorHandler")
"""The function of libtiff as GDAL calls it, and its name in a GDAL that has a libtiff of its own inside."""


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


@cache
def silence_libtiff() -> None:
    """Take away the handler of libtiff that prints errors, once for the whole process.

    GDAL collects the errors of the files that it opens with a handler of each file. A few, such as an offset that no
    file can have, reach the common handler all the same ("_tiffSeekProc: Invalid argument."), which prints a line
    beside our own message. Without effect where the function is not found.
    """
    with suppress(OSError):
        linked = ctypes.CDLL(rasterio._base.__file__)  # symbols of the libraries that it needs are found, too
        for name in LIBTIFF_SETTERS:
            if hasattr(linked, name):
                setter = getattr(linked, name)
                setter.restype, setter.argtypes = ctypes.c_void_p, (ctypes.c_void_p,)
                setter(None)
