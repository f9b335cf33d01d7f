"""Values that can only mean no data, without a tag."""

import numpy as np
import pytest
from tests.support.synthetic_rasters import at, city, tif

from semicdvl.raster.io.open_pair import open_pair
from semicdvl.raster.io.views.sentinel_values import find_sentinels
from semicdvl.types import ReadingSettings

HOLE = np.s_[20:40, 30:70]
FLOAT_MIN, FLOAT_MAX = float(np.finfo(np.float32).min), float(np.finfo(np.float32).max)


def reflectance(*, seed=0):
    """Ground of 0.05 to 0.29."""
    return city(60, 90, seed=seed).astype(np.float32) / 1000 + np.float32(0.04)


def find_hidden(first, second):
    """Return where a pair has no data."""
    with open_pair(first, second) as pair:
        return ~pair.read(0, 0, *pair.shape_hw).valid_HW, pair.notes


@pytest.mark.parametrize("value", [-9999, -99999, -32768, FLOAT_MIN, FLOAT_MAX, 9.969209968386869e36, -1])
def test_untagged_value_of_floats_is_no_data(tmp_path, value):
    holed = reflectance()
    holed[:, *HOLE] = value
    hidden_HW, notes = find_hidden(
        tif(tmp_path / "a.tif", holed, at(0, 90)), tif(tmp_path / "b.tif", reflectance(), at(0, 90))
    )
    wanted_HW = np.zeros((60, 90), bool)
    wanted_HW[HOLE] = True
    assert (hidden_HW == wanted_HW).all()
    assert sum(f"Pixels of {value:.6g} have no no-data tag" in note for note in notes) == 1


@pytest.mark.parametrize(("dtype", "value"), [("int16", -9999), ("int16", -32768), ("int32", -2147483648)])
def test_untagged_value_of_signed_numbers_is_no_data(tmp_path, dtype, value):
    ground = (city(60, 90).astype(dtype) * 40) - 300  # surface reflectance is below 0 here and there
    holed = ground.copy()
    holed[:, *HOLE] = value
    hidden_HW, _ = find_hidden(tif(tmp_path / "a.tif", ground, at(0, 90)), tif(tmp_path / "b.tif", holed, at(0, 90)))
    assert hidden_HW[HOLE].all() and hidden_HW.sum() == 800


@pytest.mark.parametrize("tagged", [True, False])
@pytest.mark.parametrize("shift_m", [0, 0.2])
def test_pixel_without_one_band_has_no_data(tmp_path, tagged, shift_m):
    holed = reflectance()
    holed[1, *HOLE] = -9999
    first = tif(tmp_path / "a.tif", reflectance(), at(shift_m, 90))
    second = tif(tmp_path / "b.tif", holed, at(0, 90), nodata=-9999 if tagged else None)
    hidden_HW, _ = find_hidden(first, second)
    assert hidden_HW[22:38, 32:68].all()
    assert hidden_HW[:16].sum() == hidden_HW[44:].sum() == 0


@pytest.mark.parametrize("shift_m", [0.2, 0.25])
def test_resampling_does_not_mix_the_value_with_the_ground(tmp_path, shift_m):
    ground = np.full((3, 60, 90), 0.2, np.float32)
    ground += reflectance(seed=2) / 10
    holed = ground.copy()
    holed[:, *HOLE] = -9999
    first = tif(tmp_path / "a.tif", ground, at(shift_m, 90))
    with open_pair(first, tif(tmp_path / "b.tif", holed, at(0, 90)), ReadingSettings(stretch="0,1")) as pair:
        window = pair.read(0, 0, *pair.shape_hw)
    values = window.t2_HWC[window.valid_HW]
    assert values.min() >= 50 and values.max() <= 62, "the ground is 0.205 to 0.23 of 1"


def test_values_that_may_be_measured_stay(tmp_path):
    heights = np.linspace(-60, 400, 60 * 90 * 3, dtype=np.float32).reshape(3, 60, 90)
    decibels = np.random.default_rng(0).normal(-900, 60, (3, 60, 90)).round().astype(np.float32)  # some are -999
    for data in (heights, decibels, np.zeros((3, 60, 90), np.float32)):
        assert find_sentinels(data) == []
    ground = city(60, 90).astype(np.float32) - 100
    hidden_HW, notes = find_hidden(
        tif(tmp_path / "a.tif", ground, at(0, 90)), tif(tmp_path / "b.tif", ground, at(0, 90))
    )
    assert not hidden_HW.any() and not any("no-data tag" in note for note in notes)


@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
def test_largest_number_without_others_near_it_is_no_data(tmp_path, dtype):
    largest = np.iinfo(dtype).max
    ground = city(60, 90).astype(dtype) * 20
    holed = ground.copy()
    holed[:, *HOLE] = largest
    first = tif(tmp_path / "a.tif", ground, at(0, 90))
    hidden_HW, notes = find_hidden(first, tif(tmp_path / "b.tif", holed, at(0, 90)))
    assert hidden_HW[HOLE].all() and hidden_HW.sum() == 800
    assert any(f"Pixels of {largest} in every band" in note for note in notes)
    tagged, notes = find_hidden(first, tif(tmp_path / "c.tif", holed, at(0, 90), nodata=0))
    assert not tagged.any() and not any("in every band" in note for note in notes), "a tag says what is no data"
    bright = holed.copy()
    bright[:, 45:50] = largest - np.arange(90, dtype=dtype) * (largest // 200) - 1  # a cloud with its edge
    assert not find_hidden(first, tif(tmp_path / "d.tif", bright, at(0, 90)))[0].any()
    red = ground.copy()
    red[0, *HOLE] = largest  # saturated in one band
    assert not find_hidden(first, tif(tmp_path / "e.tif", red, at(0, 90)))[0].any()


def test_tagged_value_and_another_one(tmp_path):
    holed = reflectance()
    holed[:, *HOLE] = -9999
    holed[:, :4] = FLOAT_MIN
    hidden_HW, _ = find_hidden(
        tif(tmp_path / "a.tif", holed, at(0, 90), nodata=-9999), tif(tmp_path / "b.tif", reflectance(), at(0, 90))
    )
    assert hidden_HW[:4].all() and hidden_HW[HOLE].all() and hidden_HW.sum() == 800 + 360


def test_later_tile_of_a_mosaic_does_not_hide_the_earlier_one(tmp_path):
    ground = reflectance()
    holed = ground.copy()
    holed[:, *HOLE] = -9999
    tiles = [tif(tmp_path / "0.tif", ground, at(0, 90)), tif(tmp_path / "1.tif", holed, at(0, 90))]
    hidden_HW, _ = find_hidden(tiles, tif(tmp_path / "b.tif", ground, at(0, 90)))
    assert not hidden_HW.any()
