"""Buildings of a synthetic city: footprints made of rectangles, height, roof form and roof material."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from shapely.geometry import Polygon, box
from shapely.ops import unary_union

from semicdvl.synthetic.layout.geometry import Points
from semicdvl.synthetic.materials import FLAT_ROOFS, HALL_ROOFS, PITCHED_ROOFS

Wing = tuple[float, float, float, float]
"""(u0, v0, u1, v1) in metres in the building's own frame: u along the street, v away from it."""


@dataclass(frozen=True)
class Building:
    """One building.

    Attributes:
        x, y: centre of its frame in metres of the world.
        heading: direction of the frame's u axis, radians.
        wings: rectangles whose union is the footprint; a pitched roof has one ridge per wing.
        height_m: height of the eaves (pitched) or of the roof (flat).
        roof: `gable`, `hip`, `flat` or `hall` (low-pitched, profiled sheets).
        material: a roof of `MATERIALS`.
        tint: brightness of this roof relative to its material.
        seed: of the details on the roof.
    """

    x: float
    y: float
    heading: float
    wings: tuple[Wing, ...]
    height_m: float
    roof: str
    material: str
    tint: float
    seed: int

    def to_world(self, uv_N2: Points) -> Points:
        """Transform points from the building's frame to metres of the world."""
        c, s = np.cos(self.heading), np.sin(self.heading)
        out: Points = np.asarray(uv_N2, float) @ np.array([[c, s], [-s, c]]) + (self.x, self.y)
        return out

    @cached_property
    def local_bounds(self) -> Wing:
        """The rectangle around all wings, in the building's frame."""
        u0, v0, u1, v1 = zip(*self.wings, strict=True)
        return min(u0), min(v0), max(u1), max(v1)

    def padded_corners(self, margin_m: float = 0.0) -> Points:
        """Return the four corners, in the world, of `local_bounds` dilated by a margin."""
        u0, v0, u1, v1 = self.local_bounds
        m = margin_m
        return self.to_world(np.array([(u0 - m, v0 - m), (u1 + m, v0 - m), (u1 + m, v1 + m), (u0 - m, v1 + m)]))

    @cached_property
    def rings(self) -> list[Points]:
        """The outer outline and the outlines of courtyards, in the world."""
        if len(self.wings) == 1:
            return [self.padded_corners()]
        union = unary_union([box(*wing) for wing in self.wings])
        assert isinstance(union, Polygon), "wings touch each other"
        return [self.to_world(np.array(r.coords)[:-1]) for r in (union.exterior, *union.interiors)]

    def to_polygon(self) -> Polygon:
        """Return the footprint in metres of the world."""
        shell, *holes = self.rings
        return Polygon(shell, holes)

    def move_to(self, x: float, y: float, heading: float) -> Building:
        """Return the building at another place."""
        return replace(self, x=float(x), y=float(y), heading=float(heading))

    def scale_by(self, factor: float) -> Building:
        """Return the building with a footprint scaled by this factor in both directions."""
        wings = tuple((u0 * factor, v0 * factor, u1 * factor, v1 * factor) for u0, v0, u1, v1 in self.wings)
        return replace(self, wings=wings)


def make_house(rng: np.random.Generator, preferred: str) -> Building:
    """Return a detached house of 75-260 m2; `preferred` is the usual roof material of its neighbourhood."""
    a, b = rng.uniform(9.5, 16.0), rng.uniform(8.0, 12.5)
    main: Wing = (-a / 2, -b / 2, a / 2, b / 2)
    wings: tuple[Wing, ...] = (main,)
    form = rng.random()
    if form < 0.32:  # L: a wing or garage at one end, towards the street or the garden
        w, deep = rng.uniform(4.5, 6.5), rng.uniform(2.5, 5.5)
        u0 = -a / 2 if rng.random() < 0.5 else a / 2 - w
        wings = (main, (u0, b / 2 - b * 0.6, u0 + w, b / 2 + deep))
        if rng.random() < 0.5:
            wings = (main, (u0, -b / 2 - deep, u0 + w, -b / 2 + b * 0.6))
    elif form < 0.42:  # T
        w = rng.uniform(4.5, 6.5)
        wings = (main, (-w / 2, 0.0, w / 2, b / 2 + rng.uniform(2.5, 4.5)))
    elif form < 0.52:  # offset halves
        shift = rng.uniform(1.5, 3.5)
        wings = ((-a / 2, -b / 2, a * 0.1, b / 2), (-a * 0.1, -b / 2 + shift, a / 2, b / 2 + shift))
    modern = rng.random() < 0.07
    material = str(rng.choice(FLAT_ROOFS)) if modern else _pick_material(rng, preferred, PITCHED_ROOFS, 0.72)
    roof = "flat" if modern else ("hip" if rng.random() < 0.45 else "gable")
    return _make_building(rng, wings, rng.uniform(3.2, 6.8), roof, material)


