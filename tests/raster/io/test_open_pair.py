import threading
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp
from rasterio.warp import transform
from scipy import ndimage
from tests.support.paths import SHARED
from tests.support.synthetic_rasters import UTM, at, city, png, same_pixels, tif

from semicdvl.errors import InputError
from semicdvl.raster.grid import find_utm_crs
from semicdvl.raster.io.open_pair import align_pair, open_pair
from semicdvl.raster.io.pair_reader import PairWindow
from semicdvl.raster.warp import Alignment
from semicdvl.types import ReadingSettings

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


# ------------------------------------------------------------------------------------------------ no data
@pytest.mark.parametrize("way", ["tag", "alpha", "border"])
def test_no_data_of_either_image_is_invalid_and_black_in_both(tmp_path, way):
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


# ------------------------------------------------------------------------------------------------ bands and depth


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
            return good, tif(broken, city(64, 64), Affine(0.5, 0.1, 0, 0.1, -0.5, 90), None)
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


def grids(tmp_path: Path) -> tuple[Path, Path]:
    """Two dates half a pixel apart, the after image with pixels of half the size."""
    before = tif(tmp_path / "a.tif", city(40, 50), at(0, 90, 1.0))
    return before, tif(tmp_path / "b.tif", city(70, 84, seed=1), at(2.25, 88.75, 0.5))


def test_grid_of_the_after_image_leaves_it_untouched(tmp_path):
    before, after = grids(tmp_path)
    for grid in ("after", "finest", after):
        with open_pair(before, after, ReadingSettings(grid=str(grid))) as pair:
            window = pair.read(0, 0, *pair.shape_hw)
            assert pair.grid.transform == at(2.25, 88.75, 0.5) and pair.shape_hw == (70, 84)
            assert same_pixels(window.t2_HWC, city(70, 84, seed=1)) and not pair.after.warped and pair.before.warped
            assert "The before image was resampled" in pair.notes[0] and window.valid_HW.all()
    with open_pair(before, after) as pair:
        assert pair.grid.transform == at(3, 88, 1.0) and pair.shape_hw == (34, 41) and not pair.before.warped
    with open_pair(after, before, ReadingSettings(grid="finest")) as pair:
        assert not pair.before.warped and pair.shape_hw == (70, 84)


def test_grid_of_a_file(tmp_path):
    before, after = grids(tmp_path)
    third = tif(tmp_path / "third.tif", city(30, 36), at(4, 86, 0.75))
    with open_pair(before, after, ReadingSettings(grid=str(third))) as pair:
        assert pair.grid.transform == at(4, 86, 0.75) and pair.shape_hw == (30, 36)
        assert "Both images were resampled" in pair.notes[0] and pair.read(0, 0, 30, 36).valid_HW.all()
    far = tif(tmp_path / "far.tif", city(30, 36), at(4000, 86, 0.75))
    cases = [
        (far, "does not overlap the reference grid"),
        (png(tmp_path / "p.png", city(8, 9)), "has no CRS"),
        (tmp_path / "none.tif", "does not exist"),
        (f"{before},{after}", "a single raster"),
    ]
    for grid, words in cases:
        with pytest.raises(InputError, match=words):
            open_pair(before, after, ReadingSettings(grid=str(grid)))


