"""The stretch of 16-bit data to grey values: robust, and the same at both dates."""

import json
import re

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from tests.support.command import command
from tests.support.synthetic_rasters import at, city, same_pixels, tif

from semicdvl.errors import ConfigError, InputError
from semicdvl.raster.io.open_pair import open_pair
from semicdvl.types import ReadingSettings

CLOUD = np.s_[:, 10:28, 20:70]  # 3 % of the image
GROUND = np.s_[50:, :, :]


def write_deep_pair(folder, *, cloud=None, gain=1.0):
    """Write ground of 500 to 2,950 at both dates, and a cloud at the first."""
    ground = city(150, 200).astype(np.uint16) * 10 + 450
    first = ground.copy()
    if cloud is not None:
        first[CLOUD] = cloud
    second = (ground * gain).astype(np.uint16)
    return tif(folder / "t1.tif", first, at(0, 90)), tif(folder / "t2.tif", second, at(0, 90))


@pytest.mark.parametrize("cloud", [65535, 30000, "varied"])
def test_cloud_leaves_the_ground_its_contrast(tmp_path, cloud):
    if cloud == "varied":
        cloud = np.random.default_rng(0).integers(20000, 60000, (3, 18, 50))
    with open_pair(*write_deep_pair(tmp_path, cloud=cloud)) as pair:
        window = pair.read(0, 0, 150, 200)
    for image_HWC in (window.t1_HWC, window.t2_HWC):
        low, high = np.percentile(image_HWC[GROUND], (1, 99))
        assert high - low > 150
    assert (window.t1_HWC[GROUND] == window.t2_HWC[GROUND]).all(), "unchanged ground is equal at both dates"
    no_data = cloud == 65535 if isinstance(cloud, int) else False  # no other value comes near to it
    assert (window.t1_HWC[10:28, 20:70] == (0 if no_data else 255)).all()
    assert (window.valid_HW[10:28, 20:70] != no_data).all()


def test_dates_in_other_units_get_a_stretch_each(tmp_path):
    with open_pair(*write_deep_pair(tmp_path, gain=20)) as pair:
        window = pair.read(0, 0, 150, 200)
    assert np.abs(window.t1_HWC.astype(int) - window.t2_HWC).max() <= 1


def test_change_does_not_shift_the_values_of_dates_in_other_units(tmp_path):
    ground = city(150, 200).astype(np.float32)
    later = ground.copy()
    later[:, :20] = 250  # bright roofs on 13 % of the ground
    first = tif(tmp_path / "t1.tif", ground / 255, at(0, 90))
    second = tif(tmp_path / "t2.tif", later / 2.55, at(0, 90))
    with open_pair(first, second) as pair:
        window = pair.read(0, 0, 150, 200)
        assert np.abs(window.t1_HWC[20:].astype(int) - window.t2_HWC[20:]).mean() < 2
        assert any("in other units: they were matched" in note for note in pair.notes)


def test_brighter_date_stays_brighter_with_one_stretch_and_not_with_one_each(tmp_path):
    pair = write_deep_pair(tmp_path, gain=1.2)
    for stretch, brighter in (("auto", True), ("each", False)):
        with open_pair(*pair, ReadingSettings(stretch=stretch)) as opened:
            window = opened.read(0, 0, 150, 200)
            means = window.t1_HWC.mean(), window.t2_HWC.mean()
        assert (means[1] > means[0] + 15) == brighter


def test_given_values_are_black_and_white(tmp_path, capsys):
    pair = write_deep_pair(tmp_path)
    with open_pair(*pair, ReadingSettings(stretch="1000,2000")) as opened:
        window = opened.read(0, 0, 150, 200)
        data = city(150, 200).transpose(1, 2, 0).astype(float) * 10 + 450
        assert (window.t1_HWC == np.rint(np.clip((data - 1000) / 1000, 0, 1) * 255)).all()
    command(capsys, "check", *pair, "-o", tmp_path / "check", "--stretch", "1000,2000")
    record = json.loads((tmp_path / "check" / "check.json").read_text())
    assert record["after"]["stretch"] == "1000-2000 1000-2000 1000-2000"
    for wrong in ("2000,1000", "many"):
        with pytest.raises(ConfigError, match="auto, each, or two data values"):
            open_pair(*pair, ReadingSettings(stretch=wrong))


# ------------------------------------------------------------------------------------------------ scale and offset
def tag(path, *, scale, offset):
    with rasterio.open(path, "r+") as target:
        target.scales, target.offsets = [scale] * target.count, [offset] * target.count
    return path


@pytest.mark.parametrize("lossless", [True, False])
def test_dates_that_are_stored_with_other_tags_are_compared_as_physical_values(tmp_path, lossless):
    """As Sentinel-2: the same ground is 1,000 numbers higher since January 2022."""
    ground = city(150, 200).astype(np.uint16) * 10 + 450
    first = tag(tif(tmp_path / "t1.tif", ground, at(0, 90)), scale=1e-4, offset=0)
    second = tag(
        tif(tmp_path / "t2.tif", ground + np.uint16(1000), at(0, 90)), scale=1e-4, offset=-0.1 if lossless else 0
    )
    with open_pair(first, second) as pair:
        window = pair.read(0, 0, 150, 200)
        assert sum("scale and offset of its tags" in note for note in pair.notes) == 2
        difference = window.t2_HWC.astype(int) - window.t1_HWC
        if lossless:
            assert np.abs(difference).max() <= 1
        else:
            assert difference.mean() > 60, "without a tag the second date is brighter"


