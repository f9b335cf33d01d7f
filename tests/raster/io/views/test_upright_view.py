"""Rasters that are located by control points, rational polynomials or a rotated grid, or that lie upside down."""

import warnings

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC
from rasterio.warp import transform
from tests.support.brightness_detector import QUIET, TILES, Brighter, pair_of_images
from tests.support.synthetic_rasters import UTM, same_pixels, tif

from semicdvl.detection.pair_check.check import check_image_pair
from semicdvl.detection.pipeline import write_detection
from semicdvl.raster.io.open_pair import open_pair

GRID = Affine(0.5, 0, 366676, 0, -0.5, 4104256)
BEFORE, AFTER = (image.transpose(2, 0, 1) for image in pair_of_images())
"""150 x 230 px with 3,006 changed ones: 2,800, 200 and 6."""


def write_located(path, data_CHW, **extra):
    """Write an image without a geotransform."""
    height, width = data_CHW.shape[1:]
    profile = {"driver": "GTiff", "count": 3, "dtype": "uint8", "height": height, "width": width}
    with warnings.catch_warnings(action="ignore"), rasterio.open(path, "w", **profile, **extra) as target:
        target.write(data_CHW)
    return path


def control_points(crs=UTM, *, wrong_px=0.0):
    """Return a 3 x 3 net of points; `wrong_px` moves the middle one."""
    points = []
    for row in (0, 75, 150):
        for col in (0, 115, 230):
            x, y = GRID @ (col, row)
            if crs != UTM:
                (x,), (y,) = transform(UTM, crs, [x], [y])
            points.append(GroundControlPoint(row, col + wrong_px * (row == 75 and col == 115), x, y))
    return {"gcps": points, "crs": crs}


def changes(before, after, out):
    return write_detection(before, after, out, detector=Brighter(), config=TILES, progress=QUIET)


def test_control_points_on_a_grid_give_the_same_pixels_as_the_grid(tmp_path):
    grid = tif(tmp_path / "a.tif", BEFORE, GRID)
    points = write_located(tmp_path / "b.tif", AFTER, **control_points())
    with open_pair(grid, points) as pair:
        window = pair.read(0, 0, 150, 230)
        assert pair.grid.transform == GRID and not pair.after.warped
        assert same_pixels(window.t2_HWC, AFTER) and window.valid_HW.all()
    result = changes(grid, points, tmp_path / "out")
    assert result.summary.changed_px == 3006 and result.summary.changed_m2 == 751.5
    assert any("9 ground control points" in line and "fit to 0.0 px" in line for line in result.warnings)
    checked = check_image_pair(grid, points)
    assert any(f.kind == "reading" and f.level == 1 and "ground control points" in f.text for f in checked.findings)


def test_control_points_in_degrees_are_warped_to_utm(tmp_path):
    dates = [
        write_located(tmp_path / f"{name}.tif", data, **control_points(rasterio.CRS.from_epsg(4326)))
        for name, data in (("a", BEFORE), ("b", AFTER))
    ]
    with open_pair(*dates) as pair:
        assert pair.grid.crs == UTM and pair.gsd_m == pytest.approx(0.5, rel=0.01)
        assert pair.grid.bounds[0] == pytest.approx(366676, abs=0.5)
    assert changes(*dates, tmp_path / "out").summary.changed_m2 == pytest.approx(751.5, rel=0.05)


def test_residual_of_bad_control_points_is_said(tmp_path):
    grid = tif(tmp_path / "a.tif", BEFORE, GRID)
    points = write_located(tmp_path / "b.tif", AFTER, **control_points(wrong_px=9))
    text = next(f.text for f in check_image_pair(grid, points).findings if f.kind == "reading")
    assert "fit to 2." in text, "one of 9 points is 9 px off: 9 * sqrt(1/9 - its own pull) is between 2 and 3"


def rpc_at(height_m):
    """Return RPCs by which a pixel is 1e-5 degrees wide, for ground at a height; higher ground lies 1 px / m east."""
    line, sample = [0.0, 0.0, -1.0] + [0.0] * 17, [0.0, 1.0, 0.0, 1.0] + [0.0] * 16
    one = [1.0] + [0.0] * 19
    return RPC(
        height_off=height_m, height_scale=1000.0, lat_off=37.0, lat_scale=0.01, line_den_coeff=one,
        line_num_coeff=line, line_off=75.0, line_scale=1000.0, long_off=-94.0, long_scale=0.01,
        samp_den_coeff=one, samp_num_coeff=sample, samp_off=115.0, samp_scale=1000.0,
    )  # fmt: skip


def test_rational_polynomials_are_warped_at_their_mean_height(tmp_path):
    dates = [
        write_located(tmp_path / f"{name}.tif", data, rpcs=rpc_at(400.0))
        for name, data in (("a", BEFORE), ("b", AFTER))
    ]
    with open_pair(*dates) as pair:
        assert pair.grid.crs == UTM and pair.gsd_m == pytest.approx(0.96, abs=0.01)  # 0.89 m by 1.11 m
        left, bottom, right, top = pair.grid.bounds
        (lon,), (lat,) = transform(UTM, "EPSG:4326", [(left + right) / 2], [(bottom + top) / 2])
        assert (lon, lat) == (pytest.approx(-94.0, abs=2e-5), pytest.approx(37.0, abs=2e-5))
    result = changes(*dates, tmp_path / "out")
    assert result.summary.changed_m2 == pytest.approx(3006 * 1e-10 * 111_000**2 * np.cos(np.radians(37)), rel=0.03)
    assert any("mean height of 400 m" in line for line in result.warnings)


