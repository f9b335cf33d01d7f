"""Labels: what is stored is what was painted, in the layout of a training, with a recipe that trains on it."""

from __future__ import annotations

import dataclasses
import io
import re
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.support.review_scene import CONFIG, SIDE, SQUARES, make_images, open_client

import semicdvl as cd
from semicdvl.ceg.prompts import Prompts
from semicdvl.data.readers.folder import read_folder
from semicdvl.errors import InputError
from semicdvl.review.export import list_next_commands
from semicdvl.review.labels import sources
from semicdvl.review.labels.superpixels import encode_segments, segment_image
from semicdvl.review.labels.training import (
    VAL_EVERY,
    list_commands,
    list_detect_options,
    split_for_validation,
    write_recipe,
)
from semicdvl.training.parts import make_split

LABEL = dataclasses.replace(CONFIG, label=True)
BASE = "/api/labels"


def png(mask_HW: np.ndarray, mode: str | None = None) -> bytes:
    stream = io.BytesIO()
    picture = Image.fromarray(mask_HW)
    (picture.convert(mode) if mode else picture).save(stream, "PNG")
    return stream.getvalue()


def read(client, path: str) -> np.ndarray:
    answer = client.get(f"{BASE}/{path}")
    assert answer.status_code == 200, answer.text
    return np.array(Image.open(io.BytesIO(answer.content)))


def put(client, name: str, content: bytes, version: str = "none"):
    headers = {"Content-Type": "image/png"}
    return client.put(f"{BASE}/{name}", params={"version": version}, content=content, headers=headers)


@pytest.fixture
def of_map(out):
    with open_client(out, LABEL) as client:
        yield client


@pytest.fixture
def dataset(tmp_path):
    root = tmp_path / "data"
    before, after = make_images()
    for name, row, col in (("one", 0, 0), ("two", 100, 100), ("three", 0, 300)):
        for folder, image in (("A", before), ("B", after)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[:, row : row + 128, col : col + 128].transpose(1, 2, 0)).save(
                root / folder / f"{name}.png"
            )
    return root


@pytest.fixture
def of_folder(dataset):
    with open_client(dataset, LABEL) as client:
        yield client


def test_the_patches_of_a_map_are_those_that_suggest_recommends(of_map, out) -> None:
    listed = of_map.get(BASE).json()
    assert (out / "suggest.gpkg").is_file() and listed["folder"] == str(out / "labels")
    assert [row["name"] for row in listed["patches"]] == ["r00000_c00000"]  # all that fits with 256 px
    assert listed["labelled"] == 0 and listed["commands"] == [] and "first label" in listed["message"]


def test_a_map_proposes_its_changes(of_map) -> None:
    proposal = read(of_map, "r00000_c00000/mask")
    expected = np.zeros((256, 256), np.uint8)
    for row, col in SQUARES:
        expected[row : row + SIDE, col : col + SIDE] = 255
    assert (proposal == expected).all()


def test_what_is_stored_is_what_was_painted(of_map, out) -> None:
    mask = np.random.default_rng(0).choice(np.array([0, 128, 255], np.uint8), (256, 256))
    stored = put(of_map, "r00000_c00000", png(mask, "RGB")).json()
    assert stored["labelled"] and (read(of_map, "r00000_c00000/mask") == mask).all()
    dataset = read_folder(out / "labels")
    (pair,) = dataset.pairs
    assert (np.array(Image.open(pair.label)) == mask).all()
    t1, t2 = make_images()
    assert (np.array(Image.open(pair.before)) == t1[:, :256, :256].transpose(1, 2, 0)).all()
    assert (np.array(Image.open(pair.after)) == t2[:, :256, :256].transpose(1, 2, 0)).all()
    assert dataset.subsets == {"train": ("r00000_c00000",)}
    assert read(of_map, "r00000_c00000/mask?source=proposal").tolist() != mask.tolist()


