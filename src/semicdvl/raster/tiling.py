"""Cut a raster into overlapping tiles, and blend the tiles' maps into one seamless map.

There are two ways to place tiles, each with the blending that its detector needs:

`plan_tiles` and `blend_tile_row` serve change detection on rasters of any size. Tiles start at multiples of
`TILE_ALIGNMENT_PX` and their sizes are multiples of it, so that a network whose stride divides it sees every pixel in
the same phase as in one large tile. From one tile to the next a map moves over `overlap_px` along half a Hann window
(sin^2), as `old + weight * (new - old)`: where both tiles agree on a pixel, the result is that value to the last bit.
A per-pixel detector therefore gives the same bytes for any tile size. The usual weighted mean (a sum of weighted values
over a sum of weights) does not have this property and needs one map more in memory.

`plan_even_tiles` and `WeightedMean` serve vision-language models on single images. Tiles end at the image's edge, need
no padding, and are as small as their number allows, because every pixel that is seen twice costs time. Their scores are
averaged with weights that fall towards the tiles' borders. Where a network pads a tile, `fit_features_to_image` brings
its features back to the pixels that they describe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semicdvl.errors import ConfigError

TILE_ALIGNMENT_PX = 32
"""Starts and sizes of the tiles of `plan_tiles` are multiples of this: the greatest stride of the networks."""
MAX_TILE_EXCESS = 1.125
"""How much larger than asked for a tile of `plan_tiles` may be."""
TILE_PLACEMENT = "even"
"""How tiles are placed: a detection cannot be resumed with tiles in other places."""
MIN_WEIGHT = 1e-3
"""Weight of a tile's outermost pixels in a weighted mean."""


@dataclass(frozen=True)
class Tile:
    """A tile: its first row and column, and its size on the raster (without padding)."""

    row: int
    col: int
    height: int
    width: int

    @property
    def window(self) -> tuple[slice, slice]:
        """Its rows and columns, to index an array of the whole raster."""
        return slice(self.row, self.row + self.height), slice(self.col, self.col + self.width)