def test_grid_of_utm_has_square_pixels_over_the_same_ground(tmp_path):
    degrees = Affine(1e-5, 0, 14.999, 0, -1e-5, 60.001)
    data = city(150, 200)
    before, after = (tif(tmp_path / f"{name}.tif", data, degrees, crs="EPSG:4326") for name in "ab")
    with open_pair(before, after) as pair:
        width_m, height_m = pair.grid.pixel_m
        assert (width_m, height_m) == pytest.approx((0.558, 1.114), abs=0.002), "a degree of longitude is half as long"
        native_m = pair.gsd_m
    with open_pair(before, after, ReadingSettings(grid="utm")) as pair:
        assert pair.grid.crs.to_epsg() == 32633 and pair.grid.pixel_m == pytest.approx((native_m, native_m))
        height_m, width_m = (size_px * native_m for size_px in pair.shape_hw)
        assert (height_m, width_m) == pytest.approx((150 * 1.114, 200 * 0.558), rel=0.03)
    with open_pair(before, after, ReadingSettings(grid="utm")) as pair:
        row, col = (size // 2 for size in pair.shape_hw)
        x, y = pair.grid.transform @ (col + 0.5, row + 0.5)
        (lon,), (lat,) = transform(pair.grid.crs, "EPSG:4326", [x], [y])
        at_col, at_row = (int(value) for value in ~degrees @ (lon, lat))
        found = pair.read(row, col, 1, 1).t1_HWC[0, 0].astype(int)
        assert np.abs(found - data[:, at_row, at_col]).max() <= 25, "the same ground, resampled"


def test_grid_of_utm_leaves_square_pixels_of_utm_alone(tmp_path):
    before, after = grids(tmp_path)
    with open_pair(before, after, ReadingSettings(grid="utm")) as pair, open_pair(before, after) as plain:
        assert pair.grid == plain.grid and not pair.before.warped
    plain_images = [png(tmp_path / f"{name}.png", city(20, 30)) for name in "ab"]
    with pytest.raises(InputError, match="no position on the earth"):
        open_pair(*plain_images, ReadingSettings(grid="utm"))


@pytest.mark.parametrize(
    ("lon", "lat", "epsg"), [(15, 60, 32633), (-180, -1, 32701), (179.9, 5, 32660), (20, 88, 32661), (20, -85, 32761)]
)
def test_zone_of_utm(lon, lat, epsg):
    assert find_utm_crs(lon, lat).to_epsg() == epsg


def test_alignment_on_the_grid_of_the_after_image(tmp_path):
    ground = city(80, 90)
    before = tif(tmp_path / "a.tif", ground[:, 10:70, 20:80], at(10, 95))
    after = tif(tmp_path / "b.tif", ground[:, 13:73, 18:78], at(10, 95))  # the same place, said to lie 3 up, 2 right
    with open_pair(before, after, ReadingSettings(grid="after"), alignment=Alignment(-3, 2)) as pair:
        window = pair.read(0, 0, *pair.shape_hw)
        assert pair.shape_hw == (57, 58) and (pair.row, pair.col) == (3, 0) and (window.t1_HWC == window.t2_HWC).all()


# ------------------------------------------------------------------------------------------------ used again
def deep_pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two 16-bit images with a black border, the second one on other pixels."""
    deep = city(90, 100).astype(np.uint16) * 40
    deep[:, :, :70] = 0
    return tif(tmp_path / "a.tif", deep, at(0, 90)), tif(tmp_path / "b.tif", deep * 2, at(0.2, 89.9))


def same_windows(first: PairWindow, second: PairWindow) -> bool:
    names = ("t1_HWC", "t2_HWC", "valid_HW")
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in names)


def test_pair_reads_the_same_in_another_thread(tmp_path):
    with open_pair(*deep_pair(tmp_path), ReadingSettings(normalise="match")) as pair:
        expected, windows = pair.read(0, 0, *pair.shape_hw), []
        thread = threading.Thread(target=lambda: windows.append(pair.read(0, 0, *pair.shape_hw)))
        thread.start()
        thread.join()
        assert pair.after.warped and not expected.valid_HW.all() and expected.valid_HW.any()
        assert same_windows(windows[0], expected)


@pytest.mark.parametrize("grid", ["before", "after"])
@pytest.mark.parametrize("by", [(2.0, -3.0), (0.25, 1.5)])
def test_aligned_pair_is_that_of_opening_again_and_shares_the_files(tmp_path, grid, by):
    files, alignment = deep_pair(tmp_path), Alignment(*by)
    with open_pair(*files, ReadingSettings(grid=grid, normalise="match"), alignment=alignment) as again:
        expected, notes, extent = again.read(0, 0, *again.shape_hw), again.notes, again.grid
    with open_pair(*files, ReadingSettings(grid=grid, normalise="match")) as pair:
        before = pair.read(0, 0, *pair.shape_hw)
        aligned = align_pair(pair, alignment)
        assert aligned.after.file_dataset is pair.after.file_dataset
        assert same_windows(aligned.read(0, 0, *aligned.shape_hw), expected)
        assert (aligned.notes, aligned.grid, aligned.alignment) == (notes, extent, alignment)
        aligned.close_views()
        assert same_windows(pair.read(0, 0, *pair.shape_hw), before), "the pair itself is unchanged"
        aligned = align_pair(pair, alignment)
        pair.close_views()
        assert same_windows(aligned.read(0, 0, *aligned.shape_hw), expected)


def test_closing_an_aligned_pair_closes_the_files(tmp_path):
    pair = open_pair(*deep_pair(tmp_path))
    aligned = align_pair(pair, Alignment(1.5, 0.5))
    aligned.close()
    assert aligned.before.file_dataset.closed and aligned.after.file_dataset.closed


def test_note_on_a_missing_crs_says_how_the_images_are_placed(tmp_path):
    plain = [png(tmp_path / f"{name}.png", city(30, 40)) for name in "ab"]
    with open_pair(*plain) as pair:
        assert pair.notes[0].startswith("The images have no CRS: they are assumed to be co-registered")
    for image, left in zip(plain, (1000.25, 1005.25), strict=True):
        image.with_suffix(".pgw").write_text(f"0.5\n0\n0\n-0.5\n{left}\n2000\n")
    with open_pair(*plain) as pair:
        assert pair.notes[0].startswith("The images have no CRS: they are placed by their geotransforms")
        assert pair.shape_hw == (30, 30), "10 of 40 px are displaced"


def test_one_bit_images_stay_black_and_white_when_co_registered(tmp_path):
    bits = np.repeat((city(30, 40, bands=1) > 130).astype(np.uint8), 3, axis=0)
    path = tif(tmp_path / "bits.tif", bits, at(0, 90), nbits=1)
    with open_pair(path, path) as pair:
        aligned = align_pair(pair, Alignment(2.0, 0.0))
        assert set(np.unique(aligned.read(0, 0, 20, 40).t1_HWC)) == {0, 255}


def test_extents_in_a_message_are_told_to_the_metre(tmp_path):
    first = tif(tmp_path / "a.tif", city(30, 40), at(620000, 3350000))
    second = tif(tmp_path / "b.tif", city(30, 40), at(625000, 3350000))
    with pytest.raises(InputError, match=r"x 625000\.\.625020, y 3349985\.\.3350000 against .* x 620000\.\.620020, y"):
        open_pair(first, second)
