"""Regularise polygons to right angles, for buildings: turn their edges into lines along and across a main direction.

The outline is simplified and rotated by its main direction. Its edges are classified into those along and those across
it, runs of one kind become one line at their mean position, steps shorter than the tolerance are removed, and
neighbouring lines are intersected. A rectangle of the same area is tried first. A result that fits the original outline
worse than `MIN_IOU` is rejected.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from shapely import Polygon, affinity

MIN_IOU = 0.85
"""A disc and the square of its area have 0.82: round objects stay round."""
MIN_RECTANGLE_IOU = 0.9
"""From this IoU on a plain rectangle is taken, which has fewer corners than any other shape."""

AxisLine = tuple[bool, float, float]
"""A side: whether it runs along the first axis, its position on the other axis, and the total length of its edges."""


def regularise_polygon(outline: Polygon, *, tolerance: float) -> Polygon | None:
    """Return a polygon that has right angles only; None where none of them fits the outline to `MIN_IOU`.

    Args:
        outline: a valid polygon, in units of the same length in x and y.
        tolerance: how far a side may be off, about one and a half pixels; shorter steps are removed. Holes smaller than
            four times its square are kept as they are, or closed where they are in the way.
    """
    if not outline.interiors:
        box = _fit_rectangle(outline)
        if box is not None and _compute_iou(box, outline) >= MIN_RECTANGLE_IOU:
            return box
    simple = outline.simplify(tolerance, preserve_topology=True)
    if not isinstance(simple, Polygon):
        return None
    best, best_iou = None, MIN_IOU
    rectangle = np.asarray(outline.minimum_rotated_rectangle.boundary.coords)
    for angle in {_find_main_direction(simple.exterior.coords), _find_main_direction(rectangle)}:
        candidate = _square_polygon(simple, angle, tolerance)
        if candidate is not None and _compute_iou(candidate, outline) >= best_iou:
            best, best_iou = candidate, _compute_iou(candidate, outline)
    return best


def _compute_iou(first: Polygon, second: Polygon) -> float:
    intersection = float(first.intersection(second).area)
    return intersection / (first.area + second.area - intersection)


def _fit_rectangle(outline: Polygon) -> Polygon | None:
    """Return the outline's minimum rotated rectangle, shrunk to the area of the outline."""
    box = outline.minimum_rotated_rectangle
    if not isinstance(box, Polygon) or box.area <= 0:
        return None
    factor = math.sqrt(outline.area / box.area)
    return affinity.scale(box, factor, factor)


def _find_main_direction(ring: object) -> float:
    """Return the mean direction of the edges in radians, modulo a right angle, weighted by their squared length."""
    steps_N2 = np.diff(np.asarray(ring, np.float64)[:, :2], axis=0)
    squares_N = (steps_N2**2).sum(axis=1)
    angles_N = np.arctan2(steps_N2[:, 1], steps_N2[:, 0])
    return float(np.angle((squares_N * np.exp(4j * angles_N)).sum()) / 4)


def _square_polygon(simple: Polygon, angle: float, tolerance: float) -> Polygon | None:
    """Return the polygon with every ring squared at one angle; small holes are kept as they are."""
    rotated = affinity.rotate(simple, -angle, origin=(0, 0), use_radians=True)
    shell = _square_ring(np.asarray(rotated.exterior.coords), tolerance)
    if shell is None:
        return None
    holes = [
        _square_ring(np.asarray(ring.coords), tolerance) if Polygon(ring).area >= 4 * tolerance**2 else None
        for ring in rotated.interiors
    ]
    rings = [list(ring.coords) if hole is None else hole for hole, ring in zip(holes, rotated.interiors, strict=True)]
    squared_rings = [hole for hole in holes if hole is not None]
    for squared in (Polygon(shell, rings), Polygon(shell, squared_rings)):
        if squared.is_valid and squared.area > 0:
            return affinity.rotate(squared, angle, origin=(0, 0), use_radians=True)
    return None


def _square_ring(ring_N2: NDArray[np.float64], tolerance: float) -> list[tuple[float, float]] | None:
    """Return the corners of a ring of alternating lines along x and y; None if fewer than four lines remain."""
    lines = _merge_parallel([_classify_edge(start, end) for start, end in pairwise(ring_N2) if (start != end).any()])
    while len(lines) > 4:
        lengths = [abs(lines[index - 1][1] - lines[(index + 1) % len(lines)][1]) for index in range(len(lines))]
        shortest = int(np.argmin(lengths))
        if lengths[shortest] >= tolerance:
            break
        lines = _merge_parallel(lines[shortest + 1 :] + lines[:shortest])  # its neighbours are parallel: they merge
    if len(lines) < 4:
        return None
    corners = zip(lines, lines[1:] + lines[:1], strict=True)
    return [(second[1], first[1]) if first[0] else (first[1], second[1]) for first, second in corners]


def _classify_edge(start: NDArray[np.float64], end: NDArray[np.float64]) -> AxisLine:
    """Return the axis-parallel line through the middle of an edge."""
    along = bool(abs(end[0] - start[0]) >= abs(end[1] - start[1]))
    position = (start[1] + end[1]) / 2 if along else (start[0] + end[0]) / 2
    return along, float(position), float(math.dist(start, end))


def _merge_parallel(lines: list[AxisLine]) -> list[AxisLine]:
    """Merge parallel neighbours, around the ring, at their mean position weighted by length."""
    merged: list[AxisLine] = []
    first = next((index for index in range(len(lines)) if lines[index][0] != lines[index - 1][0]), 0)
    for along, position, length in lines[first:] + lines[:first]:
        if merged and merged[-1][0] == along:
            _, old_position, old_length = merged.pop()
            total = old_length + length
            position, length = (old_position * old_length + position * length) / total, total
        merged.append((along, position, length))
    return merged
