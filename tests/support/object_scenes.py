"""Small change maps on grids of three kinds, and the objects in them."""

import geopandas as gpd
import numpy as np
import rasterio
from affine import Affine
from rasterio.features import rasterize
from shapely import MultiPolygon, Polygon

from semicdvl.raster.connected_components import LabelledObjects, find_objects
from semicdvl.raster.grid import Grid
from semicdvl.raster.vector.object_table import build_object_frame
from semicdvl.raster.vector.polygonise import trace_outlines

UTM = Grid(rasterio.CRS.from_epsg(32615), Affine(0.5, 0, 366676, 0, -0.5, 4104256), 70, 90)
DEGREES = Grid(rasterio.CRS.from_epsg(4326), Affine(6e-6, 0, -94.5, 0, -6e-6, 37.07), 70, 90)
PLAIN = Grid(None, Affine.identity(), 70, 90)
CLASSES = ("house", "building", "road", "grass")


def make_noise(grid: Grid, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((grid.height, grid.width)).astype(np.float32)


def make_scene() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Four objects: appeared, disappeared, replaced, and two squares that touch at a corner, outside the foreground."""
    change, t1, t2 = (np.zeros((70, 90), np.uint8) for _ in range(3))
    t1[:], t2[:] = 2, 3  # road, grass
    for rows, cols, start, end in (
        (slice(2, 12), slice(3, 23), 3, 0),
        (slice(20, 26), slice(40, 47), 1, 2),
        (slice(50, 60), slice(60, 80), 0, 1),
        (slice(40, 42), slice(5, 7), 2, 3),
        (slice(42, 45), slice(7, 10), 2, 3),
    ):
        change[rows, cols], t1[rows, cols], t2[rows, cols] = 1, start, end
    change[65:, :] = 255
    score = np.where(change == 1, 0.25, 0).astype(np.float32)
    score[5, 5] = 0.75
    return change, score, t1, t2


def build_scene_frame(grid: Grid, **more) -> tuple[LabelledObjects, gpd.GeoDataFrame]:
    change, score, t1, t2 = make_scene()
    objects = find_objects(change)
    given = {"t1_HW": t1, "t2_HW": t2, "classes": CLASSES, "foreground": (0, 1)} | more
    return objects, build_object_frame(objects, grid=grid, score_HW=score, **given)


def build_plain_frame(grid: Grid = UTM) -> gpd.GeoDataFrame:
    """Five objects, one with a hole."""
    change = np.zeros((70, 90), np.uint8)
    change[2:12, 3:23] = change[20:40, 40:67] = change[50:60, 60:80] = change[40:42, 5:7] = change[66, 88] = 1
    change[25:30, 45:50] = 0
    return build_object_frame(find_objects(change), grid=grid, score_HW=np.full((70, 90), 0.5, np.float32))


def trace_objects(objects: LabelledObjects, grid: Grid) -> list[MultiPolygon]:
    return trace_outlines(objects.labels_HW, len(objects), grid.transform)


def trace_polygons(grid: Grid, *polygons: Polygon) -> list[MultiPolygon]:
    """Rasterise polygons given in pixels, and return the outlines of their pixels."""
    mask = rasterize(polygons, out_shape=(grid.height, grid.width), dtype="uint8")
    return trace_objects(find_objects(mask), grid)
