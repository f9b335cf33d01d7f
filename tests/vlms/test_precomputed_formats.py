"""Answers of ZegCLIP, OMG-Seg and others that were computed elsewhere, in the forms that they are saved in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle
from tests.support.paths import ROOT

from semicdvl.catalog import describe_details, describe_parts, list_detail_headings
from semicdvl.errors import ConfigError, InputError
from semicdvl.registry import resolve_builder
from semicdvl.types import VLM
from semicdvl.vlms import VLMS
from semicdvl.vlms.instance_stitching import decode_mask
from semicdvl.vlms.model_cards import read_model_card
from semicdvl.vlms.precomputed import files, omg_seg, zegclip

HEIGHT, WIDTH = 6, 9
WORDS = ["house", "road"]
IMAGE = np.random.default_rng(4).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def mask_of(rows: slice, cols: slice) -> tuple[np.ndarray, dict[str, Any]]:
    mask_HW = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask_HW[rows, cols] = 1
    code = rle.encode(np.asfortranarray(mask_HW))
    return mask_HW, {"size": [HEIGHT, WIDTH], "counts": code["counts"].decode()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An image A/one.png, and a place for its answers."""
    (tmp_path / "images" / "A").mkdir(parents=True)
    Image.fromarray(IMAGE).save(tmp_path / "images" / "A" / "one.png")
    (tmp_path / "answers" / "A" / "preds").mkdir(parents=True)
    return tmp_path / "answers"


def note(folder: Path, **more: Any) -> None:
    (folder / "answers.json").write_text(json.dumps({"prompts": WORDS, "images": "../images", **more}))


# ------------------------------------------------------------------------------------------------ ZegCLIP
def test_zegclip_reads_probabilities_only(folder: Path) -> None:
    note(folder)
    scores_CHW = np.random.default_rng(0).random((2, HEIGHT, WIDTH)).astype(np.float16)
    np.save(folder / "A" / "one.npy", scores_CHW)
    vlm = zegclip.build_zegclip(weights=folder)
    assert isinstance(vlm, VLM) and vlm.identity.startswith("zegclip-") and vlm.gamma == 0.5
    assert vlm.identity != files.build_precomputed(weights=folder).identity
    np.testing.assert_allclose(vlm.segment(IMAGE, ["road"]).scores_CHW[0], scores_CHW[1])
    np.save(folder / "A" / "one.npy", scores_CHW * 9 - 4)
    with pytest.raises(InputError, match=r"scores from -3\.\d+ to 4\.\d+.*after the sigmoid"):
        zegclip.build_zegclip(weights=folder).segment(IMAGE, WORDS)
    assert files.build_precomputed(weights=folder).segment(IMAGE, WORDS).scores_CHW.max() == 1  # APE's sums are clamped
    with pytest.raises(ConfigError, match="'zegclip' needs the folder"):
        zegclip.build_zegclip()
    with pytest.raises(ConfigError, match="uint8 RGB"):
        zegclip.build_zegclip(weights=folder).segment(IMAGE[..., 0], WORDS)


# ------------------------------------------------------------------------------------------------ OMG-Seg
CLASSES = {"house": [129, 7], "road": [100]}


def predictions(folder: Path, content: Any) -> None:
    (folder / "A" / "preds" / "one.json").write_text(json.dumps(content))


def test_omg_seg_reads_what_mmdetection_writes(folder: Path) -> None:
    note(folder, classes=CLASSES)
    masks = [mask_of(slice(0, 3), slice(0, 4)), mask_of(slice(2, 6), slice(3, 9)), mask_of(slice(0, 6), slice(0, 9))]
    content = {"labels": [7, 100, 55], "scores": [0.9, 0.4, 0.99], "masks": [code for _, code in masks], "bboxes": []}
    predictions(folder, content)
    vlm = omg_seg.build_omg_seg(weights=folder)
    assert isinstance(vlm, VLM) and vlm.identity.startswith("omg_seg-")
    answer = vlm.segment(IMAGE, ["road", "house"])
    assert answer.instances is not None  # class 55 answers no prompt
    assert [(one.prompt, one.score) for one in answer.instances] == [(1, 0.9), (0, 0.4)]
    np.testing.assert_array_equal(decode_mask(answer.instances[0].mask), masks[0][0])
    np.testing.assert_allclose(answer.scores_CHW[1], masks[0][0] * 0.9, atol=1e-6)
    np.testing.assert_allclose(answer.scores_CHW[0], masks[1][0] * 0.4, atol=1e-6)
    note(folder, classes={"house": [129], "road": [100, 7]})
    assert omg_seg.build_omg_seg(weights=folder).identity != vlm.identity


