"""Read an image file as one array, whole or a window of it.

Photographs and scans are turned as their orientation tag says. The least number of a file of 1 to 7 bits per value is
black and the largest one is white, or the reverse where the file says so (MinIsWhite).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window

from semicdvl.data.images.files import (
    EIGHT_BIT_MODES,
    PILLOW_SUFFIXES,
    UInt8Array,
    WindowPx,
    cut_window,
    decode_file,
    find_raster_window,
    open_grey_levels,
    open_image_raster,
    open_picture,
    read_png_depth,
)
from semicdvl.data.labels.stored import read_palette
from semicdvl.errors import InputError
from semicdvl.raster.io.orientation import find_upright_size, turn_upright
from semicdvl.raster.io.views.alpha_band import are_many_values, holds_many_values
from semicdvl.raster.io.views.sentinel_values import find_sentinels, is_never_measured
from semicdvl.raster.stored_values import COLOURS, BandScaling, Stretch, select_bands
from semicdvl.reading.regular_files import read_stamp

MAX_RGB_BANDS = 4
ALPHA_MODES = ("LA", "PA", "RGBA")
_TO_8_BIT = (
    "Stretch the whole data set to 8 bits with one range, e.g. `gdal_translate -ot Byte -scale LOW HIGH 0 255 IN OUT`"
)
_TO_RGB = (
    "Say which they are, e.g. `gdal_edit.py -colorinterp_4 red -colorinterp_3 green -colorinterp_2 blue FILE`; a"
    " network reads all bands with data.bands"
)


def read_image_size(path: Path) -> tuple[int, int]:
    """Return (height, width) from the file's header.

    Raises:
        InputError: the file is missing or not an image.
    """
    if path.suffix.lower() in PILLOW_SUFFIXES:
        with open_picture(path) as picture:
            return find_upright_size(picture)
    with open_image_raster(path) as raster:
        return raster.height, raster.width


def read_rgb(path: Path, *, window_px: WindowPx | None = None, stretch: Stretch | None = None) -> UInt8Array:
    """Return the image, or a window of it, as uint8 HWC with C = 3 (grey is repeated, alpha and a 4th band dropped).

    A palette is looked up, and the bands are in the order that their names or colour tags say.

    Args:
        path: image file.
        window_px: part of the file to read; None: all of it.
        stretch: how physical values of more than 8 bits become grey values; 8-bit images are read as they are.

    Raises:
        InputError: missing, broken, two bands or more than four without names or tags of colours, the window lies
            outside, or more than 8 bits per band and no stretch.
    """
    if path.suffix.lower() in PILLOW_SUFFIXES and (stretch is None or not holds_deep_values(path)):
        return cut_window(path, _read_pillow_rgb(path), window_px)
    rgb_HWC = read_values(path, window_px=window_px)
    if rgb_HWC.dtype == np.uint8:
        return np.ascontiguousarray(rgb_HWC, np.uint8)
    if stretch is None:
        raise InputError(path, f"holds {rgb_HWC.dtype} values, but 8-bit RGB is needed", _TO_8_BIT)
    return np.ascontiguousarray(stretch(rgb_HWC.transpose(2, 0, 1)).transpose(1, 2, 0))


def read_values(path: Path, *, window_px: WindowPx | None = None) -> NDArray[Any]:
    """Return the three bands of a raster HWC: grey levels as uint8, other types in physical values (by their tags).

    Raises:
        InputError: as of `read_rgb`.
    """
    with open_grey_levels(path) as raster:
        window = find_raster_window(path, raster, window_px)
        bands = _find_rgb(path, raster)
        stored_CHW: NDArray[Any] = decode_file(path, lambda: raster.read(bands, window=window))
        if raster.colorinterp[0] == ColorInterp.palette and raster.count == 1:
            return look_up_colours(raster, stored_CHW[0])
        scaling = BandScaling.read(raster, bands)
    if stored_CHW.dtype != np.uint8 and not scaling.is_identity:
        stored_CHW = stored_CHW * scaling.scale_C[:, None, None] + scaling.offset_C[:, None, None]
    return np.moveaxis(stored_CHW if len(bands) == 3 else np.repeat(stored_CHW, 3, axis=0), 0, 2)


def _find_rgb(path: Path, raster: rasterio.io.DatasetReader) -> list[int]:
    """Return the numbers of red, green and blue, or of the only band."""
    if raster.count == 1:
        return [1]
    found = select_bands(raster, display_name=str(path)) if raster.count >= len(COLOURS) else None
    if found is None or (raster.count > MAX_RGB_BANDS and not found.is_told):
        raise InputError(path, f"has {raster.count} bands, which it does not call red, green and blue", _TO_RGB)
    return list(found.numbers)


def count_bands(path: Path) -> int:
    """Return the number of bands of an image, from its header.

    Raises:
        InputError: the file is missing or not an image.
    """
    with open_image_raster(path) as raster:
        return int(raster.count)


def has_further_bands(path: Path) -> bool:
    """Tell whether an image has more bands than red, green, blue and a fourth one, which `read_rgb` leaves out."""
    return path.suffix.lower() not in PILLOW_SUFFIXES and count_bands(path) > MAX_RGB_BANDS


def read_bands(path: Path, numbers: Sequence[int], *, window_px: WindowPx | None = None) -> NDArray[Any]:
    """Return bands of an image HWC in physical values (scale and offset tags): uint8, uint16 or float32.

    Args:
        path: image file.
        numbers: 1-based, in the order of the result.
        window_px: part of the file to read; None: all of it.

    Raises:
        InputError: missing, broken, a band is missing, or the window lies outside.
    """
    with open_grey_levels(path) as raster:
        window = find_raster_window(path, raster, window_px)
        if max(numbers) > raster.count:
            problem = f"has {raster.count} bands, but band {max(numbers)} is to be read"
            raise InputError(path, problem, "Set data.bands to bands that all images have, or replace the file")
        stored_CHW: NDArray[Any] = decode_file(path, lambda: raster.read(list(numbers), window=window))
        scaling = BandScaling.read(raster, numbers)
    if not scaling.is_identity or stored_CHW.dtype.name not in ("uint8", "uint16"):
        stored_CHW = scaling.apply(stored_CHW)
    return np.ascontiguousarray(np.moveaxis(stored_CHW, 0, 2))


def look_up_colours(raster: rasterio.io.DatasetReader, numbers_HW: NDArray[Any]) -> UInt8Array:
    """Return the colours HWC of a raster's numbers; they are shown as grey where it has no palette after all."""
    palette_N4 = read_palette(raster)
    if palette_N4 is None:
        return np.repeat(np.asarray(numbers_HW, np.uint8)[..., None], 3, axis=2)
    return np.asarray(palette_N4[np.minimum(numbers_HW, len(palette_N4) - 1)][..., :3])


