"""Paint buildings: walls that parallax shows, pitched, flat and profiled roofs, and what is on them."""

from __future__ import annotations

import numpy as np

from semicdvl.synthetic.layout.buildings import Building, Wing
from semicdvl.synthetic.layout.geometry import Points
from semicdvl.synthetic.materials import MATERIAL_INDEX, WALL_RGB
from semicdvl.synthetic.rendering.draw import AcquisitionConditions, Canvas

ROOF_PITCH = {"gable": 0.56, "hip": 0.50, "hall": 0.12}
"""Slope of a roof form in radians."""


def add_building_shadow(canvas: Canvas, building: Building, conditions: AcquisitionConditions) -> None:
    """Add the shadow of a building, with half the height of its ridge."""
    _, v0, _, v1 = building.wings[0]
    ridge = 0.25 * (v1 - v0) * np.tan(ROOF_PITCH.get(building.roof, 0.0)) if building.roof != "hall" else 0.6
    for ring in building.rings[:1]:
        canvas.add_shadow(ring, conditions.shadow_per_metre() * (building.height_m + ridge))


def paint_building(canvas: Canvas, building: Building, conditions: AcquisitionConditions) -> None:
    """Paint walls and roof, displaced by parallax."""
    lean = np.array(conditions.view) * building.height_m
    rings = building.rings
    if canvas.is_outside(np.vstack([rings[0], rings[0] + lean])):
        return
    if np.hypot(*lean) > 0.3 * canvas.gsd_m:
        _paint_walls(canvas, rings[0], lean, conditions)
    rgb = canvas.palette[MATERIAL_INDEX[building.material]] * building.tint
    canvas.fill([ring + lean for ring in rings], rgb, building.material)
    rng = np.random.default_rng(building.seed)
    if building.roof == "flat":
        _paint_flat_roof(canvas, building, rgb, lean, conditions, rng, [r + lean for r in rings])
        return
    for wing in sorted(building.wings, key=lambda w: (w[2] - w[0]) * (w[3] - w[1])):
        _paint_pitched_roof(canvas, building, wing, rgb, lean, conditions, rng)
    if building.roof == "hall":
        _paint_sheets(canvas, building, rgb, lean, rng)
    else:
        _paint_chimneys(canvas, building, lean, conditions, rng)


def _paint_walls(canvas: Canvas, ring_N2: Points, lean: Points, conditions: AcquisitionConditions) -> None:
    """Paint the walls that the camera sees."""
    top = ring_N2 + lean
    for i in range(len(ring_N2)):
        along = ring_N2[i] - ring_N2[i - 1]
        # A wall faces at right angles to its line; the camera sees the side that `lean` opens.
        facing = float(np.arctan2(along[1], along[0])) + np.pi / 2
        if np.cos(facing) * lean[0] + np.sin(facing) * lean[1] > 0:
            facing += np.pi
        quad = np.array([ring_N2[i - 1], ring_N2[i], top[i], top[i - 1]])
        canvas.fill([quad], np.array(WALL_RGB) * conditions.illumination(1.45, facing) * 0.85, "wall")


def _paint_pitched_roof(
    canvas: Canvas,
    building: Building,
    wing: Wing,
    rgb: Points,
    lean: Points,
    conditions: AcquisitionConditions,
    rng: np.random.Generator,
) -> None:
    """Paint the planes of the roof of one wing, each with its illumination, and a thin ridge."""
    u0, v0, u1, v1 = wing
    along_u = (u1 - u0) >= (v1 - v0)
    if not along_u:  # swap the axes so that the ridge runs along the first one
        u0, v0, u1, v1 = v0, u0, v1, u1
    middle = (v0 + v1) / 2
    inset = min((v1 - v0) / 2, 0.45 * (u1 - u0)) if building.roof == "hip" else 0.0
    a, b = (u0 + inset, middle), (u1 - inset, middle)
    planes = [
        ([(u0, v0), (u1, v0), b, a], -np.pi / 2),
        ([(u0, v1), (u1, v1), b, a], np.pi / 2),
    ]
    if inset:
        planes += [([(u0, v0), (u0, v1), a], np.pi), ([(u1, v0), (u1, v1), b], 0.0)]
    for corners, facing in planes:
        uv = np.array(corners)
        turned = facing if along_u else np.pi / 2 - facing
        light = conditions.illumination(ROOF_PITCH[building.roof], building.heading + turned)
        tone = light * (1 + 0.02 * rng.standard_normal())
        canvas.fill([building.to_world(uv if along_u else uv[:, ::-1]) + lean], rgb * tone)
    ridge = np.array([a, b])
    canvas.stroke(building.to_world(ridge if along_u else ridge[:, ::-1]) + lean, 0.3, rgb * 1.22)
    if building.roof == "gable" and u1 - u0 > 22:  # a terrace: seams between the houses
        for u in np.arange(u0 + 6.0, u1 - 3, 6.0):
            seam = np.array([(u, v0), (u, v1)])
            canvas.stroke(building.to_world(seam if along_u else seam[:, ::-1]) + lean, 0.35, rgb * 0.72)


