"""A file that is refused as a review is left as it was, with nothing beside it; a journal leads nowhere."""

from __future__ import annotations

import os
import shutil
import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.review_scene import decide, open_client

import semicdvl as cd
from semicdvl.review.store import ReviewStore, inspection, read_facts
from semicdvl.review.store.inspection import SUPER_JOURNAL_MARK

SQLITE = b"SQLite format 3\0"


def write_database(path: Path, script: str, *, journal: str = "DELETE") -> Path:
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA journal_mode={journal}")
    database.executescript(script)
    database.close()
    return path


def take(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


FOREIGN = {
    "a table": "CREATE TABLE diary (day TEXT)",
    "a view": "CREATE VIEW places AS WITH RECURSIVE n(r) AS (SELECT 1 UNION ALL SELECT r + 1 FROM n) SELECT r FROM n",
    "a trigger": "CREATE TABLE log (n INTEGER); CREATE TRIGGER t AFTER INSERT ON log BEGIN DELETE FROM log; END",
    "other columns": "CREATE TABLE meta (key TEXT)",
    "an old version": "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL); "
    "INSERT INTO meta VALUES ('format', 'semicdvl-review-99')",
    "a giant value": "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL); "
    "INSERT INTO meta VALUES ('format', CAST(zeroblob(70000000) AS TEXT))",
}


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_database_is_left_as_it_is(kind: str, journal: str, tmp_path: Path) -> None:
    path = write_database(tmp_path / "review.sqlite", FOREIGN[kind], journal=journal)
    before = take(tmp_path)
    with pytest.raises(cd.InputError, match=r"review\.sqlite: is (not a review|a review of another version)"):
        ReviewStore(path)
    assert take(tmp_path) == before and list(before) == ["review.sqlite"]


@pytest.mark.parametrize("content", [b"no database", SQLITE + bytes(4), SQLITE + b"\xff" * 5_000])
def test_what_is_no_database_is_left_as_it_is(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "review.sqlite").write_bytes(content)
    with pytest.raises(cd.SemicdvlError, match=r"review\.sqlite"):
        ReviewStore(tmp_path / "review.sqlite")
    assert take(tmp_path) == {"review.sqlite": content}


@pytest.mark.parametrize("suffix", ["", "-wal", "-journal", "-shm"])
@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_no_pipe_device_or_folder_is_opened(suffix: str, make: Callable[[Path], None], tmp_path: Path) -> None:
    if suffix:
        ReviewStore(tmp_path / "review.sqlite").close()
    make(tmp_path / f"review.sqlite{suffix}")
    with pytest.raises(cd.InputError, match=rf"review\.sqlite{suffix}: is a"):
        ReviewStore(tmp_path / "review.sqlite")


@pytest.mark.parametrize("suffix", ["-wal", "-journal", "-shm"])
def test_nothing_is_written_through_a_link_beside_it(suffix: str, tmp_path: Path) -> None:
    ReviewStore(tmp_path / "review.sqlite").close()
    (tmp_path / "precious").write_text("mine")
    (tmp_path / f"review.sqlite{suffix}").symlink_to("precious")
    with pytest.raises(cd.InputError, match="is a symbolic link, which SQLite would write through"):
        ReviewStore(tmp_path / "review.sqlite")
    assert (tmp_path / "precious").read_text() == "mine"


def test_the_review_itself_does_not_lead_out_of_the_folder(out: Path, tmp_path: Path) -> None:
    (out / "review.sqlite").symlink_to(tmp_path / "elsewhere.sqlite")
    with pytest.raises(cd.InputError, match="leads out of the served folder"):
        cd.create_review_app(out)
    assert not (tmp_path / "elsewhere.sqlite").exists()


def write_journal(path: Path, database: Path, victim: Path) -> None:
    """Write a journal of one page that is played back, and that names another journal."""
    page = database.read_bytes()[:4096]
    nonce, name = 7, os.fsencode(victim)
    pages = len(database.read_bytes()) // 4096
    head = bytes.fromhex("d9d505f920a163d7") + struct.pack(">IIIII", 1, nonce, pages, 512, 4096)
    total = nonce + sum(page[at] for at in range(4096 - 200, 0, -200))
    record = struct.pack(">I", 1) + page + struct.pack(">I", total & 0xFFFFFFFF)
    lock_page = 0x40000000 // 4096 + 1
    tail = struct.pack(">I", lock_page) + name + struct.pack(">II", len(name), sum(name)) + SUPER_JOURNAL_MARK
    path.write_bytes(head.ljust(512, b"\0") + record + tail)


def test_a_journal_that_names_other_files_deletes_none(tmp_path: Path) -> None:
    ReviewStore(tmp_path / "review.sqlite").close()
    write_database(tmp_path / "review.sqlite", "")
    shutil.copy(tmp_path / "review.sqlite", tmp_path / "plain.sqlite")
    for name in ("review", "plain"):
        (tmp_path / f"precious-{name}").write_text("mine")
        journal = tmp_path / f"{name}.sqlite-journal"
        write_journal(journal, tmp_path / f"{name}.sqlite", tmp_path / f"precious-{name}")
    before = take(tmp_path)
    with pytest.raises(cd.InputError, match="the journal beside it names other files"):
        ReviewStore(tmp_path / "review.sqlite")
    assert take(tmp_path) == before
    database = sqlite3.connect(tmp_path / "plain.sqlite")
    database.execute("SELECT * FROM sqlite_master").fetchall()
    database.close()
    assert not (tmp_path / "precious-plain").exists(), "SQLite itself deletes it: this is a true journal"


# ------------------------------------------------------------------------------------------------ what is accepted
def test_a_review_of_a_killed_process_goes_on_from_its_journal(out: Path, tmp_path: Path) -> None:
    with open_client(out) as client:
        assert decide(client, 1, "accepted").status_code == 200
        copied = shutil.copytree(out, tmp_path / "copy")  # what a kill leaves: the decision is in the journal only
        assert (copied / "review.sqlite-wal").stat().st_size > 0
        assert read_facts(out / "review.sqlite")["format"] == "semicdvl-review-1", "while it is open"
    store = ReviewStore(copied / "review.sqlite")
    assert store.get(1).state == "accepted"
    store.close()


def test_what_a_journal_holds_is_looked_at_too(tmp_path: Path) -> None:
    ReviewStore(tmp_path / "review.sqlite").close()
    (tmp_path / "given").mkdir()
    database = sqlite3.connect(tmp_path / "review.sqlite")
    database.execute("CREATE TABLE diary (day TEXT)")
    for name in ("review.sqlite", "review.sqlite-wal"):
        shutil.copy(tmp_path / name, tmp_path / "given" / name)
    database.close()
    before = take(tmp_path / "given")
    with pytest.raises(cd.InputError, match="it holds the table 'diary'"):
        ReviewStore(tmp_path / "given" / "review.sqlite")
    assert take(tmp_path / "given") == before


def test_giants_are_refused_before_they_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "MAX_REVIEW_BYTES", 2**30)
    ReviewStore(tmp_path / "review.sqlite").close()
    (tmp_path / "review.sqlite-wal").touch()
    os.truncate(tmp_path / "review.sqlite-wal", 2**30)
    with pytest.raises(cd.InputError, match="more than a review can have"):
        ReviewStore(tmp_path / "review.sqlite")


