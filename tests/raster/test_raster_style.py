"""Styles beside rasters: QGIS and GDAL show the classes that occur, by name."""

from xml.etree import ElementTree as ET

import numpy as np
import rasterio
from tests.support.object_scenes import UTM

from semicdvl.raster.io.cog import BandDescription, create_cog
from semicdvl.raster.raster_style import RasterClass, write_class_style, write_ramp_style

CLASSES = (
    RasterClass(0, "house", (214, 69, 65), 30),
    RasterClass(1, "road <old>", (110, 110, 118), 0),
    RasterClass(2, "grass", (156, 204, 101), 70, alpha=0),
)


def test_legend_holds_the_classes_that_occur_by_name(tmp_path):
    path = tmp_path / "t1.tif"
    write_class_style(path, CLASSES)
    text = (tmp_path / "t1.qml").read_text()
    assert text.startswith("<!DOCTYPE qgis PUBLIC")
    entries = [entry.attrib for entry in ET.fromstring(text.split("\n", 1)[1]).iter("paletteEntry")]
    assert entries == [
        {"value": "0", "label": "house", "color": "#d64541", "alpha": "255"},
        {"value": "2", "label": "grass", "color": "#9ccc65", "alpha": "0"},
    ]


def test_gdal_reads_names_and_pixels_are_as_before(tmp_path):
    path, band = tmp_path / "t1.tif", BandDescription("uint8", 255, {"CLASS_0": "house"})
    values_HW = np.arange(UTM.height * UTM.width).reshape(UTM.height, UTM.width).astype(np.uint8) % 3
    with create_cog(path, grid=UTM, band=band) as cog:
        cog.write_rows(0, values_HW)
    write_class_style(path, CLASSES)
    with rasterio.open(path) as source:
        assert (source.read(1) == values_HW).all() and source.tags()["CLASS_0"] == "house" and source.nodata == 255
        assert str(tmp_path / "t1.tif.aux.xml") in source.files
    band_xml = ET.parse(tmp_path / "t1.tif.aux.xml").getroot().find("PAMRasterBand")
    assert [name.text for name in band_xml.iter("Category")] == ["house", "road <old>", "grass"]
    rows = [[cell.text for cell in row.iter("F")] for row in band_xml.iter("Row")]
    assert rows == [["0", "30", "house", "214", "69", "65", "255"], ["2", "70", "grass", "156", "204", "101", "0"]]


def test_ramp_of_scores_runs_over_its_stops(tmp_path):
    write_ramp_style(tmp_path / "score.tif", ((0.0, (255, 255, 255)), (0.5, (9, 8, 7)), (1.0, (0, 0, 0))))
    root = ET.fromstring((tmp_path / "score.qml").read_text().split("\n", 1)[1])
    renderer, shader = root.find("pipe/rasterrenderer"), root.find(".//colorrampshader")
    assert renderer.attrib["type"] == "singlebandpseudocolor" and renderer.attrib["band"] == "1"
    assert (shader.attrib["minimumValue"], shader.attrib["maximumValue"]) == ("0", "1")
    assert [(item.attrib["value"], item.attrib["color"]) for item in shader.iter("item")] == [
        ("0", "#ffffff"), ("0.5", "#090807"), ("1", "#000000"),
    ]  # fmt: skip
    assert not (tmp_path / "score.tif.aux.xml").exists()
