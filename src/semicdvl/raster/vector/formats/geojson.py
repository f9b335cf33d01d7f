"""GeoJSON after RFC 7946, which has longitude and latitude only."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import geopandas as gpd

from semicdvl.raster.vector.files import write_ogr
from semicdvl.raster.vector.qgis_style import QgisStyle

FEATURES = b'"features": ['
"""The line after which the features follow."""


class GeoJson:
    """Writes GeoJSON; polygons with a CRS are projected to longitude and latitude."""

    def write(self, path: Path, frame: gpd.GeoDataFrame, *, layer: str, style: QgisStyle | None) -> None:
        """Write polygons to a file: see `files.VectorFormat`."""
        if frame.crs is None or not (frame.crs.is_projected or frame.crs.is_geographic):  # a local CRS
            write_ogr(path, frame, driver="GeoJSON", layer=layer)
        else:
            write_ogr(path, frame.to_crs(4326), driver="GeoJSON", layer=layer, RFC7946="YES")

    def write_batches(
        self, path: Path, frames: Iterable[gpd.GeoDataFrame], *, layer: str, style: QgisStyle | None
    ) -> None:
        """Write polygons to a file batch by batch: see `files.BatchFormat`.

        GDAL writes a feature a line, between a head and a tail that are the same for every batch.
        """
        with tempfile.TemporaryDirectory(prefix=path.name, dir=path.parent) as folder, path.open("wb") as whole:
            between, tail = Path(folder) / "batch.geojson", b""
            for number, frame in enumerate(frames):
                self.write(between, frame, layer=layer, style=style)
                with between.open("rb") as batch:
                    tail = _copy_features(batch, whole, is_first=number == 0)
            whole.write(tail)


def _copy_features(batch: IO[bytes], whole: IO[bytes], *, is_first: bool) -> bytes:
    """Copy the features of a batch, and of the first one the head before them; return the tail."""
    for line in batch:
        if is_first:
            whole.write(line)
        if line.startswith(FEATURES):
            break
    previous = None if is_first else b",\n"
    for line in batch:
        if line.rstrip() == b"]":
            whole.write((previous or b"").rstrip(b"\n"))
            return b"\n" + line + batch.read()
        whole.write(previous or b"")
        previous = line
    raise AssertionError("GDAL wrote GeoJSON in another layout")
