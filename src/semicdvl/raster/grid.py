"""Where pixels lie on the ground: the grid of a raster, its size in metres, and what two grids have in common."""

from __future__ import annotations

import math
from dataclasses import dataclass

from affine import Affine
from pyproj import Geod
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.warp import transform, transform_bounds

WGS84 = CRS.from_epsg(4326)
GRID_TOLERANCE_PX = 0.02
"""Grids that agree to this many pixels at every corner are taken as one grid: no resampling, no loss."""
MAX_SCALE_DISTORTION = 0.01
"""Map units are metres on the ground if they agree with the ellipsoid to this share (Web Mercator's don't)."""


@dataclass(frozen=True)
class Grid:
    """A north-up pixel grid.

    Attributes:
        crs: coordinate reference system, None for a plain image.
        transform: (col, row) -> (x, y) of the top left corner of a pixel.
        height: rows.
        width: columns.
    """

    crs: CRS | None
    transform: Affine
    height: int
    width: int

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right, top in map units."""
        left, top = self.transform @ (0, 0)
        right, bottom = self.transform @ (self.width, self.height)
        return min(left, right), min(bottom, top), max(left, right), max(bottom, top)

    @property
    def has_true_scale(self) -> bool:
        """Whether lengths and areas in map units are lengths and areas on the ground (to `MAX_SCALE_DISTORTION`)."""
        if self.crs is None or not self.crs.is_projected:
            return False
        on_map = math.sqrt(abs(self.transform.a * self.transform.e)) * _crs_unit_m(self.crs)
        return abs(_pixel_size_on_ellipsoid_m(self) / on_map - 1) <= MAX_SCALE_DISTORTION

    @property
    def gsd_m(self) -> float | None:
        """Ground sampling distance in metres: geometric mean of a pixel's height and width; None without a CRS.

        From the map units where these are metres on the ground, otherwise (degrees, Web Mercator) measured on the
        ellipsoid at the centre.
        """
        if self.crs is None:
            return None
        if self.has_true_scale:
            return math.sqrt(abs(self.transform.a * self.transform.e)) * _crs_unit_m(self.crs)
        return _pixel_size_on_ellipsoid_m(self)

    def window(self, row: float, col: float, height: int, width: int) -> Grid:
        """Return the grid of a window."""
        return Grid(self.crs, self.transform @ Affine.translation(col, row), height, width)

    def resize(self, height: int, width: int) -> Grid:
        """Return a grid of fewer pixels over the same ground."""
        scale = Affine.scale(self.width / width, self.height / height)
        return Grid(self.crs, self.transform @ scale, height, width)


def _crs_unit_m(crs: CRS) -> float:
    """Return the metres per unit of a projected CRS (a US survey foot is 0.3048006 m)."""
    try:
        return float(crs.linear_units_factor[1])
    except CRSError:
        return 1.0


def _pixel_size_on_ellipsoid_m(grid: Grid) -> float:
    """Measure the centre pixel's height and width along geodesics."""
    row, col = grid.height / 2, grid.width / 2
    corners = [grid.transform @ at for at in ((col, row), (col + 1, row), (col, row + 1))]
    lon, lat = transform(grid.crs, WGS84, [x for x, _ in corners], [y for _, y in corners])[:2]
    geod = Geod(ellps="WGS84")
    across = geod.inv(lon[0], lat[0], lon[1], lat[1])[2]
    down = geod.inv(lon[0], lat[0], lon[2], lat[2])[2]
    return math.sqrt(across * down)


def find_pixel_offset(grid: Grid, other: Grid) -> tuple[int, int] | None:
    """Return (row, col) of `other`'s corner on `grid` if their pixels coincide to `GRID_TOLERANCE_PX`, else None."""
    if grid.crs != other.crs:
        return None
    to_grid = ~grid.transform @ other.transform
    corners = [(0, 0), (other.width, 0), (0, other.height), (other.width, other.height)]
    col, row = (round(value) for value in to_grid @ (0, 0))
    for at in corners:
        there = to_grid @ at
        if max(abs(there[0] - at[0] - col), abs(there[1] - at[1] - row)) > GRID_TOLERANCE_PX:
            return None
    return row, col


def intersect_grids(grid: Grid, other: Grid) -> Grid | None:
    """Return the part of `grid` (whole pixels) that `other` covers, or None if they have no whole pixel in common."""
    edges = _bounds_px(grid, other)
    if edges is None:
        return None
    top, left, bottom, right = edges
    row, col = max(0, math.ceil(top - GRID_TOLERANCE_PX)), max(0, math.ceil(left - GRID_TOLERANCE_PX))
    height = min(grid.height, math.floor(bottom + GRID_TOLERANCE_PX)) - row
    width = min(grid.width, math.floor(right + GRID_TOLERANCE_PX)) - col
    return grid.window(row, col, height, width) if height > 0 and width > 0 else None


def find_covering_window(grid: Grid, other: Grid) -> tuple[int, int, int, int] | None:
    """Return row, col, height and width of the pixels of `grid`, carried on beyond its edges, that cover `other`.

    None if `other` cannot be placed in the CRS of `grid` at all.
    """
    edges = _bounds_px(grid, other)
    if edges is None:
        return None
    top, left, bottom, right = edges
    row, col = math.floor(top + GRID_TOLERANCE_PX), math.floor(left + GRID_TOLERANCE_PX)
    return (
        row,
        col,
        max(1, math.ceil(bottom - GRID_TOLERANCE_PX) - row),
        max(1, math.ceil(right - GRID_TOLERANCE_PX) - col),
    )


def _bounds_px(grid: Grid, other: Grid) -> tuple[float, float, float, float] | None:
    """Return top, left, bottom and right of `other` in pixels of `grid`; None where they cannot be told."""
    if grid.crs == other.crs:
        bounds = other.bounds
    else:
        bounds = transform_bounds(other.crs, grid.crs, *other.bounds, densify_pts=21)
    to_pixel = ~grid.transform
    left, top = to_pixel @ (bounds[0], bounds[3])
    right, bottom = to_pixel @ (bounds[2], bounds[1])
    if not all(math.isfinite(value) for value in (left, top, right, bottom)):
        return None
    (left, right), (top, bottom) = sorted((left, right)), sorted((top, bottom))  # rows of a plain image go up the map
    return top, left, bottom, right
