"""Style polygons for QGIS by one column: as a .qml file beside them, and as the default style in a GeoPackage.

QGIS reads a categorised renderer whose symbols have their properties as `Option` (older versions: as `prop`, so both
are written), and in a GeoPackage a table `layer_styles` with a row of empty schema, the layer's name, its geometry
column and `useAsDefault`. A layer of a file whose own styles GDAL does not list takes the `.qml` beside it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

FILL_ALPHA = 90
"""Of 255: the image below remains visible."""
OUTLINE_MM = "0.5"
QGIS_VERSION = "3.22.0"
LAYER_STYLES_COLUMNS = {
    "id": "INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL",
    "f_table_catalog": "TEXT(256)",
    "f_table_schema": "TEXT(256)",
    "f_table_name": "TEXT(256)",
    "f_geometry_column": "TEXT(256)",
    "styleName": "TEXT(30)",
    "styleQML": "TEXT",
    "styleSLD": "TEXT",
    "useAsDefault": "BOOLEAN",
    "description": "TEXT",
    "owner": "TEXT(30)",
    "ui": "TEXT(30)",
    "update_time": "DATETIME DEFAULT CURRENT_TIMESTAMP",
}
HIDE_UNREGISTERED_TABLES = (
    "CREATE TABLE IF NOT EXISTS gpkg_extensions (table_name TEXT, column_name TEXT, extension_name TEXT NOT NULL, "
    "definition TEXT NOT NULL, scope TEXT NOT NULL, "
    "CONSTRAINT ge_tce UNIQUE (table_name, column_name, extension_name))",
    "INSERT INTO gpkg_extensions VALUES "
    "(NULL, NULL, 'gdal_aspatial', 'http://gdal.org/geopackage_aspatial.html', 'read-write')",
)
"""Lets GDAL show the tables of `gpkg_contents` alone: the styles are no layer, so that readers find one layer."""


@dataclass(frozen=True)
class QgisStyle:
    """How polygons are coloured.

    Attributes:
        column: the column whose values decide.
        colours: value -> RGB, in the order of the legend; other values are grey.
    """

    column: str
    colours: Mapping[str, tuple[int, int, int]]


CHANGE_KIND_STYLE = QgisStyle(
    "kind",
    {"appeared": (230, 120, 0), "disappeared": (40, 150, 235), "replaced": (200, 90, 190), "changed": (230, 60, 40)},
)
"""Colours that readers with red-green colour blindness can distinguish."""


def build_qml(style: QgisStyle) -> str:
    """Return the style as QML, the XML that QGIS reads."""
    root = make_qml_root()
    renderer = ET.SubElement(
        root, "renderer-v2", type="categorizedSymbol", attr=style.column, symbollevels="0", enableorderby="0",
        forceraster="0",
    )  # fmt: skip
    categories, symbols = ET.SubElement(renderer, "categories"), ET.SubElement(renderer, "symbols")
    rows = [(value, value, colour) for value, colour in style.colours.items()] + [("", "other", (128, 128, 128))]
    for number, (value, label, colour) in enumerate(rows):
        ET.SubElement(
            categories, "category", value=value, label=label, symbol=str(number), render="true", type="string"
        )
        _add_symbol(symbols, str(number), colour)
    return format_qml(root)


def make_qml_root() -> ET.Element:
    """Return the outermost element of a style."""
    return ET.Element("qgis", version=QGIS_VERSION, styleCategories="Symbology")


def format_qml(root: ET.Element) -> str:
    """Return a style as text."""
    ET.indent(root, " ")
    text = ET.tostring(root, encoding="unicode")
    return f"<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n{text}\n"


def _add_symbol(symbols: ET.Element, name: str, colour: tuple[int, int, int]) -> None:
    """Add a translucent fill with an opaque outline."""
    symbol = ET.SubElement(symbols, "symbol", type="fill", name=name, alpha="1", clip_to_extent="1", force_rhr="0")
    layer = ET.SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1", "locked": "0", "pass": "0"})
    red, green, blue = colour
    properties = {
        "color": f"{red},{green},{blue},{FILL_ALPHA}",
        "style": "solid",
        "joinstyle": "miter",
        "outline_color": f"{red},{green},{blue},255",
        "outline_style": "solid",
        "outline_width": OUTLINE_MM,
        "outline_width_unit": "MM",
    }
    options = ET.SubElement(layer, "Option", type="Map")
    for key, value in properties.items():
        ET.SubElement(options, "Option", name=key, value=value, type="QString")
    for key, value in properties.items():
        ET.SubElement(layer, "prop", k=key, v=value)


def store_default_style(path: Path, style: QgisStyle, *, layer: str) -> None:
    """Store the style in a GeoPackage as the default style of a layer.

    Raises:
        OSError: the file cannot be written.
    """
    try:
        with closing(sqlite3.connect(path)) as database, database:
            _insert_style(database, style, layer)
    except sqlite3.Error as error:
        raise OSError(str(error)) from error


def _insert_style(database: sqlite3.Connection, style: QgisStyle, layer: str) -> None:
    geometry_column, changed = database.execute(
        "SELECT g.column_name, c.last_change FROM gpkg_geometry_columns g JOIN gpkg_contents c USING (table_name) "
        "WHERE table_name = ?",
        [layer],
    ).fetchone()
    columns = ", ".join(f'"{name}" {kind}' for name, kind in LAYER_STYLES_COLUMNS.items())
    database.execute(f"CREATE TABLE layer_styles ({columns})")
    for statement in HIDE_UNREGISTERED_TABLES:
        database.execute(statement)
    database.execute(
        "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, f_geometry_column, styleName, "
        "styleQML, styleSLD, useAsDefault, description, owner, ui, update_time) "
        "VALUES ('', '', ?, ?, ?, ?, '', 1, ?, '', NULL, ?)",
        [layer, geometry_column, style.column, build_qml(style), f"coloured by {style.column}", changed],
    )
