"""Write polygons through OGR, GDAL's library of vector formats, without the time of writing."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import pyogrio

FIXED_TIMESTAMP = "1970-01-01T00:00:00Z"
"""Stored in place of the time of writing, so that the same polygons give the same bytes."""


def write_ogr(path: Path, frame: gpd.GeoDataFrame, *, driver: str, layer: str, **options: str) -> None:
    """Write polygons as multi-polygons.

    Args:
        path: the file; an existing one is replaced.
        frame: the polygons.
        driver: GDAL's name of the format.
        layer: name of the layer; by default GDAL would name it like the temporary file.
        options: further options of the driver.
    """
    path.unlink(missing_ok=True)  # GDAL adds a layer to an existing GeoPackage
    previous = pyogrio.get_gdal_config_option("OGR_CURRENT_DATE")
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": FIXED_TIMESTAMP})
    try:
        frame.to_file(path, driver=driver, engine="pyogrio", geometry_type="MultiPolygon", layer=layer, **options)
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": previous})
