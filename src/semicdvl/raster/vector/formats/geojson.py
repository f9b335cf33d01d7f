"""GeoJSON after RFC 7946, which has longitude and latitude only."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd

from semicdvl.raster.vector.files import write_ogr
from semicdvl.raster.vector.qgis_style import QgisStyle


class GeoJson:
    """Writes GeoJSON; polygons with a CRS are projected to longitude and latitude."""

    def write(self, path: Path, frame: gpd.GeoDataFrame, *, layer: str, style: QgisStyle | None) -> None:
        """Write polygons to a file: see `files.VectorFormat`."""
        if frame.crs is None or not (frame.crs.is_projected or frame.crs.is_geographic):  # a local CRS
            write_ogr(path, frame, driver="GeoJSON", layer=layer)
        else:
            write_ogr(path, frame.to_crs(4326), driver="GeoJSON", layer=layer, RFC7946="YES")
