"""What a database of SQLite holds, before GDAL reads it: views that end, and coordinate systems that name no files."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from pathlib import Path

from semicdvl.errors import InputError
from semicdvl.raster.crs_files import require_plain_crs
from semicdvl.reading.json_files import shorten

MAX_VIEW_ROWS, MAX_VIEW_S = 5_000_000, 20.0
"""Rows of a view in a database, and how long counting them may take."""
DATABASE_HEAD = b"SQLite format 3\x00"
"""How GeoPackage, MBTiles and SpatiaLite begin."""


def require_plain_database(path: Path, display_name: str | Path, *, remedy: str) -> None:
    """Refuse a database with a view that never ends, since nothing stops GDAL once it reads one; or a CRS with files.

    Views with functions that only a GIS has are left alone, unless a GeoPackage lists them as layers.

    Args:
        path: the database.
        display_name: its name in messages.
        remedy: what to do with one whose view is refused.

    Raises:
        InputError: a view has too many rows, takes too long, or is a layer and cannot be computed; a CRS names a file.
    """
    address = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    until = time.monotonic() + MAX_VIEW_S
    with contextlib.closing(sqlite3.connect(address, uri=True)) as database:
        database.text_factory = lambda text: text.decode(errors="replace")
        database.set_progress_handler(lambda: time.monotonic() > until, 10_000)
        try:
            database.execute("PRAGMA trusted_schema=OFF")
            problem = _find_view_fault(database, until=until)
            texts = [] if problem else _list_crs_texts(database)
        except sqlite3.Error:  # GDAL reports what is wrong with it
            return
    if problem is not None:
        raise InputError(display_name, problem, remedy)
    for text in texts:
        require_plain_crs(text, display_name)


def _find_view_fault(database: sqlite3.Connection, *, until: float) -> str | None:
    """Return what is wrong with a view of a database; None if nothing is."""
    views = _list_names(database, "type = 'view'")
    is_geopackage = bool(_list_names(database, "name = 'gpkg_contents'"))
    layers = set()
    if views and is_geopackage:
        layers = {str(row[0]) for row in database.execute("SELECT table_name FROM gpkg_contents")}
    for name in views:
        quoted = name.replace('"', '""')
        question = f'SELECT count(*) FROM (SELECT 1 FROM "{quoted}" LIMIT {MAX_VIEW_ROWS + 1})'
        try:
            if database.execute(question).fetchone()[0] > MAX_VIEW_ROWS:
                return f"holds the view '{shorten(name)}' of more than {MAX_VIEW_ROWS:,} rows"
        except sqlite3.Error as error:
            if name in layers or time.monotonic() > until:
                return f"holds the view '{shorten(name)}' that cannot be computed ({shorten(error)})"
    return None


def _list_crs_texts(database: sqlite3.Connection) -> list[str]:
    """Return the definitions of all coordinate systems of a database."""
    texts: list[str] = []
    for table in _list_names(database, "name LIKE '%spatial_ref_sys'"):
        quoted = table.replace('"', '""')
        texts += [
            " ".join(map(str, row)) for row in database.execute(f'SELECT * FROM "{quoted}" LIMIT {MAX_VIEW_ROWS}')
        ]
    return texts


def _list_names(database: sqlite3.Connection, condition: str) -> list[str]:
    return [str(row[0]) for row in database.execute(f"SELECT name FROM sqlite_master WHERE {condition}")]
