"""Look into the file of a review before it is opened for writing: what is refused is left as it is, byte for byte.

SQLite changes a file that it opens: it sets the kind of the journal, makes files beside it, plays back a journal that
lies there, and deletes whatever that names. So a file is read first in a way that changes nothing: as one that nobody
writes to, or, where a journal of a killed process lies beside it, as a copy elsewhere.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path

from semicdvl.errors import InputError
from semicdvl.reading.limits import GIB, MIB
from semicdvl.reading.regular_files import FileStamps, find_file_fault
from semicdvl.review.store.schema import check_tables

JOURNAL_SUFFIXES = ("-wal", "-journal")
SIDE_SUFFIXES = (*JOURNAL_SUFFIXES, "-shm")
"""Of the files that SQLite keeps beside a database."""
MAX_REVIEW_BYTES = 4 * GIB
"""Of a review and its journal; half a million objects take less than one."""
MAX_VALUE_BYTES = 64 * MIB
"""Of one value; a polygon of a million corners has 16 MiB."""
SUPER_JOURNAL_MARK = bytes.fromhex("d9d505f920a163d7")
"""Last bytes of a journal that names a journal of several databases, which SQLite would read, and may delete."""
COPY_TRIES, COPY_WAIT_S = 20, 0.1
"""How often a copy is made of a file to which another process writes meanwhile."""
_REMEDY = "Rename it to begin a new review"


def limit_values(database: sqlite3.Connection) -> None:
    """Have SQLite refuse values that are too large before it takes memory for them."""
    database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)


def read_stored_facts(path: Path) -> dict[str, str]:
    """Check the file of a review, without changing it or what lies beside it, and return what it says of itself.

    Returns:
        The rows of its table `meta`; none for a file that does not exist, is empty, or in which nothing was stored.

    Raises:
        InputError: it, or a file of SQLite beside it, is no regular file, or too large.
        sqlite3.DatabaseError: it is not a review, or damaged.
    """
    sides = [path.with_name(path.name + suffix) for suffix in SIDE_SUFFIXES]
    total = sum(_measure(one, may_be_link=one == path) for one in (path, *sides))
    if total > MAX_REVIEW_BYTES:
        raise InputError(path, f"has {total / MIB:,.0f} MiB, more than a review can have", _REMEDY)
    if not path.exists() or path.stat().st_size == 0:
        return {}
    journals = [path.with_name(path.name + suffix) for suffix in JOURNAL_SUFFIXES]
    journals = [one for one in journals if one.exists() and one.stat().st_size > 0]
    if not journals:
        return _read_facts(f"{path.absolute().as_uri()}?mode=ro&immutable=1")
    with tempfile.TemporaryDirectory(prefix="semicdvl-review-") as folder:
        _copy_at_rest([path, *journals], Path(folder))
        return _read_facts((Path(folder) / path.name).as_uri())


def _measure(path: Path, *, may_be_link: bool) -> int:
    """Return the size of a file; 0 where there is none.

    Raises:
        InputError: it is no regular file, or leads elsewhere, where SQLite would write.
    """
    if not os.path.lexists(path):
        return 0
    if path.is_symlink() and not may_be_link:
        raise InputError(path, "is a symbolic link, which SQLite would write through", "Delete it")
    fault = "is a folder" if path.is_dir() else find_file_fault(path)
    if fault is not None:
        raise InputError(path, fault, _REMEDY)
    return path.stat().st_size if path.exists() else 0


def _copy_at_rest(files: list[Path], folder: Path) -> None:
    """Copy files between two writes of a process that uses them.

    Raises:
        sqlite3.DatabaseError: they are written to all the time, or a journal leads to other files.
    """
    for _ in range(COPY_TRIES):
        stamps = FileStamps.take(files)
        for file in files:
            if file.exists():  # a journal goes when a write has ended
                shutil.copyfile(file, folder / file.name)
            else:
                (folder / file.name).unlink(missing_ok=True)
        if stamps.find_changed() is None and all(file.exists() for file in files if stamps.stamps[file]):
            _refuse_super_journal(folder / f"{files[0].name}-journal")
            return
        time.sleep(COPY_WAIT_S)
    raise sqlite3.DatabaseError("another process writes to it all the time")


def _refuse_super_journal(journal: Path) -> None:
    if journal.exists() and journal.read_bytes()[-len(SUPER_JOURNAL_MARK) :] == SUPER_JOURNAL_MARK:
        raise sqlite3.DatabaseError("the journal beside it names other files")


def _read_facts(address: str) -> dict[str, str]:
    """Check the tables of a database, and return the rows of its table `meta`."""
    with closing(sqlite3.connect(address, uri=True)) as database:
        limit_values(database)
        database.execute("PRAGMA trusted_schema=OFF")
        check_tables(database)
        if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone() is None:
            return {}
        return {str(key): str(value) for key, value in database.execute("SELECT key, value FROM meta")}
