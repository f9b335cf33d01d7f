"""Polygons of a GIS on the pixels of a raster: any CRS, any vector format that GDAL reads, burned window by window.

A pixel belongs to a polygon when its centre lies inside. What a layer holds beside polygons (points, lines, rows
without geometry) is counted and left out; polygons that cross themselves are repaired and counted.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio.features import rasterize
from shapely import STRtree

from semicdvl.errors import InputError
from semicdvl.raster.grid import Grid
from semicdvl.registry import suggest_nearest

POLYGON_TYPES = (3, 6)
"""shapely's type numbers of Polygon and MultiPolygon."""
VECTOR_SUFFIXES = frozenset(
    {".gpkg", ".geojson", ".json", ".fgb", ".parquet", ".geoparquet", ".shp", ".gml", ".kml", ".sqlite"}
)
"""Files that are taken for vectors where a raster could be meant as well."""
PARQUET_SUFFIXES = frozenset({".parquet", ".geoparquet"})
_REMEDY = "Give a GeoPackage, GeoJSON, FlatGeobuf, Shapefile or GeoParquet file"


@dataclass(frozen=True)
class PolygonLayer:
    """The polygons of one layer that touch a raster, in the raster's CRS.

    Attributes:
        path: the file they come from.
        shapes: valid polygons and multi-polygons (shapely), in the order of the file.
        rows: int64, each one's row in the file, from 0.
        repaired: how many crossed themselves and were mended.
        not_polygons: rows that are no polygon, or one without area.
        outside: polygons that don't touch the raster.
    """

    path: Path
    shapes: NDArray[np.object_]
    rows: NDArray[np.int64]
    repaired: int = 0
    not_polygons: int = 0
    outside: int = 0

    def __len__(self) -> int:
        """Return the number of polygons on the raster."""
        return len(self.shapes)

    @cached_property
    def spatial_index(self) -> STRtree:
        """The index by which a window finds its polygons."""
        return STRtree(self.shapes)

    def rasterize_numbers(self, grid: Grid) -> NDArray[np.int32]:
        """Return int32 HW on a window's grid: 0, or 1 + the index in `shapes`; of two that overlap the later one."""
        inside = np.sort(self.spatial_index.query(shapely.box(*grid.bounds)))
        if not len(inside):
            return np.zeros((grid.height, grid.width), np.int32)
        numbers_HW: NDArray[np.int32] = rasterize(
            [(self.shapes[index], int(index) + 1) for index in inside],
            out_shape=(grid.height, grid.width),
            transform=grid.transform,
            dtype=np.int32,
        )
        return numbers_HW

    def rasterize_mask(self, grid: Grid) -> NDArray[np.bool_]:
        """Return bool HW on a window's grid: True where a pixel's centre lies in a polygon."""
        return self.rasterize_numbers(grid) > 0

    def intersects(self, other: PolygonLayer) -> bool:
        """Tell whether some polygon touches one of another layer."""
        return bool(self.spatial_index.query(other.shapes, predicate="intersects").size)

    def describe_repairs(self) -> tuple[str, ...]:
        """Say in words what was left out or mended."""
        said = (
            (self.repaired, "crossed themselves and were repaired"),
            (self.not_polygons, "are no polygons with an area and were left out"),
            (self.outside, "lie outside the images and were left out"),
        )
        return tuple(f"{self.path.name}: {count} rows {what}." for count, what in said if count)


def read_polygons(path: Path, *, grid: Grid, layer: str | None = None) -> PolygonLayer:
    """Read the polygons of a layer that touch a raster, in the raster's CRS.

    Args:
        path: GeoPackage, GeoJSON, FlatGeobuf, Shapefile, GeoParquet or anything else that GDAL reads as vectors.
        grid: of the raster.
        layer: its name; may be left out where the file has only one layer with geometry.

    Raises:
        InputError: the file is missing or no vector file, the layer is unknown or not named, it is empty or holds no
            polygon, it has no CRS while the raster has one (or the other way round), or no polygon touches the raster.
    """
    path = Path(path)
    frame = _read_layer(path, layer)
    if frame.empty:
        raise InputError(path, "the layer is empty", "Give the layer that holds the polygons")
    shapes, rows = _select_polygons(frame)
    if not len(shapes):
        kinds = ", ".join(sorted({str(kind) for kind in frame.geom_type if kind})) or "no geometry"
        raise InputError(path, f"holds no polygon ({kinds})", "Give a layer of polygons; buffer points and lines first")
    valid = shapely.is_valid(shapes)
    shapes[~valid] = [_repair(shape) for shape in shapes[~valid]]
    solid = shapely.area(shapes) > 0
    shapes, rows = shapes[solid], rows[solid]
    shapes = _reproject(path, frame, shapes, grid)
    near = shapely.intersects(shapes, shapely.box(*grid.bounds))
    if not near.any():
        raise InputError(
            path,
            f"none of its {len(shapes)} polygons touches the images ({_format_extent(shapes)} against {_format_bounds(grid.bounds)} in"
            " their CRS)",
            "Give polygons of the same place, and check that the file's CRS is right",
        )
    return PolygonLayer(
        path, shapes[near], rows[near], int((~valid).sum()), len(frame) - len(shapes), int((~near).sum())
    )


