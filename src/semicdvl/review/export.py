"""Write what was reviewed: reviewed.gpkg for a GIS and for `evaluate` and `prepare`, and review.json."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import geopandas as gpd
from shapely import MultiPolygon

from semicdvl.atomic_files import write_atomically, write_json
from semicdvl.data.prepare.polygon_files import REVIEWED_LAYER
from semicdvl.raster.grid import Grid
from semicdvl.raster.io.cog import translate_gdal_errors
from semicdvl.raster.vector.files import write_ogr
from semicdvl.raster.vector.formats.geopackage import GEOPACKAGE_VERSION
from semicdvl.raster.vector.qgis_style import QgisStyle, build_qml, store_default_style
from semicdvl.review.labels.training import name_from_here
from semicdvl.review.store import REVIEW_FORMAT, Change, now

REVIEWED_FILE, RECORD_FILE = "reviewed.gpkg", "review.json"
ORIGINAL_LAYER = "original"
STATE_STYLE = QgisStyle(
    "state",
    {"accepted": (40, 160, 90), "rejected": (215, 60, 50), "open": (240, 190, 60), "skipped": (150, 120, 200)},
)


def write_reviewed(path: Path, changes: Sequence[Change], *, grid: Grid, area_unit: str) -> None:
    """Write all objects: a layer `reviewed` as they are now, and a layer `original` as the detection found them.

    Raises:
        OutputError: the file cannot be written.
    """
    crs = None if grid.crs is None else grid.crs.to_wkt()
    live = [change for change in changes if change.live]
    area_column = "area_m2" if area_unit == "m²" else "area_px"
    rows = [_make_row(change, area_column) for change in live]
    columns = [*_make_row(_EXAMPLE, area_column)]
    reviewed = gpd.GeoDataFrame(rows, columns=columns, geometry="geometry", crs=crs)
    found = [change for change in changes if change.original is not None]
    original = gpd.GeoDataFrame(
        {"id": [change.id for change in found]}, geometry=[change.original for change in found], crs=crs
    )
    with translate_gdal_errors(path), write_atomically(path) as part:
        write_ogr(part, reviewed, driver="GPKG", layer=REVIEWED_LAYER, VERSION=GEOPACKAGE_VERSION)
        write_ogr(part, original, driver="GPKG", layer=ORIGINAL_LAYER, append=True)
        store_default_style(part, STATE_STYLE, layer=REVIEWED_LAYER)
    with write_atomically(path.with_suffix(".qml")) as part:
        part.write_text(build_qml(STATE_STYLE), encoding="utf-8")


def _make_row(change: Change, area_column: str) -> dict[str, Any]:
    """Return the row of an object."""
    return {
        "id": change.id,
        "state": change.state,
        "kind": change.kind,
        "from_class": change.from_class,
        "to_class": change.to_class,
        area_column: change.area,
        "score": change.score,
        "source": change.source,
        "edited": change.edited,
        "parents": ",".join(str(number) for number in change.parents),
        "reviewer": change.reviewer,
        "time": change.decided,
        "comment": change.comment,
        "geometry": change.geometry,
    }


_EXAMPLE = Change(0, 1, True, "open", "detected", (), None, None, None, None, None, 0.0, None, MultiPolygon())
"""Gives the columns of a map without objects."""


def write_record(
    path: Path,
    *,
    name: str,
    counts: dict[str, int],
    reviewers: Sequence[str],
    estimate: dict[str, Any],
    commands: Sequence[str],
) -> None:
    """Write review.json.

    Raises:
        OutputError: the file cannot be written.
    """
    content = {
        "format": REVIEW_FORMAT,
        "map": name,
        "written": now(),
        "states": counts,
        "reviewers": list(reviewers),
        "estimate": estimate,
        "commands": list(commands),
    }
    write_json(path, content)


def list_next_commands(folder: Path, *, before: str, after: str, reading: Sequence[str] = ()) -> list[str]:
    """Return what to do with a reviewed map: training patches of it, read with the options of `reading`."""
    paths = (before, after, folder / REVIEWED_FILE, folder.parent / f"{folder.name}-patches")
    quoted = [shlex.quote(name_from_here(path)) for path in paths]
    named = " ".join([f"--before {quoted[0]} --after {quoted[1]} --labels {quoted[2]}", shlex.join(reading)]).strip()
    return [f"semicdvl prepare {named} --min-known-frac 0.5 -o {quoted[3]}"]


def as_plain(value: Any) -> Any:
    """Return a dataclass of estimates as JSON has it."""
    return None if value is None else asdict(value)
