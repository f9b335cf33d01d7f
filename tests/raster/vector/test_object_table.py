"""The table of objects: kinds, classes, areas, perimeters."""

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from shapely import MultiPolygon, Polygon, affinity, box
from tests.support.object_scenes import CLASSES, DEGREES, PLAIN, UTM, build_scene_frame, make_scene, trace_polygons

from semicdvl.raster.connected_components import find_objects
from semicdvl.raster.grid import Grid
from semicdvl.raster.vector.object_table import (
    ObjectAttributes,
    assemble_object_frame,
    build_object_frame,
    measure_polygons,
)
from semicdvl.raster.vector.simplify import SimplifySettings


def test_rows_describe_the_changes():
    objects, frame = build_scene_frame(UTM)
    assert len(objects) == 4 and frame["area_m2"].is_monotonic_decreasing
    rows = frame.set_index("id")
    assert rows["kind"].to_dict() == {1: "appeared", 2: "disappeared", 3: "changed", 4: "replaced"}
    assert rows.loc[1, ["from_class", "to_class"]].tolist() == ["grass", "house"]
    assert rows.loc[1, "area_m2"] == 50 and rows.loc[1, "perimeter_m"] == 30
    assert rows.loc[1, "score_max"] == 0.75 and rows.loc[1, "score"] == pytest.approx(0.2525, abs=1e-4)
    assert rows.loc[3, "area_m2"] == 13 * 0.25 and rows.loc[3].geometry.geom_type == "MultiPolygon"
    assert frame.is_valid.all() and frame.crs.to_epsg() == 32615


def test_without_classes_the_kind_is_changed():
    _, frame = build_scene_frame(UTM, t1_HW=None, t2_HW=None, classes=(), foreground=())
    assert set(frame["kind"]) == {"changed"} and frame["from_class"].isna().all()


def test_majority_class_is_of_the_larger_of_foreground_and_background():
    change = np.ones((1, 20), np.uint8)
    t1 = np.full((1, 20), 3, np.uint8)
    t2 = np.array([[0] * 7 + [1] * 5 + [2] * 8], np.uint8)  # 35 % house, 25 % building, 40 % road
    score = np.ones((1, 20), np.float32)
    frame = build_object_frame(
        find_objects(change), grid=UTM, score_HW=score, t1_HW=t1, t2_HW=t2, classes=CLASSES, foreground=(0, 1)
    )
    assert frame.loc[0, ["kind", "to_class"]].tolist() == ["appeared", "house"]


def test_areas_are_metres_on_the_ground_in_degrees_and_mercator():
    _, frame = build_scene_frame(DEGREES)
    wanted = (DEGREES.gsd_m or 0) ** 2
    assert frame.set_index("id").loc[1, "area_m2"] == pytest.approx(200 * wanted, rel=0.005)
    mercator = Grid(rasterio.CRS.from_epsg(3857), Affine(1.0, 0, 1_000_000, 0, -1.0, 8_399_738), 70, 90)  # 60 deg N
    _, frame = build_scene_frame(mercator)
    assert frame.set_index("id").loc[1, "area_m2"] == pytest.approx(200 / 4, rel=0.02)
    assert frame.set_index("id").loc[1, "perimeter_m"] == pytest.approx(60 / 2, rel=0.02)


def test_without_crs_areas_are_pixels_unless_the_pixel_size_is_given():
    _, frame = build_scene_frame(PLAIN)
    assert frame.set_index("id").loc[1, ["area_px", "perimeter_px"]].tolist() == [200, 60]
    _, frame = build_scene_frame(PLAIN, gsd_m=0.2)
    assert frame.set_index("id").loc[1, "area_m2"] == pytest.approx(8) and "area_px" not in frame


def test_small_objects_are_left_out():
    change = make_scene()[0]
    assert len(find_objects(change, min_area_px=14)) == 3
    assert len(find_objects(change, min_area_px=13)) == 4
    assert find_objects(change, min_area_px=14).area_px.tolist() == [6300 - 442, 200, 42, 200]


@pytest.mark.parametrize("reverse", [False, True])
def test_area_and_perimeter_on_the_ellipsoid_count_holes_whichever_way_they_run(reverse):
    outer, inner = box(10, 60, 10.004, 60.002), box(10.001, 60.0005, 10.002, 60.001)
    ring = list(inner.exterior.coords)
    outline = MultiPolygon([Polygon(outer.exterior, [ring[::-1] if reverse else ring])])
    whole, hole = (measure_polygons([MultiPolygon([thing])], grid=DEGREES) for thing in (outer, inner))
    area, perimeter, unit = measure_polygons([outline], grid=DEGREES)
    east, north = 111_412 * np.cos(np.radians(60.001)) * 1.0018, 111_412.0  # metres a degree, WGS84, to a percent
    assert unit == "m" and area[0] == pytest.approx(whole[0][0] - hole[0][0], rel=1e-9)
    assert perimeter[0] == pytest.approx(whole[1][0] + hole[1][0], rel=1e-9)
    assert area[0] == pytest.approx((0.004 * 0.002 - 0.001 * 0.0005) * east * north, rel=0.005)
    assert perimeter[0] == pytest.approx(2 * (0.005 * east + 0.0025 * north), rel=0.005)


def test_rows_have_compactness_and_the_perimeter_of_the_simplified_outline():
    square = affinity.translate(affinity.rotate(box(0, 0, 30, 30), 45, origin=(0, 0)), 60, 30)
    north = Grid(DEGREES.crs, Affine(6e-6, 0, 10.5, 0, -6e-6, 60.07), 120, 130)
    for grid in (UTM.window(0, 0, 120, 130), north):
        outlines = trace_polygons(grid, square, box(2, 2, 4, 60), shapely.Point(100, 90).buffer(18))
        area_px = np.array([round(outline.area / abs(grid.transform.a * grid.transform.e)) for outline in outlines])
        known = ObjectAttributes(area_px, np.full(3, 0.5), np.full(3, 0.9), [None] * 3, [None] * 3)
        settings = SimplifySettings(), SimplifySettings(regularise=grid is not north, simplify_m=0.5)
        rows = [assemble_object_frame(outlines, known, grid=grid, simplify=one).set_index("id") for one in settings]
        assert (rows[0]["area_m2"] == rows[1]["area_m2"]).all()
        assert (rows[1]["perimeter_m"] <= rows[0]["perimeter_m"]).all()
        compact = rows[0]["compactness"]
        assert compact.between(0, 1).all()
        wanted = 4 * np.pi * rows[0]["area_m2"] / rows[0]["perimeter_m"] ** 2
        assert compact.to_numpy() == pytest.approx(wanted.to_numpy(), abs=1e-4)
        if grid is not north:
            by_size = rows[1].sort_values("area_m2")
            assert by_size["compactness"].iloc[0] < 0.15  # 1 m x 29 m
            assert rows[1]["perimeter_m"].max() < 64 and by_size["compactness"].iloc[1] == pytest.approx(
                0.785, abs=0.01
            )
