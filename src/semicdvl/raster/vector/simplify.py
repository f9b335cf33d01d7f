"""Simplify the outlines of changed objects, or regularise them to right angles, without making them overlap.

Outlines along the edges of pixels never touch those of another object. Where an outline would cross itself, lose a part
or a hole, or touch a neighbour, that object keeps its original outline.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import MultiPolygon, Polygon, STRtree

from semicdvl.raster.grid import Grid, measure_map_unit_m
from semicdvl.raster.vector.regularise import regularise_polygon

REGULARISE_TOLERANCE_PX = 1.5
"""How far a side of a regularised outline may be off the edges of the pixels."""


@dataclass(frozen=True)
class SimplifySettings:
    """How outlines are simplified.

    Attributes:
        simplify_m: corners that are closer than this to the line between others are removed (0: none).
        regularise: right angles along the main direction of an object, where they fit (`raster.vector.regularise`).
    """

    simplify_m: float = 0.0
    regularise: bool = False


def simplify_polygons(
    outlines: Sequence[MultiPolygon], settings: SimplifySettings, *, grid: Grid, gsd_m: float | None = None
) -> list[MultiPolygon]:
    """Simplify outlines where that is possible, and return them in their order.

    Args:
        outlines: valid outlines along the edges of pixels that do not touch one another.
        settings: how to simplify them.
        grid: their grid. Without a CRS, `settings.simplify_m` is in pixels unless `gsd_m` is given.
        gsd_m: metres per pixel of a grid without a CRS.
    """
    if not outlines or not (settings.simplify_m or settings.regularise):
        return list(outlines)
    scale_2 = np.array(measure_map_unit_m(grid, gsd_m=gsd_m))
    pixel_m = math.sqrt(abs(grid.transform.a * scale_2[0] * grid.transform.e * scale_2[1]))
    in_metres = shapely.transform(np.array(outlines, object), lambda xy_N2: xy_N2 * scale_2)
    simplified = np.array([_simplify_object(outline, settings, pixel_m) for outline in in_metres], object)
    result = shapely.transform(_restore_touching(in_metres, simplified), lambda xy_N2: xy_N2 / scale_2)
    return [old if new.equals(old) else new for old, new in zip(outlines, result, strict=True)]


def _simplify_object(outline: MultiPolygon, settings: SimplifySettings, pixel_m: float) -> MultiPolygon:
    """Return the outline of one object in metres: regularised if possible, else simplified, else unchanged."""
    if settings.regularise:
        tolerance = max(REGULARISE_TOLERANCE_PX * pixel_m, settings.simplify_m)
        parts = [regularise_polygon(part, tolerance=tolerance) for part in outline.geoms]
        if any(part is not None for part in parts):
            return _remove_overlaps(
                [old if new is None else new for new, old in zip(parts, outline.geoms, strict=True)]
            )
    simple = outline.simplify(settings.simplify_m, preserve_topology=True) if settings.simplify_m else outline
    simple = MultiPolygon([simple]) if isinstance(simple, Polygon) else simple
    return simple if isinstance(simple, MultiPolygon) and _has_same_topology(simple, outline) else outline


def _remove_overlaps(parts: list[Polygon]) -> MultiPolygon:
    """Join parts that touched at corners and may overlap now: the larger part keeps what they share."""
    kept: list[Polygon] = []
    for part in sorted(parts, key=lambda part: -part.area):
        rest = part.difference(shapely.union_all(kept)) if kept else part
        kept += [piece for piece in shapely.get_parts(rest) if isinstance(piece, Polygon) and piece.area > 0]
    joined = MultiPolygon(kept)
    return joined if joined.is_valid else MultiPolygon(list(shapely.get_parts(shapely.union_all(parts))))


def _has_same_topology(simplified: MultiPolygon, original: MultiPolygon) -> bool:
    """Tell whether an outline is valid and has all its parts and holes."""
    counts = [[len(part.interiors) for part in outline.geoms] for outline in (simplified, original)]
    return counts[0] == counts[1] and bool(simplified.is_valid)


def _restore_touching(original: NDArray[np.object_], simplified: NDArray[np.object_]) -> NDArray[np.object_]:
    """Return the simplified outlines, with the original ones for those that would touch another object."""
    result = simplified.copy()
    while True:
        first, second = STRtree(result).query(result, predicate="intersects")
        touching = np.unique(np.concatenate([first[first != second], second[first != second]]))
        restored = touching[[result[index] is not original[index] for index in touching]]
        if not len(restored):
            return result
        result[restored] = original[restored]
