import math
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.errors import NotGeoreferencedWarning
from scipy import ndimage
from scipy.spatial import KDTree
from tests.support.synthetic_town import paint, photograph

from semicdvl.raster.grid import Grid
from semicdvl.raster.io.open_pair import open_pair
from semicdvl.raster.io.pair_reader import RasterPair
from semicdvl.raster.registration import estimate
from semicdvl.raster.registration.estimate import MAX_WINDOWS, measure_shift
from semicdvl.raster.registration.shift import NEIGHBOUR_COUNT, Shift, find_neighbours
from semicdvl.raster.warp import Alignment
from semicdvl.types import ReadingSettings

UTM = rasterio.CRS.from_epsg(32615)
SIZE = 260, 330


@pytest.fixture(scope="module")
def town() -> np.ndarray:
    return paint(*SIZE, seed=3)


def tif(path: Path, image_HWC: np.ndarray, *, crs=UTM, transform=None, **extra) -> Path:
    place = {} if crs is None else {"crs": crs, "transform": transform or Affine(0.5, 0, 366676, 0, -0.5, 4104256)}
    profile = {"driver": "GTiff", "dtype": image_HWC.dtype, "count": 3} | place | extra
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", height=image_HWC.shape[0], width=image_HWC.shape[1], **profile) as target:
            target.write(image_HWC.transpose(2, 0, 1))
    return path


def pair_of(tmp_path, before: np.ndarray, after: np.ndarray, *, move: Alignment | None = None, **place) -> RasterPair:
    return open_pair(tif(tmp_path / "a.tif", before, **place), tif(tmp_path / "b.tif", after, **place), alignment=move)


def shift_of(tmp_path, before: np.ndarray, after: np.ndarray, **place) -> Shift:
    with pair_of(tmp_path, before, after, **place) as pair:
        return measure_shift(pair)


# ------------------------------------------------------------------------------------------------ accuracy
@pytest.mark.parametrize("by", [(0.25, -0.75), (3.5, -7.25), (-21.0, 33.5), (0.0, 0.0)])
def test_a_known_shift_is_measured(tmp_path, town, by):
    shift = shift_of(tmp_path, photograph(town), photograph(town, row_px=by[0], col_px=by[1]))
    assert shift.is_known and shift.agree_frac > 0.9 and shift.confidence > 0.9
    assert (shift.row_px, shift.col_px) == pytest.approx(by, abs=0.1) and shift.spread_px < 0.2 and not shift.varies
    assert shift.row_m == pytest.approx(by[0] * 0.5, abs=0.06) and shift.col_m == pytest.approx(by[1] * 0.5, abs=0.06)


def _darker(image):
    return np.clip(255 * (image / 255.0) ** 1.8 * (0.9, 0.7, 1.0), 0, 255)


def _season(image):
    """Lawn to straw: roofs are now darker than the ground, before they were brighter."""
    lawn = image[..., 1] > image[..., 0]
    return np.where(lawn[..., None], image * 0.4 + (150, 130, 90), image * 0.5)


def _noise(image):
    return np.clip(image + np.random.default_rng(1).normal(0, 12, image.shape), 0, 255)


@pytest.mark.parametrize("change", [_darker, _season, _noise], ids=lambda change: change.__name__)
def test_brightness_season_noise_and_lost_roofs_do_not_mislead(tmp_path, town, change):
    after = paint(*SIZE, seed=3, gone=12)
    assert np.abs(after - town).max() > 50, "roofs are gone"
    later = change(photograph(after, row_px=-2.25, col_px=4.5)).astype(np.uint8)
    shift = shift_of(tmp_path, photograph(town), later)
    assert shift.is_known and (shift.row_px, shift.col_px) == pytest.approx((-2.25, 4.5), abs=0.2)


def test_no_data_corners_do_not_pull_the_shift_to_zero(tmp_path, town):
    before, after = photograph(town), photograph(town, row_px=6, col_px=-5)
    for image in (before, after):
        image[np.add.outer(np.arange(SIZE[0]), np.arange(SIZE[1])) < 200] = 0
    shift = shift_of(tmp_path, before, after)
    assert shift.is_known and (shift.row_px, shift.col_px) == pytest.approx((6, -5), abs=0.15)


