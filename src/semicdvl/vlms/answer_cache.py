"""Scores and features of images on disk, in a folder that may be deleted at any time.

    CACHE/answer-cache.json      says what the folder is; a folder without it that holds other files is refused
    CACHE/ab/<key>.npz           arrays of one entry; the key is a hash of all that they depend on

Scores are kept as whole steps of 1 / `SCORE_STEPS`, rounded down, so every comparison with a multiple of 0.005 stays as
it was, and packed to about a third of a byte (`benchmarks/answer_cache.py`). Files are written atomically, and are read
as plain arrays of a bounded size: one that is damaged counts as missing and is written again. Where the folder grows
beyond its limit, the files that were not used for the longest time are deleted.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semicdvl.atomic_files import write_atomically, write_json
from semicdvl.errors import InputError, OutputError
from semicdvl.reading.array_files import read_npz
from semicdvl.reading.limits import GIB, MAX_ARRAY_BYTES

SCORE_STEPS = 4000
"""Steps from 0 to 1: a multiple of the 200 that thresholds are multiples of."""
MAX_CACHE_BYTES = 20 * GIB
"""Greatest size of the folder; a pair of 100 MPix takes about 1 GiB with the embedded VLM."""
LEFT_FRAC = 0.9
"""Share of the greatest size that is left where files are deleted."""
MANIFEST = "answer-cache.json"
FORMAT = "semicdvl-answer-cache-1"
_ENTRY = re.compile(r"[0-9a-f]{64}\.npz")
_ROUNDING = 1e-3
"""Part of a step by which a score of float32 may lie below it."""


class AnswerCache:
    """Named arrays by key, in files of a folder."""

    def __init__(self, folder: Path, *, max_bytes: int = MAX_CACHE_BYTES) -> None:
        """Use a folder; it is made where there is none.

        Raises:
            OutputError: it holds other files, or cannot be written.
        """
        self.folder, self.max_bytes = folder, max_bytes
        if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not self._manifest.is_file())):
            raise OutputError(f"{folder}: holds other files than kept answers of a VLM. Give a new folder to --cache.")
        write_json(self._manifest, {"format": FORMAT})
        self._bytes = sum(size for _, size, _ in self._list_entries())

    @property
    def _manifest(self) -> Path:
        return self.folder / MANIFEST

    def read(self, key: str) -> dict[str, NDArray[Any]] | None:
        """Return the arrays of a key; None where there are none, or the file is damaged."""
        path = self._path(key)
        if not path.is_file():
            return None
        try:
            arrays = read_npz(path, remedy="Delete it")
        except InputError:
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # used just now
        return arrays

    def write(self, key: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Keep arrays under a key.

        Raises:
            OutputError: the disk is full or the folder cannot be written.
        """
        path = self._path(key)
        with write_atomically(path) as part, part.open("wb") as handle:
            np.savez(handle, **arrays)  # type: ignore[arg-type]  # what is large is packed already
        self._bytes += path.stat().st_size
        if self._bytes > self.max_bytes:
            self._delete_oldest()

    def _delete_oldest(self) -> None:
        """Delete the files that were used the longest time ago, until some room is left; others may do so, too."""
        entries = sorted(self._list_entries())
        self._bytes = sum(size for _, size, _ in entries)
        for _, size, path in entries:
            if self._bytes <= LEFT_FRAC * self.max_bytes:
                return
            with contextlib.suppress(OSError):
                path.unlink()
            self._bytes -= size

    def _list_entries(self) -> Iterator[tuple[int, int, Path]]:
        """Give time of the last use, size and path of every file that was kept here."""
        for path in self.folder.glob("[0-9a-f][0-9a-f]/*.npz"):
            if _ENTRY.fullmatch(path.name):
                with contextlib.suppress(OSError):
                    found = path.stat()
                    yield found.st_mtime_ns, found.st_size, path

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.npz"


# ------------------------------------------------------------------------------------------------ scores
def round_scores(scores_CHW: NDArray[np.floating[Any]]) -> NDArray[np.uint16]:
    """Return scores in [0, 1] as whole steps, rounded down."""
    steps_CHW = np.clip(scores_CHW, 0, 1) * np.float32(SCORE_STEPS) + np.float32(_ROUNDING)
    whole_CHW: NDArray[np.uint16] = np.floor(steps_CHW).astype(np.uint16)
    return whole_CHW


def restore_scores(steps_CHW: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return the scores of steps."""
    return steps_CHW.astype(np.float32) / np.float32(SCORE_STEPS)


def pack_steps(steps_CHW: NDArray[np.uint16]) -> bytes:
    """Pack maps of steps: each pixel as its difference from a prediction by its upper and left neighbours.

    Differences are small: as numbers without a sign their upper bytes are nearly all zero.
    """
    padded_CHW = np.pad(steps_CHW, ((0, 0), (1, 0), (1, 0)))
    left_CHW, up_CHW, corner_CHW = padded_CHW[:, 1:, :-1], padded_CHW[:, :-1, 1:], padded_CHW[:, :-1, :-1]
    difference_CHW = steps_CHW - left_CHW - up_CHW + corner_CHW  # wraps at 2^16, and back again
    folded_CHW = (difference_CHW << 1) ^ (np.uint16(0) - (difference_CHW >> 15))
    deflate = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_RLE)
    lower_CHW, upper_CHW = (folded_CHW & 255).astype(np.uint8), (folded_CHW >> 8).astype(np.uint8)
    return deflate.compress(lower_CHW.tobytes()) + deflate.compress(upper_CHW.tobytes()) + deflate.flush()


def unpack_steps(content: bytes, shape: Sequence[int]) -> NDArray[np.uint16]:
    """Return what `pack_steps` packed.

    Args:
        content: the packed bytes.
        shape: words, rows and columns.

    Raises:
        ValueError, zlib.error: the content is damaged, or of another shape.
    """
    count = math.prod(shape)
    if 2 * count > MAX_ARRAY_BYTES:
        raise ValueError(f"its shape {tuple(shape)} is too large")
    inflate = zlib.decompressobj()
    both = inflate.decompress(content, 2 * count + 1)
    if len(both) != 2 * count or not inflate.eof:
        raise ValueError(f"it does not unpack to its {count:,} scores")
    lower, upper = np.frombuffer(both, np.uint8).astype(np.uint16).reshape(2, *shape)
    folded_CHW = lower | (upper << 8)
    steps_CHW: NDArray[np.uint16] = (folded_CHW >> 1) ^ (np.uint16(0) - (folded_CHW & 1))
    np.cumsum(steps_CHW, axis=1, dtype=np.uint16, out=steps_CHW)
    np.cumsum(steps_CHW, axis=2, dtype=np.uint16, out=steps_CHW)
    if steps_CHW.size and steps_CHW.max() > SCORE_STEPS:
        raise ValueError("its scores go beyond 1")
    return steps_CHW
