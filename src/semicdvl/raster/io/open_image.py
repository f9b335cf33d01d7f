"""Opening one date: a file, or several that make a mosaic, and the bands of it that are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rasterio.enums import ColorInterp

from semicdvl.errors import InputError
from semicdvl.raster.io.image_reader import ImageReader
from semicdvl.raster.io.inputs import ImageInput, ResolvedInput, network_timeouts, resolve_input
from semicdvl.raster.io.mosaic import open_mosaic
from semicdvl.raster.io.open_dataset import open_dataset, read_grid


def open_image_reader(image: ImageInput | ResolvedInput, *, bands: Sequence[int] | None = None) -> ImageReader:
    """Open one date.

    Args:
        image: a file, a folder, an address, ... or several of them: see `raster.io.inputs.resolve_input`. Several make
        a
        mosaic,
            see `raster.io.mosaic`.
        bands: 1-based numbers of the bands to read, three or more; None: red, green and blue as tagged, or the first
            three.

    Raises:
        InputError: a file is missing, out of reach, no image, damaged, has fewer than 3 bands, or its grid is rotated
            or given by ground control points only; or the files of a mosaic don't fit.
    """
    name = image if isinstance(image, ResolvedInput) else resolve_input(image)
    with network_timeouts(name):
        if len(name.gdal_names) == 1:
            source, held = open_dataset(name.gdal_names[0], display_name=name.display_name), None
        else:
            source, held = open_mosaic(name)
        try:
            grid = read_grid(source)
            return ImageReader(
                name, source, _select_bands(name, source, bands), grid, file_grid=grid, mosaic_views=held
            )
        except BaseException:
            source.close()
            if held is not None:
                held.close()
            raise


def _select_bands(name: ResolvedInput, source: Any, bands: Sequence[int] | None) -> tuple[int, ...]:
    """Return the bands to read: those asked for, those tagged red, green and blue, or the first three."""
    if bands is not None:
        if len(bands) < 3 or not all(1 <= band <= source.count for band in bands):
            text = ",".join(str(band) for band in bands)
            remedy = "Give three or more numbers from 1, like 4,3,2"
            raise InputError(name.display_name, f"has {_describe_band_count(source.count)}, asked for {text}", remedy)
        return tuple(bands)
    if source.count < 3 or (source.count == 3 and ColorInterp.alpha in source.colorinterp):
        remedy = "Give a colour image of 3 or more bands, or say which to take as red, green and blue"
        remedy += " (--bands 1,1,1 for grey)"
        raise InputError(
            name.display_name, f"has {_describe_band_count(source.count)}, wanted red, green and blue", remedy
        )
    wanted = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    if all(colour in source.colorinterp for colour in wanted):
        return tuple(source.colorinterp.index(colour) + 1 for colour in wanted)
    return 1, 2, 3


def _describe_band_count(count: int) -> str:
    return "1 band" if count == 1 else f"{count} bands"