def test_more_than_a_hundred_pixels_are_measured(tmp_path):
    wide = photograph(paint(420, 520, seed=5, roofs=220))
    shift = shift_of(tmp_path, wide[110:, 20:], wide[:-110, :-20])
    assert shift.is_known and (shift.row_px, shift.col_px) == pytest.approx((110, 20), abs=0.2)


def test_metres_where_pixels_are_not_square(tmp_path, town):
    degrees = Affine(6e-6, 0, -94.5, 0, -6e-6, 60.0)  # at 60 deg N a degree east is half a degree north
    after = photograph(town, row_px=4, col_px=-4)
    shift = shift_of(tmp_path, photograph(town), after, crs=rasterio.CRS.from_epsg(4326), transform=degrees)
    assert shift.row_m == pytest.approx(4 * 6e-6 * 111_400, rel=0.03)
    assert shift.col_m == pytest.approx(-shift.row_m / 2, rel=0.05)
    assert shift.length_m == pytest.approx(math.hypot(shift.row_m, shift.col_m))
    assert shift_of(tmp_path, photograph(town), after, crs=None).length_m is None


# ------------------------------------------------------------------------------------------------ not known
def _unrelated(kind: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    if kind == "noise":
        return tuple(rng.integers(0, 255, (*SIZE, 3), dtype=np.uint8) for _ in range(2))
    if kind == "flat":
        return np.full((*SIZE, 3), 90, np.uint8), np.full((*SIZE, 3), 120, np.uint8)
    if kind == "small":
        small = rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)
        return small, small
    if kind == "furrows":  # a shift along them cannot be seen
        wave = 120 + 60 * np.sin(np.arange(SIZE[0]) / 4)[:, None, None] + np.zeros((1, SIZE[1], 3))
        return tuple(np.clip(wave + rng.normal(0, 8, wave.shape), 0, 255).astype(np.uint8) for _ in range(2))
    return photograph(paint(*SIZE, seed=11)), photograph(paint(*SIZE, seed=12))


@pytest.mark.parametrize("kind", ["noise", "flat", "small", "furrows", "other town"])
def test_what_cannot_be_measured_is_unknown(tmp_path, kind):
    with pair_of(tmp_path, *_unrelated(kind)) as pair:
        shift = measure_shift(pair)
        assert not shift.is_known and shift.confidence == 0 and shift.to_alignment(pair) is None


# ------------------------------------------------------------------------------------------------ few windows
@given(
    rows=st.integers(0, 60_000),
    cols=st.integers(0, 60_000),
    side=st.sampled_from([64, 256, 512]),
    start=st.integers(0, 90),
)
@settings(max_examples=80, deadline=None)
def test_windows_are_few_inside_the_overlap_and_spread(rows, cols, side, start):
    places = estimate._spread_windows((start, start + rows), (0, cols), side_px=side, max_windows=MAX_WINDOWS)
    assert 1 <= len(places) <= MAX_WINDOWS and len(set(places)) == len(places)
    assert all(start <= row <= start + rows and 0 <= col <= cols for row, col in places)
    if min(rows, cols) > 20 * side and max(rows, cols) < 3 * min(rows, cols):
        assert len(places) > 0.6 * MAX_WINDOWS


@dataclass(frozen=True)
class CountingReader:
    """An image of any size that counts the pixels that were read."""

    grid: Grid
    read_px: list[int] = field(default_factory=list)
    col_px: int = 0

    def read(self, row, col, height, width, *, shape_hw=None):
        self.read_px.append(height * width)
        rng = np.random.default_rng([row, col - self.col_px])  # each window differs, alike in both images
        texture = ndimage.gaussian_filter(rng.normal(size=(height, width)), 2)
        return np.repeat((120 + 400 * texture)[..., None], 3, axis=2).clip(0, 255).astype(np.uint8), np.ones(
            (height, width), bool
        )


