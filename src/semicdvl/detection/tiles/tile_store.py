"""What keeps the blended score maps of a raster: in files (`score_store`) or in memory (`memory_store`)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from semicdvl.raster.tiling import BlendedTile, ReadRowsAbove, Tiling
from semicdvl.types import ScoreStrips, TileInstanceReader, TilePrediction


class InstanceWriter(Protocol):
    """Takes what a detector predicts for the tiles of a row beside their score maps."""

    def add(self, prediction: TilePrediction) -> None:
        """Keep what was predicted for the next tile."""
        ...


WriterT = TypeVar("WriterT", bound=InstanceWriter)
WriterT_co = TypeVar("WriterT_co", bound=InstanceWriter, covariant=True)


class InstanceKeeper(TileInstanceReader, Protocol[WriterT_co]):
    """Keeps what a detector predicts for each tile beside its score maps."""

    def open_row(self, index: int) -> AbstractContextManager[WriterT_co]:
        """Write one row of tiles anew."""
        ...


class TileStore(ScoreStrips, Generic[WriterT]):
    """The blended score maps of a raster: written row of tiles by row of tiles, read strip by strip.

    Attributes:
        tiling: how the raster is cut into tiles.
        map_count: number of score maps.
        tile_instances: what was predicted for each tile beside the maps.
    """

    tiling: Tiling
    map_count: int
    tile_instances: InstanceKeeper[WriterT]

    @abstractmethod
    def write_row(
        self, index: int, blocks: Iterable[tuple[BlendedTile, NDArray[np.bool_]]], *, instances: WriterT | None = None
    ) -> None:
        """Write one row of tiles: the blended tiles from the left, each with where its pixels are valid.

        Args:
            index: number of the row of tiles.
            blocks: the tiles, with masks HW of their size.
            instances: what took the predictions of this row, complete once the last tile came; None: there are none.

        Raises:
            OSError: it cannot be written.
        """

    @abstractmethod
    def open_row_above(self, index: int) -> AbstractContextManager[ReadRowsAbove | None]:
        """Open what the row of tiles above `index` left unfinished, for blending; None for the first row."""

    @abstractmethod
    def count_finished_rows(self) -> int:
        """Return how many rows of tiles, from the top, are here already."""

    @abstractmethod
    def count_valid_px(self) -> int:
        """Return how many pixels have data at both dates; all rows of tiles must be finished."""
