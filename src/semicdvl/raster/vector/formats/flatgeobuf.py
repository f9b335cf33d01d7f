"""FlatGeobuf: large layers that web maps read in parts."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd

from semicdvl.raster.vector.files import write_ogr
from semicdvl.raster.vector.qgis_style import QgisStyle


class FlatGeobuf:
    """Writes FlatGeobuf."""

    def write(self, path: Path, frame: gpd.GeoDataFrame, *, layer: str, style: QgisStyle | None) -> None:
        """Write polygons to a file: see `files.VectorFormat`."""
        write_ogr(path, frame, driver="FlatGeobuf", layer=layer)