@pytest.mark.parametrize(
    ("classes", "why"),
    [
        (None, "does not name in 'classes'"),
        ({"house": [1]}, "does not name in 'classes'"),
        ({"house": [1], "road": []}, "no lists of numbers"),
        ({"house": [1], "road": "2"}, "no lists of numbers"),
        ({"house": [1], "road": ["2"]}, "no lists of numbers"),
        ({"house": [1, 3], "road": [3]}, "one class number to two"),
    ],
)
def test_omg_seg_must_know_its_classes(folder: Path, classes: Any, why: str) -> None:
    note(folder, **({} if classes is None else {"classes": classes}))
    with pytest.raises(InputError, match=why):
        omg_seg.build_omg_seg(weights=folder)


SMALL = {"size": [HEIGHT, 2], "counts": [0, HEIGHT * 2]}
FULL = {"size": [HEIGHT, WIDTH], "counts": [0, HEIGHT * WIDTH]}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ([], "lacks equally long lists"),
        ({"labels": [7], "scores": [0.5]}, "lacks equally long lists"),
        ({"labels": [7], "scores": [0.5], "masks": []}, "lacks equally long lists"),
        ({"labels": ["house"], "scores": [0.5], "masks": [FULL]}, "has the label 'house'"),
        ({"labels": [7], "scores": [0.5], "masks": [SMALL]}, r"mask of \(6, 2\), the image is \(6, 9\)"),
        ({"labels": [7], "scores": [0.5], "masks": ["x"]}, "lacks an RLE mask"),
        ({"labels": [7], "scores": [float("nan")], "masks": [FULL]}, "NaN is not a number of JSON"),
        ({"labels": [7], "scores": [0.5], "masks": [{**FULL, "counts": [3]}]}, "does not fill"),
    ],
)
def test_broken_predictions(folder: Path, content: Any, why: str) -> None:
    note(folder, classes=CLASSES)
    predictions(folder, content)
    with pytest.raises(InputError, match=why):
        omg_seg.build_omg_seg(weights=folder).segment(IMAGE, WORDS)


# ------------------------------------------------------------------------------------------------ COCO categories
def test_categories_are_found_by_their_names(folder: Path) -> None:
    note(folder)
    _, code = mask_of(slice(1, 4), slice(2, 8))
    content = {
        "categories": [{"id": 1, "name": "Road"}, {"id": 7, "name": "house"}, {"id": 9, "name": "ship"}],
        "annotations": [{"category_id": number, "score": 0.7, "segmentation": code} for number in (9, 7, 1, 7)],
    }
    (folder / "A" / "one.json").write_text(json.dumps(content))
    answer = files.build_precomputed(weights=folder).segment(IMAGE, WORDS)
    assert answer.instances is not None and [one.prompt for one in answer.instances] == [0, 1, 0]
    (folder / "A" / "one.json").write_text(json.dumps({**content, "categories": [{"id": 1}]}))
    with pytest.raises(InputError, match="categories without id or name"):
        files.build_precomputed(weights=folder).segment(IMAGE, WORDS)


# ------------------------------------------------------------------------------------------------ the list and the page
PAGE = (ROOT / "docs" / "models" / "vlms.md").read_text(encoding="utf-8")


def test_the_pages_own_vlm_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = PAGE[PAGE.index("# mymodule.py") :].partition("```")[0]
    (tmp_path / "brightness_of_the_page.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    vlm = resolve_builder("VLM", "brightness_of_the_page:build", VLMS)()
    assert isinstance(vlm, VLM) and vlm.segment(IMAGE, ["building", "grass"]).scores_CHW.shape == (2, HEIGHT, WIDTH)
    with pytest.raises(ConfigError, match=r"unknown VLM 'sam4'\. Did you mean 'sam3'"):
        resolve_builder("VLM", "sam4", VLMS)


def test_every_vlm_says_what_it_is() -> None:
    for name, text in describe_parts("vlms"):
        row = (text, *describe_details("vlms", name, params=False))
        assert len(row) == 1 + len(list_detail_headings("vlms", params=False)) and all(row)
    for name in VLMS:
        if name != "fake":
            facts = read_model_card(name)
            line = next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}`"))
            assert facts.licence in line and facts.size in line, name
