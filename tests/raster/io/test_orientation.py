"""Photographs are read as viewers show them; pixels that are not plain numbers are refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image

from semicdvl.errors import InputError
from semicdvl.raster.io.open_pair import open_pair

BACK = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
"""EXIF orientation -> number of Pillow's transposition that undoes it."""


@pytest.mark.parametrize("orientation", BACK)
def test_a_photograph_and_its_upright_copy_are_the_same_pixels(tmp_path: Path, orientation: int) -> None:
    shown_HWC = np.random.default_rng(0).integers(1, 256, (40, 56, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(shown_HWC).save(tmp_path / "shown.png")
    Image.fromarray(shown_HWC).transpose(Image.Transpose(BACK[orientation])).save(tmp_path / "photo.png", exif=exif)
    with open_pair(tmp_path / "shown.png", tmp_path / "photo.png") as pair:
        window = pair.read(0, 0, 40, 56)
        np.testing.assert_array_equal(window.t1_HWC, shown_HWC)
        np.testing.assert_array_equal(window.t2_HWC, shown_HWC)
        assert [path.name for path in pair.after.files] == ["photo.png"]


@pytest.mark.parametrize("dtype", ["complex64", "complex_int16", "int64", "uint64"])
def test_pixels_that_are_not_plain_numbers_are_refused(tmp_path: Path, dtype: str) -> None:
    profile = {"driver": "GTiff", "count": 3, "height": 40, "width": 56, "crs": "EPSG:32633"}
    with rasterio.open(tmp_path / "a.tif", "w", dtype=dtype, transform=Affine(1, 0, 0, 0, -1, 40), **profile) as target:
        target.write(np.ones((3, 40, 56), "complex64" if dtype.startswith("complex") else dtype))
    problem = "complex numbers" if dtype.startswith("complex") else "64-bit whole numbers"
    with pytest.raises(InputError, match=rf"a\.tif: The pixels are {problem} \({dtype}\)"):
        open_pair(tmp_path / "a.tif", tmp_path / "a.tif")