def test_other_types_of_one_unit_get_one_stretch(tmp_path):
    ground = city(150, 200)
    first = tag(tif(tmp_path / "t1.tif", ground.astype(np.uint16) * 10, at(0, 90)), scale=1e-3, offset=0)
    second = tif(tmp_path / "t2.tif", ground.astype(np.float32) / 100 * 1.2, at(0, 90))
    with open_pair(first, second) as pair:
        window = pair.read(0, 0, 150, 200)
        means = window.t1_HWC.mean(), window.t2_HWC.mean()
        assert means[1] > means[0] + 15, "brighter ground stays brighter"
    with open_pair(first, second, ReadingSettings(stretch="0,2.5")) as pair:  # in physical values
        t1_HWC = pair.read(0, 0, 150, 200).t1_HWC
        assert np.abs(t1_HWC - ground.transpose(1, 2, 0) * 1.02).max() <= 0.51


def test_8_bit_dates_of_other_tags_are_compared_as_physical_values(tmp_path):
    ground = city(150, 200) // 2
    first = tag(tif(tmp_path / "t1.tif", ground, at(0, 90)), scale=0.002, offset=0)
    second = tag(tif(tmp_path / "t2.tif", ground * 2, at(0, 90)), scale=0.001, offset=0)
    with open_pair(first, second) as pair:
        window = pair.read(0, 0, 150, 200)
        assert (window.t1_HWC == window.t2_HWC).all() and np.ptp(window.t1_HWC) == 255
    tag(second, scale=0.002, offset=0)
    with open_pair(first, second) as pair:  # equal tags say nothing new
        assert same_pixels(pair.read(0, 0, 150, 200).t2_HWC, ground * 2)


def test_tiles_of_a_mosaic_with_other_tags_are_refused(tmp_path):
    ground = city(60, 90).astype(np.uint16) * 10
    tiles = [tif(tmp_path / f"{x}.tif", ground, at(x, 90)) for x in (0, 45)]
    whole = tif(tmp_path / "b.tif", np.concatenate([ground, ground], axis=2), at(0, 90))
    for tile in (*tiles, whole):
        tag(tile, scale=1e-4, offset=-0.1)
    with open_pair(tiles, whole) as pair:
        window = pair.read(0, 0, 60, 180)
        assert (window.t1_HWC == window.t2_HWC).all()
    tag(tiles[1], scale=1e-4, offset=0)
    with pytest.raises(InputError, match="other scale and offset tags"):
        open_pair(tiles, whole)


# ------------------------------------------------------------------------------------------------ 8 bits and more
@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32])
def test_grey_values_in_a_wider_type_are_read_as_they_are(tmp_path, dtype):
    ground = city(150, 200)
    pair = [tif(tmp_path / "t1.tif", ground, at(0, 90)), tif(tmp_path / "t2.tif", ground.astype(dtype), at(0, 90))]
    for before, after in (pair, pair[::-1]):
        with open_pair(before, after) as opened:
            window = opened.read(0, 0, 150, 200)
            assert same_pixels(window.t1_HWC, ground) and same_pixels(window.t2_HWC, ground)


@pytest.mark.parametrize("changed_frac", [0, 0.3])
def test_deep_date_is_matched_to_the_8_bit_date(tmp_path, changed_frac):
    """The 8-bit date was made from such values with limits that are not known."""
    deep = city(150, 200).astype(np.uint16) * 10 + 450
    shown = np.clip((deep - 400.0) / 3000 * 255, 0, 255).round().astype(np.uint8)
    rows = round(150 * changed_frac)
    deep[:, :rows] = 3300 + (city(rows, 200, seed=7).astype(np.uint16) if rows else 0)  # bright roofs
    pair = [tif(tmp_path / "t1.tif", shown, at(0, 90)), tif(tmp_path / "t2.tif", deep, at(0, 90))]
    for before, after in (pair, pair[::-1]):
        with open_pair(before, after) as opened:
            window = opened.read(0, 0, 150, 200)
            difference = window.t1_HWC[rows:].astype(int) - window.t2_HWC[rows:]
            assert np.abs(difference).mean() < 3
            assert any("matched to it" in note for note in opened.notes)


def test_unrelated_ground_gets_equal_ranges(tmp_path):
    deep = np.random.default_rng(0).integers(500, 3000, (3, 150, 200)).astype(np.uint16)  # no texture in common
    pair = [tif(tmp_path / "t1.tif", city(150, 200), at(0, 90)), tif(tmp_path / "t2.tif", deep, at(0, 90))]
    with open_pair(*pair) as opened:
        window = opened.read(0, 0, 150, 200)
        assert any("which is a guess" in note for note in opened.notes)
        limits = [np.percentile(image_HWC, (1, 99)) for image_HWC in (window.t1_HWC, window.t2_HWC)]
        assert np.abs(limits[0] - limits[1]).max() < 12


