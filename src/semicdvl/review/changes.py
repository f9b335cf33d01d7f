"""The objects of a map: read once from changes.gpkg, then decided on one by one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from pyogrio.errors import DataLayerError, DataSourceError
from pyproj.exceptions import CRSError

from semicdvl.atomic_files import hash_file
from semicdvl.errors import InputError
from semicdvl.raster.grid import Grid
from semicdvl.raster.io.georeference_warnings import ignore_warnings
from semicdvl.raster.vector.files import CHANGES_LAYER
from semicdvl.raster.vector.object_table import measure_polygons
from semicdvl.raster.vector.reading import read_layer, read_layer_info
from semicdvl.raster.vector.tangles import is_tangled
from semicdvl.reports.colours import KIND_COLOURS
from semicdvl.review.folder import ServedPair
from semicdvl.review.geometry import keep_polygons
from semicdvl.review.store import Author, Change, ReviewStore, now, read_facts

MAX_OBJECTS = 500_000
MAX_TEXT_CHARS = 200
"""Of a class name."""
KINDS = tuple(KIND_COLOURS)


def open_review(pair: ServedPair, path: Path, *, grid: Grid) -> ReviewStore:
    """Open the review of a map; at the first time, take over its objects.

    Raises:
        InputError: the polygons are damaged, or the review is that of another map.
        OutputError: it cannot be written.
    """
    polygons = pair.folder / "changes.gpkg"
    digest = hash_file(polygons)
    known = read_facts(path).get("changes_sha256")
    if known not in (None, digest):
        raise InputError(
            path,
            f"is the review of an earlier {polygons.name}, which has been made anew since",
            f"Rename it to begin a new review; what was decided is in {path.name} and reviewed.gpkg",
        )
    changes = read_changes(polygons, grid, pair) if known is None else []
    store = ReviewStore(path)
    try:
        if store.read_meta("changes_sha256") is None:
            store.begin(changes, {"changes_sha256": digest, "map_key": pair.facts.key if pair.facts else ""})
    except BaseException:
        store.close()
        raise
    return store


def read_changes(path: Path, grid: Grid, pair: ServedPair) -> list[Change]:
    """Read the polygons of a result.

    Raises:
        InputError: the file is damaged, too large, or in another CRS than the map.
    """
    remedy = "Run `semicdvl detect` again"
    try:
        with ignore_warnings(RuntimeWarning):  # GDAL's, on a file that is then refused
            count = int(read_layer_info(path, layer=CHANGES_LAYER)["features"])
            if count > MAX_OBJECTS:
                problem = f"holds {count:,} objects, more than a person can look at"
                raise InputError(path, problem, "Give a larger --min-area")
            frame = read_layer(path, layer=CHANGES_LAYER)
    except (DataSourceError, DataLayerError, CRSError, UnicodeDecodeError, ValueError) as error:
        raise InputError(path, f"cannot be read ({str(error).splitlines()[0].rstrip('.')})", remedy) from error
    if (frame.crs is None) != (grid.crs is None) or (grid.crs is not None and frame.crs != grid.crs.to_wkt()):
        raise InputError(path, "has another CRS than change.tif", remedy)
    shapes = np.asarray(frame.geometry.to_numpy(), object)
    if any(map(is_tangled, shapes[~shapely.is_valid(shapes) & ~shapely.is_missing(shapes)])):
        raise InputError(path, "holds an object whose outline crosses itself too often", remedy)
    rows = frame.to_dict("records")
    numbers = _number_rows(rows)
    found = []
    for number, row in zip(numbers, rows, strict=True):
        change = _make_change(number, row, grid, pair)
        if change is not None:
            found.append(change)
    return found


def _number_rows(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the objects' own numbers, or new ones where these are missing or not unique."""
    own = [row.get("id") for row in rows]
    if all(isinstance(number, int | np.integer) and 0 < number < 2**53 for number in own) and len(set(own)) == len(own):
        return [int(number) for number in own if number is not None]
    return list(range(1, len(rows) + 1))


def _make_change(number: int, row: Mapping[str, Any], grid: Grid, pair: ServedPair) -> Change | None:
    """Return the object of a row; None for one without an area."""
    shape = row.get("geometry")
    if shape is None or shapely.is_empty(shape) or not np.isfinite(shapely.get_coordinates(shape)).all():
        return None
    outline = keep_polygons(shape if shapely.is_valid(shape) else shapely.make_valid(shape))
    if outline.is_empty:
        return None
    score, probability = _read_share(row.get("score")), _read_share(row.get("probability"))
    likely = score if probability is None else probability
    return Change(
        id=number,
        version=1,
        live=True,
        state="open",
        source="detected",
        parents=(),
        kind=_read_word(row.get("kind")) or "changed",
        from_class=_read_word(row.get("from_class")),
        to_class=_read_word(row.get("to_class")),
        score=score,
        uncertainty=None if likely is None else round(1 - likely, 4),
        area=measure_area([outline], grid, pair)[0],
        original=outline,
        geometry=outline,
    )


def measure_area(shapes: Sequence[Any], grid: Grid, pair: ServedPair) -> list[float]:
    """Return areas in m², or in px where the size of a pixel is not known."""
    gsd_m = None if pair.facts is None else pair.facts.grid.gsd_m
    return [round(float(area), 3) for area in measure_polygons(list(shapes), grid=grid, gsd_m=gsd_m)[0]]


def get_area_unit(grid: Grid, pair: ServedPair) -> str:
    """Return the unit of areas."""
    known = pair.facts is not None and pair.facts.grid.gsd_m is not None
    return "px" if grid.crs is None and not known else "m²"


def _read_share(value: Any) -> float | None:
    """Return a number from 0 to 1; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating) or not math.isfinite(value):
        return None
    return min(max(float(value), 0.0), 1.0)


def _read_word(value: Any) -> str | None:
    """Return a short text; None for anything else."""
    return value[:MAX_TEXT_CHARS] if isinstance(value, str) and value else None


def decide(store: ReviewStore, number: int, *, version: int, state: str, comment: str | None, author: Author) -> Change:
    """Accept, reject, skip or reopen an object.

    Raises:
        Conflict, NoSuchChange: see `ReviewStore.act`.
    """
    present = store.get(number)
    decided = replace(
        present,
        state=state,
        comment=present.comment if comment is None else comment,
        reviewer=author.reviewer,
        decided="" if state == "open" else now(),
    )
    return store.act(state, author, old=[(number, version)], new=[decided])[0]
