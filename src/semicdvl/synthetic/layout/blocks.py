"""Fill blocks by their use: plots, buildings, drives, yards, parking lots, paths, fields.

Every function adds to a planner, whose grid tells what is free, so that nothing overlaps.
"""

from __future__ import annotations

import cv2
import numpy as np

from semicdvl.synthetic.layout.buildings import BUILDING_MAKERS, Building, make_terrace
from semicdvl.synthetic.layout.geometry import Points, measure_signed_area
from semicdvl.synthetic.layout.scene import (
    FREE_LAND,
    SEALED_LAND,
    WATER_LAND,
    BuildingSite,
    CarPosition,
    GroundPatch,
    ScenePlanner,
)
from semicdvl.synthetic.layout.streets import CityBlock
from semicdvl.synthetic.materials import HALL_ROOFS, PITCHED_ROOFS


def fill_block(planner: ScenePlanner, number: int) -> None:
    """Fill one block by its use; blocks must be filled in their order."""
    block = planner.plan.blocks[number]
    patches, cars = len(planner.patches), len(planner.car_places)
    ground = {"industrial": "yard", "commercial": "yard", "field": "meadow", "park": "meadow", "vacant": "meadow"}
    planner.add_area(block.inner_N2, ground.get(block.use, "lawn"), layer=0)
    short = cv2.minAreaRect(block.inner_N2.astype(np.float32))[1]
    if min(short) < 14:
        planner.add_area(block.inner_N2, "lawn", layer=0)
    elif block.use in ("detached", "rows"):
        _build_homes(planner, number, block)
    elif block.use in LARGE_BUILDINGS:
        _build_large(planner, number, block)
    elif block.use == "park":
        _add_park(planner, block)
    elif block.use == "vacant":
        _add_vacant_ground(planner, block)
    planner.contents.append((slice(patches, len(planner.patches)), slice(cars, len(planner.car_places))))


def _build_homes(planner: ScenePlanner, number: int, block: CityBlock) -> None:
    """Add houses along the edge of a block wherever one fits, facing the street."""
    rng = planner.rng
    edge = np.vstack([block.inner_N2, block.inner_N2[:1]])
    lengths = np.hypot(*np.diff(edge, axis=0).T)
    along = np.concatenate([[0], np.cumsum(lengths)])
    inward = 1.0 if measure_signed_area(block.inner_N2) > 0 else -1.0
    preferred = str(rng.choice(PITCHED_ROOFS))
    setback, depth = rng.uniform(4.5, 8.0), rng.uniform(24, 31)
    step_m = rng.uniform(14.5, 19.5)
    at = rng.uniform(0, 8)
    while at < along[-1]:
        rows = block.use == "rows"
        building = (
            make_terrace(rng, preferred, int(rng.integers(3, 8))) if rows else BUILDING_MAKERS["house"](rng, preferred)
        )
        u0, v0, u1, _ = building.local_bounds
        width = u1 - u0 + 5 if rows else max(step_m * rng.uniform(0.9, 1.15), u1 - u0 + 3.5)
        a, b = (np.array([np.interp(t, along, edge[:, i]) for i in (0, 1)]) for t in (at, at + width))
        chord = b - a
        if at + width > along[-1] or np.hypot(*chord) < 0.96 * width:
            at += 2.0
            continue
        ahead = chord / np.hypot(*chord)
        back = inward * np.array([-ahead[1], ahead[0]])
        # The frame's v axis is the u axis turned by +90 degrees: facing decides on which side of the street that is.
        heading = float(np.arctan2(ahead[1], ahead[0])) + (0.0 if inward > 0 else np.pi)
        middle = (a + b) / 2 + back * (setback - v0 + rng.uniform(-0.6, 0.9))
        lot = np.array([a, b, b + back * depth, a + back * depth])
        site = planner.try_site(building.move_to(middle[0], middle[1], heading), lot=lot, block=number, gap_m=1.2)
        if site is None:
            at += 2.0
            continue
        _add_surroundings(planner, site, a, ahead * width, back, rows=rows)
        at += width