@pytest.mark.parametrize("angle", [10.0, 90.0, 170.0, -35.0])
def test_rotated_grids_are_warped(tmp_path, angle):
    turned = GRID @ Affine.rotation(angle)
    dates = [tif(tmp_path / f"{name}.tif", data, turned) for name, data in (("a", BEFORE), ("b", AFTER))]
    with open_pair(*dates) as pair:
        assert pair.gsd_m == pytest.approx(0.5, rel=0.02) and pair.grid.transform.b == 0
    result = changes(*dates, tmp_path / "out")
    assert result.summary.changed_m2 == pytest.approx(751.5, rel=0.02)
    assert any(f"rotated by {-angle:.1f} degrees" in line for line in result.warnings)


def test_rotated_date_lies_where_it_is_on_the_grid_of_the_other(tmp_path):
    before = tif(tmp_path / "a.tif", BEFORE, GRID)
    after = tif(tmp_path / "b.tif", np.rot90(AFTER, 1, axes=(1, 2)).copy(), GRID @ Affine(0, -1, 230, 1, 0, 0))
    assert changes(before, after, tmp_path / "out").summary.changed_px == pytest.approx(3006, abs=10)


def test_mirrored_grid_is_put_upright(tmp_path):
    before = tif(tmp_path / "a.tif", BEFORE, GRID)
    after = tif(tmp_path / "b.tif", AFTER[:, ::-1, ::-1].copy(), GRID @ Affine(-1, 0, 230, 0, -1, 150))
    assert changes(before, after, tmp_path / "out").summary.changed_px == 3006


# ------------------------------------------------------------------------------------------------ 180 degrees
LAT_DEG = 10.0
PIXEL_DEG = 1 / 110_600


def write_at_the_antimeridian(folder, turn_deg):
    """Write a scene of 200 x 300 px and 1 m across 180 degrees in UTM, and the same in degrees around `turn_deg`."""
    (x,), (y,) = transform("EPSG:4326", "EPSG:32660", [180.0], [LAT_DEG])
    grid = Affine(1, 0, x - 150, 0, -1, y + 100)
    width_deg = PIXEL_DEG / np.cos(np.radians(LAT_DEG))
    degrees = Affine(width_deg, 0, turn_deg - 140 * width_deg, 0, -PIXEL_DEG, LAT_DEG + 90 * PIXEL_DEG)
    cols, rows = np.meshgrid(np.arange(280) + 0.5, np.arange(180) + 0.5)
    lon, lat = degrees @ (cols.ravel(), rows.ravel())
    xs, ys = transform("EPSG:4326", "EPSG:32660", (lon + 180) % 360 - 180, lat)
    at_col, at_row = (np.floor(px).astype(int) for px in ~grid @ (np.array(xs), np.array(ys)))
    dates = np.random.default_rng(0).integers(60, 120, (2, 3, 200, 300), dtype=np.uint8)
    dates[1, :, 90:110, 135:165] = 230  # 600 m2, half of it on either side
    utm = [tif(folder / f"utm{at}.tif", data, grid, "EPSG:32660") for at, data in enumerate(dates)]
    geo = [
        tif(folder / f"geo{turn_deg}{at}.tif", data[:, at_row, at_col].reshape(3, 180, 280), degrees, "EPSG:4326")
        for at, data in enumerate(dates)
    ]
    return utm, geo


@pytest.mark.parametrize("turn_deg", [180, -180])
def test_across_the_antimeridian_both_halves_are_compared_either_way_round(tmp_path, turn_deg):
    utm, geo = write_at_the_antimeridian(tmp_path, turn_deg)
    for before, after, seen_px in ((utm[0], geo[1], 280 * 180), (geo[0], utm[1], 280 * 180)):
        summary = changes(before, after, tmp_path / "out").summary
        assert summary.changed_m2 == pytest.approx(600, rel=0.05), before.name
        assert summary.seen_px == pytest.approx(seen_px, rel=0.03)


def test_longitudes_on_other_sides_of_the_antimeridian_are_the_same_place(tmp_path):
    east, west = (write_at_the_antimeridian(tmp_path, turn_deg)[1] for turn_deg in (180, -180))
    for before, after in ((east[0], west[1]), (west[0], east[1])):
        summary = changes(before, after, tmp_path / "out").summary
        assert summary.changed_m2 == pytest.approx(600, rel=0.03) and summary.seen_px == 180 * 280


def test_unknown_datums_are_a_finding(tmp_path):
    before = tif(tmp_path / "a.tif", BEFORE, GRID)
    after = tif(tmp_path / "b.tif", AFTER, GRID, rasterio.CRS.from_string("+proj=utm +zone=15 +ellps=intl +units=m"))
    checked = check_image_pair(before, after)
    assert [(f.level, f.text[:33]) for f in checked.findings if f.kind == "datum"] == [
        (1, "No transformation is known betwee")
    ]
    assert checked.verdict == 1
    assert not [f for f in check_image_pair(before, before).findings if f.kind == "datum"]
