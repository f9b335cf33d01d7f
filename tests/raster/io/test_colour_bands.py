"""Red, green and blue are found by the names of the bands, then by colour tags; a guess is said to be one."""

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from tests.support.synthetic_rasters import at, city, same_pixels, tif

from semicdvl.data.images.reading import read_rgb
from semicdvl.errors import InputError
from semicdvl.raster.io.open_pair import open_pair
from semicdvl.raster.stored_values import find_named_colours
from semicdvl.types import ReadingSettings

RGBN = city(30, 40, bands=4)
RED, GREEN, BLUE, NIR = range(4)
MAXAR = "Coastal Blue Green Yellow Red RedEdge NIR1 NIR2".split()


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["Blue", "Green", "Red", "NIR"], (3, 2, 1)),
        (["nir", "red", "green", "blue"], (2, 3, 4)),
        (MAXAR, (5, 3, 2)),
        (["coastal_blue", "blue", "green_i", "green", "yellow", "red", "rededge", "nir"], (6, 4, 2)),
        (["Band 1 - Blue", "Band 2 - Green", "Band 3 - Red", "Band 4 - Red Edge", "Band 5 - Near infrared"], (3, 2, 1)),
        (["B02", "B03", "B04", "B08"], (3, 2, 1)),
        (["B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B11", "B12"], (4, 3, 2)),
        (["B2, central wavelength 490 nm", "B3, central wavelength 560 nm", "B4, central wavelength 665 nm",
          "B8, central wavelength 842 nm"], (3, 2, 1)),
        (["B1", "B2", "B3", "B4"], None),  # which sensor is it?
        (["Band 1", "Band 2", "Band 3", "Band 4"], None),
        (["SR_B1", "SR_B2", "SR_B3", "SR_B4"], None),  # Landsat 5 or 8
        (["Red", "Green", "NIR", None], None),
        (["Red", "Red", "Green", "Blue"], None),
        ([None, None, None, None], None),
    ],
)  # fmt: skip
def test_names_that_say_the_colours(names, found):
    assert find_named_colours(tuple(names)) == found


def write(path, bands, *, names=None, tags=None, dtype=np.uint8):
    """Write bands of `RGBN` in the given order."""
    tif(path, RGBN[bands].astype(dtype), at(0, 90))
    with rasterio.open(path, "r+") as target:
        target.colorinterp = tags or [ColorInterp.gray] + [ColorInterp.undefined] * (len(bands) - 1)
        for number, name in enumerate(names or [], start=1):
            target.set_band_description(number, name)
    return path


RGB_TAGS = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.undefined]


@pytest.mark.parametrize("tags", [None, RGB_TAGS], ids=["no tags", "GDAL's own tags"])
def test_names_come_before_tags(tmp_path, tags):
    """GDAL tags 8-bit bands as red, green and blue by itself, whatever they are."""
    named = write(tmp_path / "a.tif", [BLUE, GREEN, RED, NIR], names=["Blue", "Green", "Red", "NIR"], tags=tags)
    with open_pair(named, named) as pair:
        assert same_pixels(pair.read(0, 0, 30, 40).t1_HWC, RGBN[:3])
        assert pair.before.bands == (3, 2, 1) and pair.before.colours_told
        notes = {note for note in pair.notes if "bands 3, 2 and 1 are read as red, green and blue" in note}
        assert len(notes) == (tags is not None) and all("colour tags say 1, 2 and 3" in note for note in notes)
    assert same_pixels(read_rgb(named), RGBN[:3])
    with open_pair(named, named, ReadingSettings(bands=(1, 2, 3))) as pair:
        assert same_pixels(pair.read(0, 0, 30, 40).t1_HWC, RGBN[[BLUE, GREEN, RED]])


def test_names_that_agree_with_the_order_are_not_worth_a_note(tmp_path):
    named = write(tmp_path / "a.tif", [RED, GREEN, BLUE, NIR], names=["Red", "Green", "Blue", "NIR"])
    with open_pair(named, named) as pair:
        assert same_pixels(pair.read(0, 0, 30, 40).t1_HWC, RGBN[:3]) and not pair.notes


def test_patches_of_more_bands_need_names_or_tags(tmp_path):
    names = ["NIR", "Red", "Green", "Blue", "Red Edge"]
    bands = [NIR, RED, GREEN, BLUE, NIR]
    assert same_pixels(read_rgb(write(tmp_path / "named.tif", bands, names=names)), RGBN[:3])
    with pytest.raises(InputError, match="has 5 bands, which it does not call red, green and blue"):
        read_rgb(write(tmp_path / "plain.tif", bands))


def test_an_order_that_no_file_tells_is_said_to_be_a_guess(tmp_path):
    plain = write(tmp_path / "a.tif", [BLUE, GREEN, RED, NIR])
    told = write(tmp_path / "b.tif", [RED, GREEN, BLUE, NIR], tags=RGB_TAGS)
    with open_pair(plain, told) as pair:
        assert same_pixels(pair.read(0, 0, 30, 40).t1_HWC, RGBN[[BLUE, GREEN, RED]])
        (note,) = [note for note in pair.notes if "does not say which of its 4 bands" in note]
        assert note.startswith("a.tif: ") and "--bands 3,2,1" in note
        assert not pair.before.colours_told and pair.after.colours_told
        assert not pair.before.on_file_grid().colours_told
    with open_pair(plain, told, ReadingSettings(bands=(3, 2, 1), after_bands=(1, 2, 3))) as pair:
        assert pair.before.colours_told and not pair.notes


def test_three_bands_are_red_green_and_blue(tmp_path):
    plain = write(tmp_path / "a.tif", [RED, GREEN, BLUE], dtype=np.uint16)
    with open_pair(plain, plain) as pair:
        assert pair.before.colours_told and not any("does not say" in note for note in pair.notes)


# ------------------------------------------------------------------------------------------------ views and mosaics
def test_names_survive_rotated_and_upside_down_grids(tmp_path):
    named = write(tmp_path / "a.tif", [BLUE, GREEN, RED, NIR], names=["Blue", "Green", "Red", "NIR"])
    for turned in (at(0, 90) @ at(0, 0).rotation(30), at(0, 90).translation(0, 30) @ at(0, 0).scale(1, -1)):
        with rasterio.open(named, "r+") as target:
            target.transform = turned
        with open_pair(named, named) as pair:
            assert pair.before.bands == (3, 2, 1)


def test_a_mosaic_keeps_the_names(tmp_path):
    names = ["Blue", "Green", "Red", "NIR"]
    for col in (0, 1):
        tile = write(tmp_path / f"{col}.tif", [BLUE, GREEN, RED, NIR], names=names)
        with rasterio.open(tile, "r+") as target:
            target.transform = at(20 * col, 90)
    with open_pair(tmp_path, tmp_path) as pair:
        assert pair.before.bands == (3, 2, 1) and pair.shape_hw == (30, 80)
        assert same_pixels(pair.read(0, 40, 30, 40).t1_HWC, RGBN[:3])


def test_a_mosaic_of_files_in_different_orders_is_refused(tmp_path):
    write(tmp_path / "0.tif", [RED, GREEN, BLUE, NIR], names=["Red", "Green", "Blue", "NIR"])
    write(tmp_path / "1.tif", [BLUE, GREEN, RED, NIR], names=["Blue", "Green", "Red", "NIR"])
    with pytest.raises(InputError, match=r"1\.tif: Red, green and blue are the bands 3,2,1 .* bands 1,2,3 of .*0\.tif"):
        open_pair(tmp_path, tmp_path)
