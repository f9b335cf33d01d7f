"""Plan the two dates: which buildings appear, disappear or are replaced, and what else differs but is no change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from shapely.geometry import Polygon, box
from shapely.ops import unary_union

from semicdvl.synthetic.config import CitySpec
from semicdvl.synthetic.layout.blocks import fill_block
from semicdvl.synthetic.layout.buildings import BUILDING_MAKERS, Building
from semicdvl.synthetic.layout.geometry import Points
from semicdvl.synthetic.layout.scene import (
    BOTH_DATES,
    BUILT_LAND,
    FIRST_DATE,
    FREE_LAND,
    SECOND_DATE,
    BuildingSite,
    GroundPatch,
    Scene,
    ScenePlanner,
    restrict_to_dates,
)
from semicdvl.synthetic.layout.street_objects import add_street_details, grow_trees, park_cars
from semicdvl.synthetic.layout.streets import WORLD_PADDING_M, plan_streets
from semicdvl.synthetic.materials import FLAT_ROOFS, HALL_ROOFS, PITCHED_ROOFS

BUILDING_CHANGE_KINDS = ("appeared", "disappeared", "replaced")
CHANGE_KIND_SHARES = (0.45, 0.25, 0.30)
DEVELOPMENT_FRAC = 0.4
"""Share of the change that is whole new blocks; the rest is scattered over the city."""

MAX_CHANGED_FRAC = 0.45
"""At most this share of the built-up area changes, whatever `change_frac` is: it remains the same city."""


def plan_scene(spec: CitySpec) -> Scene:
    """Plan the city on both dates; nuisances have a random generator of their own, so they don't move buildings."""
    height_m, width_m = (n * spec.gsd_m for n in spec.shape_px)
    layout, life, fate, nuisance = (np.random.default_rng(s) for s in np.random.SeedSequence(spec.seed).spawn(4))
    plan = plan_streets(layout, width_m=width_m, height_m=height_m)
    planner = ScenePlanner(layout, plan)
    for number in range(len(plan.blocks)):
        fill_block(planner, number)
    _farm_fields(planner, spec, fate)
    view = box(WORLD_PADDING_M, WORLD_PADDING_M, WORLD_PADDING_M + width_m, WORLD_PADDING_M + height_m)
    developed = _choose_changes(planner, fate, view, spec.change_frac * width_m * height_m)
    add_street_details(planner, life)
    patches = _assemble_ground(planner, developed, nuisance, spec)
    sites = tuple(_change_roof(site, nuisance, spec.reroof) for site in planner.sites)
    trees = grow_trees(planner, life, nuisance, spec)
    cars = park_cars(planner, life, nuisance, spec)
    return Scene(plan, tuple(patches), sites, trees, cars)


def _choose_changes(planner: ScenePlanner, rng: np.random.Generator, view: Polygon, wanted_m2: float) -> set[int]:
    """Choose what appears, disappears or is replaced until the area is reached; return the newly built blocks."""
    sizes = np.array([_visible_m2(site.building, view) for site in planner.sites])
    wanted_m2 = min(wanted_m2, MAX_CHANGED_FRAC * float(sizes.sum()))
    got = 0.0
    developed: set[int] = set()
    blocks = np.array([site.block for site in planner.sites], int)
    for block in rng.permutation(np.unique(blocks)) if len(blocks) else ():
        mine = np.flatnonzero(blocks == block)
        total = float(sizes[mine].sum())
        if len(mine) >= 3 and 0 < total <= wanted_m2 * DEVELOPMENT_FRAC - got:
            developed.add(int(block))
            got += total
            for i in mine:
                planner.sites[i].change_kind = "appeared"
    for i in rng.permutation(len(sizes)):
        site = planner.sites[i]
        if site.change_kind != "unchanged" or sizes[i] == 0:
            continue
        site.change_kind = str(rng.choice(BUILDING_CHANGE_KINDS, p=CHANGE_KIND_SHARES))
        if site.change_kind == "replaced" and not _find_successor(planner, site, rng):
            site.change_kind = "disappeared"
        size = _changed_m2(site, view)
        if got + size > wanted_m2 * 1.05 + 4:
            site.change_kind, site.successor = "unchanged", None
        else:
            got += size
    return developed


