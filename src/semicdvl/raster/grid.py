"""Pixel grids: their CRS, their ground sampling distance in metres, and how two of them relate."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from functools import lru_cache

import pyproj
from affine import Affine
from pyproj import Geod
from pyproj.transformer import TransformerGroup
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.warp import calculate_default_transform, transform, transform_bounds

from semicdvl.raster.io.georeference_warnings import ignore_warnings

WGS84 = CRS.from_epsg(4326)
GRID_TOLERANCE_PX = 0.02
"""Grids whose corners agree to this many pixels count as the same grid and are read without resampling."""
FULL_CIRCLE_DEG = 360
UTM_LATITUDES_DEG = (-80.0, 84.0)
"""Latitudes that UTM covers."""
EARTH_RADIUS_M, MAX_RADIUS_DEVIATION = 6_375_000.0, 0.005
"""How PROJ tells ellipsoids of the earth from those of other celestial bodies, to which it knows no transformation."""
MAX_SCALE_DISTORTION = 0.01
"""Map units count as metres on the ground if they agree with the ellipsoid to this fraction, in x and in y.

They do not in Web Mercator, nor far from the centre of an equal-area projection, which stretches one side of a pixel as
it shrinks the other."""


@dataclass(frozen=True)
class Grid:
    """A north-up pixel grid.

    Attributes:
        crs: coordinate reference system; None for a plain image.
        transform: affine transform from (col, row) of a pixel's top left corner to map coordinates (x, y).
        height: number of rows.
        width: number of columns.
    """

    crs: CRS | None
    transform: Affine
    height: int
    width: int

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right and top in map units."""
        left, top = self.transform @ (0, 0)
        right, bottom = self.transform @ (self.width, self.height)
        return min(left, right), min(bottom, top), max(left, right), max(bottom, top)

    @property
    def centre(self) -> tuple[float, float]:
        """Map coordinates (x, y) of the centre."""
        x, y = self.transform @ (self.width / 2, self.height / 2)
        return float(x), float(y)

    @property
    def has_true_scale(self) -> bool:
        """Whether lengths and areas in map units hold on the ground, to `MAX_SCALE_DISTORTION`."""
        if self.crs is None or self.crs.is_geographic:
            return False
        if not self.has_position_on_earth:
            return True
        unit_m = _metres_per_crs_unit(self.crs)
        sides = zip(measure_offset_m(self, 1.0, 1.0), (self.transform.a, self.transform.e), strict=True)
        return all(abs(side_m / (abs(side) * unit_m) - 1) <= MAX_SCALE_DISTORTION for side_m, side in sides)

    @property
    def has_position_on_earth(self) -> bool:
        """Whether map coordinates can become longitude and latitude.

        A local (engineering) CRS has lengths only, and so has one of another celestial body.
        """
        if self.crs is None or not (self.crs.is_projected or self.crs.is_geographic):
            return False
        return is_of_earth(self.crs.to_wkt())

    @property
    def gsd_m(self) -> float | None:
        """Ground sampling distance in metres: geometric mean of a pixel's height and width; None without a CRS.

        Taken from the map units where these hold on the ground, otherwise (degrees, Web Mercator) measured on the
        ellipsoid at the centre of the grid.
        """
        if self.crs is None:
            return None
        return self._pixel_size_on_map_m if self.has_true_scale else _measure_pixel_on_ellipsoid_m(self)

    @property
    def _pixel_size_on_map_m(self) -> float:
        """Geometric mean of a pixel's height and width as the map units give it, in metres."""
        assert self.crs is not None
        return math.sqrt(abs(self.transform.a * self.transform.e)) * _metres_per_crs_unit(self.crs)

    @property
    def pixel_m(self) -> tuple[float, float] | None:
        """Width and height of a pixel on the ground in metres, at the centre of the grid; None without a CRS."""
        if self.crs is None:
            return None
        unit_x_m, unit_y_m = measure_map_unit_m(self)
        return abs(self.transform.a) * unit_x_m, abs(self.transform.e) * unit_y_m

    def window(self, row: float, col: float, height: int, width: int) -> Grid:
        """Return the grid of a window, which may reach over the edges."""
        return Grid(self.crs, self.transform @ Affine.translation(col, row), height, width)

    def resize(self, height: int, width: int) -> Grid:
        """Return a grid of another number of pixels over the same ground."""
        scale = Affine.scale(self.width / width, self.height / height)
        return Grid(self.crs, self.transform @ scale, height, width)


@lru_cache(maxsize=64)
def is_of_earth(wkt: str) -> bool:
    """Tell whether a CRS may be one of the earth: its ellipsoid has about the size of the earth, or is not known."""
    ellipsoid = pyproj.CRS.from_wkt(wkt).ellipsoid
    return ellipsoid is None or abs(ellipsoid.semi_major_metre / EARTH_RADIUS_M - 1) <= MAX_RADIUS_DEVIATION


