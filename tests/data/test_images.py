"""Files -> arrays: formats, label alphabets, windows, the cache, and what is refused."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.enums import ColorInterp
from rasterio.transform import Affine
from tests.support.dataset_files import folder_of_pairs, save

from semicdvl.data.images.cache import ImageCache
from semicdvl.data.images.reading import read_image_size, read_rgb
from semicdvl.data.labels.files import read_mask
from semicdvl.data.pair_checks import check_all_pair_files, check_pair_files
from semicdvl.data.pairs import read_pair
from semicdvl.errors import ConfigError, DataError, InputError
from semicdvl.raster.stored_values import Stretch
from semicdvl.types import IGNORE, PairFiles


def _rgb(height: int = 5, width: int = 7) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _tiff(path: Path, bands_CHW: np.ndarray, *, x: float = 500_000.0, crs: str = "EPSG:32615") -> Path:
    count, height, width = bands_CHW.shape
    place = {"crs": crs, "transform": Affine(0.5, 0, x, 0, -0.5, 4_000_000.0)}
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=bands_CHW.dtype, **place
    ) as raster:
        raster.write(bands_CHW)
    return path


# ------------------------------------------------------------------------------------------------ images
@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_rgb_is_read_as_written(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a{suffix}", _rgb())
    np.testing.assert_array_equal(read_rgb(path), _rgb())
    np.testing.assert_array_equal(read_rgb(path, window_px=(1, 2, 3, 4)), _rgb()[1:4, 2:6])
    assert read_image_size(path) == (5, 7)


def test_grey_palette_and_alpha_become_rgb(tmp_path: Path) -> None:
    grey_HW = _rgb()[..., 0]
    wanted = np.repeat(grey_HW[..., None], 3, -1)
    np.testing.assert_array_equal(read_rgb(save(tmp_path / "grey.png", grey_HW)), wanted)
    np.testing.assert_array_equal(read_rgb(save(tmp_path / "grey.tif", grey_HW)), wanted)
    alpha = np.dstack([_rgb(), np.full((5, 7), 128, np.uint8)])
    np.testing.assert_array_equal(read_rgb(save(tmp_path / "alpha.png", alpha)), _rgb())
    four = _tiff(tmp_path / "four.tif", np.moveaxis(alpha, -1, 0))
    np.testing.assert_array_equal(read_rgb(four), _rgb())
    Image.fromarray(wanted).quantize(256).save(tmp_path / "palette.png", transparency=b"\x00\x80")
    assert np.abs(read_rgb(tmp_path / "palette.png").astype(int) - wanted).max() <= 8


def test_more_than_eight_bits_or_other_bands_are_refused(tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 4000, (5, 7), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "deep_colour.png"), np.dstack([deep] * 3))  # Pillow would read 8 of its 16 bits
    for path in (
        save(tmp_path / "deep.png", deep),
        tmp_path / "deep_colour.png",
        _tiff(tmp_path / "deep.tif", deep[None]),
        _tiff(tmp_path / "float.tif", deep[None].astype(np.float32)),
    ):
        with pytest.raises(InputError, match=r"8-bit RGB is needed\. Stretch") as caught:
            read_rgb(path)
        assert path.name in str(caught.value)
    with pytest.raises(InputError, match="13 bands"):
        read_rgb(_tiff(tmp_path / "s2.tif", np.zeros((13, 5, 7), np.uint8)))


def test_truncated_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_rgb(tmp_path / "none.png")
    for suffix in (".png", ".jpg", ".tif"):
        text = tmp_path / f"text{suffix}"
        text.write_text("no picture")
        with pytest.raises(InputError, match="not an image"):
            read_rgb(text)
        whole = save(tmp_path / f"whole{suffix}", _rgb(64, 96)).read_bytes()
        (tmp_path / f"half{suffix}").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(InputError, match=f"half{suffix}"):
            read_rgb(tmp_path / f"half{suffix}")


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("window", [(0, 0, 6, 7), (3, 0, 3, 3), (-1, 0, 2, 2), (0, 0, 0, 2)])
def test_a_window_outside_is_refused(tmp_path: Path, suffix: str, window: tuple[int, int, int, int]) -> None:
    path = save(tmp_path / f"a{suffix}", _rgb())
    with pytest.raises(InputError, match="no window"):
        read_rgb(path, window_px=window)


# ------------------------------------------------------------------------------------------------ masks
@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("changed", [1, 255])
def test_both_label_encodings_become_zero_and_one(tmp_path: Path, suffix: str, changed: int) -> None:
    truth_HW = (_rgb()[..., 0] > 128).astype(np.uint8)
    read_HW = read_mask(save(tmp_path / f"m{suffix}", truth_HW * np.uint8(changed)))
    assert read_HW.dtype == np.uint8
    np.testing.assert_array_equal(read_HW, truth_HW)
    np.testing.assert_array_equal(read_mask(tmp_path / f"m{suffix}", window_px=(1, 2, 3, 4)), truth_HW[1:4, 2:6])


def test_masks_with_several_bands_or_a_palette(tmp_path: Path) -> None:
    truth_HW = (_rgb()[..., 0] > 128).astype(np.uint8)
    three = np.repeat(truth_HW[..., None] * np.uint8(255), 3, -1)
    np.testing.assert_array_equal(read_mask(save(tmp_path / "three.png", three)), truth_HW)
    np.testing.assert_array_equal(read_mask(save(tmp_path / "bool.png", truth_HW.astype(bool))), truth_HW)
    np.testing.assert_array_equal(read_mask(save(tmp_path / "deep.png", truth_HW.astype(np.uint16))), truth_HW)
    np.testing.assert_array_equal(read_mask(_tiff(tmp_path / "f.tif", truth_HW[None].astype(np.float32))), truth_HW)
    palette = Image.fromarray(truth_HW)
    palette.putpalette([0, 0, 0, 200, 30, 30])  # index 1 is shown red: the index counts, not the colour
    palette.convert("P").save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "palette.png"), truth_HW)


@pytest.mark.parametrize("values", [(0, 128), (0, 1, 255), (1, 255), (0, 2), (0, 254)])
def test_odd_values_are_named_with_the_remedy(tmp_path: Path, values: tuple[int, ...]) -> None:
    mask_HW = np.resize(np.array(values, np.uint8), (5, 7))
    with pytest.raises(InputError, match=r"odd\.png.*label_values") as caught:
        read_mask(save(tmp_path / "odd.png", mask_HW))
    assert str(set(values)).strip("{}") in str(caught.value)


def test_colour_images_and_fractions_are_refused_as_masks(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="colour"):
        read_mask(save(tmp_path / "colour.png", _rgb()))
    with pytest.raises(InputError, match="not whole"):
        read_mask(_tiff(tmp_path / "f.tif", np.full((1, 5, 7), 0.5, np.float32)))


def test_label_values_translate(tmp_path: Path) -> None:
    mask_HW = np.resize(np.array([0, 128, 255], np.uint8), (5, 7))
    path = save(tmp_path / "m.png", mask_HW)
    read_HW = read_mask(path, label_values={0: 0, 128: IGNORE, 255: 1})
    np.testing.assert_array_equal(read_HW, np.resize([0, IGNORE, 1], (5, 7)))
    with pytest.raises(InputError, match="128"):
        read_mask(path, label_values={0: 0, 255: 1})
    with pytest.raises(ConfigError, match="label_values"):
        read_mask(path, label_values={0: 0, 128: 2, 255: 1})


# ------------------------------------------------------------------------------------------------ pairs
def test_sizes_must_agree(tmp_path: Path) -> None:
    before, after = save(tmp_path / "a.png", _rgb()), save(tmp_path / "b.png", _rgb(6, 7))
    label = save(tmp_path / "l.png", np.zeros((5, 8), np.uint8))
    for pair, bad in ((PairFiles("x", before, after), "b.png"), (PairFiles("x", before, before, label), "l.png")):
        for look in (check_pair_files, read_pair):
            with pytest.raises(InputError, match=rf"{bad}.*must cover the same ground"):
                look(pair)


def test_rasters_of_other_ground_are_refused(tmp_path: Path) -> None:
    bands_CHW = np.moveaxis(_rgb(), -1, 0)
    here = _tiff(tmp_path / "here.tif", bands_CHW)
    check_pair_files(PairFiles("near", here, _tiff(tmp_path / "near.tif", bands_CHW, x=500_000.4)))
    check_pair_files(PairFiles("nowhere", here, save(tmp_path / "nowhere.tif", _rgb())))
    with pytest.raises(InputError, match=r"far\.tif: is offset by 20\.0 px from here"):
        check_pair_files(PairFiles("far", here, _tiff(tmp_path / "far.tif", bands_CHW, x=500_010.0)))
    with pytest.raises(InputError, match="another CRS"):
        check_pair_files(PairFiles("crs", here, _tiff(tmp_path / "crs.tif", bands_CHW, crs="EPSG:32616")))


def test_labels_of_other_ground_are_refused(tmp_path: Path) -> None:
    bands_CHW = np.moveaxis(_rgb(), -1, 0)
    here, label_1HW = _tiff(tmp_path / "here.tif", bands_CHW), np.zeros((1, 5, 7), np.uint8)
    check_pair_files(PairFiles("near", here, here, _tiff(tmp_path / "near.tif", label_1HW)))
    with pytest.raises(InputError, match=r"far\.tif: is offset by 20\.0 px from here"):
        check_pair_files(PairFiles("far", here, here, _tiff(tmp_path / "far.tif", label_1HW, x=500_010.0)))
    upside_down = _tiff(tmp_path / "upside_down.tif", label_1HW)
    with rasterio.open(upside_down, "r+") as raster:
        raster.transform = Affine(0.5, 0, 500_000, 0, 0.5, 4_000_000 - 2.5)
    with pytest.raises(InputError, match=r"upside_down\.tif: is offset by 5\.0 px"):
        check_pair_files(PairFiles("upside down", here, here, upside_down))


@pytest.mark.parametrize("kind", ["tag", "mask", "NaN", "-9999"])
def test_nothing_is_known_where_a_raster_has_no_data(tmp_path: Path, kind: str) -> None:
    values_CHW = np.moveaxis(_rgb(), -1, 0).astype(np.uint8 if kind in ("tag", "mask") else np.float32) // 2 + 1
    hidden = np.s_[:, 1:3, 2:5]
    values_CHW[hidden] = {"tag": 0, "NaN": np.nan, "-9999": -9999}.get(kind, 7)
    after = _tiff(tmp_path / "after.tif", values_CHW)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(after, "r+") as raster:
        if kind == "tag":
            raster.nodata = 0
        if kind == "mask":
            raster.write_mask(np.where(np.arange(35).reshape(5, 7) == -1, 0, 255).astype(np.uint8))
            seen_HW = np.full((5, 7), 255, np.uint8)
            seen_HW[hidden[1:]] = 0
            raster.write_mask(seen_HW)
    label = save(tmp_path / "label.png", np.resize(np.array([0, 255], np.uint8), (5, 7)))
    before = _tiff(
        tmp_path / "before.tif", values_CHW * 0 + 9 if kind not in ("NaN", "-9999") else np.full_like(values_CHW, 9)
    )
    stretch = None if values_CHW.dtype == np.uint8 else Stretch(np.zeros(3), np.full(3, 255.0))
    read = read_pair(PairFiles("x", before, after, label), cache=ImageCache(0, stretch=stretch))
    assert read.label_HW is not None
    hidden_HW = np.zeros((5, 7), bool)
    hidden_HW[hidden[1:]] = True
    np.testing.assert_array_equal(read.label_HW == IGNORE, hidden_HW)


def test_white_of_16_bits_has_changed(tmp_path: Path) -> None:
    mask_HW = np.resize(np.array([0, 65_535], np.uint16), (5, 7))
    read_HW = read_mask(save(tmp_path / "deep.png", mask_HW))
    np.testing.assert_array_equal(read_HW, (mask_HW > 0).astype(np.uint8))


def test_bands_are_in_the_order_of_their_tags_and_palettes_in_their_colours(tmp_path: Path) -> None:
    image_HWC = _rgb()
    path = _tiff(tmp_path / "bgr.tif", np.moveaxis(image_HWC, -1, 0)[::-1])
    with rasterio.open(path, "r+") as raster:
        raster.colorinterp = [ColorInterp.blue, ColorInterp.green, ColorInterp.red]
    np.testing.assert_array_equal(read_rgb(path), image_HWC)
    colours_N3 = np.array([(10, 20, 30), (200, 100, 0), (5, 250, 7)], np.uint8)
    numbers_HW = np.resize(np.array([0, 1, 2], np.uint8), (5, 7))
    path = _tiff(tmp_path / "palette.tif", numbers_HW[None])
    with rasterio.open(path, "r+") as raster:
        raster.write_colormap(1, {at: tuple(map(int, colour)) for at, colour in enumerate(colours_N3)})
    np.testing.assert_array_equal(read_rgb(path), colours_N3[numbers_HW])


def test_pairs_without_change_or_label_are_refused(tmp_path: Path) -> None:
    image = save(tmp_path / "a.png", _rgb())
    same = save(tmp_path / "same.png", np.zeros((5, 7), np.uint8))
    pair = PairFiles("x", image, image, same)
    check_all_pair_files([pair], read_masks=False)
    with pytest.raises(DataError, match="changed pixel"):
        check_all_pair_files([pair])
    with pytest.raises(DataError, match="has a labelled pixel"):
        check_all_pair_files([pair], label_values={0: IGNORE})


# ------------------------------------------------------------------------------------------------ cache
def test_cache_gives_the_same_arrays_within_its_budget(tmp_path: Path) -> None:
    root = folder_of_pairs(tmp_path, [f"p{i}" for i in range(12)], size_px=(20, 30))
    image_bytes = 20 * 30 * 3
    cache = ImageCache(4 * image_bytes)
    for _ in range(2):
        for path in sorted((root / "A").iterdir()):
            np.testing.assert_array_equal(cache.read_rgb(path), read_rgb(path))
            window = (3, 4, 5, 6)
            np.testing.assert_array_equal(cache.read_rgb(path, window), read_rgb(path, window_px=window))
    assert cache.cached_bytes == 4 * image_bytes
    assert len(cache._recent) == ImageCache.RECENT


def test_cache_keeps_masks_and_images_apart_and_reads_once(tmp_path: Path) -> None:
    path = save(tmp_path / "m.png", np.full((5, 7), 255, np.uint8))
    tiff = save(tmp_path / "t.tif", _rgb())
    cache = ImageCache(10_000)
    assert cache.read_mask(path).max() == 1 and cache.read_rgb(path).max() == 255
    window = cache.read_rgb(tiff, (1, 1, 2, 3))
    path.unlink()
    tiff.unlink()
    assert cache.read_mask(path).shape == (5, 7)
    np.testing.assert_array_equal(cache.read_rgb(tiff, (1, 1, 2, 3)), window)
