"""The tables of a review, and what a file must hold to be one: it may come from somebody else.

SQLite lets a file bring views and triggers, which would run with every query, and values of any type in any column.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS changes (
  id INTEGER PRIMARY KEY, version INTEGER NOT NULL, live INTEGER NOT NULL, state TEXT NOT NULL, source TEXT NOT NULL,
  parents TEXT NOT NULL, kind TEXT, from_class TEXT, to_class TEXT, score REAL, uncertainty REAL, area REAL NOT NULL,
  original BLOB, geometry BLOB NOT NULL, edited INTEGER NOT NULL, comment TEXT NOT NULL, reviewer TEXT NOT NULL,
  decided TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS log (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, time TEXT NOT NULL, reviewer TEXT NOT NULL, window TEXT NOT NULL,
  action TEXT NOT NULL, before TEXT NOT NULL, after TEXT NOT NULL, undone INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS log_window ON log (window, undone, seq);
CREATE TABLE IF NOT EXISTS places (
  rank INTEGER PRIMARY KEY, row INTEGER NOT NULL, col INTEGER NOT NULL, mapped INTEGER NOT NULL, truth INTEGER,
  version INTEGER NOT NULL, reviewer TEXT NOT NULL, time TEXT NOT NULL);
"""
TABLES = ("meta", "changes", "log", "places")
MAX_REAL = 1e300
"""Larger numbers are infinite, or would be soon."""
Columns = list[tuple[str, str, int]]
"""Name, type and kind (0: stored as it is) of the columns of a table."""


def check_tables(database: sqlite3.Connection) -> None:
    """Check that a file holds nothing but tables of a review, as this program makes them; some may be missing.

    Raises:
        sqlite3.DatabaseError: it holds anything else; nothing of it was run.
    """
    with closing(sqlite3.connect(":memory:")) as fresh:
        fresh.executescript(SCHEMA)
        expected = _list_parts(fresh)
        columns = {table: _list_columns(fresh, table) for table in TABLES}
    _check_parts(database, expected)
    present = {name for _, name in _list_parts(database)}
    for table, known in columns.items():
        if table not in present:
            continue
        if _list_columns(database, table) != known:
            raise sqlite3.DatabaseError(f"the table {table!r} has other columns")
        _check_types(database, table, known)


def make_tables(database: sqlite3.Connection) -> None:
    """Make the tables that are missing, in a file that `check_tables` has looked at.

    Raises:
        sqlite3.DatabaseError: it holds anything else by now; nothing of it was run.
    """
    with closing(sqlite3.connect(":memory:")) as fresh:
        fresh.executescript(SCHEMA)
        _check_parts(database, _list_parts(fresh))
    database.executescript(SCHEMA)


def _check_parts(database: sqlite3.Connection, expected: set[tuple[str, str]]) -> None:
    """Raise where a file holds a table, an index, a view or a trigger that no review has."""
    others = sorted(part for part in _list_parts(database) - expected if not _is_statistics(*part))
    foreign = [f"the {kind} {name[:60]!r}" for kind, name in others]
    if foreign:
        raise sqlite3.DatabaseError(f"it holds {foreign[0]}, which no review has")


def _list_parts(database: sqlite3.Connection) -> set[tuple[str, str]]:
    """Return kind and name of all tables, indices, views and triggers."""
    return {(str(kind), str(name)) for kind, name in database.execute("SELECT type, name FROM sqlite_master")}


def _is_statistics(kind: str, name: str) -> bool:
    """Tell whether SQLite itself keeps a table, as its tools may have it do (ANALYZE)."""
    return kind in ("table", "index") and name.startswith("sqlite_")


def _list_columns(database: sqlite3.Connection, table: str) -> Columns:
    rows = database.execute("SELECT name, type, hidden FROM pragma_table_xinfo(?)", [table])
    return [(str(name), str(kind), int(hidden)) for name, kind, hidden in rows]


def _check_types(database: sqlite3.Connection, table: str, columns: Columns) -> None:
    """Raise where a value is not of the type of its column, or a number is not finite."""
    faults = [f"typeof({name}) NOT IN ('{kind.lower()}', 'null')" for name, kind, _ in columns]
    faults += [f"abs({name}) > {MAX_REAL!r}" for name, kind, _ in columns if kind == "REAL"]
    if database.execute(f"SELECT 1 FROM {table} WHERE {' OR '.join(faults)} LIMIT 1").fetchone() is not None:
        raise sqlite3.DatabaseError(f"a value of the table {table!r} has another type than its column")
