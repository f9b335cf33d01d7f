"""Geometries that are no polygons, and polygons smaller than a pixel: counted, and their ground is not known."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import shapely
from affine import Affine
from rasterio.crs import CRS

from semicdvl.data.patch_files import CHANGED, UNCHANGED, UNKNOWN
from semicdvl.data.prepare.config import PrepareSettings
from semicdvl.data.prepare.labels import read_label_layers
from semicdvl.raster.grid import Grid

UTM = "EPSG:32633"
GRID = Grid(CRS.from_string(UTM), Affine.identity(), 12, 16)  # south up, so that x is the column and y the row


def _label(path: Path, shapes: list[shapely.Geometry | None]) -> tuple[np.ndarray, tuple[str, ...]]:
    gpd.GeoDataFrame(geometry=shapes, crs=UTM).to_file(path)
    layers = read_label_layers(path, None, grid=GRID, settings=PrepareSettings())
    known_HW = layers.find_known(GRID, np.ones((12, 16), bool))
    return layers.make_label(GRID, known_HW), layers.describe_repairs()


def test_polygons_in_collections_are_labels_and_other_ground_is_not_known(tmp_path: Path) -> None:
    point, inside = shapely.Point(10.5, 7.5), shapely.Point(2.5, 2.5)
    collection = shapely.GeometryCollection([shapely.box(1, 1, 5, 4), inside, point])
    nested = shapely.GeometryCollection([shapely.GeometryCollection([shapely.box(7, 1, 9, 2)])])
    label_HW, said = _label(tmp_path / "l.gpkg", [collection, nested, shapely.Point(14.5, 10.5), None])
    wanted_HW = np.full((12, 16), UNCHANGED, np.uint8)
    wanted_HW[1:4, 1:5] = wanted_HW[1, 7:9] = CHANGED
    wanted_HW[7, 10] = wanted_HW[10, 14] = UNKNOWN
    np.testing.assert_array_equal(label_HW, wanted_HW)
    assert said[0].startswith("l.gpkg: 2 rows have no polygon with an area and were left out")


def test_polygons_smaller_than_a_pixel_are_said_and_not_unchanged(tmp_path: Path) -> None:
    small = [shapely.box(3.1, 3.1, 3.4, 3.4), shapely.box(8.6, 2.7, 13.4, 2.9)]
    label_HW, said = _label(tmp_path / "l.gpkg", [shapely.box(1, 6, 3, 8), *small, shapely.box(5.4, 9.4, 5.6, 9.6)])
    wanted_HW = np.full((12, 16), UNCHANGED, np.uint8)
    wanted_HW[6:8, 1:3] = wanted_HW[9, 5] = CHANGED  # the last one is small, but covers the centre of its pixel
    wanted_HW[3, 3] = wanted_HW[2, 8:14] = UNKNOWN
    np.testing.assert_array_equal(label_HW, wanted_HW)
    assert said[0].startswith("l.gpkg: 2 rows are smaller than a pixel and cover the centre of none")