def _find_successor(planner: ScenePlanner, site: BuildingSite, rng: np.random.Generator) -> bool:
    """Find a building of another shape at the place of the old one; return False if no attempt fits."""
    old = site.building
    u0, v0, u1, v1 = old.local_bounds
    small = (u1 - u0) * (v1 - v0) < 400
    maker = "house" if small else str(rng.choice(["shop", "hall", "apartments"]))
    planner.occupy(old.padded_corners(1.0), FREE_LAND)
    before = old.to_polygon()
    for _ in range(24):
        new = BUILDING_MAKERS[maker](rng, old.material)
        turn = float(rng.choice([0, np.pi / 2, np.pi, 1.5 * np.pi]))
        nudge = rng.uniform(-2.5, 2.5, 2) if small else rng.uniform(-8, 8, 2)
        new = new.move_to(old.x + nudge[0], old.y + nudge[1], old.heading + turn)
        after = new.to_polygon()
        shared = before.intersection(after).area
        if 0.2 * before.area < shared < 0.75 * before.union(after).area and planner.is_free(new.padded_corners(1.2)):
            site.successor = new
            break
    for building in (old, site.successor):
        if building is not None:
            planner.occupy(building.rings[0], BUILT_LAND)
    return site.successor is not None


def _visible_m2(building: Building, view: Polygon) -> float:
    """Return the area of a footprint inside the image in square metres."""
    corners = building.padded_corners()
    x0, y0, x1, y1 = view.bounds
    if corners[:, 0].max() < x0 or corners[:, 0].min() > x1 or corners[:, 1].max() < y0 or corners[:, 1].min() > y1:
        return 0.0
    return float(building.to_polygon().intersection(view).area)


def _changed_m2(site: BuildingSite, view: Polygon) -> float:
    """Return the changed area of a site inside the image in square metres."""
    shapes = [b.to_polygon() for b in (site.building, site.successor) if b is not None]
    return float(unary_union(shapes).intersection(view).area)


def _change_roof(site: BuildingSite, rng: np.random.Generator, share: float) -> BuildingSite:
    """Give an unchanged building by chance another roof covering on date 2; outline and truth are the same."""
    chance, pick, tint = rng.random(), rng.random(), rng.uniform(0.85, 1.15)
    if site.change_kind != "unchanged" or chance >= share:
        return site
    family = next(f for f in (PITCHED_ROOFS, FLAT_ROOFS, HALL_ROOFS) if site.building.material in f)
    new = family[int(pick * len(family))]
    return replace(site, successor=replace(site.building, material=new, tint=float(tint)))


def _farm_fields(planner: ScenePlanner, spec: CitySpec, rng: np.random.Generator) -> None:
    """Add fields: one crop state per date, furrows along the field, a border of meadow."""
    states = ("crop", "ripe", "ploughed", "stubble")
    for block in planner.plan.blocks:
        if block.use != "field":
            continue
        first = str(rng.choice(states))
        second = str(rng.choice([state for state in states if state != first]))
        if rng.random() >= spec.field_turnover:
            second = first
        middle = block.inner_N2.mean(axis=0)
        inner = middle + (block.inner_N2 - middle) * 0.97
        tint = planner.draw_tint(0.09)
        spacing = float(rng.choice([2.2, 3.0, 4.5]))
        turn = block.heading + float(rng.choice([0, 0, np.pi / 2])) + rng.uniform(-0.03, 0.03)
        for state, dates in ((first, FIRST_DATE), (second, SECOND_DATE)):
            strength = {"crop": 0.07, "ripe": 0.05, "ploughed": 0.10, "stubble": 0.06}[state]
            row = (float(turn), spacing, strength)
            planner.patches.append(GroundPatch(inner, state, tint, dates, layer=1, furrows=row))


