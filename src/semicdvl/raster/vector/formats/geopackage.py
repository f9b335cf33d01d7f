"""GeoPackage: what QGIS, ArcGIS and GDAL open, with its style inside."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import geopandas as gpd

from semicdvl.raster.vector.files import append_ogr
from semicdvl.raster.vector.qgis_style import QgisStyle, store_default_style

GEOPACKAGE_VERSION = "1.2"
"""What GDAL reads without a warning since its version 2.2; 1.4, the default of GDAL 3.12, is new to GDAL 3.6."""


class GeoPackage:
    """Writes GeoPackage; the style becomes the default style of the layer."""

    def write(self, path: Path, frame: gpd.GeoDataFrame, *, layer: str, style: QgisStyle | None) -> None:
        """Write polygons to a file: see `files.VectorFormat`."""
        self.write_batches(path, [frame], layer=layer, style=style)

    def write_batches(
        self, path: Path, frames: Iterable[gpd.GeoDataFrame], *, layer: str, style: QgisStyle | None
    ) -> None:
        """Write polygons to a file batch by batch: see `files.BatchFormat`."""
        append_ogr(path, frames, driver="GPKG", layer=layer, VERSION=GEOPACKAGE_VERSION)
        if style is not None:
            store_default_style(path, style, layer=layer)
