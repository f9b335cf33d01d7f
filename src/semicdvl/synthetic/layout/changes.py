"""Between the dates: which buildings come, go or are replaced, and everything else that differs but is no change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from shapely.geometry import Polygon, box
from shapely.ops import unary_union

from semicdvl.synthetic.config import CitySpec
from semicdvl.synthetic.layout.blocks import fill_block
from semicdvl.synthetic.layout.buildings import MAKERS, Building
from semicdvl.synthetic.layout.geometry import Points
from semicdvl.synthetic.layout.scene import BOTH, BUILT, FIRST, FREE, SECOND, Patch, Scene, Site, Sketch, only_on
from semicdvl.synthetic.layout.street_objects import grow_trees, park_cars, street_details
from semicdvl.synthetic.layout.streets import PAD_M, plan_streets
from semicdvl.synthetic.rendering.palette import FLAT_ROOFS, HALL_ROOFS, PITCHED_ROOFS

FATES = ("appeared", "disappeared", "replaced")
FATE_SHARE = (0.45, 0.25, 0.30)
DEVELOPMENT_FRAC = 0.4
"""Share of the change that is built as whole new blocks; the rest is scattered over the city."""

MAX_CHANGED_FRAC = 0.45
"""No more than this share of the built-up area changes, however much is asked for: it stays the same city."""


def plan_scene(spec: CitySpec) -> Scene:
    """Plan the city on both dates. Nuisances draw from a stream of their own: they don't move houses."""
    height_m, width_m = (n * spec.gsd_m for n in spec.shape_px)
    layout, life, fate, nuisance = (np.random.default_rng(s) for s in np.random.SeedSequence(spec.seed).spawn(4))
    plan = plan_streets(layout, width_m=width_m, height_m=height_m)
    sketch = Sketch(layout, plan)
    for number in range(len(plan.blocks)):
        fill_block(sketch, number)
    _fields(sketch, spec, fate)
    view = box(PAD_M, PAD_M, PAD_M + width_m, PAD_M + height_m)
    developed = _choose_fates(sketch, fate, view, spec.change_frac * width_m * height_m)
    street_details(sketch, life)
    patches = _assemble(sketch, developed, nuisance, spec)
    sites = tuple(_reroofed(site, nuisance, spec.reroof) for site in sketch.sites)
    trees = grow_trees(sketch, life, nuisance, spec)
    cars = park_cars(sketch, life, nuisance, spec)
    return Scene(plan, tuple(patches), sites, trees, cars)


def _choose_fates(sketch: Sketch, rng: np.random.Generator, view: Polygon, wanted_m2: float) -> set[int]:
    """Let buildings appear, disappear and be replaced until the area is met; return the blocks newly developed."""
    sizes = np.array([_seen_m2(site.building, view) for site in sketch.sites])
    wanted_m2 = min(wanted_m2, MAX_CHANGED_FRAC * float(sizes.sum()))
    got = 0.0
    developed: set[int] = set()
    blocks = np.array([site.block for site in sketch.sites], int)
    for block in rng.permutation(np.unique(blocks)) if len(blocks) else ():
        mine = np.flatnonzero(blocks == block)
        total = float(sizes[mine].sum())
        if len(mine) >= 3 and 0 < total <= wanted_m2 * DEVELOPMENT_FRAC - got:
            developed.add(int(block))
            got += total
            for i in mine:
                sketch.sites[i].fate = "appeared"
    for i in rng.permutation(len(sizes)):
        site = sketch.sites[i]
        if site.fate != "unchanged" or sizes[i] == 0:
            continue
        site.fate = str(rng.choice(FATES, p=FATE_SHARE))
        if site.fate == "replaced" and not _replace(sketch, site, rng):
            site.fate = "disappeared"
        size = _changed_m2(site, view)
        if got + size > wanted_m2 * 1.05 + 4:
            site.fate, site.successor = "unchanged", None
        else:
            got += size
    return developed


