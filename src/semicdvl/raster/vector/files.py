"""Write changed objects as GeoPackage, GeoJSON, FlatGeobuf or GeoParquet, with a QGIS style."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path

import geopandas as gpd
import pyogrio

from semicdvl.atomic_files import write_atomically
from semicdvl.errors import ConfigError, MissingExtraError
from semicdvl.raster.io.cog import translate_gdal_errors
from semicdvl.raster.vector.qgis_style import QgisStyle, build_qml, store_default_style

VECTOR_DRIVERS = {".gpkg": "GPKG", ".geojson": "GeoJSON", ".fgb": "FlatGeobuf", ".parquet": "GeoParquet"}
"""Suffix of a vector file -> name of its format."""
CHANGES_LAYER = "changes"
"""The layer of the objects; a GeoPackage has a second one for QGIS, with the style."""
FIXED_TIMESTAMP = "1970-01-01T00:00:00Z"
"""Stored in a GeoPackage in place of the time of writing, so that the same objects give the same bytes."""


def get_vector_driver(path: Path) -> str:
    """Return the name of the vector format of a file, by its suffix.

    Raises:
        ConfigError: the suffix is none of `VECTOR_DRIVERS`.
        MissingExtraError: GeoParquet without pyarrow.
    """
    driver = VECTOR_DRIVERS.get(path.suffix.lower())
    if driver is None:
        suffixes = ", ".join(VECTOR_DRIVERS)
        raise ConfigError(f"{path.name}: The vector format is unknown. Use a file name that ends in one of {suffixes}.")
    if driver == "GeoParquet" and importlib.util.find_spec("pyarrow") is None:
        raise MissingExtraError("GeoParquet needs pyarrow. Install semicdvl[parquet], or write .gpkg.")
    return driver


def write_vector(
    path: Path, frame: gpd.GeoDataFrame, *, layer: str = CHANGES_LAYER, style: QgisStyle | None = None
) -> None:
    """Write objects as GeoPackage, GeoJSON, FlatGeobuf or GeoParquet, by the suffix of the file.

    GeoJSON has longitude and latitude only (RFC 7946), so its geometry is projected to them where there is a CRS. The
    same objects give the same bytes: the time of writing in a GeoPackage is a fixed one.

    Args:
        path: the file; an existing file of that name is replaced.
        frame: the objects.
        layer: name of the layer.
        style: how QGIS colours them: written beside the file (`.qml`), and into a GeoPackage as its default style.

    Raises:
        ConfigError: the suffix is none of `VECTOR_DRIVERS`.
        MissingExtraError: GeoParquet without pyarrow.
        OutputError: the file cannot be written.
    """
    driver = get_vector_driver(path)
    if driver == "GeoJSON" and frame.crs is not None:
        frame = frame.to_crs(4326)
    with translate_gdal_errors(path), write_atomically(path) as part, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'crs' was not provided", UserWarning)  # plain images have none
        if driver == "GeoParquet":
            frame.to_parquet(part, index=False, compression="zstd")
        else:
            part.unlink()  # GDAL adds a layer to an existing GeoPackage
            _write_ogr(part, frame, driver=driver, layer=layer)
        if driver == "GPKG" and style is not None:
            store_default_style(part, style, layer=layer)
    if style is not None:
        with write_atomically(path.with_suffix(".qml")) as part:
            part.write_text(build_qml(style), encoding="utf-8")


def _write_ogr(path: Path, frame: gpd.GeoDataFrame, *, driver: str, layer: str) -> None:
    """Write a file through OGR."""
    options = {"geometry_type": "MultiPolygon", "layer": layer}  # by default it is named like the temporary file
    if driver == "GeoJSON" and frame.crs is not None:
        options["RFC7946"] = "YES"
    previous = pyogrio.get_gdal_config_option("OGR_CURRENT_DATE")
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": FIXED_TIMESTAMP})
    try:
        frame.to_file(path, driver=driver, engine="pyogrio", **options)
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": previous})