def test_a_review_of_an_earlier_map_is_left_as_it_is(out: Path) -> None:
    with open_client(out) as client:
        assert client.get("/api/pairs/out/changes").status_code == 200
    write_database(out / "review.sqlite", "UPDATE meta SET value = 'x' WHERE key = 'changes_sha256'")
    before = take(out)
    with open_client(out) as client:
        assert "an earlier changes.gpkg" in client.get("/api/pairs/out/changes").json()["detail"]
    assert take(out) == before


def test_one_broken_review_does_not_hide_the_other_pairs(scene: Path, tmp_path: Path) -> None:
    for name in ("north", "south"):
        shutil.copytree(scene, tmp_path / "results" / name)
    (tmp_path / "results" / "south" / "review.sqlite").write_bytes(b"no database" * 100)
    with open_client(tmp_path / "results") as client:
        answer = client.get("/api/pairs")
        assert answer.status_code == 200 and {row["name"] for row in answer.json()["pairs"]} == {"north", "south"}
        assert client.get("/api/pairs/south/changes").status_code == 422


# ------------------------------------------------------------------------------------------------ the log
@pytest.mark.parametrize(
    ("column", "value"),
    [("before", "{"), ("before", "[1]"), ("before", "{}"), ("before", '[["x"]]'), ("after", "["), ("after", "[]"),
     ("after", '{"a": 1}'), ("after", '{"1": "x"}'), ("after", "[" * 5_000)],
)  # fmt: skip
def test_a_damaged_log_is_an_answer_and_nothing_is_undone(column: str, value: str, out: Path) -> None:
    with open_client(out) as client:
        assert decide(client, 1, "accepted").status_code == 200
    database = sqlite3.connect(out / "review.sqlite")
    database.execute(f"UPDATE log SET {column} = ?", [value])
    database.commit()
    database.close()
    with open_client(out, raise_server_exceptions=False) as client:
        answer = client.post("/api/pairs/out/undo", json={"window": "w1"})
        assert (answer.status_code == 422 and "or damaged" in answer.json()["detail"]) or value == "{}", answer.text
        state = client.get("/api/pairs/out/changes/1").json()["state"]
        assert state == "accepted" or value == "{}"