def _replace(sketch: Sketch, site: Site, rng: np.random.Generator) -> bool:
    """Find a building of another shape for the place of the old one; False if none of some attempts fits."""
    old = site.building
    u0, v0, u1, v1 = old.bounds
    small = (u1 - u0) * (v1 - v0) < 400
    maker = "house" if small else str(rng.choice(["shop", "hall", "apartments"]))
    sketch.take(old.hull(1.0), FREE)
    before = old.polygon()
    for _ in range(24):
        new = MAKERS[maker](rng, old.material)
        turn = float(rng.choice([0, np.pi / 2, np.pi, 1.5 * np.pi]))
        nudge = rng.uniform(-2.5, 2.5, 2) if small else rng.uniform(-8, 8, 2)
        new = new.moved(old.x + nudge[0], old.y + nudge[1], old.heading + turn)
        after = new.polygon()
        shared = before.intersection(after).area
        if 0.2 * before.area < shared < 0.75 * before.union(after).area and sketch.free(new.hull(1.2)):
            site.successor = new
            break
    for building in (old, site.successor):
        if building is not None:
            sketch.take(building.rings[0], BUILT)
    return site.successor is not None


def _seen_m2(building: Building, view: Polygon) -> float:
    """Return the part of a footprint that lies in the picture, in square metres."""
    corners = building.hull()
    x0, y0, x1, y1 = view.bounds
    if corners[:, 0].max() < x0 or corners[:, 0].min() > x1 or corners[:, 1].max() < y0 or corners[:, 1].min() > y1:
        return 0.0
    return float(building.polygon().intersection(view).area)


def _changed_m2(site: Site, view: Polygon) -> float:
    shapes = [b.polygon() for b in (site.building, site.successor) if b is not None]
    return float(unary_union(shapes).intersection(view).area)


def _reroofed(site: Site, rng: np.random.Generator, share: float) -> Site:
    """Give an unchanged building another roof covering on date 2, by chance; its outline and truth stay."""
    luck, pick, tint = rng.random(), rng.random(), rng.uniform(0.85, 1.15)
    if site.fate != "unchanged" or luck >= share:
        return site
    family = next(f for f in (PITCHED_ROOFS, FLAT_ROOFS, HALL_ROOFS) if site.building.material in f)
    new = family[int(pick * len(family))]
    return replace(site, successor=replace(site.building, material=new, tint=float(tint)))


def _fields(sketch: Sketch, spec: CitySpec, rng: np.random.Generator) -> None:
    """Farm the field blocks: one crop state per date, furrows along the field, a rim of meadow."""
    states = ("crop", "ripe", "ploughed", "stubble")
    for block in sketch.plan.blocks:
        if block.use != "field":
            continue
        first = str(rng.choice(states))
        second = str(rng.choice([state for state in states if state != first]))
        if rng.random() >= spec.field_turnover:
            second = first
        middle = block.inner_N2.mean(axis=0)
        inner = middle + (block.inner_N2 - middle) * 0.97
        tint = sketch.tint(0.09)
        spacing = float(rng.choice([2.2, 3.0, 4.5]))
        turn = block.heading + float(rng.choice([0, 0, np.pi / 2])) + rng.uniform(-0.03, 0.03)
        for state, dates in ((first, FIRST), (second, SECOND)):
            strength = {"crop": 0.07, "ripe": 0.05, "ploughed": 0.10, "stubble": 0.06}[state]
            row = (float(turn), spacing, strength)
            sketch.patches.append(Patch(inner, state, tint, dates, layer=1, furrows=row))


