"""Bring shapes into the CRS of a raster, and repair those that cross themselves there."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj.exceptions import CRSError, ProjError

from semicdvl.errors import InputError
from semicdvl.raster.crs_files import require_plain_crs
from semicdvl.raster.grid import FULL_CIRCLE_DEG, Grid

GeoT = TypeVar("GeoT", gpd.GeoSeries, gpd.GeoDataFrame)

MAX_DEGREES = 1.5 * FULL_CIRCLE_DEG
"""Longitudes of images beyond the 180th meridian count on to 540 degrees; what lies beyond is no angle."""
POLYGON_TYPES = (3, 6)
"""Type numbers of Polygon and MultiPolygon in shapely."""


def reproject_shapes(
    path: Path, frame: gpd.GeoDataFrame, shapes: NDArray[np.object_], grid: Grid
) -> NDArray[np.object_]:
    """Return the shapes in the raster's CRS."""
    if grid.crs is None:
        if frame.crs is None:
            return shapes
        remedy = "Give images with a CRS, or polygons in pixels (x = column, y = row) in a GeoPackage without a CRS"
        raise InputError(path, f"has a CRS ({frame.crs.name}), but the images have none", remedy)
    if frame.crs is None:
        remedy = "Set the layer's CRS, e.g. `ogr2ogr -a_srs EPSG:... OUT IN`"
        raise InputError(path, "has no CRS, but the images have one", remedy)
    _check_degrees(path, frame, shapes)
    wkt = grid.crs.to_wkt()
    if frame.crs == wkt:
        return _move_to_longitudes(shapes, grid)
    projected = np.asarray(project_shapes(path, gpd.GeoSeries(shapes, crs=frame.crs), wkt).to_numpy(), object)
    bounds_N4 = shapely.bounds(projected)
    undefined = ~np.isfinite(bounds_N4).all(axis=1)  # outside the area of the raster's projection
    projected[undefined] = shapely.Polygon()
    projected = _move_to_longitudes(projected, grid)
    broken = ~shapely.is_valid(projected) & ~undefined
    is_polygon = np.isin(shapely.get_type_id(projected), POLYGON_TYPES)
    projected[broken & is_polygon] = [repair_polygon(shape) for shape in projected[broken & is_polygon]]
    return projected


def _check_degrees(path: Path, frame: gpd.GeoDataFrame, shapes: NDArray[np.object_]) -> None:
    """Refuse metres that are said to be degrees, as in a GeoJSON file whose CRS was left out."""
    if not frame.crs.is_geographic or not len(shapes):
        return
    left, bottom, right, top = shapely.bounds(shapes).T
    if (np.maximum(np.maximum(-left, right), np.maximum(-bottom, top)) > MAX_DEGREES).all():
        first = f"x {left[0]:.6g}, y {bottom[0]:.6g}"
        problem = f"is in degrees by its CRS ({frame.crs.name}), but its coordinates ({first}) are none"
        raise InputError(path, problem, "Say the CRS that they are in: `ogr2ogr -a_srs EPSG:... OUT.gpkg IN`")


def _move_to_longitudes(shapes: NDArray[np.object_], grid: Grid) -> NDArray[np.object_]:
    """Return shapes in degrees whose parts are turned by full circles to the side of the 180th meridian of a grid.

    Where the grid crosses that meridian, what reaches around most of the globe crosses it, too: its points are turned
    one by one.
    """
    if grid.crs is None or not grid.crs.is_geographic or not len(shapes):
        return shapes
    left, _, right, _ = grid.bounds
    crosses, centre = max(-left, right) > FULL_CIRCLE_DEG / 2, (left + right) / 2
    parts, rows = shapely.get_parts(shapes, return_index=True)
    bounds_N4 = shapely.bounds(parts)
    points_N2, index_N = shapely.get_coordinates(parts, return_index=True)
    middle_N = (bounds_N4[:, 0] + bounds_N4[:, 2]) / 2
    around_N = crosses & (bounds_N4[:, 2] - bounds_N4[:, 0] > FULL_CIRCLE_DEG / 2)
    of_points_N = np.where(around_N[index_N], points_N2[:, 0], middle_N[index_N])
    turns_N = np.round((centre - of_points_N) / FULL_CIRCLE_DEG)
    if not turns_N.any():
        return shapes
    moved = shapely.set_coordinates(parts.copy(), points_N2 + np.outer(turns_N * FULL_CIRCLE_DEG, (1, 0)))
    found = shapes.copy()
    for row in np.unique(rows[index_N[turns_N != 0]]):
        found[row] = shapely.union_all(shapely.make_valid(moved[rows == row]))
    return found


def project_shapes(path: Path, shapes: GeoT, crs: str) -> GeoT:
    """Return the shapes of a file in another CRS.

    Args:
        path: of the file, for messages.
        shapes: with a CRS.
        crs: as WKT.

    Raises:
        InputError: nothing is known of how the two CRS are related, or that of the shapes names a file.
    """
    if shapes.crs is not None:
        require_plain_crs(shapes.crs.to_wkt(), path)
    try:
        return shapes.to_crs(crs)
    except (CRSError, ProjError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        problem = f"cannot be brought into the CRS of the images ({reason})"
        raise InputError(path, problem, "Give both a CRS with an EPSG code") from error


def repair_polygon(shape: Any) -> Any:
    """Return a valid polygon or multi-polygon of the same area, without lines that the repair leaves."""
    parts = shapely.get_parts(shapely.make_valid(shape))
    flat = shapely.get_parts(parts)
    return shapely.union_all(flat[shapely.get_type_id(flat) == POLYGON_TYPES[0]])