def drop_height(crs: CRS | None) -> CRS | None:
    """Return the horizontal part of a CRS: a vertical one beside it changes nothing about where a pixel lies."""
    if crs is None:
        return None
    wkt = crs.to_wkt()
    return _drop_height(wkt) if wkt.startswith(("COMPD_CS", "COMPOUNDCRS")) else crs


@lru_cache(maxsize=64)
def _drop_height(wkt: str) -> CRS:
    """Return the horizontal part of a compound CRS."""
    return CRS.from_wkt(pyproj.CRS.from_wkt(wkt).sub_crs_list[0].to_wkt(version="WKT1_GDAL"))


def find_utm_crs(lon_deg: float, lat_deg: float) -> CRS:
    """Return the zone of UTM of a place, or near a pole the polar stereographic CRS (UPS) that continues it."""
    north = lat_deg >= 0
    if not UTM_LATITUDES_DEG[0] <= lat_deg <= UTM_LATITUDES_DEG[1]:
        return CRS.from_epsg(32661 if north else 32761)
    zone = int((lon_deg + FULL_CIRCLE_DEG / 2) % FULL_CIRCLE_DEG // 6) + 1
    return CRS.from_epsg((32600 if north else 32700) + zone)


def build_utm_grid(grid: Grid) -> Grid:
    """Return a grid of square pixels in UTM over the ground of another; that grid itself if its pixels are squares.

    A grid in another projection that holds lengths, such as that of a national survey, is left as it is, too. A pixel
    covers as much ground as one at the centre of the other grid. The grid must have a position on the earth.
    """
    assert grid.crs is not None and grid.gsd_m is not None
    if grid.has_true_scale and math.isclose(grid.transform.a, -grid.transform.e, rel_tol=1e-3):
        return grid
    (lon_deg,), (lat_deg,) = transform(grid.crs, WGS84, *([value] for value in grid.centre))[:2]
    crs = find_utm_crs(lon_deg, lat_deg)
    transform_to, width, height = calculate_default_transform(
        grid.crs, crs, grid.width, grid.height, *grid.bounds, resolution=grid.gsd_m
    )
    return Grid(crs, transform_to, int(height), int(width))


def find_pixel_offset(grid: Grid, other: Grid) -> tuple[int, int] | None:
    """Return (row, col) of the top left corner of `other` on `grid`; None if their pixels do not coincide."""
    if grid.crs != other.crs:
        return None
    to_grid = ~grid.transform @ other.transform
    corners = [(0, 0), (other.width, 0), (0, other.height), (other.width, other.height)]
    col, row = (round(value) for value in to_grid @ (0, 0))
    for corner in corners:
        on_grid = to_grid @ corner
        if max(abs(on_grid[0] - corner[0] - col), abs(on_grid[1] - corner[1] - row)) > GRID_TOLERANCE_PX:
            return None
    return row, col


def intersect_grids(grid: Grid, other: Grid) -> Grid | None:
    """Return the part of `grid` (whole pixels) that `other` covers, or None if there is no such pixel."""
    edges = _find_edges_px(grid, other)
    if edges is None:
        return None
    top, left, bottom, right = edges
    row, col = max(0, math.ceil(top - GRID_TOLERANCE_PX)), max(0, math.ceil(left - GRID_TOLERANCE_PX))
    height = min(grid.height, math.floor(bottom + GRID_TOLERANCE_PX)) - row
    width = min(grid.width, math.floor(right + GRID_TOLERANCE_PX)) - col
    return grid.window(row, col, height, width) if height > 0 and width > 0 else None


def find_covering_window(grid: Grid, other: Grid) -> tuple[int, int, int, int] | None:
    """Return row, col, height and width of the window of `grid` that covers all of `other`.

    The window may reach over the edges of `grid`. None if `other` cannot be projected into the CRS of `grid`.
    """
    edges = _find_edges_px(grid, other)
    if edges is None:
        return None
    top, left, bottom, right = edges
    row, col = math.floor(top + GRID_TOLERANCE_PX), math.floor(left + GRID_TOLERANCE_PX)
    height = max(1, math.ceil(bottom - GRID_TOLERANCE_PX) - row)
    width = max(1, math.ceil(right - GRID_TOLERANCE_PX) - col)
    return row, col, height, width


def _find_edges_px(grid: Grid, other: Grid) -> tuple[float, float, float, float] | None:
    """Return top, left, bottom and right of `other` in pixels of `grid`; None where the projection fails."""
    if grid.crs == other.crs:
        bounds = other.bounds
    else:
        try:
            bounds = transform_bounds(other.crs, grid.crs, *other.bounds, densify_pts=21)
        except (CRSError, CPLE_BaseError):
            return None
        if grid.crs is not None and grid.crs.is_geographic:
            bounds = _unwrap_longitudes(bounds, grid)
    to_pixel = ~grid.transform
    left, top = to_pixel @ (bounds[0], bounds[3])
    right, bottom = to_pixel @ (bounds[2], bounds[1])
    if not all(map(math.isfinite, (left, top, right, bottom))):
        return None
    (left, right), (top, bottom) = sorted((left, right)), sorted((top, bottom))  # a plain image has y pointing up
    return top, left, bottom, right


def _unwrap_longitudes(bounds: tuple[float, float, float, float], grid: Grid) -> tuple[float, float, float, float]:
    """Return bounds in degrees on the side of the 180th meridian where the grid lies, the left one below the right."""
    left, bottom, right, top = bounds
    right += FULL_CIRCLE_DEG if right < left else 0
    centre_deg = (grid.bounds[0] + grid.bounds[2]) / 2
    if not math.isfinite(left + right):
        return bounds
    turn_deg = FULL_CIRCLE_DEG * round((centre_deg - (left + right) / 2) / FULL_CIRCLE_DEG)
    return left + turn_deg, bottom, right + turn_deg, top


def move_to_longitudes_of(grid: Grid, other: Grid) -> Grid:
    """Return a grid in degrees, turned by full circles to the side of the 180th meridian where another one lies."""
    if grid.crs is None or not grid.crs.is_geographic or grid.crs != other.crs:
        return grid
    centre_deg, other_deg = ((each.bounds[0] + each.bounds[2]) / 2 for each in (grid, other))
    turns = round((other_deg - centre_deg) / FULL_CIRCLE_DEG)
    return replace(grid, transform=Affine.translation(turns * FULL_CIRCLE_DEG, 0) @ grid.transform)


def avoid_antimeridian(grid: Grid) -> Grid:
    """Return a grid in degrees that crosses the 180th meridian in a CRS that counts longitudes from there.

    Projected coordinates become longitudes from -180 to 180, of which GDAL finds only one side in such a grid. Other
    grids are returned unchanged.
    """
    if grid.crs is None or not grid.crs.is_geographic:
        return grid
    left, _, right, _ = grid.bounds
    if left >= -FULL_CIRCLE_DEG / 2 and right <= FULL_CIRCLE_DEG / 2:
        return grid
    wkt, found = re.subn(
        r'PRIMEM\["Greenwich",0(\.0)?(,AUTHORITY\[[^]]*\])?\]', 'PRIMEM["antimeridian",180]', grid.crs.to_wkt(), count=1
    )
    if not found:
        return grid
    half_turns = -1 if left + right > 0 else 1
    turned = Affine.translation(half_turns * FULL_CIRCLE_DEG / 2, 0) @ grid.transform
    return replace(grid, crs=CRS.from_wkt(wkt), transform=turned)


def lacks_datum_transformation(crs: CRS | None, other: CRS | None) -> bool:
    """Tell whether the datums of two CRS are related by assumption only (PROJ's "ballpark" transformation)."""
    if crs is None or other is None or crs == other:
        return False
    with ignore_warnings(UserWarning):  # on grids that are not installed
        group = TransformerGroup(crs.to_wkt(), other.to_wkt(), always_xy=True)
    return not group.transformers or "ballpark" in group.transformers[0].description.lower()


def measure_map_unit_m(grid: Grid, *, gsd_m: float | None = None) -> tuple[float, float]:
    """Return the metres on the ground per map unit in x and y, at the centre of the grid.

    Args:
        grid: the grid.
        gsd_m: metres per pixel of a grid without a CRS; None: a pixel counts as 1. The grid may have a geotransform
            all the same, whose map unit is not known.
    """
    if grid.crs is None:
        pixel_m = 1.0 if gsd_m is None else gsd_m
        return pixel_m / abs(grid.transform.a), pixel_m / abs(grid.transform.e)
    if grid.has_true_scale:
        unit_m = _metres_per_crs_unit(grid.crs)
        return unit_m, unit_m
    width_m, height_m = measure_offset_m(grid, 1.0, 1.0)
    return width_m / abs(grid.transform.a), height_m / abs(grid.transform.e)


def measure_offset_m(grid: Grid, row_px: float, col_px: float) -> tuple[float, float]:
    """Return the geodesic lengths of an offset along the columns and along the rows (x, y), from the grid's centre.

    Both are positive, in metres on the WGS 84 ellipsoid. The grid must have a CRS.
    """
    row, col = grid.height / 2, grid.width / 2
    points = [grid.transform @ point for point in ((col, row), (col + col_px, row), (col, row + row_px))]
    lon, lat = transform(grid.crs, WGS84, [x for x, _ in points], [y for _, y in points])[:2]
    geod = Geod(ellps="WGS84")
    across_m, down_m = (float(geod.inv(lon[0], lat[0], lon[end], lat[end])[2]) for end in (1, 2))
    return across_m, down_m


def _metres_per_crs_unit(crs: CRS) -> float:
    """Return the metres per unit of a projected or local CRS (a US survey foot is 0.3048006 m)."""
    try:
        return float(crs.linear_units_factor[1])
    except CRSError:
        axes = pyproj.CRS.from_wkt(crs.to_wkt()).axis_info
        return float(axes[0].unit_conversion_factor) if axes else 1.0


def _measure_pixel_on_ellipsoid_m(grid: Grid) -> float:
    """Return the geometric mean of the centre pixel's height and width on the ellipsoid."""
    across_m, down_m = measure_offset_m(grid, 1.0, 1.0)
    return math.sqrt(across_m * down_m)
