"""What a vector format has to offer."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import geopandas as gpd

from semicdvl.raster.vector.qgis_style import QgisStyle


class VectorFormat(Protocol):
    """A format that polygons can be written in."""

    def write(self, path: Path, frame: gpd.GeoDataFrame, *, layer: str, style: QgisStyle | None) -> None:
        """Write polygons to a file.

        The same polygons must give the same bytes. Errors of GDAL and of the system become an `OutputError`.

        Args:
            path: a temporary file beside the final one, empty; it is renamed when it is complete.
            frame: the polygons and their attributes.
            layer: name of the layer, for a format that has layers.
            style: how QGIS colours them, for a format that stores a style. None: no style.
        """
        ...