def make_terrace(rng: np.random.Generator, preferred: str, units: int) -> Building:
    """Return a row of `units` joined houses under one ridge."""
    unit, depth = rng.uniform(5.4, 6.6), rng.uniform(9.0, 11.5)
    a = unit * units
    material = _pick_material(rng, preferred, PITCHED_ROOFS, 0.85)
    return _make_building(rng, ((-a / 2, -depth / 2, a / 2, depth / 2),), rng.uniform(5.5, 8.0), "gable", material)


def make_apartments(rng: np.random.Generator, preferred: str) -> Building:
    """Return a slab, an L, a U, a courtyard block or a tower, 9-30 m high."""
    t = rng.uniform(11.5, 14.5)
    a, b = rng.uniform(28, 58), rng.uniform(26, 42)
    form = rng.random()
    height = rng.uniform(9, 19)
    slab: Wing = (-a / 2, -t / 2, a / 2, t / 2)
    wings: tuple[Wing, ...] = (slab,)
    front: Wing = (-a / 2, -b / 2, a / 2, -b / 2 + t)
    left: Wing = (-a / 2, -b / 2, -a / 2 + t, b / 2)
    right: Wing = (a / 2 - t, -b / 2, a / 2, b / 2)
    if form < 0.16:
        wings = (front, left)
    elif form < 0.30 and a > 3 * t:
        wings = (front, left, right)
    elif form < 0.42 and a > 3 * t:
        front = (-a / 2, -b / 2 - 5, a / 2, -b / 2 - 5 + t)
        back: Wing = (-a / 2, b / 2 + 5 - t, a / 2, b / 2 + 5)
        wings = (
            front,
            back,
            (left[0], left[1] - 5, left[2], left[3] + 5),
            (right[0], right[1] - 5, right[2], right[3] + 5),
        )
    elif form < 0.55:
        side = rng.uniform(17, 23)
        wings, height = ((-side / 2, -side / 2, side / 2, side / 2),), rng.uniform(18, 30)
    pitched = rng.random() < 0.3 and height < 15
    material = (
        _pick_material(rng, preferred, PITCHED_ROOFS, 0.8)
        if pitched
        else str(rng.choice(FLAT_ROOFS, p=[0.5, 0.2, 0.3]))
    )
    return _make_building(rng, wings, height, "hip" if pitched else "flat", material)


def make_hall(rng: np.random.Generator, preferred: str) -> Building:
    """Return a warehouse or factory hall, some with an office wing."""
    a, b = rng.uniform(24, 78), rng.uniform(18, 46)
    wings: tuple[Wing, ...] = ((-a / 2, -b / 2, a / 2, b / 2),)
    if rng.random() < 0.35:
        w = rng.uniform(9, 14)
        wings = (*wings, (-a / 2, -b / 2 - w, -a / 2 + rng.uniform(0.3, 0.7) * a, -b / 2))
    material = _pick_material(rng, preferred, HALL_ROOFS, 0.4)
    roof = "hall" if material.startswith("metal") else "flat"
    return _make_building(rng, wings, rng.uniform(6, 11.5), roof, material)


def make_shop(rng: np.random.Generator, preferred: str) -> Building:
    """Return a supermarket, school or office: flat, broad, sometimes L, T or U."""
    a, b = rng.uniform(26, 56), rng.uniform(18, 34)
    t = rng.uniform(12, 16)
    main: Wing = (-a / 2, -b / 2, a / 2, b / 2)
    form = rng.random()
    wings: tuple[Wing, ...] = (main,)
    if form < 0.25:
        wings = ((-a / 2, -b / 2, a / 2, -b / 2 + t), (-a / 2, -b / 2, -a / 2 + t, b / 2))
    elif form < 0.4:
        wings = ((-a / 2, -b / 2, a / 2, -b / 2 + t), (-t / 2, -b / 2, t / 2, b / 2))
    return _make_building(rng, wings, rng.uniform(4.5, 11), "flat", str(rng.choice(FLAT_ROOFS, p=[0.4, 0.4, 0.2])))


BUILDING_MAKERS = {"house": make_house, "apartments": make_apartments, "hall": make_hall, "shop": make_shop}


def _pick_material(rng: np.random.Generator, preferred: str, others: tuple[str, ...], preference: float) -> str:
    """Return the preferred material with probability `preference`, else any of the others."""
    return preferred if preferred in others and rng.random() < preference else str(rng.choice(others))


def _make_building(
    rng: np.random.Generator, wings: tuple[Wing, ...], height_m: float, roof: str, material: str
) -> Building:
    """Return a building at the origin with a random tint and seed."""
    tint = float(np.clip(rng.normal(1.0, 0.10), 0.75, 1.28))
    return Building(0.0, 0.0, 0.0, wings, float(height_m), roof, material, tint, int(rng.integers(1 << 31)))