def _add_surroundings(
    planner: ScenePlanner, site: BuildingSite, corner: Points, ahead: Points, back: Points, *, rows: bool
) -> None:
    """Add garden, drive, path, patio, hedge and vegetable bed to a home.

    Args:
        planner: gives the random numbers.
        site: gets the surroundings.
        corner: corner of the plot at the sidewalk.
        ahead: vector along the sidewalk to the other corner.
        back: unit vector away from the street.
        rows: the home is a terrace.
    """
    width = float(np.hypot(*ahead))
    unit = ahead / width
    house = site.building
    site.surroundings.append(GroundPatch(site.lot, "lawn", planner.draw_tint(0.09), layer=2))
    reach = float((np.array([house.x, house.y]) - corner) @ back) + house.local_bounds[1]  # from sidewalk to front wall
    if rows:
        _add_terrace_paths(planner, site, corner, unit, back, width=width, reach=reach)
        return
    _add_drive(planner, site, corner, unit, back, width=width, reach=reach)
    _add_garden(planner, site, corner, unit, back, width=width)


def _add_terrace_paths(
    planner: ScenePlanner, site: BuildingSite, corner: Points, unit: Points, back: Points, *, width: float, reach: float
) -> None:
    """Add a path to each door of a terrace, and hedges behind it."""
    rng = planner.rng
    _, v0, _, v1 = site.building.local_bounds
    for i in range(1, int(width / 6)):
        foot = corner + unit * (i * 6.0)
        path = np.array([foot, foot + back * reach])
        site.surroundings.append(GroundPatch(path, "concrete", planner.draw_tint(), layer=3, width_m=1.3))
        if rng.random() < 0.6:
            rear = foot + unit * 2.5 + back * (reach + v1 - v0 + 1)
            hedge = np.array([rear, rear + back * rng.uniform(5, 10)])
            site.surroundings.append(GroundPatch(hedge, "hedge", layer=3, width_m=0.8))


def _add_drive(
    planner: ScenePlanner, site: BuildingSite, corner: Points, unit: Points, back: Points, *, width: float, reach: float
) -> None:
    """Add a drive at one side of the plot, with places for one or two cars."""
    rng = planner.rng
    side = 2.8 if rng.random() < 0.5 else width - 2.8
    drive_m = reach + rng.uniform(1.0, 7.0)
    surface = str(rng.choice(["concrete", "yard", "gravel"], p=[0.5, 0.3, 0.2]))
    line = np.array([corner + unit * side - back * 2.0, corner + unit * side + back * drive_m])
    width_m = rng.uniform(2.8, 5.4)
    site.surroundings.append(GroundPatch(line, surface, planner.draw_tint(0.09), layer=3, width_m=width_m))
    heading = float(np.arctan2(back[1], back[0]))
    for _ in range(1 if width_m < 4 else 2):
        across, along = side + rng.uniform(-0.25, 0.25) * width_m, rng.uniform(2.8, max(3.0, reach - 1.5))
        x, y = corner + unit * across + back * along
        site.cars.append(CarPosition(float(x), float(y), heading, 0.42))


