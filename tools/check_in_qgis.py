"""Open the files of a detection in headless QGIS, as an analyst would, and say what QGIS makes of them.

Needs the Python bindings of QGIS (Debian: `apt-get install python3-qgis`), so it runs with the Python that has them and
imports nothing of this package:

    QT_QPA_PLATFORM=offscreen /usr/bin/python3 tools/check_in_qgis.py OUT --picture out.png

It prints one JSON object: name of a file -> its legend (name and colour of every entry), extent, CRS and, for polygons,
their number; and under "messages" what GDAL and QGIS complained of. The picture shows every layer with its style.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

RASTERS = ("t1", "t2", "change", "score")
POLYGONS = ("changes", "evaluation")
"""Files of polygons; the second one is written by `semicdvl evaluate`."""
CELL_PX = 480


def main() -> int:
    """Check the files of one folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what `semicdvl detect` wrote")
    parser.add_argument("--picture", type=Path, help="PNG to write, with all layers side by side")
    arguments = parser.parse_args()
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    from osgeo import gdal
    from qgis.core import QgsApplication

    complaints: list[str] = []
    gdal.UseExceptions()
    gdal.PushErrorHandler(lambda kind, number, text: complaints.append(text))
    application = QgsApplication([], False)
    application.initQgis()
    try:
        layers = _open_layers(arguments.folder)
        found: dict[str, Any] = {name: _describe(layer) for name, layer in layers.items()}
        if arguments.picture is not None:
            _draw(layers, arguments.picture)
    finally:
        layers = {}
        application.exitQgis()
    print(json.dumps({**found, "messages": complaints}, indent=1))
    return 0


def _open_layers(folder: Path) -> dict[str, Any]:
    """Open every output with the style that QGIS finds by itself."""
    from qgis.core import QgsRasterLayer, QgsVectorLayer

    layers: dict[str, Any] = {}
    for name in RASTERS:
        if (folder / f"{name}.tif").is_file():
            layers[f"{name}.tif"] = QgsRasterLayer(str(folder / f"{name}.tif"), name)
    for name in POLYGONS:
        if name == "changes" or (folder / f"{name}.gpkg").is_file():
            layers[f"{name}.gpkg"] = QgsVectorLayer(str(folder / f"{name}.gpkg"), name, "ogr")
    wrong = [name for name, layer in layers.items() if not layer.isValid()]
    if wrong:
        sys.exit(f"QGIS cannot open {', '.join(wrong)}")
    return layers


def _describe(layer: Any) -> dict[str, Any]:
    """Return what QGIS shows of a layer."""
    extent = layer.extent()
    described: dict[str, Any] = {
        "crs": layer.crs().authid(),
        "extent": [extent.xMinimum(), extent.yMinimum(), extent.xMaximum(), extent.yMaximum()],
        "renderer": layer.renderer().type(),
    }
    if hasattr(layer, "featureCount"):
        described["features"] = layer.featureCount()
        described["sublayers"] = [one.split("!!::!!")[1] for one in layer.dataProvider().subLayers()]
        categories = layer.renderer().categories() if hasattr(layer.renderer(), "categories") else []
        described["legend"] = {one.label(): one.symbol().color().name() for one in categories}
        return described
    described["legend"] = {label: colour.name() for label, colour in layer.renderer().legendSymbologyItems()}
    provider = layer.dataProvider()
    described["nodata"] = str(provider.sourceNoDataValue(1)) if provider.sourceHasNoDataValue(1) else None
    return described


def _draw(layers: dict[str, Any], path: Path) -> None:
    """Draw every layer beside the others, in their styles, with its legend below."""
    from qgis.core import QgsMapRendererParallelJob, QgsMapSettings
    from qgis.PyQt.QtCore import QRectF, QSize, Qt
    from qgis.PyQt.QtGui import QColor, QImage, QPainter

    extent = next(iter(layers.values())).extent()
    legend_px = 230
    sheet = QImage(CELL_PX * len(layers), CELL_PX + legend_px, QImage.Format_RGB32)
    sheet.fill(QColor("white"))
    painter = QPainter(sheet)
    for number, (name, layer) in enumerate(layers.items()):
        settings = QgsMapSettings()
        settings.setLayers([layer])
        settings.setDestinationCrs(layer.crs())
        settings.setExtent(extent)
        settings.setOutputSize(QSize(CELL_PX - 10, CELL_PX - 10))
        settings.setBackgroundColor(QColor("white"))
        job = QgsMapRendererParallelJob(settings)
        job.start()
        job.waitForFinished()
        left = number * CELL_PX
        painter.drawImage(left + 5, 5, job.renderedImage())
        painter.drawText(QRectF(left + 8, CELL_PX, CELL_PX, 20), Qt.AlignLeft, name)
        for row, (label, colour) in enumerate(_describe(layer)["legend"].items()):
            top = CELL_PX + 20 + 20 * row
            painter.fillRect(QRectF(left + 8, top, 24, 12), QColor(colour))
            painter.drawText(QRectF(left + 38, top - 3, CELL_PX, 20), Qt.AlignLeft, label)
    painter.end()
    if not sheet.save(str(path)):
        sys.exit(f"{path} cannot be written")


if __name__ == "__main__":
    sys.exit(main())
