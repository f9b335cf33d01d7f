"""Trees, cars and the details of streets: markings, repairs, parking places."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from semicdvl.synthetic.config import CitySpec
from semicdvl.synthetic.layout.geometry import Points
from semicdvl.synthetic.layout.scene import (
    BUILT_LAND,
    FIRST_DATE,
    FREE_LAND,
    SEALED_LAND,
    SECOND_DATE,
    WATER_LAND,
    CarPosition,
    Cars,
    GroundPatch,
    ScenePlanner,
    Trees,
)
from semicdvl.synthetic.layout.streets import Street

TREES_PER_M2 = {
    "detached": 0.012,
    "rows": 0.009,
    "apartments": 0.008,
    "industrial": 0.0012,
    "commercial": 0.003,
    "park": 0.011,
    "field": 0.0,
    "vacant": 0.006,
}
"""Trees per square metre of free ground by use of the block; a noise field makes them denser in places."""
BANK_TREES_PER_M2 = 0.016


def add_street_details(planner: ScenePlanner, rng: np.random.Generator) -> None:
    """Add the surface of streets, markings, repairs, parking places along the kerb and traffic."""
    for street in planner.plan.streets:
        surface = "gravel" if street.kind == "lane" else "asphalt"
        planner.add_area(street.outline_N2, surface, layer=0, spread=0.08)
        if street.kind == "lane":
            continue
        _add_markings(planner, rng, street)
        _add_repairs(planner, rng, street)
        if street.kind == "side":
            _add_kerb_places(planner, rng, street)
        else:
            _add_traffic(planner, rng, street)


def _add_markings(planner: ScenePlanner, rng: np.random.Generator, street: Street) -> None:
    """Paint lane lines: dashes in the middle, for wide roads a solid middle and dashes on both sides."""
    if street.kind == "side" and rng.random() < 0.5:
        return
    wide = street.width_m > 15
    for offset in (-street.width_m / 4, street.width_m / 4) if wide else (0.0,):
        line = offset_line(street.line_N2, offset)
        for a, b in _split_into_dashes(line, 3.0, 9.0 if street.kind == "main" else 7.0):
            planner.add_line(np.array([a, b]), "marking", 0.22, layer=4)
    if wide:
        planner.add_line(street.line_N2, "marking", 0.5, layer=4)
    if street.kind == "main":
        for sign in (-1, 1):
            planner.add_line(offset_line(street.line_N2, sign * (street.width_m / 2 - 0.5)), "marking", 0.15, layer=4)


def _add_repairs(planner: ScenePlanner, rng: np.random.Generator, street: Street) -> None:
    """Add darker and lighter strips where the tarmac was repaired."""
    length = float(np.hypot(*np.diff(street.line_N2, axis=0).T).sum())
    for _ in range(rng.poisson(length / 90)):
        at = rng.integers(0, max(1, len(street.line_N2) - 1))
        piece = street.line_N2[at : at + 1 + int(rng.integers(1, 4))]
        if len(piece) > 1:
            side = rng.uniform(-0.3, 0.3) * street.width_m
            light = float(rng.choice([0.86, 0.92, 1.08]))
            tint = (light, light, light)
            planner.patches.append(
                GroundPatch(offset_line(piece, side), "asphalt", tint, layer=2, width_m=rng.uniform(0.8, 2.6))
            )


def _add_kerb_places(planner: ScenePlanner, rng: np.random.Generator, street: Street) -> None:
    """Add parking places along both kerbs."""
    chance = rng.uniform(0.05, 0.35)
    for sign in (-1, 1):
        line = offset_line(street.line_N2, sign * (street.width_m / 2 - 1.3))
        for a, b in _split_into_dashes(line, 4.5, 6.3):
            heading = float(np.arctan2(*(b - a)[::-1])) + (np.pi if sign > 0 else 0.0)
            x, y = (a + b) / 2
            planner.car_places.append(CarPosition(float(x), float(y), heading, chance))


def _add_traffic(planner: ScenePlanner, rng: np.random.Generator, street: Street) -> None:
    """Add places for moving cars and lorries in both directions."""
    for sign in (-1, 1):
        for share in (0.25,) if street.width_m < 15 else (0.13, 0.36):
            line = offset_line(street.line_N2, sign * share * street.width_m)
            for a, b in _split_into_dashes(line, 10.0, 16.0):
                heading = float(np.arctan2(*(b - a)[::-1])) + (np.pi if sign > 0 else 0.0)
                x, y = a + (b - a) * rng.random()
                length = 9.5 if rng.random() < 0.07 else 4.5
                planner.car_places.append(CarPosition(float(x), float(y), heading, 0.17, length_m=length))


def park_cars(
    planner: ScenePlanner, rng: np.random.Generator, nuisance: np.random.Generator, spec: CitySpec
) -> tuple[Cars, Cars]:
    """Draw for each place and date whether there is a car; for the share `car_turnover` date 2 is drawn anew."""
    places = np.array([(c.x, c.y, c.heading, c.length_m) for c in planner.car_places]).reshape(-1, 4)
    chance = np.array([c.chance for c in planner.car_places])
    dates = np.array([c.dates for c in planner.car_places], int)
    count = len(places)
    first, colour = rng.random(count) < chance, rng.integers(0, 1 << 20, count)
    places[:, 2] += rng.normal(0, 0.03, count)
    anew = nuisance.random(count) < spec.car_turnover
    second = np.where(anew, nuisance.random(count) < chance, first)
    other = np.where(anew, nuisance.integers(0, 1 << 20, count), colour)
    one, two = first & (dates & FIRST_DATE > 0), second & (dates & SECOND_DATE > 0)
    return Cars(places[one], colour[one]), Cars(places[two], other[two])


def grow_trees(planner: ScenePlanner, rng: np.random.Generator, nuisance: np.random.Generator, spec: CitySpec) -> Trees:
    """Plant gardens, parks, streets, banks and hedgerows; fell, plant and grow between the dates."""
    coarse = rng.random([n // 22 + 2 for n in planner.taken_HW.shape], dtype=np.float32)
    clumps = np.asarray(cv2.resize(coarse, planner.taken_HW.shape[::-1]), np.float32)
    xy = np.vstack([_scatter_trees(planner, rng, clumps), _line_up_trees(planner, rng)])
    count = len(xy)
    radius = np.exp(rng.normal(np.log(2.5), 0.36, count)).clip(1.1, 6.0)
    row, col = np.clip(xy[:, ::-1].astype(int), 0, np.array(clumps.shape) - 1).T
    conifer = (rng.random(count) < 0.12 + 0.5 * (clumps[row, col] > 0.72)).astype(np.uint8)
    tint, shape = rng.normal(1, 0.13, count).clip(0.6, 1.5), rng.integers(0, 256, count)
    keep = rng.random(count)
    room = [
        _measure_distance_to_buildings(planner, date)[row, col] > 0.65 * radius for date in (FIRST_DATE, SECOND_DATE)
    ]
    # A tree may exist before a house is built in its place; on a plot that was cleared few have grown.
    there = [room[0] & (room[1] | (keep < 0.75)), room[1] & (room[0] | (keep < 0.1))]
    chance, sizes = nuisance.random(count), nuisance.random(count)
    there[1] = there[1] & ~(chance < spec.tree_turnover / 2)
    there[0] = there[0] & ~(chance > 1 - spec.tree_turnover / 2)
    grown = radius * (1 + spec.tree_growth * 2 * sizes)
    radii = np.stack([radius * there[0], grown * there[1]], 1).astype(np.float32)
    some = radii.max(axis=1) > 0
    order = np.argsort(radius[some], kind="stable")
    pick = np.flatnonzero(some)[order]
    return Trees(xy[pick], radii[pick], conifer[pick], tint[pick].astype(np.float32), shape[pick].astype(np.uint8))


def _scatter_trees(planner: ScenePlanner, rng: np.random.Generator, clumps: NDArray[np.float32]) -> Points:
    """Return trees scattered over free ground, denser where the noise field is high."""
    height, width = planner.taken_HW.shape
    density = np.array([TREES_PER_M2.get(b.use, 0.01) for b in planner.plan.blocks] + [BANK_TREES_PER_M2])
    count = int(density.max() * 3.2 * height * width)
    xy = rng.random((count, 2)) * (width, height)
    row, col = xy[:, 1].astype(int), xy[:, 0].astype(int)
    here = density[planner.block_HW[row, col]]  # -1, outside all blocks, is the river bank
    near = planner.taken_HW[row, col]
    open_ground = (near == FREE_LAND) | (near == BUILT_LAND)
    wanted = here * 3.2 * np.clip(2.2 * clumps[row, col] - 0.45, 0.05, 1.6) ** 2 / 1.4
    planted: Points = xy[open_ground & (rng.random(count) * density.max() * 3.2 < wanted)]
    return planted


def _line_up_trees(planner: ScenePlanner, rng: np.random.Generator) -> Points:
    """Return trees in rows: along some sidewalks, and hedgerows around fields."""
    rows = [np.zeros((0, 2))]
    for block in planner.plan.blocks:
        spacing = {"field": 6.0, "park": 10.0}.get(block.use, float(rng.uniform(9, 14)))
        if rng.random() < {"field": 0.6, "park": 0.8, "industrial": 0.2}.get(block.use, 0.5):
            ring = np.vstack([block.inner_N2, block.inner_N2[:1]])
            spots = np.array([a for a, _ in _split_into_dashes(offset_line(ring, 0.0), 1.0, spacing)]).reshape(-1, 2)
            middle = block.inner_N2.mean(axis=0)
            inward = (middle - spots) / np.maximum(np.hypot(*(middle - spots).T), 1)[:, None]
            spots = spots + inward * 0.8 + rng.normal(0, 0.9 if block.use == "field" else 0.25, spots.shape)
            rows.append(spots[rng.random(len(spots)) < 0.75])
    xy = np.vstack(rows)
    inside = ((xy > 0) & (xy < planner.taken_HW.shape[::-1])).all(axis=1)
    xy = xy[inside]
    ground = planner.taken_HW[xy[:, 1].astype(int), xy[:, 0].astype(int)]
    planted: Points = xy[(ground != SEALED_LAND) & (ground != WATER_LAND)]
    return planted


def _measure_distance_to_buildings(planner: ScenePlanner, date: int) -> NDArray[np.float32]:
    """Return the distance in metres of each 1 m cell to the nearest building of a date."""
    free = np.ones(planner.taken_HW.shape, np.uint8)
    for site in planner.sites:
        building = site.building_on(date)
        if building is not None:
            cv2.fillPoly(free, [np.round(building.rings[0] - 0.5).astype(np.int32)], 0)
    return np.asarray(cv2.distanceTransform(free, cv2.DIST_L2, 3), np.float32)


def offset_line(line_N2: Points, offset_m: float) -> Points:
    """Return the line displaced to the side of (-y, x)."""
    ahead = np.gradient(line_N2, axis=0) if len(line_N2) > 1 else np.zeros_like(line_N2)
    ahead /= np.maximum(np.hypot(*ahead.T), 1e-9)[:, None]
    return line_N2 + np.stack([-ahead[:, 1], ahead[:, 0]], 1) * offset_m


def _split_into_dashes(line_N2: Points, dash_m: float, period_m: float) -> list[tuple[Points, Points]]:
    """Return start and end of each dash along a line."""
    lengths = np.hypot(*np.diff(line_N2, axis=0).T)
    along = np.concatenate([[0.0], np.cumsum(lengths)])
    starts = np.arange(period_m / 2, max(along[-1] - dash_m, 0), period_m)
    at = np.stack([[np.interp(t, along, line_N2[:, i]) for i in (0, 1)] for t in (starts, starts + dash_m)])
    return [(at[0, :, i], at[1, :, i]) for i in range(len(starts))]