def test_the_recipe_is_one_and_the_commands_are_exact(of_map, out, monkeypatch) -> None:
    put(of_map, "r00000_c00000", png(np.zeros((256, 256), np.uint8)))
    recipe = cd.load_recipe(out / "labels" / "train.toml")
    assert (recipe.data.root, recipe.data.labelled, recipe.data.label_values) == (
        out / "labels",
        1.0,
        {0: 0, 128: 255, 255: 1},
    )
    assert (recipe.train.select, recipe.model.name) == ("last", "vlm_prior")  # a few labels correct the map
    assert (recipe.data.val_frac, recipe.data.test_frac) == (0, 0)  # and all of them are trained on
    commands = of_map.get(BASE).json()["commands"]
    name = recipe.name.removeprefix("reviewed-")
    assert name.startswith("1-") and len(name) == 6
    assert commands[0] == f"semicdvl train {out}/labels/train.toml -o {out}/labels/run-{name}"
    assert commands[1].endswith(f"--model {out}/labels/run-{name} -o {out}-trained-{name}")
    assert commands[2] == f"semicdvl serve {out}-trained-{name}"
    monkeypatch.chdir(out.parent)
    assert of_map.get(BASE).json()["commands"][0] == f"semicdvl train out/labels/train.toml -o out/labels/run-{name}"


def test_commands_name_addresses_as_they_were_given(tmp_path, monkeypatch) -> None:
    """A path would lose a slash of theirs."""
    monkeypatch.chdir(tmp_path)
    images = "https://host/a.tif", f"/vsizip/{tmp_path}/b.zip/b.tif"
    _, detect, _ = list_commands(tmp_path / "set", folder=tmp_path / "out", before=images[0], after=images[1])
    assert f"detect {images[0]} {images[1]} --model set/run" in detect
    (prepare,) = list_next_commands(tmp_path / "out", before=images[0], after=str(tmp_path / "b.tif"))
    assert f"--before {images[0]} --after b.tif --labels out/reviewed.gpkg" in prepare


def test_commands_repeat_numbers_exactly() -> None:
    settings = {"gsd_m": 0.5971642834779395, "min_area_m2": 1234567.5, "simplify_m": 2.0}
    assert list_detect_options(settings) == ["--gsd 0.5971642834779395", "--min-area-m2 1234567.5", "--simplify-m 2"]


def test_labels_that_were_painted_anew_are_another_run(of_map) -> None:
    def read_run() -> str:
        return of_map.get(BASE).json()["commands"][0].partition(" -o ")[2]

    empty, full = (png(np.full((256, 256), value, np.uint8)) for value in (0, 255))
    versions, runs = ["none"], []
    for content in (empty, full, empty):
        versions.append(put(of_map, "r00000_c00000", content, versions[-1]).json()["version"])
        runs.append(read_run())
    assert runs[0] == runs[2] != runs[1]


def test_the_recipe_of_an_older_version_keeps_its_run(of_map, out) -> None:
    put(of_map, "r00000_c00000", png(np.zeros((256, 256), np.uint8)))
    path = out / "labels" / "train.toml"
    path.write_text(re.sub(r'name = "reviewed-.*"', 'name = "reviewed"', path.read_text()))
    commands = of_map.get(BASE).json()["commands"]
    assert commands[0].endswith("/labels/run") and commands[1].endswith("out-trained")


