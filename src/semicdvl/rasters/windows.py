"""Tiles with overlap, and their results blended into one seamless map strip by strip.

Two rules make the seams invisible. Between neighbours a result moves from the one to the other over `overlap_px` along
half a Hann window (sin^2), as `old + weight * (new - old)`: where two tiles agree on a pixel the result is that value
to the last bit, so a detector that looks at single pixels gives the same bytes whatever the tile size. And tiles start
at multiples of `ALIGN_PX` with sizes that are multiples of it, so a network of that stride or less sees every pixel in
the phase in which it would see it in one big tile. The usual way, a sum of weighted values over a sum of weights, has
neither the first property nor the memory of one plane less.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semicdvl.errors import ConfigError

ALIGN_PX = 32
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
        """Give the tiles row by row, each row from the left: the order that `blend` expects."""
        for row in self.rows:
            for col in self.cols:
                height = min(self.tile_hw[0], self.height - row)
                yield Tile(row, col, height, min(self.tile_hw[1], self.width - col))


@dataclass(frozen=True)
class Strip:
    """Finished rows of the blended maps, over the raster's whole width."""

    row: int
    planes_PHW: NDArray[np.float32]


def tiling(height: int, width: int, *, tile_px: int, overlap_px: int) -> Tiling:
    """Cut a raster into tiles of `tile_px` that overlap by at least `overlap_px`.

    Both are rounded up to multiples of `ALIGN_PX`; a raster smaller than a tile becomes one smaller tile.

    Raises:
        ConfigError: a tile is not positive, or the overlap is more than half of it.
    """
    if tile_px < 1 or overlap_px < 0 or overlap_px > tile_px // 2:
        raise ConfigError(
            f"tiles of {tile_px} px with an overlap of {overlap_px} px; "
            "a tile must be positive and its overlap at most half of it, like 1024 and 128."
        )
    tile_px, overlap_px = _aligned(tile_px), _aligned(overlap_px)
    overlap_px = min(overlap_px, tile_px - ALIGN_PX)
    size_hw = min(tile_px, _aligned(height)), min(tile_px, _aligned(width))
    rows = _starts(height, tile_px, overlap_px)
    return Tiling(height, width, size_hw, rows, _starts(width, tile_px, overlap_px), overlap_px)


def _aligned(length_px: int) -> int:
    return -(-length_px // ALIGN_PX) * ALIGN_PX


def _starts(length_px: int, tile_px: int, overlap_px: int) -> tuple[int, ...]:
    """Return where tiles start; the last is moved back until it ends less than `ALIGN_PX` after the raster."""
    last = _aligned(max(0, length_px - tile_px))
    return (*range(0, last, tile_px - overlap_px), last)


def pad(image: NDArray[np.uint8], *, tile_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """Fill an HWC or HW tile up to its full size at the bottom and right by reflection of its own pixels."""
    missing = [(0, tile_hw[0] - image.shape[0]), (0, tile_hw[1] - image.shape[1])]
    if missing == [(0, 0), (0, 0)]:
        return image
    return np.pad(image, missing + [(0, 0)] * (image.ndim - 2), mode="reflect")


def ramp(overlap_px: int) -> NDArray[np.float32]:
    """Return the rising half of a Hann window: the weight of the later tile over the first pixels of its own."""
    return np.sin(np.pi / 2 * (np.arange(overlap_px) + 0.5) / max(overlap_px, 1)).astype(np.float32) ** 2


def blend(cut: Tiling, tiles_PHW: Iterable[NDArray[np.float32]], *, planes_count: int) -> Iterator[Strip]:
    """Blend the tiles' maps (in the order of `cut`, of the tiles' full size) and give finished strips from the top.

    Memory holds two strips of a tile's height, whatever the raster's height.
    """
    source = iter(tiles_PHW)
    above_PHW: NDArray[np.float32] | None = None
    for index, row in enumerate(cut.rows):
        strip_PHW = _tile_row(cut, source, row=row, planes_count=planes_count)
        if above_PHW is not None:
            _fade_in(above_PHW, strip_PHW, ramp(cut.overlap_px)[:, None], axis=1)
        following = cut.rows[index + 1] if index + 1 < len(cut.rows) else cut.height
        done = following - row
        yield Strip(row, strip_PHW[:, :done])
        above_PHW = strip_PHW[:, done:]


def _tile_row(
    cut: Tiling, source: Iterator[NDArray[np.float32]], *, row: int, planes_count: int
) -> NDArray[np.float32]:
    """Return one row of tiles blended along the raster's width."""
    height = min(cut.tile_hw[0], cut.height - row)
    strip_PHW = np.empty((planes_count, height, cut.width), np.float32)
    end = 0
    for col in cut.cols:
        planes_PHW = next(source)
        if planes_PHW.shape != (planes_count, *cut.tile_hw):
            raise AssertionError(f"a tile's maps are {planes_PHW.shape}, wanted {(planes_count, *cut.tile_hw)}")
        width = min(cut.tile_hw[1], cut.width - col)
        new_PHW = planes_PHW[:, :height, :width].astype(np.float32, copy=True)
        if col:
            _fade_in(strip_PHW[:, :, col:end], new_PHW, ramp(cut.overlap_px), axis=2)
        strip_PHW[:, :, col : col + width] = new_PHW
        end = col + width
    return strip_PHW


def _fade_in(
    old_PHW: NDArray[np.float32], new_PHW: NDArray[np.float32], weight: NDArray[np.float32], *, axis: int
) -> None:
    """Move from the old maps to the new ones over the first pixels of the new, in place of the new."""
    count = min(old_PHW.shape[axis], new_PHW.shape[axis], weight.shape[0])
    part = (slice(None), slice(count)) if axis == 1 else (slice(None), slice(None), slice(count))
    old, new = old_PHW[part], new_PHW[part]
    new_PHW[part] = old + weight[:count] * (new - old)
