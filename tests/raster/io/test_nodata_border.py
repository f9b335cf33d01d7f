"""Black borders without a no-data tag: what counts as one, found and dilated strip by strip."""

import tracemalloc

import numpy as np
import pytest
from scipy import ndimage
from tests.support.synthetic_rasters import at, city, tif

from semicdvl.raster.io import nodata_border
from semicdvl.raster.io.nodata_border import BORDER_STRIP_ROWS, BlackBorder, _pack_mask, find_black_border
from semicdvl.raster.io.open_pair import open_pair


def test_black_regions_that_are_no_border_stay_valid(tmp_path):
    image = city(300, 310)
    image[:, 100:200, 100:200] = 0  # large, but inside
    image[:, :40, :40] = 0  # at the edge, but small
    with open_pair(tif(tmp_path / "a.tif", image, at(0, 90)), tif(tmp_path / "b.tif", image, at(0, 90))) as pair:
        assert pair.read(0, 0, 300, 310).valid_HW.all() and not pair.notes


@pytest.mark.parametrize("seed", range(4))
def test_black_border_found_strip_by_strip_is_that_of_the_whole_image(seed, monkeypatch):
    monkeypatch.setattr(nodata_border, "BORDER_STRIP_ROWS", 7)
    black_HW = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(61, 83)), 2) > 0.03
    labels_HW, count = ndimage.label(black_HW, np.ones((3, 3)))
    frame = set(np.concatenate([labels_HW[0], labels_HW[-1], labels_HW[:, 0], labels_HW[:, -1]]))
    wanted = [label for label in range(1, count + 1) if label in frame and (labels_HW == label).sum() > 50]
    found = nodata_border.find_black_border(
        lambda r, c, h, w: black_HW[r : r + h, c : c + w], height=61, width=83, min_area_px=50
    )
    assert wanted, "the case must hold a border"
    assert (found.read_window(0, 0, 61, 83) == np.isin(labels_HW, wanted)).all()
    assert (found.read_window(-3, 10, 40, 90)[3:, :73] == np.isin(labels_HW, wanted)[:37, 10:]).all()


def test_decimated_border_takes_no_more_memory_than_a_strip():
    side, black = 8192, 4096
    strips = [_pack_mask(np.full((BORDER_STRIP_ROWS, side), row < black)) for row in range(0, side, BORDER_STRIP_ROWS)]
    border = BlackBorder(side, side, tuple(strips))
    tracemalloc.start()
    grown_HW = border.read_dilated(0, 0, side, side, radius_px=2, shape_hw=(100, 120))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert grown_HW.shape == (100, 120) and grown_HW[:50].all() and not grown_HW[50:].any()
    assert peak < 6 * BORDER_STRIP_ROWS * side < side * side / 2


@pytest.mark.parametrize("window", [(0, 0, 61, 83), (10, 20, 30, 41), (3, 60, 50, 23)])
@pytest.mark.parametrize("share", [1.0, 0.6, 0.17])
def test_border_dilated_strip_by_strip_is_the_whole_one_dilated(monkeypatch, window, share):
    monkeypatch.setattr("semicdvl.raster.io.nodata_border.BORDER_STRIP_ROWS", 7)
    black_HW = np.zeros((61, 83), bool)
    black_HW[:9, :40] = black_HW[30:, 70:] = black_HW[55:] = True
    border = find_black_border(lambda r, c, h, w: black_HW[r : r + h, c : c + w], height=61, width=83, min_area_px=5)
    dilated_HW = np.zeros((65, 87), bool)
    for row in range(5):
        for col in range(5):
            dilated_HW[row : row + 61, col : col + 83] |= black_HW
    row, col, height, width = window
    shape = round(height * share), round(width * share)
    rows = row + ((np.arange(shape[0]) + 0.5) * height / shape[0]).astype(int)
    cols = col + ((np.arange(shape[1]) + 0.5) * width / shape[1]).astype(int)
    grown_HW = border.read_dilated(row, col, height, width, radius_px=2, shape_hw=shape)
    assert (grown_HW == dilated_HW[2:-2, 2:-2][np.ix_(rows, cols)]).all() and dilated_HW.any()