# ------------------------------------------------------------------------------------------------ reading
def _read_layer(path: Path, layer: str | None) -> gpd.GeoDataFrame:
    """Read one layer, with our errors."""
    if not path.exists():
        raise InputError(path, "does not exist", "Check the path")
    if path.suffix.lower() in PARQUET_SUFFIXES:
        return _read_parquet(path)
    try:
        name = _choose_layer(path, layer)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # GDAL's remarks on columns, which are not used
            return gpd.read_file(path, layer=name, columns=[], engine="pyogrio")
    except (DataSourceError, DataLayerError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(path, f"is no vector file that can be read ({reason})", _REMEDY) from error


def _read_parquet(path: Path) -> gpd.GeoDataFrame:
    """Read GeoParquet, which needs pyarrow."""
    try:
        return gpd.read_parquet(path)
    except ImportError as error:
        remedy = "Install pyarrow, or convert the file to a GeoPackage"
        raise InputError(path, "is GeoParquet, and pyarrow is not installed", remedy) from error
    except (OSError, ValueError) as error:
        raise InputError(path, f"is no GeoParquet that can be read ({error})", _REMEDY) from error


def _choose_layer(path: Path, wanted: str | None) -> str:
    """Return the name of the layer to read."""
    layers = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
    listed = ", ".join(layers) or "none"
    if wanted is None:
        if len(layers) == 1:
            return layers[0]
        problem = "holds no layer with geometry" if not layers else f"holds {len(layers)} layers: {listed}"
        raise InputError(path, problem, "Say which one is meant (--layer)" if layers else _REMEDY)
    if wanted not in layers:
        hint = suggest_nearest(wanted, layers).removesuffix("?").strip()
        raise InputError(path, f"has no layer '{wanted}' (known: {listed})", hint or "Name one of these")
    return wanted


def _select_polygons(frame: gpd.GeoDataFrame) -> tuple[NDArray[np.object_], NDArray[np.int64]]:
    """Return the polygons, flat, and their rows."""
    shapes = np.asarray(frame.geometry.to_numpy(), object)
    kept = np.isin(shapely.get_type_id(shapes), POLYGON_TYPES) & ~shapely.is_empty(shapes)
    return shapely.force_2d(shapes[kept]), np.flatnonzero(kept).astype(np.int64)


def _repair(shape: Any) -> Any:
    """Return a valid polygon or multi-polygon of the same ground; lines that the repair leaves over are dropped."""
    parts = shapely.get_parts(shapely.make_valid(shape))
    flat = shapely.get_parts(parts)
    return shapely.union_all(flat[shapely.get_type_id(flat) == POLYGON_TYPES[0]])


# ------------------------------------------------------------------------------------------------ onto the raster
def _reproject(path: Path, frame: gpd.GeoDataFrame, shapes: NDArray[np.object_], grid: Grid) -> NDArray[np.object_]:
    """Return the shapes in the raster's CRS."""
    if grid.crs is None:
        if frame.crs is None:
            return shapes
        remedy = "Give images with a CRS, or polygons in pixels (x = column, y = row) in a GeoPackage without a CRS"
        raise InputError(path, f"has a CRS ({frame.crs.name}), but the images have none", remedy)
    if frame.crs is None:
        remedy = "Set the layer's CRS, e.g. `ogr2ogr -a_srs EPSG:... OUT IN`"
        raise InputError(path, "has no CRS, but the images have one", remedy)
    wkt = grid.crs.to_wkt()
    if frame.crs == wkt:
        return shapes
    there = np.asarray(gpd.GeoSeries(shapes, crs=frame.crs).to_crs(wkt).to_numpy(), object)
    bounds_N4 = shapely.bounds(there)
    lost = ~np.isfinite(bounds_N4).all(axis=1)  # beyond where the raster's projection is defined
    there[lost] = shapely.Polygon()
    broken = ~shapely.is_valid(there) & ~lost
    there[broken] = [_repair(shape) for shape in there[broken]]
    return there


def _format_extent(shapes: NDArray[np.object_]) -> str:
    """Return the bounds of all shapes as text."""
    return _format_bounds(shapely.total_bounds(shapes))


def _format_bounds(bounds: Any) -> str:
    """Return bounds as text."""
    left, bottom, right, top = (f"{value:.6g}" for value in bounds)
    return f"x {left}..{right}, y {bottom}..{top}"
