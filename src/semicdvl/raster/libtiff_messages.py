"""Keep libtiff from writing to standard error: what matters of its errors comes as an error of GDAL."""

from __future__ import annotations

import contextlib
import ctypes
from functools import cache

import rasterio._base

HANDLER_SETTERS = ("TIFFSetErrorHandler", "gdal_TIFFSetErrorHandler")
"""The function of libtiff as GDAL calls it, and its name in a GDAL that has a libtiff of its own inside."""


@cache
def silence_libtiff() -> None:
    """Take away the handler of libtiff that prints errors, once for the whole process.

    GDAL collects the errors of the files that it opens with a handler of each file. A few, such as an offset that no
    file can have, reach the common handler all the same ("_tiffSeekProc: Invalid argument."), which prints a line
    beside our own message. Without effect where the function is not found.
    """
    with contextlib.suppress(OSError):
        linked = ctypes.CDLL(rasterio._base.__file__)  # symbols of the libraries that it needs are found, too
        for name in HANDLER_SETTERS:
            if hasattr(linked, name):
                setter = getattr(linked, name)
                setter.restype, setter.argtypes = ctypes.c_void_p, (ctypes.c_void_p,)
                setter(None)
