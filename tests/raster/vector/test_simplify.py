"""Outlines with fewer corners or right angles: closer to what was meant, never crossing themselves or a neighbour."""

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from shapely import MultiPolygon, Polygon, affinity, box
from tests.support.object_scenes import trace_objects, trace_polygons

from semicdvl.raster.connected_components import find_objects
from semicdvl.raster.grid import Grid, measure_map_unit_m
from semicdvl.raster.vector.regularise import MIN_IOU, regularise_polygon
from semicdvl.raster.vector.simplify import SimplifySettings, simplify_polygons

UTM = Grid(rasterio.CRS.from_epsg(32615), Affine(0.5, 0, 366676, 0, -0.5, 4104256), 120, 130)
DEGREES = Grid(rasterio.CRS.from_epsg(4326), Affine(6e-6, 0, 10.5, 0, -6e-6, 60.07), 120, 130)
PLAIN = Grid(None, Affine.identity(), 120, 130)
L = Polygon([(0, 0), (40, 0), (40, 18), (18, 18), (18, 44), (0, 44)])
COURT = box(0, 0, 50, 44).difference(box(14, 12, 34, 30))


def on_map(thing: Polygon, grid: Grid) -> Polygon:
    place = grid.transform
    return affinity.affine_transform(thing, [place.a, 0, 0, place.e, place.c, place.f])


def iou(first, second) -> float:
    return first.intersection(second).area / first.union(second).area


def turns(outline: Polygon) -> np.ndarray:
    """Return by how many degrees each corner differs from a right angle."""
    steps = np.diff(np.asarray(outline.exterior.coords), axis=0)
    angles = np.degrees(np.arctan2(steps[:, 1], steps[:, 0]))
    return np.abs(np.abs((np.diff(np.append(angles, angles[0])) + 180) % 360 - 180) - 90)


# ------------------------------------------------------------------------------------------------ right angles
@pytest.mark.parametrize("grid", [UTM, DEGREES, PLAIN], ids=["utm", "degrees", "plain"])
@pytest.mark.parametrize("angle", [0, 13, 30, 71])
@pytest.mark.parametrize(("thing", "corners"), [(box(0, 0, 40, 24), 4), (L, 6), (COURT, 4)])
def test_rotated_buildings_get_their_corners_back(grid, angle, thing, corners):
    if grid is DEGREES:  # pixels twice as high as wide: draw what is square on the ground
        half = measure_map_unit_m(grid)[0] * 6e-6 / (measure_map_unit_m(grid)[1] * 6e-6)
        turned = affinity.scale(affinity.rotate(thing, angle, origin=(0, 0)), 1.0, half, origin=(0, 0))
    else:
        turned = affinity.rotate(thing, angle, origin=(0, 0))
    bounds = turned.bounds
    turned = affinity.translate(turned, 20.2 - bounds[0], 20.3 - bounds[1])
    (plain,) = trace_polygons(grid, turned)
    (square,) = simplify_polygons([plain], SimplifySettings(regularise=True), grid=grid)
    meant = on_map(turned, grid)
    (part,) = square.geoms
    assert len(part.exterior.coords) - 1 == corners and len(part.interiors) == len(thing.interiors)
    assert square.is_valid and iou(square, meant) > 0.93
    scale = np.array(measure_map_unit_m(grid))
    assert turns(shapely.transform(part, lambda xy: xy * scale)).max() < 0.01


def test_round_outlines_stay_round_and_noise_stays_valid():
    (disc,) = trace_polygons(UTM, shapely.Point(60, 60).buffer(25))
    (same,) = simplify_polygons([disc], SimplifySettings(regularise=True), grid=UTM)
    assert same.equals(disc)


@given(st.integers(0, 10_000), st.booleans(), st.sampled_from([0.0, 0.4, 1.0, 3.0]))
@settings(max_examples=30, deadline=None)
def test_simplified_outlines_are_valid_apart_and_complete(seed, regularise, simplify_m):
    rng = np.random.default_rng(seed)
    mask = ndimage.gaussian_filter(rng.normal(size=(70, 80)), rng.uniform(0.8, 3)) > rng.uniform(-0.05, 0.1)
    plain = trace_objects(find_objects(mask.astype(np.uint8)), UTM)
    found = simplify_polygons(plain, SimplifySettings(simplify_m, regularise), grid=UTM)
    assert len(found) == len(plain) and all(outline.is_valid and not outline.is_empty for outline in found)
    assert all(isinstance(outline, MultiPolygon) for outline in found)
    first, second = shapely.STRtree(found).query(found, predicate="intersects")
    assert (first == second).all()
    corners = [sum(shapely.get_num_coordinates(outlines)) for outlines in (found, plain)]
    assert corners[0] <= corners[1]
    if not regularise:
        holes = [[len(part.interiors) for part in outline.geoms] for outline in found]
        assert holes == [[len(part.interiors) for part in outline.geoms] for outline in plain]


def test_regularise_rejects_a_poor_fit():
    star = Polygon([(r * np.cos(a), r * np.sin(a)) for a, r in zip(np.linspace(0, 6.2, 11), [30, 8] * 6, strict=False)])
    found = regularise_polygon(star, tolerance=1.0)
    assert found is None or iou(found, star) >= MIN_IOU


# ------------------------------------------------------------------------------------------------ simpler
def test_tolerance_is_in_metres_for_any_crs():
    turned = affinity.translate(affinity.rotate(L, 20, origin=(0, 0)), 40, 20)
    for grid, gsd_m in ((UTM, None), (DEGREES, None), (PLAIN, 0.5)):
        (plain,) = trace_polygons(grid, turned)
        counts, apart = [], []
        for simplify_m in (0.0, 0.6, 3.0):
            (simple,) = simplify_polygons([plain], SimplifySettings(simplify_m), grid=grid, gsd_m=gsd_m)
            scale = np.array(measure_map_unit_m(grid, gsd_m=gsd_m))
            here, there = (shapely.transform(outline, lambda xy, s=scale: xy * s) for outline in (simple, plain))
            counts.append(shapely.get_num_coordinates(simple))
            apart.append(shapely.hausdorff_distance(here, there))
            assert apart[-1] <= simplify_m * 1.01
        assert counts[0] > counts[1] > counts[2] and apart[2] > 0.6


def test_an_outline_that_would_touch_its_neighbour_is_unchanged():
    change = np.zeros((40, 60), np.uint8)
    change[5:35, 5:45] = 1
    change[18:24, 41:45] = 0  # a notch, shallower than the tolerance ...
    change[20:22, 43:45] = 1  # ... with something in it
    plain = trace_objects(find_objects(change), UTM)
    alone = simplify_polygons(plain[:1], SimplifySettings(3.0), grid=UTM)
    assert len(plain) == 2 and alone[0].intersects(plain[1])
    found = simplify_polygons(plain, SimplifySettings(3.0), grid=UTM)
    assert not found[0].intersects(found[1]) and found[0].equals(plain[0])