@pytest.mark.parametrize(("labelled", "network"), [(1, "vlm_prior"), (16, "vlm_prior"), (17, "siam_light")])
def test_a_few_labels_correct_the_map_and_more_train_a_network(tmp_path: Path, labelled: int, network: str) -> None:
    prompts = Prompts(("house", 'l\'abri "vert"'), ("road",))
    labels = [tmp_path / f"{number}.png" for number in range(labelled)]
    for label in labels:
        label.write_bytes(label.name.encode())
    path = write_recipe(
        tmp_path, labels=labels, patch_px=256, gsd_m=0.3, prompts=prompts, validated=True, own_lists=True
    )
    recipe = cd.load_recipe(path)
    assert recipe.model.name == network and recipe.data.label_values == {0: 0, 128: 255, 255: 1}
    if network == "vlm_prior":
        options = recipe.model.model_dump()
        assert (options["find"], options["background"], options["gsd_m"]) == (
            ["house", "l'abri \"vert\""], ["road"], 0.3,
        )  # fmt: skip
        assert (recipe.train.optimizer, recipe.train.select) == ("lbfgs", "last")
    else:
        assert (recipe.data.crop_px, recipe.train.steps, recipe.train.select) == (128, 300, "val")


def test_of_two_windows_the_second_is_told(of_map) -> None:
    empty = png(np.zeros((256, 256), np.uint8))
    version = put(of_map, "r00000_c00000", empty).json()["version"]
    assert put(of_map, "r00000_c00000", png(np.full((256, 256), 255, np.uint8))).status_code == 409
    assert put(of_map, "r00000_c00000", png(np.full((256, 256), 255, np.uint8)), version).status_code == 200


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", ""),
        (b"no picture", "no PNG"),
        (png(np.zeros((256, 256), np.uint8))[:-30], "no PNG"),
        (png(np.zeros((255, 256), np.uint8)), "256 x 255 px"),
        (png(np.zeros((2000, 2000), np.uint8)), "at most"),
        (png(np.full((256, 256), 7, np.uint8)), "holds [7]"),
        (png(np.dstack([np.zeros((256, 256), np.uint8)] * 2 + [np.full((256, 256), 255, np.uint8)])), "colours"),
        (png(np.zeros((256, 256, 4), np.uint8)), "transparent"),
        (png(np.zeros((256, 256), np.uint8), "1"), "no grey PNG"),
    ],
    ids=["empty", "text", "truncated", "size", "huge", "values", "colours", "transparent", "mode"],
)
def test_what_is_no_mask_is_refused(of_map, content, reason, out) -> None:
    answer = put(of_map, "r00000_c00000", content)
    assert answer.status_code == 422 and reason in str(answer.json()["detail"])
    assert not (out / "labels").exists()


@pytest.mark.parametrize("name", ["other", "..%2f..%2fx", "r00000_c00000.png", "%2e%2e"])
def test_an_unknown_patch_is_not_found(of_map, name) -> None:
    assert of_map.get(f"{BASE}/{name}/mask").status_code in (404, 422)
    assert put(of_map, name, png(np.zeros((256, 256), np.uint8))).status_code in (404, 405, 422)


def test_all_of_a_few_labels_are_trained_on(out, monkeypatch) -> None:
    monkeypatch.setattr(sources, "PATCH_PX", 64)
    content = png(np.zeros((64, 64), np.uint8))
    with open_client(out, LABEL) as client:
        names = [row["name"] for row in client.get(BASE).json()["patches"]][:18]
        for number, name in enumerate(names, start=1):
            assert put(client, name, content).status_code == 200
            if number in (8, 16, 18):
                data = cd.load_recipe(out / "labels" / "train.toml").data
                split = make_split(data, select="val" if number > 16 else "last")
                sizes = (len(split.labelled), len(split.val), len(split.test), len(split.unlabelled))
                assert sizes == ((number, 0, 0, 0) if number <= 16 else (14, 4, 0, 0))


def test_validation_patches_stay_what_they_are() -> None:
    names = [str(number) for number in range(12)]
    seen: dict[str, str] = {}
    for count in range(1, 13):
        train, val = split_for_validation(names, set(names[:count]))
        assert sorted(train + val, key=int) == names[:count] and train
        for side, members in (("train", train), ("val", val)):
            for name in members:
                assert seen.setdefault(name, side) == side
    assert [name for name, side in seen.items() if side == "val"] == names[VAL_EVERY - 1 :: VAL_EVERY]


