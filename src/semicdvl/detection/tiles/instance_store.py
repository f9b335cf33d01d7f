"""The instances and features that a detector predicts for each tile beside its score maps, in files.

    FOLDER/00003.objects     instances of one row of tiles: JSON, per tile null (none were predicted) or a list
    FOLDER/00003.features    features: float32, tile by tile as H, W, date, D

A file exists only where there is something to store. Its checksum is in the record of the row of tiles
(`score_store.ScoreStore`), so that maps, instances and features of a row are finished together or not at all.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import fields
from io import BufferedRandom, BufferedWriter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semicdvl.atomic_files import write_bytes_atomically
from semicdvl.outputs.exchange import open_plain_file
from semicdvl.raster.tiling import Tiling
from semicdvl.reading.json_files import parse_json
from semicdvl.types import TileInstance, TilePrediction
from semicdvl.vlms.precomputed.coco import rle_fills_image

CHUNK_BYTES = 2**22

CACHED_ROWS = 4
"""Rows of tiles whose instances are held in memory: no pixel of a raster is in more of them."""

_FeatureBlock = tuple[int, int, int, int]
"""Offset of a tile's features in their file in bytes, and their rows, columns and depth."""


class InstanceRowWriter:
    """Writes one row of tiles: `add` every tile from the left, then `finish`."""

    def __init__(self, stem: Path, files: contextlib.ExitStack) -> None:
        """Write to files with this stem; `files` closes them."""
        self._stem, self._files = stem, files
        self._objects: list[list[Any] | None] = []
        self._features: list[_FeatureBlock | None] = []
        self._handle: BufferedWriter | None = None
        self._crc32 = 0

    def add(self, prediction: TilePrediction) -> None:
        """Store the predictions for the next tile."""
        self._objects.append(
            None if prediction.instances is None else [_as_values(one) for one in prediction.instances]
        )
        self._features.append(
            None if prediction.features_2DHW is None else self._write_features(prediction.features_2DHW)
        )

    def _write_features(self, features_2DHW: NDArray[np.float32]) -> _FeatureBlock:
        if self._handle is None:
            self._handle = self._files.enter_context(
                open(self._stem.with_suffix(".features"), "wb", opener=open_plain_file)
            )
        offset = self._handle.tell()
        cells_HW2D = np.ascontiguousarray(features_2DHW.transpose(2, 3, 0, 1), dtype=np.float32)
        self._crc32 = append_array(self._handle, cells_HW2D, self._crc32)
        height, width, _, depth = cells_HW2D.shape
        return offset, height, width, depth

    def finish(self) -> dict[str, Any]:
        """Finish the files and return their checksums and the positions of the features."""
        if any(tile is not None for tile in self._objects):
            write_bytes_atomically(self._stem.with_suffix(".objects"), json.dumps(self._objects).encode())
        if self._handle is not None:
            self._handle.flush()
        objects = compute_crc32(self._stem.with_suffix(".objects"))
        return {"objects_crc32": objects, "features_crc32": self._crc32, "features": self._features}


def _as_values(one: TileInstance) -> list[Any]:
    """Return an instance as plain values, in the order of its attributes."""
    return [one.date, one.row, one.col, dict(one.mask), one.prompt, one.score]


