"""Write patches to disk: one image per date and one label, each written completely or not at all.

RGB patches are PNGs. Patches of more bands are GeoTIFFs in which the values are as the raster stores them; a tag says
which bands of the raster they are, so that a network that learns from them finds these bands again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import rasterio
from numpy.typing import NDArray

from semicdvl.atomic_files import write_atomically
from semicdvl.data.images.files import open_image_raster
from semicdvl.raster.grid import Grid
from semicdvl.raster.io.georeference_warnings import ignore_not_georeferenced

UNCHANGED, UNKNOWN, CHANGED = 0, 128, 255
"""Values in the label files."""
LABEL_VALUES_OPTION = "{0=0,128=255,255=1}"
"""The value of `data.label_values` in a recipe by which unknown pixels are ignored."""


SOURCE_BANDS_TAG = "SOURCE_BANDS"
"""Tag of a patch: the numbers of its bands in the raster that it was cut from, such as 4,3,2,8."""


def list_patch_files(root: Path, name: str, *, suffix: str = ".png") -> tuple[Path, Path, Path]:
    """Return the paths below `root` of the first date, the second date and the label of a patch."""
    return root / "A" / f"{name}{suffix}", root / "B" / f"{name}{suffix}", root / "label" / f"{name}.png"


def write_patch(
    root: Path,
    name: str,
    t1_HWC: NDArray[np.uint8],
    t2_HWC: NDArray[np.uint8],
    label_HW: NDArray[np.uint8] | None,
) -> None:
    """Write the patch of both dates and its label, if it has one.

    Args:
        root: folder of the data set.
        name: of the patch, without suffix.
        t1_HWC: RGB of date 1.
        t2_HWC: RGB of date 2.
        label_HW: label in the values of label files (UNCHANGED, UNKNOWN, CHANGED); None: no label file.

    Raises:
        OutputError: the folder cannot be written.
    """
    images = (t1_HWC, t2_HWC, label_HW)
    for path, image in zip(list_patch_files(root, name), images, strict=True):
        if image is not None:
            write_png(path, image)


def write_png(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an RGB (HWC) or grey (HW) image as PNG."""
    ok, data = cv2.imencode(".png", image[..., ::-1] if image.ndim == 3 else image)
    assert ok, "a uint8 array can always be encoded"
    with write_atomically(path) as temporary:
        temporary.write_bytes(data.tobytes())


def write_band_image(
    path: Path, values_HWC: NDArray[np.float32], *, grid: Grid, dtype: str, source_bands: Sequence[int]
) -> None:
    """Write an image of any number of bands as GeoTIFF; what is NaN has no data.

    Args:
        path: file to write.
        values_HWC: values of the bands, red, green and blue first.
        grid: where it lies.
        dtype: type of the values, uint8, uint16 or float32; those of whole numbers get a mask where there is no data.
        source_bands: as `SOURCE_BANDS_TAG` says.

    Raises:
        OutputError: the file cannot be written.
    """
    height, width, count = values_HWC.shape
    valid_HW = np.isfinite(values_HWC).all(axis=2)
    stored_HWC = values_HWC if dtype == "float32" else np.nan_to_num(values_HWC, nan=0.0).round()
    with (
        write_atomically(path) as temporary,
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        ignore_not_georeferenced(),
        rasterio.open(
            temporary, "w", driver="GTiff", height=height, width=width, count=count, dtype=dtype, crs=grid.crs,
            transform=grid.transform, compress="deflate", predictor=3 if dtype == "float32" else 2, photometric="RGB",
            alpha="no",
        ) as raster,
    ):  # fmt: skip
        raster.write(stored_HWC.transpose(2, 0, 1).astype(dtype))
        raster.update_tags(**{SOURCE_BANDS_TAG: ",".join(map(str, source_bands))})
        if dtype == "float32":
            raster.nodata = np.nan
        elif not valid_HW.all():
            raster.write_mask(valid_HW)


def read_source_bands(path: Path) -> tuple[int, ...] | None:
    """Return which bands of a raster those of a patch are; None: nothing says so.

    Raises:
        InputError: the file is missing or not an image.
    """
    if path.suffix.lower() != ".tif":
        return None
    with open_image_raster(path) as raster:
        text = str(raster.tags().get(SOURCE_BANDS_TAG, ""))
    return tuple(map(int, text.split(","))) if re.fullmatch(r"\d{1,4}(,\d{1,4})*", text) else None
