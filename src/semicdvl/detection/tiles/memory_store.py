"""The blended score maps of a raster in memory, with the interface of `score_store`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from semicdvl.detection.tiles.tile_store import TileStore
from semicdvl.raster.tiling import BlendedTile, ReadRowsAbove, Tiling
from semicdvl.types import ScoreStrip, TileInstance, TilePrediction

STRIP_ROWS = 512
"""Rows of a strip; an even number."""


class MemoryInstanceStore:
    """The instances and features that were predicted for each tile.

    Attributes:
        shape_hw: height and width of the raster.
        tile_hw: full size of a tile.
        tile_windows: rows and columns of the raster that each tile shows.
    """

    def __init__(self, tiling: Tiling) -> None:
        """Start empty."""
        self.shape_hw, self.tile_hw = (tiling.height, tiling.width), tiling.tile_hw
        self.tile_windows = tuple(tile.window for tile in tiling)
        self._predictions: list[TilePrediction] = []

    @contextlib.contextmanager
    def open_row(self, index: int) -> Iterator[MemoryInstanceStore]:
        """Give the store itself, which takes one row of tiles."""
        del index  # rows come from the top
        yield self

    def add(self, prediction: TilePrediction) -> None:
        """Keep what was predicted for the next tile beside its maps."""
        kept = TilePrediction(None, prediction.valid_HW, prediction.instances, prediction.features_2DHW)
        self._predictions.append(kept)

    def read_instances(self, tile: int) -> Sequence[TileInstance] | None:
        """Return the instances of a tile; None where none were predicted."""
        return self._predictions[tile].instances

    def features_shape_hw(self, tile: int) -> tuple[int, int] | None:
        """Return rows and columns of a tile's features; None where there are none."""
        features_2DHW = self._predictions[tile].features_2DHW
        return None if features_2DHW is None else (features_2DHW.shape[2], features_2DHW.shape[3])

    def read_features(self, tile: int, rows: slice) -> NDArray[np.float32]:
        """Return some rows of a tile's features, as H, W, date, D."""
        features_2DHW = self._predictions[tile].features_2DHW
        assert features_2DHW is not None, "this tile has no features"
        return np.ascontiguousarray(features_2DHW[:, :, rows].transpose(2, 3, 0, 1), dtype=np.float32)


class MemoryScoreStore(TileStore[MemoryInstanceStore]):
    """The score maps of one raster as whole arrays.

    Attributes:
        tiling: how the raster is cut into tiles.
        map_count: number of maps.
        shape_hw: height and width of the raster.
        tile_instances: what was predicted for each tile beside the maps.
    """

    def __init__(self, tiling: Tiling, *, map_count: int) -> None:
        """Start empty.

        Args:
            tiling: how the raster is cut into tiles.
            map_count: number of maps.
        """
        self.tiling, self.map_count = tiling, map_count
        self.shape_hw = tiling.height, tiling.width
        self.tile_instances = MemoryInstanceStore(tiling)
        self._scores_PHW = np.zeros((map_count, *self.shape_hw), np.float32)
        self._valid_HW = np.zeros(self.shape_hw, bool)

    def write_row(
        self,
        index: int,
        blocks: Iterable[tuple[BlendedTile, NDArray[np.bool_]]],
        *,
        instances: MemoryInstanceStore | None = None,
    ) -> None:
        """Keep one row of tiles; the next one overwrites the rows that both share."""
        del instances  # they are kept as they are added
        for block, valid_HW in blocks:
            height, width = valid_HW.shape
            rows, cols = slice(block.row, block.row + height), slice(block.col, block.col + width)
            self._scores_PHW[:, rows, cols] = block.maps_PHW if valid_HW.any() else 0
            self._valid_HW[rows, cols] = valid_HW

    @contextlib.contextmanager
    def open_row_above(self, index: int) -> Iterator[ReadRowsAbove | None]:
        """Give what the row of tiles above `index` left unfinished, for blending; None for the first row."""
        if index == 0:
            yield None
            return
        start = self.tiling.rows[index]
        end = min(self.tiling.rows[index - 1] + self.tiling.tile_hw[0], self.tiling.height)

        def read(col: int, width: int) -> NDArray[np.float32]:
            return self._scores_PHW[:, start:end, col : col + width].copy()

        yield read

    def count_finished_rows(self) -> int:
        """Return 0: nothing of an earlier run is here."""
        return 0

    def count_valid_px(self) -> int:
        """Return how many pixels of the raster have data at both dates."""
        return int(np.count_nonzero(self._valid_HW))

    def __iter__(self) -> Iterator[ScoreStrip]:
        """Yield the maps as strips from the top."""
        for row in range(0, self.shape_hw[0], STRIP_ROWS):
            rows = slice(row, row + STRIP_ROWS)
            yield ScoreStrip(row, self._scores_PHW[:, rows].copy(), self._valid_HW[rows].copy())