def test_reads_do_not_grow_with_the_raster():
    grid = Grid(UTM, Affine(0.5, 0, 0, 0, -0.5, 0), 50_000, 48_000)
    before, after = CountingReader(grid), CountingReader(grid)
    shift = measure_shift(RasterPair(before, after, grid, (), grid, ReadingSettings()))
    assert shift.is_known and shift.length_px < 0.01 and len(shift.local) <= MAX_WINDOWS
    assert sum(before.read_px) < 10e6 and max(before.read_px) <= 512 * 512


# ------------------------------------------------------------------------------------------------ moving
@pytest.mark.parametrize("crs", [UTM, None], ids=["utm", "plain"])
@pytest.mark.parametrize("by", [(3.0, -5.0), (2.25, -4.5)])
def test_an_aligned_image_matches_the_other(tmp_path, town, crs, by):
    before, after = photograph(town), photograph(town, row_px=by[0], col_px=by[1])
    with pair_of(tmp_path, before, after, crs=crs, move=Alignment(*by)) as pair:
        assert pair.grid.crs == crs and any("was co-registered" in note for note in pair.notes)
        assert pair.after.warped == (by[0] % 1 != 0), "whole pixels are not resampled"
        assert SIZE[0] - 4 <= pair.grid.height < SIZE[0] and SIZE[1] - 6 <= pair.grid.width < SIZE[1]
        window = pair.read(0, 0, *pair.shape_hw)
        apart = np.abs(window.t1_HWC.astype(int) - window.t2_HWC)[window.valid_HW]
        assert window.valid_HW.mean() > 0.98 and np.percentile(apart, 90) <= (0 if by[0] % 1 == 0 else 8)
        assert measure_shift(pair).length_px < 0.1


def test_identical_images_are_not_aligned(tmp_path, town):
    with pair_of(tmp_path, photograph(town), photograph(town)) as pair:
        shift = measure_shift(pair)
        assert shift.is_known and shift.length_px < 0.01 and shift.to_alignment(pair) is None


def test_a_shift_that_varies_is_measured_and_corrected(tmp_path):
    before = photograph(paint(200, 250, seed=8, roofs=330)).repeat(4, axis=0).repeat(4, axis=1)
    before = ndimage.gaussian_filter(before, (1, 1, 0))
    rows, cols = np.mgrid[:800, :1000].astype(np.float32)
    down, right = 5 + 3 * rows / 800, -2 + 4 * cols / 1000  # where the after image shows what lies at (r, c) before
    after = cv2.remap(before, cols - right, rows - down, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    with pair_of(tmp_path, before, after) as pair:
        shift = measure_shift(pair)
        assert shift.varies
        move = shift.to_alignment(pair)
        window = pair.read(0, 0, *pair.shape_hw)
        was = np.abs(window.t1_HWC.astype(int) - window.t2_HWC).mean()
    assert move is not None and move.field is not None and "place to place" in str(move)
    with open_pair(tmp_path / "a.tif", tmp_path / "b.tif", alignment=move) as moved:
        left = measure_shift(moved)
        window = moved.read(0, 0, *moved.shape_hw)
        apart = np.abs(window.t1_HWC.astype(int) - window.t2_HWC)[window.valid_HW].mean()
        assert left.is_known and left.length_px < 0.25 and left.spread_px < 0.3 and not left.varies
        assert apart < 0.35 * was and window.valid_HW.mean() > 0.97
        half = moved.read(100, 90, 260, 300, max_px=150)
        assert half.t2_HWC.shape == (130, 150, 3) and np.abs(half.t1_HWC.astype(int) - half.t2_HWC).mean() < 0.5 * was


def test_neighbours_are_the_nearest_other_points():
    points_N2 = np.random.default_rng(0).random((23, 2))
    tree = KDTree(points_N2).query(points_N2, NEIGHBOUR_COUNT + 1)[1][:, 1:]
    assert find_neighbours(points_N2).tolist() == tree.tolist()
