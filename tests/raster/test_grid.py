"""Grids: ground sampling distance, overlap, windows."""

import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.synthetic_rasters import UTM, at

from semicdvl.raster.grid import Grid, find_covering_window, find_pixel_offset, intersect_grids


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


def test_covering_rounds_outward_and_goes_beyond_the_edge():
    grid = Grid(UTM, at(0, 90, 1.0), 40, 50)
    assert find_covering_window(grid, Grid(UTM, at(-2.5, 91.5, 0.5), 11, 13)) == (-2, -3, 6, 7)
    assert find_covering_window(grid, Grid(UTM, at(3, 80, 1.0), 4, 5)) == (10, 3, 4, 5)
