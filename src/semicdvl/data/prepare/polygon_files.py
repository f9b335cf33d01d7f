"""Read one layer of a vector file of polygons: any format that GDAL reads, and GeoParquet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError

from semicdvl.errors import InputError
from semicdvl.raster.io.georeference_warnings import ignore_warnings
from semicdvl.raster.vector.reading import (
    BrokenShapesError,
    list_layers,
    read_coded_layer,
    read_layer,
    read_layer_info,
)
from semicdvl.raster.vector.tangles import MAX_CROSSINGS, is_tangled
from semicdvl.reading.limits import MAX_COORDINATE
from semicdvl.reading.regular_files import require_file_or_folder
from semicdvl.registry import suggest_nearest

RING_COORDINATES = 4
"""The fewest coordinates of a closed ring: three points, and the first again."""
VECTOR_SUFFIXES = frozenset(
    {".gpkg", ".geojson", ".json", ".fgb", ".parquet", ".geoparquet", ".shp", ".gml", ".kml", ".sqlite"}
)
"""Files that are read as vectors where a raster is possible, too."""
PARQUET_SUFFIXES = frozenset({".parquet", ".geoparquet"})
REVIEWED_LAYER, STATE_COLUMN, ACCEPTED, REJECTED = "reviewed", "state", "accepted", "rejected"
"""The layer that a review writes (`reviewed.gpkg`): what a person accepted is change, what a person rejected is not,
and of the ground of the others nothing is known."""
REMEDY = "Give a GeoPackage, GeoJSON, FlatGeobuf, Shapefile or GeoParquet file"


def read_polygon_layer(path: Path, layer: str | None, columns: Sequence[str]) -> gpd.GeoDataFrame:
    """Read one layer with some columns, as `InputError` where that fails."""
    require_file_or_folder(path, remedy=REMEDY)
    if not path.exists():
        raise InputError(path, "does not exist", "Check the path")
    if path.suffix.lower() in PARQUET_SUFFIXES:
        frame = _read_parquet(path)
        _require_columns(path, columns, [str(name) for name in frame.columns])
        return frame
    try:
        name = _choose_layer(path, layer)
        with ignore_warnings(RuntimeWarning):  # GDAL's, about columns that are not used
            if columns:
                _require_columns(path, columns, [str(one) for one in read_layer_info(path, layer=name)["fields"]])
            wanted = [*([STATE_COLUMN] if name == REVIEWED_LAYER else []), *columns]
            try:
                return read_layer(path, layer=name, columns=wanted)
            except BrokenShapesError:
                return _read_mended(path, name, wanted)
    except (DataSourceError, DataLayerError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise InputError(path, f"is not a vector file that can be read ({reason})", REMEDY) from error


def _require_columns(path: Path, columns: Sequence[str], known: Sequence[str]) -> None:
    """Refuse a column that a layer does not have.

    Raises:
        InputError: it is unknown; the nearest known one is named.
    """
    for name in columns:
        if name not in known:
            hint = suggest_nearest(name, known).removesuffix("?").strip()
            raise InputError(
                path, f"has no column '{name}' (known: {', '.join(known) or 'none'})", hint or "Name one of these"
            )


def _read_mended(path: Path, layer: str, columns: list[str]) -> gpd.GeoDataFrame:
    """Read a layer row by row, closing rings that are not closed.

    Raises:
        InputError: a row has a geometry that cannot be mended, such as a ring of two points; the row is named.
    """
    facts, coded, fields = read_coded_layer(path, layer=layer, columns=columns)
    shapes = [None if one is None else _mend_rings(path, row, bytes(one)) for row, one in enumerate(coded)]
    named = dict(zip(facts["fields"], fields, strict=True))
    return gpd.GeoDataFrame(named, geometry=shapes, crs=facts["crs"])


def _mend_rings(path: Path, row: int, coded: bytes) -> Any:
    """Return a geometry whose rings are closed, or say which row has none.

    A ring of two points stays none, though some versions of GEOS close it to a line there and back.
    """
    try:
        shape = shapely.from_wkb(coded, on_invalid="fix")
    except shapely.errors.ShapelyError:
        shape = None
    if shape is None or (shapely.get_num_coordinates(shapely.get_rings(shape)) < RING_COORDINATES).any():
        problem = f"row {row + 1} has a geometry that is none (a polygon needs closed rings of three points or more)"
        raise InputError(path, problem, "Repair that row, e.g. with `ogr2ogr -makevalid OUT IN`, or delete it")
    return shape


def refuse_broken_shapes(path: Path, geometries: NDArray[np.object_]) -> None:
    """Refuse shapes with which nothing can be computed: wild coordinates, outlines that cross themselves all over.

    Raises:
        InputError: a row has one; the first such row is named.
    """
    _refuse_wild_coordinates(path, geometries)
    _refuse_tangles(path, geometries)


def _refuse_wild_coordinates(path: Path, geometries: NDArray[np.object_]) -> None:
    """Refuse coordinates that are no numbers, or so large that nothing can be computed with them.

    Raises:
        InputError: a row has some; the first such row is named.
    """
    bounds_N4 = shapely.bounds(geometries)
    empty_N = shapely.is_missing(geometries) | shapely.is_empty(geometries)
    points, rows = shapely.get_coordinates(geometries, return_index=True)
    wild_N = np.zeros(len(geometries), bool)
    wild_N[rows[~(np.abs(points) <= MAX_COORDINATE).all(axis=1)]] = True
    wild_N |= ~empty_N & ~np.isfinite(bounds_N4).all(axis=1)
    if wild_N.any():
        row = int(np.flatnonzero(wild_N)[0])
        problem = f"row {row + 1} has a coordinate that is no number, or beyond {MAX_COORDINATE:g}"
        raise InputError(path, problem, "Correct or delete that row")


def _refuse_tangles(path: Path, geometries: NDArray[np.object_]) -> None:
    """Refuse outlines that cross themselves so often that mending them would take hours.

    Raises:
        InputError: a row has one; the first such row is named.
    """
    for row in np.flatnonzero(~shapely.is_valid(geometries) & ~shapely.is_missing(geometries)):
        if is_tangled(geometries[row]):
            problem = f"row {row + 1} has an outline that crosses itself more than {MAX_CROSSINGS:,} times"
            raise InputError(path, problem, "Correct or delete that row")


def _read_parquet(path: Path) -> gpd.GeoDataFrame:
    """Read GeoParquet, which needs pyarrow."""
    try:
        return gpd.read_parquet(path)
    except ImportError as error:
        remedy = "Install pyarrow, or convert the file to a GeoPackage"
        raise InputError(path, "is GeoParquet, and pyarrow is not installed", remedy) from error
    except (OSError, ValueError) as error:
        raise InputError(path, f"is not a GeoParquet file that can be read ({error})", REMEDY) from error


def _choose_layer(path: Path, requested: str | None) -> str:
    """Return the name of the layer to read."""
    layers = [str(name) for name, kind in list_layers(path) if kind is not None]
    listed = ", ".join(layers) or "none"
    if requested is None:
        if len(layers) == 1:
            return layers[0]
        if REVIEWED_LAYER in layers:
            return REVIEWED_LAYER
        problem = "holds no layer with geometry" if not layers else f"holds {len(layers)} layers: {listed}"
        raise InputError(path, problem, "Name one of them with --layer" if layers else REMEDY)
    if requested not in layers:
        hint = suggest_nearest(requested, layers).removesuffix("?").strip()
        raise InputError(path, f"has no layer '{requested}' (known: {listed})", hint or "Name one of these")
    return requested
