"""Outlines that cross themselves so often that mending them would take hours."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

MAX_CROSSINGS = 1_000
"""Crossings of an outline with itself that are mended: some two seconds, and the square of that for more. Outlines that
people draw, or programs trace, have a few."""
MAX_SIDES, MAX_NEAR = 20_000, 2_000_000
"""So many sides are looked at, and so many pairs of sides that are near each other: a few seconds."""
LINE_TYPES = (1, 2)
"""Type numbers of LineString and LinearRing in shapely."""


def is_tangled(shape: Any) -> bool:
    """Tell whether the sides of polygons or lines cross more than `MAX_CROSSINGS` times.

    Of more than `MAX_SIDES` sides a regular sample is looked at. Sides that are near so many others that nobody could
    look at all of them count as crossing.
    """
    sides_N = _list_sides(shape)
    if len(sides_N) ** 2 <= 2 * MAX_CROSSINGS:
        return False  # not even if every side crosses every other one
    tree = shapely.STRtree(sides_N)
    looked = sides_N[:: -(-len(sides_N) // MAX_SIDES)]
    allowed = 2 * MAX_CROSSINGS * len(looked) / len(sides_N)  # each crossing is seen from both of its sides
    start, size, near, crossings = 0, 1, 0, 0
    while start < len(looked):
        some_N = looked[start : start + size]
        one_N, other_N = tree.query(some_N)
        near += len(one_N)
        if near > MAX_NEAR:
            return True
        crossings += int(shapely.crosses(some_N[one_N], sides_N[other_N]).sum())
        if crossings > allowed:
            return True
        start, size = start + size, max(1, min(2 * size, MAX_NEAR // len(sides_N)))
    return False


def _list_sides(shape: Any) -> NDArray[np.object_]:
    """Return the sides of all polygons and lines of a shape."""
    parts = shapely.get_parts(shapely.get_parts(shape))
    lines = [*shapely.get_rings(parts), *parts[np.isin(shapely.get_type_id(parts), LINE_TYPES)]]
    points_N2, line_N = shapely.get_coordinates(lines, return_index=True)
    starts_N = np.flatnonzero(line_N[1:] == line_N[:-1])
    return np.asarray(shapely.linestrings(np.stack([points_N2[starts_N], points_N2[starts_N + 1]], axis=1)), object)
