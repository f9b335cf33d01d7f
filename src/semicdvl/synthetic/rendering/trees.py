"""Paint trees: crowns are stamped from a small stock of shapes, drawn for the sun and season of each date."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from semicdvl.synthetic.layout.scene import Trees
from semicdvl.synthetic.materials import MATERIAL_INDEX
from semicdvl.synthetic.rendering.draw import AcquisitionConditions, Canvas

CROWN_SHAPES = 6
"""Number of different crowns per species and size."""

CrownStamp = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint8]]
"""Colour times opacity (HWC), 1 - opacity (HW1), opacity 0-255 (HW)."""

HEIGHT_PER_RADIUS = (2.3, 3.4)
"""Height of a deciduous tree and of a conifer, divided by the radius of its crown."""


def paint_trees(canvas: Canvas, trees: Trees, date: int, conditions: AcquisitionConditions, *, shadows: bool) -> None:
    """Paint all crowns of a date, or only their shadows, which must be added before buildings are painted."""
    radius_m = trees.radius_m_N2[:, date - 1]
    stock = _make_crown_stock(conditions, canvas.palette[MATERIAL_INDEX["tree"]])
    reach_m = conditions.shadow_per_metre()
    aside = np.array(conditions.view)
    here = np.flatnonzero(radius_m > 0)
    centres = canvas.to_pixels(trees.xy_N2)
    for i in here:
        species, r_px = int(trees.species_N[i]), float(radius_m[i]) / canvas.gsd_m
        cover_px, drawn = stock(species, max(2, round(r_px * 2)), int(trees.shape_N[i]) % CROWN_SHAPES)
        height = HEIGHT_PER_RADIUS[species] * r_px
        if shadows:
            for share in (0.35, 0.65):
                _paint_crown_shadow(canvas, drawn[2], centres[i] + reach_m * height * share, cover_px)
            continue
        _paint_crown(canvas, drawn, centres[i] + aside * height * 0.7, cover_px, float(trees.tint_N[i]))


def _overlap_with_canvas(
    canvas: Canvas, centre_px: NDArray[np.float64], half: int
) -> tuple[slice, slice, slice, slice] | None:
    """Return the rows and columns of the canvas and of the stamp that overlap."""
    height, width = canvas.material_HW.shape
    x, y = round(float(centre_px[0])) - half, round(float(centre_px[1])) - half
    side = 2 * half + 1
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + side, width), min(y + side, height)
    if x0 >= x1 or y0 >= y1:
        return None
    return slice(y0, y1), slice(x0, x1), slice(y0 - y, y1 - y), slice(x0 - x, x1 - x)


def _paint_crown(canvas: Canvas, drawn: CrownStamp, centre_px: NDArray[np.float64], half: int, tint: float) -> None:
    """Paint one crown."""
    at = _overlap_with_canvas(canvas, centre_px, half)
    if at is None:
        return
    rows, cols, srows, scols = at
    colour, rest, cover = drawn
    part = canvas.rgb_HWC[rows, cols]
    np.add(part * rest[srows, scols], colour[srows, scols] * np.float32(tint), out=part, casting="unsafe")
    canvas.material_HW[rows, cols][cover[srows, scols] > 110] = MATERIAL_INDEX["tree"]


def _paint_crown_shadow(canvas: Canvas, cover: NDArray[np.uint8], centre_px: NDArray[np.float64], half: int) -> None:
    """Add the shadow of one crown."""
    at = _overlap_with_canvas(canvas, centre_px, half)
    if at is not None:
        rows, cols, srows, scols = at
        part = canvas.shade_HW[rows, cols]
        np.maximum(part, cover[srows, scols], out=part)


def _make_crown_stock(
    conditions: AcquisitionConditions, rgb: NDArray[np.float32]
) -> Callable[[int, int, int], tuple[int, CrownStamp]]:
    """Return a function (species, diameter in px, shape) -> (half side in px, stamp) that draws each stamp once."""

    @cache
    def draw(species: int, diameter: int, shape: int) -> tuple[int, CrownStamp]:
        rng = np.random.default_rng([species, diameter, shape])
        return _draw_crown(rng, diameter / 2, species, conditions, rgb)

    return draw


def _draw_crown(
    rng: np.random.Generator, radius: float, species: int, conditions: AcquisitionConditions, rgb: NDArray[np.float32]
) -> tuple[int, CrownStamp]:
    """Draw one crown: irregular outline, clumps of leaves, lit from the side of the sun, half transparent when bare."""
    half = int(np.ceil(radius * 1.25)) + 1
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32)
    angle, dist = np.arctan2(y, x), np.hypot(x, y)
    lumps = (3, 5, 7, 9) if species == 0 else (7, 9, 11, 13)
    edge = 1 + sum(rng.normal(0, 0.075) * np.cos(k * angle + rng.uniform(0, 6.3)) for k in lumps)
    inside = radius * edge - dist
    cells = max(3, int(radius * 0.9) + 2)
    clumps = cv2.resize(rng.random((cells, cells), dtype=np.float32), x.shape[::-1], interpolation=cv2.INTER_CUBIC)
    bare = conditions.winter_frac * (0.9 if species == 0 else 0.0)
    cover = np.clip(inside + 0.5, 0, 1) * np.clip(1.15 - bare * (0.45 + 0.75 * clumps), 0, 1)
    rim = np.clip(dist / max(radius, 1), 0, 1) ** (2 if species == 0 else 1)
    toward = (x * np.cos(conditions.sun_azimuth) + y * np.sin(conditions.sun_azimuth)) / max(radius, 1)
    strength = (0.32 if species == 0 else 0.42) * np.cos(conditions.sun_elevation) / 0.7 * (1 - 0.4 * bare)
    gy, gx = np.gradient(clumps)
    relief = (gx * np.cos(conditions.sun_azimuth) + gy * np.sin(conditions.sun_azimuth)) * -1.5
    value = 1.0 + strength * toward - 0.16 * rim + relief + 0.65 * (clumps - 0.5)
    base = rgb if species == 0 else np.array([52, 66, 47], np.float32)
    hue = rng.normal(0, 0.04)
    colour = np.clip(value, 0.35, 1.7)[..., None] * base * np.array([1 + hue, 1.0, 1 - hue / 2], np.float32)
    cover = cover.astype(np.float32)
    premixed = (np.clip(colour, 0, 150) * cover[..., None]).astype(np.float32)
    return half, (premixed, 1 - cover[..., None], np.round(cover * 255).astype(np.uint8))
