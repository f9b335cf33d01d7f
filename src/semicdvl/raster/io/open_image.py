"""Opening one date: a file, or several that make a mosaic, and the bands of it that are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rasterio.enums import ColorInterp

from semicdvl.errors import InputError
from semicdvl.raster.io.image_reader import Date
from semicdvl.raster.io.inputs import Given, ImageName, named, patience
from semicdvl.raster.io.mosaic import open_mosaic
from semicdvl.raster.io.open_dataset import grid_of, open_image


def open_date(given: Given | ImageName, *, bands: Sequence[int] | None = None) -> Date:
    """Open one date.

    Args:
        given: a file, a folder, an address, ... or several of them: see `raster.io.inputs.named`. Several make a
        mosaic,
            see `raster.io.mosaic`.
        bands: 1-based numbers of the bands to read, three or more; None: red, green and blue as tagged, or the first
            three.

    Raises:
        InputError: a file is missing, out of reach, no image, damaged, has fewer than 3 bands, or its grid is rotated
            or given by ground control points only; or the files of a mosaic don't fit.
    """
    name = given if isinstance(given, ImageName) else named(given)
    with patience(name):
        if len(name.parts) == 1:
            source, held = open_image(name.parts[0], shown=name.shown), None
        else:
            source, held = open_mosaic(name)
        try:
            grid = grid_of(source)
            return Date(name, source, _bands(name, source, bands), grid, file_grid=grid, held=held)
        except BaseException:
            source.close()
            if held is not None:
                held.close()
            raise


def _bands(name: ImageName, source: Any, bands: Sequence[int] | None) -> tuple[int, ...]:
    """Return the bands to read: those asked for, those tagged red, green and blue, or the first three."""
    if bands is not None:
        if len(bands) < 3 or not all(1 <= band <= source.count for band in bands):
            text = ",".join(str(band) for band in bands)
            remedy = "Give three or more numbers from 1, like 4,3,2"
            raise InputError(name.shown, f"has {_count(source.count)}, asked for {text}", remedy)
        return tuple(bands)
    if source.count < 3 or (source.count == 3 and ColorInterp.alpha in source.colorinterp):
        remedy = "Give a colour image of 3 or more bands, or say which to take as red, green and blue"
        remedy += " (--bands 1,1,1 for grey)"
        raise InputError(name.shown, f"has {_count(source.count)}, wanted red, green and blue", remedy)
    wanted = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    if all(colour in source.colorinterp for colour in wanted):
        return tuple(source.colorinterp.index(colour) + 1 for colour in wanted)
    return 1, 2, 3


def _count(count: int) -> str:
    return "1 band" if count == 1 else f"{count} bands"
