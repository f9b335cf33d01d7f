"""Bring the polygons of a GIS onto the grid of a raster and rasterise them, window by window.

Any CRS and any vector format that GDAL reads. A pixel belongs to a polygon when its centre is inside. Polygons in
geometry collections count; polygons that cross themselves are repaired and counted. What a layer holds beside polygons
(points, lines, rows without geometry) is counted and left out. Its ground, and that of polygons in which no centre of a
pixel lies, is not known: somebody drew something there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize
from shapely import STRtree

from semicdvl.data.prepare.polygon_files import (
    ACCEPTED,
    REJECTED,
    STATE_COLUMN,
    read_polygon_layer,
    refuse_broken_shapes,
)
from semicdvl.data.prepare.polygon_projection import POLYGON_TYPES, repair_polygon, reproject_shapes
from semicdvl.errors import InputError
from semicdvl.raster.grid import Grid

COLLECTION_TYPE = 7
"""Type number of GeometryCollection in shapely."""
MAX_SLIVER_PX = 4
"""Polygons of fewer pixels than this by their area are looked at whether any centre of a pixel lies in them."""
MAX_SLIVER_FRAC = 0.01
"""Neighbours that were drawn apart may share this part of the smaller one."""


@dataclass(frozen=True)
class PolygonLayer:
    """The polygons of one layer that touch a raster, in the raster's CRS.

    Attributes:
        path: the file that they come from.
        shapes: valid polygons and multi-polygons (shapely), in the order of the file.
        rows: int64, row of each polygon in the file, from 0.
        repaired: number of polygons that crossed themselves and were repaired.
        not_polygons: number of rows without a polygon, or with one of no area.
        outside: number of polygons that don't touch the raster.
        leftovers: points, lines and polygons without area that were left out, in the raster's CRS.
        smaller_than_pixel: bool for each of `shapes`, whether no centre of a pixel of the raster lies in it.
        undecided: number of polygons of a review that nobody has accepted or rejected.
        values: the values of each of `shapes`, by the name of a column that was asked for.
    """

    path: Path
    shapes: NDArray[np.object_]
    rows: NDArray[np.int64]
    repaired: int = 0
    not_polygons: int = 0
    outside: int = 0
    leftovers: NDArray[np.object_] = field(default_factory=lambda: np.zeros(0, object))
    smaller_than_pixel: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    undecided: int = 0
    values: Mapping[str, NDArray[np.object_]] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of polygons on the raster."""
        return len(self.shapes)

    @cached_property
    def spatial_index(self) -> STRtree:
        """The spatial index of the polygons."""
        return STRtree(self.shapes)

    def rasterize_numbers(self, grid: Grid) -> NDArray[np.int32]:
        """Rasterise the polygons as int32 HW: 0, or 1 + the index in `shapes`; where two overlap, the later one.

        Args:
            grid: of the raster, or of a window of it.
        """
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
        """Rasterise the polygons as bool HW: True where the centre of a pixel is in a polygon."""
        return self.rasterize_numbers(grid) > 0

    def rasterize_unknown(self, grid: Grid) -> NDArray[np.bool_]:
        """Rasterise as bool HW the ground of which nothing is known: what was left out, or is smaller than a pixel."""
        unknown_HW = np.zeros((grid.height, grid.width), bool)
        inside = np.sort(self._unknown_index.query(shapely.box(*grid.bounds)))
        if len(inside):
            unknown_HW = rasterize(
                [(self._unknown_shapes[index], 1) for index in inside],
                out_shape=unknown_HW.shape,
                transform=grid.transform,
                all_touched=True,
                dtype=np.uint8,
            ).astype(bool)
        return unknown_HW

    @cached_property
    def _unknown_shapes(self) -> NDArray[np.object_]:
        """What makes its ground unknown."""
        return np.concatenate([self.leftovers, self.shapes[np.flatnonzero(self.smaller_than_pixel)]])

    @cached_property
    def _unknown_index(self) -> STRtree:
        """The spatial index of what makes its ground unknown."""
        return STRtree(self._unknown_shapes)

    def intersects(self, other: PolygonLayer) -> bool:
        """Tell whether some polygon intersects one of another layer."""
        return bool(self.spatial_index.query(other.shapes, predicate="intersects").size)

    def count_overlapping(self) -> int:
        """Return how many polygons share ground with a later one, which counts as that one's; slivers are left out."""
        earlier, later = self.spatial_index.query(self.shapes, predicate="intersects")
        earlier, later = earlier[earlier < later], later[earlier < later]
        common = shapely.area(shapely.intersection(self.shapes[earlier], self.shapes[later]))
        smaller = np.minimum(shapely.area(self.shapes[earlier]), shapely.area(self.shapes[later]))
        return len(np.unique(earlier[common > MAX_SLIVER_FRAC * smaller]))

    def describe_repairs(self) -> tuple[str, ...]:
        """Say in sentences what was left out or repaired."""
        counted = (
            (self.repaired, "crossed itself and was repaired", "crossed themselves and were repaired"),
            (
                self.not_polygons,
                "has no polygon with an area and was left out; the ground that it touches counts as not known",
                "have no polygon with an area and were left out; the ground that they touch counts as not known",
            ),
            (
                int(self.smaller_than_pixel.sum()),
                "is smaller than a pixel and covers the centre of none; the ground there counts as not known",
                "are smaller than a pixel and cover the centre of none; the ground there counts as not known",
            ),
            (self.outside, "is outside the images and was left out", "are outside the images and were left out"),
            (
                self.undecided,
                "is neither accepted nor rejected; the ground there counts as not known",
                "are neither accepted nor rejected; the ground there counts as not known",
            ),
        )
        return tuple(
            f"{self.path.name}: 1 row {one}." if count == 1 else f"{self.path.name}: {count} rows {several}."
            for count, one, several in counted
            if count
        )


