"""Street plan of a synthetic city: main roads, side streets, a river, and the blocks between them.

The city is made by cutting: a rectangle is cut by a river and a few main roads into districts; each district gets a use
and is cut further by side streets along its own axis until its blocks have the usual size of the use. Every cut
leaves a gap of the width of its street, so blocks and streets tile the plane exactly. A smooth warp then bends
everything, which turns straight cuts into the curved, slightly irregular streets of real places.

Coordinates are metres, x to the right and y down, from the corner of a world that is larger than the image by
`WORLD_PADDING_M`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from semicdvl.synthetic.layout.geometry import (
    Points,
    cut_polygon,
    densify_line,
    find_chord,
    fit_smallest_box,
    inset_polygon,
    make_rectangle,
    measure_area,
    round_corners,
)

WORLD_PADDING_M = 60.0
"""The world is larger than the image by this on each side, so that its edge and incomplete blocks are not visible."""

SIDEWALK_M = 2.0

# Use of a block -> (longest short side, longest long side, width of its side streets), all in metres.
BLOCK_SIZE_M = {
    "detached": (84.0, 185.0, 7.5),
    "rows": (68.0, 140.0, 7.0),
    "apartments": (125.0, 170.0, 8.5),
    "industrial": (190.0, 260.0, 10.0),
    "commercial": (170.0, 220.0, 9.0),
    "park": (220.0, 300.0, 6.0),
    "field": (120.0, 230.0, 3.5),
}
# From the middle of the city outwards; districts take their use from here by distance and chance.
USES_BY_DISTANCE = (
    "apartments",
    "detached",
    "rows",
    "detached",
    "commercial",
    "detached",
    "park",
    "detached",
    "industrial",
    "detached",
    "field",
    "detached",
    "field",
)
"""Uses from the middle of the city outwards; a district gets its use by distance, with some randomness."""


@dataclass(frozen=True)
class Street:
    """A street or river: centre line and outline, both bent, and its kind: `main`, `side`, `lane` or `river`."""

    line_N2: Points
    outline_N2: Points
    width_m: float
    kind: str


@dataclass(frozen=True)
class CityBlock:
    """Land between streets: outlines at the kerb and inside the sidewalk, use, direction of the long axis (radians)."""

    kerb_N2: Points
    inner_N2: Points
    use: str
    heading: float

    @cached_property
    def axes(self) -> tuple[Points, Points, Points]:
        """Unit vectors along and across the block as rows of a 22, and the lowest and highest coordinate along them."""
        c, s = np.cos(self.heading), np.sin(self.heading)
        unit_22 = np.array([[c, s], [-s, c]])
        local = self.inner_N2 @ unit_22.T
        return unit_22, local.min(axis=0), local.max(axis=0)


@dataclass(frozen=True)
class StreetPlan:
    """What `plan_streets` lays out; `river` and `banks` are None in a city without a river."""

    size_m: tuple[float, float]
    blocks: tuple[CityBlock, ...]
    streets: tuple[Street, ...]
    banks: Street | None
    river: Street | None


def plan_streets(rng: np.random.Generator, *, width_m: float, height_m: float) -> StreetPlan:
    """Lay out streets and blocks for an image of this size, and for `WORLD_PADDING_M` around it."""
    size = np.array([width_m, height_m]) + 2 * WORLD_PADDING_M
    bend = _draw_bend(rng)
    theta = rng.uniform(0, np.pi)
    districts = [make_rectangle(size)]
    banks = river = None
    if rng.random() < 0.65 and min(width_m, height_m) > 250:
        districts, banks, river = _cut_river(rng, districts, size, theta=theta + rng.uniform(-0.3, 0.3), bend=bend)
    streets: list[Street] = []
    for point, angle, gap in _draw_main_roads(rng, size, theta):
        districts = [
            part for old in districts for part in cut_polygon(old, point, angle, gap) if measure_area(part) > 150
        ]
        streets.append(_make_street(angle, find_chord(make_rectangle(size), point, angle), gap, "main", bend))
    blocks: list[CityBlock] = []
    for district, use in zip(districts, _assign_uses(rng, districts, size), strict=True):
        _split_district(rng, district, use, bend, blocks, streets)
    return StreetPlan((float(size[0]), float(size[1])), tuple(blocks), tuple(streets), banks, river)


def _draw_bend(rng: np.random.Generator) -> Callable[[Points], Points]:
    """Return a smooth bend of the plane: a few sine waves of 300-900 m length and together some 20 m height."""
    count = 5
    waves_m = rng.uniform(320, 900, count)
    angles, phases = rng.uniform(0, 2 * np.pi, (2, count))
    push = rng.normal(size=(count, 2)) * (waves_m / 900 * 15)[:, None]
    k = np.stack([np.cos(angles), np.sin(angles)]) * (2 * np.pi / waves_m)
    return lambda points_N2: points_N2 + np.sin(points_N2 @ k + phases) @ push


def _draw_main_roads(rng: np.random.Generator, size: Points, theta: float) -> list[tuple[Points, float, float]]:
    """Return (point, angle, width) of the main roads: two families, roughly square to each other, some 280 m apart."""
    lines = []
    for family in (0.0, np.pi / 2):
        normal = theta + family + np.pi / 2
        span = abs(np.cos(normal)) * size[0] + abs(np.sin(normal)) * size[1]
        count = max(1, round(span / rng.uniform(260, 330)))
        for i in range(count):
            offset = ((i + 0.5 + rng.uniform(-0.2, 0.2)) / count - 0.5) * span
            point = size / 2 + offset * np.array([np.cos(normal), np.sin(normal)])
            lines.append((point, theta + family + rng.uniform(-0.12, 0.12), float(rng.choice([11.0, 13.0, 19.0]))))
    return lines


def _cut_river(
    rng: np.random.Generator, districts: list[Points], size: Points, *, theta: float, bend: Callable[[Points], Points]
) -> tuple[list[Points], Street, Street]:
    """Cut the world by a river: banks of constant width with an irregular water line between them."""
    point = size * rng.uniform(0.2, 0.8, 2)
    width = rng.uniform(18, 34)
    gap = width * 1.15 + 26
    ends = find_chord(make_rectangle(size), point, theta)
    banks = _make_street(theta, ends, gap, "river", bend)
    along = densify_line(ends)
    direction = np.array([np.cos(theta), np.sin(theta)])
    normal = np.array([-direction[1], direction[0]])
    t = along @ direction
    sides = []
    for sign in (-1, 1):
        waver = sum(rng.uniform(1, 3) * np.sin(t / rng.uniform(12, 45) + rng.uniform(0, 6)) for _ in range(3))
        sides.append(along + normal * (sign * width / 2 + waver + rng.uniform(-2, 2))[:, None])
    water = bend(np.vstack([sides[0], sides[1][::-1]]))
    river = Street(bend(along), water, width, "river")
    return [part for old in districts for part in cut_polygon(old, point, theta, gap)], banks, river


def _assign_uses(rng: np.random.Generator, districts: list[Points], size: Points) -> list[str]:
    """Assign a use to each district: dense ones in the middle, industry and fields outside, with some randomness."""
    middle = size * rng.uniform(0.35, 0.65, 2)
    far = np.array([np.hypot(*(d.mean(axis=0) - middle)) for d in districts])
    order = np.argsort(far + rng.uniform(0, 0.25 * far.max() + 1e-9, len(far)))
    uses = [""] * len(districts)
    for rank, index in enumerate(order):
        place = (rank + rng.uniform(0, 1)) / len(districts)
        uses[index] = USES_BY_DISTANCE[min(int(place * len(USES_BY_DISTANCE)), len(USES_BY_DISTANCE) - 1)]
    return uses


def _split_district(
    rng: np.random.Generator,
    district: Points,
    use: str,
    bend: Callable[[Points], Points],
    blocks: list[CityBlock],
    streets: list[Street],
) -> None:
    """Cut a district into blocks along its own axes, with streets that are only nearly parallel."""
    short_m, long_m, gap = BLOCK_SIZE_M[use]
    todo = [district]
    while todo:
        poly = todo.pop()
        if measure_area(poly) < 120:
            continue
        centre, extent, heading = fit_smallest_box(poly)
        if extent[1] > short_m:
            angle = heading
        elif extent[0] > long_m:
            angle = heading + np.pi / 2
        else:
            blocks.append(_make_block(rng, poly, use, heading, bend))
            continue
        angle += rng.uniform(-0.05, 0.05)
        normal = np.array([-np.sin(angle), np.cos(angle)])
        span = extent[1] if extent[1] > short_m else extent[0]
        point = centre + normal * span * rng.uniform(-0.09, 0.09)
        kind = "lane" if use == "field" else "side"
        streets.append(_make_street(angle, find_chord(poly, point, angle), gap, kind, bend))
        todo += cut_polygon(poly, point, angle, gap)


def _make_block(
    rng: np.random.Generator, poly: Points, use: str, heading: float, bend: Callable[[Points], Points]
) -> CityBlock:
    """Round the corners, set the sidewalk in, bend; now and then a block has another use than its district."""
    if use in ("detached", "rows", "apartments") and rng.random() < 0.08:
        use = str(rng.choice(["park", "commercial", "apartments", "apartments", "vacant"]))
    sidewalk = 0.3 if use == "field" else SIDEWALK_M
    inner = inset_polygon(poly, sidewalk)
    inner = inner if len(inner) >= 3 else poly
    middle = poly.mean(axis=0)
    centre, ahead = bend(np.stack([middle, middle + np.array([np.cos(heading), np.sin(heading)])]))
    turned = float(np.arctan2(*(ahead - centre)[::-1]))
    kerb, edge = (
        bend(densify_line(round_corners(ring, radius), closed=True)) for ring, radius in ((poly, 5.0), (inner, 3.5))
    )
    return CityBlock(kerb, edge, use, turned)


def _make_street(angle: float, ends_22: Points, width_m: float, kind: str, bend: Callable[[Points], Points]) -> Street:
    """Return the bent street between two points; `angle` is the direction from one to the other."""
    along = densify_line(ends_22)
    side = np.array([-np.sin(angle), np.cos(angle)]) * width_m / 2
    return Street(bend(along), bend(np.vstack([along - side, (along + side)[::-1]])), width_m, kind)
