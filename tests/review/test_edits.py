"""Redrawing: outlines are mended or refused with a reason, and areas, states and undo follow."""

from __future__ import annotations

import pytest
import shapely
from tests.support.review_scene import SIDE, SQUARES, decide, square
from tests.support.synthetic_rasters import at

PIXEL_M2 = 0.25
BASE = "/api/pairs/out"


def get(client, number: int) -> dict:
    return client.get(f"{BASE}/changes/{number}").json()


def find_at(client, row: int, col: int) -> dict:
    """Return the change at a pixel."""
    point = shapely.Point(at(366600, 4104200) @ (col + 0.5, row + 0.5))
    changes = client.get(f"{BASE}/changes").json()["changes"]
    return next(one for one in changes if shapely.geometry.shape(one["geometry"]).contains(point))


def line(*corners: tuple[float, float]) -> dict:
    return {"type": "LineString", "coordinates": [list(at(366600, 4104200) @ (col, row)) for row, col in corners]}


def test_a_new_outline_accepts_and_is_measured(client) -> None:
    answer = client.patch(
        f"{BASE}/changes/1", json={"version": 1, "geometry": square(100, 100, 10), "window": "w"}
    ).json()
    change = answer["changes"][0]
    assert (change["state"], change["edited"], change["area"]) == ("accepted", True, 100 * PIXEL_M2)
    client.post(f"{BASE}/undo", json={"window": "w"})
    assert (get(client, 1)["area"], get(client, 1)["state"]) == (SIDE**2 * PIXEL_M2, "open")


def test_a_crossed_outline_is_mended(client) -> None:
    ((a, b, c, d, _),) = square(100, 100)["coordinates"]
    answer = client.post(f"{BASE}/changes", json={"geometry": {"type": "Polygon", "coordinates": [[a, c, b, d, a]]}})
    assert answer.json()["notes"] == ["The outline crossed itself and was mended."]
    assert answer.json()["changes"][0]["area"] == pytest.approx(SIDE**2 / 2 * PIXEL_M2)


def test_what_lies_outside_of_the_map_is_cut_off(client) -> None:
    answer = client.post(f"{BASE}/changes", json={"geometry": square(-10, -10)}).json()
    assert answer["notes"] == ["The part outside of the map was cut off."]
    assert answer["changes"][0]["area"] == 100 * PIXEL_M2


@pytest.mark.parametrize(
    ("geometry", "reason"),
    [
        (square(-500, -500), "outside of the map"),
        ({"type": "Polygon", "coordinates": [[[366610, 4104190]] * 4]}, "no area"),
        ({"type": "Polygon", "coordinates": [[[366610 + x, 4104190] for x in (0, 10, 20, 0)]]}, "no area"),
    ],
)  # fmt: skip
def test_a_shape_without_use_is_refused_with_a_reason(client, geometry, reason) -> None:
    answer = client.post(f"{BASE}/changes", json={"geometry": geometry})
    assert answer.status_code == 422 and reason in answer.json()["detail"]
    assert len(client.get(f"{BASE}/changes").json()["changes"]) == len(SQUARES)


