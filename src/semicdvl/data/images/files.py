"""Open an image or label file and decode it: pictures with Pillow, everything else that GDAL knows with rasterio.

Pillow refuses a truncated file and decodes a picture as a whole; rasterio reads windows without decoding all of a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.errors import RasterioError
from rasterio.windows import Window

from semicdvl.errors import InputError
from semicdvl.raster.file_access import open_raster
from semicdvl.raster.io.georeference_warnings import ignore_not_georeferenced, ignore_warnings
from semicdvl.raster.io.orientation import open_as_shown
from semicdvl.raster.io.views.tagged_view import spread_levels
from semicdvl.reading.folder_kinds import describe_folder
from semicdvl.reading.limits import MAX_PICTURE_PX
from semicdvl.reading.regular_files import require_file_or_folder

UInt8Array = NDArray[np.uint8]
"""An image HWC, or one or several class maps, HW or HWC."""
WindowPx = tuple[int, int, int, int]
"""(row, col, height, width)."""
_T = TypeVar("_T", bound=np.generic)
_Decoded = TypeVar("_Decoded")

PILLOW_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp"})
PILLOW_FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
"""What may be in such a file, whatever its name says: PostScript, for one, would be handed to another program."""
IMAGE_SUFFIXES = PILLOW_SUFFIXES | {".tif", ".tiff", ".jp2", ".vrt", ".img"}
EIGHT_BIT_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})
REPLACE_REMEDY = "Replace the file or remove the pair"
_PILLOW_ERRORS = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


def open_picture(path: Path) -> Image.Image:
    """Read the header of an image with Pillow, as `InputError` where that fails."""
    _require_file(path)
    try:
        with ignore_warnings(Image.DecompressionBombWarning):  # refused below
            picture = Image.open(path, formats=PILLOW_FORMATS)
    except _PILLOW_ERRORS as error:
        if isinstance(error, Image.DecompressionBombError):
            raise _too_large_error(path) from error
        raise InputError(path, "is not an image that can be read", REPLACE_REMEDY) from error
    if Image.MAX_IMAGE_PIXELS is not None and picture.width * picture.height > Image.MAX_IMAGE_PIXELS:
        picture.close()
        raise _too_large_error(path)
    return picture


def _too_large_error(path: Path) -> InputError:
    """Say that a picture has more pixels than Pillow takes for harmless."""
    return InputError(
        path, "is too large to be decoded at once", "Save it as a tiled GeoTIFF, which is read in windows"
    )


def decode_file(path: Path, decode: Callable[[], _Decoded]) -> _Decoded:
    """Run a decoder, as `InputError` where that fails."""
    try:
        return decode()
    except (*_PILLOW_ERRORS, RasterioError) as error:
        raise InputError(path, f"is damaged ({error})", REPLACE_REMEDY) from error


def open_image_raster(path: Path, *, remedy: str = REPLACE_REMEDY) -> rasterio.io.DatasetReader:
    """Open a raster for reading, upright; one without a coordinate system is fine.

    Args:
        path: the file.
        remedy: what to do about a file that is no image.

    Raises:
        InputError: the file is missing or not an image.
    """
    _require_file(path)
    try:
        with ignore_not_georeferenced():
            stored = open_raster(str(path), display_name=path, local=True)
            raster: rasterio.io.DatasetReader = open_as_shown(stored, path)
            return raster
    except RasterioError as error:
        raise InputError(path, "is not an image that can be read", remedy) from error


@contextmanager
def open_grey_levels(path: Path) -> Iterator[rasterio.io.DatasetReader]:
    """Open a raster that is an image, whose values are grey levels (`tagged_view.spread_levels`).

    Raises:
        InputError: the file is missing or not an image.
    """
    with ExitStack() as views:
        levels = spread_levels(views.enter_context(open_image_raster(path)), str(path), views)
        yield views.enter_context(levels.dataset)


def find_raster_window(path: Path, raster: rasterio.io.DatasetReader, window_px: WindowPx | None) -> Window | None:
    """Return a window as rasterio wants it, None for the whole raster; what is read at once has a limit."""
    height, width = (raster.height, raster.width) if window_px is None else window_px[2:]
    pixels = height * width
    if pixels > MAX_PICTURE_PX or pixels * raster.count * np.dtype(raster.dtypes[0]).itemsize > 16 * MAX_PICTURE_PX:
        problem = f"has {height:,} x {width:,} pixels in {raster.count:,} bands, too much to be decoded at once"
        raise InputError(path, problem, "Cut it into patches with `semicdvl prepare`, or give --tile")
    if window_px is None:
        return None
    _require_window_inside(path, (raster.height, raster.width), window_px)
    return Window(window_px[1], window_px[0], width, height)


def cut_window(path: Path, array: NDArray[_T], window_px: WindowPx | None) -> NDArray[_T]:
    """Return a window of a decoded array, or all of it."""
    if window_px is None:
        return array
    _require_window_inside(path, (array.shape[0], array.shape[1]), window_px)
    row, col, height, width = window_px
    return array[row : row + height, col : col + width]


def _require_file(path: Path) -> None:
    """Raise if there is no such file, or what is there is none."""
    require_file_or_folder(path, remedy="Check the path or remove the pair from the list")
    if path.is_dir():
        raise InputError(path, f"is {describe_folder(path)}, not an image", "Give a GeoTIFF, PNG or JPEG file")
    if not path.is_file():
        raise InputError(path, "does not exist", "Check the path or remove the pair from the list")


def _require_window_inside(path: Path, size_px: tuple[int, int], window_px: WindowPx) -> None:
    """Raise if a window is not inside an image of (height, width)."""
    row, col, height, width = window_px
    if min(row, col) < 0 or min(height, width) < 1 or row + height > size_px[0] or col + width > size_px[1]:
        raise InputError(
            path,
            f"is {size_px[0]} x {size_px[1]} px and has no window of {height} x {width} px at row {row}, col {col}",
            "Make the split again from the files as they are now",
        )


def read_png_depth(path: Path) -> int:
    """Return the bits per sample that a PNG's header states, 8 for other formats (Pillow hides 16-bit colour)."""
    with path.open("rb") as handle:
        head = handle.read(25)
    return head[24] if head[:8] == b"\x89PNG\r\n\x1a\n" else 8
