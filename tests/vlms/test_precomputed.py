"""Answers from files: layout, order, clamping, instances, and every way in which a file can be wrong."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from pycocotools import mask as rle

from semicdvl.ceg import rules
from semicdvl.ceg.prompts import resolve_prompts
from semicdvl.errors import ConfigError, InputError
from semicdvl.pseudo_labels.score_codec import decode_segments, encode_segments
from semicdvl.registry import resolve_builder
from semicdvl.types import VLM, Segments
from semicdvl.vlms import VLMS
from semicdvl.vlms.precomputed.coco import rle_fills_image
from semicdvl.vlms.precomputed.files import build_precomputed, clamp_scores, hash_pixels

WORDS = ["house", "road", "tree"]
HEIGHT, WIDTH = 5, 7


def encoded(mask_HW: np.ndarray) -> dict[str, Any]:
    code = rle.encode(np.asfortranarray(mask_HW.astype(np.uint8)))
    return {"size": list(code["size"]), "counts": code["counts"].decode()}


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path, image: np.ndarray) -> Path:
    """Answers for A/one.png and B/one.png, named by path; the two dates differ."""
    for date, pixels in (("A", image), ("B", image[::-1])):
        (tmp_path / "images" / date).mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / "images" / date / "one.png")
        (tmp_path / "answers" / date).mkdir(parents=True)
    (tmp_path / "answers" / "answers.json").write_text(json.dumps({"prompts": WORDS, "images": "../images"}))
    return tmp_path / "answers"


def maps(value: float = 0.4) -> np.ndarray:
    scores_CHW = np.full((3, HEIGHT, WIDTH), value, np.float32)
    scores_CHW[0, 1, 2], scores_CHW[1, 0, 0], scores_CHW[2] = 1.7, -0.2, 0.9
    return scores_CHW


def test_maps_are_clamped_and_in_the_order_asked(folder: Path, image: np.ndarray) -> None:
    np.save(folder / "A" / "one.npy", maps())
    np.save(folder / "B" / "one.npy", maps(0.1))
    vlm = build_precomputed(weights=folder)
    assert isinstance(vlm, VLM)
    segments = vlm.segment(image, ["tree", " House "])
    assert segments.scores_CHW.shape == (2, HEIGHT, WIDTH) and segments.instances is None
    assert segments.scores_CHW[1, 1, 2] == 1.0 and (segments.scores_CHW[0] == np.float32(0.9)).all()
    assert vlm.segment(image, ["road"]).scores_CHW[0, 0, 0] == 0.0
    other = vlm.segment(np.ascontiguousarray(image[::-1]), ["house"])
    assert other.scores_CHW[0, 0, 1] == np.float32(0.1)


def test_a_word_is_found_however_it_is_written(folder: Path, image: np.ndarray) -> None:
    (folder / "answers.json").write_text(json.dumps({"prompts": ["Storage_Tank", "bare  soil"], "images": "../images"}))
    np.save(folder / "A" / "one.npy", maps()[:2])
    asked = resolve_prompts(find="storage_tank", background="bare soil")
    found = build_precomputed(weights=folder).segment(image, asked.words)
    assert found.scores_CHW[0, 1, 2] == 1.0 and found.scores_CHW[1, 0, 0] == 0.0


def test_sums_above_1_are_compared_among_the_words_that_are_asked(folder: Path, image: np.ndarray) -> None:
    scores_CHW = np.full((3, HEIGHT, WIDTH), 0.2, np.float32)
    scores_CHW[:, 1, 2] = 1.3, 1.7, 1.5
    np.save(folder / "A" / "one.npy", scores_CHW)
    vlm = build_precomputed(weights=folder)
    assert vlm.segment(image, WORDS).scores_CHW[:, 1, 2].argmax() == 1
    found = vlm.segment(image, ["house", "tree"]).scores_CHW
    assert found[1, 1, 2] == 1 and found[0, 1, 2] == np.nextafter(np.float32(1), np.float32(0))
    assert np.array_equal(found[:, 0], scores_CHW[[0, 2], 0])


@settings(deadline=None)
@given(
    hnp.arrays(np.float32, (4, 3, 5), elements=st.sampled_from([-0.1, 0.0, 0.5, 0.997, 1.0, 1.001, 1.4, 3.0])),
    st.sampled_from([0.5, 0.8, 1.0]),
)
def test_clamping_and_the_store_keep_what_the_raw_sums_say(raw: np.ndarray, gamma: float) -> None:
    scores = clamp_scores(raw)
    kept = decode_segments(encode_segments(Segments(scores, ("a", "b", "c", "d"))), ("a", "b", "c", "d")).scores_CHW
    for foreground in ([0], [1, 2], [3]):
        wanted = rules.segmentation(raw, foreground=foreground, gamma=gamma)
        for each in (scores, kept):
            assert np.array_equal(rules.segmentation(each, foreground=foreground, gamma=gamma), wanted)
    small = raw.max(axis=0) <= 1
    assert np.array_equal(scores[:, small], np.maximum(raw, 0)[:, small]) and scores.max() <= 1


def test_named_by_pixel_hash(tmp_path: Path, image: np.ndarray) -> None:
    (tmp_path / "answers.json").write_text(json.dumps({"prompts": WORDS}))
    np.save(tmp_path / f"{hash_pixels(image)}.npy", maps())
    assert build_precomputed(weights=tmp_path).segment(image, WORDS).scores_CHW.shape == (3, HEIGHT, WIDTH)
    assert hash_pixels(image) != hash_pixels(image.reshape(WIDTH, HEIGHT, 3))


def test_instances_paint_maps_where_there_are_none(folder: Path, image: np.ndarray) -> None:
    left, top = np.zeros((HEIGHT, WIDTH), bool), np.zeros((HEIGHT, WIDTH), bool)
    left[:, :3], top[:2] = True, True
    entries = [
        {"category_id": 2, "score": 0.6, "segmentation": encoded(left)},
        {"category_id": 2, "score": 0.8, "segmentation": encoded(top)},
        {"category_id": 1, "score": 0.3, "segmentation": {"size": [HEIGHT, WIDTH], "counts": [4, 31]}},
    ]
    (folder / "A" / "one.json").write_text(json.dumps({"annotations": entries}))
    segments = build_precomputed(weights=folder).segment(image, ["house", "tree"])
    expected_HW = np.where(top, 0.8, np.where(left, 0.6, 0.0)).astype(np.float32)
    np.testing.assert_array_equal(segments.scores_CHW[1], expected_HW)
    assert (segments.scores_CHW[0] == 0).all()
    assert segments.instances is not None
    assert [(i.prompt, i.score) for i in segments.instances] == [(1, 0.6), (1, 0.8)]


def test_identity_follows_the_files(folder: Path) -> None:
    np.save(folder / "A" / "one.npy", maps())
    before = build_precomputed(weights=folder).identity
    assert build_precomputed(weights=folder).identity == before
    np.save(folder / "B" / "one.npy", maps())
    assert build_precomputed(weights=folder).identity != before


@pytest.mark.parametrize(
    ("array", "why"),
    [
        (np.zeros((3, WIDTH, HEIGHT), np.float32), "one map per prompt"),
        (np.zeros((2, HEIGHT, WIDTH), np.float32), "one map per prompt"),
        (np.full((3, HEIGHT, WIDTH), np.nan), "NaN"),
        (np.zeros((3, HEIGHT, WIDTH), complex), "real numbers"),
        (np.array([{"a": 1}], dtype=object), "not an array file"),
    ],
)
def test_broken_maps(folder: Path, image: np.ndarray, array: np.ndarray, why: str) -> None:
    np.save(folder / "A" / "one.npy", array, allow_pickle=True)
    with pytest.raises(InputError, match=why):
        build_precomputed(weights=folder).segment(image, ["house"])


FULL = {"size": [HEIGHT, WIDTH], "counts": [0, HEIGHT * WIDTH]}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "not valid JSON"),
        ("7", "neither a list"),
        (json.dumps([{"category_id": 0}]), "lacks"),
        (json.dumps([{"category_id": 0, "segmentation": [[1, 2, 3]]}]), "lacks"),
        (json.dumps([{"category_id": 0, "segmentation": {**FULL, "size": [WIDTH, HEIGHT]}}]), "mask of"),
        (json.dumps([{"category_id": 3, "segmentation": FULL}]), "category_id 3"),
        (json.dumps([{"category_id": 0, "score": float("nan"), "segmentation": FULL}]), "NaN is not a number of JSON"),
        (json.dumps([{"category_id": 0, "segmentation": {**FULL, "counts": [0, 999]}}]), "does not fill"),
        (json.dumps([{"category_id": 0, "segmentation": {**FULL, "counts": "~~"}}]), "does not fill"),
    ],
)
def test_broken_instances(folder: Path, image: np.ndarray, content: str, why: str) -> None:
    (folder / "A" / "one.json").write_text(content)
    with pytest.raises(InputError, match=why):
        build_precomputed(weights=folder).segment(image, ["house"])


def test_missing_answers_and_words(folder: Path, image: np.ndarray) -> None:
    vlm = build_precomputed(weights=folder)
    with pytest.raises(InputError, match="no prediction for this image"):
        vlm.segment(image, ["house"])
    with pytest.raises(InputError, match=r"'hause'.*Did you mean 'house'"):
        vlm.segment(image, ["hause"])
    with pytest.raises(InputError, match="no image with exactly these pixels"):
        vlm.segment(image[:, :4], ["house"])
    with pytest.raises(ConfigError, match="prompts"):
        vlm.segment(image, [])


@pytest.mark.parametrize("note", ["", "{}", '{"prompts": []}', '{"prompts": ["a", 3]}', '{"prompts": ["a", "A"]}'])
def test_bad_note(tmp_path: Path, note: str) -> None:
    (tmp_path / "answers.json").write_text(note)
    with pytest.raises(InputError, match=r"answers\.json"):
        build_precomputed(weights=tmp_path)


def test_bad_folders(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="folder of its predictions"):
        build_precomputed()
    with pytest.raises(InputError, match=r"answers\.json"):
        build_precomputed(weights=tmp_path / "none")
    (tmp_path / "answers.json").write_text(json.dumps({"prompts": WORDS}))
    with pytest.raises(InputError, match="is no folder of images"):
        build_precomputed(weights=tmp_path, images="elsewhere")


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 10**6))
def test_every_real_mask_passes_the_run_check(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask_HW = rng.random((height, width)) < rng.random()
    counts = encoded(mask_HW)["counts"]
    assert rle_fills_image(counts, (height, width))
    assert not rle_fills_image(counts, (height + 1, width))


# ------------------------------------------------------------------------------------------------ the fake
def test_fake_tells_colours_apart() -> None:
    vlm = resolve_builder("VLM", "fake", VLMS)()
    assert isinstance(vlm, VLM)
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[:, :3], image[:, 3:] = (220, 220, 220), (40, 90, 40)
    scores_CHW = vlm.segment(image, ["building", "tree", "zebra"]).scores_CHW
    assert (scores_CHW[:2].argmax(0) == (np.arange(WIDTH) >= 3)).all() and (scores_CHW[2] == 0).all()
    with pytest.raises(ConfigError):
        vlm.segment(image[..., 0], ["building"])


def test_all_vlms_of_the_table_can_be_found() -> None:
    assert all(callable(resolve_builder("VLM", name, VLMS)) for name in VLMS)