def read_polygons(path: Path, *, grid: Grid, layer: str | None = None, columns: Sequence[str] = ()) -> PolygonLayer:
    """Read the polygons of a layer that touch a raster, in the raster's CRS.

    Args:
        path: GeoPackage, GeoJSON, FlatGeobuf, Shapefile, GeoParquet or anything else that GDAL reads as vectors.
        grid: of the raster.
        layer: name of the layer; not needed where the file has only one layer with geometry.
        columns: whose values are wanted.

    Raises:
        InputError: the file is missing or not a vector file, the layer or a column is unknown or not named, it is empty
            or holds no polygon, it has no CRS while the raster has one (or the other way round), or no polygon touches
            the raster.
    """
    path = Path(path)
    frame = read_polygon_layer(path, layer, columns)
    if frame.empty:
        raise InputError(path, "the layer is empty", "Give the layer that holds the polygons")
    refuse_broken_shapes(path, np.asarray(frame.geometry.to_numpy(), object))
    parts = _select_polygons(frame)
    if not len(parts.shapes):
        raise _describe_missing_polygons(path, frame)
    shapes, rows = parts.shapes, parts.rows
    is_valid = shapely.is_valid(shapes)
    shapes[~is_valid] = [repair_polygon(shape) for shape in shapes[~is_valid]]
    has_area = shapely.area(shapes) > 0
    leftovers = np.concatenate([parts.leftovers, shapes[~has_area]])
    shapes, rows = reproject_shapes(path, frame, shapes[has_area], grid), rows[has_area]
    on_raster = shapely.intersects(shapes, shapely.box(*grid.bounds))
    if not on_raster.any():
        raise InputError(
            path,
            f"none of its polygons ({len(shapes)}) touches the images ({_format_extent(shapes)} against"
            f" {_format_bounds(grid.bounds)} in their CRS)",
            "Give polygons of the same place, and check that the file's CRS is right",
        )
    leftovers = reproject_shapes(path, frame, leftovers[~shapely.is_empty(leftovers)], grid)
    return PolygonLayer(
        path,
        shapes[on_raster],
        rows[on_raster],
        repaired=int((~is_valid).sum()),
        not_polygons=len(frame) - len(shapes) - parts.undecided - parts.rejected,
        outside=int((~on_raster).sum()),
        leftovers=leftovers[~shapely.is_empty(leftovers)],
        smaller_than_pixel=_find_smaller_than_pixel(shapes[on_raster], grid),
        undecided=parts.undecided,
        values={name: frame[name].astype(object).to_numpy()[rows[on_raster]] for name in columns},
    )


