"""Pairs that are not what they seem: one image twice, the dates the wrong way round, white ground tagged as no data."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from tests.support.synthetic_rasters import at, city, tif

from semicdvl.detection.pair_check.acquisition import find_date
from semicdvl.detection.pair_check.check import check_image_pair


def list_kinds(before, after):
    return {finding.kind: finding for finding in check_image_pair(before, after).findings if finding.level}


def write_dates(folder, first="a.tif", second="b.tif"):
    """Write two dates of ground that differ a little everywhere."""
    for path in (folder / first, folder / second):
        path.parent.mkdir(parents=True, exist_ok=True)
    ground = city(150, 200)
    noise = np.random.default_rng(0).integers(-3, 4, ground.shape)
    return tif(folder / first, ground, at(0, 90)), tif(folder / second, (ground + noise).astype(np.uint8), at(0, 90))


def test_one_image_twice(tmp_path):
    before, after = write_dates(tmp_path)
    assert "same" not in list_kinds(before, after)
    assert "this is one image twice" in list_kinds(before, before)["same"].text
    copy = tif(tmp_path / "copy.tif", city(150, 200), at(0, 90))
    assert "same" in list_kinds(before, copy)


def test_pixels_that_are_no_squares(tmp_path):
    ground = city(150, 200)
    degrees = Affine(1e-5, 0, 14.999, 0, -1e-5, 60.001)
    before, after = (tif(tmp_path / f"{name}.tif", ground, degrees, crs="EPSG:4326") for name in "ab")
    found = list_kinds(before, after)["shape"]
    assert "A pixel is 0.56 m wide and 1.1 m high" in found.text and "--grid utm" in found.remedy
    assert "shape" not in list_kinds(*write_dates(tmp_path))


@pytest.mark.parametrize(
    ("before", "after", "swapped"),
    [
        ("city_2023.tif", "city_2019.tif", True),
        ("city_2019.tif", "city_2023.tif", False),
        ("20230611_x.tif", "20190402_y.tif", True),
        ("2023/tile_12.tif", "2019/tile_12.tif", True),
        ("ortho_2019-07-01.tif", "scene 2019.tif", False),
        ("tile_2023.tif", "tile.tif", False),
        ("tile_2048_2001.tif", "tile_1024_1999.tif", False),
    ],
)
def test_dates_in_names(tmp_path, before, after, swapped):
    kinds = list_kinds(*write_dates(tmp_path, before, after))
    assert ("order" in kinds) == swapped


def test_tags_count_before_names(tmp_path):
    pair = write_dates(tmp_path, "city_2023.tif", "city_2019.tif")
    for path, day in zip(pair, ("2018-05-01", "2018-06-01"), strict=True):
        with rasterio.open(path, "r+") as target:
            target.update_tags(ns="IMAGERY", ACQUISITIONDATETIME=f"{day}T10:00:00Z")
    assert "order" not in list_kinds(*pair)
    assert "of 2018-06-01 and the after image of 2018-05-01" in list_kinds(*pair[::-1])["order"].text


def test_days_and_years():
    assert find_date("S2A_20190630_x") == "2019-06-30" and find_date("a-2019.06.30") == "2019-06-30"
    assert find_date("ortho_2019") == "2019" and find_date("2018_2019_difference") is None
    assert find_date("tile_2048") is None and find_date("12019x") is None


@pytest.mark.parametrize("value", [0, 255])
def test_ground_of_the_no_data_value_is_said(tmp_path, value):
    ground = city(150, 200)
    border = ground.copy()
    border[:, :, :30] = value
    holed = border.copy()
    holed[:, 60:90, 100:140] = value
    before = tif(tmp_path / "t1.tif", ground, at(0, 90))
    assert "inside" not in list_kinds(before, tif(tmp_path / "t2.tif", border, at(0, 90), nodata=value))
    found = list_kinds(before, tif(tmp_path / "t3.tif", holed, at(0, 90), nodata=value))["inside"]
    assert found.text.startswith("4.0% of ") and f"value {value}" in found.text


def test_black_and_white_images_of_three_bands(tmp_path):
    """Compression and an odd coloured mark on the picture change nothing; two bands that are equal do not suffice."""
    grey = np.repeat(city(150, 200, bands=1), 3, axis=0)
    noise = np.random.default_rng(0).integers(-1, 2, grey.shape)
    marked = np.clip(grey + noise, 0, 255).astype(np.uint8)
    marked[0, :10, :10] = 255
    two_equal = city(150, 200)
    two_equal[1] = two_equal[0]
    images = {
        "grey": (grey, True),
        "marked": (marked, True),
        "colour": (city(150, 200), False),
        "two": (two_equal, False),
    }
    for name, (image, is_grey) in images.items():
        path = tif(tmp_path / f"{name}.tif", image, at(0, 90))
        check = check_image_pair(path, path)
        is_grey = name in ("grey", "marked")
        assert check.radiometry.before.is_grey is is_grey
        told = [finding for finding in check.findings if finding.kind == "grey"]
        assert len(told) == 2 * is_grey and all(finding.level == 0 for finding in told)
