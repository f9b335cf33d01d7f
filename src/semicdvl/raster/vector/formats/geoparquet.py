"""GeoParquet: columns that pandas, DuckDB and Arrow read; needs pyarrow."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import geopandas as gpd

from semicdvl.errors import MissingExtraError
from semicdvl.raster.vector.qgis_style import QgisStyle


class GeoParquet:
    """Writes GeoParquet, compressed with Zstandard."""

    def write(self, path: Path, frame: gpd.GeoDataFrame, *, layer: str, style: QgisStyle | None) -> None:
        """Write polygons to a file: see `files.VectorFormat`."""
        frame.to_parquet(path, index=False, compression="zstd")


def build_geoparquet() -> GeoParquet:
    """Return the format.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise MissingExtraError("GeoParquet needs pyarrow. Install semicdvl[parquet], or write .gpkg.")
    return GeoParquet()