def _add_garden(
    planner: ScenePlanner, site: BuildingSite, corner: Points, unit: Points, back: Points, *, width: float
) -> None:
    """Add by chance a patio and a vegetable bed, and a hedge or a fence."""
    rng = planner.rng
    u0, _, _, v1 = site.building.local_bounds
    if rng.random() < 0.55:
        corners = np.array([(u0 + 1, v1 - 1), (u0 + 6, v1 - 1), (u0 + 6, v1 + 3), (u0 + 1, v1 + 3)])
        site.surroundings.append(
            GroundPatch(site.building.to_world(corners), "concrete", planner.draw_tint(0.1), layer=3)
        )
    if rng.random() < 0.3:
        along, deep = rng.uniform(0.1, 0.6) * width, rng.uniform(0.80, 0.92) * 26
        bed = corner + unit * along + back * deep
        line = np.array([bed, bed + unit * rng.uniform(2.5, 5)])
        site.surroundings.append(
            GroundPatch(line, "soil", planner.draw_tint(0.1), layer=3, width_m=rng.uniform(1.5, 3))
        )
    if rng.random() < 0.5:
        rear = site.lot[[1, 2, 3, 0]]
        hedge = rear[: int(rng.integers(2, 5))]
        site.surroundings.append(GroundPatch(hedge, "hedge", planner.draw_tint(0.1), layer=3, width_m=1.0))
    else:
        site.surroundings.append(GroundPatch(site.lot[[1, 2, 3]], "yard", (0.8, 0.75, 0.7), layer=3, width_m=0.35))


LARGE_BUILDINGS = {
    "apartments": ("apartments", 5.0, 5.0, 0.6),
    "industrial": ("hall", 5.0, 3.0, 0.5),
    "commercial": ("shop", 5.0, 1.6, 1.0),
}
"""Use -> (maker, clearance between buildings in metres, attempts per 1000 m2, share of parking lots)."""


def _build_large(planner: ScenePlanner, number: int, block: CityBlock) -> None:
    """Add large buildings along the axes of the block, then parking lots, drives and green between them."""
    rng = planner.rng
    maker, gap_m, tries_per_1000m2, parking = LARGE_BUILDINGS[block.use]
    preferred = str(rng.choice(HALL_ROOFS if maker == "hall" else PITCHED_ROOFS))
    if block.use != "apartments":  # a green border along the street
        planner.add_line(np.vstack([block.inner_N2, block.inner_N2[:1]]), "lawn", rng.uniform(2, 7), layer=1)
    for _ in range(int(measure_block_area(block) / 1000 * tries_per_1000m2) + 4):
        site = _try_places(planner, BUILDING_MAKERS[maker](rng, preferred), number, gap_m=gap_m + rng.uniform(0, 3))
        if site is not None and maker != "apartments":
            site.surroundings.append(
                GroundPatch(site.building.padded_corners(2.2), "concrete", planner.draw_tint(0.08), layer=2)
            )
        elif site is not None:
            u0, v0, u1, _ = site.building.local_bounds
            path = site.building.to_world(np.array([(u0 - 3, v0 - 2.5), (u1 + 3, v0 - 2.5)]))
            site.surroundings.append(GroundPatch(path, "concrete", planner.draw_tint(), layer=2, width_m=2.2))
    for _ in range(int(rng.poisson(parking * measure_block_area(block) / 3500)) + 1):
        _add_parking(planner, block)
    if block.use == "industrial":
        _add_stacks(planner, block)


def _try_places(planner: ScenePlanner, building: Building, number: int, *, gap_m: float) -> BuildingSite | None:
    """Try a building at random places and directions in its block."""
    block = planner.plan.blocks[number]
    for attempt in range(15):
        if attempt in (6, 11):  # too large for what is free: make it smaller
            building = building.scale_by(0.8)
        turned = _place_at_random(planner, building, block)
        site = planner.try_site(turned, lot=None, block=number, gap_m=gap_m)
        if site is not None:
            return site
    return None


def _place_at_random(planner: ScenePlanner, building: Building, block: CityBlock) -> Building:
    """Return the building at a random place on a grid of 5 m, along one of the axes of the block."""
    rng = planner.rng
    axes, low, high = block.axes
    height, width = planner.taken_HW.shape
    for _ in range(5):  # a few cheap attempts to find a free place
        x, y = ((low + np.floor((high - low) * rng.random(2) / 5) * 5) @ axes).tolist()
        if 0 <= x < width and 0 <= y < height and planner.taken_HW.item(int(y), int(x)) == FREE_LAND:
            break
    return building.move_to(x, y, block.heading + np.pi / 2 * int(rng.integers(4)))


