"""A pair that is read exactly: physical values of both dates, co-registered and matched as its grey values are."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from tests.support.synthetic_rasters import at, tif

from semicdvl.raster.io.open_pair import open_pair
from semicdvl.types import ReadingSettings

BANDS = (3, 2, 1, 5)


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    smooth_HW = rng.normal(0, 1, (8, 8)).repeat(16, 0).repeat(16, 1)
    before_CHW = (1000 + 200 * smooth_HW + rng.normal(0, 10, (5, 128, 128))).astype("uint16")
    after_CHW = (before_CHW * 1.5 + 400).round().astype("uint16")
    tif(tmp_path / "a.tif", before_CHW, at(0, 0))
    tif(tmp_path / "b.tif", after_CHW, at(0, 0))
    return tmp_path / "a.tif", tmp_path / "b.tif", before_CHW, after_CHW


def test_windows_hold_the_stored_values_of_the_bands(files):
    before, after, before_CHW, after_CHW = files
    with open_pair(before, after, ReadingSettings(bands=BANDS)) as pair:
        exact, grey = pair.read_exactly().read(5, 7, 20, 30), pair.read(5, 7, 20, 30)
        chosen = [band - 1 for band in BANDS]
        np.testing.assert_array_equal(exact.t1_HWC, before_CHW[chosen, 5:25, 7:37].transpose(1, 2, 0))
        np.testing.assert_array_equal(exact.t2_HWC, after_CHW[chosen, 5:25, 7:37].transpose(1, 2, 0))
        assert exact.t1_HWC.dtype == np.float32 and grey.t1_HWC.dtype == np.uint8
        assert pair.read_exactly().select_rgb().read(0, 0, 9, 8).t1_HWC.dtype == np.uint8, "pictures are of grey values"


def test_scale_and_offset_tags_make_both_dates_comparable(files):
    before, after, *_ = files
    with rasterio.open(after, "r+") as raster:
        raster.scales, raster.offsets = (1 / 1.5,) * 5, (-400 / 1.5,) * 5
    with open_pair(before, after, ReadingSettings(bands=BANDS)) as pair:
        window = pair.read_exactly().read(0, 0, 128, 128)
        np.testing.assert_allclose(window.t2_HWC, window.t1_HWC, atol=0.5)
        assert pair.read_exactly().after.exact_dtype == "float32" and pair.before.exact_dtype == "uint16"


def test_matched_radiometry_brings_values_of_the_after_image_to_those_of_the_before_image(files):
    before, after, *_ = files
    with open_pair(before, after, ReadingSettings(bands=BANDS, normalise="match")) as pair:
        window = pair.read_exactly().read(0, 0, 128, 128)
        assert np.abs(window.t2_HWC - window.t1_HWC).mean() < 15, "of a spread of 200"


def test_ground_without_data_is_no_number_in_both_dates(files, tmp_path):
    before, _, _, after_CHW = files
    hidden_CHW = after_CHW.copy()
    hidden_CHW[:, 40:60, :30] = 0
    tif(tmp_path / "c.tif", hidden_CHW, at(0, 0), nodata=0)
    with open_pair(before, tmp_path / "c.tif", ReadingSettings(bands=BANDS)) as pair:
        window = pair.read_exactly().read(0, 0, 128, 128)
        assert not window.valid_HW[40:60, :30].any() and np.isnan(window.t1_HWC[40:60, :30]).all()
        assert np.isnan(window.t2_HWC[40:60, :30]).all() and np.isfinite(window.t1_HWC[window.valid_HW]).all()
