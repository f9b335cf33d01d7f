"""Steps or epochs; and `select = "test"`, for parity with the paper: every number that it touches says so."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.command import command
from tests.support.dataset_files import folder_of_pairs

from semicdvl.config import TrainConfig, load_recipe, parse_recipe
from semicdvl.errors import ConfigError, DataError
from semicdvl.training.length import compute_training_length
from semicdvl.training.parts import make_split
from semicdvl.training.run import train_recipe
from semicdvl.types import PairFiles, Split

TRUST = ("--trust", "tests.support.plain_network")
RECIPE = """
name = "tiny"
[data]
root = "{data}"
labelled = 0.5
crop_px = 32
[model]
name = "tests.support.plain_network:build"
[method]
name = "supervised"
[train]
steps = 4
eval_every = 2
labelled_batch = 2
device = "cpu"
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe with its data; TOML takes forward slashes everywhere."""
    data = folder_of_pairs(tmp_path / "data", [f"p{number}" for number in range(9)])
    (tmp_path / "recipe.toml").write_text(RECIPE.format(data=data.as_posix()))
    return tmp_path / "recipe.toml"


def _plain_names(content: Any, under: str = "") -> set[str]:
    """Return the dotted names of everything in a record that is a score."""
    if not isinstance(content, dict):
        return {under} if under.endswith((".iou", ".f1")) else set()
    return {name for key, value in content.items() for name in _plain_names(value, f"{under}.{key}")}


def test_scores_selected_on_test_pairs_are_marked(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text, complaint = command(capsys, "train", recipe, "-o", tmp_path / "run", "--select", "test")
    assert code == 0, complaint
    assert "test (test-selected)" in text and "validation" not in text and "test-selected iou" in complaint

    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["selected_on"] == "test"
    chosen = {".test_selected.iou", ".test_selected.f1", ".test_selection.iou", ".test_selection.f1"}
    assert _plain_names(record) == chosen | {".test_last.iou", ".test_last.f1"}
    events = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert sum("test_selected" in event for event in events) == 2 and not any("validation" in e for e in events)

    for split in ("test", "val"):
        text = command(capsys, "evaluate", tmp_path / "run", tmp_path / "data", "--split", split, *TRUST)[1]
        assert f"{split} (test-selected)" in text
    again = command(capsys, "train", recipe, "-o", tmp_path / "run", "--select", "test")[1]
    assert "test (test-selected)" in again  # read from the record


def test_scores_selected_on_validation_pairs_are_not_marked(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, complaint = command(capsys, "train", recipe, "-o", tmp_path / "run")[1:]
    evaluated = command(capsys, "evaluate", tmp_path / "run", tmp_path / "data", *TRUST)[1]
    assert "selected)" in text and "test-selected" not in text + complaint + evaluated
    assert "test_sel" not in (tmp_path / "run" / "run.json").read_text() + (tmp_path / "run" / "log.jsonl").read_text()


def test_the_test_pairs_select_the_step_on_request(recipe: Path, tmp_path: Path) -> None:
    by_test = train_recipe(load_recipe(recipe, overrides=("select=test",)), tmp_path / "run", quiet=True)
    assert by_test.test["accuracy"] == pytest.approx(by_test.fit_result.best["accuracy"]) and by_test.val == {}
    by_val = train_recipe(load_recipe(recipe), tmp_path / "other", quiet=True)
    assert by_val.test["accuracy"] != pytest.approx(by_val.fit_result.best["accuracy"])  # other pairs, another score
    with pytest.raises(DataError, match=r"no test pair\. Raise data\.test_frac"):
        make_split(load_recipe(recipe, overrides=("data.test_frac=0.0",)).data, select="test")


# ------------------------------------------------------------------------------------------------ length
def _division(labelled: int, unlabelled: int) -> Split:
    pairs = [PairFiles(str(number), Path("a"), Path("b")) for number in range(labelled + unlabelled)]
    return Split(tuple(pairs[:labelled]), tuple(pairs[labelled:]), (), ())


@pytest.mark.parametrize(
    ("labelled", "unlabelled", "uses_unlabelled", "batch", "steps"),
    [
        (356, 6764, True, 8, 845 * 80),  # LEVIR-CD at 5 %, published: 67,600 steps
        (297, 5650, True, 8, 706 * 80),  # WHU-CD at 5 %: 56,480
        (356, 6764, False, 16, 22 * 80),  # labels alone: 1,760
        (3, 2, True, 8, 80),  # fewer pairs than a step takes: a step is an epoch
    ],
)
def test_epochs_are_those_of_the_public_code(
    labelled: int, unlabelled: int, uses_unlabelled: bool, batch: int, steps: int
) -> None:
    settings = TrainConfig(epochs=80, labelled_batch=batch, unlabelled_batch=batch)
    length = compute_training_length(settings, _division(labelled, unlabelled), uses_unlabelled=uses_unlabelled)
    assert (length.steps, length.epoch, length.eval_every) == (steps, steps // 80, steps // 80)


def test_an_epoch_stays_one_with_several_processes_and_batches() -> None:
    settings = TrainConfig(epochs=2, unlabelled_batch=4, accumulate=3, eval_every=7)
    length = compute_training_length(settings, _division(9, 100), uses_unlabelled=True, processes=2)
    assert (length.steps, length.epoch, length.eval_every) == (2 * 4, 4, 7)
    assert compute_training_length(TrainConfig(steps=5), _division(9, 100), uses_unlabelled=True).eval_every == 200


def test_either_steps_or_epochs(recipe: Path) -> None:
    assert load_recipe(recipe).train.epochs is None
    replaced = load_recipe(recipe, overrides=("epochs=3",)).train
    assert (replaced.steps, replaced.epochs) == (None, 3)
    assert load_recipe(recipe, overrides=("epochs=3", "train.steps=7")).train.steps == 7
    plain = load_recipe(recipe).model_dump(mode="json")
    assert parse_recipe(plain, source="again").model_dump(mode="json") == plain
    with pytest.raises(ConfigError, match="give either steps or epochs, not both"):
        parse_recipe(plain | {"train": {"steps": 3, "epochs": 3}}, source="both")
    assert parse_recipe({**plain, "train": {}}, source="neither").train.steps == 2000
