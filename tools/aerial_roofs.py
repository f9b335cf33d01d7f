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


def fill_polygon(mask: Image, points_xy: NDArray[np.float32]) -> None:
    """Fill a polygon in a mask, with soft edges."""
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


def draw_texture(shape_hw: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return fine and coarse noise in grey values."""
    fine = rng.normal(0, rng.uniform(1, 7), shape_hw)
    if 0 in shape_hw:
        return np.zeros(shape_hw, np.float32)
    small = (max(2, shape_hw[0] // 8), max(2, shape_hw[1] // 8))
    coarse = cv2.resize(rng.normal(0, rng.uniform(1, 9), small), shape_hw[::-1], interpolation=cv2.INTER_CUBIC)
    return (fine + coarse).astype(np.float32)


def blend_layer(canvas: Image, window: tuple[slice, slice], layer: NDArray[np.float32], mask: Image) -> None:
    """Paint a layer into a window of the canvas where the mask says so."""
    alpha = mask[window][..., None].astype(np.float32) / 255
    canvas[window] = np.clip(canvas[window] * (1 - alpha) + layer * alpha, 0, 255).astype(np.uint8)


def find_window(points_xy: NDArray[np.float32], shape_hw: tuple[int, int]) -> tuple[slice, slice]:
    """Return the window around points, inside the canvas."""
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
             light: Light, rng: np.random.Generator) -> None:  # fmt: skip
    """Draw what large roofs show: seams, skylights, parts of another tone, sawteeth, stains, solar panels, plants."""
    c, s = np.cos(box.angle), np.sin(box.angle)
    u, v = (cols - box.col) * c + (rows - box.row) * s, -(cols - box.col) * s + (rows - box.row) * c
    if rng.random() < 0.5:
        layer += (rng.uniform(1, 9) * np.sin(u * (2 * np.pi / rng.uniform(4, 14))))[..., None]
    if rng.random() < 0.15:  # sawteeth: a steep and a gentle plane by turns
        pitch = rng.uniform(14, 45)
        steep = (u % pitch) < pitch * rng.uniform(0.15, 0.5)
        towards = -(c * light.fall[1] + s * light.fall[0])
        layer *= np.where(steep, 1 + 0.35 * towards, 1 - 0.15 * towards)[..., None].astype(np.float32)
    if rng.random() < 0.3:
        layer[u * rng.choice((-1, 1)) > rng.uniform(-0.5, 0.5) * box.half_u] *= rng.uniform(0.75, 1.2)
    if rng.random() < 0.2:  # patchwork of sheets
        cell_u, cell_v = rng.uniform(10, 60, 2)
        tones = rng.uniform(0.8, 1.15, 997)
        layer *= tones[(np.floor(u / cell_u) * 31 + np.floor(v / cell_v) * 17).astype(int) % 997][..., None]
    if rng.random() < 0.25:  # stains, in the direction of the fall
        stains = cv2.GaussianBlur(rng.normal(0, 1, rows.shape), (0, 0), rng.uniform(3, 15))
        layer += (stains / (stains.std() + 1e-6) * rng.uniform(4, 18))[..., None]
    if rng.random() < 0.4:
        step_u, step_v = rng.uniform(9, 60, 2)
        lit = (u % step_u < rng.uniform(2, 6)) & (v % step_v < rng.uniform(2, 14))
        layer[lit] = rng.uniform(170, 250) if rng.random() < 0.7 else rng.uniform(50, 110)
    if rng.random() < 0.2:
        panels = (u % 5 > 0.8) & (v % rng.uniform(5, 16) > rng.uniform(0.8, 3)) & (np.abs(v) < box.half_v - 3)
        panels &= (u > rng.uniform(-1, 0.3) * box.half_u) | (rng.random() < 0.5)
        layer[panels] = np.array((45, 55, 85)) * rng.uniform(0.6, 1.5)
    if rng.random() < 0.06:  # a planted roof inside its parapet
        planted = (np.abs(u) < box.half_u - 4) & (np.abs(v) < box.half_v - 4) & (u > rng.uniform(-1, 0) * box.half_u)
        green = np.array((85, 105, 60)) * rng.uniform(0.7, 1.3)
        layer[planted] = green + 2 * draw_texture(rows.shape, rng)[planted, None]


def cast_shadow(canvas: Image, box: Box, light: Light, height_frac: float) -> None:
    """Darken the ground where the shadow of a box falls."""
    corners = box.corners()
    offset = np.array((light.fall[1], light.fall[0]), dtype=np.float32) * light.length_px * height_frac
    outline = _hull(np.vstack([corners, corners + offset]))
    window = find_window(outline, canvas.shape[:2])
    mask = np.zeros(canvas.shape[:2], np.uint8)
    fill_polygon(mask, outline)
    blend_layer(canvas, window, canvas[window].astype(np.float32) * (1 - light.dark), mask)


def _draw_roof(canvas: Image, footprint: Image, box: Box, light: Light, colour: NDArray[np.float32], kind: str,
               rng: np.random.Generator) -> None:  # fmt: skip
    mask = np.zeros(canvas.shape[:2], np.uint8)
    fill_polygon(mask, box.corners())
    window = find_window(box.corners(), canvas.shape[:2])
    rows, cols = np.mgrid[window].astype(np.float32)
    if rows.size == 0:
        return
    layer = colour * shade_roof(box, light, rows, cols, kind)[..., None] + draw_texture(rows.shape, rng)[..., None]
    _details(layer, rng)
    if box.half_v > 24 or rng.random() < 0.15:
        _pattern(layer, box, rows, cols, light, rng)
    blend_layer(canvas, window, layer, mask)
    np.maximum(footprint, mask, out=footprint)


HALL_COLOURS = np.array([
    (238, 238, 236), (225, 226, 228), (205, 206, 208), (180, 182, 184), (150, 152, 154), (120, 122, 124),
    (95, 97, 100), (210, 205, 195), (140, 160, 180), (165, 120, 105), (110, 135, 120), (75, 77, 82),
], dtype=np.float32)  # fmt: skip
"""RGB of the roofs of halls: membrane, sheet metal, gravel, bitumen."""


def _half_sizes(size: str, rng: np.random.Generator) -> tuple[float, float]:
    """Return half length and half width in pixels of 0.3 m."""
    if size == "hall":
        return float(rng.uniform(90, 260)), float(rng.uniform(60, 160))
    if size == "large":
        return float(rng.uniform(28, 130)), float(rng.uniform(28, 130))
    return float(rng.uniform(9, 34)), float(rng.uniform(7, 22))


def _wings(main: Box, size: str, rng: np.random.Generator) -> list[Box]:
    """Return the boxes of one building: one, two as an L or a T, three or four around a courtyard (U, O)."""
    c, s = np.cos(main.angle), np.sin(main.angle)

    def place(u: float, v: float, half_u: float, half_v: float) -> Box:
        return Box(main.row + u * s + v * c, main.col + u * c - v * s, half_v, half_u, main.angle)

    if size == "large" and min(main.half_u, main.half_v) > 40 and rng.random() < 0.35:
        thick = rng.uniform(14, 24)
        u, v = main.half_u - thick, main.half_v - thick
        sides = [place(0, v, main.half_u, thick), place(0, -v, main.half_u, thick),
                 place(u, 0, thick, main.half_v), place(-u, 0, thick, main.half_v)]  # fmt: skip
        return sides[: int(rng.integers(2, 5))] if rng.random() < 0.6 else sides
    boxes = [main]
    if rng.random() < 0.45:
        along, across = rng.uniform(-0.7, 0.7) * main.half_u, rng.choice((-1, 1)) * main.half_v * rng.uniform(0.7, 1.2)
        boxes.append(place(along, across, main.half_u * rng.uniform(0.3, 0.6), main.half_v * rng.uniform(0.5, 0.9)))
    return boxes


def draw_house(canvas: Image, footprint: Image, light: Light, colours: NDArray[np.float32], angle: float,
               size: str, rng: np.random.Generator) -> None:  # fmt: skip
    """Draw one building (size "house", "large" or "hall") where the ground is still free."""
    height, width = canvas.shape[:2]
    half_u, half_v = _half_sizes(size, rng)
    main = Box(rng.uniform(0, height), rng.uniform(0, width), half_v, half_u, angle + rng.normal(0, 0.04))
    boxes = _wings(main, size, rng)
    probe = np.zeros_like(footprint)
    for box in boxes:
        fill_polygon(probe, Box(box.row, box.col, box.half_v + 5, box.half_u + 5, box.angle).corners())
    if np.any(footprint[probe > 0]):
        return
    small = size == "house"
    kind = str(rng.choice(("flat", "gable", "hip"), p=(0.3, 0.4, 0.3) if small else (0.78, 0.15, 0.07)))
    if size == "hall":
        colours = HALL_COLOURS
    colour = colours[rng.integers(len(colours))] * rng.uniform(0.8, 1.15)
    storeys = rng.uniform(0.3, 1.2) if small else rng.uniform(0.3, 2.2)
    for box in boxes:
        cast_shadow(canvas, box, light, storeys)
    patchy = rng.random() < 0.15
    for box in boxes:
        own = colours[rng.integers(len(colours))] if patchy else colour
        _draw_roof(canvas, footprint, box, light, own, kind, rng)
    if size == "hall":
        _draw_plant(canvas, main, light, rng)


def _draw_plant(canvas: Image, main: Box, light: Light, rng: np.random.Generator) -> None:
    """Draw machines and stairheads with their shadows onto a large roof."""
    c, s = np.cos(main.angle), np.sin(main.angle)
    low = Light(light.fall, min(light.length_px, 6.0), light.dark)
    ignored = np.zeros(canvas.shape[:2], np.uint8)
    for _ in range(rng.integers(0, 14)):
        u, v = rng.uniform(-0.9, 0.9, 2) * (main.half_u, main.half_v)
        half_u, half_v = rng.uniform(2, 14, 2)
        box = Box(main.row + u * s + v * c, main.col + u * c - v * s, half_v, half_u, main.angle)
        cast_shadow(canvas, box, low, 1.0)
        _draw_roof(canvas, ignored, box, light, np.float32(rng.uniform(70, 240)) * np.ones(3, np.float32), "flat", rng)


def draw_slab(canvas: Image, slabs: Image, angle: float, rng: np.random.Generator) -> None:
    """Draw a flat paved patch without a shadow."""
    half_v = rng.uniform(30, 90) if rng.random() < 0.1 else rng.uniform(4, 20)
    box = Box(rng.uniform(0, canvas.shape[0]), rng.uniform(0, canvas.shape[1]), half_v, rng.uniform(15, 120), angle)
    mask = np.zeros(canvas.shape[:2], np.uint8)
    fill_polygon(mask, box.corners())
    window = find_window(box.corners(), canvas.shape[:2])
    tone = rng.uniform(80, 150 if half_v > 20 else 215) + rng.normal(0, 6, 3)
    layer = tone.astype(np.float32) + draw_texture(canvas[window].shape[:2], rng)[..., None]
    blend_layer(canvas, window, layer, mask)
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
    fill_polygon(shadow, outline + shift)
    window = find_window(outline + shift, canvas.shape[:2])
    blend_layer(canvas, window, canvas[window].astype(np.float32) * (1 - light.dark), shadow)
    fill_polygon(crown, outline)
    window = find_window(outline, canvas.shape[:2])
    blend_layer(canvas, window, foliage[window].astype(np.float32), crown)
    np.maximum(trees, crown, out=trees)


QUARTERS = {"suburb": (0.05, 0.0), "town": (0.4, 0.0), "estate": (0.6, 0.35), "logistics": (0.1, 0.9)}
"""Shares of large buildings and of halls in a quarter."""


def draw_buildings(canvas: Image, light: Light, angle: float, rng: np.random.Generator) -> Image:
    """Draw the buildings of a quarter into `canvas` (in place) and return their mask, 0..255."""
    footprint = np.zeros(canvas.shape[:2], np.uint8)
    colours = ROOF_COLOURS[rng.integers(len(ROOF_COLOURS), size=rng.integers(1, 5))]
    colours = colours + rng.normal(0, 8, 3).astype(np.float32)
    quarter = str(rng.choice(list(QUARTERS), p=(0.45, 0.2, 0.2, 0.15)))
    large_share, hall_share = QUARTERS[quarter]
    most = {"suburb": 34, "town": 30, "estate": 16, "logistics": 8}[quarter]
    for _ in range(rng.integers(2, most)):
        chance = rng.random()
        size = "hall" if chance < hall_share else "large" if chance < hall_share + large_share else "house"
        draw_house(canvas, footprint, light, colours, angle + rng.choice((0, np.pi / 2)), size, rng)
    return footprint


def draw_trees(canvas: Image, foliage: Image, light: Light, rng: np.random.Generator) -> Image:
    """Draw single trees into `canvas` (in place) and return their mask, 0..255."""
    trees = np.zeros(canvas.shape[:2], np.uint8)
    for _ in range(rng.integers(0, 25)):
        draw_tree(canvas, trees, foliage, light, rng)
    return trees


def draw_slabs(canvas: Image, angle: float, rng: np.random.Generator) -> Image:
    """Draw paved patches into `canvas` (in place) and return their mask, 0..255."""
    slabs = np.zeros(canvas.shape[:2], np.uint8)
    for _ in range(rng.integers(0, 7)):
        draw_slab(canvas, slabs, angle + rng.choice((0, np.pi / 2)), rng)
    return slabs
