"""GeoPackage: what QGIS, ArcGIS and GDAL open, with its style inside."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd

from semicdvl.raster.vector.files import write_ogr
from semicdvl.raster.vector.qgis_style import QgisStyle, store_default_style


class GeoPackage:
    """Writes GeoPackage; the style becomes the default style of the layer."""

    def write(self, path: Path, frame: gpd.GeoDataFrame, *, layer: str, style: QgisStyle | None) -> None:
        """Write polygons to a file: see `files.VectorFormat`."""
        write_ogr(path, frame, driver="GPKG", layer=layer)
        if style is not None:
            store_default_style(path, style, layer=layer)