def test_labels_of_a_folder_are_written_beside_its_images(of_folder, dataset) -> None:
    listed = of_folder.get(BASE).json()
    assert [row["name"] for row in listed["patches"]] == ["one", "three", "two"]
    mask = np.zeros((128, 128), np.uint8)
    mask[30:50, 40:60] = 255
    assert put(of_folder, "three", png(mask)).status_code == 200
    assert (np.array(Image.open(dataset / "label" / "three.png")) == mask).all()
    recipe = tomllib.loads((dataset / "train.toml").read_text())
    assert recipe["data"]["val_frac"] == 0 and recipe["train"]["select"] == "last"
    assert of_folder.get(BASE).json()["labelled"] == 1
    assert of_folder.get("/api/pairs").json()["mode"] == "label"


def test_a_folder_proposes_what_the_model_sees(of_folder) -> None:
    proposal = read(of_folder, "one/mask")
    assert proposal.shape == (128, 128) and set(np.unique(proposal)) <= {0, 128, 255}


def test_pairs_that_are_no_patches_are_refused(dataset) -> None:
    for folder in ("A", "B"):
        Image.new("RGB", (1500, 200)).save(dataset / folder / "wide.png")
    with open_client(dataset, LABEL) as client:
        assert client.get(f"{BASE}/one").status_code == 200
        answer = client.get(f"{BASE}/wide")
        assert answer.status_code == 422 and "semicdvl prepare" in answer.json()["detail"]


def test_a_link_out_of_a_folder_is_refused(dataset, tmp_path) -> None:
    target = tmp_path / "elsewhere.png"
    shutil.move(dataset / "A" / "one.png", target)
    (dataset / "A" / "one.png").symlink_to(target)
    with pytest.raises(cd.InputError, match="leads out of the served folder"):
        cd.create_review_app(dataset, config=LABEL)


def test_a_segment_is_a_roof() -> None:
    _, after = make_images()
    segments = segment_image(np.ascontiguousarray(after[:, :128, :128].transpose(1, 2, 0)), detail="coarse")
    row, col = SQUARES[0]
    roof = segments == segments[row + 10, col + 10]
    true = np.zeros((128, 128), bool)
    true[row : row + SIDE, col : col + SIDE] = True
    assert (roof & true).sum() / (roof | true).sum() > 0.9


def test_segments_survive_their_encoding() -> None:
    numbers = np.array([[0, 255, 256], [65535, 65536, 70000]], np.int32)
    rgb = encode_segments(numbers).astype(np.int64)
    assert (rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2] == numbers).all()


# ------------------------------------------------------------------------------------------------ labels of others
def test_a_stored_label_says_what_it_says_to_a_training(tmp_path):
    truth_HW = (np.random.default_rng(0).random((40, 56)) > 0.7).astype(np.uint8)
    wanted_HW = truth_HW * np.uint8(255)
    white_first = Image.fromarray(1 - truth_HW).convert("L")
    white_first.putpalette([255, 255, 255, 0, 0, 0])
    white_first.save(tmp_path / "palette.png")
    Image.fromarray(wanted_HW).save(tmp_path / "inverted.tif", tiffinfo={262: 0})  # Pillow inverts what it stores
    Image.fromarray(np.where(np.arange(56) < 9, 128, wanted_HW).astype(np.uint8)).save(tmp_path / "part.png")
    for name in ("palette.png", "inverted.tif"):
        np.testing.assert_array_equal(sources.read_stored_mask(tmp_path / name), wanted_HW)
    part_HW = sources.read_stored_mask(tmp_path / "part.png")
    assert (part_HW[:, :9] == 128).all() and (part_HW[:, 9:] == wanted_HW[:, 9:]).all()
    Image.fromarray(truth_HW * np.uint8(90)).save(tmp_path / "grey.png")
    with pytest.raises(InputError, match=r"grey\.png: is a label with the values \{0, 90\}"):
        sources.read_stored_mask(tmp_path / "grey.png")
