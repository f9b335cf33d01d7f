"""QGIS styles, beside a vector file and in a GeoPackage."""

import sqlite3
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree as ET

import geopandas as gpd
import pyogrio
import pytest
from tests.support.object_scenes import build_plain_frame

from semicdvl.errors import OutputError
from semicdvl.raster.vector.files import write_vector
from semicdvl.raster.vector.object_stats import CHANGE_KINDS
from semicdvl.raster.vector.qgis_style import (
    CHANGE_KIND_STYLE,
    FILL_ALPHA,
    LAYER_STYLES_COLUMNS,
    QgisStyle,
    build_qml,
    store_default_style,
)


def test_geopackage_contains_its_default_style(tmp_path):
    path = tmp_path / "changes.gpkg"
    write_vector(path, build_plain_frame(), layer="found", style=CHANGE_KIND_STYLE)
    assert {tuple(row) for row in pyogrio.list_layers(path)} == {("found", "MultiPolygon")}
    # the question that QGIS asks
    with closing(sqlite3.connect(path)) as database:
        (column,) = database.execute("SELECT column_name FROM gpkg_geometry_columns").fetchone()
        rows = database.execute(
            "SELECT styleQML FROM layer_styles WHERE f_table_schema='' AND f_table_name='found' AND f_geometry_column=?"
            " ORDER BY CASE WHEN useAsDefault THEN 1 ELSE 2 END, update_time DESC LIMIT 1",
            [column],
        ).fetchall()
    assert rows == [(build_qml(CHANGE_KIND_STYLE),)] and path.with_suffix(".qml").read_text() == rows[0][0]
    back = gpd.read_file(path)  # a warning of two layers would be an error
    assert len(back) == 5 and back.crs.to_epsg() == 32615


def test_geopackage_is_of_a_version_that_old_readers_know_and_its_times_conform(tmp_path):
    path = tmp_path / "changes.gpkg"
    write_vector(path, build_plain_frame(), style=CHANGE_KIND_STYLE)
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (10200,)
        (changed,) = database.execute("SELECT last_change FROM gpkg_contents").fetchone()
        (updated, default) = database.execute("SELECT update_time, useAsDefault FROM layer_styles").fetchone()
        columns = [row[1] for row in database.execute("PRAGMA table_info(layer_styles)")]
    assert changed == updated == "1970-01-01T00:00:00.000Z" and default == 1
    assert columns == list(LAYER_STYLES_COLUMNS)


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


def test_a_style_that_cannot_be_stored_is_one_error(tmp_path, monkeypatch):
    def full(path: Path, style: QgisStyle, *, layer: str) -> None:
        path.write_text("no database")
        store_default_style(path, style, layer=layer)

    monkeypatch.setattr("semicdvl.raster.vector.formats.geopackage.store_default_style", full)
    with pytest.raises(OutputError, match=r"changes.gpkg: cannot be written .*not a database"):
        write_vector(tmp_path / "changes.gpkg", build_plain_frame(), style=CHANGE_KIND_STYLE)
    assert list(tmp_path.iterdir()) == []
