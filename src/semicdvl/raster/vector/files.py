"""Write polygons to a vector file of any format in `formats`, with a QGIS style beside it."""

from __future__ import annotations

import warnings
from pathlib import Path

import geopandas as gpd

from semicdvl.atomic_files import write_atomically
from semicdvl.errors import ConfigError
from semicdvl.raster.io.cog import translate_gdal_errors
from semicdvl.raster.vector.formats import VECTOR_FORMATS
from semicdvl.raster.vector.formats.base import VectorFormat
from semicdvl.raster.vector.qgis_style import QgisStyle, build_qml
from semicdvl.registry import build_part

CHANGES_LAYER = "changes"
"""The layer of the objects; a GeoPackage has a second one for QGIS, with the style."""


def get_vector_format(path: Path) -> VectorFormat:
    """Return the vector format of a file, by its suffix.

    Raises:
        ConfigError: the suffix is that of no format.
        MissingExtraError: a package that the format needs is not installed.
    """
    name = path.suffix.lower().removeprefix(".")
    if name not in VECTOR_FORMATS:
        suffixes = ", ".join(f".{known}" for known in VECTOR_FORMATS)
        raise ConfigError(f"{path.name}: The vector format is unknown. Use a file name that ends in one of {suffixes}.")
    vector_format: VectorFormat = build_part("vector format", name, VECTOR_FORMATS, {})
    return vector_format


def write_vector(
    path: Path, frame: gpd.GeoDataFrame, *, layer: str = CHANGES_LAYER, style: QgisStyle | None = None
) -> None:
    """Write polygons in the format of the file's suffix. The same polygons give the same bytes.

    Args:
        path: the file; an existing file of that name is replaced.
        frame: the polygons and their attributes.
        layer: name of the layer.
        style: how QGIS colours them: written beside the file (`.qml`), and into a GeoPackage as its default style.

    Raises:
        ConfigError: the suffix is that of no format.
        MissingExtraError: a package that the format needs is not installed.
        OutputError: the file cannot be written.
    """
    vector_format = get_vector_format(path)
    with translate_gdal_errors(path), write_atomically(path) as part, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'crs' was not provided", UserWarning)  # plain images have none
        vector_format.write(part, frame, layer=layer, style=style)
    if style is not None:
        with write_atomically(path.with_suffix(".qml")) as part:
            part.write_text(build_qml(style), encoding="utf-8")