@dataclass(frozen=True)
class Tiling:
    """How a raster is cut into tiles.

    Attributes:
        height, width: size of the raster in pixels.
        tile_hw: full size of every tile, padding included.
        rows, cols: where the tiles start, ascending from 0.
        overlap_px: over how many pixels neighbouring tiles are blended.
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
        """Yield the tiles row by row, each row from the left."""
        for index in range(len(self.rows)):
            yield from self.tiles_in_row(index)

    def tiles_in_row(self, index: int) -> list[Tile]:
        """Return the tiles of one row of tiles, from the left."""
        height = min(self.tile_hw[0], self.height - self.rows[index])
        return [Tile(self.rows[index], col, height, min(self.tile_hw[1], self.width - col)) for col in self.cols]

    def finished_rows(self, index: int) -> int:
        """Return how many rows of the raster are final once a row of tiles is blended."""
        return (*self.rows, self.height)[index + 1] - self.rows[index]

    def finished_cols(self, index: int) -> int:
        """Return how many columns of the raster are final once a column of tiles is blended."""
        return (*self.cols, self.width)[index + 1] - self.cols[index]


@dataclass(frozen=True)
class BlendedTile:
    """The maps that are final once a tile has been blended with the tiles to its left and above it.

    Attributes:
        row: first row on the raster.
        col: first column on the raster.
        finished_rows: how many of the rows are final; those below are blended with the next row of tiles.
        maps_PHW: the maps, down to the tile's last row on the raster and across to the next tile's first column.
    """

    row: int
    col: int
    finished_rows: int
    maps_PHW: NDArray[np.float32]


# ------------------------------------------------------------------------------------------------ aligned tiles
def plan_tiles(height: int, width: int, *, tile_px: int, overlap_px: int) -> Tiling:
    """Cut a raster into tiles of about `tile_px` that overlap by at least `overlap_px`.

    Tiles are evenly spread and as small as their number allows, because what two tiles show is computed twice. A tile
    may be larger than `tile_px` by `MAX_TILE_EXCESS`, where that makes fewer of them: 2048 px are 2 tiles of 1088 px
    along an axis and not 3 of 1024. Both lengths are rounded up to multiples of `TILE_ALIGNMENT_PX`.

    Raises:
        ConfigError: the tile size is not positive, or the overlap is negative or more than half a tile.
    """
    if tile_px < 1 or overlap_px < 0 or overlap_px > tile_px // 2:
        raise ConfigError(
            f"Tiles of {tile_px} px with an overlap of {overlap_px} px are not possible. "
            "Give a positive tile size and an overlap of at most half of it, for example 1024 and 128."
        )
    step = TILE_ALIGNMENT_PX
    tile_px, overlap_px = -(-tile_px // step) * step, -(-overlap_px // step) * step
    overlap_px = min(overlap_px, tile_px - step)
    (rows, tile_height), (cols, tile_width) = (
        _spread_aligned_starts(length_px, tile_px, overlap_px) for length_px in (height, width)
    )
    return Tiling(height, width, (tile_height, tile_width), rows, cols, overlap_px)


def _spread_aligned_starts(length_px: int, tile_px: int, overlap_px: int) -> tuple[tuple[int, ...], int]:
    """Return where tiles start along an axis, and their length; the last ends less than a step beyond the raster.

    All is counted in steps of `TILE_ALIGNMENT_PX`.
    """
    step = TILE_ALIGNMENT_PX
    length, overlap, most = -(-length_px // step), overlap_px // step, int(tile_px * MAX_TILE_EXCESS) // step
    count = 1 if length <= most else -(-(length - overlap) // (most - overlap))
    size = -(-(length + (count - 1) * overlap) // count)
    starts = (number * (length - size) // max(count - 1, 1) for number in range(count))
    return tuple(start * step for start in starts), size * step


def pad_tile(image: NDArray[np.uint8], *, tile_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """Pad an HWC or HW tile at the bottom and right to its full size, by reflection."""
    missing = [(0, tile_hw[0] - image.shape[0]), (0, tile_hw[1] - image.shape[1])]
    if missing == [(0, 0), (0, 0)]:
        return image
    return np.pad(image, missing + [(0, 0)] * (image.ndim - 2), mode="reflect")


def hann_ramp(overlap_px: int) -> NDArray[np.float32]:
    """Return the rising half of a Hann window: the weights of the later tile over the overlap."""
    return np.sin(np.pi / 2 * (np.arange(overlap_px) + 0.5) / max(overlap_px, 1)).astype(np.float32) ** 2


ReadRowsAbove = Callable[[int, int], NDArray[np.float32]]
"""(first column, number of columns) -> the maps of the rows that the row of tiles above left to be blended."""


def blend_tile_row(
    tiling: Tiling, index: int, maps_PHW: Iterable[NDArray[np.float32]], *, read_above: ReadRowsAbove | None = None
) -> Iterator[BlendedTile]:
    """Blend one row of tiles and yield, after every tile, the maps that are final.

    Memory holds one tile and its overlap with the left neighbour, whatever the size of the raster.

    Args:
        tiling: how the raster is cut.
        index: number of the row of tiles, from 0.
        maps_PHW: the maps of its tiles from the left, each of the tiles' full size.
        read_above: reads the rows that the row of tiles above left to be blended; None for the first row.
    """
    row = tiling.rows[index]
    height, finished_rows = min(tiling.tile_hw[0], tiling.height - row), tiling.finished_rows(index)
    left_PHW: NDArray[np.float32] | None = None
    for number, tile_PHW in enumerate(maps_PHW):
        if tile_PHW.shape[1:] != tiling.tile_hw:
            raise AssertionError(f"a tile's maps have the size {tile_PHW.shape[1:]} instead of {tiling.tile_hw}")
        col = tiling.cols[number]
        new_PHW = tile_PHW[:, :height, : tiling.width - col].astype(np.float32, copy=True)
        if left_PHW is not None:
            _blend_into(left_PHW, new_PHW, hann_ramp(tiling.overlap_px), axis=2)
        finished_cols = tiling.finished_cols(number)
        new_PHW, left_PHW = new_PHW[:, :, :finished_cols], new_PHW[:, :, finished_cols:]
        if read_above is not None:
            _blend_into(read_above(col, finished_cols), new_PHW, hann_ramp(tiling.overlap_px)[:, None], axis=1)
        yield BlendedTile(row, col, finished_rows, new_PHW)


def _blend_into(
    old_PHW: NDArray[np.float32], new_PHW: NDArray[np.float32], weight: NDArray[np.float32], *, axis: int
) -> None:
    """Blend from the old maps to the new ones over the first pixels of the new maps, in place."""
    count = min(old_PHW.shape[axis], new_PHW.shape[axis], weight.shape[0])
    part = (slice(None), slice(count)) if axis == 1 else (slice(None), slice(None), slice(count))
    old, new = old_PHW[part], new_PHW[part]
    new_PHW[part] = old + weight[:count] * (new - old)


# ------------------------------------------------------------------------------------------------ evenly spread tiles
def plan_even_tiles(height: int, width: int, *, tile_px: int, overlap_px: int) -> Tiling:
    """Cut an image into evenly spread tiles of one size that end at its edge and overlap by at least `overlap_px`.

    No side is longer than `tile_px`; within that, tiles are as small as their number allows.

    Raises:
        ConfigError: the overlap is negative, or not smaller than a tile.
    """
    if not 0 <= overlap_px < tile_px:
        raise ConfigError(
            f"Tiles of {tile_px} px cannot overlap by {overlap_px} px. Give an overlap that is smaller than the tile."
        )
    (rows, tile_height), (cols, tile_width) = (_spread_starts(size, tile_px, overlap_px) for size in (height, width))
    return Tiling(height, width, (tile_height, tile_width), rows, cols, overlap_px)


def _spread_starts(size_px: int, tile_px: int, overlap_px: int) -> tuple[tuple[int, ...], int]:
    """Return where evenly spread tiles start along an axis, and their length."""
    if size_px <= tile_px:
        return (0,), size_px
    count = -(-(size_px - overlap_px) // (tile_px - overlap_px))
    length_px = -(-(size_px + (count - 1) * overlap_px) // count)
    return tuple(round(number * (size_px - length_px) / (count - 1)) for number in range(count)), length_px


class WeightedMean:
    """The mean of the maps of overlapping tiles, with weights that fall linearly towards the tiles' inner borders."""

    def __init__(self, tiling: Tiling, *, map_count: int, ramp_px: float) -> None:
        """Start with no tile.

        Args:
            tiling: how the image is cut.
            map_count: number of maps.
            ramp_px: over how many pixels a weight rises from `MIN_WEIGHT` at a tile's border to 1.
        """
        self._tiling, self._ramp_px = tiling, ramp_px
        self._sum_PHW = np.zeros((map_count, tiling.height, tiling.width), np.float32)
        self._weight_HW = np.zeros((tiling.height, tiling.width), np.float32)

    def add(self, tile: Tile, maps_PHW: NDArray[np.float32]) -> None:
        """Add the maps of one tile."""
        rows, cols = tile.window
        weight_H = self._ramp(tile.row, tile.height, self._tiling.height)
        weight_HW = weight_H[:, None] * self._ramp(tile.col, tile.width, self._tiling.width)
        self._sum_PHW[:, rows, cols] += maps_PHW * weight_HW
        self._weight_HW[rows, cols] += weight_HW

    def finish(self) -> NDArray[np.float32]:
        """Return the mean; every tile must have been added. No tile can be added any more."""
        self._sum_PHW /= self._weight_HW
        return self._sum_PHW

    def _ramp(self, start: int, length: int, size: int) -> NDArray[np.float32]:
        """Return the weights along one axis: 1 inside, falling towards the borders that lie inside the image."""
        centres = np.arange(start, start + length, dtype=np.float32) + 0.5
        from_start = np.inf if start == 0 else (centres - start) / self._ramp_px
        from_end = np.inf if start + length == size else (start + length - centres) / self._ramp_px
        weights: NDArray[np.float32] = np.clip(np.minimum(from_start, from_end), MIN_WEIGHT, 1.0).astype(np.float32)
        return np.broadcast_to(weights, centres.shape)


