"""Photographs are read as viewers show them; pixels that are not plain numbers are refused in one sentence."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image, ImageOps
from rasterio.enums import Resampling
from tests.support.tiff_tags import set_orientation

from semicdvl.data.images.reading import read_bands, read_image_size, read_opaque, read_rgb
from semicdvl.data.labels.files import read_classes, read_mask
from semicdvl.errors import InputError
from semicdvl.raster.io.georeference_warnings import ignore_not_georeferenced
from semicdvl.raster.io.open_pair import open_pair
from semicdvl.raster.io.orientation import read_tiff_orientation
from semicdvl.types import ClassLegend, ReadingSettings

BACK = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
"""EXIF orientation -> number of Pillow's transposition that undoes it."""


@pytest.mark.parametrize("orientation", BACK)
def test_a_photograph_and_its_upright_copy_are_the_same_pixels(tmp_path: Path, orientation: int) -> None:
    shown_HWC = np.random.default_rng(0).integers(1, 256, (40, 56, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(shown_HWC).save(tmp_path / "shown.png")
    Image.fromarray(shown_HWC).transpose(Image.Transpose(BACK[orientation])).save(tmp_path / "photo.png", exif=exif)
    with open_pair(tmp_path / "shown.png", tmp_path / "photo.png") as pair:
        window = pair.read(0, 0, 40, 56)
        np.testing.assert_array_equal(window.t1_HWC, shown_HWC)
        np.testing.assert_array_equal(window.t2_HWC, shown_HWC)
        assert [path.name for path in pair.after.files] == ["photo.png"]


@pytest.mark.parametrize("dtype", ["complex64", "complex_int16", "int64", "uint64"])
def test_pixels_that_are_not_plain_numbers_are_refused(tmp_path: Path, dtype: str) -> None:
    profile = {"driver": "GTiff", "count": 3, "height": 40, "width": 56, "crs": "EPSG:32633"}
    with rasterio.open(tmp_path / "a.tif", "w", dtype=dtype, transform=Affine(1, 0, 0, 0, -1, 40), **profile) as target:
        target.write(np.ones((3, 40, 56), "complex64" if dtype.startswith("complex") else dtype))
    problem = "complex numbers" if dtype.startswith("complex") else "64-bit whole numbers"
    with pytest.raises(InputError, match=rf"a\.tif: The pixels are {problem} \({dtype}\)"):
        open_pair(tmp_path / "a.tif", tmp_path / "a.tif")


# ------------------------------------------------------------------------------------------------ the tag of a TIFF
def write_scan(path: Path, shown_CHW: np.ndarray, orientation: int, **profile: object) -> Path:
    """Write bands so that viewers show them as they are given, with the pixels stored otherwise."""
    stored_CHW = _store(shown_CHW, orientation)
    count, height, width = stored_CHW.shape
    options = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": stored_CHW.dtype} | profile
    with ignore_not_georeferenced(), rasterio.open(path, "w", **options) as target:
        target.write(stored_CHW)
    return set_orientation(path, orientation)


def _store(shown_CHW: np.ndarray, orientation: int) -> np.ndarray:
    turn = BACK.get(orientation)
    bands = [
        Image.fromarray(band_HW) if turn is None else Image.fromarray(band_HW).transpose(turn) for band_HW in shown_CHW
    ]
    return np.stack([np.asarray(band) for band in bands])


def noise(*shape: int, dtype: str = "uint8") -> np.ndarray:
    return np.random.default_rng(0).integers(1, 256, shape).astype(dtype)


@pytest.mark.parametrize("orientation", BACK)
def test_a_scan_is_read_as_viewers_show_it(tmp_path: Path, orientation: int) -> None:
    shown_CHW = noise(3, 40, 56)
    Image.fromarray(shown_CHW.transpose(1, 2, 0)).save(tmp_path / "shown.png")
    scan = write_scan(tmp_path / "scan.tif", shown_CHW, orientation, photometric="RGB")
    wanted_HWC = np.asarray(ImageOps.exif_transpose(Image.open(scan)))
    np.testing.assert_array_equal(wanted_HWC, shown_CHW.transpose(1, 2, 0))
    with open_pair(tmp_path / "shown.png", scan) as pair:
        np.testing.assert_array_equal(pair.read(0, 0, 40, 56).t2_HWC, wanted_HWC)
        np.testing.assert_array_equal(pair.read(7, 11, 9, 13).t2_HWC, wanted_HWC[7:16, 11:24])
        assert [path.name for path in pair.after.files] == ["scan.tif"]
    assert read_image_size(scan) == (40, 56)
    np.testing.assert_array_equal(read_rgb(scan), wanted_HWC)
    np.testing.assert_array_equal(read_rgb(scan, window_px=(7, 11, 9, 13)), wanted_HWC[7:16, 11:24])
    np.testing.assert_array_equal(read_bands(scan, (3, 1, 2), window_px=(0, 5, 40, 6)), wanted_HWC[:, 5:11, [2, 0, 1]])


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("profile", [{}, {"nbits": 1}, {"photometric": "MINISWHITE"}, {"nodata": 7}])
def test_a_label_is_turned_as_its_images_are(tmp_path: Path, orientation: int, profile: dict[str, object]) -> None:
    truth_HW = (noise(40, 56) > 150).astype(np.uint8)
    stored_HW = truth_HW if "nbits" in profile else truth_HW * np.uint8(255)
    stored_HW = 255 - stored_HW if "photometric" in profile else stored_HW
    label = write_scan(tmp_path / "label.tif", stored_HW[None], orientation, **profile)
    np.testing.assert_array_equal(read_mask(label), truth_HW)
    np.testing.assert_array_equal(read_mask(label, window_px=(7, 11, 9, 13)), truth_HW[7:16, 11:24])


def test_classes_in_the_colours_of_a_palette_are_turned(tmp_path: Path) -> None:
    classes_HW = noise(40, 56) % 3
    picture = Image.fromarray(classes_HW).transpose(BACK[8])
    picture.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0])
    picture.save(tmp_path / "classes.tif", tiffinfo={274: 8})
    legend = ClassLegend(("ground", "roof", "tree"), ((0, 0, 0), (200, 0, 0), (0, 200, 0)))
    np.testing.assert_array_equal(read_classes(tmp_path / "classes.tif", legend), classes_HW)
    assert read_rgb(tmp_path / "classes.tif")[3, 5].tolist() == list(legend.colours[classes_HW[3, 5]])


