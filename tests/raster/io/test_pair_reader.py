from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.enums import ColorInterp
from scipy import ndimage
from tests.support.paths import SHARED
from tests.support.synthetic_rasters import UTM, at, city, png, tif

from semicdvl.errors import InputError
from semicdvl.raster.grid import Grid, find_pixel_offset, intersect_grids
from semicdvl.raster.io import nodata_border
from semicdvl.raster.io.pair_reader import open_pair

REAL = SHARED / "data"


# ------------------------------------------------------------------------------------------------ grids
def test_same_grid_is_read_as_it_is(tmp_path):
    first, second = city(40, 60), city(40, 60, seed=1)
    with open_pair(tif(tmp_path / "a.tif", first, at(0, 90)), tif(tmp_path / "b.tif", second, at(0, 90))) as pair:
        window = pair.read(3, 5, 20, 30)
        assert pair.shape_hw == (40, 60) and pair.gsd_m == pytest.approx(0.5) and pair.notes == ()
        assert (window.t1_HWC == first[:, 3:23, 5:35].transpose(1, 2, 0)).all()
        assert (window.t2_HWC == second[:, 3:23, 5:35].transpose(1, 2, 0)).all()
        assert window.valid_HW.all()


def test_whole_pixel_shift_is_not_resampled(tmp_path):
    ground = city(80, 90)
    before = tif(tmp_path / "a.tif", ground[:, 10:70, 20:90], at(10, 95))
    after = tif(tmp_path / "b.tif", ground[:, :66, 5:80], at(2.5, 100))
    with open_pair(before, after) as pair:
        window = pair.read(0, 0, *pair.shape_hw)
        assert pair.shape_hw == (56, 60) and not pair.after.warped
        assert (window.t1_HWC == window.t2_HWC).all() and window.valid_HW.all()
        assert pair.grid.bounds == (10, 67, 40, 95)


def test_fractional_shift_is_warped_onto_the_before_grid(tmp_path):
    fine = ndimage.gaussian_filter(city(480, 520).astype(float), (0, 6, 6))
    before = tif(tmp_path / "a.tif", fine[:, ::4, ::4].astype(np.uint8), at(0, 100, 0.4))
    after = tif(tmp_path / "b.tif", fine[:, 2::4, 1::4].astype(np.uint8), at(0.1, 99.8, 0.4))
    with open_pair(before, after) as pair:
        window = pair.read(0, 0, *pair.shape_hw)
        difference = np.abs(window.t1_HWC.astype(int) - window.t2_HWC)[4:-4, 4:-4]
        unwarped = np.abs(fine[:, ::4, ::4].astype(int) - fine[:, 2::4, 1::4].astype(int))
        assert pair.after.warped and any("resampled" in note for note in pair.notes)
        assert difference.mean() < 1 < unwarped.mean()


def test_other_crs_lands_on_the_same_ground(tmp_path):
    """A block of light in UTM and in degrees must cover the same pixels after the warp."""
    image = np.full((3, 120, 140), 60, np.uint8)
    image[:, 40:60, 70:100] = 220
    before = tif(tmp_path / "a.tif", image, at(366676, 4104256, 0.6))
    degrees = tmp_path / "b.tif"
    with rasterio.open(before) as source:
        crs = rasterio.CRS.from_epsg(4326)
        west, south, east, north = rasterio.warp.transform_bounds(source.crs, crs, *source.bounds)
        width, height = round((east - west) / 6e-6), round((north - south) / 6e-6)
        transform = Affine(6e-6, 0, west, 0, -6e-6, north)
        warped = np.zeros((3, height, width), np.uint8)
        rasterio.warp.reproject(source.read(), warped, src_transform=source.transform, src_crs=source.crs,
                                dst_transform=transform, dst_crs=crs, resampling=1)  # fmt: skip
        tif(degrees, warped, transform, crs)
    with open_pair(before, degrees) as pair:
        window = pair.read(0, 0, *pair.shape_hw)
        bright = [(image_HWC[..., 0] > 140) & window.valid_HW for image_HWC in (window.t1_HWC, window.t2_HWC)]
        assert pair.grid.crs == UTM and window.valid_HW.mean() > 0.9
        assert (bright[0] & bright[1]).sum() / (bright[0] | bright[1]).sum() > 0.93


def test_gsd_is_metres_on_the_ground():
    degrees = Grid(rasterio.CRS.from_epsg(4326), Affine(6e-6, 0, -94.5, 0, -6e-6, 37.07), 50, 70)
    mercator = Grid(rasterio.CRS.from_epsg(3857), Affine(1.0, 0, 1_000_000, 0, -1.0, 8_399_738), 50, 70)  # 60 deg N
    feet = Grid(rasterio.CRS.from_epsg(2263), Affine(1.0, 0, 980_000, 0, -1.0, 200_000), 50, 70)
    assert degrees.gsd_m == pytest.approx(0.6, rel=0.02) and not degrees.has_true_scale
    assert mercator.gsd_m == pytest.approx(0.5, rel=0.01) and not mercator.has_true_scale
    assert feet.gsd_m == pytest.approx(0.3048, rel=0.001) and feet.has_true_scale


