"""An empty labelled set: what the loader gives, what the method makes of it, and which weights are kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tests.support.dataset_files import folder_of_pairs
from tests.support.method_batches import AllHeads, random_batches

from semicdvl.checkpoint import load_weights
from semicdvl.config import load_recipe
from semicdvl.data.loaders import load_train_batches
from semicdvl.data.readers import folder
from semicdvl.data.splits import split_by_fraction
from semicdvl.errors import DataError
from semicdvl.methods.semicd_vl import SemiCDVL
from semicdvl.training.run import train_recipe
from semicdvl.types import IGNORE, LabelledBatch, TrainingProgress

SIZES = {"crop_px": 32, "unlabelled_batch": 3, "vlm": None, "steps": 2, "seed": 5}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return folder_of_pairs(tmp_path / "data", [f"p{number}" for number in range(9)])


# ------------------------------------------------------------------------------------------------ loader
def test_labelled_zero_keeps_no_label_and_changes_nothing_else(data: Path) -> None:
    none, some = (
        split_by_fraction(folder.read_folder(data), labelled=share, seed=0, val=0.2, test=0.2) for share in (0.0, 0.4)
    )
    assert none.labelled == () and len(some.labelled) == 2
    assert {pair.name for pair in none.unlabelled} == {pair.name for pair in some.labelled + some.unlabelled}
    assert (none.val, none.test) == (some.val, some.test)


def test_the_labelled_part_of_a_batch_is_empty_and_the_other_as_usual(data: Path) -> None:
    division = split_by_fraction(folder.read_folder(data), labelled=0.4, seed=0)
    with_labels, without = (list(load_train_batches(division, labelled_batch=count, **SIZES)) for count in (2, 0))
    for (labelled, unlabelled), (none, same) in zip(with_labels, without, strict=True):
        assert none.t1_BCHW.shape == (0, *labelled.t1_BCHW.shape[1:]) and none.t1_BCHW.dtype == torch.uint8
        assert none.label_BHW.shape == (0, 32, 32) and none.label_BHW.dtype == labelled.label_BHW.dtype
        assert torch.equal(unlabelled.strong_t2_BCHW, same.strong_t2_BCHW)


def test_missing_labelled_pairs_are_refused(data: Path) -> None:
    division = split_by_fraction(folder.read_folder(data), labelled=0.0, seed=0)
    with pytest.raises(DataError, match="no labelled pair"):
        next(load_train_batches(division, labelled_batch=2, **SIZES))


# ------------------------------------------------------------------------------------------------ method
def _terms(method: SemiCDVL) -> tuple[dict[str, torch.Tensor], AllHeads]:
    """Step once without labelled pairs, with the same network for the same question."""
    torch.manual_seed(0)
    model, (labelled, unlabelled) = AllHeads(), random_batches()
    none = LabelledBatch(labelled.t1_BCHW[:0], labelled.t2_BCHW[:0], labelled.label_BHW[:0])
    return method.step(model, model, none, unlabelled, TrainingProgress(0, 10)), model


def test_the_vlm_teaches_the_head_that_is_used() -> None:
    terms, model = _terms(SemiCDVL(dual_head=False, lambda_c=0.1, confidence_min=0.0))
    assert terms["supervised"] == 0 == terms["contrastive_labelled"]
    for name in ("vlm_change_weak", "vlm_change_strong", "vlm_segmentation_weak", "consistency"):
        assert terms[name] > 0, name
    terms["vlm_change_weak"].backward()
    assert all(weight.grad.abs().sum() > 0 for weight in model.change.parameters())


@pytest.mark.parametrize(
    ("changes", "learns"),
    [({}, False), ({"dual_head": False}, True), ({"dual_head": False, "vlm_guidance": False}, False)],
)
def test_only_with_the_vlm_on_the_used_head_labels_are_not_needed(changes: dict[str, bool], learns: bool) -> None:
    assert SemiCDVL(**changes).learns_without_labels is learns


@pytest.mark.parametrize("over", ["all", "valid"])
@pytest.mark.parametrize("dice_weight", [0.0, 0.5])
def test_weights_of_the_vlm_change_term(over: str, dice_weight: float) -> None:
    """Against the sums written out: a changed pixel counts as three; Dice is of the reliable pixels of the batch."""
    options = {"dual_head": False, "lambda_vl": 6.0, "vlm_over": over}
    terms, model = _terms(SemiCDVL(vlm_change_weight=3.0, vlm_dice_weight=dice_weight, **options))
    _, unlabelled = random_batches()
    target = unlabelled.vlm.change_BHW
    logits = model.train()(unlabelled.weak_t1_BCHW, unlabelled.weak_t2_BCHW).change_BKHW
    value = F.cross_entropy(logits, target.clamp(max=1), reduction="none")
    weight = torch.where(target == 1, 3.0, 1.0) * (target != IGNORE)
    found, true = logits.softmax(dim=1)[:, 1] * (target != IGNORE), (target == 1).float()
    dice = 1 - (2 * (found * true).sum() + 1) / (found.sum() + true.sum() + 1)
    wanted = (weight * value).sum() / weight.sum() + dice_weight * dice
    share = (target != IGNORE).float().mean() if over == "all" else 1.0
    torch.testing.assert_close(terms["vlm_change_weak"], wanted * share)


# ------------------------------------------------------------------------------------------------ which weights
RECIPE = """
name = "tiny"
[data]
root = "{data}"
labelled = 0.5
crop_px = 32
val_frac = {val}
test_frac = 0
[model]
name = "tests.support.plain_network:build"
[method]
name = "supervised"
[train]
steps = 6
eval_every = 1
labelled_batch = 2
lr = 0.5
device = "cpu"
select = "last"
"""


@pytest.mark.parametrize("val", [0.25, 0.0])
def test_the_last_weights_are_kept_whatever_their_scores(data: Path, tmp_path: Path, val: float) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE.format(data=data.as_posix(), val=val))
    run = tmp_path / "run"
    done = train_recipe(load_recipe(tmp_path / "recipe.toml"), run, quiet=True)
    record = json.loads((run / "run.json").read_text())
    assert done.fit_result.best_step == record["best_step"] == 6 and record["selected_on"] == done.selected_on == "last"
    kept, newest = (load_weights(path / "model.safetensors") for path in (run, run / "state" / "00000006"))
    assert kept.keys() == newest.keys() and all(torch.equal(kept[name], newest[name]) for name in kept)
    assert set(done.list_score_columns()) == ({"validation"} if val else set()), (
        "no column says that something was selected"
    )
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    scores = [line["validation"] for line in lines if "validation" in line]
    assert len(scores) == 6 and all(("iou" in each) == bool(val) for each in scores)