def test_a_mask_and_any_number_of_bands_are_turned_with_the_values_as_they_are(tmp_path: Path) -> None:
    shown_CHW, valid_HW = noise(5, 40, 56, dtype="float32") / 7, noise(40, 56) > 99
    stored_CHW = np.rot90(shown_CHW, 1, axes=(1, 2))
    profile = {"driver": "GTiff", "count": 5, "height": 56, "width": 40, "dtype": "float32"}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), ignore_not_georeferenced():
        with rasterio.open(tmp_path / "scan.tif", "w", **profile) as target:
            target.write(stored_CHW)
            target.write_mask(np.rot90(valid_HW))
            target.descriptions, target.scales = ("a", "b", "c", "d", "e"), (2.0,) * 5
    scan = set_orientation(tmp_path / "scan.tif", 6)
    np.testing.assert_array_equal(read_opaque(scan), valid_HW)
    found_HWC = read_bands(scan, (5, 1))
    np.testing.assert_allclose(found_HWC[valid_HW], 2 * shown_CHW[[4, 0]].transpose(1, 2, 0)[valid_HW])
    with open_pair(scan, scan, ReadingSettings(bands=(1, 2, 3))) as pair:
        np.testing.assert_array_equal(pair.before.read(0, 0, 40, 56)[1], valid_HW)


