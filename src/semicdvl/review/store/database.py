"""The database of a review: objects, places and the log of what was done, from which it is undone."""

from __future__ import annotations

import json
import re
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shapely.errors import GEOSException

from semicdvl.errors import InputError, OutputError
from semicdvl.reading.json_files import parse_json
from semicdvl.review.store.file_system import is_on_network
from semicdvl.review.store.inspection import limit_values, read_stored_facts
from semicdvl.review.store.rows import (
    COLUMNS,
    STATES,
    Change,
    read_json_row,
    read_rows,
    read_versions,
    to_json_row,
    to_row,
)
from semicdvl.review.store.schema import make_tables

REVIEW_FORMAT = "semicdvl-review-1"
REVIEW_FILE = "review.sqlite"
BUSY_S = 10.0
"""How long a write waits for that of another process."""


class Conflict(Exception):
    """Somebody else wrote the object in between; the message says who and what."""


class NoSuchChange(Exception):
    """There is no object of that number, or it was split or merged."""


@dataclass(frozen=True)
class Author:
    """Who writes: a reviewer, and the window of the browser, whose own actions undo takes back."""

    reviewer: str
    window: str


def now() -> str:
    """Return the time in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_facts(path: Path) -> dict[str, str]:
    """Return what the file of a review says of itself, without changing it: see `inspection.read_stored_facts`.

    Raises:
        InputError: it is something else, or damaged.
        OutputError: it cannot be read.
    """
    try:
        return read_stored_facts(path)
    except (sqlite3.OperationalError, OSError) as error:
        raise OutputError(f"{path}: cannot be read ({error}). The review needs a folder that it may write.") from error
    except sqlite3.DatabaseError as error:
        raise _damaged(path, error) from error


class ReviewStore:
    """The review of one map on disk; any thread may use it."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it.

        Raises:
            InputError: it is something else, or damaged; it is left as it is, and so is what lies beside it.
            OutputError: it cannot be written.
        """
        self.path, self._lock = path, threading.RLock()
        stored = read_facts(path).get("format")
        if stored not in (None, REVIEW_FORMAT):
            raise InputError(path, f"is a review of another version ({stored})", "Rename it to begin a new review")
        try:
            self._database = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            limit_values(self._database)
            self._database.execute("PRAGMA trusted_schema=OFF")
            self._database.execute(f"PRAGMA journal_mode={'DELETE' if is_on_network(path) else 'WAL'}")
            self._database.execute("PRAGMA synchronous=FULL")
            make_tables(self._database)
        except sqlite3.OperationalError as error:
            raise OutputError(
                f"{path}: cannot be written ({error}). The review needs a folder that it may write."
            ) from error
        except sqlite3.DatabaseError as error:
            self._database.close()
            raise _damaged(path, error) from error

    # -------------------------------------------------------------------------------------------- reading
    def read_meta(self, key: str) -> str | None:
        """Return a fact about the review; None if it is not there."""
        found = self._select("SELECT value FROM meta WHERE key = ?", [key])
        return str(found[0][0]) if found else None

    def list_changes(self, *, all_rows: bool = False) -> list[Change]:
        """Return the objects; with `all_rows` also those that were split or merged."""
        where = "" if all_rows else "WHERE live = 1"
        return self._select_changes(f"SELECT {', '.join(COLUMNS)} FROM changes {where} ORDER BY id")

    def get(self, number: int) -> Change:
        """Return an object.

        Raises:
            NoSuchChange: there is none.
        """
        if not 0 < number < 2**62:
            raise NoSuchChange(f"There is no change {number}.")
        found = self._select_changes(f"SELECT {', '.join(COLUMNS)} FROM changes WHERE id = ?", [number])
        if not found:
            raise NoSuchChange(f"There is no change {number}.")
        return found[0]

    def count_states(self) -> dict[str, int]:
        """Return the number of objects in each state."""
        found = dict(self._select("SELECT state, COUNT(*) FROM changes WHERE live = 1 GROUP BY state"))
        return {state: int(found.get(state, 0)) for state in STATES}

    def read_class_px(self) -> tuple[int, int] | None:
        """Return how many pixels of the map are unchanged and changed; None before the places were drawn.

        Raises:
            InputError: the file is damaged.
        """
        stored = self.read_meta("class_px")
        if stored is None:
            return None
        found = re.fullmatch(r"(\d{1,15}),(\d{1,15})", stored)
        if found is None:
            raise _damaged(self.path, "class_px is not two numbers")
        return int(found[1]), int(found[2])

    def _select_changes(self, query: str, values: Sequence[Any] = ()) -> list[Change]:
        rows = self._select(query, values)
        try:
            return read_rows(rows)
        except (ValueError, TypeError, RecursionError, GEOSException) as error:
            raise _damaged(self.path, error) from error

    def _select(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._database.execute(query, values).fetchall()
            except sqlite3.OperationalError as error:
                raise OutputError(f"{self.path}: is busy or cannot be read ({error}). Try again.") from error
            except sqlite3.DatabaseError as error:
                raise _damaged(self.path, error) from error

    # -------------------------------------------------------------------------------------------- writing
    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Write all or nothing; when the block ends, it is on disk.

        Raises:
            OutputError: the disk is full, or another process holds the file for too long.
        """
        with self._lock:
            try:
                self._database.execute("BEGIN IMMEDIATE")
                try:
                    yield self._database
                except BaseException:
                    self._database.execute("ROLLBACK")
                    raise
                self._database.execute("COMMIT")
            except sqlite3.OperationalError as error:
                raise OutputError(
                    f"{self.path}: cannot be written ({error}). Nothing was stored; try again."
                ) from error
            except sqlite3.DatabaseError as error:
                raise _damaged(self.path, error) from error

    def begin(self, changes: Sequence[Change], meta: Mapping[str, str]) -> None:
        """Store the objects of a map, at the beginning of a review."""
        with self.transaction() as database:
            for change in changes:
                _insert(database, change)
            database.executemany(
                "INSERT OR REPLACE INTO meta VALUES (?, ?)", [*meta.items(), ("format", REVIEW_FORMAT)]
            )

    def act(
        self,
        action: str,
        author: Author,
        *,
        old: Sequence[tuple[int, int]],
        new: Sequence[Change],
        created: Sequence[Change] = (),
    ) -> list[Change]:
        """Replace objects and add others, as one action that can be undone.

        Args:
            action: what is done, a word.
            author: who does it.
            old: number and version, as the author saw it, of every object that is replaced.
            new: what replaces them, in the same order; versions are set here.
            created: further objects; numbers and versions are set here.

        Returns:
            The replaced and the created objects as they are now.

        Raises:
            Conflict: somebody else wrote one of them in between.
            NoSuchChange: one does not exist any more.
        """
        with self.transaction() as database:
            before = [self._check_version(number, version) for number, version in old]
            written = [replace(change, version=row.version + 1) for change, row in zip(new, before, strict=True)]
            for change in written:
                _insert(database, change)
            first = int(database.execute("SELECT COALESCE(MAX(id), 0) FROM changes").fetchone()[0]) + 1
            added = [replace(change, id=first + at, version=1) for at, change in enumerate(created)]
            for change in added:
                _insert(database, change)
            after = {change.id: change.version for change in (*written, *added)}
            database.execute(
                "INSERT INTO log (time, reviewer, window, action, before, after, undone) VALUES (?, ?, ?, ?, ?, ?, 0)",
                [
                    now(),
                    author.reviewer,
                    author.window,
                    action,
                    json.dumps([to_json_row(row) for row in before]),
                    json.dumps(after),
                ],
            )
        return [*written, *added]

    def undo(self, author: Author) -> tuple[str, list[Change]] | None:
        """Take back the last action of a window; return its name and its objects as they are now.

        Returns:
            None where the window has done nothing that is not undone.

        Raises:
            Conflict: somebody else wrote one of the objects since.
        """
        with self.transaction() as database:
            row = database.execute(
                "SELECT seq, action, before, after FROM log WHERE window = ? AND undone = 0 ORDER BY seq DESC LIMIT 1",
                [author.window],
            ).fetchone()
            if row is None:
                return None
            seq, action, before, after = row
            earlier, versions = self._read_entry(before, after)
            restored = []
            for number, version in versions.items():
                present = self._check_version(number, version, gone_is_fine=True)
                back = earlier.get(number, replace(present, live=False))
                restored.append(replace(back, version=present.version + 1))
                _insert(database, restored[-1])
                if number in earlier:
                    self._pass_on_version(database, int(seq), number, earlier[number].version, restored[-1].version)
            database.execute("UPDATE log SET undone = 1 WHERE seq = ?", [seq])
        return str(action), restored

    def _read_entry(self, before: str, after: str) -> tuple[dict[int, Change], dict[int, int]]:
        """Return the objects before an action by number, and the versions that it gave them.

        Raises:
            InputError: the log is damaged.
        """
        try:
            rows = parse_json(before)
            return {change.id: change for change in map(read_json_row, rows)}, read_versions(after)
        except (ValueError, TypeError, LookupError, RecursionError, AttributeError, GEOSException) as error:
            raise _damaged(self.path, error) from error

    def _pass_on_version(self, database: sqlite3.Connection, seq: int, number: int, old: int, new: int) -> None:
        """Let the action that an undone one followed know the version that its object has now.

        So that action can be undone, too.
        """
        rows = database.execute("SELECT seq, after FROM log WHERE undone = 0 AND seq < ? ORDER BY seq DESC", [seq])
        for earlier_seq, after in rows:
            _, versions = self._read_entry("[]", after)
            if number in versions:
                if versions[number] == old:
                    text = json.dumps(versions | {number: new})
                    database.execute("UPDATE log SET after = ? WHERE seq = ?", [text, earlier_seq])
                return

    def _check_version(self, number: int, version: int, *, gone_is_fine: bool = False) -> Change:
        """Return an object, if it is still as its writer saw it."""
        present = self.get(number)
        if present.version != version:
            who = (
                f"{present.reviewer or 'Somebody'} has it as {present.state}"
                if present.live
                else "It was split or merged"
            )
            raise Conflict(
                f"Change {number} was changed in another window in the meantime: {who}. Look again, then decide."
            )
        if not present.live and not gone_is_fine:
            raise NoSuchChange(f"Change {number} was split, merged or undone.")
        return present

    # -------------------------------------------------------------------------------------------- places
    def list_places(self) -> list[dict[str, Any]]:
        """Return the random sample of places in its random order.

        Raises:
            InputError: the file is damaged.
        """
        columns = ("rank", "row", "col", "mapped", "truth", "version", "reviewer")
        rows = self._select(f"SELECT {', '.join(columns)} FROM places ORDER BY rank")
        places = [dict(zip(columns, row, strict=True)) for row in rows]
        if not all(place["mapped"] in (0, 1) and place["truth"] in (0, 1, None) for place in places):
            raise _damaged(self.path, "a place is neither changed nor unchanged")
        return places

    def store_places(self, places: Sequence[tuple[int, int, int]], meta: Mapping[str, str]) -> None:
        """Store a sample (row, col, class on the map) in its random order, unless another window has meanwhile."""
        with self.transaction() as database:
            if database.execute("SELECT 1 FROM places LIMIT 1").fetchone() is not None:
                return
            rows = [(rank, *place) for rank, place in enumerate(places)]
            database.executemany("INSERT INTO places VALUES (?, ?, ?, ?, NULL, 1, '', '')", rows)
            database.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(meta.items()))

    def answer_place(self, rank: int, truth: int | None, *, version: int, reviewer: str) -> None:
        """Store what a person says of a place: 1 changed, 0 unchanged, None taken back.

        Raises:
            NoSuchChange: there is no such place.
            Conflict: somebody else answered in between.
        """
        with self.transaction() as database:
            done = database.execute(
                "UPDATE places SET truth = ?, version = version + 1, reviewer = ?, time = ? "
                "WHERE rank = ? AND version = ?",
                [truth, reviewer, now(), rank, version],
            ).rowcount
            if not done:
                if database.execute("SELECT 1 FROM places WHERE rank = ?", [rank]).fetchone() is None:
                    raise NoSuchChange(f"There is no place {rank}.")
                raise Conflict(f"Place {rank} was answered in another window in the meantime.")

    def list_reviewers(self) -> list[str]:
        """Return who has decided something."""
        rows = self._select(
            "SELECT reviewer FROM log WHERE undone = 0 UNION SELECT reviewer FROM places WHERE truth IS NOT NULL"
        )
        return sorted({str(row[0]) for row in rows if row[0]})

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()


def _damaged(path: Path, error: Exception | str) -> InputError:
    return InputError(path, f"is not a review, or damaged ({error})", "Rename it to begin a new review")


def _insert(database: sqlite3.Connection, change: Change) -> None:
    """Write an object."""
    marks = ", ".join("?" for _ in COLUMNS)
    database.execute(f"INSERT OR REPLACE INTO changes ({', '.join(COLUMNS)}) VALUES ({marks})", to_row(change))
