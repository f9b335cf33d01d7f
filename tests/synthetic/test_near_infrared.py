"""The fourth band of a synthetic city: leaves are bright in it, water is dark, and the other bands don't know of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from semicdvl.data.images.reading import read_bands, read_opaque, read_rgb
from semicdvl.synthetic.city import SyntheticCity
from semicdvl.synthetic.config import CitySpec
from semicdvl.synthetic.generate import generate_city
from semicdvl.synthetic.materials import LAND_COVER_CLASSES
from semicdvl.synthetic.write import write_city, write_city_patches

SPEC = CitySpec(size_px=(256, 320), seed=104, season=0.0)


@pytest.fixture(scope="module")
def city() -> SyntheticCity:
    return generate_city(replace(SPEC, nir=True))


def test_red_green_and_blue_stay_the_same_to_the_byte(city):
    plain = generate_city(SPEC)
    assert city.t1_HWC.shape == (256, 320, 4) and plain.t1_HWC.shape == (256, 320, 3)
    np.testing.assert_array_equal(city.t1_HWC[..., :3], plain.t1_HWC)
    np.testing.assert_array_equal(city.t2_HWC[..., :3], plain.t2_HWC)
    np.testing.assert_array_equal(city.change_HW, plain.change_HW)


def test_leaves_are_bright_and_water_is_dark(city):
    values_HWC, cover_HW = city.t1_HWC.astype(float), city.classes_t1_HW
    index_HW = (values_HWC[..., 3] - values_HWC[..., 0]) / (values_HWC[..., 3] + values_HWC[..., 0] + 1)
    mean = {
        name: index_HW[cover_HW == number].mean()
        for number, name in enumerate(LAND_COVER_CLASSES)
        if (cover_HW == number).sum() > 100
    }
    assert min(mean["grass"], mean["tree"]) > 0.1 > abs(mean["road"]), mean
    assert abs(mean["building"]) < 0.1 and mean.get("water", -1.0) < -0.3, mean


def test_patches_and_rasters_hold_four_bands_none_of_which_hides_anything(city, tmp_path):
    (pair, *_) = write_city_patches(city, tmp_path / "patches", size_px=128)
    assert pair.before.suffix == ".tif" and pair.label is not None and pair.label.suffix == ".png"
    np.testing.assert_array_equal(read_bands(pair.before, (1, 2, 3, 4)), city.t1_HWC[:128, :128])
    np.testing.assert_array_equal(read_rgb(pair.after), city.t2_HWC[:128, :128, :3])
    assert read_opaque(pair.before) is None
    files = write_city(city, tmp_path / "city")
    with rasterio.open(files.after) as raster:
        assert raster.count == 4 and ColorInterp.alpha not in raster.colorinterp
        np.testing.assert_array_equal(raster.read(4), city.t2_HWC[..., 3])
