"""Recipe -> run directory -> evaluation, on made-up pairs; and everything that must be refused before training."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from tests.support.dataset_files import folder_of_pairs

from semicdvl.ceg.labels import make_labels
from semicdvl.ceg.prompts import Prompts
from semicdvl.checkpoint import load_network
from semicdvl.config import DataConfig, Recipe, parse_recipe
from semicdvl.data.pairs import read_pair
from semicdvl.data.readers import folder
from semicdvl.errors import CheckpointError, ConfigError, DataError, StoreError
from semicdvl.methods.supervised import Supervised
from semicdvl.metrics.change import ConfusionCounts
from semicdvl.pseudo_labels.generate import CEGSettings, generate_labels
from semicdvl.pseudo_labels.store import PseudoLabelStore
from semicdvl.training.distributed import join_process_group
from semicdvl.training.evaluate import evaluate_run
from semicdvl.training.parts import build_loader_options, make_split
from semicdvl.training.run import train
from semicdvl.training.validation import score_vlm_alone
from semicdvl.types import Segments

PAIRS = 12
RED, GREEN = (220, 40, 30), (60, 150, 70)


class Colours:
    """A VLM for tests: red is house, green is grass."""

    identity = "colours-1"

    def segment(self, image_HWC, prompts, *, gsd_m=None) -> Segments:
        scores = image_HWC[..., [0 if word == "house" else 1 for word in prompts]].astype(np.float32) / 255
        return Segments(np.ascontiguousarray(scores.transpose(2, 0, 1)), tuple(prompts))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pairs of 64 px: grass, with a red house that stands at both dates and one that is new."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for part in ("A", "B", "label"):
        (root / part).mkdir()
    for index in range(PAIRS):
        before = rng.normal(0, 6, (64, 64, 3)) + GREEN
        row, col = rng.integers(4, 36, 2)
        before[4:14, 44:58] = RED
        after = before + rng.normal(0, 6, (64, 64, 3))
        after[row : row + 18, col : col + 20] = RED
        label = np.zeros((64, 64), np.uint8)
        label[row : row + 18, col : col + 20] = 255
        label[4:14, 44:58] = 0
        for part, image in (("A", before), ("B", after), ("label", label)):
            cv2.imwrite(
                str(root / part / f"p{index:02d}.png"),
                np.clip(image, 0, 255).astype(np.uint8)[..., ::-1] if part != "label" else image,
            )
    return root


@pytest.fixture(scope="module")
def store(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pseudo") / "store"
    words, settings = Prompts(("house",), ("grass",)), CEGSettings(gamma=0.4, gamma_segmentation=0.4)
    assert (
        len(
            list(
                generate_labels(
                    folder.read_folder(data).pairs, vlm=Colours(), prompts=words, settings=settings, root=root
                )
            )
        )
        == PAIRS
    )
    return root


def _recipe(data: Path, store: Path | None, **changes: Any) -> Recipe:
    content: dict[str, Any] = {
        "name": "tiny",
        "data": {"root": str(data), "labelled": 0.34, "val_frac": 0.25, "test_frac": 0.25, "crop_px": 64},
        "model": {"name": "siam_light", "backbone": "test_resnet", "pretrained": "none", "decoder_channels": 16},
        "method": {"name": "semicd_vl"},
        "train": {"steps": 4, "labelled_batch": 2, "unlabelled_batch": 2, "lr": 0.01, "eval_every": 2, "device": "cpu"},
    }
    if store is not None:
        content["pseudo"] = {"store": str(store)}
    for key, value in changes.items():
        section, _, field = key.partition("__")
        content[section][field] = value
    return parse_recipe(content, source="test")


@pytest.mark.parametrize("method", ["supervised", "fixmatch", "semicd_vl"])
def test_a_recipe_becomes_a_run_that_can_be_loaded_and_evaluated(
    data: Path, store: Path, tmp_path: Path, method: str
) -> None:
    recipe = _recipe(data, store, method__name=method)
    result = train(recipe, tmp_path / "run", quiet=True)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["status"], record["selected_on"]) == ("finished", "val")
    assert record["split"]["labelled"] == 2 and record["split"]["leaking_pairs"] == 0
    assert 0 <= result.test["iou"] <= 1
    again = evaluate_run(tmp_path / "run", folder.read_folder(data), subset="test")
    assert again == pytest.approx(result.test, abs=1e-6)
    network = load_network(tmp_path / "run")
    image = torch.zeros(1, 3, 64, 96)
    assert network(image, image).change_BKHW.shape == (1, 2, 64, 96)
    first = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])
    assert first["loss"] == pytest.approx(
        sum(value for name, value in first.items() if name.startswith(("superv", "consis", "contra", "vlm"))), rel=1e-5
    )


def test_a_network_learns_what_changed(data: Path, tmp_path: Path) -> None:
    recipe = _recipe(data, None, method__name="supervised", train__steps=60, train__eval_every=20, train__lr=0.02)
    assert train(recipe, tmp_path / "run", quiet=True).test["iou"] > 0.5


def test_a_finished_run_is_read_not_trained_again_and_another_recipe_is_refused(data: Path, tmp_path: Path) -> None:
    recipe = _recipe(data, None, method__name="supervised")
    first = train(recipe, tmp_path / "run", quiet=True)
    stamp = (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns
    assert train(recipe, tmp_path / "run", quiet=True) == first
    assert (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns == stamp
    with pytest.raises(CheckpointError, match="another recipe"):
        train(_recipe(data, None, method__name="supervised", train__steps=5), tmp_path / "run", quiet=True)


def test_what_cannot_work_is_refused_before_training(data: Path, store: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(ConfigError, match="Did you mean 'semicd_vl'"):
        train(_recipe(data, store, method__name="semicdvl"), run, quiet=True)
    with pytest.raises(ConfigError, match=r"no option 'confidence'.*Did you mean 'confidence_min'"):
        train(_recipe(data, store, method__confidence=0.9), run, quiet=True)
    with pytest.raises(ConfigError, match=r"add pseudo\.store"):
        train(_recipe(data, None), run, quiet=True)
    with pytest.raises(DataError, match="less than one pair"):
        train(_recipe(data, store, data__labelled=0.01), run, quiet=True)
    with pytest.raises(StoreError, match="holds no labels for 6 of 6 training pairs"):
        (tmp_path / "empty").mkdir()
        (tmp_path / "empty" / "manifest.json").write_text((store / "manifest.json").read_text())
        train(_recipe(data, tmp_path / "empty"), run, quiet=True)
    assert not run.exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.doc").write_text("mine")
    with pytest.raises(CheckpointError, match="not a run directory"):
        train(_recipe(data, store), tmp_path / "full", quiet=True)


@pytest.mark.parametrize("paired", [False, True])
def test_the_recipe_says_whether_both_dates_share_colour_and_blur(data: Path, paired: bool) -> None:
    recipe = _recipe(data, None, data__paired_looks=paired)
    assert build_loader_options(recipe, Supervised(), join_process_group("cpu")).strong.paired is paired


def test_a_run_killed_before_it_was_one_can_be_begun(data: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".part-0123456789abcdef.json").write_text('{"form')
    train(_recipe(data, None, method__name="supervised", train__steps=1), tmp_path / "run", quiet=True)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"run.json", "model.safetensors"} <= names and not any(name.startswith(".") for name in names)


def test_a_checkpoint_that_is_none_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a trained run"):
        load_network(tmp_path)
    train(_recipe(data, None, method__name="supervised"), tmp_path / "run", quiet=True)
    (tmp_path / "run" / "model.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(CheckpointError, match="no weights that can be read"):
        load_network(tmp_path / "run")


def test_published_lists_of_one_set_with_the_pairs_of_another(tmp_path: Path) -> None:
    own = folder_of_pairs(tmp_path / "own", [f"own{number}" for number in range(5)])
    other = folder_of_pairs(tmp_path / "other", [f"other{number}" for number in range(4)])
    lists = tmp_path / "lists"
    (lists / "half").mkdir(parents=True)
    for name, pairs in {"half/labeled": "0", "half/unlabeled": "12", "val": "3", "test": "4"}.items():
        (lists / f"{name}.txt").write_text("".join(f"own{number}.png\n" for number in pairs))
    (other / "train.txt").write_text("other0.png\nother2.png\n")
    (other / "val.txt").write_text("other1.png\n")
    (other / "test.txt").write_text("other3.png\n")
    division = make_split(DataConfig(root=own, labelled=lists / "half", unlabelled=other))
    names = {side: sorted(pair.name for pair in pairs) for side, pairs in vars(division).items()}
    assert names == {"labelled": ["own0"], "unlabelled": ["other0", "other2"], "val": ["own3"], "test": ["own4"]}


# ------------------------------------------------------------------------------------------------ the VLM alone
def test_the_guide_is_scored_as_if_it_were_asked_anew(data: Path, store: Path) -> None:
    pairs, words, counts = folder.read_folder(data).pairs[:5], Prompts(("house",), ("grass",)), ConfusionCounts()
    for pair in pairs:
        read = read_pair(pair)
        dates = (Colours().segment(image_HWC, words.words) for image_HWC in (read.t1_HWC, read.t2_HWC))
        change_HW = make_labels(*dates, prompts=words, settings=CEGSettings(level="instance")).change_HW
        assert read.label_HW is not None
        counts += ConfusionCounts.from_maps(change_HW, read.label_HW)
    found = score_vlm_alone(PseudoLabelStore.open(store), pairs, quiet=True)
    assert found is not None and found["iou"] == counts.iou and counts.iou > 0.5


def test_a_guide_without_answers_or_pairs_has_no_scores(data: Path, tmp_path: Path) -> None:
    pairs, words = folder.read_folder(data).pairs, Prompts(("house",), ("grass",))
    list(generate_labels(pairs[:2], vlm=Colours(), prompts=words, settings=CEGSettings(), root=tmp_path / "store"))
    store = PseudoLabelStore.open(tmp_path / "store")
    assert score_vlm_alone(store, pairs[:2], quiet=True) is not None
    assert score_vlm_alone(store, pairs[:3], quiet=True) is None
    assert score_vlm_alone(store, (), quiet=True) is None


class Halves(Colours):
    """A VLM that gives instances of every second image: enough for the pixel level, and for no other."""

    def __init__(self) -> None:
        self.asked = 0

    def segment(self, image_HWC, prompts, *, gsd_m=None) -> Segments:
        self.asked += 1
        found = super().segment(image_HWC, prompts)
        return replace(found, instances=()) if self.asked % 2 else found


def test_a_guide_that_makes_no_instances_has_no_scores(data: Path, tmp_path: Path) -> None:
    pairs, words, settings = (
        folder.read_folder(data).pairs[:2],
        Prompts(("house",), ("grass",)),
        CEGSettings(level="pixel"),
    )
    list(generate_labels(pairs, vlm=Halves(), prompts=words, settings=settings, root=tmp_path / "store"))
    assert score_vlm_alone(PseudoLabelStore.open(tmp_path / "store"), pairs, quiet=True) is None


def test_a_network_that_is_behind_its_guide_says_so(data: Path, store: Path, tmp_path: Path) -> None:
    recipe = _recipe(data, store, train__steps=1)
    result = train(recipe, tmp_path / "run", quiet=True)
    assert result.vlm_scores is not None and result.vlm_scores["iou"] > 0.5 > result.val["iou"]
    assert result.list_score_columns()["VLM alone (validation)"] == result.vlm_scores
    assert "`semicdvl detect` without --model is better" in (result.give_advice() or "")
    assert (
        train(recipe, tmp_path / "run", quiet=True).vlm_scores == result.vlm_scores
    )  # of a finished run: from its record
    assert replace(result, val={"iou": 1.0}).give_advice() is None and replace(result, val={}).give_advice() is None
    alone = train(_recipe(data, None, method__name="supervised", train__steps=1), tmp_path / "alone", quiet=True)
    assert (
        alone.vlm_scores is None
        and alone.give_advice() is None
        and list(alone.list_score_columns()) == ["validation (selected)", "test"]
    )