def _describe_missing_polygons(path: Path, frame: gpd.GeoDataFrame) -> InputError:
    """Return the error of a layer of which no polygon is left."""
    if STATE_COLUMN in frame:
        problem = f"none of its changes ({len(frame)}) is accepted"
        return InputError(path, problem, "Accept some in the review page first")
    kinds = ", ".join(sorted({str(kind) for kind in frame.geom_type if isinstance(kind, str)})) or "no geometry"
    return InputError(path, f"holds no polygon ({kinds})", "Give a layer of polygons; buffer points and lines first")


# ------------------------------------------------------------------------------------------------ polygons and the rest
@dataclass(frozen=True)
class _LayerParts:
    """The geometries of a layer in two dimensions: its polygons with their rows, and everything else but nothing.

    The polygons of a review that nobody decided on are among the leftovers; the rejected ones are nowhere.
    """

    shapes: NDArray[np.object_]
    rows: NDArray[np.int64]
    leftovers: NDArray[np.object_]
    undecided: int = 0
    rejected: int = 0


def _select_polygons(frame: gpd.GeoDataFrame) -> _LayerParts:
    """Separate the polygons of a layer, those in geometry collections included, from the rest."""
    geometries = np.asarray(frame.geometry.to_numpy(), object)
    present = np.array([shape is not None and not shapely.is_empty(shape) for shape in geometries], bool)
    states = np.asarray(frame[STATE_COLUMN], object) if STATE_COLUMN in frame else np.full(len(frame), ACCEPTED, object)
    undecided = present & ~np.isin(states, (ACCEPTED, REJECTED))
    shapes, rows = [], []
    leftovers = [shapely.force_2d(shape) for shape in geometries[undecided]]
    for row in np.flatnonzero(present & (states == ACCEPTED)):
        polygons, rest = _separate_polygons(shapely.force_2d(geometries[row]))
        leftovers += rest
        if polygons:
            shapes.append(polygons[0] if len(polygons) == 1 else shapely.union_all(polygons))
            rows.append(int(row))
    rejected = int((present & (states == REJECTED)).sum())
    return _LayerParts(
        _to_array(shapes), np.array(rows, np.int64), _to_array(leftovers), int(undecided.sum()), rejected
    )


def _separate_polygons(shape: Any) -> tuple[list[Any], list[Any]]:
    """Return the polygons and multi-polygons of a geometry, and its other parts; collections may be nested."""
    if shapely.get_type_id(shape) in POLYGON_TYPES:
        return [shape], []
    if shapely.get_type_id(shape) != COLLECTION_TYPE:
        return [], [shape]
    polygons, rest = [], []
    for part in shapely.get_parts(shape):
        inner_polygons, inner_rest = _separate_polygons(part)
        polygons += inner_polygons
        rest += inner_rest
    return [shapely.make_valid(each) for each in polygons] if len(polygons) > 1 else polygons, rest


def _to_array(shapes: list[Any]) -> NDArray[np.object_]:
    """Return shapes as an array of objects, which an empty list or a single multi-polygon would not become."""
    array = np.empty(len(shapes), object)
    array[:] = shapes
    return array


def _find_smaller_than_pixel(shapes: NDArray[np.object_], grid: Grid) -> NDArray[np.bool_]:
    """Return for each shape that lies on a grid whether no centre of a pixel is in it."""
    pixel_area = abs(grid.transform.a * grid.transform.e)
    smaller = np.zeros(len(shapes), bool)
    to_pixels = ~grid.transform
    for index in np.flatnonzero(shapely.area(shapes) < MAX_SLIVER_PX * pixel_area):
        left, bottom, right, top = shapely.bounds(shapes[index])
        corners = np.array([to_pixels @ corner for corner in ((left, bottom), (right, top))])
        (col, row), (last_col, last_row) = np.floor(corners.min(axis=0)), np.ceil(corners.max(axis=0))
        size = int(last_row - row) or 1, int(last_col - col) or 1
        place = grid.transform @ Affine.translation(col, row)
        smaller[index] = not rasterize([shapes[index]], out_shape=size, transform=place, dtype=np.uint8).any()
    return smaller


def _format_extent(shapes: NDArray[np.object_]) -> str:
    """Return the bounds of all shapes as text."""
    return _format_bounds(shapely.total_bounds(shapes))


def _format_bounds(bounds: Any) -> str:
    """Return bounds as text."""
    left, bottom, right, top = (f"{value:.6g}" for value in bounds)
    return f"x {left}..{right}, y {bottom}..{top}"
