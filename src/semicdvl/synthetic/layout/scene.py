"""The plan of a synthetic city on both dates: its parts, and the planner that places them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from semicdvl.synthetic.layout.buildings import Building
from semicdvl.synthetic.layout.geometry import Points
from semicdvl.synthetic.layout.streets import StreetPlan

FIRST_DATE, SECOND_DATE, BOTH_DATES = 1, 2, 3
"""The dates on which something exists, as bits."""

FREE_LAND, SEALED_LAND, BUILT_LAND, WATER_LAND = 0, 1, 2, 3
"""Values of the occupancy grid: free to plant or build, street or yard, building, water."""


@dataclass(frozen=True)
class GroundPatch:
    """A piece of ground, or a line on it.

    Attributes:
        points_N2: outline, or the line where `width_m` is given; metres of the world.
        material: a key of `MATERIALS`.
        tint: factor of the material's colour, one number per band.
        dates: FIRST_DATE, SECOND_DATE or BOTH_DATES.
        layer: lower layers are painted first.
        width_m: None for an area.
        furrows: (direction in radians, spacing in metres, strength) of rows on a field, or None.
    """

    points_N2: Points
    material: str
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    dates: int = BOTH_DATES
    layer: int = 1
    width_m: float | None = None
    furrows: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class CarPosition:
    """A place for a car: centre in metres, direction in radians, probability of a car, dates on which it exists."""

    x: float
    y: float
    heading: float
    chance: float
    dates: int = BOTH_DATES
    length_m: float = 4.4


@dataclass
class BuildingSite:
    """A plot with a building, and on which dates the building exists.

    Attributes:
        building: the building of date 1 (and 2, unless replaced).
        lot: the plot.
        block: number of its block.
        surroundings: drive, garden, patio; they exist with the building.
        cars: places for cars that exist with the building.
        vacant: material of the plot without the building.
        change_kind: unchanged, appeared, disappeared or replaced.
        successor: the building of date 2 where it was replaced or got another roof covering.
    """

    building: Building
    lot: Points
    block: int
    surroundings: list[GroundPatch] = field(default_factory=list)
    cars: list[CarPosition] = field(default_factory=list)
    vacant: str = "soil"
    change_kind: str = "unchanged"
    successor: Building | None = None

    def building_on(self, date: int) -> Building | None:
        """Return the building of the site on FIRST_DATE or SECOND_DATE, if there is one."""
        if self.successor is not None and date == SECOND_DATE:
            return self.successor
        gone = {"appeared": FIRST_DATE, "disappeared": SECOND_DATE}.get(self.change_kind)
        return None if gone == date else self.building


@dataclass(frozen=True)
class Trees:
    """All trees, one per entry; crown radii in metres on both dates, 0 where there is no tree on that date."""

    xy_N2: Points
    radius_m_N2: NDArray[np.float32]
    species_N: NDArray[np.uint8]
    tint_N: NDArray[np.float32]
    shape_N: NDArray[np.uint8]


@dataclass(frozen=True)
class Cars:
    """All cars of one date, one per entry: x, y, heading, length, and index of the colour."""

    place_N4: NDArray[np.float64]
    colour_N: NDArray[np.int64]


@dataclass(frozen=True)
class Scene:
    """The complete plan, from which both dates are rendered."""

    plan: StreetPlan
    patches: tuple[GroundPatch, ...]
    sites: tuple[BuildingSite, ...]
    trees: Trees
    cars: tuple[Cars, Cars]

    def buildings(self, date: int) -> list[tuple[BuildingSite, Building]]:
        """Return the buildings of FIRST_DATE or SECOND_DATE with their sites."""
        found = [(site, site.building_on(date)) for site in self.sites]
        return [(site, building) for site, building in found if building is not None]


class ScenePlanner:
    """Collects ground, building sites and car positions, with a grid of 1 m of the land that is occupied."""

    def __init__(self, rng: np.random.Generator, plan: StreetPlan) -> None:
        """Start with streets and water occupied and all blocks free."""
        self.rng, self.plan = rng, plan
        self.patches: list[GroundPatch] = []
        self.sites: list[BuildingSite] = []
        self.car_places: list[CarPosition] = []
        self.contents: list[tuple[slice, slice]] = []  # per block: its pieces of ground, its car positions
        width, height = (int(np.ceil(v)) for v in plan.size_m)
        self.taken_HW = np.full((height, width), SEALED_LAND, np.uint8)
        self.block_HW = np.full((height, width), -1, np.int32)
        if plan.banks is not None and plan.river is not None:
            self.occupy(plan.banks.outline_N2, FREE_LAND)
            self.occupy(plan.river.outline_N2, WATER_LAND)
        for street in plan.streets:
            self.occupy(street.outline_N2, SEALED_LAND)
        for number, block in enumerate(plan.blocks):
            self.occupy(block.inner_N2, FREE_LAND)
            cv2.fillPoly(self.block_HW, [np.round(block.inner_N2).astype(np.int32)], number)

    def occupy(self, poly_N2: Points, value: int) -> None:
        """Mark an area of the grid."""
        cv2.fillPoly(self.taken_HW, [np.round(poly_N2 - 0.5).astype(np.int32)], value)

    def is_free(self, poly_N2: Points) -> bool:
        """Tell whether a convex area is completely free."""
        grid = np.rint(poly_N2 - 0.5).astype(np.int32)
        corners = grid.tolist()
        left, right = min(x for x, _ in corners), max(x for x, _ in corners) + 1
        top, bottom = min(y for _, y in corners), max(y for _, y in corners) + 1
        if left < 0 or top < 0 or right > self.taken_HW.shape[1] or bottom > self.taken_HW.shape[0]:
            return False
        if any(
            self.taken_HW.item(y, x) for x, y in corners
        ):  # most conflicts are at a corner, where the check is cheap
            return False
        mask = np.zeros((bottom - top, right - left), np.uint8)
        cv2.fillConvexPoly(mask, grid - (left, top), 255)
        return not cv2.countNonZero(cv2.bitwise_and(self.taken_HW[top:bottom, left:right], mask))

    def try_site(self, building: Building, *, lot: Points | None, block: int, gap_m: float) -> BuildingSite | None:
        """Add a building if it and `gap_m` around it are free; return its site, or None."""
        if not self.is_free(building.padded_corners(gap_m)):
            return None
        for ring in building.rings[:1]:
            self.occupy(ring, BUILT_LAND)
        vacant = str(self.rng.choice(["soil", "meadow", "lawn", "yard", "gravel"], p=[0.42, 0.3, 0.1, 0.1, 0.08]))
        site = BuildingSite(building, building.padded_corners(3.0) if lot is None else lot, block, vacant=vacant)
        self.sites.append(site)
        return site

    def draw_tint(self, spread: float = 0.06) -> tuple[float, float, float]:
        """Return a random brightness with a little random hue."""
        light = 1 + spread * float(self.rng.standard_normal())
        r, g, b = light * (1 + 0.12 * spread * self.rng.standard_normal(3))
        return float(r), float(g), float(b)

    def add_area(self, points_N2: Points, material: str, *, layer: int = 1, spread: float = 0.06) -> None:
        """Add an area of ground, which is there at both dates."""
        self.patches.append(GroundPatch(points_N2, material, self.draw_tint(spread), BOTH_DATES, layer))

    def add_line(self, points_N2: Points, material: str, width_m: float, *, layer: int = 3) -> None:
        """Add a line on the ground, which is there at both dates."""
        self.patches.append(GroundPatch(points_N2, material, self.draw_tint(0.04), BOTH_DATES, layer, width_m))


def restrict_to_dates(patch: GroundPatch, dates: int) -> GroundPatch:
    """Return the piece of ground restricted to some dates."""
    return replace(patch, dates=patch.dates & dates)
