"""Grids: ground sampling distance, overlap, windows."""

import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import MultiPolygon, box
from tests.support.synthetic_rasters import UTM, at

from semicdvl.raster.grid import Grid, build_utm_grid, find_covering_window, find_pixel_offset, intersect_grids
from semicdvl.raster.vector.object_table import measure_polygons


def test_gsd_is_metres_on_the_ground():
    degrees = Grid(rasterio.CRS.from_epsg(4326), Affine(6e-6, 0, -94.5, 0, -6e-6, 37.07), 50, 70)
    mercator = Grid(rasterio.CRS.from_epsg(3857), Affine(1.0, 0, 1_000_000, 0, -1.0, 8_399_738), 50, 70)  # 60 deg N
    feet = Grid(rasterio.CRS.from_epsg(2263), Affine(1.0, 0, 980_000, 0, -1.0, 200_000), 50, 70)
    assert degrees.gsd_m == pytest.approx(0.6, rel=0.02) and not degrees.has_true_scale
    assert mercator.gsd_m == pytest.approx(0.5, rel=0.01) and not mercator.has_true_scale
    assert feet.gsd_m == pytest.approx(0.3048, rel=0.001) and feet.has_true_scale


def test_an_equal_area_map_that_squeezes_its_pixels_has_no_true_scale():
    """At 60 degrees north EASE-Grid 2.0 holds areas with pixels three times as high as wide."""
    ease = Grid(rasterio.CRS.from_epsg(6933), Affine(10.0, 0, 964_862, 0, -10.0, 6_365_094), 50, 70)
    assert not ease.has_true_scale and ease.gsd_m == pytest.approx(10, rel=0.001)
    assert ease.pixel_m == pytest.approx((5.78, 17.3), rel=0.01)
    assert build_utm_grid(ease).crs == rasterio.CRS.from_epsg(32632)
    outline = MultiPolygon([box(964_862, 6_365_094 - 200, 964_862 + 100, 6_365_094)])  # 10 x 20 px
    (area,), (perimeter,), unit = measure_polygons([outline], grid=ease)
    assert (area, unit) == (pytest.approx(20_000, rel=0.005), "m")
    assert perimeter == pytest.approx(2 * (57.8 + 346), rel=0.01)
    europe = Grid(rasterio.CRS.from_epsg(3035), Affine(10.0, 0, 2_700_000, 0, -10.0, 1_950_000), 50, 70)  # Lisbon
    assert europe.has_true_scale  # 0.4 % off


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


def test_covering_rounds_outward_and_goes_beyond_the_edge():
    grid = Grid(UTM, at(0, 90, 1.0), 40, 50)
    assert find_covering_window(grid, Grid(UTM, at(-2.5, 91.5, 0.5), 11, 13)) == (-2, -3, 6, 7)
    assert find_covering_window(grid, Grid(UTM, at(3, 80, 1.0), 4, 5)) == (10, 3, 4, 5)
