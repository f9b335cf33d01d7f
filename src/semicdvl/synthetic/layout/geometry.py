"""Geometry of outlines and lines: cut, inset, round, measure.

Points are metres, x to the right and y down, one vertex per row.
"""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
"""Vertices N2 (x, y) in metres."""
VERTEX_STEP_M = 6.0
"""Lines that are bent have a vertex at least this often."""


def inset_polygon(poly_N2: Points, margin_m: float) -> Points:
    """Return a convex outline inset by `margin_m`; empty (0, 2) where nothing is left."""
    out = poly_N2
    sign = 1.0 if measure_signed_area(poly_N2) > 0 else -1.0
    for a, b in zip(poly_N2, np.roll(poly_N2, -1, axis=0), strict=True):
        edge = b - a
        length = np.hypot(*edge)
        if length < 1e-6 or len(out) < 3:
            continue
        normal = sign * np.array([-edge[1], edge[0]]) / length
        out = clip_polygon(out, a, normal, margin_m)
    return out


def densify_line(line_N2: Points, *, closed: bool = False) -> Points:
    """Return the line with a vertex at least every `VERTEX_STEP_M`, so that it has no corners when it is bent."""
    ends = np.vstack([line_N2, line_N2[:1]]) if closed else line_N2
    pieces = []
    for a, b in pairwise(ends):
        count = max(1, int(np.hypot(*(b - a)) / VERTEX_STEP_M))
        pieces.append(a + (b - a) * (np.arange(count) / count)[:, None])
    return np.vstack(pieces if closed else [*pieces, ends[-1:]])


def make_rectangle(size: Points) -> Points:
    """Return the outline from (0, 0) to `size`."""
    return np.array([[0.0, 0.0], [size[0], 0.0], [size[0], size[1]], [0.0, size[1]]])


def clip_polygon(poly_N2: Points, point: Points, normal: Points, offset: float) -> Points:
    """Return the part of a convex outline with (p - point) . normal >= offset (Sutherland-Hodgman)."""
    side = (poly_N2 - point) @ normal - offset
    out = []
    for i in range(len(poly_N2)):
        j = (i + 1) % len(poly_N2)
        if side[i] >= 0:
            out.append(poly_N2[i])
        if (side[i] >= 0) != (side[j] >= 0):
            out.append(poly_N2[i] + (poly_N2[j] - poly_N2[i]) * side[i] / (side[i] - side[j]))
    return np.array(out).reshape(-1, 2)


def cut_polygon(poly_N2: Points, point: Points, angle: float, gap_m: float) -> list[Points]:
    """Return the one or two parts of a convex outline beside a band of width `gap_m`."""
    normal = np.array([-np.sin(angle), np.cos(angle)])
    parts = [clip_polygon(poly_N2, point, sign * normal, gap_m / 2) for sign in (1, -1)]
    return [part for part in parts if len(part) >= 3]


def find_chord(poly_N2: Points, point: Points, angle: float) -> Points:
    """Return the two ends (22) of the line through `point` within a convex outline."""
    direction, normal = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    cut = clip_polygon(poly_N2, point, normal, 0.0)
    t = (cut if len(cut) else poly_N2) @ direction
    on_line = t if not len(cut) else t[np.abs((cut - point) @ normal) < 1e-6]
    on_line = on_line if len(on_line) >= 2 else t
    base = point - direction * (point @ direction)
    return np.stack([base + direction * on_line.min(), base + direction * on_line.max()])


def fit_smallest_box(poly_N2: Points) -> tuple[Points, tuple[float, float], float]:
    """Return centre, (long, short) side and heading of the long side of the smallest rectangle around an outline."""
    corners = cv2.boxPoints(cv2.minAreaRect(poly_N2.astype(np.float32))).astype(np.float64)
    a, b = corners[1] - corners[0], corners[2] - corners[1]
    if np.hypot(*a) < np.hypot(*b):
        a, b = b, a
    return corners.mean(axis=0), (float(np.hypot(*a)), float(np.hypot(*b))), float(np.arctan2(a[1], a[0]))


def round_corners(poly_N2: Points, radius_m: float) -> Points:
    """Return an outline whose corners are replaced by short curves, as kerbs have them."""
    before, after = np.roll(poly_N2, 1, axis=0) - poly_N2, np.roll(poly_N2, -1, axis=0) - poly_N2
    out = []
    for p, u, v in zip(poly_N2, before, after, strict=True):
        lu, lv = np.hypot(*u), np.hypot(*v)
        a, b = p + u * min(radius_m / max(lu, 1e-9), 0.4), p + v * min(radius_m / max(lv, 1e-9), 0.4)
        t = np.array([0.0, 0.25, 0.5, 0.75, 1.0])[:, None]
        out.append((1 - t) ** 2 * a + 2 * t * (1 - t) * p + t**2 * b)
    return np.vstack(out)


def measure_signed_area(poly_N2: Points) -> float:
    """Return the area, positive where land lies on the (-y, x) side of each step (x, y) along the outline."""
    x, y = poly_N2.T
    return float(0.5 * np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))


def measure_area(poly_N2: Points) -> float:
    """Return the area; 0 for fewer than three vertices."""
    return abs(measure_signed_area(poly_N2)) if len(poly_N2) >= 3 else 0.0
