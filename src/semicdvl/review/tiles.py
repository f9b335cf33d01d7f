"""Pictures of tiles: both dates, the change map and the score, on the pixels of the result.

Level 0 has the pixels of the result; each further level has pixels twice as large. Tile (row, col) of a level covers
256 x 256 of its pixels, counted from the top left corner of the result.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rasterio.errors import RasterioError
from rasterio.windows import Window
from rio_tiler.errors import RioTilerError
from rio_tiler.models import ImageData
from rio_tiler.reader import read as read_raster

from semicdvl.errors import InputError
from semicdvl.raster.grid import Grid
from semicdvl.raster.io.image_reader import ImageReader
from semicdvl.review.images import Handle, PairImages

TILE_PX, THUMBNAIL_PX = 256, 192
Layer = Literal["before", "after", "change", "score"]
CHANGE_COLOUR = (255, 84, 54)
MAX_READ_PX = 2**24
"""About the number of pixels of a map that are held at a time."""
JPEG_OPTIONS = {"quality": 92, "subsampling": 0}
"""GDAL's JPEGs halve the resolution of the colours, which shows as seams between tiles that are enlarged."""


@dataclass(frozen=True)
class Picture:
    """An encoded image."""

    content: bytes
    media_type: str


class NoSuchTile(Exception):
    """There is no tile at that place."""


def count_levels(grid: Grid) -> int:
    """Return the number of levels; on the last one a single tile shows everything."""
    return max(0, math.ceil(math.log2(max(grid.height, grid.width) / TILE_PX))) + 1


@dataclass(frozen=True)
class TileWindow:
    """The part of the result that a tile shows.

    Attributes:
        row, col: of its first pixel on the result.
        height, width: in pixels of the result.
        shape_hw: in pixels of the tile's level; smaller than a tile at the edges.
        step_px: side of a pixel of the tile's level, in pixels of the result.
    """

    row: int
    col: int
    height: int
    width: int
    shape_hw: tuple[int, int]
    step_px: int


def find_window(grid: Grid, level: int, row: int, col: int) -> TileWindow:
    """Return what a tile shows.

    Raises:
        NoSuchTile: there is no such level, or nothing of the result in the tile.
    """
    if not 0 <= level < count_levels(grid):
        raise NoSuchTile
    step_px = 2**level
    side = TILE_PX * step_px
    top, left = row * side, col * side
    if not (0 <= top < grid.height and 0 <= left < grid.width):
        raise NoSuchTile
    height, width = min(side, grid.height - top), min(side, grid.width - left)
    shape_hw = math.ceil(height / step_px), math.ceil(width / step_px)
    return TileWindow(top, left, height, width, shape_hw, step_px)


def render_tile(images: PairImages, layer: Layer, level: int, row: int, col: int) -> Picture:
    """Return the picture of a tile: JPEG where all of it has data, otherwise PNG with transparency.

    Raises:
        NoSuchTile: there is no such tile, or no such raster.
        InputError: the pixels cannot be read.
    """
    window = find_window(images.grid, level, row, col)
    with images.borrow() as handle:
        try:
            if layer in ("before", "after"):
                return _render_date(handle.before if layer == "before" else handle.after, window)
            return _render_map(handle, layer, window)
        except (RasterioError, RioTilerError, MemoryError) as error:
            path = images.folder / f"{layer}.tif"
            raise InputError(path, f"pixels cannot be read ({error})", "Copy or make it again") from error


def _render_date(image: ImageReader, window: TileWindow) -> Picture:
    """Return the picture of one date."""
    place = (window.row, window.col, window.height, window.width)
    plain = window.shape_hw == (window.height, window.width)
    image_HWC, valid_HW = image.read(*place, shape_hw=None if plain else window.shape_hw)
    whole = bool(valid_HW.all()) and window.shape_hw == (TILE_PX, TILE_PX)
    if whole:
        return encode_jpeg(image_HWC)
    data_CHW = _fill_tile(np.ascontiguousarray(image_HWC.transpose(2, 0, 1)))
    hidden_HW = _fill_tile(valid_HW) == 0
    masked = np.ma.MaskedArray(data_CHW, mask=np.broadcast_to(hidden_HW, data_CHW.shape))
    return Picture(ImageData(masked).render(img_format="PNG", ZLEVEL=1), "image/png")


