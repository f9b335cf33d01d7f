"""What label files of many kinds say: the same truth, stored in every way that tools write it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image
from tests.support.dataset_files import save

from semicdvl.data.images.reading import read_image_size, read_rgb
from semicdvl.data.labels.files import read_mask
from semicdvl.data.pairs import read_pair
from semicdvl.errors import InputError
from semicdvl.types import IGNORE, PairFiles

HEIGHT, WIDTH = 40, 56
TRUTH_HW = np.zeros((HEIGHT, WIDTH), np.uint8)
TRUTH_HW[8:16, 16:32] = 1
GREY_HW = TRUTH_HW * np.uint8(255)
PLACE = Affine(0.5, 0, 400_000.0, 0, -0.5, 5_600_000.0)


def _tiff(path: Path, bands: np.ndarray, **options: object) -> Path:
    bands_CHW = bands[None] if bands.ndim == 2 else bands
    profile = {"driver": "GTiff", "dtype": bands_CHW.dtype, "count": len(bands_CHW)} | options
    with rasterio.open(path, "w", height=HEIGHT, width=WIDTH, crs="EPSG:32633", transform=PLACE, **profile) as target:
        target.write(bands_CHW)
    return path


def _palette(path: Path, indices_HW: np.ndarray, colours: list[int], **options: object) -> Path:
    image = Image.fromarray(indices_HW).convert("L")
    image.putpalette(colours)
    image.save(path, **options)
    return path


def _palette_tiff(path: Path, indices_HW: np.ndarray, colours: dict[int, tuple[int, int, int, int]]) -> Path:
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        dtype="uint8",
        count=1,
        height=HEIGHT,
        width=WIDTH,
        transform=PLACE,
        photometric="PALETTE",
    ) as target:
        target.write(indices_HW, 1)
        target.write_colormap(1, colours)
    return path


WHITE_FIRST = [255, 255, 255, 0, 0, 0]
KINDS = {
    "palette.png": lambda path: _palette(path, 1 - TRUTH_HW, WHITE_FIRST),
    "palette_transparent_0.png": lambda path: _palette(path, TRUTH_HW, [0, 0, 0, 255, 255, 255], transparency=0),
    "palette.tif": lambda path: _palette_tiff(path, 1 - TRUTH_HW, {0: (255, 255, 255, 255), 1: (0, 0, 0, 255)}),
    "min_is_white_1_bit.tif": lambda path: _tiff(path, 1 - TRUTH_HW, nbits=1, photometric="MINISWHITE"),
    "min_is_white.tif": lambda path: _tiff(path, 255 - GREY_HW, photometric="MINISWHITE"),
    "grey_alpha.png": lambda path: save(path, np.dstack([GREY_HW, np.full_like(GREY_HW, 255)])),
    "grey_alpha.tif": lambda path: _tiff(path, np.stack([GREY_HW, np.full_like(GREY_HW, 255)]), alpha="yes"),
    "equal_bands.tif": lambda path: _tiff(path, np.stack([GREY_HW] * 3), photometric="RGB"),
    "equal_bands.png": lambda path: save(path, np.dstack([GREY_HW] * 3)),
    "lossy.jpg": lambda path: save(path, GREY_HW),
    "lossy_rgb.jpg": lambda path: save(path, np.dstack([GREY_HW] * 3)),
    "lossy.tif": lambda path: _tiff(path, GREY_HW, compress="JPEG"),
    "nodata_0.tif": lambda path: _tiff(path, GREY_HW, nodata=0),
    "nodata_0_of_1.tif": lambda path: _tiff(path, TRUTH_HW, nodata=0),
    "nodata_0.png": lambda path: (Image.fromarray(GREY_HW).save(path, transparency=0), path)[1],
    "64_bit.tif": lambda path: _tiff(path, TRUTH_HW.astype(np.int64)),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_mask_says_the_same(tmp_path: Path, name: str) -> None:
    np.testing.assert_array_equal(read_mask(KINDS[name](tmp_path / name)), TRUTH_HW)
    np.testing.assert_array_equal(read_mask(tmp_path / name, window_px=(6, 10, 20, 30)), TRUTH_HW[6:26, 10:40])


def test_a_transparent_half_is_not_known(tmp_path: Path) -> None:
    alpha_HW = np.full_like(GREY_HW, 255)
    alpha_HW[:, 24:] = 0
    wanted_HW = np.where(alpha_HW > 0, TRUTH_HW, IGNORE)
    np.testing.assert_array_equal(read_mask(save(tmp_path / "a.png", np.dstack([GREY_HW] * 3 + [alpha_HW]))), wanted_HW)
    tiff = _tiff(tmp_path / "a.tif", np.stack([GREY_HW, alpha_HW]), alpha="yes")
    np.testing.assert_array_equal(read_mask(tiff), wanted_HW)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_label_is_not_known_where_an_image_is_transparent(tmp_path: Path, suffix: str) -> None:
    alpha_HW = np.full_like(GREY_HW, 255)
    alpha_HW[:, 24:] = 0
    rgba_HWC = np.dstack([GREY_HW] * 3 + [alpha_HW])
    solid, label = save(tmp_path / "a.png", rgba_HWC[..., :3]), save(tmp_path / "l.png", GREY_HW)
    if suffix == ".png":
        half = save(tmp_path / "b.png", rgba_HWC)
    else:
        half = _tiff(tmp_path / "b.tif", np.moveaxis(rgba_HWC, 2, 0), photometric="RGB", alpha="yes")
    pair = read_pair(PairFiles("p", solid, half, label))
    np.testing.assert_array_equal(pair.label_HW, np.where(alpha_HW > 0, TRUTH_HW, IGNORE))
    window = read_pair(PairFiles("w", solid, half, label, (6, 10, 20, 30))).label_HW
    np.testing.assert_array_equal(window, np.where(alpha_HW > 0, TRUTH_HW, IGNORE)[6:26, 10:40])


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_near_infrared_band_tagged_as_alpha_hides_no_label(tmp_path: Path, suffix: str) -> None:
    infrared_HW = np.random.default_rng(0).integers(0, 200, (HEIGHT, WIDTH), dtype=np.uint8)
    infrared_HW[:, 24:30] = 0  # dark water
    image_HWC = np.dstack([GREY_HW] * 3 + [infrared_HW])
    label = save(tmp_path / "l.png", GREY_HW)
    if suffix == ".png":
        path = save(tmp_path / "b.png", image_HWC)
    else:
        path = _tiff(tmp_path / "b.tif", np.moveaxis(image_HWC, 2, 0), photometric="RGB", alpha="yes")
    np.testing.assert_array_equal(read_pair(PairFiles("p", path, path, label)).label_HW, TRUTH_HW)


def test_no_data_of_a_third_value_is_not_known(tmp_path: Path) -> None:
    third_HW = GREY_HW.copy()
    third_HW[:, 40:] = 9
    wanted_HW = np.where(third_HW == 9, IGNORE, TRUTH_HW)
    np.testing.assert_array_equal(read_mask(_tiff(tmp_path / "9.tif", third_HW, nodata=9)), wanted_HW)
    third_HW = np.where(third_HW == 9, 255, TRUTH_HW).astype(np.uint8)
    np.testing.assert_array_equal(read_mask(_tiff(tmp_path / "255.tif", third_HW, nodata=255)), wanted_HW)
    missing_HW = np.where(wanted_HW == IGNORE, np.nan, TRUTH_HW).astype(np.float32)
    np.testing.assert_array_equal(read_mask(_tiff(tmp_path / "nan.tif", missing_HW, nodata=np.nan)), wanted_HW)


def test_ambiguous_masks_are_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"255 is tagged as no data.*--label-values 255=changed,0=unchanged"):
        read_mask(_tiff(tmp_path / "n.tif", GREY_HW, nodata=255))
    with pytest.raises(InputError, match=r"colours.*0: rgb\(255, 0, 0\), 1: rgb\(0, 0, 255\).*--label-values"):
        read_mask(_palette(tmp_path / "c.png", TRUTH_HW, [255, 0, 0, 0, 0, 255]))
    with pytest.raises(InputError, match="hides every pixel that is not changed"):
        read_mask(save(tmp_path / "h.png", np.dstack([GREY_HW, GREY_HW])))
    grey_HW = GREY_HW.copy()
    grey_HW[20:32] = 128
    with pytest.raises(InputError, match=r"with loss.*threshold: --label-values 0-127=unchanged,128-255=changed"):
        read_mask(save(tmp_path / "g.jpg", grey_HW))


def test_label_values_are_shown_or_stored_ones(tmp_path: Path) -> None:
    path = _palette(tmp_path / "p.png", 1 - TRUTH_HW, WHITE_FIRST)
    np.testing.assert_array_equal(read_mask(path, label_values={255: 0, 0: 1}), 1 - TRUTH_HW)
    np.testing.assert_array_equal(read_mask(path, label_values={0: 1, 1: 0}), TRUTH_HW)
    coloured = _palette(tmp_path / "c.png", TRUTH_HW, [255, 0, 0, 0, 0, 255])
    np.testing.assert_array_equal(read_mask(coloured, label_values={0: 0, 1: 1}), TRUTH_HW)
    named = read_mask(_tiff(tmp_path / "n.tif", GREY_HW, nodata=255), label_values={255: 1, 0: 0})
    np.testing.assert_array_equal(named, TRUTH_HW)


# ------------------------------------------------------------------------------------------------ EXIF orientation
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_images_and_labels_are_turned_as_viewers_show_them(tmp_path: Path, orientation: int, suffix: str) -> None:
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the number of the transposition that undoes the orientation
    shown = Image.fromarray(GREY_HW)
    stored = shown if orientation == 1 else shown.transpose(Image.Transpose(back[orientation]))
    exif = Image.Exif()
    exif[274] = orientation
    stored.save(tmp_path / f"m{suffix}", exif=exif)
    assert read_image_size(tmp_path / f"m{suffix}") == (HEIGHT, WIDTH)
    np.testing.assert_array_equal(read_mask(tmp_path / f"m{suffix}"), TRUTH_HW)
    np.testing.assert_array_equal(read_rgb(tmp_path / f"m{suffix}")[..., 0] > 127, TRUTH_HW == 1)
