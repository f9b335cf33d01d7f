"""SemiCD and mean teacher: targets that are probabilities, and the ramp of their weight."""

import math
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.support.method_batches import AllHeads, random_batches
from torch import nn

from semicdvl.methods.common.soft_targets import probability_mse, sigmoid_ramp_up
from semicdvl.methods.mean_teacher import MeanTeacher
from semicdvl.methods.semicd import SemiCD
from semicdvl.types import IGNORE, Outputs, TrainingProgress


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_the_ramp_rises_to_one(first: float, second: float, until: float) -> None:
    low, high = sorted((first, second))
    assert (
        math.exp(-5) - 1e-12 <= sigmoid_ramp_up(low, until_frac=until) <= sigmoid_ramp_up(high, until_frac=until) <= 1
    )


def test_the_ramp_by_hand() -> None:
    assert sigmoid_ramp_up(0.0, until_frac=0.1) == pytest.approx(math.exp(-5))
    assert sigmoid_ramp_up(0.05, until_frac=0.1) == pytest.approx(math.exp(-1.25))
    assert sigmoid_ramp_up(0.1, until_frac=0.1) == 1 == sigmoid_ramp_up(0.0, until_frac=0.0)


def test_squared_difference_by_hand() -> None:
    logits_BKHW = torch.tensor([0.0, 0.0, 0.0, 0.0]).view(1, 2, 1, 2)
    target_BKHW = torch.tensor([0.9, 0.0, 0.1, 1.0]).view(1, 2, 1, 2)
    valid_BHW = torch.tensor([[[True, False]]])
    assert probability_mse(logits_BKHW, target_BKHW, valid_BHW).item() == pytest.approx(0.4**2)
    both = probability_mse(logits_BKHW, target_BKHW, torch.ones_like(valid_BHW))
    assert both.item() == pytest.approx((0.4**2 + 0.5**2) / 2)


def test_smaller_maps_are_resized_and_targets_get_no_gradient() -> None:
    logits_BKHW = torch.randn(2, 2, 3, 5, requires_grad=True)
    target_BKHW = torch.rand(2, 2, 6, 10, requires_grad=True)
    probability_mse(logits_BKHW, target_BKHW, torch.ones(2, 6, 10, dtype=torch.bool)).backward()
    assert logits_BKHW.grad is not None and logits_BKHW.grad.any() and target_BKHW.grad is None


# ------------------------------------------------------------------------------------------------ SemiCD
def test_auxiliary_decoders_follow_the_main_one_and_never_see_a_label() -> None:
    model, (labelled, unlabelled), asked = AllHeads(), random_batches(), []
    model.register_forward_pre_hook(lambda _, args, kw: asked.append((len(args[0]), kw["heads"])), with_kwargs=True)
    terms = SemiCD().step(model, model, labelled, unlabelled, TrainingProgress(5, 10))
    assert asked == [(2, {"change"}), (3, {"change", "auxiliary"})]
    terms["consistency"].backward()
    assert all(weight.grad is None for weight in model.change.parameters())  # the target stands still
    assert all(weight.grad is not None and weight.grad.any() for weight in model.auxiliary.parameters())
    assert all(weight.grad is not None for weight in model.encoder.parameters())


def test_semicd_weighs_thirty_and_takes_the_mean_over_decoders() -> None:
    model, (labelled, unlabelled) = AllHeads(), random_batches()
    terms = SemiCD().step(model, model, labelled, unlabelled, TrainingProgress(1, 10))
    out = model(unlabelled.weak_t1_BCHW, unlabelled.weak_t2_BCHW)
    target = out.change_BKHW.softmax(dim=1)
    apart = [probability_mse(one, target, unlabelled.valid_BHW) for one in out.auxiliary_BKHW]
    torch.testing.assert_close(terms["consistency"], 30 * sum(apart) / 2)
    first = SemiCD().step(model, model, labelled, unlabelled, TrainingProgress(0, 10))
    torch.testing.assert_close(first["consistency"], terms["consistency"] * math.exp(-5))


def test_padding_of_labelled_pairs_is_not_unchanged() -> None:
    """Public code gives padding the label 0."""
    model, (labelled, unlabelled) = AllHeads(), random_batches()
    here = SemiCD().step(model, model, labelled, unlabelled, TrainingProgress(5, 10))["supervised"]
    zeros = replace(labelled, label_BHW=labelled.label_BHW.where(labelled.label_BHW != IGNORE, 0))
    there = SemiCD().step(model, model, zeros, unlabelled, TrainingProgress(5, 10))["supervised"]
    assert here != there


# ------------------------------------------------------------------------------------------------ mean teacher
class Constant(nn.Module):
    """Says one logit everywhere."""

    def __init__(self, logit: float) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.tensor(logit))

    def forward(self, t1_BCHW, t2_BCHW, *, heads=None) -> Outputs:
        logits_BHW = self.logit.expand(len(t1_BCHW), *t1_BCHW.shape[-2:])
        return Outputs(torch.stack([torch.zeros_like(logits_BHW), logits_BHW], dim=1))


def test_mean_teacher_by_hand() -> None:
    student, teacher = Constant(0.0), Constant(2.0)
    terms = MeanTeacher().step(student, teacher, *random_batches(), TrainingProgress(5, 10))
    certain = 1 / (1 + math.exp(-2))
    assert terms["supervised"].item() == pytest.approx(math.log(2), rel=1e-4)
    assert terms["consistency"].item() == pytest.approx(10 * (certain - 0.5) ** 2, rel=1e-4)
    terms["consistency"].backward()
    assert student.logit.grad is not None and student.logit.grad < 0 and teacher.logit.grad is None


def test_cutmix_takes_images_and_answers_alike() -> None:
    """A teacher that answers by the image: pasting leaves each pixel's answer with its pixel."""
    model, (labelled, unlabelled) = AllHeads().eval(), random_batches()
    same = replace(unlabelled, strong_t1_BCHW=unlabelled.weak_t1_BCHW, strong_t2_BCHW=unlabelled.weak_t2_BCHW)
    none_BHW = torch.zeros_like(same.cutmix_box_BHW)
    own, partner = (replace(same, valid_BHW=~none_BHW, cutmix_box_BHW=box_BHW) for box_BHW in (none_BHW, ~none_BHW))
    for batch in (own, partner):  # in the second one each pair is its partner altogether
        terms = MeanTeacher(cut_and_mix=True).step(model, deepcopy(model), labelled, batch, TrainingProgress(5, 10))
        assert terms["consistency"].item() == pytest.approx(0, abs=1e-10)
