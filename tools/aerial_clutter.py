"""Draw what is mistaken for buildings: lorries, containers, courts, foundations, pits, ploughed and bare ground.

Each thing is a rectangle (or several) painted onto the canvas with the shadow of its true height, and a label that does
not allow "building".
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from aerial_roofs import Box, Image, Light, blend_layer, cast_shadow, draw_texture, fill_polygon, find_window
from aerial_words import CONCEPT_NAMES, FIRST_SET, SET_NAMES

VEHICLE_COLOURS = np.array([
    (235, 235, 232), (225, 228, 230), (200, 60, 50), (60, 90, 160), (240, 200, 60), (90, 95, 100), (60, 120, 80),
    (150, 150, 148), (245, 245, 245),
], dtype=np.float32)  # fmt: skip
CONTAINER_COLOURS = np.array([
    (150, 60, 45), (55, 85, 140), (60, 115, 85), (200, 120, 50), (110, 110, 112), (225, 225, 222), (120, 45, 55),
    (90, 130, 165),
], dtype=np.float32)  # fmt: skip
COURT_COLOURS = np.array([
    (70, 120, 80), (60, 95, 140), (150, 75, 60), (95, 130, 95), (130, 130, 130), (175, 95, 70), (80, 110, 150),
], dtype=np.float32)  # fmt: skip
SOIL_COLOURS = np.array([
    (170, 140, 110), (140, 110, 85), (190, 165, 130), (120, 100, 80), (200, 180, 150), (160, 120, 90), (175, 165, 155),
], dtype=np.float32)  # fmt: skip
PX_PER_M = 1 / 0.3


def label_of(name: str) -> int:
    """Return the label id of a concept or of a set."""
    return CONCEPT_NAMES.index(name) if name in CONCEPT_NAMES else FIRST_SET + SET_NAMES.index(name)


def paint_box(canvas: Image, label: Image, box: Box, colour: NDArray[np.float32], name: str,
              rng: np.random.Generator) -> tuple[tuple[slice, slice], NDArray[np.float32], Image] | None:  # fmt: skip
    """Paint a textured rectangle and label it; return its window, its layer and its mask for details."""
    window = find_window(box.corners(), canvas.shape[:2])
    layer = np.broadcast_to(colour, (*canvas[window].shape[:2], 3)).astype(np.float32)
    if layer.size == 0:
        return None
    layer = layer + draw_texture(layer.shape[:2], rng)[..., None]
    mask = np.zeros(canvas.shape[:2], np.uint8)
    fill_polygon(mask, box.corners())
    blend_layer(canvas, window, layer, mask)
    label[mask > 127] = label_of(name)
    return window, layer, mask


def _frame(box: Box, window: tuple[slice, slice]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rows, cols = np.mgrid[window].astype(np.float64)
    c, s = np.cos(box.angle), np.sin(box.angle)
    return (cols - box.col) * c + (rows - box.row) * s, -(cols - box.col) * s + (rows - box.row) * c


@dataclass(frozen=True)
class Block:
    """Equal things in rows: length and width, gap between them, colours, height as a share of the shadow, rows."""

    size_m: tuple[float, float]
    gap_m: float
    colours: NDArray[np.float32]
    height: float
    rows: int


def _draw_block(canvas: Image, label: Image, light: Light, angle: float, block: Block,
                rng: np.random.Generator) -> None:  # fmt: skip
    """Draw equal things side by side, some places empty, on a paved yard in half of the cases."""
    long, wide = (value * PX_PER_M / 2 for value in block.size_m)
    rows, colours = block.rows, block.colours
    pitch_v, pitch_u, count = 2 * wide + block.gap_m * PX_PER_M, 2 * long + 0.6 * PX_PER_M, int(rng.integers(1, 12))
    row0, col0 = rng.uniform(0, canvas.shape[0]), rng.uniform(0, canvas.shape[1])
    c, s = np.cos(angle), np.sin(angle)
    if rng.random() < 0.6:
        middle = ((count - 1) * pitch_v / 2, (rows - 1) * pitch_u / 2)
        yard = Box(row0 + middle[1] * s + middle[0] * c, col0 + middle[1] * c - middle[0] * s,
                   count * pitch_v / 2 + 15, rows * pitch_u / 2 + 15, angle)  # fmt: skip
        paint_box(canvas, label, yard, np.float32(rng.uniform(75, 200)) + rng.normal(0, 8, 3).astype(np.float32),
                  "bare or paved", rng)  # fmt: skip
    same = colours[rng.integers(len(colours))]
    uniform = rng.random() < 0.4
    for i in range(count):
        for j in range(rows):
            if rng.random() < 0.2:
                continue
            box = Box(row0 + j * pitch_u * s + i * pitch_v * c, col0 + j * pitch_u * c - i * pitch_v * s, wide, long,
                      angle + rng.normal(0, 0.02))  # fmt: skip
            cast_shadow(canvas, box, light, block.height)
            colour = same if uniform else colours[rng.integers(len(colours))]
            paint_box(canvas, label, box, colour * np.float32(rng.uniform(0.8, 1.1)), "paved or parked", rng)


def draw_vehicles(canvas: Image, label: Image, light: Light, angle: float, rng: np.random.Generator) -> None:
    """Draw a row of parked lorries or buses."""
    size_m = (rng.uniform(6, 16), rng.uniform(2.3, 2.8))
    block = Block(size_m, rng.uniform(0.6, 2.5), VEHICLE_COLOURS, 0.35, int(rng.integers(1, 3)))
    _draw_block(canvas, label, light, angle, block, rng)


def draw_containers(canvas: Image, label: Image, light: Light, angle: float, rng: np.random.Generator) -> None:
    """Draw stacks of shipping containers."""
    size_m = (float(rng.choice((6.1, 12.2))), 2.44)
    gap_m, height = float(rng.choice((0.1, 0.3, 1.5))), rng.uniform(0.3, 0.8)
    _draw_block(
        canvas, label, light, angle, Block(size_m, gap_m, CONTAINER_COLOURS, height, int(rng.integers(1, 5))), rng
    )


def draw_court(canvas: Image, label: Image, light: Light, angle: float, rng: np.random.Generator) -> None:
    """Draw a sports court: a coloured surround, an inner field, white lines."""
    length, width = ((18, 36), (15, 28), (20, 40))[rng.integers(3)]
    box = Box(rng.uniform(0, canvas.shape[0]), rng.uniform(0, canvas.shape[1]), length * PX_PER_M / 2,
              width * PX_PER_M / 2, angle)  # fmt: skip
    painted = paint_box(canvas, label, box, COURT_COLOURS[rng.integers(len(COURT_COLOURS))], "court", rng)
    if painted is None:
        return
    window, layer, mask = painted
    u, v = _frame(box, window)
    inner = (np.abs(u) < 0.72 * box.half_u) & (np.abs(v) < 0.65 * box.half_v)
    layer[inner] = COURT_COLOURS[rng.integers(len(COURT_COLOURS))]
    edge = (np.abs(np.abs(u) - 0.72 * box.half_u) < 1) & (np.abs(v) < 0.65 * box.half_v)
    edge |= (np.abs(np.abs(v) - 0.65 * box.half_v) < 1) & (np.abs(u) < 0.72 * box.half_u)
    edge |= (np.abs(u) < 1) & (np.abs(v) < 0.65 * box.half_v)
    layer[edge] = 225
    blend_layer(canvas, window, layer, mask)


def draw_foundation(canvas: Image, label: Image, light: Light, angle: float, rng: np.random.Generator) -> None:
    """Draw a building site: bare ground, a slab or the grid of its walls, no shadow or that of a low wall."""
    half_v, half_u = rng.uniform(15, 60, 2)
    row, col = rng.uniform(0, canvas.shape[0]), rng.uniform(0, canvas.shape[1])
    soil = SOIL_COLOURS[rng.integers(len(SOIL_COLOURS))]
    paint_box(canvas, label, Box(row, col, half_v * rng.uniform(1.2, 2), half_u * rng.uniform(1.2, 2), angle), soil,
              "bare or paved", rng)  # fmt: skip
    box = Box(row, col, half_v, half_u, angle)
    tone = np.float32(rng.uniform(110, 225)) + rng.normal(0, 6, 3).astype(np.float32)
    painted = paint_box(canvas, label, box, soil * 0.85 if rng.random() < 0.6 else tone, "bare or paved", rng)
    if painted is None:
        return
    window, layer, mask = painted
    u, v = _frame(box, window)
    pitch_u, pitch_v, thick = rng.uniform(10, 25), rng.uniform(10, 25), rng.uniform(0.8, 2)
    walls = (np.abs(np.abs(u) - box.half_u) < 2 * thick) | (np.abs(np.abs(v) - box.half_v) < 2 * thick)
    if rng.random() < 0.7:
        walls |= (u % pitch_u < thick) | (v % pitch_v < thick)
    layer[walls] = tone
    shade = np.roll(walls, (round(light.fall[0] * 2), round(light.fall[1] * 2)), (0, 1)) & ~walls
    layer[shade] *= 1 - 0.5 * light.dark
    blend_layer(canvas, window, layer, mask)


def draw_pit(canvas: Image, label: Image, light: Light, angle: float, rng: np.random.Generator) -> None:
    """Draw an excavation or a heap: an uneven patch of soil whose edge is shaded on one side."""
    radius = rng.uniform(15, 80)
    row, col = rng.uniform(0, canvas.shape[0]), rng.uniform(0, canvas.shape[1])
    turns = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    reach = radius * rng.uniform(0.6, 1.2, turns.size)
    outline = np.stack([col + reach * np.cos(turns + angle), row + reach * np.sin(turns + angle)], 1).astype(np.float32)
    window = find_window(outline, canvas.shape[:2])
    mask = np.zeros(canvas.shape[:2], np.uint8)
    fill_polygon(mask, outline)
    if canvas[window].size == 0:
        return
    soil = SOIL_COLOURS[rng.integers(len(SOIL_COLOURS))] * np.float32(rng.uniform(0.7, 1.15))
    layer = soil + 2 * draw_texture(canvas[window].shape[:2], rng)[..., None]
    rows, cols = np.mgrid[window].astype(np.float32)
    towards = ((rows - row) * light.fall[0] + (cols - col) * light.fall[1]) / radius
    rim = cv2.distanceTransform(mask[window], cv2.DIST_L2, 3) < rng.uniform(3, 12)
    side = float(rng.choice((-1, 1)))
    layer *= (1 + np.where(rim, 0.35 * np.clip(side * towards, -1, 1), 0))[..., None]
    blend_layer(canvas, window, layer.astype(np.float32), mask)
    label[mask > 127] = label_of("bare or paved")


def draw_ground(canvas: Image, label: Image, light: Light, angle: float, rng: np.random.Generator) -> None:
    """Draw a large patch of ground: a yard of gravel or concrete, or a ploughed field with furrows."""
    half_v, half_u = rng.uniform(40, 180, 2)
    box = Box(rng.uniform(0, canvas.shape[0]), rng.uniform(0, canvas.shape[1]), half_v, half_u, angle)
    ploughed = rng.random() < 0.5
    pale = np.float32(rng.uniform(100, 235)) + rng.normal(0, 6, 3).astype(np.float32)
    colour = SOIL_COLOURS[rng.integers(len(SOIL_COLOURS))] if ploughed or rng.random() < 0.4 else pale
    painted = paint_box(canvas, label, box, colour, "field" if ploughed else "bare or paved", rng)
    if painted is None:
        return
    window, layer, mask = painted
    u, v = _frame(box, window)
    if ploughed:
        layer += (rng.uniform(3, 22) * np.sin(u * (2 * np.pi / rng.uniform(4, 22)) + rng.normal(0, 0.6)))[..., None]
    elif rng.random() < 0.5:  # joints of a concrete yard, wheel tracks
        joints = (u % rng.uniform(12, 40) < 1) | (v % rng.uniform(12, 40) < 1)
        layer[joints] *= rng.uniform(0.7, 1.1)
    blend_layer(canvas, window, layer.astype(np.float32), mask)


CLUTTER = (draw_vehicles, draw_vehicles, draw_containers, draw_court, draw_foundation, draw_foundation, draw_pit,
           draw_ground, draw_ground)  # fmt: skip


def draw_clutter(
    canvas: Image, label: Image, light: Light, angle: float, rng: np.random.Generator, *, most: int
) -> None:
    """Draw up to `most` things that are no buildings into `canvas`, and their labels into `label`, both in place."""
    for _ in range(rng.integers(0, most + 1)):
        draw = CLUTTER[rng.integers(len(CLUTTER))]
        turned = rng.uniform(0, np.pi) if rng.random() < 0.2 else angle + rng.choice((0, np.pi / 2))
        draw(canvas, label, light, turned, rng)
