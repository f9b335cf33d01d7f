"""Draw synthetic buildings, trees and slabs into real scenes without any: exact masks on green and grey backgrounds.

The only dense masks with a free licence are of a desert city. A roof drawn with its shaded planes and its cast shadow
onto lawns, fields, woods, car parks and water teaches "building" apart from the desert. Slabs (flat, without shadow)
are drawn as well, labelled as pavement, so that "was pasted" is no sign of a building.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

ROOF_COLOURS = np.array([
    (178, 98, 70), (160, 84, 62), (196, 120, 88), (140, 76, 62), (205, 140, 105), (150, 105, 85),
    (120, 118, 116), (95, 95, 98), (75, 76, 82), (150, 148, 145), (60, 62, 66), (112, 102, 94),
    (205, 205, 202), (230, 230, 228), (185, 182, 176), (140, 125, 110), (165, 150, 130), (110, 90, 78),
    (100, 120, 140), (90, 125, 110), (190, 175, 150), (130, 95, 85), (86, 80, 78), (215, 210, 195),
], dtype=np.float32)  # fmt: skip
"""RGB of tiles, slate, shingles, concrete, gravel, metal and membrane."""


@dataclass(frozen=True)
class Light:
    """Where the sun stands in one canvas: direction the shadows fall (row, col), their length in px, their darkness."""

    fall: tuple[float, float]
    length_px: float
    dark: float


@dataclass(frozen=True)
class Box:
    """A rectangle on the ground: centre, half sizes in px, angle in radians."""

    row: float
    col: float
    half_v: float
    half_u: float
    angle: float

    def corners(self) -> NDArray[np.float32]:
        """Return the four corners as (x, y)."""
        c, s = np.cos(self.angle), np.sin(self.angle)
        uv = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * (self.half_u, self.half_v)
        return (uv @ np.array([(c, s), (-s, c)]) + (self.col, self.row)).astype(np.float32)


def draw_light(rng: np.random.Generator) -> Light:
    """Return a random sun."""
    angle = rng.uniform(0, 2 * np.pi)
    return Light((float(np.sin(angle)), float(np.cos(angle))), float(rng.uniform(2, 16)), float(rng.uniform(0.3, 0.75)))


def _fill(mask: Image, points_xy: NDArray[np.float32]) -> None:
    cv2.fillPoly(mask, [np.round(points_xy * 16).astype(np.int32)], 255, lineType=cv2.LINE_AA, shift=4)


def _hull(points_xy: NDArray[np.float32]) -> NDArray[np.float32]:
    return cv2.convexHull(points_xy)[:, 0]


def shade_roof(box: Box, light: Light, rows: NDArray[np.float32], cols: NDArray[np.float32],
               kind: str) -> NDArray[np.float32]:  # fmt: skip
    """Return the brightness factor of a roof (flat, gable, hip) over a grid of pixel positions."""
    c, s = np.cos(box.angle), np.sin(box.angle)
    u = (cols - box.col) * c + (rows - box.row) * s
    v = -(cols - box.col) * s + (rows - box.row) * c
    inset_u, inset_v = box.half_u - np.abs(u), box.half_v - np.abs(v)
    if kind == "flat":
        parapet = np.minimum(inset_u, inset_v) < 1.5
        return np.where(parapet, 1.12, 1.0).astype(np.float32)
    long_u = box.half_u >= box.half_v
    # Azimuth of the plane under each pixel, in the box's axes: (du, dv) points down the slope.
    ends = (inset_u < inset_v) if long_u else (inset_v < inset_u)
    on_end = ends if kind == "hip" else np.zeros_like(ends)
    along_u = on_end if long_u else ~on_end
    down_u, down_v = np.where(along_u, np.sign(u), 0.0), np.where(along_u, 0.0, np.sign(v))
    down_col, down_row = down_u * c - down_v * s, down_u * s + down_v * c
    towards_sun = -(down_row * light.fall[0] + down_col * light.fall[1])
    return (1.0 + 0.28 * towards_sun).astype(np.float32)


def _texture(shape_hw: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    fine = rng.normal(0, rng.uniform(1, 7), shape_hw)
    if 0 in shape_hw:
        return np.zeros(shape_hw, np.float32)
    small = (max(2, shape_hw[0] // 8), max(2, shape_hw[1] // 8))
    coarse = cv2.resize(rng.normal(0, rng.uniform(1, 9), small), shape_hw[::-1], interpolation=cv2.INTER_CUBIC)
    return (fine + coarse).astype(np.float32)


def _blend(canvas: Image, window: tuple[slice, slice], layer: NDArray[np.float32], mask: Image) -> None:
    alpha = mask[window][..., None].astype(np.float32) / 255
    canvas[window] = np.clip(canvas[window] * (1 - alpha) + layer * alpha, 0, 255).astype(np.uint8)


def _window(points_xy: NDArray[np.float32], shape_hw: tuple[int, int]) -> tuple[slice, slice]:
    low, high = np.floor(points_xy.min(0)).astype(int) - 2, np.ceil(points_xy.max(0)).astype(int) + 3
    top, left = (int(np.clip(low[axis], 0, shape_hw[1 - axis])) for axis in (1, 0))
    bottom, right = (int(np.clip(high[axis], 0, shape_hw[1 - axis])) for axis in (1, 0))
    return slice(top, bottom), slice(left, right)


def _details(layer: NDArray[np.float32], rng: np.random.Generator) -> None:
    """Draw vents, skylights and solar panels: small rectangles, light or dark."""
    height, width = layer.shape[:2]
    for _ in range(rng.integers(0, 5)):
        row, col = rng.integers(0, height), rng.integers(0, width)
        size = rng.integers(1, 2 + max(2, min(height, width) // 7), size=2)
        tone = np.array((40, 48, 70)) if rng.random() < 0.3 else np.full(3, rng.uniform(40, 240))
        layer[row : row + size[0], col : col + size[1]] = tone


def _pattern(layer: NDArray[np.float32], box: Box, rows: NDArray[np.float32], cols: NDArray[np.float32],
             rng: np.random.Generator) -> None:  # fmt: skip
    """Draw what large roofs show: sheet seams, rows of skylights, parts of another tone, fields of solar panels."""
    c, s = np.cos(box.angle), np.sin(box.angle)
    u, v = (cols - box.col) * c + (rows - box.row) * s, -(cols - box.col) * s + (rows - box.row) * c
    if rng.random() < 0.5:
        layer += (rng.uniform(1, 9) * np.sin(u * (2 * np.pi / rng.uniform(4, 14))))[..., None]
    if rng.random() < 0.3:
        layer[u * rng.choice((-1, 1)) > rng.uniform(-0.5, 0.5) * box.half_u] *= rng.uniform(0.75, 1.2)
    if rng.random() < 0.45:
        step_u, step_v = rng.uniform(9, 40, 2)
        lit = (u % step_u < rng.uniform(2, 6)) & (v % step_v < rng.uniform(2, 14))
        layer[lit] = rng.uniform(170, 250) if rng.random() < 0.7 else rng.uniform(50, 110)
    if rng.random() < 0.12:
        panels = (u % 5 > 0.8) & (v % rng.uniform(5, 16) > rng.uniform(0.8, 3)) & (np.abs(v) < box.half_v - 3)
        layer[panels] = np.array((45, 55, 85)) * rng.uniform(0.6, 1.5)


def _cast_shadow(canvas: Image, box: Box, light: Light, height_frac: float) -> None:
    corners = box.corners()
    offset = np.array((light.fall[1], light.fall[0]), dtype=np.float32) * light.length_px * height_frac
    outline = _hull(np.vstack([corners, corners + offset]))
    window = _window(outline, canvas.shape[:2])
    mask = np.zeros(canvas.shape[:2], np.uint8)
    _fill(mask, outline)
    _blend(canvas, window, canvas[window].astype(np.float32) * (1 - light.dark), mask)


def _draw_roof(canvas: Image, footprint: Image, box: Box, light: Light, colour: NDArray[np.float32], kind: str,
               rng: np.random.Generator) -> None:  # fmt: skip
    mask = np.zeros(canvas.shape[:2], np.uint8)
    _fill(mask, box.corners())
    window = _window(box.corners(), canvas.shape[:2])
    rows, cols = np.mgrid[window].astype(np.float32)
    if rows.size == 0:
        return
    layer = colour * shade_roof(box, light, rows, cols, kind)[..., None] + _texture(rows.shape, rng)[..., None]
    _details(layer, rng)
    if box.half_v > 24 or rng.random() < 0.15:
        _pattern(layer, box, rows, cols, rng)
    _blend(canvas, window, layer, mask)
    np.maximum(footprint, mask, out=footprint)


def draw_house(canvas: Image, footprint: Image, light: Light, colours: NDArray[np.float32], angle: float,
               large_share: float, rng: np.random.Generator) -> None:  # fmt: skip
    """Draw one building where the ground is still free: one box, or two that form an L or a T."""
    height, width = canvas.shape[:2]
    large = rng.random() < large_share
    half_u, half_v = rng.uniform(28, 130, 2) if large else (rng.uniform(12, 34), rng.uniform(8, 22))
    main = Box(rng.uniform(0, height), rng.uniform(0, width), half_v, half_u, angle + rng.normal(0, 0.04))
    probe = np.zeros_like(footprint)
    _fill(probe, Box(main.row, main.col, half_v + 5, half_u + 5, main.angle).corners())
    if np.any(footprint[probe > 0]):
        return
    boxes = [main]
    if rng.random() < 0.45:
        along, across = rng.uniform(-0.7, 0.7) * half_u, rng.choice((-1, 1)) * half_v * rng.uniform(0.7, 1.2)
        c, s = np.cos(main.angle), np.sin(main.angle)
        boxes.append(Box(main.row + along * s + across * c, main.col + along * c - across * s,
                         half_v * rng.uniform(0.5, 0.9), half_u * rng.uniform(0.3, 0.6), main.angle))  # fmt: skip
    kind = str(rng.choice(("flat", "gable", "hip"), p=(0.75, 0.15, 0.1) if large else (0.2, 0.45, 0.35)))
    colour = colours[rng.integers(len(colours))] * rng.uniform(0.8, 1.15)
    storeys = rng.uniform(0.5, 2.2) if large else rng.uniform(0.4, 1.2)
    for box in boxes:
        _cast_shadow(canvas, box, light, storeys)
    for box in boxes:
        _draw_roof(canvas, footprint, box, light, colour, kind, rng)


def draw_slab(canvas: Image, slabs: Image, angle: float, rng: np.random.Generator) -> None:
    """Draw a flat paved patch without a shadow."""
    half_v = rng.uniform(30, 90) if rng.random() < 0.1 else rng.uniform(4, 20)
    box = Box(rng.uniform(0, canvas.shape[0]), rng.uniform(0, canvas.shape[1]), half_v, rng.uniform(15, 120), angle)
    mask = np.zeros(canvas.shape[:2], np.uint8)
    _fill(mask, box.corners())
    window = _window(box.corners(), canvas.shape[:2])
    tone = rng.uniform(80, 150 if half_v > 20 else 215) + rng.normal(0, 6, 3)
    layer = tone.astype(np.float32) + _texture(canvas[window].shape[:2], rng)[..., None]
    _blend(canvas, window, layer, mask)
    np.maximum(slabs, mask, out=slabs)


def draw_tree(canvas: Image, trees: Image, foliage: Image, light: Light, rng: np.random.Generator) -> None:
    """Draw a crown cut out of a picture of a forest, with its shadow; it may hide part of a roof."""
    radius = rng.uniform(5, 20)
    row, col = rng.uniform(0, canvas.shape[0]), rng.uniform(0, canvas.shape[1])
    turns = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    reach = radius * rng.uniform(0.7, 1.15, turns.size)
    outline = np.stack([col + reach * np.cos(turns), row + reach * np.sin(turns)], axis=1).astype(np.float32)
    shift = np.array((light.fall[1], light.fall[0]), dtype=np.float32) * light.length_px * 0.7
    shadow, crown = np.zeros(canvas.shape[:2], np.uint8), np.zeros(canvas.shape[:2], np.uint8)
    _fill(shadow, outline + shift)
    window = _window(outline + shift, canvas.shape[:2])
    _blend(canvas, window, canvas[window].astype(np.float32) * (1 - light.dark), shadow)
    _fill(crown, outline)
    window = _window(outline, canvas.shape[:2])
    _blend(canvas, window, foliage[window].astype(np.float32), crown)
    np.maximum(trees, crown, out=trees)


def draw_settlement(canvas: Image, foliage: Image, rng: np.random.Generator) -> tuple[Image, Image, Image]:
    """Draw a random settlement into `canvas` (in place) and return the masks (buildings, trees, slabs), 0..255.

    Args:
        canvas: RGB scene without buildings.
        foliage: RGB picture of trees, of the same size.
        rng: source of randomness.
    """
    footprint, trees, slabs = (np.zeros(canvas.shape[:2], np.uint8) for _ in range(3))
    light, angle = draw_light(rng), rng.uniform(0, np.pi)
    colours = ROOF_COLOURS[rng.integers(len(ROOF_COLOURS), size=rng.integers(1, 5))]
    colours = colours + rng.normal(0, 8, 3).astype(np.float32)
    for _ in range(rng.integers(0, 7)):
        draw_slab(canvas, slabs, angle + rng.choice((0, np.pi / 2)), rng)
    large_share = rng.choice((0.05, 0.8), p=(0.7, 0.3))  # a suburb, or an industrial estate
    for _ in range(rng.integers(3, 34)):
        draw_house(canvas, footprint, light, colours, angle + rng.choice((0, np.pi / 2)), large_share, rng)
    for _ in range(rng.integers(0, 25)):
        draw_tree(canvas, trees, foliage, light, rng)
    return footprint, trees, slabs