@given(row=st.integers(-30, 30), col=st.integers(-30, 30), height=st.integers(1, 25), width=st.integers(1, 35))
@settings(max_examples=60, deadline=None)
def test_overlap_is_the_intersection(row, col, height, width):
    grid = Grid(UTM, at(500_000, 4_000_000), 20, 30)
    other = grid.window(row, col, height, width)
    both = intersect_grids(grid, other)
    wanted_rows, wanted_cols = (
        set(range(size)) & set(range(start, start + length))
        for size, start, length in ((20, row, height), (30, col, width))
    )
    if not wanted_rows or not wanted_cols:
        assert both is None
        return
    assert both is not None and (both.height, both.width) == (len(wanted_rows), len(wanted_cols))
    assert find_pixel_offset(grid, both) == (min(wanted_rows), min(wanted_cols))


# ------------------------------------------------------------------------------------------------ no data
@pytest.mark.parametrize("way", ["tag", "alpha", "border"])
def test_no_data_of_either_date_is_invalid_and_black_in_both(tmp_path, way):
    first, second = city(200, 210), city(200, 210, seed=1)
    first[:, :, :90] = 0
    extra = {"nodata": 0} if way == "tag" else {}
    if way == "alpha":
        first = np.concatenate([first, np.where(np.arange(210) < 90, 0, 255) * np.ones((1, 200, 1))]).astype(np.uint8)
    before = tmp_path / "a.tif"
    tif(before, first, at(0, 90), **extra)
    if way == "alpha":
        with rasterio.open(before, "r+") as target:
            target.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    with open_pair(before, tif(tmp_path / "b.tif", second, at(0, 90))) as pair:
        window = pair.read(0, 0, 200, 210)
        edge = 92 if way == "border" else 90
        assert not window.valid_HW[:, :edge].any() and window.valid_HW[:, edge:].all()
        assert not window.t1_HWC[:, :edge].any() and not window.t2_HWC[:, :edge].any()
        assert any("black border" in note for note in pair.notes) == (way == "border")
        parts = [pair.read(row, col, 50, 70).valid_HW for row in range(0, 200, 50) for col in range(0, 210, 70)]
        rows = [np.concatenate(parts[at : at + 3], axis=1) for at in range(0, 12, 3)]
        assert (np.concatenate(rows) == window.valid_HW).all()


def test_black_things_that_are_no_border_stay_valid(tmp_path):
    image = city(300, 310)
    image[:, 100:200, 100:200] = 0  # large, but inside
    image[:, :40, :40] = 0  # at the edge, but small
    with open_pair(tif(tmp_path / "a.tif", image, at(0, 90)), tif(tmp_path / "b.tif", image, at(0, 90))) as pair:
        assert pair.read(0, 0, 300, 310).valid_HW.all() and not pair.notes


@pytest.mark.parametrize("seed", range(4))
def test_black_border_found_by_strips_is_what_one_labelling_finds(seed, monkeypatch):
    monkeypatch.setattr(nodata_border, "STRIP_ROWS", 7)
    black_HW = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(61, 83)), 2) > 0.03
    labels_HW, count = ndimage.label(black_HW, np.ones((3, 3)))
    frame = set(np.concatenate([labels_HW[0], labels_HW[-1], labels_HW[:, 0], labels_HW[:, -1]]))
    wanted = [label for label in range(1, count + 1) if label in frame and (labels_HW == label).sum() > 50]
    found = nodata_border.find_black_border(
        lambda r, c, h, w: black_HW[r : r + h, c : c + w], height=61, width=83, min_area_px=50
    )
    assert wanted, "the case must hold a border"
    assert (found.read_window(0, 0, 61, 83) == np.isin(labels_HW, wanted)).all()
    assert (found.read_window(-3, 10, 40, 90)[3:, :73] == np.isin(labels_HW, wanted)[:37, 10:]).all()


# ------------------------------------------------------------------------------------------------ bands and depth
def test_16_bit_gets_one_stretch_for_all_windows(tmp_path):
    deep = city(90, 100).astype(np.uint16) * 40 + 700
    deep[:, :, 60:] += 3000
    with open_pair(tif(tmp_path / "a.tif", deep, at(0, 90)), tif(tmp_path / "b.tif", deep, at(0, 90))) as pair:
        whole = pair.read(0, 0, 90, 100).t1_HWC
        parts = np.concatenate([pair.read(0, col, 90, 25).t1_HWC for col in range(0, 100, 25)], axis=1)
        assert (whole == parts).all() and whole.dtype == np.uint8
        assert whole.min() == 0 and whole.max() == 255 and whole[:, 60:].mean() > whole[:, :60].mean() + 20
        assert any("was stretched to 8 bits, once for the whole overlap" in note for note in pair.notes)