class InstanceStore:
    """The instances and features of one raster by tile: a `types.TileInstanceReader`.

    Attributes:
        shape_hw: height and width of the raster.
        tile_hw: full size of a tile.
        tile_windows: rows and columns of the raster that each tile shows.
    """

    def __init__(self, folder: Path, tiling: Tiling) -> None:
        """Use a folder with what it already holds."""
        self.shape_hw, self.tile_hw = (tiling.height, tiling.width), tiling.tile_hw
        self.tile_windows = tuple(tile.window for tile in tiling)
        self._folder, self._per_row = folder, len(tiling.cols)
        self._row = functools.lru_cache(maxsize=CACHED_ROWS)(self._read_row)

    @contextlib.contextmanager
    def open_row(self, index: int) -> Iterator[InstanceRowWriter]:
        """Open one row of tiles for writing; an earlier one is replaced."""
        stem = self._folder / f"{index:05d}"
        for suffix in (".objects", ".features"):
            stem.with_suffix(suffix).unlink(missing_ok=True)
        with contextlib.ExitStack() as files:
            yield InstanceRowWriter(stem, files)

    def read_instances(self, tile: int) -> Sequence[TileInstance] | None:
        """Return the instances of a tile; None where none were predicted."""
        index, at = divmod(tile, self._per_row)
        return self._row(index)[0][at]

    def features_shape_hw(self, tile: int) -> tuple[int, int] | None:
        """Return rows and columns of a tile's features; None where there are none."""
        index, at = divmod(tile, self._per_row)
        place = self._row(index)[1][at]
        return None if place is None else (place[1], place[2])

    def read_features(self, tile: int, rows: slice) -> NDArray[np.float32]:
        """Return some rows of a tile's features, as H, W, date, D."""
        index, at = divmod(tile, self._per_row)
        place = self._row(index)[1][at]
        assert place is not None, "this tile has no features"
        offset, _, width, depth = place
        cells_HW2D = np.empty((rows.stop - rows.start, width, 2, depth), np.float32)
        with (self._folder / f"{index:05d}.features").open("rb", buffering=0) as handle:
            read_into(handle.fileno(), cells_HW2D.data.cast("B"), offset + 4 * rows.start * width * 2 * depth)
        return cells_HW2D

    def is_sound(self, index: int, features: Sequence[_FeatureBlock | None]) -> bool:
        """Tell whether the files of a finished row of tiles hold what this program stores.

        They may have come with a folder of somebody else, whose checksums are right.

        Args:
            index: number of the row of tiles.
            features: where its record says that features are; empty where none were predicted.
        """
        path = self._folder / f"{index:05d}.features"
        size = path.stat().st_size if path.is_file() else 0
        blocks = [block for block in features if block is not None]
        lie_inside = all(min(one) >= 0 and one[0] + 8 * one[1] * one[2] * one[3] <= size for one in blocks)
        if not lie_inside or len(features) not in (0, self._per_row):
            return False
        path = self._folder / f"{index:05d}.objects"
        try:
            return not path.is_file() or _are_instances(parse_json(path.read_bytes()), self._per_row)
        except (OSError, ValueError):
            return False

    def _read_row(self, index: int) -> tuple[list[tuple[TileInstance, ...] | None], list[_FeatureBlock | None]]:
        """Read the instances and feature positions of a finished row of tiles."""
        record = json.loads((self._folder / f"{index:05d}.json").read_text(encoding="utf-8"))
        path = self._folder / f"{index:05d}.objects"
        content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else [None] * self._per_row
        objects = [None if tile is None else tuple(TileInstance(*values) for values in tile) for tile in content]
        return objects, record.get("features") or [None] * self._per_row


def _are_instances(content: Any, tiles: int) -> bool:
    """Tell whether plain values are the instances of so many tiles."""
    if not isinstance(content, list) or len(content) != tiles:
        return False
    found = [tile for tile in content if tile is not None]
    return all(isinstance(tile, list) for tile in found) and all(_is_instance(one) for tile in found for one in tile)


def _is_instance(values: Any) -> bool:
    """Tell whether plain values are those of an instance, in the order of its attributes."""
    if not isinstance(values, list) or len(values) != len(fields(TileInstance)):
        return False
    date, row, col, mask, prompt, score = values
    is_placed = all(isinstance(number, int) and number >= 0 for number in (date, row, col, prompt)) and date <= 1
    if not is_placed or not isinstance(score, int | float) or not isinstance(mask, dict):
        return False
    size = mask.get("size")
    if not isinstance(size, list) or len(size) != 2 or not all(isinstance(side, int) for side in size):
        return False
    return rle_fills_image(mask.get("counts"), tuple(size))


# ------------------------------------------------------------------------------------------------ arrays in files
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
