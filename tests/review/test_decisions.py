"""Decisions: on disk before the answer, refused where somebody else wrote in between, and undone one by one."""

from __future__ import annotations

import sqlite3

import pytest
from tests.support.review_scene import SIDE, SQUARES, decide, open_client

from semicdvl.review.store import ReviewStore, is_on_network

BASE = "/api/pairs/out"


def get(client, number: int) -> dict:
    return client.get(f"{BASE}/changes/{number}").json()


def test_the_changes_of_the_map_are_listed(client) -> None:
    changes = client.get(f"{BASE}/changes").json()["changes"]
    assert [one["id"] for one in changes] == list(range(1, len(SQUARES) + 1))
    assert {one["area"] for one in changes} == {SIDE**2 * 0.25}
    assert {(one["state"], one["source"], one["version"]) for one in changes} == {("open", "detected", 1)}
    assert all(one["uncertainty"] == pytest.approx(1 - one["score"], abs=1e-3) for one in changes)
    assert sorted(one["random_rank"] for one in changes) != [one["random_rank"] for one in changes]


def test_a_decision_is_on_disk_when_it_is_answered(client, out) -> None:
    answer = decide(client, 3, "accepted", comment="a new roof").json()
    assert answer["states"] == {"open": 11, "accepted": 1, "rejected": 0, "skipped": 0}
    with sqlite3.connect(out / "review.sqlite") as other:
        rows = other.execute("SELECT state, reviewer, comment, version FROM changes WHERE id = 3").fetchall()
    other.close()
    assert rows == [("accepted", "tester", "a new roof", 2)]


def test_a_review_goes_on_where_it_stopped(out) -> None:
    with open_client(out) as client:
        decide(client, 1, "accepted")
        decide(client, 2, "rejected", reviewer="somebody else")
    with open_client(out) as client:
        assert [get(client, number)["state"] for number in (1, 2, 3)] == ["accepted", "rejected", "open"]
        assert get(client, 2)["reviewer"] == "somebody else"


def test_of_two_windows_the_second_is_told(client) -> None:
    body = {"version": 1, "state": "accepted", "window": "w1", "reviewer": "Ann"}
    assert client.post(f"{BASE}/changes/1/decision", json=body).status_code == 200
    late = client.post(f"{BASE}/changes/1/decision", json=body | {"state": "rejected", "window": "w2"})
    assert late.status_code == 409
    assert "another window" in late.json()["detail"] and "Ann has it as accepted" in late.json()["detail"]
    assert get(client, 1)["state"] == "accepted"


def test_two_processes_do_not_overwrite_each_other(client, out) -> None:
    other = ReviewStore(out / "review.sqlite")
    decide(client, 1, "accepted")
    assert other.get(1).state == "accepted"
    other.close()


def test_undo_takes_back_the_last_action_of_its_own_window(client) -> None:
    decide(client, 1, "accepted")
    decide(client, 2, "accepted", window="w2")
    decide(client, 1, "rejected")
    undone = [client.post(f"{BASE}/undo", json={"window": "w1"}).json() for _ in range(3)]
    assert [one["action"] for one in undone] == ["rejected", "accepted", "nothing"]
    assert [one["changes"][0]["state"] for one in undone[:2]] == ["accepted", "open"]
    assert get(client, 1)["decided"] == "" and get(client, 2)["state"] == "accepted"
    assert get(client, 1)["version"] == 5  # a window that saw an earlier one is told


def test_undo_does_not_take_back_what_another_window_did_since(client) -> None:
    decide(client, 1, "accepted")
    decide(client, 1, "rejected", window="w2")
    refused = client.post(f"{BASE}/undo", json={"window": "w1"})
    assert refused.status_code == 409 and get(client, 1)["state"] == "rejected"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"version": 1, "state": "maybe"}, 422),
        ({"version": 0, "state": "accepted"}, 422),
        ({"state": "accepted"}, 422),
        ({"version": 1, "state": "accepted", "comment": "x" * 2001}, 422),
        ({"version": 1, "state": "accepted", "comment": "a\x00b"}, 422),
        ({"version": 1, "state": "accepted", "window": "a b"}, 422),
        ({"version": 1, "state": "accepted", "more": 1}, 422),
        ({"version": 7, "state": "accepted"}, 409),
    ],
)
def test_a_decision_that_cannot_be_is_refused(client, body, status) -> None:
    assert client.post(f"{BASE}/changes/1/decision", json=body).status_code == status
    assert get(client, 1)["version"] == 1


@pytest.mark.parametrize("number", [99, 2**53 - 1])
def test_an_unknown_change_is_not_found(client, number) -> None:
    answer = client.post(f"{BASE}/changes/{number}/decision", json={"version": 1, "state": "open"})
    assert answer.status_code == 404


def test_a_comment_remains_where_a_decision_says_nothing(client) -> None:
    decide(client, 1, "skipped", comment="look again")
    decide(client, 1, "accepted")
    assert get(client, 1)["comment"] == "look again"


def test_a_map_that_was_made_anew_needs_a_new_review(out) -> None:
    with open_client(out) as client:
        decide(client, 1, "accepted")
    with sqlite3.connect(out / "changes.gpkg") as database:
        database.execute("CREATE TABLE another_run (id INTEGER)")
    database.close()
    with open_client(out) as client:
        answer = client.get(f"{BASE}/changes")
    assert answer.status_code == 422
    assert "review of an earlier changes.gpkg" in answer.json()["detail"] and "Rename it" in answer.json()["detail"]


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\x00" + b"\xff" * 5000, b"not a database at all" * 300])
def test_a_damaged_review_is_named(out, content) -> None:
    (out / "review.sqlite").write_bytes(content)
    with open_client(out) as client:
        answer = client.get(f"{BASE}/changes")
        assert answer.status_code == (200 if not content else 422)
        assert content == b"" or "review.sqlite" in answer.json()["detail"]
        assert client.get("/api/pairs").status_code == 200


def test_a_review_of_another_version_is_not_touched(out) -> None:
    with open_client(out) as client:
        client.get(f"{BASE}/changes")
    with sqlite3.connect(out / "review.sqlite") as database:
        database.execute("UPDATE meta SET value = 'semicdvl-review-9' WHERE key = 'format'")
    database.close()
    with open_client(out) as client:
        assert "another version" in client.get(f"{BASE}/changes").json()["detail"]


def test_the_journal_fits_the_disk(tmp_path, monkeypatch) -> None:
    assert not is_on_network(tmp_path)
    lines = [
        "/dev/root / ext4 rw 0 0",
        f"server:/x {tmp_path}/net nfs4 rw 0 0",
        f"a {tmp_path}/my\\040disk fuse.sshfs rw",
    ]
    mounts = "\n".join(lines)
    monkeypatch.setattr("pathlib.Path.read_text", lambda *_, **__: mounts)
    assert is_on_network(tmp_path / "net" / "out" / "review.sqlite")
    assert is_on_network(tmp_path / "my disk" / "review.sqlite")
    assert not is_on_network(tmp_path / "network" / "review.sqlite")
