"""FlatGeobuf: large layers that web maps read in parts."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

import geopandas as gpd
import pyogrio

from semicdvl.raster.io.georeference_warnings import ignore_warnings
from semicdvl.raster.vector.files import NO_CRS_WARNING, append_ogr, write_ogr
from semicdvl.raster.vector.qgis_style import QgisStyle


class FlatGeobuf:
    """Writes FlatGeobuf."""

    def write(self, path: Path, frame: gpd.GeoDataFrame, *, layer: str, style: QgisStyle | None) -> None:
        """Write polygons to a file: see `files.VectorFormat`."""
        write_ogr(path, frame, driver="FlatGeobuf", layer=layer)

    def write_batches(
        self, path: Path, frames: Iterable[gpd.GeoDataFrame], *, layer: str, style: QgisStyle | None
    ) -> None:
        """Write polygons to a file batch by batch: see `files.BatchFormat`.

        The format has a spatial index in front, so nothing can be appended: the batches go to a GeoPackage first, which
        GDAL then reads feature by feature.
        """
        with tempfile.TemporaryDirectory(prefix=path.name, dir=path.parent) as folder:
            between = Path(folder) / "layer.gpkg"
            append_ogr(between, frames, driver="GPKG", layer=layer, SPATIAL_INDEX="NO")
            path.unlink(missing_ok=True)
            with pyogrio.open_arrow(between, layer=layer, use_pyarrow=False) as (facts, rows):
                with ignore_warnings(UserWarning, message=NO_CRS_WARNING):
                    pyogrio.write_arrow(
                        rows,
                        path,
                        layer=layer,
                        driver="FlatGeobuf",
                        geometry_name=facts["geometry_name"] or "wkb_geometry",
                        geometry_type="MultiPolygon",
                        crs=facts["crs"],
                    )
