"""One image on the grid of a pair: 8-bit stretch, no-data, NaN."""

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window
from tests.support.synthetic_rasters import at, city, tif

from semicdvl.errors import InputError
from semicdvl.raster.io.image_reader import read_valid_mask
from semicdvl.raster.io.open_pair import open_pair


def test_16_bit_gets_one_stretch_for_all_windows(tmp_path):
    deep = city(90, 100).astype(np.uint16) * 40 + 700
    deep[:, :, 60:] += 3000
    with open_pair(tif(tmp_path / "a.tif", deep, at(0, 90)), tif(tmp_path / "b.tif", deep, at(0, 90))) as pair:
        whole = pair.read(0, 0, 90, 100).t1_HWC
        parts = np.concatenate([pair.read(0, col, 90, 25).t1_HWC for col in range(0, 100, 25)], axis=1)
        assert (whole == parts).all() and whole.dtype == np.uint8
        assert whole.min() == 0 and whole.max() == 255 and whole[:, 60:].mean() > whole[:, :60].mean() + 20
        assert any("was stretched to 8 bits, once for the whole overlap" in note for note in pair.notes)


def test_float_nan_is_no_data(tmp_path):
    image = city(50, 70).astype(np.float32) / 255
    image[1, 10:20, 30:40] = np.nan
    with open_pair(tif(tmp_path / "a.tif", image, at(0, 90)), tif(tmp_path / "b.tif", image, at(0, 90))) as pair:
        valid_HW = pair.read(0, 0, 50, 70).valid_HW
        assert not valid_HW[10:20, 30:40].any() and valid_HW.sum() == 50 * 70 - 100


@pytest.mark.parametrize("way", ["tag", "alpha", "nan", "black"])
@pytest.mark.parametrize("warped", [False, True])
def test_no_data_at_all(tmp_path, way, warped):
    good = tif(tmp_path / "good.tif", city(40, 50), at(0, 90))
    empty = np.zeros((3, 40, 50), np.float32 if way == "nan" else np.uint8) + (np.nan if way == "nan" else 0)
    extra = {"tag": {"nodata": 0}, "alpha": {"alpha": np.zeros((40, 50), bool)}}.get(way, {})
    bad = tif(tmp_path / "bad.tif", empty.astype(np.float32 if way == "nan" else np.uint8),
              at(0.2 if warped else 0, 90), **extra)  # fmt: skip
    for pair in ((good, bad), (bad, good)):
        with pytest.raises(InputError) as caught:
            open_pair(*pair)
        error = caught.value
        assert (
            len(error.remedy) > 10
            and error.path == str(bad)
            and "has no data where the other image lies" in error.problem
        )
        assert ("all of it is black" in error.problem) == (way == "black")


def test_nan_of_a_warped_image_stays_no_data(tmp_path):
    image = city(50, 70).astype(np.float32) / 255
    image[1, 10:20, 30:40] = np.nan
    good = tif(tmp_path / "a.tif", city(50, 70, seed=1), at(0, 90))
    with open_pair(good, tif(tmp_path / "b.tif", image, at(0.2, 90))) as pair:
        valid_HW = pair.read(0, 0, *pair.shape_hw).valid_HW
        assert pair.after.warped and not valid_HW[11:19, 31:38].any() and valid_HW[:8].all() and valid_HW[24:].all()


@pytest.mark.parametrize("way", ["plain", "tag", "alpha"])
def test_valid_mask_equals_that_of_gdal(tmp_path, way):
    image = city(40, 52)
    image[:, :7, :9] = 0
    opaque = np.ones((40, 52), bool)
    opaque[:7, :9] = False
    extra = {"plain": {}, "tag": {"nodata": 0}, "alpha": {"alpha": opaque}}[way]
    with rasterio.open(tif(tmp_path / "image.tif", image, at(0, 90), **extra)) as raster:
        for window, size_hw in ((None, (40, 52)), (Window(4, 2, 20, 30), (30, 20)), (Window(0, 0, 52, 40), (10, 13))):
            mask_HW = read_valid_mask(raster, window, size_hw)
            assert (mask_HW == (raster.dataset_mask(window=window, out_shape=size_hw) > 0)).all()
            assert mask_HW.all() == (way == "plain") and mask_HW.shape == size_hw