def _assemble_ground(
    planner: ScenePlanner, developed: set[int], rng: np.random.Generator, spec: CitySpec
) -> list[GroundPatch]:
    """Collect the ground of both dates: plots with and without buildings, old and new surfaces, gardens."""
    _remove_from_first_date(planner, developed)
    patches = [_resurface(p, rng, spec.repaint) for p in planner.patches]
    ground: list[GroundPatch] = [new for pair in patches for new in pair]
    for number in sorted(developed):
        block = planner.plan.blocks[number]
        wild = "soil" if number % 3 == 0 else "meadow"
        ground.append(GroundPatch(block.inner_N2, wild, (1.0, 1.0, 1.0), FIRST_DATE, layer=2))
    for site in planner.sites:
        there = {"appeared": SECOND_DATE, "disappeared": FIRST_DATE}.get(site.change_kind, BOTH_DATES)
        for dressing in site.surroundings:
            # Without its house a plot keeps a lawn; drive, patio and hedge exist with the house.
            ground.append(restrict_to_dates(dressing, there))
        if there != BOTH_DATES and site.block not in developed:
            plot = "yard" if planner.plan.blocks[site.block].use in ("industrial", "commercial") else "lawn"
            ground.append(GroundPatch(site.lot, plot, (1.0, 1.0, 1.0), BOTH_DATES & ~there, layer=2))
            ground.append(
                GroundPatch(
                    _make_bare_ground(site.building, rng), site.vacant, (1.0, 1.0, 1.0), BOTH_DATES & ~there, layer=3
                )
            )
        planner.car_places += [replace(place, dates=there) for place in site.cars]
        ground += [p for p in _make_garden(site, rng, spec.garden) if planner.is_free(p.points_N2)]
    return sorted((p for p in ground if p.dates), key=lambda p: p.layer)


def _remove_from_first_date(planner: ScenePlanner, developed: set[int]) -> None:
    """Remove what belongs to newly built blocks (yards, parking lots and their cars) from date 1."""
    for number in developed:
        patches, cars = planner.contents[number]
        planner.patches[patches] = [
            p if p.layer == 0 else restrict_to_dates(p, SECOND_DATE) for p in planner.patches[patches]
        ]
        planner.car_places[cars] = [replace(place, dates=SECOND_DATE) for place in planner.car_places[cars]]


def _make_bare_ground(building: Building, rng: np.random.Generator) -> Points:
    """Return the bare ground of a plot: the rectangle around the building, dilated, with an uneven edge."""
    hull = building.padded_corners(2.0)
    t = np.linspace(0, 1, 9)[:-1, None]
    ring = np.vstack([a + (b - a) * t for a, b in zip(hull, np.roll(hull, -1, axis=0), strict=True)])
    middle = ring.mean(axis=0)
    uneven: Points = middle + (ring - middle) * (1 + 0.05 * rng.standard_normal((len(ring), 1)))
    return uneven


def _resurface(patch: GroundPatch, rng: np.random.Generator, share: float) -> list[GroundPatch]:
    """Give a sealed surface by chance another colour on date 2; other ground stays as it is."""
    chance, light = rng.random(), rng.normal(1.0, 0.10)
    if patch.material not in ("yard", "marking", "stall", "concrete", "gravel", "asphalt") or chance >= share:
        return [patch]
    r, g, b = patch.tint
    return [
        restrict_to_dates(patch, FIRST_DATE),
        replace(patch, tint=(r * light, g * light, b * light), dates=patch.dates & SECOND_DATE),
    ]


def _make_garden(site: BuildingSite, rng: np.random.Generator, share: float) -> list[GroundPatch]:
    """Return pools, awnings and trampolines behind a home; the nuisance `garden` adds or removes some."""
    chance = rng.random(5)
    u0, v0, u1, v1 = site.building.local_bounds
    if (u1 - u0) * (v1 - v0) > 260 or chance[0] > 0.35 or site.change_kind != "unchanged":
        return []
    dates = BOTH_DATES if chance[1] >= share else (FIRST_DATE if chance[2] < 0.5 else SECOND_DATE)
    middle = np.array([u0 + (u1 - u0) * chance[3], v1 + 7.0])
    if chance[4] < 0.4:
        half = np.array([(-4, -2), (4, -2), (4, 2), (-4, 2)]) * (0.7 + 0.5 * chance[2])
        deck = GroundPatch(site.building.to_world(middle + half * 1.45), "concrete", (1.05, 1.03, 1.0), dates, layer=4)
        return [deck, GroundPatch(site.building.to_world(middle + half), "pool", (1.0, 1.0, 1.0), dates, layer=5)]
    if chance[4] < 0.7:
        half = np.array([(-2, -1.4), (2, -1.4), (2, 1.4), (-2, 1.4)])
        place = np.array([middle[0], v1 + 1.2])
        return [GroundPatch(site.building.to_world(place + half), "stall", (1.0, 0.93, 0.80), dates, layer=4)]
    angle = np.linspace(0, 2 * np.pi, 17)[:-1]
    disc = middle + np.stack([np.cos(angle), np.sin(angle)], 1) * 1.9
    return [GroundPatch(site.building.to_world(disc), "yard", (0.45, 0.48, 0.52), dates, layer=4)]