def _add_parking(planner: ScenePlanner, block: CityBlock) -> None:
    """Add a parking lot with marked stalls where one fits: pairs of rows of 5 m on aisles of 6 m."""
    rng = planner.rng
    bays, stalls = int(rng.integers(1, 4)), int(rng.integers(8, 26))
    for attempt in range(12):
        if attempt % 3 == 2:
            bays, stalls = max(1, bays - 1), max(6, stalls - 4)
        a, b = stalls * 2.6, bays * 16.0
        frame = Building(0, 0, 0, ((-a / 2 - 1.5, -b / 2 - 1, a / 2 + 1.5, b / 2 + 1),), 0, "flat", "bitumen", 1, 0)
        frame = _place_at_random(planner, frame, block)
        if planner.is_free(frame.padded_corners(1.0)):
            break
    else:
        return
    planner.occupy(frame.padded_corners(), SEALED_LAND)
    planner.add_area(frame.padded_corners(), "yard", layer=2, spread=0.09)
    busy = rng.uniform(0.15, 0.85)
    for bay in range(bays):
        for row_v, turn in ((-b / 2 + bay * 16.0, 0.0), (-b / 2 + bay * 16.0 + 11.0, np.pi)):
            for i in range(stalls + 1):
                u = -a / 2 + i * 2.6
                planner.add_line(frame.to_world(np.array([(u, row_v), (u, row_v + 5)])), "stall", 0.22, layer=4)
                if i < stalls:
                    x, y = frame.to_world(np.array([(u + 1.3, row_v + 2.5 + rng.uniform(-0.3, 0.3))]))[0]
                    planner.car_places.append(CarPosition(x, y, frame.heading + np.pi / 2 + turn, busy))


def _add_stacks(planner: ScenePlanner, block: CityBlock) -> None:
    """Add rows of containers and heaps of goods to an industrial yard; they are not buildings."""
    rng = planner.rng
    colours = ((0.62, 0.36, 0.30), (0.42, 0.56, 0.72), (0.95, 0.95, 0.93), (0.50, 0.60, 0.46), (0.85, 0.66, 0.40))
    for _ in range(int(measure_block_area(block) / 1500)):
        count = int(rng.integers(2, 9))
        half = count * 1.35
        row = Building(0, 0, 0, ((-half, -3.2, half, 3.2),), 0, "flat", "bitumen", 1, 0)
        frame = _place_at_random(planner, row, block)
        if not planner.is_free(frame.padded_corners(1.5)):
            continue
        planner.occupy(frame.padded_corners(), SEALED_LAND)
        for i in range(count):
            u = -half + 2.7 * i
            box = frame.to_world(np.array([(u, -3.0), (u + 2.4, -3.0), (u + 2.4, 3.0), (u, 3.0)]))
            planner.patches.append(GroundPatch(box + np.array([0.7, 0.7]), "yard", (0.5, 0.5, 0.5), layer=3))
            planner.patches.append(GroundPatch(box, "yard", colours[int(rng.integers(5))], layer=4))


def _add_park(planner: ScenePlanner, block: CityBlock) -> None:
    """Add winding paths, a pond and a sports pitch to a park."""
    rng = planner.rng
    low, high = block.inner_N2.min(axis=0), block.inner_N2.max(axis=0)
    planner.add_area(block.inner_N2, str(rng.choice(["lawn", "meadow"])), layer=0)
    extent = float(np.hypot(*(high - low)))
    if extent > 110:
        for _ in range(6):
            _add_pitch(planner, block)
    middle = block.inner_N2.mean(axis=0)
    if rng.random() < 0.75 and extent > 90:
        _add_pond(planner, middle + rng.uniform(-0.15, 0.15, 2) * (high - low), rng.uniform(0.07, 0.12) * extent)
    for _ in range(int(extent / 45)):
        i, j = rng.integers(0, len(block.inner_N2), 2)
        a, b = block.inner_N2[i], block.inner_N2[j]
        t = np.linspace(0, 1, 24)[:, None]
        sway = (b - a)[::-1] * (-1, 1) * np.sin(t * np.pi) * rng.uniform(-0.25, 0.25)
        path = a + (b - a) * t + sway
        cells = np.clip(path[1:-1].astype(int), 0, np.array(planner.taken_HW.shape[::-1]) - 1)
        if (planner.taken_HW[cells[:, 1], cells[:, 0]] == FREE_LAND).all():
            planner.add_line(path, "gravel", 2.2, layer=2)


