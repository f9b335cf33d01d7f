"""Tiles with overlap, and their results blended into one seamless map tile by tile.

Two rules make the seams invisible. Between neighbours a result moves from the one to the other over `overlap_px` along
half a Hann window (sin^2), as `old + weight * (new - old)`: where two tiles agree on a pixel the result is that value
to the last bit, so a detector that looks at single pixels gives the same bytes whatever the tile size. And tiles start
at multiples of `TILE_ALIGNMENT_PX` with sizes that are multiples of it, so a network of that stride or less sees every
pixel in
the phase in which it would see it in one big tile. The usual way, a sum of weighted values over a sum of weights, has
neither the first property nor the memory of one plane less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semicdvl.errors import ConfigError

TILE_ALIGNMENT_PX = 32
"""Greatest stride of the networks; tiles start at and have sizes of multiples of it."""


@dataclass(frozen=True)
class Tile:
    """One tile: where it starts and how much of it lies on the raster; the rest of its full size is padding."""

    row: int
    col: int
    height: int
    width: int


@dataclass(frozen=True)
class Tiling:
    """How a raster is cut.

    Attributes:
        height, width: size of the raster.
        tile_hw: full size of every tile.
        rows, cols: where tiles start, ascending from 0.
        overlap_px: length of the blend between neighbours.
    """

    height: int
    width: int
    tile_hw: tuple[int, int]
    rows: tuple[int, ...]
    cols: tuple[int, ...]
    overlap_px: int

    def __len__(self) -> int:
        """Return the number of tiles."""
        return len(self.rows) * len(self.cols)

    def __iter__(self) -> Iterator[Tile]:
        """Give the tiles row by row, each row from the left."""
        for index in range(len(self.rows)):
            yield from self.tiles_in_row(index)

    def tiles_in_row(self, index: int) -> list[Tile]:
        """Return the tiles of one row, from the left."""
        height = min(self.tile_hw[0], self.height - self.rows[index])
        return [Tile(self.rows[index], col, height, min(self.tile_hw[1], self.width - col)) for col in self.cols]

    def finished_rows(self, index: int) -> int:
        """Return how many rows of the raster a row of tiles finishes."""
        return (*self.rows, self.height)[index + 1] - self.rows[index]

    def finished_cols(self, at: int) -> int:
        """Return how many columns of the raster a column of tiles finishes."""
        return (*self.cols, self.width)[at + 1] - self.cols[at]


@dataclass(frozen=True)
class BlendedTile:
    """What one tile finishes: maps blended with the tiles to its left and above it.

    Attributes:
        row: the raster's row of the first row.
        col: the raster's column of the first column.
        finished_rows: how many of the rows are finished; those below will be blended with the next row of tiles.
        maps_PHW: the maps, down to the tile's end on the raster and across up to the next tile's first column.
    """

    row: int
    col: int
    finished_rows: int
    maps_PHW: NDArray[np.float32]


def plan_tiles(height: int, width: int, *, tile_px: int, overlap_px: int) -> Tiling:
    """Cut a raster into tiles of `tile_px` that overlap by at least `overlap_px`.

    Both are rounded up to multiples of `TILE_ALIGNMENT_PX`; a raster smaller than a tile becomes one smaller tile.

    Raises:
        ConfigError: a tile is not positive, or the overlap is more than half of it.
    """
    if tile_px < 1 or overlap_px < 0 or overlap_px > tile_px // 2:
        raise ConfigError(
            f"tiles of {tile_px} px with an overlap of {overlap_px} px; "
            "a tile must be positive and its overlap at most half of it, like 1024 and 128."
        )
    tile_px, overlap_px = _round_up(tile_px), _round_up(overlap_px)
    overlap_px = min(overlap_px, tile_px - TILE_ALIGNMENT_PX)
    size_hw = min(tile_px, _round_up(height)), min(tile_px, _round_up(width))
    rows = _tile_starts(height, tile_px, overlap_px)
    return Tiling(height, width, size_hw, rows, _tile_starts(width, tile_px, overlap_px), overlap_px)


def _round_up(length_px: int) -> int:
    return -(-length_px // TILE_ALIGNMENT_PX) * TILE_ALIGNMENT_PX


def _tile_starts(length_px: int, tile_px: int, overlap_px: int) -> tuple[int, ...]:
    """Return where tiles start; the last is moved back until it ends less than `TILE_ALIGNMENT_PX` after the raster."""
    last = _round_up(max(0, length_px - tile_px))
    return (*range(0, last, tile_px - overlap_px), last)


def pad_tile(image: NDArray[np.uint8], *, tile_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """Fill an HWC or HW tile up to its full size at the bottom and right by reflection of its own pixels."""
    missing = [(0, tile_hw[0] - image.shape[0]), (0, tile_hw[1] - image.shape[1])]
    if missing == [(0, 0), (0, 0)]:
        return image
    return np.pad(image, missing + [(0, 0)] * (image.ndim - 2), mode="reflect")


def hann_ramp(overlap_px: int) -> NDArray[np.float32]:
    """Return the rising half of a Hann window: the weight of the later tile over the first pixels of its own."""
    return np.sin(np.pi / 2 * (np.arange(overlap_px) + 0.5) / max(overlap_px, 1)).astype(np.float32) ** 2


ReadRowsAbove = Callable[[int, int], NDArray[np.float32]]
"""Gives the unfinished rows of the row of tiles above: maps from a column on, so many columns wide."""


def blend_tile_row(
    tiling: Tiling, index: int, maps_PHW: Iterable[NDArray[np.float32]], *, read_above: ReadRowsAbove | None = None
) -> Iterator[BlendedTile]:
    """Blend one row of tiles and give, after every tile, what it has finished.

    Memory holds one tile and the overlap with its left neighbour, however large the raster is.

    Args:
        tiling: the tiling.
        index: number of the row of tiles.
        maps_PHW: the maps of its tiles from the left, of the tiles' full size.
        read_above: the rows that the row of tiles above left unfinished; None for the first row.
    """
    row = tiling.rows[index]
    height, done = min(tiling.tile_hw[0], tiling.height - row), tiling.finished_rows(index)
    left_PHW: NDArray[np.float32] | None = None
    for at, planes_PHW in enumerate(maps_PHW):
        if planes_PHW.shape[1:] != tiling.tile_hw:
            raise AssertionError(f"a tile's maps are {planes_PHW.shape[1:]}, wanted {tiling.tile_hw}")
        col = tiling.cols[at]
        new_PHW = planes_PHW[:, :height, : tiling.width - col].astype(np.float32, copy=True)
        if left_PHW is not None:
            _blend_into(left_PHW, new_PHW, hann_ramp(tiling.overlap_px), axis=2)
        finished = tiling.finished_cols(at)
        new_PHW, left_PHW = new_PHW[:, :, :finished], new_PHW[:, :, finished:]
        if read_above is not None:
            _blend_into(read_above(col, finished), new_PHW, hann_ramp(tiling.overlap_px)[:, None], axis=1)
        yield BlendedTile(row, col, done, new_PHW)


def _blend_into(
    old_PHW: NDArray[np.float32], new_PHW: NDArray[np.float32], weight: NDArray[np.float32], *, axis: int
) -> None:
    """Move from the old maps to the new ones over the first pixels of the new, in place of the new."""
    count = min(old_PHW.shape[axis], new_PHW.shape[axis], weight.shape[0])
    part = (slice(None), slice(count)) if axis == 1 else (slice(None), slice(None), slice(count))
    old, new = old_PHW[part], new_PHW[part]
    new_PHW[part] = old + weight[:count] * (new - old)