def _render_map(handle: Handle, layer: str, window: TileWindow) -> Picture:
    """Return the change map or the score as a transparent picture."""
    raster = handle.rasters.get(layer)
    if raster is None:
        raise NoSuchTile
    is_change = layer == "change"
    values_HW = _read_shares(raster, window) if is_change else _read_scores(raster, window)
    share_HW = np.clip(np.where(np.isfinite(values_HW), values_HW, 0), 0, 1) * 255
    index_HW = (np.ceil(share_HW) if is_change else np.round(share_HW)).astype(np.uint8)
    colours_N4 = _make_change_colours() if is_change else _make_score_colours()
    rgba_CHW = np.ascontiguousarray(colours_N4[_fill_tile(index_HW)].transpose(2, 0, 1))
    return Picture(ImageData(rgba_CHW).render(add_mask=False, img_format="PNG", ZLEVEL=1), "image/png")


def _read_shares(raster: Any, window: TileWindow) -> NDArray[np.float32]:
    """Read the share of each pixel that is mapped as changed: a small object fades in larger pixels, but stays.

    It is counted on the pixels of the result: GDAL rounds a mean of bytes to 0 or 1, and the overviews of a map of
    classes hold what most pixels are.
    """
    parts, rows_px = [], max(1, MAX_READ_PX // (window.width * window.step_px)) * window.step_px
    for top in range(0, window.height, rows_px):
        height = min(rows_px, window.height - top)
        values_HW = raster.read(1, window=Window(window.col, window.row + top, window.width, height))
        known_HW = values_HW != raster.nodata
        known, changed = (_count_blocks(part_HW, window.step_px) for part_HW in (known_HW, known_HW & (values_HW > 0)))
        parts.append((changed / np.maximum(known, 1)).astype(np.float32))
    return np.concatenate(parts)


def _count_blocks(mask_HW: NDArray[np.bool_], step_px: int) -> NDArray[np.int32]:
    """Return the number of pixels of a mask in each block; those at the right and at the bottom may be smaller."""
    missing = [-size % step_px for size in mask_HW.shape]
    padded_HW = np.pad(mask_HW, [(0, many) for many in missing]) if any(missing) else mask_HW
    tall, wide = (size // step_px for size in padded_HW.shape)
    return np.asarray(padded_HW.reshape(tall, step_px, wide, step_px).sum(axis=(1, 3), dtype=np.int32))


def _read_scores(raster: Any, window: TileWindow) -> NDArray[np.float32]:
    """Read the scores; of larger pixels the mean."""
    read = read_raster(
        raster,
        indexes=1,
        window=Window(window.col, window.row, window.width, window.height),
        height=window.shape_hw[0],
        width=window.shape_hw[1],
        resampling_method="nearest" if window.shape_hw == (window.height, window.width) else "average",
        out_dtype="float32",
    )
    return np.asarray(read.array[0].astype(np.float32).filled(np.nan), np.float32)


def _fill_tile(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array (HW or CHW) filled up to a whole tile with 0."""
    missing = [(0, TILE_PX - size) for size in array.shape[-2:]]
    return array if not any(many for _, many in missing) else np.pad(array, [(0, 0)] * (array.ndim - 2) + missing)


@cache
def _make_change_colours() -> NDArray[np.uint8]:
    """Return RGBA for shares of changed pixels from 0 to 255; any change at all can be seen."""
    share_N = np.arange(256) / 255
    alpha_N = np.where(share_N > 0, 90 + 165 * share_N, 0)
    return np.column_stack([np.tile(CHANGE_COLOUR, (256, 1)), alpha_N]).astype(np.uint8)


@cache
def _make_score_colours() -> NDArray[np.uint8]:
    """Return RGBA for scores from 0 to 1: a perceptually uniform map, transparent where the score is low."""
    ramp_N = np.arange(256, dtype=np.uint8)
    rgb_N3 = cv2.applyColorMap(ramp_N[:, None], cv2.COLORMAP_INFERNO)[:, 0, ::-1]
    alpha_N = np.clip(ramp_N * 1.6, 0, 255)
    return np.column_stack([rgb_N3, alpha_N]).astype(np.uint8)


def render_thumbnail(images: PairImages, date: Literal["before", "after"]) -> Picture:
    """Return the whole image of a date as a small JPEG.

    Raises:
        InputError: the pixels cannot be read.
    """
    height, width = images.grid.height, images.grid.width
    step = max(1.0, max(height, width) / THUMBNAIL_PX)
    size = max(1, round(height / step)), max(1, round(width / step))
    with images.borrow() as handle:
        reader = handle.before if date == "before" else handle.after
        image_HWC, _ = reader.read(0, 0, height, width, shape_hw=size)
    return encode_jpeg(image_HWC)


def encode_jpeg(image_HWC: NDArray[np.uint8]) -> Picture:
    """Return an RGB image as a JPEG with colours of full resolution."""
    stream = io.BytesIO()
    Image.fromarray(image_HWC).save(stream, "JPEG", **JPEG_OPTIONS)
    return Picture(stream.getvalue(), "image/jpeg")
