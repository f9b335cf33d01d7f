"""Shapes that a request draws: mended where that is clear, otherwise refused with a reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import LineString, MultiPolygon, Polygon
from shapely.errors import GEOSException

from semicdvl.raster.grid import Grid
from semicdvl.raster.vector.tangles import is_tangled

MAX_VERTICES = 20_000
MAX_MENDED_VERTICES = 1000
"""A shape that crosses itself may have this many, and so may a line that cuts one."""
STEPS_PER_PX = 1024
"""Coordinates are rounded to this fraction of a pixel, so that no difference is too small to compute with."""
MIN_AREA_PX = 0.25
"""A smaller shape is a slip of the hand."""


class BadShape(Exception):
    """A shape that cannot be used; the message says why."""


@dataclass(frozen=True)
class MendedShape:
    """A valid shape, and what was done to it.

    Attributes:
        geometry: in map coordinates.
        notes: what was mended, as sentences.
    """

    geometry: MultiPolygon
    notes: tuple[str, ...] = ()


def mend_polygons(polygons: Sequence[Sequence[Sequence[Sequence[float]]]], grid: Grid) -> MendedShape:
    """Return polygons (rings of positions) as a valid multi-polygon on the map.

    Raises:
        BadShape: nothing of it is left, or it has too many vertices.
    """
    count = sum(len(ring) for polygon in polygons for ring in polygon)
    if count > MAX_VERTICES:
        raise BadShape(f"The shape has {count:,} vertices; at most {MAX_VERTICES:,} are possible.")
    rounded = [[_round_ring(ring, grid) for ring in polygon] for polygon in polygons if polygon]
    try:
        drawn = MultiPolygon([Polygon(polygon[0], polygon[1:]) for polygon in rounded])
    except (ValueError, GEOSException) as error:
        raise BadShape(f"The shape is no polygon ({error}).") from error
    if drawn.is_empty or not np.isfinite(shapely.get_coordinates(drawn)).all():
        raise BadShape("The shape is empty, or a coordinate is not a number.")
    notes = []
    shape: Any = drawn
    if not drawn.is_valid:
        if count > MAX_MENDED_VERTICES or is_tangled(drawn):
            raise BadShape(f"The outline crosses itself; with {count:,} vertices it cannot be mended. Draw it anew.")
        shape = keep_polygons(shapely.make_valid(drawn))
        notes.append("The outline crossed itself and was mended.")
    on_map = keep_polygons(shapely.intersection(shape, shapely.box(*grid.bounds)))
    pixel_area = abs(grid.transform.a * grid.transform.e)
    if on_map.area < MIN_AREA_PX * pixel_area:
        outside = shape.area >= MIN_AREA_PX * pixel_area
        raise BadShape("The shape lies outside of the map." if outside else "The shape has no area: draw it larger.")
    if on_map.area < shape.area * (1 - 1e-9):
        notes.append("The part outside of the map was cut off.")
    return MendedShape(on_map if on_map.area < shape.area * (1 - 1e-9) else shape, tuple(notes))


def _round_ring(ring: Sequence[Sequence[float]], grid: Grid) -> NDArray[np.float64]:
    """Return positions rounded to a fraction of a pixel.

    Raises:
        BadShape: one is further from the map than the map is wide.
    """
    at_N2 = np.asarray(ring, np.float64)
    left, bottom, right, top = grid.bounds
    margin = max(right - left, top - bottom)
    beyond = (at_N2 < (left - margin, bottom - margin)) | (at_N2 > (right + margin, top + margin))
    if beyond.any():
        raise BadShape("The shape lies outside of the map, or a part of it very far away.")
    step = abs(grid.transform.a) / STEPS_PER_PX, abs(grid.transform.e) / STEPS_PER_PX
    return np.asarray(np.round((at_N2 - (left, bottom)) / step) * step + (left, bottom), np.float64)


def keep_polygons(shape: Any) -> MultiPolygon:
    """Return the polygons of any shape as one multi-polygon; lines and points that a repair left are dropped."""
    parts = [part for part in shapely.get_parts(shapely.get_parts(shape)) if part.geom_type == "Polygon"]
    merged = shapely.union_all(parts) if len(parts) > 1 else (parts[0] if parts else Polygon())
    return MultiPolygon(
        [part for part in shapely.get_parts(merged) if part.geom_type == "Polygon" and not part.is_empty]
    )


def split_shape(shape: MultiPolygon, line: Sequence[Sequence[float]], *, grid: Grid) -> list[MultiPolygon]:
    """Cut a shape along a line; parts that the line does not touch stay with the largest piece.

    Args:
        shape: the shape, in map coordinates.
        line: the cut; coordinates far from the map are refused.
        grid: of the map.

    Returns:
        Two pieces or more, the largest first.

    Raises:
        BadShape: the line does not lead from one edge to another.
    """
    if len(line) > MAX_MENDED_VERTICES:
        raise BadShape(f"The line has {len(line):,} points; at most {MAX_MENDED_VERTICES:,} are possible.")
    try:
        cut = LineString(_round_ring(line, grid))
    except (ValueError, GEOSException) as error:
        raise BadShape(f"The line cannot be used ({error}).") from error
    if is_tangled(cut):
        raise BadShape("The line crosses itself too often. Draw it anew, right across the change.")
    pieces: list[Any] = []
    untouched: list[Any] = []
    for part in shape.geoms:
        cells = _cut_polygon(part, cut)
        (pieces if len(cells) > 1 else untouched).extend(cells)
    if len(pieces) < 2:
        raise BadShape("The line does not divide the change: draw it from outside to outside, right across.")
    pieces.sort(key=lambda piece: -piece.area)
    return [
        keep_polygons(shapely.MultiPolygon([pieces[0], *untouched])),
        *(MultiPolygon([piece]) for piece in pieces[1:]),
    ]


def _cut_polygon(polygon: Polygon, cut: LineString) -> list[Polygon]:
    """Return the cells into which a line cuts a polygon."""
    edges = shapely.union_all([polygon.boundary, cut])
    cells = shapely.get_parts(shapely.polygonize(list(shapely.get_parts(edges))))
    inside = [cell for cell in cells if polygon.contains(cell.representative_point())]
    return inside or [polygon]


def merge_shapes(shapes: Sequence[MultiPolygon]) -> MultiPolygon:
    """Return the union of shapes."""
    return keep_polygons(shapely.union_all(list(shapes)))
