"""The outlines of changed objects made fit to be drawn: fewer corners, or right angles; never crossing one another.

Outlines along the pixels' edges never touch those of another object. Where shaping would make one cross itself, lose a
part or a hole, or touch a neighbour, that object keeps its plain outline.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import Geod
from rasterio.warp import transform
from shapely import MultiPolygon, Polygon, STRtree

from semicdvl.raster.grid import WGS84, Grid
from semicdvl.raster.vector.regularise import regularise_polygon

REGULARISE_TOLERANCE_PX = 1.5
"""How far a squared side may lie off the pixels' edges."""


@dataclass(frozen=True)
class SimplifySettings:
    """How outlines are shaped.

    Attributes:
        simplify_m: corners that lie off the line between others by less are left out (0: none).
        regularise: sides along and across the object's main direction, where they fit (`raster.vector.regularise`).
    """

    simplify_m: float = 0.0
    regularise: bool = False

    def __bool__(self) -> bool:
        """Tell whether there is anything to do."""
        return self.simplify_m > 0 or self.regularise


def simplify_polygons(
    outlines: Sequence[MultiPolygon], shaping: SimplifySettings, *, grid: Grid, gsd_m: float | None = None
) -> list[MultiPolygon]:
    """Return the outlines in their order, shaped where that is possible.

    Args:
        outlines: valid, along the pixels' edges, not touching one another.
        shaping: what to do.
        grid: their grid. Without a CRS, `shaping.simplify_m` is in pixels unless `gsd_m` is known.
        gsd_m: metres per pixel of a grid without a CRS.
    """
    if not shaping or not outlines:
        return list(outlines)
    scale_2 = measure_map_unit_m(grid, gsd_m=gsd_m)
    pixel_m = math.sqrt(abs(grid.transform.a * scale_2[0] * grid.transform.e * scale_2[1]))
    plain = shapely.transform(np.array(outlines, object), lambda xy_N2: xy_N2 * scale_2)
    drawn = np.array([_simplify_object(outline, shaping, pixel_m) for outline in plain], object)
    back = shapely.transform(_restore_touching(plain, drawn), lambda xy_N2: xy_N2 / scale_2)
    return [outlines[at] if back[at].equals(outlines[at]) else back[at] for at in range(len(outlines))]


def measure_map_unit_m(grid: Grid, *, gsd_m: float | None = None) -> NDArray[np.float64]:
    """Return the metres on the ground per map unit in x and y, at the grid's centre; 1 where nothing is known."""
    if grid.crs is None:
        return np.full(2, 1.0 if gsd_m is None else gsd_m)
    if grid.has_true_scale:
        return np.full(2, float(grid.crs.linear_units_factor[1]))
    col, row = grid.width / 2, grid.height / 2
    places = [grid.transform @ at for at in ((col, row), (col + 1, row), (col, row + 1))]
    lon, lat = transform(grid.crs, WGS84, [x for x, _ in places], [y for _, y in places])[:2]
    geod = Geod(ellps="WGS84")
    across, down = (float(geod.inv(lon[0], lat[0], lon[at], lat[at])[2]) for at in (1, 2))
    return np.array([across / abs(grid.transform.a), down / abs(grid.transform.e)])


def _simplify_object(outline: MultiPolygon, shaping: SimplifySettings, pixel_m: float) -> MultiPolygon:
    """Return one object's outline, squared or else simplified or else plain, in metres."""
    if shaping.regularise:
        tolerance = max(REGULARISE_TOLERANCE_PX * pixel_m, shaping.simplify_m)
        parts = [regularise_polygon(part, tolerance=tolerance) for part in outline.geoms]
        if any(part is not None for part in parts):
            whole = [plain if part is None else part for part, plain in zip(parts, outline.geoms, strict=True)]
            return _remove_overlaps(whole)
    simple = outline.simplify(shaping.simplify_m, preserve_topology=True) if shaping.simplify_m else outline
    simple = MultiPolygon([simple]) if isinstance(simple, Polygon) else simple
    return simple if isinstance(simple, MultiPolygon) and _keeps_topology(simple, outline) else outline


def _remove_overlaps(parts: list[Polygon]) -> MultiPolygon:
    """Return parts that touched at corners without what they share now: the larger part keeps it."""
    laid: list[Polygon] = []
    for part in sorted(parts, key=lambda part: -part.area):
        rest = part.difference(shapely.union_all(laid)) if laid else part
        laid += [piece for piece in shapely.get_parts(rest) if isinstance(piece, Polygon) and piece.area > 0]
    whole = MultiPolygon(laid)
    return whole if whole.is_valid else MultiPolygon(list(shapely.get_parts(shapely.union_all(parts))))


def _keeps_topology(drawn: MultiPolygon, plain: MultiPolygon) -> bool:
    """Tell whether an outline is still valid, with all its parts and holes."""
    counts = [[len(part.interiors) for part in outline.geoms] for outline in (drawn, plain)]
    return counts[0] == counts[1] and bool(drawn.is_valid)


def _restore_touching(plain: NDArray[np.object_], drawn: NDArray[np.object_]) -> NDArray[np.object_]:
    """Return the drawn outlines, with the plain ones for those that would touch another object."""
    drawn = drawn.copy()
    while True:
        first, second = STRtree(drawn).query(drawn, predicate="intersects")
        touching = np.unique(np.concatenate([first[first != second], second[first != second]]))
        back = touching[[drawn[at] is not plain[at] for at in touching]]
        if not len(back):
            return drawn
        drawn[back] = plain[back]