@pytest.mark.parametrize(
    "geometry",
    [
        {"type": "Point", "coordinates": [0, 0]},
        {"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]},
        {"type": "Polygon", "coordinates": []},
        {"type": "Polygon", "coordinates": [[[1e300, 0], [1, 1], [2, 2], [0, 0]]]},
        {"type": "MultiPolygon", "coordinates": [[[["x", 0], [1, 1], [2, 2], [0, 0]]]]},
        {"type": "Polygon", "coordinates": [[[0, 0, 0], [1, 1, 1], [2, 2, 2], [0, 0, 0]]]},
    ],
)
def test_what_is_no_polygon_is_refused(client, geometry) -> None:
    assert client.post(f"{BASE}/changes", json={"geometry": geometry}).status_code == 422


def test_too_many_vertices_are_refused(client) -> None:
    ring = [[366610 + i % 7, 4104190 + i % 5] for i in range(20_001)]
    assert (
        client.post(f"{BASE}/changes", json={"geometry": {"type": "Polygon", "coordinates": [ring]}}).status_code == 422
    )


@pytest.mark.parametrize("corners", [300, 3000])
def test_a_star_of_thousands_of_crossings_is_refused_at_once(client, corners: int) -> None:
    ring = [
        [366610 + 90 * ((i * 7919) % 1009) / 1009, 4104190 - 90 * ((i * 104729) % 1013) / 1013] for i in range(corners)
    ]
    body = {"geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}}
    answer = client.post(f"{BASE}/changes", json=body)
    assert answer.status_code == 422 and "crosses itself" in answer.json()["detail"]


def test_a_scribble_does_not_cut(client) -> None:
    body = {"line": line(*((100 + (i * 7919) % 101, 100 + (i * 104729) % 103) for i in range(300))), "version": 1}
    answer = client.post(f"{BASE}/changes/1/split", json=body)
    assert answer.status_code == 422 and "crosses itself too often" in answer.json()["detail"]


def test_coordinates_that_nothing_can_be_computed_with_are_refused(client) -> None:
    for far in (1e11, -9e11):
        ring = [[366610, 4104190], [366620, 1e-300], [far, 4104100], [366610, 4104190]]
        answer = client.post(f"{BASE}/changes", json={"geometry": {"type": "Polygon", "coordinates": [ring]}})
        assert answer.status_code == 422 and "outside of the map" in answer.json()["detail"]


def test_a_missed_change_is_drawn_and_undone(client) -> None:
    body = {"geometry": square(80, 100), "kind": "appeared", "comment": "missed", "window": "w"}
    drawn = client.post(f"{BASE}/changes", json=body).json()["changes"][0]
    assert (drawn["id"], drawn["source"], drawn["state"], drawn["score"]) == (
        len(SQUARES) + 1,
        "drawn",
        "accepted",
        None,
    )
    assert find_at(client, 90, 110)["comment"] == "missed"
    undone = client.post(f"{BASE}/undo", json={"window": "w"}).json()
    assert undone["action"] == "draw" and not undone["changes"][0]["live"]
    assert len(client.get(f"{BASE}/changes").json()["changes"]) == len(SQUARES)


def test_a_change_is_cut_in_two_with_the_right_areas(client) -> None:
    row, col = SQUARES[0]
    whole = find_at(client, row + 5, col + 5)
    cut = line((row - 5, col + 5), (row + SIDE + 5, col + 5))
    body = {"version": whole["version"], "line": cut, "window": "w"}
    answer = client.post(f"{BASE}/changes/{whole['id']}/split", json=body).json()
    parts = [one for one in answer["changes"] if one["live"]]
    assert [one["area"] for one in parts] == [15 * SIDE * PIXEL_M2, 5 * SIDE * PIXEL_M2]
    assert all(one["parents"] == [whole["id"]] and one["source"] == "split" for one in parts)
    assert answer["states"]["open"] == len(SQUARES) + 1
    assert decide(client, whole["id"], "accepted").status_code == 404
    client.post(f"{BASE}/undo", json={"window": "w"})
    assert find_at(client, row + 5, col + 5)["id"] == whole["id"]
    assert len(client.get(f"{BASE}/changes").json()["changes"]) == len(SQUARES)


def test_a_line_that_does_not_divide_is_refused(client) -> None:
    row, col = SQUARES[0]
    whole = find_at(client, row + 5, col + 5)
    for cut in (line((row + 5, col + 5), (row + 5, col + 9)), line((0, 0), (5, 5))):
        body = {"version": whole["version"], "line": cut}
        answer = client.post(f"{BASE}/changes/{whole['id']}/split", json=body)
        assert answer.status_code == 422 and "does not divide" in answer.json()["detail"]


def test_changes_are_merged_to_one(client) -> None:
    first, second = (find_at(client, row + 5, col + 5) for row, col in SQUARES[:2])
    decide(client, first["id"], "accepted")
    stale = {"members": [{"id": first["id"], "version": 1}, {"id": second["id"], "version": 1}]}
    assert client.post(f"{BASE}/merge", json=stale).status_code == 409
    stale["members"][0]["version"] = 2
    answer = client.post(f"{BASE}/merge", json=stale | {"window": "w"}).json()
    merged = [one for one in answer["changes"] if one["live"]]
    assert len(merged) == 1 and merged[0]["area"] == 2 * SIDE**2 * PIXEL_M2
    assert merged[0]["state"] == "open"  # they were not decided alike
    assert sorted(merged[0]["parents"]) == sorted([first["id"], second["id"]])
    client.post(f"{BASE}/undo", json={"window": "w"})
    assert find_at(client, SQUARES[0][0] + 5, SQUARES[0][1] + 5)["state"] == "accepted"


def test_a_change_is_not_merged_with_itself(client) -> None:
    body = {"members": [{"id": 1, "version": 1}, {"id": 1, "version": 1}]}
    assert client.post(f"{BASE}/merge", json=body).status_code == 422


def test_classes_are_set_and_cleared(client) -> None:
    edit = {"version": 1, "kind": "replaced", "from_class": "house", "to_class": "Straße & <b>Weg</b>"}
    change = client.patch(f"{BASE}/changes/1", json=edit).json()["changes"][0]
    assert (change["kind"], change["from_class"], change["to_class"]) == ("replaced", "house", "Straße & <b>Weg</b>")
    assert change["state"] == "open" and not change["edited"]
    change = client.patch(f"{BASE}/changes/1", json={"version": 2, "from_class": ""}).json()["changes"][0]
    assert (change["from_class"], change["kind"]) == (None, "replaced")
