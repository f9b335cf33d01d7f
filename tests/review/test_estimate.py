"""The estimates hold: intervals against published values and by simulation, samples only as far as they are random."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import shapely
from tests.support.review_scene import SIDE, SQUARES, decide, square

from semicdvl.review.estimate import (
    PLACES,
    answer_for_detected,
    estimate_area,
    estimate_precision,
    estimate_share,
    rank_at_random,
)
from semicdvl.review.store import Change

BASE = "/api/pairs/out"
BOX = shapely.MultiPolygon([shapely.box(0, 0, 1, 1)])
FOUND = Change(1, 1, True, "open", "detected", (), "changed", None, None, 0.5, 0.5, 1.0, BOX, BOX)


def make(states: list[str]) -> list[Change]:
    return [replace(FOUND, id=number, state=state) for number, state in enumerate(states, 1)]


@pytest.mark.parametrize(
    ("right", "sampled", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (0, 20, 0.0, 0.1611), (15, 15, 0.7961, 1.0), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_is_that_of_wilson(right, sampled, low, high) -> None:
    """Newcombe 1998, Statistics in Medicine 17, table I, method 3; the population is as good as infinite."""
    found = estimate_share(right, sampled, population=10**9)
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_a_sample_of_everything_has_no_error() -> None:
    found = estimate_share(30, 40, population=40)
    assert (found.low, found.value, found.high) == (0.75, 0.75, 0.75)
    assert estimate_share(27, 36, population=40).high - 0.75 < 0.06


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    population, right = 412, 316
    truth = np.arange(population) < right
    hits = 0
    for _ in range(2000):
        sample = rng.choice(truth, 120, replace=False)
        found = estimate_share(int(sample.sum()), 120, population=population)
        hits += found.low <= right / population <= found.high
    assert 0.935 <= hits / 2000 <= 0.97


def test_only_a_random_sample_counts() -> None:
    changes = make(["open"] * 40)
    order = sorted(range(40), key=lambda at: rank_at_random(changes[at].id, key="k"))
    for at in order[:12]:
        changes[at] = replace(changes[at], state="accepted")
    for at in order[20:30]:
        changes[at] = replace(changes[at], state="rejected")
    found = estimate_precision(changes, key="k")
    assert (found.total, found.decided, found.sampled, found.right) == (40, 22, 12, 12)
    assert found.precision is not None and found.precision.value == 1.0 and found.precision.low < 0.9


def test_too_small_a_sample_says_nothing() -> None:
    assert estimate_precision(make(["accepted"] * 3 + ["open"] * 9), key="k").precision is None
    assert estimate_precision([], key="k").precision is None


def test_a_small_map_that_is_reviewed_is_known() -> None:
    found = estimate_precision(make(["accepted", "rejected", "accepted"]), key="k")
    assert found.precision is not None and found.precision.low == found.precision.high == pytest.approx(2 / 3)


def test_a_divided_change_is_right_if_a_part_is() -> None:
    whole = replace(FOUND, live=False)
    parts = [
        replace(FOUND, id=number, source="split", parents=(1,), state=state)
        for number, state in ((2, "rejected"), (3, "open"))
    ]
    assert answer_for_detected([whole, *parts]) == {1: None}
    assert answer_for_detected([whole, parts[0], replace(parts[1], state="accepted")]) == {1: "accepted"}
    assert answer_for_detected([whole, parts[0], replace(parts[1], state="rejected")]) == {1: "rejected"}
    undone = [replace(part, live=False) for part in parts]
    assert answer_for_detected([replace(FOUND, state="accepted"), *undone]) == {1: "accepted"}


def test_a_change_that_was_divided_and_merged_over_and_over_is_answered_at_once() -> None:
    """Followed branch by branch, 40 times split and merged are a million million answers; 3,000 are too deep."""
    changes, number = [replace(FOUND, live=False)], 1
    for _ in range(1_000):
        halves = [replace(FOUND, id=number + at, live=False, source="split", parents=(number,)) for at in (1, 2)]
        whole = replace(FOUND, id=number + 3, live=False, source="merged", parents=(number + 1, number + 2))
        changes += [*halves, whole]
        number += 3
    last = replace(changes[-1], live=True, state="rejected")
    assert answer_for_detected([*changes[:-1], last]) == {1: "rejected"}
    assert answer_for_detected([*changes[:-1], replace(last, state="open")]) == {1: None}


def test_area_estimates_are_those_of_the_literature() -> None:
    """Two strata of 900 and 100 px; of 50 places each, 5 of the unchanged did change and 10 of the changed did not."""
    places = [{"mapped": 0} for _ in range(50)] + [{"mapped": 1} for _ in range(50)]
    truth = [1] * 5 + [0] * 45 + [0] * 10 + [1] * 40
    found = estimate_area(places, truth, class_px=(900, 100), pixel_area=2.0)
    changed = 0.9 * 0.1 + 0.1 * 0.8
    assert found.precision is not None and found.precision.value == pytest.approx(0.8)
    assert found.recall is not None and found.recall.value == pytest.approx(0.08 / changed)
    assert found.changed_area is not None and found.changed_area.value == pytest.approx(changed * 2000)
    half = 1.96 * np.sqrt(0.9**2 * 0.1 * 0.9 / 49 + 0.1**2 * 0.8 * 0.2 / 49) * 2000
    assert found.changed_area.high - found.changed_area.value == pytest.approx(half)
    assert found.mapped_area == 200


def test_places_behind_a_gap_do_not_count() -> None:
    places = [{"mapped": 0}] * 10 + [{"mapped": 1}] * 10
    truth = [0] * 6 + [None] + [0] * 3 + [1] * 10
    found = estimate_area(places, truth, class_px=(90, 10), pixel_area=1.0)
    assert (found.checked, found.open_places) == (16, 1)
    assert estimate_area(places, [None] * 20, class_px=(90, 10), pixel_area=1.0).recall is None


# ------------------------------------------------------------------------------------------------ over REST
def test_the_estimate_grows_with_the_review(client) -> None:
    changes = sorted(client.get(f"{BASE}/changes").json()["changes"], key=lambda one: one["random_rank"])
    expected = "no estimate yet: 0 of 12 objects decided; 5 are needed, in random order"
    assert client.get(f"{BASE}/estimate").json()["text"] == expected
    for one in changes[:6]:
        decide(client, one["id"], "accepted")
    found = client.get(f"{BASE}/estimate").json()
    assert found["text"].startswith("after 6 of 12 objects: precision 0.7") and found["text"].endswith("-1.00")
    for one in changes[6:]:
        decide(client, one["id"], "rejected")
    assert client.get(f"{BASE}/estimate").json()["text"] == "after 12 of 12 objects: precision 0.50"


def test_the_object_that_ends_the_sample_is_named(client) -> None:
    order = [one["id"] for one in sorted(listed(client), key=lambda one: one["random_rank"])]
    for number in [*order[:2], *order[3:8]]:
        decide(client, number, "accepted")
    decide(client, order[2], "skipped")
    found = client.get(f"{BASE}/estimate").json()
    assert found["text"] == "no estimate yet: 7 of 12 objects decided, but of the first 5 in random order only 2"
    assert (found["objects"]["sampled"], found["objects"]["waits_for"]) == (2, order[2])
    decide(client, order[2], "rejected")
    found = client.get(f"{BASE}/estimate").json()
    assert found["text"].startswith("after 8 of 12 objects") and found["objects"]["waits_for"] == order[8]


def listed(client) -> list:
    return client.get(f"{BASE}/changes").json()["changes"]


def test_unchanged_ground_gives_recall_and_area(client) -> None:
    places = client.get(f"{BASE}/places").json()["places"]
    assert len(places) == PLACES // 2
    assert places == client.get(f"{BASE}/places").json()["places"]
    inside = [
        (row <= one["row"] < row + SIDE) and (col <= one["col"] < col + SIDE) for one in places for row, col in SQUARES
    ]
    assert not any(inside)
    for number in range(1, len(SQUARES) + 1):
        decide(client, number, "accepted")
    for at, place in enumerate(places):
        body = {"version": place["version"], "changed": at < 5}
        found = client.post(f"{BASE}/places/{place['rank']}", json=body).json()
    area = found["area"]
    mapped = len(SQUARES) * SIDE**2
    total = 330 * 470
    expected = (mapped + (total - mapped) * 0.1) * 0.25
    assert area["open_places"] == 0 and area["precision"]["value"] == 1.0
    assert area["changed_area"]["value"] == pytest.approx(expected)
    assert area["recall"]["value"] == pytest.approx(mapped * 0.25 / expected)
    assert area["mapped_area"] == mapped * 0.25


def test_a_drawn_change_answers_its_places(client) -> None:
    place = client.get(f"{BASE}/places").json()["places"][0]
    client.post(f"{BASE}/changes", json={"geometry": square(place["row"] - 3, place["col"] - 3, 7)})
    again = client.get(f"{BASE}/places").json()["places"][0]
    assert (again["truth"], again["given"]) == (1, None)


def test_of_two_answers_to_a_place_the_second_is_told(client) -> None:
    place = client.get(f"{BASE}/places").json()["places"][0]
    path = f"{BASE}/places/{place['rank']}"
    assert client.post(path, json={"version": 1, "changed": True}).status_code == 200
    assert client.post(path, json={"version": 1, "changed": False}).status_code == 409
    assert client.post(f"{BASE}/places/9999", json={"version": 1, "changed": False}).status_code == 404