def _assemble(sketch: Sketch, developed: set[int], rng: np.random.Generator, spec: CitySpec) -> list[Patch]:
    """Put the ground of both dates together: plots with and without their buildings, worn and new surfaces, gardens."""
    _not_yet(sketch, developed)
    patches = [_resurfaced(p, rng, spec.repaint) for p in sketch.patches]
    ground: list[Patch] = [new for pair in patches for new in pair]
    for number in sorted(developed):
        block = sketch.plan.blocks[number]
        wild = "soil" if number % 3 == 0 else "meadow"
        ground.append(Patch(block.inner_N2, wild, (1.0, 1.0, 1.0), FIRST, layer=2))
    for site in sketch.sites:
        there = {"appeared": SECOND, "disappeared": FIRST}.get(site.fate, BOTH)
        for dressing in site.dressing:
            # The lawn of a plot stays when its house goes; drive, patio and hedge mostly go with it.
            ground.append(only_on(dressing, there))
        if there != BOTH and site.block not in developed:
            plot = "yard" if sketch.plan.blocks[site.block].use in ("industrial", "commercial") else "lawn"
            ground.append(Patch(site.lot, plot, (1.0, 1.0, 1.0), BOTH & ~there, layer=2))
            ground.append(Patch(_ragged(site.building, rng), site.vacant, (1.0, 1.0, 1.0), BOTH & ~there, layer=3))
        sketch.car_places += [replace(place, dates=there) for place in site.cars]
        ground += [p for p in _garden(site, rng, spec.garden) if sketch.free(p.points_N2)]
    return sorted((p for p in ground if p.dates), key=lambda p: p.layer)


def _not_yet(sketch: Sketch, developed: set[int]) -> None:
    """Take what belongs to a new development (yards, parking lots and their cars) off date 1."""
    for number in developed:
        patches, cars = sketch.contents[number]
        sketch.patches[patches] = [p if p.layer == 0 else only_on(p, SECOND) for p in sketch.patches[patches]]
        sketch.car_places[cars] = [replace(place, dates=SECOND) for place in sketch.car_places[cars]]


def _ragged(building: Building, rng: np.random.Generator) -> Points:
    """Return a plot's bare ground: the hull of the building, grown, with an uneven edge."""
    hull = building.hull(2.0)
    t = np.linspace(0, 1, 9)[:-1, None]
    ring = np.vstack([a + (b - a) * t for a, b in zip(hull, np.roll(hull, -1, axis=0), strict=True)])
    middle = ring.mean(axis=0)
    uneven: Points = middle + (ring - middle) * (1 + 0.05 * rng.standard_normal((len(ring), 1)))
    return uneven


def _resurfaced(patch: Patch, rng: np.random.Generator, share: float) -> list[Patch]:
    """Split a sealed surface by chance into an old and a new look; all else stays one patch."""
    luck, light = rng.random(), rng.normal(1.0, 0.10)
    if patch.material not in ("yard", "marking", "stall", "concrete", "gravel", "asphalt") or luck >= share:
        return [patch]
    r, g, b = patch.tint
    return [only_on(patch, FIRST), replace(patch, tint=(r * light, g * light, b * light), dates=patch.dates & SECOND)]


def _garden(site: Site, rng: np.random.Generator, share: float) -> list[Patch]:
    """Return pools, awnings and trampolines behind a home: some stay, some come and go with the nuisance `garden`."""
    luck = rng.random(5)
    u0, v0, u1, v1 = site.building.bounds
    if (u1 - u0) * (v1 - v0) > 260 or luck[0] > 0.35 or site.fate != "unchanged":
        return []
    dates = BOTH if luck[1] >= share else (FIRST if luck[2] < 0.5 else SECOND)
    middle = np.array([u0 + (u1 - u0) * luck[3], v1 + 7.0])
    if luck[4] < 0.4:
        half = np.array([(-4, -2), (4, -2), (4, 2), (-4, 2)]) * (0.7 + 0.5 * luck[2])
        deck = Patch(site.building.world(middle + half * 1.45), "concrete", (1.05, 1.03, 1.0), dates, layer=4)
        return [deck, Patch(site.building.world(middle + half), "pool", (1.0, 1.0, 1.0), dates, layer=5)]
    if luck[4] < 0.7:
        half = np.array([(-2, -1.4), (2, -1.4), (2, 1.4), (-2, 1.4)])
        place = np.array([middle[0], v1 + 1.2])
        return [Patch(site.building.world(place + half), "stall", (1.0, 0.93, 0.80), dates, layer=4)]
    angle = np.linspace(0, 2 * np.pi, 17)[:-1]
    disc = middle + np.stack([np.cos(angle), np.sin(angle)], 1) * 1.9
    return [Patch(site.building.world(disc), "yard", (0.45, 0.48, 0.52), dates, layer=4)]