def fit_features_to_image(
    features_DHW: NDArray[np.float32], *, stride_px: int, shape_hw: tuple[int, int]
) -> NDArray[np.float32]:
    """Return features DHW whose cells divide the image evenly, from those of the image padded at its bottom and right.

    Whole cells are cropped where they end with the image. Elsewhere the last one would reach into the padding, and
    every cell would be taken for ground beside its own: there the features are interpolated between the cells.

    Args:
        features_DHW: features of the padded image.
        stride_px: height and width of their cells in pixels.
        shape_hw: height and width of the image in pixels.
    """
    for axis, size in enumerate(shape_hw, start=1):
        kept, cells = -(-size // stride_px), features_DHW.shape[axis]
        if size % stride_px == 0:
            features_DHW = features_DHW[(slice(None),) * axis + (slice(kept),)]
            continue
        # Centres of the new cells, in old cells from the centre of the first.
        at_K = np.clip((np.arange(kept) + 0.5) * size / (kept * stride_px) - 0.5, 0, cells - 1)
        low_K = at_K.astype(np.intp)
        share_K = (at_K - low_K).astype(np.float32).reshape(-1, *[1] * (2 - axis))
        low_DHW = features_DHW.take(low_K, axis=axis)
        features_DHW = low_DHW + share_K * (features_DHW.take(np.minimum(low_K + 1, cells - 1), axis=axis) - low_DHW)
    return np.ascontiguousarray(features_DHW)