def holds_deep_values(path: Path) -> bool:
    """Tell from the header whether an image has more than 8 bits per band.

    Raises:
        InputError: the file is missing or not an image.
    """
    if path.suffix.lower() in PILLOW_SUFFIXES:
        with open_picture(path) as picture:
            return picture.mode not in EIGHT_BIT_MODES or read_png_depth(path) == 16
    with open_image_raster(path) as raster:
        return bool(raster.dtypes[0] != "uint8")


def read_opaque(path: Path, *, window_px: WindowPx | None = None) -> NDArray[np.bool_] | None:
    """Return HW, True where an image shows something; None where nothing is hidden.

    An alpha band hides, as does a colour that is tagged as transparent, and in rasters also a mask, a no-data tag and a
    value that is no number.

    Raises:
        InputError: as of `read_rgb`.
    """
    if not _may_hide(path, read_stamp(path)):
        return None
    if path.suffix.lower() in PILLOW_SUFFIXES:
        with open_picture(path) as picture:
            alpha_HW = decode_file(path, lambda: _read_alpha(turn_upright(picture)))
        opaque_HW = cut_window(path, alpha_HW, window_px) > 0
    else:
        with open_grey_levels(path) as raster:
            window = find_raster_window(path, raster, window_px)
            opaque_HW = decode_file(path, lambda: _read_raster_opaque(raster, window))
    return None if opaque_HW.all() else opaque_HW


def _read_raster_opaque(raster: rasterio.io.DatasetReader, window: Window | None) -> NDArray[np.bool_]:
    """Return HW, True where a raster has data."""
    if ColorInterp.alpha in raster.colorinterp:
        return np.asarray(raster.read(raster.colorinterp.index(ColorInterp.alpha) + 1, window=window) > 0)
    opaque_HW = np.asarray(raster.dataset_mask(window=window) > 0)
    if np.dtype(raster.dtypes[0]).kind not in "if":
        return opaque_HW
    values_CHW = raster.read(window=window)
    tagged = [raster.nodata] if raster.nodata is not None and is_never_measured(raster.nodata) else []
    for value in (*tagged, *find_sentinels(values_CHW)):
        opaque_HW &= (values_CHW != value).all(axis=0)
    return np.asarray(opaque_HW & np.isfinite(values_CHW).all(axis=0))


@lru_cache(maxsize=65_536)
def _may_hide(path: Path, stamp: tuple[int, int] | None) -> bool:
    """Tell whether a file may have pixels without data; remembered for its stamp: training reads files often.

    An alpha band that is a band of the sensor hides nothing.
    """
    if path.suffix.lower() in PILLOW_SUFFIXES:
        with open_picture(path) as picture:
            has_alpha = picture.mode in ALPHA_MODES or "transparency" in picture.info
            return has_alpha and not are_many_values(decode_file(path, lambda: _read_alpha(picture)))
    with open_image_raster(path) as raster:
        roles = raster.colorinterp
        if ColorInterp.alpha in roles:
            return not holds_many_values(raster, roles.index(ColorInterp.alpha) + 1)
        masked = MaskFlags.all_valid not in raster.mask_flag_enums[0]
        return masked or np.dtype(raster.dtypes[0]).kind in "if"


def _read_alpha(picture: Image.Image) -> UInt8Array:
    """Return the alpha band of a picture, or that of the colour or palette entries that are tagged as transparent."""
    return np.array((picture if picture.mode in ALPHA_MODES else picture.convert("RGBA")).getchannel("A"), np.uint8)


def _read_pillow_rgb(path: Path) -> UInt8Array:
    """Decode a whole image to RGB."""
    with open_picture(path) as picture:
        if picture.mode not in EIGHT_BIT_MODES or read_png_depth(path) == 16:
            raise InputError(path, "holds more than 8 bits per band, but 8-bit RGB is needed", _TO_8_BIT)
        return decode_file(path, lambda: _to_rgb(picture))


def _to_rgb(picture: Image.Image) -> UInt8Array:
    """Convert any 8-bit mode, upright; the transparency of a palette is only kept by way of RGBA."""
    picture = turn_upright(picture)
    if picture.mode in ("P", "PA"):
        picture = picture.convert("RGBA")
    return np.array(picture.convert("RGB"), dtype=np.uint8)
