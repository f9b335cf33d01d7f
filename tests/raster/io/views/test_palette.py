"""An image with a palette is read in its colours."""

import numpy as np
import pytest
import rasterio
from PIL import Image
from tests.support.synthetic_rasters import at, city, same_pixels, tif

from semicdvl.raster.io.open_pair import open_pair


def write_palette(path, numbers_HW, colours, *, place=None, nodata=None):
    """Write a GeoTIFF of one band with a palette."""
    tif(path, numbers_HW[None], place or at(0, 90), nodata=nodata)
    with rasterio.open(path, "r+") as target:
        target.write_colormap(1, dict(enumerate(colours)))
    return path


def make_numbers(seed=0):
    """Numbers of 16 colours, none of which is the grey level of its number."""
    numbers_HW = city(60, 90, seed=seed)[0] // 16
    colours = [(255 - 9 * index, 7 * index, 100 + index, 255) for index in range(16)]
    shown_CHW = np.array(colours, np.uint8)[numbers_HW][..., :3].transpose(2, 0, 1)
    return numbers_HW, colours, shown_CHW


@pytest.mark.parametrize("shift_m", [0, 0.2])
def test_palette_is_looked_up(tmp_path, shift_m):
    numbers_HW, colours, shown_CHW = make_numbers()
    first = write_palette(tmp_path / "a.tif", numbers_HW, colours)
    second = tif(tmp_path / "b.tif", shown_CHW, at(shift_m, 90))
    with open_pair(first, second) as pair:
        window = pair.read(0, 0, *pair.shape_hw)
        assert same_pixels(window.t1_HWC, shown_CHW[:, :, pair.col : pair.col + pair.shape_hw[1]])
        assert window.valid_HW[2:-2, 2:-2].all()
    with open_pair(second, first) as pair:  # resampled in colours, not in numbers
        window = pair.read(0, 0, *pair.shape_hw)
        if not shift_m:
            assert same_pixels(window.t2_HWC, shown_CHW)
        assert not np.isin(window.t2_HWC[5:-5, 5:-5, 0], range(9)).any(), "numbers would be below 16"


def test_transparent_colour_and_tagged_number_are_no_data(tmp_path):
    numbers_HW, colours, shown_CHW = make_numbers()
    numbers_HW[20:30, 30:60] = 5
    other = tif(tmp_path / "b.tif", shown_CHW, at(0, 90))
    with open_pair(write_palette(tmp_path / "tag.tif", numbers_HW, colours, nodata=5), other) as pair:
        assert (pair.read(0, 0, 60, 90).valid_HW == (numbers_HW != 5)).all()
    picture = Image.fromarray(numbers_HW).convert("P")
    picture.putpalette([value for colour in colours for value in colour[:3]])
    picture.save(tmp_path / "a.png", transparency=5)
    Image.fromarray(shown_CHW.transpose(1, 2, 0)).save(tmp_path / "b.png")
    with open_pair(tmp_path / "a.png", tmp_path / "b.png") as pair:
        window = pair.read(0, 0, 60, 90)
        assert (window.valid_HW == (numbers_HW != 5)).all()
        assert (window.t1_HWC == np.array(colours, np.uint8)[numbers_HW][..., :3] * window.valid_HW[..., None]).all()


def test_mosaic_of_palette_tiles(tmp_path):
    numbers_HW, colours, shown_CHW = make_numbers()
    tiles = [
        write_palette(tmp_path / f"{col}.tif", numbers_HW[:, col : col + 45], colours, place=at(col / 2, 90))
        for col in (0, 45)
    ]
    with open_pair(tiles, tif(tmp_path / "b.tif", shown_CHW, at(0, 90))) as pair:
        assert same_pixels(pair.read(0, 0, 60, 90).t1_HWC, shown_CHW)
