"""Arrays in binary files: appended with a checksum, read from any position."""

from __future__ import annotations

import os
import zlib
from io import BufferedRandom, BufferedWriter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CHUNK_BYTES = 2**22


def append_array(handle: BufferedWriter | BufferedRandom, data: NDArray[np.generic] | int, crc32: int) -> int:
    """Append an array, or a number of zeros as a hole that takes no space on the disk; return the checksum so far."""
    if isinstance(data, np.ndarray):
        raw = data.data.cast("B")
        handle.write(raw)
        return zlib.crc32(raw, crc32)
    handle.seek(data, os.SEEK_CUR)
    zeros = bytes(CHUNK_BYTES)
    for start in range(0, data, CHUNK_BYTES):
        crc32 = zlib.crc32(zeros[: data - start], crc32)
    return crc32


def read_into(handle: int, target: memoryview, offset: int) -> None:
    """Fill a buffer from a position of a file."""
    while len(target):
        count = os.preadv(handle, [target], offset)
        if count == 0:
            raise AssertionError("a file of score maps is shorter than its record says")
        target, offset = target[count:], offset + count


def compute_crc32(path: Path) -> int:
    """Return the checksum of a file; 0 if it is missing."""
    if not path.is_file():
        return 0
    crc32 = 0
    with path.open("rb") as handle:
        while chunk := handle.read(CHUNK_BYTES):
            crc32 = zlib.crc32(chunk, crc32)
    return crc32
