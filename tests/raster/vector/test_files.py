"""Polygons as files: four formats, the same bytes for the same objects, and colours that QGIS finds."""

import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree as ET

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import rasterio
from affine import Affine

from semicdvl.errors import MissingExtraError, OutputError
from semicdvl.raster.connected_components import find_objects
from semicdvl.raster.grid import Grid
from semicdvl.raster.vector.change_kinds import CHANGE_KINDS
from semicdvl.raster.vector.files import write_vector
from semicdvl.raster.vector.object_table import build_object_frame
from semicdvl.raster.vector.qgis_style import (
    CHANGE_KIND_STYLE,
    FILL_ALPHA,
    LAYER_STYLES_COLUMNS,
    QgisStyle,
    build_qml,
    store_default_style,
)

UTM = Grid(rasterio.CRS.from_epsg(32615), Affine(0.5, 0, 366676, 0, -0.5, 4104256), 70, 90)
PLAIN = Grid(None, Affine.identity(), 70, 90)


def frame_on(grid: Grid = UTM) -> gpd.GeoDataFrame:
    """Five objects, one with a hole."""
    change = np.zeros((70, 90), np.uint8)
    change[2:12, 3:23] = change[20:40, 40:67] = change[50:60, 60:80] = change[40:42, 5:7] = change[66, 88] = 1
    change[25:30, 45:50] = 0
    return build_object_frame(find_objects(change), grid=grid, score_HW=np.full((70, 90), 0.5, np.float32))


@pytest.mark.parametrize("grid", [UTM, PLAIN], ids=["utm", "plain"])
def test_parquet_is_geoparquet(tmp_path, grid):
    frame, path = frame_on(grid), tmp_path / "changes.parquet"
    write_vector(path, frame)
    back = gpd.read_parquet(path)
    assert list(back.columns) == list(frame.columns) and back.geometry.geom_equals(frame.geometry).all()
    assert (back.crs is None) == (grid is PLAIN) and (grid is PLAIN or back.crs.to_epsg() == 32615)
    import pyarrow.parquet

    geo = json.loads(pyarrow.parquet.read_schema(path).metadata[b"geo"])
    assert geo["primary_column"] == "geometry" and geo["columns"]["geometry"]["encoding"] == "WKB"


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    frame = frame_on()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"semicdvl\[parquet\]"):
        write_vector(tmp_path / "changes.parquet", frame)
    assert list(tmp_path.iterdir()) == []


def test_geojson_is_rfc_7946(tmp_path):
    frame = frame_on()
    write_vector(tmp_path / "changes.geojson", frame)
    text = json.loads((tmp_path / "changes.geojson").read_text())
    assert "crs" not in text and len(text["features"]) == 5
    for feature in text["features"]:
        for rings in feature["geometry"]["coordinates"]:
            areas = [_signed_area(ring) for ring in rings]
            assert areas[0] > 0 and all(area < 0 for area in areas[1:])  # right-hand rule
            assert -94.6 < rings[0][0][0] < -94.4 and 37.0 < rings[0][0][1] < 37.1
    assert any(len(rings) == 2 for feature in text["features"] for rings in feature["geometry"]["coordinates"])


def _signed_area(ring: list) -> float:
    x, y = np.asarray(ring).T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".fgb", ".parquet"])
def test_same_objects_same_bytes(tmp_path, suffix):
    first, second = tmp_path / f"a{suffix}", tmp_path / "b" / f"a{suffix}"
    write_vector(first, frame_on(), style=CHANGE_KIND_STYLE)
    time.sleep(1.1)  # a GeoPackage's times are whole seconds, or thousandths of them
    write_vector(second, frame_on(), style=CHANGE_KIND_STYLE)
    assert first.read_bytes() == second.read_bytes()
    assert first.with_suffix(".qml").read_bytes() == second.with_suffix(".qml").read_bytes()
    assert sorted(path.name for path in second.parent.iterdir()) == sorted([f"a{suffix}", "a.qml"])


def test_geopackage_brings_its_default_style(tmp_path):
    path = tmp_path / "changes.gpkg"
    write_vector(path, frame_on(), layer="found", style=CHANGE_KIND_STYLE)
    assert {tuple(row) for row in pyogrio.list_layers(path)} == {("found", "MultiPolygon"), ("layer_styles", None)}
    # the question that QGIS asks
    with closing(sqlite3.connect(path)) as database:
        (column,) = database.execute("SELECT column_name FROM gpkg_geometry_columns").fetchone()
        rows = database.execute(
            "SELECT styleQML FROM layer_styles WHERE f_table_schema='' AND f_table_name='found' AND f_geometry_column=?"
            " ORDER BY CASE WHEN useAsDefault THEN 1 ELSE 2 END, update_time DESC LIMIT 1",
            [column],
        ).fetchall()
    assert rows == [(build_qml(CHANGE_KIND_STYLE),)] and path.with_suffix(".qml").read_text() == rows[0][0]
    styles = pyogrio.read_dataframe(path, layer="layer_styles")
    assert list(styles.columns) == list(LAYER_STYLES_COLUMNS)[1:] and bool(styles["useAsDefault"][0])
    back = gpd.read_file(path, layer="found")
    assert len(back) == 5 and back.crs.to_epsg() == 32615


def test_style_has_a_symbol_of_its_colour_for_every_kind():
    root = ET.fromstring(build_qml(CHANGE_KIND_STYLE).split("\n", 1)[1])
    renderer = root.find("renderer-v2")
    assert root.tag == "qgis" and renderer.attrib["type"] == "categorizedSymbol" and renderer.attrib["attr"] == "kind"
    symbols = {symbol.attrib["name"]: symbol for symbol in renderer.iterfind("symbols/symbol")}
    categories = {item.attrib["value"]: item.attrib for item in renderer.iterfind("categories/category")}
    assert set(categories) == {*CHANGE_KINDS, ""} and {item["symbol"] for item in categories.values()} == set(symbols)
    for kind, colour in CHANGE_KIND_STYLE.colours.items():
        symbol = symbols[categories[kind]["symbol"]]
        layer = symbol.find("layer")
        wanted = ",".join(map(str, (*colour, FILL_ALPHA)))
        assert symbol.attrib["type"] == "fill" and layer.attrib["class"] == "SimpleFill"
        assert layer.find("Option/Option[@name='color']").attrib["value"] == wanted
        assert layer.find("prop[@k='color']").attrib["v"] == wanted
        assert layer.find("Option").attrib["type"] == "Map"


def test_style_that_cannot_be_stored_is_one_error(tmp_path, monkeypatch):
    def full(path: Path, style: QgisStyle, *, layer: str) -> None:
        path.write_text("no database")
        store_default_style(path, style, layer=layer)

    monkeypatch.setattr("semicdvl.raster.vector.files.store_default_style", full)
    with pytest.raises(OutputError, match=r"changes.gpkg: cannot be written .*not a database"):
        write_vector(tmp_path / "changes.gpkg", frame_on(), style=CHANGE_KIND_STYLE)
    assert list(tmp_path.iterdir()) == []
