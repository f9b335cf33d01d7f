"""Transparency of images of any number of bands, and of what is warped; images of other bodies, and of no band."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.enums import ColorInterp
from rasterio.warp import transform
from tests.support.synthetic_rasters import at, city, tif

from semicdvl.data.images.reading import read_rgb
from semicdvl.errors import InputError
from semicdvl.raster.io.open_pair import open_pair
from semicdvl.types.settings import ReadingSettings

HEIGHT, WIDTH = 60, 80
LEFT, TOP = 366_600, 4_104_200
R, G, B = ColorInterp.red, ColorInterp.green, ColorInterp.blue
ALPHA, NONE = ColorInterp.alpha, ColorInterp.undefined
MOON = "+proj=eqc +R=1737400 +units=m"


def make_bands(count: int) -> np.ndarray:
    return np.concatenate([city(HEIGHT, WIDTH) // 2 + 60] * 2)[:count].astype(np.uint8)


def write_before(folder: Path, **profile: Any) -> Path:
    return tif(folder / "before.tif", make_bands(3), at(LEFT, TOP), **profile)


def write_tagged(path: Path, bands: np.ndarray, roles: list[ColorInterp], place: Affine) -> Path:
    tif(path, bands, place, photometric="minisblack" if len(bands) != 3 else None)
    with rasterio.open(path, "r+") as target:
        target.colorinterp = roles
    return path


@pytest.mark.parametrize("shift_m", [0.0, 0.3])
@pytest.mark.parametrize(
    "roles", [[R, G, B, NONE, ALPHA], [ALPHA, R, G, B], [R, G, B, ALPHA, NONE], [R, G, B, NONE, NONE, ALPHA]]
)
def test_alpha_hides_wherever_it_stands(tmp_path: Path, roles: list[ColorInterp], shift_m: float) -> None:
    opaque_HW = np.full((HEIGHT, WIDTH), 255, np.uint8)
    opaque_HW[:20] = 0
    colours = iter(make_bands(3))
    bands = np.stack([opaque_HW if role == ALPHA else next(colours, opaque_HW // 2) for role in roles])
    after = write_tagged(tmp_path / "after.tif", bands, roles, at(LEFT + shift_m, TOP))
    with open_pair(write_before(tmp_path), after, ReadingSettings(collar="none")) as pair:
        window = pair.read(0, 0, *pair.shape_hw)
        assert not window.valid_HW[:19].any() and window.valid_HW[21:-1].all()
        if not shift_m:
            np.testing.assert_array_equal(window.t2_HWC[20:], make_bands(3).transpose(1, 2, 0)[20:])


@pytest.mark.parametrize("count", [3, 4, 5, 6])
def test_corners_of_a_rotated_image_have_no_data(tmp_path: Path, count: int) -> None:
    centre = Affine.translation(LEFT + WIDTH / 4, TOP - HEIGHT / 4)
    place = centre @ Affine.rotation(20) @ Affine.scale(0.5, -0.5) @ Affine.translation(-WIDTH / 2, -HEIGHT / 2)
    roles = [R, G, B, NONE, NONE, NONE][:count]
    after = write_tagged(tmp_path / "after.tif", make_bands(count), roles, place)
    before = tif(tmp_path / "before.tif", make_bands(3), Affine(0.5, 0, LEFT, 0, -0.5, TOP))
    with open_pair(before, after, ReadingSettings(collar="none")) as pair:
        window = pair.read(0, 0, *pair.shape_hw)
        assert 0.8 < window.valid_HW.mean() < 0.95
        assert (window.t2_HWC[window.valid_HW].max(axis=1) > 0).all(), "no black corner counts as ground"


@pytest.mark.parametrize("count", [3, 4, 5])
def test_corners_of_a_warped_tile_do_not_hide_another_tile(tmp_path: Path, count: int) -> None:
    bands, roles = make_bands(count), [R, G, B, NONE, NONE][:count]
    (x,), (y,) = transform("EPSG:32615", "EPSG:32616", [LEFT + 20], [TOP - 10])
    first = write_tagged(tmp_path / "a.tif", bands, roles, at(LEFT, TOP))
    second = tif(tmp_path / "b.tif", bands, at(x, y), crs="EPSG:32616", photometric="minisblack")
    with rasterio.open(second, "r+") as target:
        target.colorinterp = roles
    with open_pair(write_before(tmp_path), [first, second], ReadingSettings(collar="none")) as pair:
        window = pair.read(0, 0, *pair.shape_hw)
        assert window.valid_HW.all() and window.t2_HWC.min() > 30


# ------------------------------------------------------------------------------------------------ other bodies
def test_images_of_another_body_are_compared_in_their_own_map_units(tmp_path: Path) -> None:
    before, after = write_before(tmp_path, crs=MOON), tif(tmp_path / "b.tif", make_bands(3), at(LEFT, TOP), crs=MOON)
    with open_pair(before, after) as pair:
        assert pair.gsd_m == pytest.approx(abs(pair.grid.transform.a))
        assert not pair.grid.has_position_on_earth


def test_an_image_of_another_body_cannot_be_related_to_the_earth(tmp_path: Path) -> None:
    after = tif(tmp_path / "after.tif", make_bands(3), at(LEFT, TOP), crs=MOON)
    with pytest.raises(InputError, match=r"after\.tif: The image has a local CRS, which cannot be related to EPSG"):
        open_pair(write_before(tmp_path), after)


def test_degrees_of_another_body_are_refused(tmp_path: Path) -> None:
    before = write_before(tmp_path, crs="+proj=longlat +R=1737400 +no_defs")
    with pytest.raises(InputError, match=r"before\.tif: The CRS is in degrees on another body than the earth"):
        open_pair(before, before)


# ------------------------------------------------------------------------------------------------ no band
def test_a_file_of_several_images_and_no_band_is_named(tmp_path: Path) -> None:
    source, path = tif(tmp_path / "a.tif", make_bands(3), at(LEFT, TOP)), tmp_path / "both.gpkg"
    rasterio.shutil.copy(source, path, driver="GPKG", RASTER_TABLE="one")
    rasterio.shutil.copy(source, path, driver="GPKG", RASTER_TABLE="two", APPEND_SUBDATASET="YES")
    for read in (read_rgb, lambda given: open_pair(source, given)):
        with pytest.raises(InputError, match=r"both\.gpkg: It holds 2 images\. Write one of them to a file of its own"):
            read(path)
    with sqlite3.connect(path) as database:
        database.execute("DELETE FROM gpkg_contents")
    database.close()
    with pytest.raises(InputError, match=r"both\.gpkg"):
        open_pair(source, path)
