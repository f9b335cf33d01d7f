"""Opening one image, and refusing what cannot be read: broken, empty, rotated, or without colours."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rasterio
from PIL.PngImagePlugin import PngImageFile
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from semicdvl.errors import InputError
from semicdvl.rasters.date import BROKEN, Date, reason
from semicdvl.rasters.grid import Grid


def open_date(path: Path, *, bands: Sequence[int] | None = None) -> Date:
    """Open one image.

    Raises:
        InputError: the file is missing, no image, damaged, has fewer than 3 bands, or its grid is rotated or given by
            ground control points only.
    """
    if not path.exists() and not str(path).startswith("/vsi"):
        raise InputError(path, "no such file", "Check the spelling and the folder")
    if path.is_dir():
        raise InputError(path, "is a folder, wanted an image file", "Give a GeoTIFF, PNG or JPEG in it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            source = rasterio.open(path)
            transform = source.transform
    except RasterioError as error:
        remedy = "Give a GeoTIFF, PNG, JPEG or another raster that GDAL reads"
        raise InputError(path, f"not an image that can be opened ({reason(error)})", remedy) from error
    try:
        _refuse_broken_png(path, source.driver)
        _refuse_empty_tiff(path, source)
        if source.crs is None and source.gcps[0]:
            raise InputError(path, "placed by ground control points only", "Run `gdalwarp` on it first")
        if source.crs is not None and (transform.b or transform.d):
            raise InputError(path, "its grid is rotated", "Run `gdalwarp` on it first, which turns it north up")
        grid = Grid(source.crs, transform, source.height, source.width)
        return Date(path, source, _rgb(path, source, bands), grid)
    except BaseException:
        source.close()
        raise


def _refuse_broken_png(path: Path, driver: str) -> None:
    """GDAL reads a truncated PNG as if its rest were black; Pillow checks the chunks without decoding."""
    if driver != "PNG":
        return
    try:
        with path.open("rb") as handle:
            PngImageFile(handle).verify()  # not `Image.open`, which takes a large scene for an attack
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(path, f"damaged PNG ({error})", BROKEN) from error


def _refuse_empty_tiff(path: Path, source: Any) -> None:
    """GDAL reads blocks that were never written as zeros; a large header with nothing behind it would keep it busy."""
    if source.driver != "GTiff" or not path.is_file():
        return
    size = path.stat().st_size
    tall, wide = source.block_shapes[0]
    for block in itertools.product(
        *(_few(-(-length // step)) for length, step in ((source.width, wide), (source.height, tall)))
    ):
        offset = source.get_tag_item("BLOCK_OFFSET_{}_{}".format(*block), "TIFF", bidx=1)
        if offset is not None and int(offset) < size:
            return
    name = f"{source.width:,} x {source.height:,} px"
    raise InputError(path, f"is a header for {name} without pixels behind it, it may be truncated", BROKEN)


def _few(count: int) -> list[int]:
    """Return at most 12 numbers below `count`, spread evenly."""
    return sorted({round(at * (count - 1) / 11) for at in range(12)})


def _rgb(path: Path, source: Any, bands: Sequence[int] | None) -> tuple[int, int, int]:
    """Return the bands to read: those asked for, those tagged red, green and blue, or the first three."""
    if source.count < 3 or (source.count == 3 and ColorInterp.alpha in source.colorinterp):
        word = "band" if source.count == 1 else "bands"
        raise InputError(
            path, f"has {source.count} {word}, wanted red, green and blue", "Give a colour image of 3 or more bands"
        )
    if bands is not None:
        if len(bands) != 3 or not all(1 <= band <= source.count for band in bands):
            text = ",".join(str(band) for band in bands)
            raise InputError(
                path, f"has {source.count} bands, asked for {text}", "Give three numbers from 1, like 4,3,2"
            )
        return bands[0], bands[1], bands[2]
    wanted = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    if all(colour in source.colorinterp for colour in wanted):
        red, green, blue = (source.colorinterp.index(colour) + 1 for colour in wanted)
        return red, green, blue
    return 1, 2, 3