ROOFS_HW = np.zeros((60, 80), np.uint8)
ROOFS_HW[10:30, 20:50] = 1
ROOFS_CHW = np.repeat(ROOFS_HW[None], 3, axis=0)  # of a single band with 1 bit GDAL makes a palette
WHOLE = ReadingSettings(collar="none")


def one_bit_tiles(folder):
    """The roofs as two files of 1 bit per value, side by side."""
    folder.mkdir()
    return [tif(folder / f"{col}.tif", ROOFS_CHW[..., col : col + 40], at(col / 2, 30), nbits=1) for col in (0, 40)]


def one_bit_vrt(folder, *, told):
    """A virtual raster of one file; `gdalbuildvrt` does not say that it has 1 bit per value, `gdal_translate` does."""
    folder.mkdir()
    tif(folder / "roofs.tif", ROOFS_CHW, at(0, 30), nbits=1)
    rasterio.shutil.copy(folder / "roofs.tif", folder / "roofs.vrt", driver="VRT")
    text = (folder / "roofs.vrt").read_text()
    untold = re.sub(r"<MDI key=.NBITS.>1</MDI>", "", text)
    assert untold != text
    (folder / "roofs.vrt").write_text(text if told else untold)
    return folder / "roofs.vrt"


def test_one_bit_is_black_and_white_in_mosaics_and_virtual_rasters(tmp_path):
    images = [
        one_bit_tiles(tmp_path / "tiles"),
        tmp_path / "tiles",
        one_bit_vrt(tmp_path / "told", told=True),
        one_bit_vrt(tmp_path / "untold", told=False),
        [one_bit_vrt(tmp_path / "twice", told=False), *one_bit_tiles(tmp_path / "more")],
    ]
    for image in images:
        with open_pair(image, image, WHOLE) as pair:
            window = pair.read(0, 0, 60, 80)
        np.testing.assert_array_equal(window.t1_HWC[..., 0], ROOFS_HW * 255, err_msg=str(image))


def test_dark_values_of_8_bits_stay_in_virtual_rasters(tmp_path):
    tif(tmp_path / "dark.tif", ROOFS_CHW, at(0, 30))
    rasterio.shutil.copy(tmp_path / "dark.tif", tmp_path / "dark.vrt", driver="VRT")
    with open_pair(tmp_path / "dark.vrt", tmp_path / "dark.tif", WHOLE) as pair:
        np.testing.assert_array_equal(pair.read(0, 0, 60, 80).t1_HWC[..., 0], ROOFS_HW)


def test_colours_of_a_palette_of_1_bit_are_those_that_are_read(tmp_path):
    path = tmp_path / "palette.tif"
    profile = {"dtype": "uint8", "count": 1, "height": 60, "width": 80, "nbits": 1, "photometric": "PALETTE"}
    with rasterio.open(path, "w", driver="GTiff", crs="EPSG:32615", transform=at(0, 30), **profile) as target:
        target.write_colormap(1, {0: (10, 20, 30, 255), 1: (200, 180, 160, 255)})
        target.write(ROOFS_HW[None])
    with open_pair(path, path, ReadingSettings(collar="none")) as pair:
        window = pair.read(0, 0, 60, 80)
    assert window.t1_HWC[15, 25].tolist() == [200, 180, 160] and window.t1_HWC[0, 0].tolist() == [10, 20, 30]


def test_files_of_1_bit_and_of_8_bits_make_a_mosaic(tmp_path):
    tiles = one_bit_tiles(tmp_path / "tiles")
    eight = tif(tmp_path / "eight.tif", ROOFS_CHW * 255, at(40, 30))
    for order in ([*tiles, eight], [eight, *tiles]):
        with open_pair(order, order, WHOLE) as pair:
            grey_HW = pair.read(0, 0, 60, 160).t1_HWC[..., 0]
        np.testing.assert_array_equal(grey_HW, np.tile(ROOFS_HW * 255, 2))


def test_one_bit_is_black_and_white(tmp_path):
    before, after = (tif(tmp_path / f"{name}.tif", ROOFS_CHW, at(0, 30), nbits=1) for name in "ab")
    grey = tif(tmp_path / "grey.tif", np.full((3, 60, 80), 90, np.uint8), at(0, 30))
    for other, other_value in ((after, 255), (grey, 90)):
        with open_pair(before, other, WHOLE) as pair:
            window = pair.read(0, 0, 60, 80)
            assert any("stores 1 bit per value" in note for note in pair.before.notes)
        np.testing.assert_array_equal(window.t1_HWC, np.repeat(ROOFS_HW[..., None] * 255, 3, axis=2))
        assert window.t2_HWC[15, 25].tolist() == [other_value] * 3, "8 bits are read as they are stored"
