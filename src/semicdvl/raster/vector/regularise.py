"""Outlines with right angles, for buildings: a polygon's edges turned into lines along and across its main direction.

The outline is simplified, turned by its main direction, its edges are sorted into those along and those across, runs
of one kind become one line at their mean place, steps shorter than the tolerance vanish, and neighbouring lines are cut
with each other. A rectangle of the same area is tried first. What fits the plain outline worse than `MIN_IOU` is
refused.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from shapely import Polygon, affinity

MIN_IOU = 0.85
"""A disc and the square of its area have 0.82: what is round stays round."""
MIN_RECTANGLE_IOU = 0.9
"""From this IoU on a plain rectangle is taken, which has fewer corners than anything else."""

AxisLine = tuple[bool, float, float]
"""One side: whether it runs along, its place across its run, and the length of edges that stand behind it."""


def regularise_polygon(outline: Polygon, *, tolerance: float) -> Polygon | None:
    """Return the outline with right angles only; None where none of them fits it to `MIN_IOU`.

    Args:
        outline: a valid polygon, in units that are equally long in x and y.
        tolerance: how far a side may lie off, about one and a half pixels; shorter steps vanish. Holes of less than
            four times its square stay as they are, and are closed where they are in the way.
    """
    if not outline.interiors:
        box = _fit_rectangle(outline)
        if box is not None and _polygon_iou(box, outline) >= MIN_RECTANGLE_IOU:
            return box
    simple = outline.simplify(tolerance, preserve_topology=True)
    if not isinstance(simple, Polygon):
        return None
    best, best_iou = None, MIN_IOU
    for angle in {_main_direction(simple.exterior.coords), _main_direction(_rectangle_corners(outline))}:
        found = _square_polygon(simple, angle, tolerance)
        if found is not None and _polygon_iou(found, outline) >= best_iou:
            best, best_iou = found, _polygon_iou(found, outline)
    return best


def _polygon_iou(first: Polygon, second: Polygon) -> float:
    both = float(first.intersection(second).area)
    return both / (first.area + second.area - both)


def _rectangle_corners(outline: Polygon) -> NDArray[np.float64]:
    return np.asarray(outline.minimum_rotated_rectangle.boundary.coords)


def _fit_rectangle(outline: Polygon) -> Polygon | None:
    """Return the outline's smallest rectangle, shrunk to the outline's own area."""
    box = outline.minimum_rotated_rectangle
    if not isinstance(box, Polygon) or box.area <= 0:
        return None
    factor = math.sqrt(outline.area / box.area)
    return affinity.scale(box, factor, factor)


def _main_direction(ring: object) -> float:
    """Return the direction of the edges in radians, modulo a right angle: their mean, long ones counting most."""
    steps_N2 = np.diff(np.asarray(ring, np.float64)[:, :2], axis=0)
    squares_N = (steps_N2**2).sum(axis=1)
    angles_N = np.arctan2(steps_N2[:, 1], steps_N2[:, 0])
    return float(np.angle((squares_N * np.exp(4j * angles_N)).sum()) / 4)


def _square_polygon(simple: Polygon, angle: float, tolerance: float) -> Polygon | None:
    """Return the polygon with every ring squared at one angle; small holes stay as they are."""
    turned = affinity.rotate(simple, -angle, origin=(0, 0), use_radians=True)
    shell = _square_ring(np.asarray(turned.exterior.coords), tolerance)
    if shell is None:
        return None
    holes = [
        _square_ring(np.asarray(ring.coords), tolerance) if Polygon(ring).area >= 4 * tolerance**2 else None
        for ring in turned.interiors
    ]
    rings = [list(ring.coords) if hole is None else hole for hole, ring in zip(holes, turned.interiors, strict=True)]
    large = [ring for hole, ring in zip(holes, rings, strict=True) if hole is not None]
    for made in (Polygon(shell, rings), Polygon(shell, large)):
        if made.is_valid and made.area > 0:
            return affinity.rotate(made, angle, origin=(0, 0), use_radians=True)
    return None


def _square_ring(ring_N2: NDArray[np.float64], tolerance: float) -> list[tuple[float, float]] | None:
    """Return a ring of lines along x and y in turn; None if fewer than four are left."""
    lines = _merge_parallel([_classify_edge(start, end) for start, end in pairwise(ring_N2) if (start != end).any()])
    while len(lines) > 4:
        lengths = [abs(lines[at - 1][1] - lines[(at + 1) % len(lines)][1]) for at in range(len(lines))]
        shortest = int(np.argmin(lengths))
        if lengths[shortest] >= tolerance:
            break
        lines = _merge_parallel(lines[shortest + 1 :] + lines[:shortest])  # its neighbours are parallel and become one
    if len(lines) < 4:
        return None
    sides = zip(lines, lines[1:] + lines[:1], strict=True)
    return [(second[1], first[1]) if first[0] else (first[1], second[1]) for first, second in sides]


def _classify_edge(start: NDArray[np.float64], end: NDArray[np.float64]) -> AxisLine:
    along = bool(abs(end[0] - start[0]) >= abs(end[1] - start[1]))
    place = (start[1] + end[1]) / 2 if along else (start[0] + end[0]) / 2
    return along, float(place), float(math.dist(start, end))


def _merge_parallel(lines: list[AxisLine]) -> list[AxisLine]:
    """Join neighbours of one kind, around the ring, at their mean place."""
    joined: list[AxisLine] = []
    turn = next((at for at in range(len(lines)) if lines[at][0] != lines[at - 1][0]), 0)
    for along, place, length in lines[turn:] + lines[:turn]:
        if joined and joined[-1][0] == along:
            _, old_place, old_length = joined.pop()
            total = old_length + length
            place, length = (old_place * old_length + place * length) / total, total
        joined.append((along, place, length))
    return joined
