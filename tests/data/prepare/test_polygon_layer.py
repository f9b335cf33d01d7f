"""Polygons of a GIS on a raster's pixels: CRS, layers, repairs, windows, and what cannot be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from shapely.geometry import LineString, Point, Polygon, box
from tests.raster.vector.test_tangles import draw_star

from semicdvl.data.prepare.polygon_layer import read_polygons
from semicdvl.errors import InputError
from semicdvl.raster.grid import Grid

UTM = rasterio.CRS.from_epsg(32633)
GRID = Grid(UTM, Affine(0.5, 0, 400_000, 0, -0.5, 5_600_000), 40, 60)
PLAIN = Grid(None, Affine.identity(), 40, 60)
BOW_TIE = Polygon([(400_002, 5_599_990), (400_006, 5_599_994), (400_006, 5_599_990), (400_002, 5_599_994)])


def on_map(row: float, col: float, height: float, width: float) -> Polygon:
    """A rectangle of pixels in map units."""
    x, y = 400_000 + col * 0.5, 5_600_000 - row * 0.5
    return box(x, y - height * 0.5, x + width * 0.5, y)


def written(path: Path, *shapes: Any, crs: Any = "EPSG:32633", **options: Any) -> Path:
    gpd.GeoDataFrame({"n": range(len(shapes))}, geometry=list(shapes), crs=crs).to_file(path, **options)
    return path


def mask_of(row: int, col: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros((40, 60), bool)
    mask[row : row + height, col : col + width] = True
    return mask


@pytest.mark.parametrize("name", ["a.gpkg", "a.fgb", "a.shp"])
def test_rasterising_equals_a_count_by_pixel(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, on_map(3, 5, 7, 11), on_map(20, 30, 4, 6))
    polygons = read_polygons(path, grid=GRID)
    want = mask_of(3, 5, 7, 11) | mask_of(20, 30, 4, 6)
    assert len(polygons) == 2 and polygons.describe_repairs() == ()
    np.testing.assert_array_equal(polygons.rasterize_mask(GRID), want)
    np.testing.assert_array_equal(
        polygons.rasterize_mask(GRID.window(18, 25, 9, 20)), want[18:27, 25:45]
    )  # a window of it
    assert set(np.unique(polygons.rasterize_numbers(GRID))) == {0, 1, 2}
    assert not polygons.rasterize_mask(GRID.window(0, 40, 10, 20)).any()  # a window with nothing in it


@pytest.mark.parametrize("name", ["a.gpkg", "a.geojson"])
def test_another_crs_gives_the_same_pixels(tmp_path: Path, name: str) -> None:
    there = gpd.GeoSeries([on_map(3, 5, 7, 11)], crs=UTM.to_wkt()).to_crs(4326)
    polygons = read_polygons(written(tmp_path / name, *there, crs=4326), grid=GRID)
    np.testing.assert_array_equal(polygons.rasterize_mask(GRID), mask_of(3, 5, 7, 11))


def test_images_without_crs_accept_polygons_in_pixels(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="'crs' was not provided"):
        plain = written(tmp_path / "plain.gpkg", box(5, 3, 16, 10), crs=None)
    np.testing.assert_array_equal(read_polygons(plain, grid=PLAIN).rasterize_mask(PLAIN), mask_of(3, 5, 7, 11))
    with pytest.raises(InputError, match="but the images have none"):
        read_polygons(written(tmp_path / "a.gpkg", on_map(3, 5, 7, 11)), grid=PLAIN)
    with pytest.raises(InputError, match="has no CRS"):
        read_polygons(plain, grid=GRID)


def test_broken_polygons_are_repaired_and_other_rows_left_out(tmp_path: Path) -> None:
    shapes = [on_map(30, 5, 2, 2), BOW_TIE, Point(400_001, 5_599_999), None, on_map(5000, 5, 3, 3)]
    polygons = read_polygons(written(tmp_path / "a.gpkg", *shapes), grid=GRID)
    assert (polygons.repaired, polygons.not_polygons, polygons.outside) == (1, 2, 1)
    assert polygons.rows.tolist() == [0, 1] and shapely.is_valid(polygons.shapes).all()
    assert shapely.area(polygons.shapes[1]) == pytest.approx(8)  # both wings of the bow tie
    assert polygons.rasterize_mask(GRID)[30:32, 5:7].all() and polygons.rasterize_mask(GRID).sum() > 4
    assert len(polygons.describe_repairs()) == 3 and "repaired" in polygons.describe_repairs()[0]


def test_a_layer_must_be_named_where_there_are_several(tmp_path: Path) -> None:
    path = written(tmp_path / "a.gpkg", on_map(3, 5, 7, 11), layer="roofs")
    written(path, on_map(20, 30, 4, 6), layer="change")
    assert read_polygons(path, grid=GRID, layer="change").rasterize_mask(GRID)[20, 30]
    with pytest.raises(InputError, match=r"2 layers: roofs, change.*--layer"):
        read_polygons(path, grid=GRID)
    with pytest.raises(InputError, match=r"no layer 'chang' .*Did you mean 'change'"):
        read_polygons(path, grid=GRID, layer="chang")


def test_unusable_layers_are_refused_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "text.gpkg").write_text("no vector file")
    empty = written(tmp_path / "empty.gpkg", on_map(0, 0, 1, 1))
    gpd.read_file(empty).iloc[:0].to_file(empty, geometry_type="Polygon")
    line = written(tmp_path / "line.gpkg", LineString([(400_001, 5_599_999), (400_009, 5_599_990)]))
    far = written(tmp_path / "far.gpkg", on_map(9000, 0, 4, 4))
    beyond = written(tmp_path / "beyond.gpkg", box(-179, -89.9, -178, -89), crs=4326)
    wanted = {
        tmp_path / "none.gpkg": "does not exist",
        tmp_path / "text.gpkg": "not a vector file",
        empty: "empty",
        line: r"no polygon \(LineString\)",
        far: "none of its polygons \\(1\\) touches",
        beyond: "none of its polygons \\(1\\) touches",
    }
    for path, problem in wanted.items():
        with pytest.raises(InputError, match=problem) as caught:
            read_polygons(path, grid=GRID)
        assert str(path) in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_parquet_is_read_or_names_the_missing_package(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    frame = gpd.GeoDataFrame(geometry=[on_map(3, 5, 7, 11)], crs=UTM.to_wkt())
    try:
        frame.to_parquet(path)
    except ImportError:
        path.write_bytes(b"PAR1")
        with pytest.raises(InputError, match="pyarrow"):
            read_polygons(path, grid=GRID)
    else:
        np.testing.assert_array_equal(read_polygons(path, grid=GRID).rasterize_mask(GRID), mask_of(3, 5, 7, 11))


def test_metres_in_a_file_of_degrees_are_named(tmp_path: Path) -> None:
    path = tmp_path / "labels.geojson"
    path.write_text(gpd.GeoSeries([on_map(3, 5, 7, 11)]).to_json())  # without a CRS, GeoJSON is in degrees
    with pytest.raises(InputError, match=r"labels\.geojson: is in degrees by its CRS \(WGS 84\).*ogr2ogr -a_srs"):
        read_polygons(path, grid=GRID)


def test_a_crs_that_names_a_file_is_not_followed(tmp_path: Path) -> None:
    crs = "+proj=utm +zone=33 +ellps=intl +nadgrids=/nowhere/a.gsb"
    path = written(tmp_path / "a.gpkg", on_map(3, 5, 7, 11), crs=crs)
    with pytest.raises(InputError, match=r"a\.gpkg: Its CRS names the file"):
        read_polygons(path, grid=GRID)


def test_an_outline_that_crosses_itself_all_over_is_refused_by_its_row(tmp_path: Path) -> None:
    grid = Grid(rasterio.CRS.from_epsg(32632), Affine(1, 0, 0, 0, -1, 100), 100, 100)
    frame = gpd.GeoDataFrame(geometry=[shapely.box(1, 1, 5, 5), draw_star(2_001)], crs=32632)
    frame.to_file(tmp_path / "a.gpkg")
    with pytest.raises(InputError, match=r"row 2 has an outline that crosses itself more than 1,000 times\. Correct"):
        read_polygons(tmp_path / "a.gpkg", grid=grid)
