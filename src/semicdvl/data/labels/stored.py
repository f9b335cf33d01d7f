"""The pixels of a label file as they are stored, and how they are shown: palette, transparency, no data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window

from semicdvl.raster.io.orientation import turn_upright

UInt8Array = NDArray[np.uint8]
LOSSY_FORMATS = frozenset({"JPEG", "MPO", "WEBP", "JPEG2000", "JP2OPENJPEG", "YCBCR JPEG"})
"""Formats and compressions that change values: masks in them hold numbers near 0 and near 255."""


@dataclass(frozen=True)
class StoredLabel:
    """The pixels of a label file as they are stored, and how they are shown.

    Attributes:
        path: the file.
        bands_HWC: the stored values of one band, or of red, green and blue.
        opaque_HW: False where an alpha band or a mask says that there is nothing; None: there is neither.
        palette_N4: the colour (RGBA) that each stored value is shown in; None: values are shown as grey levels.
        nodata_values: stored values that are tagged as no data.
        lossy: whether the file is compressed with loss.
        zero_is_white: whether the palette is that of a grey picture in which 0 is white.
    """

    path: Path
    bands_HWC: NDArray[np.generic]
    opaque_HW: NDArray[np.bool_] | None = None
    palette_N4: UInt8Array | None = None
    nodata_values: frozenset[float] = frozenset()
    lossy: bool = False
    zero_is_white: bool = False


def read_stored_picture(path: Path, picture: Image.Image) -> StoredLabel:
    """Return the pixels of an image that Pillow opened, upright."""
    lossy = (picture.format or "").upper() in LOSSY_FORMATS
    picture = turn_upright(picture)
    palette_N4 = None
    if picture.mode in ("P", "PA"):
        palette_N4 = np.array(picture.getpalette("RGBA"), np.uint8).reshape(-1, 4)
        bands_HWC = np.array(picture)
    else:
        bands_HWC = np.array(picture.convert("RGB") if picture.mode in ("CMYK", "YCbCr") else picture)
    bands_HWC = bands_HWC[..., None] if bands_HWC.ndim == 2 else bands_HWC
    opaque_HW = None
    if picture.mode in ("LA", "PA", "RGBA"):
        bands_HWC, opaque_HW = bands_HWC[..., :-1], bands_HWC[..., -1] > 0
    tag = picture.info.get("transparency")
    nodata = frozenset({float(tag)}) if isinstance(tag, int) else frozenset()
    if palette_N4 is not None and isinstance(tag, bytes):
        palette_N4[: len(tag), 3] = np.frombuffer(tag, np.uint8)[: len(palette_N4)]
    return StoredLabel(path, bands_HWC, opaque_HW, palette_N4, nodata, lossy)


def read_stored_raster(
    path: Path,
    raster: rasterio.io.DatasetReader,
    window: Window | None,
    *,
    source: rasterio.io.DatasetReader | None = None,
) -> StoredLabel:
    """Read a window of a raster; `source` is the file where `raster` is a view of it with an alpha band of its own."""
    source = source or raster
    bands_CHW = raster.read(window=window)
    opaque_HW = None
    alpha = next((index for index, role in enumerate(raster.colorinterp) if role == ColorInterp.alpha), None)
    if alpha is not None:
        opaque_HW = bands_CHW[alpha] > 0
        bands_CHW = np.delete(bands_CHW, alpha, axis=0)
    elif MaskFlags.per_dataset in source.mask_flag_enums[0]:
        opaque_HW = raster.dataset_mask(window=window) > 0
    nodata = frozenset() if source.nodata is None or np.isnan(source.nodata) else frozenset({float(source.nodata)})
    lossy_names = {source.driver.upper(), str(source.tags(ns="IMAGE_STRUCTURE").get("COMPRESSION", "")).upper()}
    bands_HWC = np.moveaxis(bands_CHW, 0, 2)
    palette_N4 = read_palette(source)
    zero_is_white = palette_N4 is not None and source.colorinterp[0] != ColorInterp.palette
    lossy = bool(lossy_names & LOSSY_FORMATS)
    return StoredLabel(path, bands_HWC, opaque_HW, palette_N4, nodata, lossy, zero_is_white)


def read_palette(raster: rasterio.io.DatasetReader) -> UInt8Array | None:
    """Return the colours RGBA of a raster's palette, None if it has none."""
    try:
        colours = raster.colormap(1)
    except ValueError:  # rasterio says in this way that there is none
        return None
    palette_N4 = np.zeros((max(colours) + 1, 4), np.uint8)
    palette_N4[:, 3] = 255
    palette_N4[list(colours)] = list(colours.values())
    return palette_N4
