"""Read the bands that a network was told to read, as they are stored: 8 or 16 bits, or floating point."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semicdvl.data.images import (
    PILLOW_SUFFIXES,
    WindowPx,
    decode_raster,
    find_raster_window,
    open_image_raster,
    read_opaque,
)
from semicdvl.errors import InputError
from semicdvl.raster.io.band_scaling import BandScaling
from semicdvl.types import InputBands

MAX_RGB_BANDS = 4
KEPT_TYPES = ("uint8", "uint16", "float32")
"""Types in which values are kept; others become float32."""


def count_bands(path: Path) -> int:
    """Return the number of bands of an image, from its header.

    Raises:
        InputError: the file is missing or not an image.
    """
    with open_image_raster(path) as raster:
        return int(raster.count)


def has_further_bands(path: Path) -> bool:
    """Tell whether an image has more bands than RGB and a fourth one, which `images.read_rgb` leaves out."""
    return path.suffix.lower() not in PILLOW_SUFFIXES and count_bands(path) > MAX_RGB_BANDS


def require_bands(path: Path, numbers: Sequence[int]) -> None:
    """Raise `InputError` if an image lacks one of the bands that are to be read."""
    has = count_bands(path)
    if max(numbers) > has:
        raise InputError(
            path,
            f"has {has} bands, but band {max(numbers)} is to be read",
            "Set data.bands to bands that all images have, or replace the file",
        )


def read_bands(path: Path, numbers: Sequence[int], *, window_px: WindowPx | None = None) -> NDArray[Any]:
    """Return bands of an image HWC in physical values (scale and offset tags), of one of `KEPT_TYPES`.

    Args:
        path: image file.
        numbers: 1-based, in the order of the result.
        window_px: part of the file to read; None: all of it.

    Raises:
        InputError: missing, broken, a band is missing, or the window lies outside.
    """
    require_bands(path, numbers)
    with open_image_raster(path) as raster:
        window = find_raster_window(path, raster, window_px)
        stored_CHW: NDArray[Any] = decode_raster(path, lambda: raster.read(list(numbers), window=window))
        scaling = BandScaling.read(raster, numbers)
    if not scaling.is_identity:
        stored_CHW = stored_CHW * scaling.scale_C[:, None, None] + scaling.offset_C[:, None, None]
    if stored_CHW.dtype.name not in KEPT_TYPES:
        stored_CHW = stored_CHW.astype(np.float32)
    return np.ascontiguousarray(np.moveaxis(stored_CHW, 0, 2))


def read_filled_bands(path: Path, bands: InputBands, *, window_px: WindowPx | None = None) -> NDArray[Any]:
    """Return the bands of a network; where the image shows nothing they have their mean. Errors as `read_bands`."""
    values_HWC = read_bands(path, bands.numbers, window_px=window_px)
    return bands.fill_hidden(values_HWC, read_opaque(path, window_px=window_px))
