"""Labels only: what the published supervised recipes add, by hand."""

import inspect
from dataclasses import replace

import pytest
import torch
from tests.support.method_batches import AllHeads, random_batches

from semicdvl import losses
from semicdvl.errors import ConfigError
from semicdvl.methods.common.terms import resize_nearest
from semicdvl.methods.supervised import Supervised, two_class_dice_loss
from semicdvl.types import IGNORE, Outputs, TrainingProgress

START = TrainingProgress(0, 1)
LABELLED, _ = random_batches()


def test_dice_of_both_by_hand() -> None:
    logits_BKHW = torch.full((2, 2, 5, 7), -50.0)
    logits_BKHW[:, 0] = 50.0  # "unchanged" everywhere
    label_BHW = torch.zeros(2, 5, 7, dtype=torch.int64)
    label_BHW[0, :2] = 1  # 14 of 70 pixels
    expected = ((1 - 2 * 56 / (70 + 56)) + 1) / 2
    assert two_class_dice_loss(logits_BKHW, label_BHW).item() == pytest.approx(expected, abs=1e-5)


def test_ignored_pixels_count_in_no_loss() -> None:
    """In a public toolbox the ignore index lands in `eps`, and ignored pixels count."""
    torch.manual_seed(0)
    logits_BKHW, label_BHW = torch.randn(2, 2, 5, 7), torch.randint(0, 2, (2, 5, 7))
    cut = label_BHW.clone()
    cut[:, :, 4:] = IGNORE
    for loss in (two_class_dice_loss, losses.dice_loss, losses.label_cross_entropy, losses.supervised_loss):
        torch.testing.assert_close(loss(logits_BKHW, cut), loss(logits_BKHW[..., :4], label_BHW[..., :4]))
        other = logits_BKHW.clone()
        other[..., 4:] = 1e3 * torch.randn(2, 2, 5, 3)
        torch.testing.assert_close(loss(other, cut), loss(logits_BKHW, cut))


def test_nothing_slips_into_a_loss_by_its_place() -> None:
    """Beyond the maps, every argument of every loss is given by name."""
    for name, loss in inspect.getmembers(losses, inspect.isfunction):
        if loss.__module__ == "semicdvl.losses" and not name.startswith("_"):
            kinds = inspect.signature(loss).parameters.values()
            placed = [one.name for one in kinds if one.kind is not inspect.Parameter.KEYWORD_ONLY]
            assert all(one.split("_")[-1].isupper() for one in placed), (name, placed)


def test_snunet_s_loss() -> None:
    model = AllHeads()
    terms = Supervised(dice_weight=1.0, dice_over="both").step(model, model, LABELLED, None, START)
    logits_BKHW = model(LABELLED.t1_BCHW, LABELLED.t2_BCHW).change_BKHW
    label_BHW = LABELLED.label_BHW
    expected = losses.label_cross_entropy(logits_BKHW, label_BHW) + two_class_dice_loss(logits_BKHW, label_BHW)
    torch.testing.assert_close(terms["supervised"], expected)


def test_deep_supervision_takes_the_label_to_each_map_s_size() -> None:
    model = AllHeads()
    terms = Supervised(auxiliary_weights=[0.5, 0.8]).step(model, model, LABELLED, None, START)
    coarse, fine = model(LABELLED.t1_BCHW, LABELLED.t2_BCHW).auxiliary_BKHW
    assert coarse.shape[-2:] == (19, 23)
    small = torch.nn.functional.interpolate(LABELLED.label_BHW[:, None].float(), size=(19, 23))[:, 0].long()
    assert set(small.unique().tolist()) == {0, 1, IGNORE}  # nothing in between
    assert torch.equal(resize_nearest(LABELLED.label_BHW, (19, 23)), small)
    expected = 0.5 * losses.label_cross_entropy(coarse, small) + 0.8 * losses.label_cross_entropy(
        fine, LABELLED.label_BHW
    )
    torch.testing.assert_close(terms["auxiliary"], expected)
    with pytest.raises(ConfigError, match="one number per auxiliary map of the network, which has 2; got 1"):
        Supervised(auxiliary_weights=(1.0,)).step(model, model, LABELLED, None, START)


class Distances(torch.nn.Module):
    """A network that decides by a given distance."""

    def __init__(self, distance_BHW: torch.Tensor) -> None:
        super().__init__()
        self.distance_BHW = torch.nn.Parameter(distance_BHW)

    def forward(self, t1_BCHW, t2_BCHW, *, heads=None) -> Outputs:
        return Outputs(torch.zeros(1, 2, 1, 4), distance_BHW=self.distance_BHW)


def test_stanet_s_loss_balances_classes_and_leaves_ignored_pixels_alone() -> None:
    """Public code turns 255 into "unchanged" before it looks for pixels to ignore."""
    model = Distances(torch.tensor([[[0.5, 1.5, 1.0, 9.0]]]))
    labelled = replace(LABELLED, label_BHW=torch.tensor([[[0, 0, 1, IGNORE]]]))
    method = Supervised(cross_entropy_weight=0.0, contrastive_weight=1.0)
    assert method.heads == {"change", "distance"}
    terms = method.step(model, model, labelled, None, START)
    assert set(terms) == {"contrastive"}
    assert terms["contrastive"].item() == pytest.approx((0.5**2 + 1.5**2) / 2 + (2 - 1.0) ** 2)
    terms["contrastive"].backward()
    assert model.distance_BHW.grad is not None and (model.distance_BHW.grad != 0).tolist() == [[[True] * 3 + [False]]]


@pytest.mark.parametrize("options", [{"cross_entropy_weight": 0.0}, {"auxiliary_weights": 0.5}, {"dice_over": "all"}])
def test_odd_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Supervised(**options)
