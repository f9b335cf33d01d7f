"""Styles of rasters for a GIS: files beside them that name and colour their values.

QGIS takes the style of `t1.tif` from `t1.qml`. GDAL, and what reads through it, takes names and a table of the values
from `t1.tif.aux.xml` (its category names and raster attribute table). Without them a reader shows the colour table of
the GeoTIFF, which always has 256 entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from semicdvl.atomic_files import write_bytes_atomically
from semicdvl.raster.vector.qgis_style import format_qml, make_qml_root

Colour = tuple[int, int, int]

ATTRIBUTE_COLUMNS = (
    ("Value", 0, 5), ("Count", 0, 1), ("Class", 2, 2), ("Red", 0, 6), ("Green", 0, 7), ("Blue", 0, 8), ("Alpha", 0, 9),
)  # fmt: skip
"""Columns of GDAL's raster attribute table: name, type (0 integer, 2 text) and usage, as its `GDALRATFieldUsage`."""


@dataclass(frozen=True)
class RasterClass:
    """One value of a raster.

    Attributes:
        value: from 0 to 255.
        name: as a legend shows it.
        colour: RGB.
        pixels: how many there are; classes without any are left out of the legend.
        alpha: 0 transparent to 255 opaque.
    """

    value: int
    name: str
    colour: Colour
    pixels: int
    alpha: int = 255


def write_class_style(path: Path, classes: Sequence[RasterClass]) -> None:
    """Write the style of a raster of classes beside it: `.qml` for QGIS, `.aux.xml` for GDAL.

    Args:
        path: the raster.
        classes: all of its classes, by value.

    Raises:
        OutputError: the folder cannot be written.
    """
    root = make_qml_root()
    palette = ET.SubElement(_add_renderer(root, "paletted"), "colorPalette")
    for one in classes:
        if one.pixels:
            ET.SubElement(
                palette, "paletteEntry", value=str(one.value), label=one.name, color=_format_hex(one.colour),
                alpha=str(one.alpha),
            )  # fmt: skip
    write_bytes_atomically(path.with_suffix(".qml"), format_qml(root).encode())
    write_bytes_atomically(path.with_name(f"{path.name}.aux.xml"), build_attribute_table(classes).encode())


def write_ramp_style(path: Path, stops: Sequence[tuple[float, Colour]]) -> None:
    """Write the style of a raster of scores beside it, as `.qml` for QGIS; what has no data stays transparent.

    Args:
        path: the raster.
        stops: scores with their colours, from the lowest to the highest; readers interpolate between them.

    Raises:
        OutputError: the folder cannot be written.
    """
    (low, first), *between, (high, last) = stops
    root = make_qml_root()
    renderer = _add_renderer(root, "singlebandpseudocolor", classificationMin=f"{low:g}", classificationMax=f"{high:g}")
    shader = ET.SubElement(
        ET.SubElement(renderer, "rastershader"), "colorrampshader", colorRampType="INTERPOLATED",
        classificationMode="1", clip="0", minimumValue=f"{low:g}", maximumValue=f"{high:g}", labelPrecision="2",
    )  # fmt: skip
    source = ET.SubElement(shader, "colorramp", name="[source]", type="gradient")
    inner = ":".join(f"{(value - low) / (high - low):g};{_format_rgba(colour)}" for value, colour in between)
    properties = {"color1": _format_rgba(first), "color2": _format_rgba(last), "discrete": "0", "rampType": "gradient"}
    for key, value in {**properties, "stops": inner}.items():
        ET.SubElement(source, "prop", k=key, v=value)
    for stop, colour in stops:
        ET.SubElement(shader, "item", value=f"{stop:g}", label=f"{stop:g}", color=_format_hex(colour), alpha="255")
    write_bytes_atomically(path.with_suffix(".qml"), format_qml(root).encode())


def _add_renderer(root: ET.Element, kind: str, **attributes: str) -> ET.Element:
    """Add the renderer of band 1 to a style."""
    pipe = ET.SubElement(root, "pipe")
    shared = {"type": kind, "band": "1", "opacity": "1", "alphaBand": "-1", "nodataColor": ""}
    renderer = ET.SubElement(pipe, "rasterrenderer", {**shared, **attributes})
    ET.SubElement(renderer, "rasterTransparency")
    return renderer


def _format_hex(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _format_rgba(colour: Colour) -> str:
    return "{},{},{},255".format(*colour)


def build_attribute_table(classes: Sequence[RasterClass]) -> str:
    """Return GDAL's `.aux.xml`: the names of all classes by value, and a table of those that occur."""
    root = ET.Element("PAMDataset")
    band = ET.SubElement(root, "PAMRasterBand", band="1")
    names = {one.value: one.name for one in classes}
    listed = ET.SubElement(band, "CategoryNames")
    for value in range(max(names, default=-1) + 1):
        ET.SubElement(listed, "Category").text = names.get(value, "")
    table = ET.SubElement(band, "GDALRasterAttributeTable", tableType="thematic")
    for index, (name, kind, usage) in enumerate(ATTRIBUTE_COLUMNS):
        column = ET.SubElement(table, "FieldDefn", index=str(index))
        for tag, text in (("Name", name), ("Type", kind), ("Usage", usage)):
            ET.SubElement(column, tag).text = str(text)
    for number, one in enumerate(one for one in classes if one.pixels):
        row = ET.SubElement(table, "Row", index=str(number))
        for cell in (one.value, one.pixels, one.name, *one.colour, one.alpha):
            ET.SubElement(row, "F").text = str(cell)
    ET.indent(root, "  ")
    return ET.tostring(root, encoding="unicode") + "\n"
