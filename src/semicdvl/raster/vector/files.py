"""Write polygons to a vector file of any format in `formats`, with a QGIS style beside it.

`VectorFormat` is what a format has to offer; most of them write through OGR, GDAL's library of vector formats, with
`write_ogr`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from semicdvl.atomic_files import write_atomically
from semicdvl.errors import ConfigError
from semicdvl.raster.io.cog import translate_gdal_errors
from semicdvl.raster.io.georeference_warnings import ignore_warnings
from semicdvl.raster.vector.formats import VECTOR_FORMATS
from semicdvl.raster.vector.qgis_style import QgisStyle, build_qml
from semicdvl.registry import build_part

if TYPE_CHECKING:
    import geopandas as gpd

FIXED_TIMESTAMP = "1970-01-01T00:00:00.000Z"
"""Stored in place of the time of writing: the same polygons give the same bytes. GeoPackage wants milliseconds."""

NO_CRS_WARNING = "'crs' was not provided"
"""Begin of the warning of pyogrio on polygons of plain images, which have none."""

CHANGES_LAYER = "changes"
"""The layer of the objects."""


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
    path: Path,
    frames: gpd.GeoDataFrame | Iterable[gpd.GeoDataFrame],
    *,
    layer: str = CHANGES_LAYER,
    style: QgisStyle | None = None,
) -> None:
    """Write polygons in the format of the file's suffix. The same polygons give the same bytes.

    Args:
        path: the file; an existing file of that name is replaced.
        frames: the polygons and their attributes, at once or in batches of the same columns (one at least). Batches
            give the same rows in the same order, and of a format with `write_batches` memory holds one at a time.
        layer: name of the layer.
        style: how QGIS colours them: written beside the file (`.qml`), and into a GeoPackage as its default style.

    Raises:
        ConfigError: the suffix is that of no format.
        MissingExtraError: a package that the format needs is not installed.
        OutputError: the file cannot be written.
    """
    import geopandas as gpd
    import pandas as pd

    vector_format = get_vector_format(path)
    with translate_gdal_errors(path), write_atomically(path) as part:
        batches = iter([frames] if isinstance(frames, gpd.GeoDataFrame) else frames)
        held = deque(islice(batches, 2))
        if len(held) == 1:
            vector_format.write(part, held[0], layer=layer, style=style)
        elif isinstance(vector_format, BatchFormat):
            given = (held.popleft() for _ in range(2))  # so that none stays in memory once it is written
            vector_format.write_batches(part, chain(given, batches), layer=layer, style=style)
        else:
            whole = pd.concat([*held, *batches], ignore_index=True)
            vector_format.write(part, whole, layer=layer, style=style)
    if style is not None:
        with write_atomically(path.with_suffix(".qml")) as part:
            part.write_text(build_qml(style), encoding="utf-8")


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


@runtime_checkable
class BatchFormat(Protocol):
    """A format that can be written batch by batch; a plug-in's need not."""

    def write_batches(
        self, path: Path, frames: Iterable[gpd.GeoDataFrame], *, layer: str, style: QgisStyle | None
    ) -> None:
        """Write polygons as `VectorFormat.write` does, holding one batch at a time."""
        ...


def append_ogr(path: Path, frames: Iterable[gpd.GeoDataFrame], *, driver: str, layer: str, **options: str) -> None:
    """Write batches of polygons as `write_ogr` does, with a driver that can append to a layer."""
    for number, frame in enumerate(frames):
        write_ogr(path, frame, driver=driver, layer=layer, append=number > 0, **options)


def write_ogr(
    path: Path, frame: gpd.GeoDataFrame, *, driver: str, layer: str, append: bool = False, **options: str
) -> None:
    """Write polygons as multi-polygons.

    Args:
        path: the file; an existing one is replaced, unless `append`.
        frame: the polygons.
        driver: GDAL's name of the format.
        layer: name of the layer; by default GDAL would name it like the temporary file.
        append: add to the layer that the file has.
        options: further options of the driver.
    """
    import pyogrio

    if not append:
        path.unlink(missing_ok=True)  # GDAL adds a layer to an existing GeoPackage
    previous = pyogrio.get_gdal_config_option("OGR_CURRENT_DATE")
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": FIXED_TIMESTAMP})
    try:
        with ignore_warnings(UserWarning, message=NO_CRS_WARNING):
            frame.to_file(
                path,
                driver=driver,
                engine="pyogrio",
                geometry_type="MultiPolygon",
                layer=layer,
                append=append,
                **options,
            )
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": previous})