def test_float_nan_is_no_data(tmp_path):
    image = city(50, 70).astype(np.float32) / 255
    image[1, 10:20, 30:40] = np.nan
    with open_pair(tif(tmp_path / "a.tif", image, at(0, 90)), tif(tmp_path / "b.tif", image, at(0, 90))) as pair:
        valid_HW = pair.read(0, 0, 50, 70).valid_HW
        assert not valid_HW[10:20, 30:40].any() and valid_HW.sum() == 50 * 70 - 100


def test_bands_are_picked(tmp_path):
    image = city(30, 40, bands=4)
    files = [tif(tmp_path / name, image, at(0, 90)) for name in ("a.tif", "b.tif")]
    with open_pair(*files, bands=(4, 3, 2)) as pair:
        assert (pair.read(0, 0, 30, 40).t1_HWC == image[[3, 2, 1]].transpose(1, 2, 0)).all()


def test_plain_images_have_no_crs_and_say_so(tmp_path):
    image = city(30, 40)
    with open_pair(png(tmp_path / "a.png", image), png(tmp_path / "b.png", image)) as pair:
        assert pair.gsd_m is None and pair.grid.crs is None and "no CRS" in pair.notes[0]
        assert (pair.read(2, 3, 10, 20).t2_HWC == image[:, 2:12, 3:23].transpose(1, 2, 0)).all()
        small = pair.read_overview(max_px=20)
        assert small.t1_HWC.shape == (15, 20, 3) and abs(small.t1_HWC.mean() - image.mean()) < 2


# ------------------------------------------------------------------------------------------------ bad input
def _bad(tmp_path: Path, case: str) -> tuple[Path, Path]:
    good = tif(tmp_path / "good.tif", city(64, 64), at(0, 90))
    plain = png(tmp_path / "plain.png", city(64, 64))
    broken = tmp_path / "broken"
    match case:
        case "missing":
            return good, tmp_path / "nowhere.tif"
        case "folder":
            (tmp_path / "empty").mkdir()
            return good, tmp_path / "empty"
        case "text":
            broken.write_text("hello")
            return good, broken
        case "truncated tif":
            tif(broken, city(400, 400), at(0, 90), compress="deflate", tiled=True)
            large = tif(tmp_path / "large.tif", city(400, 400), at(0, 90))
            broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
            return broken, large
        case "truncated png":
            broken.write_bytes(plain.read_bytes()[:3000])
            return plain, broken
        case "grey":
            return good, tif(broken, city(64, 64, bands=1), at(0, 90))
        case "no overlap":
            return good, tif(broken, city(64, 64), at(500, 90))
        case "far away":
            return good, tif(broken, city(64, 64), Affine(1e-5, 0, 100, 0, -1e-5, -40), rasterio.CRS.from_epsg(4326))
        case "one without crs":
            return good, plain
        case "sizes":
            return plain, png(tmp_path / "other.png", city(60, 64))
        case "rotated":
            return good, tif(broken, city(64, 64), Affine(0.5, 0.1, 0, 0.1, -0.5, 90))
        case _:
            raise AssertionError(case)


CASES = {
    "missing": ("nowhere.tif", "does not exist"),
    "folder": ("empty", "folder contains no raster"),
    "text": ("broken", "cannot be opened as an image"),
    "truncated tif": ("broken", "truncated"),
    "truncated png": ("broken", "PNG file is damaged"),
    "grey": ("broken", "1 band"),
    "no overlap": ("broken", "does not overlap"),
    "far away": ("broken", "does not overlap"),
    "one without crs": ("plain.png", "no CRS"),
    "sizes": ("other.png", "64 x 60 px"),
    "rotated": ("broken", "rotated"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_names_file_and_remedy(tmp_path, case):
    before, after = _bad(tmp_path, case)
    name, problem = CASES[case]
    with pytest.raises(InputError) as caught:
        with open_pair(before, after) as pair:
            pair.read(0, 0, *pair.shape_hw)
    assert caught.value.path == str(tmp_path / name) and problem in caught.value.problem
    assert len(caught.value.remedy) > 10 and "previous exception" not in str(caught.value)


def test_wrong_band_numbers(tmp_path):
    file = tif(tmp_path / "a.tif", city(30, 40), at(0, 90))
    with pytest.raises(InputError, match="bands 1,2,9 were requested"):
        open_pair(file, file, bands=(1, 2, 9))


# ------------------------------------------------------------------------------------------------ real files
@pytest.mark.skipif(not (REAL / "joplin").is_dir(), reason="../shared/data/joplin is not here")
def test_joplin_chips():
    chips = REAL / "joplin" / "chips"
    with open_pair(chips / "pre" / "1_pre.tif", chips / "post" / "1_post.tif") as pair:
        window = pair.read(0, 0, *pair.shape_hw)
        black_HW = (window.t1_HWC == 0).all(axis=2)
        assert pair.after.warped and any("black border" in note for note in pair.notes)
        assert 0.02 < 1 - window.valid_HW.mean() < 0.9 and black_HW[window.valid_HW].mean() < 1e-3
        assert pair.gsd_m == pytest.approx(0.636, abs=0.002)
