"""The blended score maps of a whole raster in files: written tile by tile, read strip by strip, never held at once.

    FOLDER/00003.planes    maps of one row of tiles: tile by tile, and within a tile row by row (float32, all maps
                           of a row together), so that a few rows are contiguous
    FOLDER/00003.valid     where both dates have data: in the same order, 8 pixels a byte
    FOLDER/00003.objects   and .features: what a detector predicts beside its maps (`instance_store`)
    FOLDER/00003.json      written when the row of tiles is finished: checksums of all of them

A row of tiles also keeps the rows that it shares with the next one, so that a run can be resumed after any finished row
of tiles and gives the same bytes. Files are read and written plainly: pages of a memory-mapped file would count as
memory of the process.

Why not zarr: for 4096 x 4096 px and 6 maps, zarr 3 without compression took 1.3 s to read all strips where this store
takes 0.6 s, and 432 MiB of memory where this store takes 353 MiB, at about equal times to write
(`python benchmarks/score_store.py`). It would also need checksums and a record of finished rows beside it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from semicdvl.atomic_files import write_json
from semicdvl.detection.tiles.instance_store import (
    InstanceRowWriter,
    InstanceStore,
    append_array,
    compute_crc32,
    read_into,
)
from semicdvl.detection.tiles.tile_store import TileStore
from semicdvl.errors import InputError
from semicdvl.outputs.exchange import open_plain_file
from semicdvl.raster.tiling import BlendedTile, ReadRowsAbove, Tiling
from semicdvl.reading.json_files import read_model
from semicdvl.types import ScoreStrip

STRIP_BYTES = 8 * 2**20
"""About the size of a strip of the maps; what is computed from it needs a few times that."""

FILE_KINDS = ("planes", "valid", "objects", "features")


class _RowRecord(BaseModel):
    """What is read of the record of a row of tiles; the names are stored."""

    planes_crc32: int
    valid_crc32: int
    objects_crc32: int = 0
    features_crc32: int = 0
    valid_px: int = Field(ge=0)
    features: list[tuple[int, int, int, int] | None] = Field(default_factory=list)


class ScoreStore(TileStore[InstanceRowWriter]):
    """The score maps of one raster.

    Attributes:
        tiling: how the raster is cut into tiles.
        map_count: number of maps.
        shape_hw: height and width of the raster.
        tile_instances: instances and features of the tiles, from a detector that has some.
    """

    tile_instances: InstanceStore

    def __init__(self, folder: Path, tiling: Tiling, *, map_count: int, strip_bytes: int = STRIP_BYTES) -> None:
        """Use a folder with what it already holds.

        Args:
            folder: where the files are.
            tiling: how the raster is cut into tiles.
            map_count: number of maps.
            strip_bytes: size of a strip of the maps.
        """
        self.tiling, self.map_count = tiling, map_count
        self.shape_hw = tiling.height, tiling.width
        self.tile_instances = InstanceStore(folder, tiling)
        self._folder, self._strip_bytes = folder, strip_bytes

    # -------------------------------------------------------------------------------------------- writing
    def write_row(
        self,
        index: int,
        blocks: Iterable[tuple[BlendedTile, NDArray[np.bool_]]],
        *,
        instances: InstanceRowWriter | None = None,
    ) -> None:
        """Write one row of tiles: the blocks from the left, each with where its pixels are valid (HW, of its size).

        `instances` is recorded as it is once the last block came.
        """
        valid_px = 0
        with (
            open(self._path(index, "planes"), "wb", opener=open_plain_file) as planes,
            open(self._path(index, "valid"), "wb", opener=open_plain_file) as valid,
        ):
            sums = [0, 0]
            for block, valid_HW in blocks:
                rows_HPW = block.maps_PHW.transpose(1, 0, 2)
                seen = bool(valid_HW.any())
                sums[0] = append_array(planes, np.ascontiguousarray(rows_HPW) if seen else rows_HPW.nbytes, sums[0])
                sums[1] = append_array(valid, np.packbits(valid_HW, axis=1), sums[1])
                valid_px += int(np.count_nonzero(valid_HW[: block.finished_rows]))
            planes.truncate()
        record = {"planes_crc32": sums[0], "valid_crc32": sums[1], "valid_px": valid_px}
        write_json(self._path(index, "json"), record | ({} if instances is None else instances.finish()))

    def open_row_above(self, index: int) -> contextlib.AbstractContextManager[ReadRowsAbove | None]:
        """Open what the row of tiles above `index` left unfinished, for `blend_tile_row`."""
        return contextlib.nullcontext() if index == 0 else self._open_unfinished_rows(index - 1)

    @contextlib.contextmanager
    def _open_unfinished_rows(self, index: int) -> Iterator[ReadRowsAbove]:
        """Open the rows of a row of tiles that the next one is blended with."""
        done, height = self.tiling.finished_rows(index), self._row_height_px(index)
        with self._path(index, "planes").open("rb", buffering=0) as handle:

            def read(col: int, width: int) -> NDArray[np.float32]:
                del width  # a tile finishes the same columns in every row of tiles
                return self._read_rows(handle.fileno(), index, self.tiling.cols.index(col), done, height).transpose(
                    1, 0, 2
                )

            yield read

    # -------------------------------------------------------------------------------------------- going on
    def count_finished_rows(self) -> int:
        """Return how many rows of tiles, from the top, are complete and undamaged."""
        rows = range(len(self.tiling.rows))
        return next((index for index in rows if not self._is_whole(index)), len(rows))

    def _is_whole(self, index: int) -> bool:
        """Tell whether a row of tiles has a record, and its files have the checksums in it."""
        if not self._path(index, "json").is_file():
            return False
        try:
            record = read_model(self._path(index, "json"), _RowRecord, remedy="Delete its folder and run again")
        except InputError:
            return False
        sums = record.model_dump()
        if not all(compute_crc32(self._path(index, kind)) == sums[f"{kind}_crc32"] for kind in FILE_KINDS):
            return False
        return self._has_right_sizes(index) and self.tile_instances.is_sound(index, record.features)

    def _has_right_sizes(self, index: int) -> bool:
        """Tell whether the maps of a row of tiles have its pixels: the checksums of other files may be right, too."""
        height, width = self._row_height_px(index), self.tiling.width
        packed = sum(-(-self.tiling.finished_cols(at) // 8) for at in range(len(self.tiling.cols)))
        wanted = {"planes": 4 * self.map_count * height * width, "valid": height * packed}
        paths = {self._path(index, kind): size for kind, size in wanted.items()}
        return all(path.is_file() and path.stat().st_size == size for path, size in paths.items())

    def count_valid_px(self) -> int:
        """Return how many pixels of the raster have data in both dates; all rows of tiles must be finished."""
        paths = [self._path(index, "json") for index in range(len(self.tiling.rows))]
        return sum(read_model(path, _RowRecord, remedy="Run again").valid_px for path in paths)

    # -------------------------------------------------------------------------------------------- reading
    def __iter__(self) -> Iterator[ScoreStrip]:
        """Yield the maps as strips from the top; a strip starts at an even row and ends with its row of tiles."""
        per_row = 4 * self.map_count * self.tiling.width
        most = max(2, self._strip_bytes // per_row // 2 * 2)
        for index, row in enumerate(self.tiling.rows):
            done = self.tiling.finished_rows(index)
            with (
                self._path(index, "planes").open("rb", buffering=0) as planes,
                self._path(index, "valid").open("rb", buffering=0) as valid,
            ):
                for start in range(0, done, most):
                    end = min(start + most, done)
                    yield self._read_strip(planes.fileno(), valid.fileno(), index, start, end, row=row + start)

    def _read_strip(self, planes: int, valid: int, index: int, start: int, end: int, *, row: int) -> ScoreStrip:
        """Read rows `start` to `end` of a row of tiles."""
        planes_PHW = np.empty((self.map_count, end - start, self.tiling.width), np.float32)
        valid_HW = np.empty((end - start, self.tiling.width), bool)
        for at, col in enumerate(self.tiling.cols):
            cols = slice(col, col + self.tiling.finished_cols(at))
            planes_PHW[:, :, cols] = self._read_rows(planes, index, at, start, end).transpose(1, 0, 2)
            valid_HW[:, cols] = self._read_valid_rows(valid, index, at, start, end)
        return ScoreStrip(row, planes_PHW, valid_HW)

    def _read_rows(self, handle: int, index: int, at: int, start: int, end: int) -> NDArray[np.float32]:
        """Read rows of the maps of one tile, as HPW."""
        width, before = self.tiling.finished_cols(at), self.tiling.cols[at]
        offset = 4 * self.map_count * (self._row_height_px(index) * before + start * width)
        rows_HPW = np.empty((end - start, self.map_count, width), np.float32)
        if rows_HPW.size:  # tiles without overlap leave no rows to the next
            read_into(handle, rows_HPW.data.cast("B"), offset)
        return rows_HPW

    def _read_valid_rows(self, handle: int, index: int, at: int, start: int, end: int) -> NDArray[np.bool_]:
        """Read where rows of one tile are valid."""
        widths = [-(-self.tiling.finished_cols(before) // 8) for before in range(at + 1)]
        packed_HW = np.empty((end - start, widths[-1]), np.uint8)
        read_into(handle, packed_HW.data.cast("B"), self._row_height_px(index) * sum(widths[:-1]) + start * widths[-1])
        return np.unpackbits(packed_HW, axis=1, count=self.tiling.finished_cols(at)).view(bool)

    def _row_height_px(self, index: int) -> int:
        """Return how many rows of the raster a row of tiles covers."""
        return min(self.tiling.tile_hw[0], self.tiling.height - self.tiling.rows[index])

    def _path(self, index: int, suffix: str) -> Path:
        return self._folder / f"{index:05d}.{suffix}"