def _add_pitch(planner: ScenePlanner, block: CityBlock) -> None:
    """Add a football or tennis pitch with its lines, where one fits."""
    a, b = [(92.0, 58.0), (64.0, 42.0), (24.0, 12.0)][int(planner.rng.integers(3))]
    frame = Building(0, 0, 0, ((-a / 2 - 4, -b / 2 - 4, a / 2 + 4, b / 2 + 4),), 0, "flat", "bitumen", 1, 0)
    frame = _place_at_random(planner, frame, block)
    if not planner.is_free(frame.padded_corners()):
        return
    planner.occupy(frame.padded_corners(), SEALED_LAND)
    u0, v0, u1, v1 = frame.local_bounds
    planner.add_area(frame.padded_corners(), "pitch" if b > 20 else "yard", layer=2)
    ring = np.array([(u0 + 4, v0 + 4), (u1 - 4, v0 + 4), (u1 - 4, v1 - 4), (u0 + 4, v1 - 4), (u0 + 4, v0 + 4)])
    planner.add_line(frame.to_world(ring), "stall", 0.3)
    planner.add_line(frame.to_world(np.array([(0, v0 + 4), (0, v1 - 4)])), "stall", 0.3)
    angle = np.linspace(0, 2 * np.pi, 25)
    planner.add_line(frame.to_world(np.stack([np.cos(angle), np.sin(angle)], 1) * min(9.0, b / 4)), "stall", 0.3)


def _add_pond(planner: ScenePlanner, centre: Points, radius_m: float) -> None:
    """Add a pond with an irregular shore."""
    angle = np.linspace(0, 2 * np.pi, 72)[:-1]
    waver = np.zeros_like(angle)
    for k in (1, 2, 3, 5, 8):
        waver += planner.rng.normal(0, 0.16 / k) * np.cos(k * angle + planner.rng.uniform(0, 6))
    shore = np.stack([np.cos(angle) * 1.25, np.sin(angle)], 1) * (radius_m * (1 + waver))[:, None]
    if not planner.is_free(cv2.convexHull((shore * 1.2 + centre).astype(np.float32))[:, 0].astype(np.float64)):
        return
    planner.occupy(shore + centre, WATER_LAND)
    planner.add_area(shore * 1.10 + centre, "soil", layer=2)
    planner.add_area(shore + centre, "water", layer=3)


def _add_vacant_ground(planner: ScenePlanner, block: CityBlock) -> None:
    """Add bare ground to a plot that is not used."""
    rng = planner.rng
    low, high = block.inner_N2.min(axis=0), block.inner_N2.max(axis=0)
    for _ in range(int(rng.integers(2, 6))):
        angle = np.linspace(0, 2 * np.pi, 30)[:-1]
        size = rng.uniform(4, 14) * (1 + 0.3 * np.sin(2 * angle + rng.uniform(0, 6)) + 0.15 * np.sin(5 * angle))
        blob = (
            low + (high - low) * rng.uniform(0.3, 0.7, 2) + np.stack([np.cos(angle), np.sin(angle)], 1) * size[:, None]
        )
        planner.add_area(blob, str(rng.choice(["soil", "sand", "gravel"])), layer=1, spread=0.1)


def measure_block_area(block: CityBlock) -> float:
    """Return the area of a block in square metres."""
    return float(cv2.contourArea(block.inner_N2.astype(np.float32)))
