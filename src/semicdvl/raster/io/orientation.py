"""Turn photographs upright, as their EXIF orientation says and every viewer shows them.

GDAL and Pillow give the pixels as the sensor stored them. A label that was drawn in a viewer then lies on other pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rasterio.enums import ColorInterp
from rasterio.io import MemoryFile

from semicdvl.errors import InputError
from semicdvl.raster.io.georeference_warnings import ignore_not_georeferenced
from semicdvl.reading.limits import MAX_PICTURE_PX

ORIENTATION_TAG = 274
PHOTO_DRIVERS = frozenset({"JPEG", "PNG", "WEBP"})
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what turns the stored image upright."""


def find_orientation(picture: Image.Image) -> int:
    """Return the EXIF orientation (1 to 8) from the header of an open picture, without decoding it."""
    data = picture.info.get("exif")
    if not data:
        return 1
    exif = Image.Exif()
    try:
        exif.load(data)
        orientation = exif.get(ORIENTATION_TAG, 1)
    except (SyntaxError, ValueError, KeyError, TypeError, EOFError, OSError):  # a damaged block says nothing
        return 1
    return orientation if isinstance(orientation, int) and orientation in _TURNS else 1


def find_upright_size(picture: Image.Image) -> tuple[int, int]:
    """Return (height, width) of a picture as it is shown."""
    swapped = find_orientation(picture) >= 5
    return (picture.width, picture.height) if swapped else (picture.height, picture.width)


def turn_upright(picture: Image.Image) -> Image.Image:
    """Return a picture as it is shown; the same one where nothing is to be turned."""
    turn = _TURNS.get(find_orientation(picture))
    return picture if turn is None else picture.transpose(turn)


def read_file_orientation(path: Path) -> int:
    """Return the EXIF orientation of a photograph on disk; 1 where there is none."""
    try:
        with Image.open(path, formats=("JPEG", "PNG", "WEBP", "TIFF")) as picture:
            return find_orientation(picture)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return 1


def open_upright(dataset: Any, orientation: int) -> Any:
    """Return an open dataset in memory that holds the pixels of a photograph as they are shown; closes the other."""
    if dataset.height * dataset.width > MAX_PICTURE_PX:
        remedy = "Save it turned, as a tiled GeoTIFF, which is read in windows"
        raise InputError(dataset.name, "is too large to be turned upright as a whole", remedy)
    bands_CHW = _turn_bands(dataset.read(), orientation)
    count, height, width = bands_CHW.shape
    profile = {"driver": "GTiff", "dtype": bands_CHW.dtype, "count": count, "height": height, "width": width}
    memory = MemoryFile()
    with ignore_not_georeferenced():
        with memory.open(**profile, BIGTIFF="IF_SAFER") as target:
            target.write(bands_CHW)
            target.colorinterp, target.descriptions = dataset.colorinterp, dataset.descriptions
            if dataset.nodata is not None:
                target.nodata = dataset.nodata
            if dataset.colorinterp[0] == ColorInterp.palette:
                target.write_colormap(1, dataset.colormap(1))
        upright = memory.open()
        upright.transform  # noqa: B018  (reading it warns, once)
    upright.memory_file = memory  # lives as long as the dataset that reads it
    dataset.close()
    return upright


def _turn_bands(bands_CHW: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return the bands turned upright."""
    turned_CHW = {
        2: lambda: bands_CHW[:, :, ::-1],
        3: lambda: bands_CHW[:, ::-1, ::-1],
        4: lambda: bands_CHW[:, ::-1],
        5: lambda: bands_CHW.transpose(0, 2, 1),
        6: lambda: np.rot90(bands_CHW, -1, axes=(1, 2)),
        7: lambda: bands_CHW[:, ::-1, ::-1].transpose(0, 2, 1),
        8: lambda: np.rot90(bands_CHW, 1, axes=(1, 2)),
    }[orientation]()
    return np.ascontiguousarray(turned_CHW)
