"""Grey levels of files of few bits, and of files in which 0 is white, are those that viewers show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from PIL import Image
from rasterio.enums import Resampling
from tests.support.synthetic_rasters import at, tif
from tests.support.tiff_tags import set_orientation

from semicdvl.data.images.reading import read_bands, read_opaque, read_rgb, read_values
from semicdvl.data.labels.files import read_classes, read_mask
from semicdvl.raster.io.georeference_warnings import ignore_not_georeferenced
from semicdvl.raster.io.open_pair import open_pair
from semicdvl.types import ClassLegend, ReadingSettings

GREY = ReadingSettings(bands=(1, 1, 1), collar="none")
WHOLE = ReadingSettings(collar="none")


def stored(bits: int, count: int = 1, height: int = 40, width: int = 56) -> np.ndarray:
    values = np.random.default_rng(0).integers(0, 2**bits, (count, height, width))
    return values.astype("uint8" if bits <= 8 else "uint16")


def show(values: np.ndarray, bits: int) -> np.ndarray:
    return np.floor(values.astype(np.float64) * 255 / (2**bits - 1) + 0.5).astype(np.uint8)


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("photometric", ["MINISBLACK", "MINISWHITE"])
def test_what_pillow_shows_is_read_as_an_image(tmp_path: Path, bits: int, photometric: str) -> None:
    path = tif(tmp_path / "a.tif", stored(bits), None, None, nbits=bits, photometric=photometric)
    shown_HW = np.asarray(Image.open(path))
    assert shown_HW.min() == 0 and shown_HW.max() == 255
    np.testing.assert_array_equal(read_rgb(path), np.repeat(shown_HW[..., None], 3, axis=2))
    np.testing.assert_array_equal(read_rgb(path, window_px=(3, 5, 7, 9))[..., 1], shown_HW[3:10, 5:14])
    np.testing.assert_array_equal(read_bands(path, (1,))[..., 0], shown_HW)
    with open_pair(path, path, GREY) as pair:
        np.testing.assert_array_equal(pair.read(0, 0, 40, 56).t1_HWC, read_rgb(path))
        np.testing.assert_array_equal(pair.read(3, 5, 7, 9).t2_HWC[..., 2], shown_HW[3:10, 5:14])
        assert any(f"stores {bits} bits per value" in note for note in pair.before.notes)


@pytest.mark.parametrize("bits", range(1, 8))
def test_colours_of_few_bits_reach_from_black_to_white(tmp_path: Path, bits: int) -> None:
    values_CHW = stored(bits, 3)
    path = tif(tmp_path / "a.tif", values_CHW, at(0, 0), nbits=bits)
    wanted_HWC = show(values_CHW, bits).transpose(1, 2, 0)
    np.testing.assert_array_equal(read_rgb(path), wanted_HWC)
    with open_pair(path, path, WHOLE) as pair:
        np.testing.assert_array_equal(pair.read(0, 0, 40, 56).t1_HWC, wanted_HWC)
        np.testing.assert_array_equal(pair.read_exactly().read(0, 0, 40, 56).t1_HWC, wanted_HWC)


def test_where_0_is_white_8_bits_are_inverted(tmp_path: Path) -> None:
    path = tif(tmp_path / "a.tif", stored(8), None, None, photometric="MINISWHITE", nodata=7)
    shown_HW = 255 - stored(8)[0]
    np.testing.assert_array_equal(np.asarray(Image.open(path)), shown_HW)
    np.testing.assert_array_equal(read_rgb(path)[..., 0], shown_HW)
    with open_pair(path, path, GREY) as pair:
        window = pair.read(0, 0, 40, 56)
        np.testing.assert_array_equal(window.t1_HWC[..., 0][window.valid_HW], shown_HW[window.valid_HW])
        np.testing.assert_array_equal(window.valid_HW, stored(8)[0] != 7)
        assert any("0 is white and 255 is black (MinIsWhite)" in note for note in pair.before.notes)


def test_where_0_is_white_transparency_and_virtual_copies_keep_it(tmp_path: Path) -> None:
    alpha_HW = stored(8)[0] > 30
    path = tif(tmp_path / "a.tif", stored(8), at(0, 0), photometric="MINISWHITE", alpha=alpha_HW)
    tif(tmp_path / "b.tif", stored(8), at(0, 0), photometric="MINISWHITE")
    rasterio.shutil.copy(tmp_path / "b.tif", tmp_path / "b.vrt", driver="VRT")
    for image, valid_HW in ((path, alpha_HW), (tmp_path / "b.vrt", np.ones_like(alpha_HW))):
        with open_pair(image, image, GREY) as pair:
            window = pair.read(0, 0, 40, 56)
            np.testing.assert_array_equal(window.valid_HW, valid_HW)
            np.testing.assert_array_equal(window.t1_HWC[valid_HW][:, 0], 255 - stored(8)[0][valid_HW])
    np.testing.assert_array_equal(read_rgb(tmp_path / "b.vrt")[..., 0], 255 - stored(8)[0])


@pytest.mark.parametrize(("bits", "options"), [(16, {}), (12, {"nbits": 12})])
def test_where_0_is_white_deep_values_are_inverted_before_they_are_stretched(
    tmp_path: Path, bits: int, options
) -> None:
    values_CHW = stored(bits) // 2 + 100
    path = tif(tmp_path / "a.tif", values_CHW, at(0, 0), photometric="MINISWHITE", **options)
    plain = tif(tmp_path / "b.tif", 2**bits - 1 - values_CHW, at(0, 0), **options)
    np.testing.assert_array_equal(read_values(path), read_values(plain))
    with open_pair(path, plain, GREY) as pair:
        window = pair.read(0, 0, 40, 56)
        np.testing.assert_array_equal(window.t1_HWC, window.t2_HWC)
        assert window.t1_HWC.std() > 50


@pytest.mark.parametrize("bits", [10, 11, 12, 14])
def test_values_of_sensors_are_stretched_by_what_they_are(tmp_path: Path, bits: int) -> None:
    """The declared depth changes nothing: the same values in 16 bits give the same grey levels."""
    values_CHW = stored(bits, 3) // 4 + 50
    told = tif(tmp_path / "a.tif", values_CHW, at(0, 0), nbits=bits)
    with open_pair(told, tif(tmp_path / "b.tif", values_CHW, at(0, 0)), WHOLE) as pair:
        window = pair.read(0, 0, 40, 56)
        np.testing.assert_array_equal(window.t1_HWC, window.t2_HWC)
        assert window.t1_HWC.min() == 0 and window.t1_HWC.max() == 255 and 110 < window.t1_HWC.mean() < 145


def test_values_at_the_end_of_12_bits_do_not_make_the_ground_dark(tmp_path: Path) -> None:
    values_CHW = stored(12, 3) // 8 + 50
    values_CHW[:, :4] = 4095  # a tenth of the image is saturated
    path = tif(tmp_path / "a.tif", values_CHW, at(0, 0), nbits=12)
    with open_pair(path, path, WHOLE) as pair:
        assert 110 < pair.read(4, 0, 36, 56).t1_HWC.mean() < 145


def test_overviews_and_orientation_of_few_bits(tmp_path: Path) -> None:
    values_CHW = np.repeat(np.repeat(stored(4, 3, 50, 70), 16, axis=1), 16, axis=2)
    path = tif(tmp_path / "a.tif", values_CHW[:, ::-1, ::-1], None, None, nbits=4, tiled=True)
    with ignore_not_georeferenced(), rasterio.open(set_orientation(path, 3), "r+") as target:
        target.build_overviews([2, 4, 8, 16], Resampling.nearest)
    with open_pair(path, path, WHOLE) as pair:
        small_HWC, _ = pair.before.read(0, 0, 800, 1120, shape_hw=(50, 70))
        np.testing.assert_array_equal(pair.read(640, 960, 160, 160).t1_HWC, read_rgb(path)[640:, 960:])
    np.testing.assert_array_equal(small_HWC, 17 * stored(4, 3, 50, 70).transpose(1, 2, 0))
    np.testing.assert_array_equal(read_rgb(path), 17 * values_CHW.transpose(1, 2, 0))


def test_no_data_of_few_bits_stays_no_data(tmp_path: Path) -> None:
    values_CHW = stored(4, 3)
    values_CHW[:, 10:20, 10:20] = 15
    path = tif(tmp_path / "a.tif", values_CHW, at(0, 0), nbits=4, nodata=15)
    hidden_HW = (values_CHW == 15).all(axis=0)
    np.testing.assert_array_equal(read_opaque(path), ~(values_CHW == 15).any(axis=0) | ~hidden_HW)
    beyond = tif(tmp_path / "b.tif", values_CHW, at(0, 0), nbits=4, nodata=255)
    with open_pair(path, beyond, WHOLE) as pair:
        window = pair.read(0, 0, 40, 56)
        np.testing.assert_array_equal(window.valid_HW, ~hidden_HW)
        wanted_HWC = np.where(hidden_HW[..., None], 0, 17 * values_CHW.transpose(1, 2, 0))
        np.testing.assert_array_equal(window.t2_HWC, wanted_HWC)


def test_colours_of_a_palette_and_physical_values_are_as_they_are(tmp_path: Path) -> None:
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "height": 40, "width": 56, "nbits": 4}
    with rasterio.open(
        tmp_path / "a.tif", "w", photometric="PALETTE", crs="EPSG:32615", transform=at(0, 0), **profile
    ) as target:
        target.write(stored(4))
        target.write_colormap(1, {index: (index, 2 * index, 3 * index, 255) for index in range(16)})
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.tif"), stored(4)[0][..., None] * np.array([1, 2, 3]))
    with rasterio.open(tif(tmp_path / "b.tif", stored(4, 3), at(0, 0), nbits=4), "r+") as target:
        target.scales = (0.5,) * 3
    np.testing.assert_array_equal(read_bands(tmp_path / "b.tif", (1,))[..., 0], stored(4, 3)[0] * 0.5)


@pytest.mark.parametrize("bits", [2, 4])
def test_labels_of_few_bits_keep_their_numbers(tmp_path: Path, bits: int) -> None:
    path = tif(tmp_path / "a.tif", stored(bits), at(0, 0), nbits=bits)
    inverted = tif(tmp_path / "c.tif", stored(bits), at(0, 0), nbits=bits, photometric="MINISWHITE")
    names = tuple(f"class {index}" for index in range(2**bits))
    for legend in (ClassLegend(names), ClassLegend(names, tuple((9, index, 9) for index in range(2**bits)))):
        np.testing.assert_array_equal(read_classes(path, legend), stored(bits)[0])
        np.testing.assert_array_equal(read_classes(inverted, legend), stored(bits)[0])
    mask = tif(tmp_path / "b.tif", stored(1), at(0, 0), nbits=bits)
    np.testing.assert_array_equal(read_mask(mask), stored(1)[0])


def test_dark_values_of_virtual_rasters_that_are_scaled_already_stay(tmp_path: Path) -> None:
    tif(tmp_path / "a.tif", stored(4, 3), at(0, 0), nbits=4)
    rasterio.shutil.copy(tmp_path / "a.tif", tmp_path / "a.vrt", driver="VRT")
    text = (tmp_path / "a.vrt").read_text()
    untold = text.replace('<MDI key="NBITS">4</MDI>', "")
    scaled = untold.replace("SimpleSource>", "ComplexSource>")
    scaled = scaled.replace("</SourceBand>", "</SourceBand><ScaleRatio>10</ScaleRatio>")
    assert len({text, scaled, untold}) == 3
    for content, factor in ((text, 17), (scaled, 10), (untold, 17)):
        (tmp_path / "a.vrt").write_text(content)
        wanted_HWC = factor * stored(4, 3).transpose(1, 2, 0)
        np.testing.assert_array_equal(read_rgb(tmp_path / "a.vrt"), wanted_HWC)
        with open_pair(tmp_path / "a.vrt", tmp_path / "a.vrt", WHOLE) as pair:
            np.testing.assert_array_equal(pair.read(0, 0, 40, 56).t1_HWC, wanted_HWC)
