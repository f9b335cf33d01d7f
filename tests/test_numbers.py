"""Numbers are checked where they come in: on the command line, in settings, in recipes, in weights and in stores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support.command import command
from tests.support.dataset_files import folder_of_pairs

import semicdvl as cd
from semicdvl.atomic_files import write_json
from semicdvl.ceg.prompts import Prompts
from semicdvl.checkpoint import load_weights, save_weights
from semicdvl.config import parse_recipe
from semicdvl.errors import CheckpointError, ConfigError, InputError, StoreError
from semicdvl.pseudo_labels.store import PseudoLabelStore
from semicdvl.pseudo_labels.store_spec import StoreSpec
from semicdvl.reading.json_files import read_json
from semicdvl.training.checkpoint import TrainingCheckpoint
from semicdvl.types import Segments

DIGITS = "1" * 30


# ------------------------------------------------------------------------------------------------ command line
@pytest.mark.parametrize(
    "words",
    [
        ("detect", "a.tif", "b.tif", "-o", "out", "--gsd", "inf"),
        ("detect", "a.tif", "b.tif", "-o", "out", "--gamma", "nan"),
        ("detect", "a.tif", "b.tif", "-o", "out", "--min-area-m2", "inf"),
        ("detect", "a.tif", "b.tif", "-o", "out", "--tile", DIGITS),
        ("prepare", "--val-frac", "nan"),
        ("prepare", "--block-m", "inf"),
        ("export", "run", "--threshold", "nan"),
        ("demo", "--seed", DIGITS),
        ("evaluate", "out", "--sample", DIGITS),
        ("pseudo", "data", "-o", "store", "--gsd", "nan"),
        ("adapt", "a.tif", "b.tif", "-o", "run", "--seed", DIGITS),
    ],
)
def test_a_command_refuses_numbers_that_are_not_usable(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, complaint = command(capsys, *words)
    assert code == 2 and f"Invalid value for '{words[-2]}'" in complaint, complaint
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------ settings, recipes
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (cd.DetectionConfig, "gsd_m"),
        (cd.DetectionConfig, "min_area_m2"),
        (cd.DetectionConfig, "simplify_m"),
        (cd.PrepareSettings, "val_frac"),
        (cd.PrepareSettings, "test_frac"),
        (cd.PrepareSettings, "block_m"),
    ],
)
def test_settings_are_finite(kind: Any, name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} is {value}. Give a finite number"):
        kind(**{name: value})


@pytest.mark.parametrize(("name", "value"), [("gsd_m", 0.0), ("gsd_m", -1.0), ("min_area_m2", -1.0)])
def test_lengths_and_areas_are_positive(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} = {value:g}"):
        cd.DetectionConfig(**{name: value})


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("train", "lr", float("inf")),
        ("train", "lr", float("nan")),
        ("train", "weight_decay", float("inf")),
        ("train", "clip_norm", float("inf")),
        ("data", "scale", [1.0, float("inf")]),
        ("data", "val_frac", float("nan")),
        ("data", "split_seed", int(DIGITS)),
        (None, "seed", int(DIGITS)),
    ],
)
def test_a_recipe_refuses_numbers_that_are_not_usable(section: str | None, key: str, value: Any) -> None:
    content: dict[str, Any] = {"data": {"root": "pairs"}, "method": {"name": "supervised"}, "train": {}}
    (content if section is None else content[section])[key] = value
    with pytest.raises(ConfigError, match=key):
        parse_recipe(content, source="recipe.toml")


def test_the_greatest_seed_is_one_of_torch() -> None:
    recipe = parse_recipe({"seed": 2**43, "data": {"root": "."}, "method": {"name": "supervised"}}, source="r")
    torch.manual_seed(recipe.seed * 1_000_003 + 10_000_000)


# ------------------------------------------------------------------------------------------------ weights
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    good = {"a.weight": torch.ones(2, 3), "b.count": torch.ones(1, dtype=torch.int64)}
    save_weights(tmp_path / "good.safetensors", good)
    assert load_weights(tmp_path / "good.safetensors").keys() == good.keys()
    good["a.weight"][1, 2] = value
    save_weights(tmp_path / "bad.safetensors", good)
    with pytest.raises(
        CheckpointError, match=r"bad\.safetensors: the weights 'a\.weight' hold numbers that are not fi"
    ):
        load_weights(tmp_path / "bad.safetensors")


# ------------------------------------------------------------------------------------------------ stores
def _change_answer(store: PseudoLabelStore, key: str, **arrays: np.ndarray) -> None:
    path = store._path("answers", key, ".npz")
    with np.load(path) as content:
        kept = dict(content)
    np.savez(path, **(kept | arrays))


@pytest.mark.parametrize(
    "scores",
    [
        np.full((2, 4, 6), np.nan, np.float32),
        np.full((2, 4, 6), 0.5, np.float32),
        np.full((2, 4, 6), 201, np.uint8),
        np.zeros((2, 4), np.uint8),
    ],
)
def test_stored_answers_that_no_vlm_gave_are_refused(scores: np.ndarray, tmp_path: Path) -> None:
    store = PseudoLabelStore.create(tmp_path / "store", StoreSpec("fake", Prompts(("roof",), ("ground",)), {}))
    answer = Segments(np.full((2, 4, 6), 0.25, np.float32), ("roof", "ground"))
    assert np.array_equal(store.write_answer("ab12", answer).scores_CHW, answer.scores_CHW)
    _change_answer(store, "ab12", scores=scores)
    with pytest.raises(StoreError, match=r"ab12\.npz: a damaged answer \(its? .*Delete the file"):
        store.read_answer("ab12")
    assert len(store.verify()) == 1


# ------------------------------------------------------------------------------------------------ checkpoints
def _save_checkpoint(run: Path, step: int) -> TrainingCheckpoint:
    model = torch.nn.Linear(2, 3)
    checkpoint = TrainingCheckpoint(run, model, [torch.optim.SGD(model.parameters(), lr=0.1)])
    checkpoint.save(step)
    return checkpoint


@pytest.mark.parametrize(
    "change",
    [
        {"step": 90},
        {"step": -1},
        {"step": "2"},
        {"step": None},
        {"best_step": 3},
        {"best": {"iou": float("nan")}},
        {"best": {"iou": float("inf")}},
        {"best": []},
        {"silent": -1},
        {"silent": 1.5},
        {"seconds": -1.0},
    ],
)
def test_a_checkpoint_with_other_numbers_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    checkpoint = _save_checkpoint(tmp_path, 2)
    assert checkpoint.resume(total_steps=4) == 2
    state = tmp_path / "state" / "00000002" / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | change))
    with pytest.raises(CheckpointError, match=r"state\.json: .*Delete .* and start again"):
        checkpoint.resume(total_steps=4)


def test_a_checkpoint_beyond_the_end_is_refused(tmp_path: Path) -> None:
    checkpoint = _save_checkpoint(tmp_path, 5)
    with pytest.raises(CheckpointError, match=r"is the checkpoint of step 5, but this training ends with step 4"):
        checkpoint.resume(total_steps=4)
    assert checkpoint.resume(total_steps=5) == 5


# ------------------------------------------------------------------------------------------------ JSON and TOML
@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5_000, '{"a": ' * 50_000, "\ufeff{}", "", "{"])
def test_a_json_file_that_cannot_be_parsed_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"run\.json: is not valid JSON .*Train again"):
        read_json(tmp_path / "run.json", remedy="Train again")


def test_a_json_file_of_other_bytes_is_named(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"run\.json: is not valid JSON"):
        read_json(tmp_path / "run.json", remedy="Train again")


@pytest.mark.parametrize("text", ["a = " + "[" * 100_000, "a = " + "1" * 5_000, "a = \x00", "a = {b = " * 20_000])
def test_a_recipe_that_cannot_be_parsed_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(text)
    with pytest.raises(InputError, match=r"recipe\.toml: is (not valid TOML|nested too deeply|.* no text)"):
        cd.load_recipe(tmp_path / "recipe.toml")


# ------------------------------------------------------------------------------------------------ run.json
@pytest.mark.parametrize(
    "change",
    [
        {"recipe": None},
        {"recipe": []},
        {"recipe": {}},
        {"recipe": {"model": "siam_light"}},
        {"recipe": {"model": {}}},
        {"recipe": {"model": {"name": 3}}},
        {"recipe": {"model": {"name": "siam_light"}, "method": "supervised"}},
        {"recipe": {"model": {"name": "siam_light"}, "data": []}},
        {"recipe": {"model": {"name": "siam_light"}, "data": {"root": ".", "label_values": "all"}}},
        {"status": 7},
        {"processes": 0},
        {"selected_on": ["test"]},
        {"best_step": "first"},
    ],
)
@pytest.mark.parametrize("use", ["export", "evaluate"])
def test_a_changed_record_of_a_run_is_refused(
    change: dict[str, Any], use: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = {"format": "semicdvl-run", "status": "finished", "recipe": {"model": {"name": "siam_light"}}}
    write_json(tmp_path / "run" / "run.json", record | change)
    words = [folder_of_pairs(tmp_path / "data", ["a"])] if use == "evaluate" else ["-o", tmp_path / "net.onnx"]
    code, _, complaint = command(capsys, use, tmp_path / "run", *words)
    assert code == 2 and complaint.startswith(f"error: {tmp_path / 'run' / 'run.json'}: "), complaint
    assert f"{next(iter(change))}" in complaint and complaint.rstrip().endswith("backup.")