def test_an_alpha_band_that_is_one_of_the_sensor_keeps_its_values_when_turned(tmp_path: Path) -> None:
    shown_CHW = noise(4, 40, 56) - np.uint8(1)  # 0 among them
    scan = write_scan(tmp_path / "scan.tif", shown_CHW, 7, photometric="RGB", alpha="yes")
    np.testing.assert_array_equal(read_bands(scan, (1, 2, 3, 4)), shown_CHW.transpose(1, 2, 0))


def test_overviews_of_a_scan_are_turned(tmp_path: Path) -> None:
    shown_CHW = np.repeat(np.repeat(noise(3, 50, 70), 16, axis=1), 16, axis=2)
    scan = write_scan(tmp_path / "scan.tif", shown_CHW, 5, photometric="RGB", tiled=True)
    with ignore_not_georeferenced(), rasterio.open(scan, "r+") as target:
        target.build_overviews([2, 4, 8, 16], Resampling.average)
    assert read_tiff_orientation(scan) == 5, "GDAL keeps the tag"
    with open_pair(scan, scan) as pair:
        small_HWC, _ = pair.before.read(0, 0, 800, 1120, shape_hw=(50, 70))
    np.testing.assert_array_equal(small_HWC, shown_CHW[:, 8::16, 8::16].transpose(1, 2, 0))


def test_a_georeferenced_file_is_read_as_it_is_stored(tmp_path: Path) -> None:
    bands_CHW = noise(3, 40, 56)
    placed = {"transform": Affine(0.5, 0, 600_000, 0, -0.5, 5_000_000), "crs": "EPSG:32633"}
    for profile in (placed, {"transform": placed["transform"]}):
        path = write_scan(tmp_path / "placed.tif", bands_CHW, 3, photometric="RGB", **profile)
        np.testing.assert_array_equal(read_rgb(path), bands_CHW[:, ::-1, ::-1].transpose(1, 2, 0))
        with open_pair(path, path) as pair:
            np.testing.assert_array_equal(pair.read(0, 0, 40, 56).t1_HWC, read_rgb(path))
            assert pair.before.grid.transform == placed["transform"]


def test_a_photograph_with_a_world_file_keeps_its_place(tmp_path: Path) -> None:
    exif, shown_HWC = Image.Exif(), noise(40, 56, 3)
    exif[274] = 3
    Image.fromarray(shown_HWC).save(tmp_path / "photo.png", exif=exif)
    (tmp_path / "photo.pgw").write_text("0.5\n0\n0\n-0.5\n1000.25\n2000\n")
    with open_pair(tmp_path / "photo.png", tmp_path / "photo.png") as pair:
        assert pair.before.grid.transform.c == 1000
        np.testing.assert_array_equal(pair.read(0, 0, 40, 56).t1_HWC, shown_HWC)


@pytest.mark.parametrize(
    "content",
    [b"", b"II", b"II*\0\xff\xff\xff\xff", b"MM\0+\0\x08\0\0" + b"\xff" * 8, b"II*\0\x08\0\0\0\xff\xff\x12\1"],
)
def test_a_damaged_tiff_says_nothing_of_its_orientation(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tif").write_bytes(content)
    assert read_tiff_orientation(tmp_path / "a.tif") == 1


def test_the_tag_of_a_large_tiff_of_the_other_byte_order_is_read(tmp_path: Path) -> None:
    entry = struct.pack(">HHQHHHH", 274, 3, 1, 8, 0, 0, 0)
    (tmp_path / "a.tif").write_bytes(b"MM\0+\0\x08\0\0" + struct.pack(">QQ", 16, 1) + entry + bytes(8))
    assert read_tiff_orientation(tmp_path / "a.tif") == 8


def test_a_turned_file_of_several_pages_says_so(tmp_path: Path) -> None:
    pages = [Image.fromarray(noise(40, 56, 3)) for _ in range(2)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:], tiffinfo={274: 3})
    with open_pair(tmp_path / "a.tif", tmp_path / "a.tif") as pair:
        assert any("2 images (pages)" in note for note in pair.before.notes)
        np.testing.assert_array_equal(pair.read(0, 0, 40, 56).t1_HWC, np.asarray(pages[0])[::-1, ::-1])
