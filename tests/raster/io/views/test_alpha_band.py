"""A band tagged as alpha: transparency, or a band of the sensor."""

import json
from contextlib import ExitStack

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from tests.support.command import command
from tests.support.synthetic_rasters import at, city, tif

from semicdvl.errors import ConfigError, InputError
from semicdvl.raster.io.open_pair import open_pair
from semicdvl.raster.io.views.alpha_band import choose_alpha_band
from semicdvl.types import ReadingSettings

CORNER = at(0, 90)
WATER = np.s_[20:40, 30:70]


def write_four_bands(path, *, fourth, seed=0, place=CORNER):
    """Write four byte bands with GDAL's tags: the fourth is alpha."""
    tif(path, np.concatenate([city(60, 90, seed=seed), fourth[None]]), place)
    with rasterio.open(path, "r+") as target:
        target.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    return path


def near_infrared(seed=3):
    values = city(60, 90, seed=seed)[0]
    values[WATER] = 0
    return values


@pytest.mark.parametrize("shift_m", [0, 0.2])
def test_band_of_many_values_is_a_band(tmp_path, shift_m):
    first = write_four_bands(tmp_path / "a.tif", fourth=near_infrared())
    second = write_four_bands(tmp_path / "b.tif", fourth=near_infrared(), place=at(shift_m, 90))
    with open_pair(first, second) as pair:
        window = pair.read(0, 0, *pair.shape_hw)
        assert window.valid_HW[22:38, 32:68].all() and window.valid_HW[2:-2, 2:-2].all()
        assert sum("Band 4 is tagged as alpha" in note for note in pair.notes) == 2
    with open_pair(first, second, ReadingSettings(bands=(4, 1, 2))) as pair:
        assert (pair.read(20, 30, 20, 40).t1_HWC[2:-2, 2:-2, 0] == 0).all()


def test_transparency_stays_transparency(tmp_path):
    seen = np.full((60, 90), 255, np.uint8)
    seen[WATER] = 0
    seen[18:20, 30:70] = 128  # a feathered edge
    pair = [write_four_bands(tmp_path / f"{name}.tif", fourth=seen) for name in "ab"]
    with open_pair(*pair) as opened:
        valid_HW = opened.read(0, 0, 60, 90).valid_HW
        assert (valid_HW == (seen > 0)).all() and not any("alpha" in note for note in opened.notes)
    with open_pair(*pair, ReadingSettings(alpha="none")) as opened:
        assert opened.read(0, 0, 60, 90).valid_HW.all()


def write_untagged(path, fourth, below):
    data = np.concatenate([city(60, 90), fourth[None]])
    data[:3, fourth == 0] = np.array(below, np.uint8)[:, None]
    return tif(path, data, CORNER, photometric="RGB", ALPHA="NO")


def test_untagged_band_that_hides_one_colour_is_transparency(tmp_path):
    seen = np.full((60, 90), 255, np.uint8)
    seen[WATER] = 0
    other = tif(tmp_path / "b.tif", city(60, 90), CORNER)
    with open_pair(write_untagged(tmp_path / "a.tif", seen, (255, 255, 255)), other) as pair:
        assert (pair.read(0, 0, 60, 90).valid_HW == (seen > 0)).all()
        assert any("Band 4 is not tagged and hides" in note for note in pair.notes)
    with open_pair(tmp_path / "a.tif", other, ReadingSettings(alpha="none")) as pair:
        assert pair.read(0, 0, 60, 90).valid_HW.all()
    ground = tif(tmp_path / "c.tif", np.concatenate([city(60, 90), seen[None]]), CORNER, photometric="RGB", ALPHA="NO")
    with open_pair(ground, other) as pair:  # what it "hides" is ground of many colours: a mask of something else
        assert pair.read(0, 0, 60, 90).valid_HW.all()


def test_named_band_is_transparency(tmp_path):
    fourth = near_infrared()
    pair = [write_four_bands(tmp_path / f"{name}.tif", fourth=fourth) for name in "ab"]
    with open_pair(*pair, ReadingSettings(alpha="4")) as opened:
        assert (opened.read(0, 0, 60, 90).valid_HW == (fourth > 0)).all()
    with pytest.raises(InputError, match="no band 5, only 4"):
        open_pair(*pair, ReadingSettings(alpha="5"))
    with pytest.raises(ConfigError, match="auto, none or the number"):
        open_pair(*pair, ReadingSettings(alpha="yes"))


def test_mosaic_of_tiles_with_a_band_of_many_values(tmp_path):
    tiles = [write_four_bands(tmp_path / f"{at_x}.tif", fourth=near_infrared(), place=at(at_x, 90)) for at_x in (0, 45)]
    with open_pair(tiles, tiles) as pair:
        assert pair.shape_hw == (60, 180) and pair.read(0, 0, 60, 180).valid_HW.all()
        assert any("Band 4 is tagged as alpha" in note for note in pair.notes)


def test_untouched_file_is_not_viewed(tmp_path):
    with rasterio.open(tif(tmp_path / "a.tif", city(20, 30), at(0, 90))) as dataset, ExitStack() as views:
        assert choose_alpha_band(dataset, "a.tif", views).dataset is dataset


def test_command_line_says_which_band_is_transparency(tmp_path, capsys):
    fourth = near_infrared()
    pair = [write_four_bands(tmp_path / f"{name}.tif", fourth=fourth) for name in "ab"]
    for given, share in (("auto", 1.0), ("4", (fourth > 0).mean()), ("none", 1.0)):
        command(capsys, "check", *pair, "-o", tmp_path / given, "--alpha", given)
        record = json.loads((tmp_path / given / "check.json").read_text())
        assert record["radiometry"]["common_frac"] == pytest.approx(share)
        assert any("tagged as alpha" in note for note in record["notes"]) == (given == "auto")
    code, _, said = command(capsys, "check", *pair, "-o", tmp_path / "bad", "--alpha", "x")
    assert code == 2 and "auto, none or the number" in said
