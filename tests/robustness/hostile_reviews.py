"""Hostile databases of reviews: foreign tables, code in the file, values of other types, damaged logs."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shapely import MultiPolygon, box
from tests.robustness.hostile_images import Mutation
from tests.robustness.hostile_vectors import edit_database

from semicdvl.review.store import Author, Change, ReviewStore

COLUMNS = {
    "meta": ("key", "value"),
    "changes": (
        "id", "version", "live", "state", "source", "parents", "kind", "score", "area", "original", "geometry",
        "comment", "reviewer", "decided",
    ),
    "log": ("seq", "time", "reviewer", "window", "action", "before", "after", "undone"),
    "places": ("rank", "row", "col", "mapped", "truth", "version"),
}  # fmt: skip
VALUES = (
    "NULL", "-1", "0", "9223372036854775807", "1e308", "9e999", "''", "'x'", "'['", "'[]'", "'{}'", "'[1]'",
    "'[\"a\"]'", "'{\"1\": 2}'", "'{\"a\": 1}'", "'{\"1\": \"x\"}'", "x''", "x'00'", "x'0106000000ffffffff'",
    "'accepted'", "char(0)", "char(27)", "CAST(x'ff' AS TEXT)", "zeroblob(70000000)",
)  # fmt: skip
ENDLESS = "AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"


def write_review(path: Path) -> None:
    """Write a review in which one object was decided on and undone, and another decided on."""
    path.parent.mkdir()
    shape = MultiPolygon([box(0, 0, 5, 5)])
    rows: list[Any] = ["open", "detected", (), "changed", None, None, 0.5, 0.5, 25.0, shape, shape]
    store = ReviewStore(path)
    store.begin([Change(number, 1, True, *rows) for number in (1, 2)], {"changes_sha256": "0" * 64})
    for number in (1, 2):
        decided = store.get(number)
        store.act("decision", Author("a", "w"), old=[(number, decided.version)], new=[decided])
    store.undo(Author("a", "w"))
    store.store_places([(3, 4, 0), (5, 6, 1)], {"class_px": "90,10"})
    store.close()


def read_review(path: Path) -> Any:
    """Read everything of a review, and undo an action."""
    store = ReviewStore(path)
    try:
        found = store.list_changes(all_rows=True), store.list_places(), store.count_states(), store.read_class_px()
        store.undo(Author("a", "w"))
        return found
    finally:
        store.close()


def mutate_review(content: bytes, rng: random.Random, count: int) -> Iterator[Mutation]:
    """Yield databases that are no reviews, and reviews with other values."""
    scripts = {
        "a foreign table": "CREATE TABLE diary (day TEXT)",
        "an endless view": f"CREATE VIEW diary {ENDLESS}",
        "a view for a table": f"DROP TABLE places; CREATE VIEW places {ENDLESS}",
        "a trigger": "CREATE TRIGGER t AFTER INSERT ON log BEGIN DELETE FROM changes; END",
        "no tables": "DROP TABLE meta; DROP TABLE changes; DROP TABLE log; DROP TABLE places",
        "no facts": "DROP TABLE meta",
        "other columns": "ALTER TABLE changes ADD COLUMN more TEXT",
        "a virtual column": "ALTER TABLE changes ADD COLUMN more TEXT AS (comment || comment)",
        "another version": "UPDATE meta SET value = 'semicdvl-review-99' WHERE key = 'format'",
        "the log of WAL": "PRAGMA journal_mode = WAL; CREATE TABLE diary (day TEXT)",
        "300,000 rows": "INSERT INTO log SELECT NULL, '', '', '', '', '[]', '{}', 0 FROM "
        "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000) SELECT i FROM n)",
    }
    for name, script in scripts.items():
        yield name, edit_database(content, script)
    for _ in range(count):
        table = rng.choice(list(COLUMNS))
        column, value = rng.choice(COLUMNS[table]), rng.choice(VALUES)
        script = f"UPDATE OR IGNORE {table} SET {column} = {value}"
        try:
            yield f"{table}.{column} = {value[:30]}", edit_database(content, script)
        except Exception:  # SQLite itself keeps it out
            continue
