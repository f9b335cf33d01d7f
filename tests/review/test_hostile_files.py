"""Files of somebody else: each fault is an answer of 4xx or 5xx with a reason, and the server goes on."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sqlite3

import numpy as np
import pytest
import rasterio
from tests.support.review_scene import CONFIG, open_client, write_result
from tests.support.synthetic_rasters import UTM, at

import semicdvl as cd
from semicdvl.review import images
from semicdvl.review.labels.training import RECIPE_FILE, RECIPE_NAME, read_recipe_name
from semicdvl.review.store.database import ReviewStore

NO_NUMBER = (
    "0106000000010000000103000000010000000400000000000000000000000000000000000000000000000000f03f000000000000f87f"
)
NO_NUMBER += "000000000000f03f000000000000f03f00000000000000000000000000000000"
"""A triangle as WKB, one of whose coordinates is NaN."""
PLACE = "INSERT INTO places VALUES (7000, 1, 1, {mapped}, {truth}, 1, '', ''); "
PLACE += "INSERT OR REPLACE INTO meta VALUES ('class_px', '100,100')"
TILE = "/api/pairs/out/tiles/{}/0/0/0"


def edit_record(out, change) -> None:
    record = json.loads((out / "run.json").read_text())
    change(record)
    (out / "run.json").write_text(json.dumps(record))


def check_goes_on(client) -> None:
    assert client.get("/api/health").status_code == 200
    assert client.get("/api/pairs").status_code == 200
    assert client.get("/").status_code == 200


@pytest.mark.parametrize("name", ["change.tif", "score.tif"])
@pytest.mark.parametrize("damage", ["text", "cut", "noise", "empty"])
def test_a_damaged_raster_is_an_answer(out, name, damage) -> None:
    path = out / name
    content = path.read_bytes()
    noise = np.random.default_rng(0).integers(0, 256, len(content) // 2, np.uint8).tobytes()
    broken = {"text": b"hello", "cut": content[: len(content) // 2], "noise": content[:400] + noise, "empty": b""}
    path.write_bytes(broken[damage])
    with open_client(out) as client:
        answers = [client.get(TILE.format(layer)) for layer in ("change", "score", "before")]
        assert all(answer.status_code == 200 or 400 <= answer.status_code < 600 for answer in answers)
        assert any(answer.status_code in (422, 500) for answer in answers) or damage == "noise"
        check_goes_on(client)


def test_a_raster_of_huge_blocks_is_refused(out, monkeypatch) -> None:
    monkeypatch.setattr(images, "MAX_BLOCK_BYTES", 1000)
    with open_client(out) as client:
        answer = client.get(TILE.format("change"))
        assert answer.status_code == 422 and "has blocks of" in answer.json()["detail"]
        check_goes_on(client)


@pytest.mark.parametrize("damage", ["text", "cut", "no layer", "empty"])
def test_a_damaged_geopackage_is_an_answer(out, damage) -> None:
    path = out / "changes.gpkg"
    if damage == "no layer":
        with sqlite3.connect(path) as database:
            database.execute("DROP TABLE changes")
        database.close()
    else:
        content = path.read_bytes()
        path.write_bytes({"text": b"hello" * 100, "cut": content[: len(content) // 3], "empty": b""}[damage])
    with open_client(out) as client:
        answer = client.get("/api/pairs/out/changes")
        assert answer.status_code == 422 and "changes.gpkg" in answer.json()["detail"]
        check_goes_on(client)


def test_a_review_with_views_or_triggers_is_refused_before_they_run(out) -> None:
    endless = "AS WITH RECURSIVE n(rank) AS (SELECT 1 UNION ALL SELECT rank + 1 FROM n) SELECT rank FROM n"
    foreign = {
        "trigger": "CREATE TABLE log (n INTEGER); CREATE TRIGGER evil AFTER INSERT ON log BEGIN DELETE FROM log; END",
        "view": f"CREATE VIEW places {endless}",
        "table": "CREATE TABLE diary (day TEXT)",
    }
    for kind, statement in foreign.items():
        path = out / f"{kind}.sqlite"
        database = sqlite3.connect(path)
        database.executescript(statement)
        database.close()
        with pytest.raises(cd.InputError, match=f"is not a review, or damaged .it holds the {kind} "):
            ReviewStore(path)
        database = sqlite3.connect(path)
        assert database.execute("SELECT COUNT(*) FROM sqlite_master WHERE name = 'meta'").fetchone() == (0,)
        database.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE changes SET state = 'evil'",
        "UPDATE changes SET geometry = x'0102'",
        "UPDATE changes SET geometry = 'text'",
        f"UPDATE changes SET geometry = x'{NO_NUMBER}' WHERE id = 2",
        f"UPDATE changes SET original = x'{NO_NUMBER}' WHERE id = 2",
        "UPDATE changes SET parents = '{'",
        "UPDATE changes SET version = 'x'",
        "UPDATE changes SET area = 9e999",
        "UPDATE changes SET comment = x'ff'",
        "INSERT OR REPLACE INTO meta VALUES ('class_px', 'many')",
        PLACE.format(mapped=0, truth=255),
        PLACE.format(mapped=7, truth=1),
    ],
)
def test_a_review_of_odd_values_is_an_answer(out, statement) -> None:
    with open_client(out) as client:
        assert client.get("/api/pairs/out/estimate").status_code == 200
    with sqlite3.connect(out / "review.sqlite") as database:
        database.executescript(statement)
    database.close()
    with open_client(out) as client:
        answers = [client.get(f"/api/pairs/out/{part}") for part in ("changes", "estimate")]
        refused = [answer for answer in answers if answer.status_code == 422]
        assert refused and all("review.sqlite: is not a review, or damaged" in one.json()["detail"] for one in refused)
        check_goes_on(client)


def test_texts_of_a_file_are_texts(out) -> None:
    evil = "<script>alert(1)</script>"
    with sqlite3.connect(out / "changes.gpkg") as database:
        for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            database.execute(f'DROP TRIGGER "{row[0]}"')
        database.execute("UPDATE changes SET kind = ?, from_class = ?", (evil, evil))
    database.close()
    edit_record(out, lambda record: record.update(warnings=[evil]) or record["settings"].update(title=evil))
    with open_client(out) as client:
        change = client.get("/api/pairs/out/changes").json()["changes"][0]
        assert (change["kind"], change["from_class"]) == (evil, evil)
        answer = client.get("/api/pairs/out")
        assert answer.headers["content-type"] == "application/json" and answer.json()["title"] == evil


@pytest.mark.parametrize(
    "name",
    [
        "/vsicurl/http://127.0.0.1:1/x.tif",
        "https://127.0.0.1:1/x.tif",
        "/vsimem/x",
        "GTIFF_DIR:1:x.tif",
        "s3://x/y.tif",
    ],
)
def test_a_record_cannot_send_the_server_to_the_network(out, name) -> None:
    def change(record) -> None:
        record["inputs"]["before"] = {"path": name}

    edit_record(out, change)
    with open_client(out) as client:
        answer = client.get("/api/pairs/out")
        assert answer.status_code == 422 and "no plain file of this machine" in answer.json()["detail"]
        check_goes_on(client)


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.pop("inputs"),
        lambda record: record.update(inputs=[]),
        lambda record: record["inputs"]["before"].update(path=7),
        lambda record: record.update(grid={"gsd_m": "NaN"}),
        lambda record: record.update(classes={"a": 1}),
        lambda record: record.update(alignment={"moved_px": [1]}),
    ],
)
def test_a_damaged_record_is_named(out, change) -> None:
    edit_record(out, change)
    with pytest.raises(cd.InputError, match=r"run\.json is damaged"):
        cd.create_review_app(out, config=CONFIG)


@pytest.mark.parametrize(
    "settings",
    [{"bands": "1,2"}, {"bands": [9, 9, 9]}, {"stretch": "evil"}, {"grid": 7}, {"normalise": "x"}, {"alpha": "77"}],
)
def test_impossible_settings_are_an_answer(out, settings) -> None:
    edit_record(out, lambda record: record["settings"].update(settings))
    with open_client(out) as client:
        answer = client.get("/api/pairs/out")
        assert answer.status_code in (409, 422) and answer.json()["detail"]
        check_goes_on(client)


def test_images_that_are_gone_or_others_are_named(scene, tmp_path) -> None:
    out = write_result(tmp_path / "a")
    (out.parent / "after.tif").rename(tmp_path / "moved.tif")
    with open_client(out) as client:
        answer = client.get("/api/pairs/out")
        assert answer.status_code == 422 and "--after FILE" in answer.json()["detail"]
        assert client.get("/api/pairs/out/changes").status_code == 200
    with open_client(out, dataclasses.replace(CONFIG, after=str(tmp_path / "moved.tif"))) as client:
        assert client.get("/api/pairs/out").status_code == 200
    with rasterio.open(
        out.parent / "after.tif",
        "w",
        driver="GTiff",
        dtype="uint8",
        count=3,
        height=9,
        width=9,
        crs=UTM,
        transform=at(1, 2),
    ) as other:
        other.write(np.ones((3, 9, 9), np.uint8))
    with open_client(out) as client:
        assert "is not the image" in client.get("/api/pairs/out").json()["detail"]


@pytest.mark.parametrize("name", ["change.tif", "changes.gpkg", "run.json"])
def test_a_link_out_of_the_folder_is_refused(out, tmp_path, name) -> None:
    shutil.move(out / name, tmp_path / name)
    (out / name).symlink_to(tmp_path / name)
    with pytest.raises(cd.InputError, match="leads out of the served folder"):
        cd.create_review_app(out, config=CONFIG)


def test_a_folder_without_a_result_is_refused(tmp_path) -> None:
    with pytest.raises(cd.InputError, match="holds no result of `detect`"):
        cd.create_review_app(tmp_path, config=CONFIG)
    with pytest.raises(cd.InputError, match="is not a folder"):
        cd.create_review_app(tmp_path / "nothing", config=CONFIG)


# ------------------------------------------------------------------------------------------------ many pairs
def test_many_pairs_are_listed_with_those_that_failed(scene, tmp_path) -> None:
    root = tmp_path / "results"
    for name in ("north", "south & <east>", "broken"):
        shutil.copytree(scene, root / name)
    (root / "broken" / "run.json").write_text('{"format": "semicdvl-detect", "inputs": 7}')
    rows = [{"name": "west", "state": "failed", "error": "no overlap"}, {"name": "north", "state": "done"}]
    (root / "pairs.json").write_text(json.dumps({"format": "semicdvl-pairs", "pairs": rows}))
    with open_client(root) as client:
        body = {"version": 1, "state": "accepted"}
        assert client.post("/api/pairs/north/changes/1/decision", json=body).status_code == 200
        listed = {row["name"]: row for row in client.get("/api/pairs").json()["pairs"]}
        assert set(listed) == {"north", "south & <east>", "broken", "west"}
        assert listed["north"]["states"] == {"open": 11, "accepted": 1, "rejected": 0, "skipped": 0}
        assert listed["south & <east>"]["states"] is None and listed["south & <east>"]["objects"] == 12
        assert listed["west"]["failure"] == "no overlap" and "damaged" in listed["broken"]["failure"]
        assert client.get("/api/pairs/south%20%26%20%3Ceast%3E").status_code == 200
        assert client.get("/api/pairs/west").status_code == 422
        assert client.get("/api/pairs/west/thumbnails/before").status_code == 422
    (root / "pairs.json").write_text(json.dumps({"format": "semicdvl-pairs", "pairs": [*rows, 7]}))
    with open_client(root) as client:
        listed = {row["name"]: row for row in client.get("/api/pairs").json()["pairs"]}
        assert set(listed) == {"north", "south & <east>", "broken", "pairs.json"}
        assert "pairs.2" in listed["pairs.json"]["failure"]


def test_more_pairs_than_are_kept_open(scene, tmp_path) -> None:
    root = tmp_path / "results"
    names = [f"pair{number}" for number in range(9)]
    for name in names:
        shutil.copytree(scene, root / name)
    with open_client(root) as client:
        for name in names + names[:2]:
            assert client.get(f"/api/pairs/{name}/thumbnails/after").status_code == 200
        body = {"version": 1, "state": "rejected"}
        assert client.post("/api/pairs/pair0/changes/1/decision", json=body).status_code == 200
        assert client.post("/api/pairs/pair0/changes/1/decision", json=body).status_code == 409


def test_a_recipe_that_is_none_has_the_usual_name(tmp_path) -> None:
    for content in ("a = " + "[" * 5_000, "a = 1", "name = ", "name = 1" + "0" * 5_000):
        (tmp_path / RECIPE_FILE).write_text(content)
        assert read_recipe_name(tmp_path) == RECIPE_NAME
    (tmp_path / RECIPE_FILE).unlink()
    os.mkfifo(tmp_path / RECIPE_FILE)
    assert read_recipe_name(tmp_path) == RECIPE_NAME
