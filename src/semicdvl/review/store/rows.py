"""An object of the map, as the review has it, and its row in the database."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import shapely
from shapely import MultiPolygon

from semicdvl.reading.json_files import parse_json

STATES = ("open", "accepted", "rejected", "skipped")


@dataclass(frozen=True)
class Change:
    """An object of the map, as the review has it.

    Attributes:
        id: its number; those of the detection keep theirs.
        version: grows with every write.
        live: False once it was split, merged, or its drawing undone.
        state: one of `STATES`.
        source: "detected", "drawn", "split" or "merged".
        parents: numbers of the objects that it was split from or merged of.
        kind: appeared, disappeared, replaced, changed.
        from_class: class at date 1, None if not known.
        to_class: class at date 2.
        score: of the detection, None for one that a person drew.
        uncertainty: how likely the detection is wrong about it.
        area: in the unit of the map (m² or px).
        original: as the detection found it, in map coordinates; None for one that it did not find.
        geometry: as it is now.
        edited: whether a person redrew it.
        comment: of the reviewer.
        reviewer: who decided last.
        decided: when, in UTC (ISO 8601); "" where nobody has.
    """

    id: int
    version: int
    live: bool
    state: str
    source: str
    parents: tuple[int, ...]
    kind: str | None
    from_class: str | None
    to_class: str | None
    score: float | None
    uncertainty: float | None
    area: float
    original: MultiPolygon | None
    geometry: MultiPolygon
    edited: bool = False
    comment: str = ""
    reviewer: str = ""
    decided: str = ""


COLUMNS = tuple(field.name for field in fields(Change))


def to_row(change: Change) -> list[Any]:
    """Return an object as its row."""
    values = asdict(change)
    values["parents"] = json.dumps(change.parents)
    values["original"] = None if change.original is None else shapely.to_wkb(change.original)
    values["geometry"] = shapely.to_wkb(change.geometry)
    return [int(value) if isinstance(value, bool) else value for value in (values[name] for name in COLUMNS)]


def read_row(row: Sequence[Any]) -> Change:
    """Return the object of a row."""
    return read_rows([row])[0]


def read_rows(rows: Sequence[Sequence[Any]]) -> list[Change]:
    """Return the objects of rows; the shapes of all of them are decoded at once.

    Raises:
        ValueError, TypeError, GEOSException: a row is not that of an object.
    """
    with np.errstate(invalid="ignore"):  # a warning of shapely on what is refused below
        shapes = {
            name: shapely.from_wkb([row[COLUMNS.index(name)] for row in rows]) for name in ("original", "geometry")
        }
    if not all(np.isfinite(shapely.get_coordinates(of_all)).all() for of_all in shapes.values()):
        raise ValueError("an outline has a coordinate that is no number")
    found = []
    for at, row in enumerate(rows):
        values = dict(zip(COLUMNS, row, strict=True)) | {name: of_all[at] for name, of_all in shapes.items()}
        values |= {"live": bool(values["live"]), "edited": bool(values["edited"])}
        values["parents"] = () if values["parents"] == "[]" else _read_parents(values["parents"])
        if values["state"] not in STATES or not isinstance(values["geometry"], MultiPolygon):
            raise ValueError(f"change {values['id']} has an unknown state, or no polygons")
        found.append(Change(**values))
    return found


def _read_parents(text: str) -> tuple[int, ...]:
    """Return the numbers of the objects that an object was made of.

    Raises:
        ValueError: they are no numbers.
    """
    parents = parse_json(text)
    if not isinstance(parents, list) or not all(isinstance(one, int) and one > 0 for one in parents):
        raise ValueError("the numbers of the objects that an object was made of are none")
    return tuple(parents)


def read_versions(text: str) -> dict[int, int]:
    """Return versions of objects by number.

    Raises:
        ValueError: the text is something else.
    """
    found = parse_json(text)
    if not isinstance(found, dict) or not all(key.isdecimal() and isinstance(one, int) for key, one in found.items()):
        raise ValueError("the versions of objects are no numbers")
    return {int(key): version for key, version in found.items()}


def to_json_row(change: Change) -> list[Any]:
    """Return a row as JSON has it: shapes in hexadecimal digits."""
    return [value.hex() if isinstance(value, bytes) else value for value in to_row(change)]


def read_json_row(row: Sequence[Any]) -> Change:
    """Return the object of such a row."""
    shapes = {COLUMNS.index("original"), COLUMNS.index("geometry")}
    return read_row(
        [bytes.fromhex(value) if at in shapes and value is not None else value for at, value in enumerate(row)]
    )
