"""What comes out: a GeoPackage with style and both outlines, which `evaluate` and `prepare` read, and review.json."""

from __future__ import annotations

import json
import shutil
import sqlite3

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from PIL import Image
from tests.support.review_scene import SIDE, SQUARES, decide, open_client, square, write_result

import semicdvl as cd
from semicdvl.data.prepare.polygon_layer import read_polygons
from semicdvl.errors import InputError, OutputError
from semicdvl.raster.grid import Grid
from semicdvl.review import session

BASE = "/api/pairs/out"


def review(client) -> None:
    """Accept 1 to 8, reject 9 and 10, leave 11 and 12, redraw 1, and draw another."""
    for number in range(1, 11):
        decide(client, number, "accepted" if number < 9 else "rejected", comment=f"note {number}")
    client.patch(f"{BASE}/changes/1", json={"version": 2, "geometry": square(100, 100, 10)})
    client.post(f"{BASE}/changes", json={"geometry": square(80, 200, 12)})


@pytest.fixture
def reviewed(client, out):
    review(client)
    answer = client.post(f"{BASE}/export")
    assert answer.status_code == 200, answer.text
    assert answer.json()["files"] == [str(out / "reviewed.gpkg"), str(out / "review.json")]
    return out


def test_the_layer_says_what_was_decided(reviewed) -> None:
    frame = gpd.read_file(reviewed / "reviewed.gpkg", layer="reviewed").set_index("id")
    assert frame["state"].value_counts().to_dict() == {"accepted": 9, "rejected": 2, "open": 2}
    assert frame.loc[9, "comment"] == "note 9" and frame.loc[9, "reviewer"] == "tester"
    assert frame.loc[9, "time"].startswith("20") and frame.loc[11, "time"] == ""
    assert frame.loc[1, "area_m2"] == 25 and frame.loc[1, "edited"] and not frame.loc[2, "edited"]
    assert frame.loc[13, "source"] == "drawn" and frame.crs.to_epsg() == 32615
    original = gpd.read_file(reviewed / "reviewed.gpkg", layer="original").set_index("id")
    assert sorted(original.index) == list(range(1, 13))
    assert original.loc[1, "geometry"].area == SIDE**2 * 0.25 and frame.loc[1, "geometry"].area == 25


def test_it_opens_coloured_in_qgis(reviewed) -> None:
    with sqlite3.connect(reviewed / "reviewed.gpkg") as database:
        rows = database.execute("SELECT f_table_name, useAsDefault, styleQML FROM layer_styles").fetchall()
    database.close()
    assert [(row[0], row[1]) for row in rows] == [("reviewed", 1)]
    assert 'attr="state"' in rows[0][2] and 'value="accepted"' in rows[0][2]
    assert (reviewed / "reviewed.qml").read_text() == rows[0][2]


def test_the_record_holds_counts_and_estimate(reviewed) -> None:
    record = json.loads((reviewed / "review.json").read_text())
    assert record["states"] == {"open": 2, "accepted": 9, "rejected": 2, "skipped": 0}
    assert record["reviewers"] == ["tester"] and record["estimate"]["objects"]["decided"] == 10
    assert record["commands"][0].startswith("semicdvl prepare --before ")


def test_as_labels_only_accepted_ground_is_change_and_open_ground_is_unknown(reviewed) -> None:
    with rasterio.open(reviewed / "change.tif") as raster:
        grid = Grid(raster.crs, raster.transform, raster.height, raster.width)
    layer = read_polygons(reviewed / "reviewed.gpkg", grid=grid)
    assert (len(layer), layer.undecided, layer.not_polygons) == (9, 2, 0)
    assert layer.rasterize_mask(grid).sum() == 7 * SIDE**2 + 10**2 + 12**2
    unknown_HW = layer.rasterize_unknown(grid)
    frame = gpd.read_file(reviewed / "reviewed.gpkg", layer="reviewed").set_index("id")
    for number, expected in ((11, True), (12, True), (9, False), (2, False)):
        x, y = frame.loc[number, "geometry"].centroid.coords[0]
        col, row = ~grid.transform @ (x, y)
        assert unknown_HW[int(row), int(col)] == expected
    assert "2 rows are neither accepted nor rejected" in " ".join(layer.describe_repairs())


def test_evaluate_reads_it(reviewed) -> None:
    found = cd.evaluate_map(reviewed, reviewed / "reviewed.gpkg")
    pixels = found.comparison.pixels
    assert pixels.tp == 7 * SIDE**2
    assert pixels.fp == 3 * SIDE**2  # two were rejected, one was redrawn elsewhere
    assert pixels.fn == 10**2 + 12**2
    open_px = 2 * (SIDE + 2) ** 2  # with the pixels that their edges touch
    assert 330 * 470 - pixels.total <= open_px and 330 * 470 - pixels.total >= 2 * SIDE**2


def test_prepare_reads_it(reviewed, tmp_path) -> None:
    folder = reviewed.parent
    inputs = json.loads((reviewed / "run.json").read_text())["inputs"]
    config = cd.PrepareSettings(size_px=64, val_frac=0, test_frac=0, min_known_frac=0.2, buffer_px=0)
    made = cd.prepare(
        inputs["before"]["path"],
        inputs["after"]["path"],
        folder / "patches",
        labels=reviewed / "reviewed.gpkg",
        config=config,
    )
    labels = [np.array(Image.open(path)) for path in sorted((made.out / "label").glob("*.png"))]
    values, counts = np.unique(np.concatenate([label.ravel() for label in labels]), return_counts=True)
    assert values.tolist() == [0, 128, 255]
    assert counts[1] < counts[2] < counts[0]


def test_without_an_accepted_change_it_is_no_label(client, out) -> None:
    decide(client, 1, "rejected")
    client.post(f"{BASE}/export")
    with rasterio.open(out / "change.tif") as raster:
        grid = Grid(raster.crs, raster.transform, raster.height, raster.width)
    with pytest.raises(InputError, match=r"none of its changes \(12\) is accepted"):
        read_polygons(out / "reviewed.gpkg", grid=grid)


def test_a_pair_without_crs_has_one_out(tmp_path) -> None:
    out = write_result(tmp_path, kind="png")
    with open_client(out) as client:
        decide(client, 1, "accepted")
        assert client.post(f"{BASE}/export").status_code == 200
    frame = gpd.read_file(out / "reviewed.gpkg", layer="reviewed")
    assert frame.crs is None and frame["area_px"].tolist() == [SIDE**2] * len(SQUARES)


def test_a_map_without_changes_is_written_empty(tmp_path, scene) -> None:
    empty = gpd.read_file(scene / "changes.gpkg").iloc[:0]
    out = tmp_path / "out"
    shutil.copytree(scene, out)
    (out / "changes.gpkg").unlink()
    empty.to_file(out / "changes.gpkg", layer="changes", geometry_type="MultiPolygon")
    with open_client(out) as client:
        assert client.get(f"{BASE}/changes").json() == {"changes": []}
        assert client.get(f"{BASE}/estimate").json()["objects"]["precision"] is None
        assert client.post(f"{BASE}/export").status_code == 200
    assert len(gpd.read_file(out / "reviewed.gpkg", layer="reviewed")) == 0


def test_a_folder_that_cannot_be_written_is_named(client, out, monkeypatch) -> None:
    def refuse(*_, **__):
        raise OutputError(f"{out}: cannot be written (No space left on device).")

    monkeypatch.setattr(session, "write_reviewed", refuse)
    answer = client.post(f"{BASE}/export")
    assert answer.status_code == 507 and "No space left" in answer.json()["detail"]
