"""A training set of a review: accepted is change, rejected is not, what nobody decided on is not known."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from shapely import box
from tests.review.test_labels import png, put
from tests.support.review_scene import CONFIG, SIDE, SQUARES, decide, make_images, open_client
from tests.support.synthetic_rasters import at

import semicdvl as cd
from semicdvl.raster.grid import Grid
from semicdvl.review.labels import reviewed

BASE = "/api/pairs/out"
NAME = "r00000_c00000"
LABEL = dataclasses.replace(CONFIG, label=True)


def make(client):
    answer = client.post(f"{BASE}/training-set")
    assert answer.status_code == 200, answer.text
    return answer.json()


def read_label(out, name: str = NAME) -> np.ndarray:
    return np.array(Image.open(out / "reviewed-patches" / "label" / f"{name}.png"))


def square_of(number: int) -> tuple[slice, slice]:
    row, col = SQUARES[number - 1]
    return slice(row, row + SIDE), slice(col, col + SIDE)


def test_the_label_is_what_was_decided(client, out) -> None:
    decide(client, 1, "accepted")
    decide(client, 2, "rejected")
    made = make(client)
    del made["commands"]
    counts = {"patches": 1, "accepted": 1, "rejected": 1, "corrected": 1, "painted": 0}
    assert made == counts | {"folder": str(out / "reviewed-patches")}
    label = read_label(out)
    expected = np.zeros((256, 256), np.uint8)
    expected[square_of(1)] = 255
    open_px = sum(
        label[square_of(number)].size for number in (5, 6, 9, 10)
    )  # the others touch the patch or lie outside
    assert (label[square_of(1)] == 255).all() and (label[square_of(2)] == 0).all()
    assert (label[square_of(5)] == 128).all() and open_px <= (label == 128).sum() <= open_px * 1.4
    assert (label == 255).sum() == SIDE**2


def test_images_list_and_recipe_are_a_training_set(client, out) -> None:
    for number in range(1, 13):
        decide(client, number, "accepted" if number != 2 else "rejected")
    made = make(client)
    t1, t2 = make_images()
    root = out / "reviewed-patches"
    assert (np.array(Image.open(root / "A" / f"{NAME}.png")) == t1[:, :256, :256].transpose(1, 2, 0)).all()
    assert (np.array(Image.open(root / "B" / f"{NAME}.png")) == t2[:, :256, :256].transpose(1, 2, 0)).all()
    assert set(np.unique(read_label(out))) == {0, 255}
    assert (root / "list" / "train.txt").read_text() == f"{NAME}.png\n"
    recipe = cd.load_recipe(root / "train.toml")
    assert (recipe.model.name, recipe.train.select, recipe.name[:11]) == ("vlm_prior", "last", "reviewed-1-")
    assert (recipe.data.val_frac, recipe.data.test_frac) == (0, 0)
    name = recipe.name.replace("reviewed", "run")
    assert made["commands"][0] == f"semicdvl train {root}/train.toml -o {root}/{name}"
    assert made["commands"][1].endswith(f"--model {root}/{name} -o {out}-{name.replace('run', 'trained')}")
    assert made["commands"][2] == f"semicdvl serve {out}-{name.replace('run', 'trained')}"


def test_other_decisions_are_another_run(client, out) -> None:
    decide(client, 1, "accepted")
    first = make(client)["commands"]
    assert make(client)["commands"] == first
    decide(client, 2, "accepted")
    assert make(client)["commands"] != first


def test_the_detection_reads_the_images_as_before(client, out) -> None:
    record = json.loads((out / "run.json").read_text())
    record["settings"] |= {"bands": [3, 2, 1], "align": True, "stretch": "0,255", "min_area_m2": 20}
    record["left_out"]["by_default"] = False
    record["detector"] |= {"Looked for": "road, path", "Against": "tree"}
    (out / "run.json").write_text(json.dumps(record))
    with open_client(out) as again:
        decide(again, 1, "accepted")
        command = make(again)["commands"][1]
    assert "--bands 3,2,1 --stretch 0,255 --min-area-m2 20 --align --model" in command
    model = cd.load_recipe(out / "reviewed-patches" / "train.toml").model.model_dump()
    assert model["find"] == ["road", "path"] and model["background"] == ["tree"]


def test_painted_patches_are_taken_as_they_are(out) -> None:
    mask = np.zeros((256, 256), np.uint8)
    mask[:100] = 255
    with open_client(out, LABEL) as client:
        assert put(client, NAME, png(mask)).status_code == 200
        decide(client, 1, "accepted")
        made = make(client)
    assert made["painted"] == made["patches"] == 1
    assert (read_label(out) == mask).all()


def test_patches_of_an_earlier_set_are_gone(client, out) -> None:
    decide(client, 1, "accepted")
    make(client)
    for folder in ("A", "B", "label"):
        shutil.copy(out / "reviewed-patches" / folder / f"{NAME}.png", out / "reviewed-patches" / folder / "r9_c9.png")
    make(client)
    assert [path.name for path in sorted((out / "reviewed-patches").glob("*/r*.png"))] == [f"{NAME}.png"] * 3


def test_what_a_link_leads_to_is_not_deleted(client, out, tmp_path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.png").touch()
    (out / "reviewed-patches").mkdir()
    (out / "reviewed-patches" / "label").symlink_to(tmp_path / "photos")
    decide(client, 1, "accepted")
    answer = client.post(f"{BASE}/training-set")
    assert answer.status_code >= 400 and "symbolic link" in answer.text, answer.text
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["holiday.png"]


def test_a_place_that_changed_is_not_called_unchanged(client, out) -> None:
    decide(client, 1, "accepted")
    places = client.get(f"{BASE}/places").json()["places"]
    place = next(one for one in places if max(one["row"], one["col"]) < 240)
    body = {"version": place["version"], "changed": True}
    assert client.post(f"{BASE}/places/{place['rank']}", json=body).status_code == 200
    make(client)
    assert read_label(out)[place["row"], place["col"]] == 128


def test_without_an_accepted_change_there_is_nothing_to_learn(client, out) -> None:
    decide(client, 1, "rejected")
    answer = client.post(f"{BASE}/training-set")
    assert answer.status_code == 422 and "No change is accepted yet" in answer.json()["detail"]
    assert not (out / "reviewed-patches").exists()


def test_ground_that_is_hardly_known_is_no_patch(client, out, monkeypatch) -> None:
    monkeypatch.setattr(reviewed, "MIN_KNOWN_FRAC", 0.999)
    decide(client, 1, "accepted")
    answer = client.post(f"{BASE}/training-set")
    assert answer.status_code == 422 and "Too little of the ground" in answer.json()["detail"]


@pytest.mark.parametrize(("most", "expected"), [(64, [(0, 0), (0, 128), (128, 128)]), (1, [(0, 0)])])
def test_the_patches_with_the_most_decisions_come_first(monkeypatch, client, most, expected) -> None:
    monkeypatch.setattr(reviewed, "MAX_PATCHES", most)
    transform = at(0, 0)
    places = [(10, 10), (50, 50), (20, 200), (200, 200), (10, 130)]
    shapes = [box(*sorted_bounds(transform, row, col)) for row, col in places]
    values = np.array([255, 0, 255, 0, 128], np.uint8)
    ground = reviewed.ReviewedGround(Grid(None, transform, 256, 256), shapes, values, np.ones(5, bool))
    assert reviewed.choose_cells(ground, side_px=128) == expected


@pytest.mark.parametrize(
    ("corrects", "confirming", "expected"),
    [([], True, [(0, 0), (0, 128)]), ([], False, []), ([2], True, [(0, 128)]), ([2], False, [(0, 128)])],
)
def test_patches_that_only_confirm_the_map_are_taken_where_there_are_no_others(corrects, confirming, expected) -> None:
    transform = at(0, 0)
    shapes = [box(*sorted_bounds(transform, row, col)) for row, col in ((10, 10), (50, 50), (20, 200))]
    is_correction = np.isin(np.arange(3), corrects)
    ground = reviewed.ReviewedGround(Grid(None, transform, 256, 256), shapes, np.full(3, 255, np.uint8), is_correction)
    assert reviewed.choose_cells(ground, side_px=128, confirming=confirming) == expected


def test_patches_of_rejected_changes_alone_are_not_all() -> None:
    transform = at(0, 0)
    shapes = [box(*sorted_bounds(transform, row, col)) for row, col in ((10, 10), (20, 200))]
    values, corrects = np.array([0, 255], np.uint8), np.array([True, False])
    ground = reviewed.ReviewedGround(Grid(None, transform, 256, 256), shapes, values, corrects)
    assert reviewed.choose_cells(ground, side_px=128) == [(0, 0), (0, 128)]
    assert reviewed.choose_cells(ground, side_px=128, confirming=False) == [(0, 0)]


def sorted_bounds(transform, row: int, col: int) -> tuple[float, float, float, float]:
    (left, top), (right, bottom) = transform @ (col, row), transform @ (col + 8, row + 8)
    return left, min(bottom, top), right, max(bottom, top)
