"""Collars without a no-data tag: white, black with compression noise, of another colour; and ground like them."""

import cv2
import numpy as np
import pytest
from affine import Affine
from PIL import Image
from rasterio import warp
from scipy import ndimage
from tests.support.brightness_detector import QUIET, TILES, Brighter
from tests.support.synthetic_rasters import at, city, tif

from semicdvl.detection.config import DetectionConfig
from semicdvl.detection.pair_check.check import check_image_pair
from semicdvl.detection.pipeline import write_detection
from semicdvl.raster.io.open_pair import open_pair
from semicdvl.types import ReadingSettings

SIDE = 240


def ground(seed=0, low=60, high=160):
    """A scene with texture, nowhere near black or white."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(3, SIDE, SIDE)), (0, 2, 2))
    spread = (noise - noise.min()) / np.ptp(noise)
    return (low + (high - low) * spread).astype(np.uint8)


def rotated_mask(angle=12.0):
    """Where a rotated scene shows ground."""
    corners = cv2.boxPoints(((SIDE / 2, SIDE / 2), (SIDE * 0.8, SIDE * 0.8), angle))
    mask = np.zeros((SIDE, SIDE), np.uint8)
    cv2.fillConvexPoly(mask, np.rint(corners).astype(np.int32), 1)
    return mask > 0


def strip_mask(width=37):
    mask = np.ones((SIDE, SIDE), bool)
    mask[:, :width] = False
    return mask


MASKS = {
    "rotated": rotated_mask(),
    "strip": strip_mask(),
    "corner": np.indices((SIDE, SIDE)).sum(axis=0) > SIDE // 2,
}
RNG = np.random.default_rng(1)
FILLS = {
    "white": np.full((3, SIDE, SIDE), 255),
    "nearly white": RNG.integers(249, 256, (3, SIDE, SIDE)),
    "nearly black": RNG.integers(0, 7, (3, SIDE, SIDE)),
    "grey": np.full((3, SIDE, SIDE), 128),
}


def valid_of(path, other, **options):
    with open_pair(path, other, ReadingSettings(**options)) as pair:
        return pair.read(0, 0, SIDE, SIDE).valid_HW


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("fill", FILLS)
def test_collar_is_no_data_and_ground_is_not(tmp_path, mask, fill):
    inside_HW = MASKS[mask]
    image = np.where(inside_HW, ground(), FILLS[fill]).astype(np.uint8)
    path, whole = tif(tmp_path / "a.tif", image, at(0, 90)), tif(tmp_path / "b.tif", ground(1), at(0, 90))
    valid_HW = valid_of(path, whole)
    assert not valid_HW[~inside_HW].any(), "all of the collar is no data"
    far_HW = cv2.erode(inside_HW.astype(np.uint8), np.ones((23, 23), np.uint8), borderValue=1) > 0
    assert valid_HW[far_HW].all(), "ground that is more than 11 px away from it is kept"
    assert valid_of(path, whole, collar="none").all()


@pytest.mark.parametrize("colour", [0, 255])
def test_collar_of_a_jpeg_leaves_no_false_change(tmp_path, colour):
    inside_HW, scene = MASKS["rotated"], ground(0, 30, 120)
    before, after = tmp_path / "a.jpg", tmp_path / "b.png"
    collared = np.where(inside_HW, scene, colour).astype(np.uint8)
    Image.fromarray(collared.transpose(1, 2, 0)).save(before, quality=75)
    Image.fromarray(scene.transpose(1, 2, 0)).save(after)
    stored = np.asarray(Image.open(before)).astype(int)
    assert len(np.unique(stored[~inside_HW])) > 5, "compression left noise in the collar"
    found = {}
    for collar in ("auto", "none"):
        config = DetectionConfig(tile_px=96, overlap_px=32, collar=collar)
        result = write_detection(before, after, tmp_path / collar, detector=Brighter(), config=config, progress=QUIET)
        found[collar] = result.summary.changed_px
    assert found["auto"] == 0 and (colour == 0 or found["none"] > 10_000)
    valid_HW = valid_of(before, after)
    assert not valid_HW[~inside_HW].any() and valid_HW.sum() > 0.75 * inside_HW.sum()


def test_a_drawing_of_flat_colours_has_no_grey_collar(tmp_path):
    """Grass of one colour with a house: what is made up for a test, or drawn, is ground up to its edge."""
    image = np.full((3, SIDE, SIDE), 90, np.uint8)
    image[:, 40 : SIDE - 40, 30 : SIDE - 30] = 200
    path, other = tif(tmp_path / "a.tif", image, at(0, 90)), tif(tmp_path / "b.tif", ground(), at(0, 90))
    assert valid_of(path, other).all()


def wavy_shore():
    """A region along the left edge whose shore is wavy, as of a lake or a snow field."""
    rows = np.arange(SIDE)
    width = 60 + 18 * np.sin(rows / 11) + 9 * np.sin(rows / 5 + 1)
    return np.arange(SIDE)[None, :] < width[:, None]


def roof(row, col):
    mask = np.zeros((SIDE, SIDE), bool)
    mask[row : row + 50, col : col + 60] = True
    return mask


LIKE_COLLARS = {
    "dark lake": (wavy_shore(), RNG.integers(0, 7, (3, SIDE, SIDE))),
    "snow field": (wavy_shore(), RNG.integers(249, 256, (3, SIDE, SIDE))),
    "white roof at the edge": (roof(80, 0), np.full((3, SIDE, SIDE), 255)),
    "white roof in the corner": (roof(0, 0), np.full((3, SIDE, SIDE), 255)),
    "dark roof at the edge": (roof(80, SIDE - 60), RNG.integers(0, 7, (3, SIDE, SIDE))),
    "island in dark water": (
        np.hypot(*(np.indices((SIDE, SIDE)) - SIDE / 2)) > 95,
        RNG.integers(0, 7, (3, SIDE, SIDE)),
    ),
    "flat grey lake": (wavy_shore(), np.full((3, SIDE, SIDE), 90)),
}


@pytest.mark.parametrize("thing", LIKE_COLLARS)
def test_ground_that_has_the_colour_of_a_collar_stays(tmp_path, thing):
    mask_HW, fill = LIKE_COLLARS[thing]
    image = np.where(mask_HW, fill, ground()).astype(np.uint8)
    path, whole = tif(tmp_path / "a.tif", image, at(0, 90)), tif(tmp_path / "b.tif", ground(1), at(0, 90))
    assert valid_of(path, whole).all()


def test_roof_beside_a_collar_stays(tmp_path):
    inside_HW = MASKS["strip"]
    image = np.where(inside_HW, ground(), 255).astype(np.uint8)
    image[:, 100:150, 37:90] = 255  # touches the collar
    path, whole = tif(tmp_path / "a.tif", image, at(0, 90)), tif(tmp_path / "b.tif", ground(1), at(0, 90))
    valid_HW = valid_of(path, whole)
    assert not valid_HW[:, :37].any() and valid_HW[100:150, 48:90].all()


def test_16_bit_collar_of_the_largest_value(tmp_path):
    inside_HW = MASKS["rotated"]
    scene = ground().astype(np.uint16) * 20
    path = tif(tmp_path / "a.tif", np.where(inside_HW, scene, 65535).astype(np.uint16), at(0, 90))
    valid_HW = valid_of(path, tif(tmp_path / "b.tif", scene, at(0, 90)))
    assert not valid_HW[~inside_HW].any() and valid_HW.sum() > 0.9 * inside_HW.sum()


def test_check_names_the_colour_and_how_to_turn_it_off(tmp_path):
    image = np.where(MASKS["strip"], ground(), 255).astype(np.uint8)
    path, whole = tif(tmp_path / "a.tif", image, at(0, 90)), tif(tmp_path / "b.tif", ground(1), at(0, 90))
    checked = check_image_pair(path, whole)
    finding = next(finding for finding in checked.findings if finding.kind == "border")
    assert finding.level == 1 and "a.tif has a white border" in finding.text and "--collar none" in finding.remedy
    assert checked.radiometry.before.black_border_frac == pytest.approx(39 / SIDE, abs=0.005)
    assert not [
        f for f in check_image_pair(path, whole, config=DetectionConfig(collar="none")).findings if f.kind == "border"
    ]
    assert not [
        f for f in check_image_pair(path, whole, config=DetectionConfig(collar="black")).findings if f.kind == "border"
    ]
    assert TILES.collar == "auto"


def test_resampling_widens_no_black_collar(tmp_path):
    """An image in degrees at 50 degrees north, on a grid of UTM: the ground loses a rim of 3 px, and not of 8."""
    degrees = Affine(1e-5, 0, 15.001, 0, -1e-5, 50.004)
    town = city(260, 320)
    framed = np.zeros_like(town)
    framed[:, 40:-40, 40:-40] = town[:, 40:-40, 40:-40]
    paths = [
        tif(tmp_path / name, data, degrees, crs="EPSG:4326") for name, data in (("a.tif", framed), ("b.tif", town))
    ]
    with (
        open_pair(*paths, ReadingSettings(grid="utm")) as pair,
        open_pair(paths[1], paths[1], ReadingSettings(grid="utm", collar="none")) as whole,
    ):
        (height, width), grid = pair.shape_hw, pair.grid
        seen, real = pair.read(0, 0, height, width), whole.read(0, 0, height, width)
    cols, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    places = warp.transform(grid.crs, "EPSG:4326", *(axis.ravel() for axis in grid.transform @ (cols, rows)))
    source_cols, source_rows = (axis.reshape(height, width) for axis in ~degrees @ tuple(map(np.array, places)))
    inside = (source_cols > 40) & (source_cols < 280) & (source_rows > 40) & (source_rows < 220)
    depth_px = ndimage.distance_transform_edt(inside)
    assert not seen.valid_HW[~inside].any() and seen.valid_HW[depth_px > 4].all()
    difference = np.abs(seen.t1_HWC.astype(int) - real.t1_HWC)[seen.valid_HW]
    assert difference.max() <= 3, "nothing of the collar is mixed with the ground that is left"
