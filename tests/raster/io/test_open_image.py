"""Which bands of an image are read."""

import numpy as np
import pytest
from PIL import Image
from tests.support.synthetic_rasters import at, city, png, same_pixels, tif

from semicdvl.errors import ConfigError, InputError
from semicdvl.raster.io.open_pair import open_pair
from semicdvl.types import ReadingSettings


def test_bands_are_selected(tmp_path):
    image = city(30, 40, bands=4)
    files = [tif(tmp_path / name, image, at(0, 90)) for name in ("a.tif", "b.tif")]
    with open_pair(*files, ReadingSettings(bands=(4, 3, 2))) as pair:
        assert (pair.read(0, 0, 30, 40).t1_HWC == image[[3, 2, 1]].transpose(1, 2, 0)).all()


def test_wrong_band_numbers(tmp_path):
    file = tif(tmp_path / "a.tif", city(30, 40), at(0, 90))
    with pytest.raises(InputError, match="bands 1,2,9 were requested"):
        open_pair(file, file, ReadingSettings(bands=(1, 2, 9)))


def test_four_bands(tmp_path):
    images = [city(30, 40, bands=5), city(30, 40, bands=5, seed=1)]
    files = [tif(tmp_path / f"{n}.tif", image, at(0, 90)) for n, image in enumerate(images)]
    with open_pair(*files, ReadingSettings(bands=(1, 2, 3, 5), after_bands=(3, 2, 1, 4))) as pair:
        window = pair.read(2, 3, 20, 25)
        assert same_pixels(window.t1_HWC, images[0][[0, 1, 2, 4], 2:22, 3:28])
        assert same_pixels(window.t2_HWC, images[1][[2, 1, 0, 3], 2:22, 3:28])
        assert pair.read_overview(max_px=10).t1_HWC.shape == (8, 10, 4)
        coloured = pair.select_rgb().read(2, 3, 20, 25)
        assert (coloured.t1_HWC == window.t1_HWC[..., :3]).all() and (coloured.t2_HWC == window.t2_HWC[..., :3]).all()
    with pytest.raises(ConfigError, match="4 bands of the before image cannot be compared with 3 bands"):
        open_pair(*files, ReadingSettings(bands=(1, 2, 3, 5), after_bands=(3, 2, 1)))


def test_16_bit_bands_keep_their_stretch_in_rgb(tmp_path):
    image = city(30, 40, bands=4).astype(np.uint16) * np.array([9, 5, 3, 40], np.uint16)[:, None, None]
    files = [tif(tmp_path / name, image, at(0, 90)) for name in ("a.tif", "b.tif")]
    with open_pair(*files, ReadingSettings(bands=(4, 1, 2, 3))) as pair:
        assert (pair.select_rgb().read(0, 0, 30, 40).t1_HWC == pair.read(0, 0, 30, 40).t1_HWC[..., :3]).all()


def test_16_bit_grey_image_as_three_bands(tmp_path):
    grey = tif(tmp_path / "grey.tif", city(30, 40, bands=1).astype(np.uint16) * 9, at(0, 90))
    with open_pair(grey, grey, ReadingSettings(bands=(1, 1, 1))) as pair:
        image_HWC = pair.read(0, 0, 30, 40).t1_HWC
        assert (image_HWC[..., 0] == image_HWC[..., 2]).all() and np.ptp(image_HWC) == 255


def test_pages_of_a_tiff_are_said(tmp_path):
    pages = [Image.fromarray(city(60, 90, seed=seed).transpose(1, 2, 0)) for seed in (0, 1)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    with open_pair(tmp_path / "pages.tif", png(tmp_path / "b.png", city(60, 90))) as pair:
        assert same_pixels(pair.read(0, 0, 60, 90).t1_HWC, city(60, 90))
        assert sum("holds 2 images (pages)" in note for note in pair.notes) == 1
