"""GeoParquet: columns that pandas, DuckDB and Arrow read; needs pyarrow."""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import geopandas as gpd

from semicdvl.errors import MissingExtraError
from semicdvl.raster.vector.qgis_style import QgisStyle


class GeoParquet:
    """Writes GeoParquet, compressed with Zstandard."""

    def write(self, path: Path, frame: gpd.GeoDataFrame, *, layer: str, style: QgisStyle | None) -> None:
        """Write polygons to a file: see `files.VectorFormat`."""
        frame.to_parquet(path, index=False, compression="zstd")

    def write_batches(
        self, path: Path, frames: Iterable[gpd.GeoDataFrame], *, layer: str, style: QgisStyle | None
    ) -> None:
        """Write polygons to a file batch by batch, each a group of rows: see `files.BatchFormat`."""
        import pyarrow.parquet

        writer, facts = None, dict[str, Any]()
        for frame in frames:
            content = io.BytesIO()
            frame.to_parquet(content, index=False)
            table = pyarrow.parquet.read_table(content)
            notes = dict(table.schema.metadata)
            facts = _join_facts(facts, json.loads(notes.pop(b"geo")))
            if writer is None:
                writer = pyarrow.parquet.ParquetWriter(path, table.schema.with_metadata(notes), compression="zstd")
            writer.write_table(table.cast(writer.schema))
        assert writer is not None, "one batch at least"
        writer.add_key_value_metadata({"geo": json.dumps(facts)})
        writer.close()


def _join_facts(before: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Return what the file says of its geometry: the same of all batches, but for the bounds."""
    if before:
        column = own["columns"][own["primary_column"]]
        first, second = before["columns"][own["primary_column"]]["bbox"], column["bbox"]
        column["bbox"] = [*map(min, first[:2], second[:2]), *map(max, first[2:], second[2:])]
    return own


def build_geoparquet() -> GeoParquet:
    """Return the format.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise MissingExtraError("GeoParquet needs pyarrow. Install semicdvl[parquet], or write .gpkg.")
    return GeoParquet()