def _paint_flat_roof(
    canvas: Canvas,
    building: Building,
    rgb: Points,
    lean: Points,
    conditions: AcquisitionConditions,
    rng: np.random.Generator,
    rings: list[Points],
) -> None:
    """Paint machines, seams and the parapet on a flat roof."""
    for wing in building.wings:
        u0, v0, u1, v1 = wing
        for _ in range(int((u1 - u0) * (v1 - v0) / 160)):
            u, v = rng.uniform(u0 + 2, u1 - 2), rng.uniform(v0 + 2, v1 - 2)
            du, dv = rng.uniform(0.8, 2.2, 2)
            if u - du < u0 + 0.8 or u + du > u1 - 0.8 or v - dv < v0 + 0.8 or v + dv > v1 - 0.8:
                continue
            _paint_box(
                canvas, building, (u - du, v - dv, u + du, v + dv), lean, conditions, float(rng.uniform(1.0, 2.2))
            )
        if min(u1 - u0, v1 - v0) > 14 and rng.random() < 0.6:  # lights or seams in rows
            for u in np.arange(u0 + 4, u1 - 4, rng.uniform(5, 9)):
                canvas.stroke(building.to_world(np.array([(u, v0 + 2), (u, v1 - 2)])) + lean, 0.3, rgb * 0.88)
    for ring in rings:
        for i in range(len(ring)):
            along = ring[i] - ring[i - 1]
            facing = float(np.arctan2(along[1], along[0])) + np.pi / 2
            bright = 1.16 if np.cos(facing - conditions.sun_azimuth) > 0 else 0.80
            canvas.stroke(ring[[i - 1, i]], 0.6, rgb * bright)


def _paint_box(
    canvas: Canvas, building: Building, wing: Wing, lean: Points, conditions: AcquisitionConditions, height_m: float
) -> None:
    """Paint a box on a roof with its shadow."""
    u0, v0, u1, v1 = wing
    ring = building.to_world(np.array([(u0, v0), (u1, v0), (u1, v1), (u0, v1)])) + lean
    shade = conditions.shadow_per_metre() * height_m
    below = canvas.palette[MATERIAL_INDEX[building.material]] * 0.5
    canvas.fill([ring + shade], below)
    canvas.fill([ring + shade / 2], below)
    canvas.fill([ring], np.array([170.0, 170, 167]) * (0.7 + 0.4 * ((u0 * 7.3) % 1.0)))


def _paint_sheets(canvas: Canvas, building: Building, rgb: Points, lean: Points, rng: np.random.Generator) -> None:
    """Paint the seams of profiled sheets and strips of roof light on a hall."""
    u0, v0, u1, v1 = building.wings[0]
    lights = rng.random() < 0.6
    for i, u in enumerate(np.arange(u0 + 2.5, u1 - 1, 2.5)):
        light = lights and i % 4 == 1
        for low, high in ((v0 + 1.5, (v0 + v1) / 2 - 1), ((v0 + v1) / 2 + 1, v1 - 1.5)):
            line = building.to_world(np.array([(u, low), (u, high)])) + lean
            canvas.stroke(line, 0.9 if light else 0.25, rgb * (1.22 if light else 0.84))


def _paint_chimneys(
    canvas: Canvas, building: Building, lean: Points, conditions: AcquisitionConditions, rng: np.random.Generator
) -> None:
    """Paint chimneys and roof windows of a house."""
    for u0, v0, u1, v1 in building.wings:
        count = max(1, int((u1 - u0) / 7)) if max(u1 - u0, v1 - v0) > 20 else int(rng.integers(0, 3))
        for _ in range(count):
            u, v = rng.uniform(u0 + 1.5, u1 - 1.5), rng.uniform(v0 + 1.5, v1 - 1.5)
            if rng.random() < 0.5:
                _paint_box(canvas, building, (u - 0.4, v - 0.4, u + 0.4, v + 0.4), lean, conditions, 1.4)
            else:
                pane = np.array([(u - 0.5, v - 0.7), (u + 0.5, v - 0.7), (u + 0.5, v + 0.7), (u - 0.5, v + 0.7)])
                canvas.fill([building.to_world(pane) + lean], np.array([84.0, 92, 102]))
