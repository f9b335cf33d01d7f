"""UniMatch V2, and SemiCD-VL's guidance on UniMatch and UniMatch V2, worked out by hand."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from tests.methods.test_unimatch import LABELLED, START, SURE, UNSURE, PixelNetwork, softplus, unlabelled_of
from tests.support.method_batches import AllHeads, random_batches
from tests.support.tiny_models import tiny
from torch import Tensor, nn

from semicdvl.errors import DataError
from semicdvl.methods import create_method
from semicdvl.methods.guided import UniMatchV2VL, UniMatchVL
from semicdvl.methods.semicd_vl import SemiCDVL
from semicdvl.methods.unimatch import UniMatch
from semicdvl.methods.unimatch_v2 import UniMatchV2
from semicdvl.types import Outputs, TrainingProgress

NO_GUIDANCE = {"vlm_guidance": False, "lambda_c": 0.0}


def run(method: object, *, model: nn.Module | None = None, seed: int = 7, **changes: object) -> dict[str, Tensor]:
    labelled, unlabelled = random_batches()
    net = AllHeads() if model is None else model
    torch.manual_seed(seed)
    progress = TrainingProgress(step=3, total=10)
    return method.step(net, net, replace(labelled, **changes), unlabelled, progress)  # type: ignore[attr-defined]


def test_a_step_by_hand() -> None:
    """Three pixels, two of them confident; the strong views say -1 and 2."""
    batch = unlabelled_of([[[SURE, SURE, UNSURE]]], [[[-1.0, -1.0, -1.0]]], [[[2.0, 2.0, 2.0]]])
    progress = TrainingProgress(0, 10)
    terms = UniMatchV2().step(PixelNetwork(), PixelNetwork(), LABELLED, batch, progress)
    assert set(terms) == {"supervised", "consistency"}
    assert terms["supervised"].item() == pytest.approx(math.log(2) / 2)
    assert terms["consistency"].item() == pytest.approx((softplus(1.0) + softplus(-2.0)) / 2 * 2 / 3 / 2)
    assert progress.diagnostics["confident_frac"] == pytest.approx(2 / 3)


def test_labelled_pairs_keep_all_channels_and_both_strong_views_are_one_batch() -> None:
    asked = []

    class Counting(PixelNetwork):
        def forward(self, t1_BCHW, t2_BCHW, *, heads=None) -> Outputs:
            asked.append((len(t1_BCHW), sorted(heads)))
            return super().forward(t1_BCHW, t2_BCHW, heads=heads)

    batch = unlabelled_of([[[SURE] * 3]] * 2, [[[SURE] * 3]] * 2, [[[SURE] * 3]] * 2)
    UniMatchV2().step(Counting(), Counting(), LABELLED, batch, START)
    assert asked == [(2, ["change"]), (1, ["change"]), (4, ["change", "complementary"])]
    assert UniMatchV2(complementary_dropout=False).heads == {"change"}


def test_the_released_script_labels_with_the_network_itself_and_pastes_in_reverse_order() -> None:
    """A teacher that says the opposite of the network; three pairs, of which the last pastes from the first."""

    class Opposite(PixelNetwork):
        def forward(self, t1_BCHW, t2_BCHW, *, heads=None) -> Outputs:
            return super().forward(t1_BCHW, -t2_BCHW, heads=heads)

    weak = [[[SURE]], [[SURE]], [[-SURE]]]
    batch = unlabelled_of(weak, [[[1.0]]] * 3, [[[1.0]]] * 3)
    yes, no = softplus(-1.0), softplus(1.0)
    paper = UniMatchV2().step(PixelNetwork(), Opposite(), LABELLED, batch, START)
    script = UniMatchV2.official().step(PixelNetwork(), Opposite(), LABELLED, batch, START)
    assert paper["consistency"].item() == pytest.approx((2 * no + yes) / 3 / 2)
    assert script["consistency"].item() == pytest.approx((2 * yes + no) / 3 / 2)
    box_BHW = torch.tensor([False, False, True])[:, None, None]
    boxed = replace(batch, cutmix_box_BHW=box_BHW, second_cutmix_box_BHW=box_BHW)
    script = UniMatchV2.official().step(PixelNetwork(), Opposite(), LABELLED, boxed, START)
    assert script["consistency"].item() == pytest.approx(yes / 2)  # the last pair takes image and label of the first
    assert UniMatchV2().needs_average and not UniMatchV2.official().needs_average


def test_the_teacher_that_labels_gets_no_gradient_and_the_script_makes_none() -> None:
    model = AllHeads()
    terms = run(UniMatchV2.official(), model=model)
    sum(terms.values()).backward()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in model.parameters())


@pytest.mark.parametrize(("guided", "plain"), [(UniMatchVL, UniMatch), (UniMatchV2VL, UniMatchV2)])
def test_without_guidance_it_is_the_plain_student(guided: type, plain: type) -> None:
    assert guided(**NO_GUIDANCE).heads == plain().heads and not guided(**NO_GUIDANCE).uses_vlm
    model = AllHeads()
    with_none, without = run(guided(**NO_GUIDANCE), model=deepcopy(model)), run(plain(), model=model)
    assert set(with_none) == set(without)
    for name, term in without.items():
        torch.testing.assert_close(with_none[name], term)


@pytest.mark.parametrize("guided", [UniMatchVL, UniMatchV2VL])
def test_guidance_has_the_terms_and_switches_of_semicd_vl(guided: type) -> None:
    of_fixmatch = set(run(SemiCDVL()))
    students = {"perturbed"} if guided is UniMatchVL else set()
    assert set(run(guided())) == of_fixmatch | students
    for switch in ({"decoupled": False}, {"lambda_c": 0.0}, {"vlm_on_labelled": False}, {"vlm_guidance": False}):
        assert set(run(guided(**switch))) == set(run(SemiCDVL(**switch))) | students
    assert guided(dual_head=False).heads == (SemiCDVL(dual_head=False).heads | guided(**NO_GUIDANCE).heads)
    dropped = run(guided(), vlm=None)
    assert not any("labelled" in name and name.startswith("vlm") for name in dropped)


@pytest.mark.parametrize("guided", [UniMatchVL, UniMatchV2VL])
def test_guidance_equals_that_on_fixmatch_where_both_strong_views_are_the_same(guided: type) -> None:
    """Nothing is dropped in a network without dropout; the mean over two equal views is the one view of FixMatch."""
    labelled, unlabelled = random_batches()
    unlabelled = replace(
        unlabelled,
        second_strong_t1_BCHW=unlabelled.strong_t1_BCHW,
        second_strong_t2_BCHW=unlabelled.strong_t2_BCHW,
        second_cutmix_box_BHW=unlabelled.cutmix_box_BHW,
    )
    model = AllHeads()
    settings = {"confidence_min": 0.5, "lambda_vl": 0.3}
    progress = TrainingProgress(step=3, total=10)
    torch.manual_seed(0)
    ours = guided(**settings).step(model, model, labelled, unlabelled, progress)
    theirs = SemiCDVL(**settings).step(model, model, labelled, unlabelled, progress)
    for name, term in theirs.items():
        if name not in ("supervised", "consistency"):
            assert term > 0, name
            torch.testing.assert_close(ours[name], term, msg=lambda text, at=name: f"{at}: {text}")


@pytest.mark.parametrize("name", ["semicd_vl", "unimatch_vl", "unimatch_v2_vl"])
def test_pairs_without_vlm_labels_are_refused_by_the_methods_name(name: str) -> None:
    labelled, unlabelled = random_batches()
    model = AllHeads()
    with pytest.raises(
        DataError, match=f"method '{name}' learns from a VLM's labels, and the unlabelled pairs have none"
    ):
        create_method(name).step(model, model, labelled, replace(unlabelled, vlm=None), START)


def test_the_guided_student_trains_the_transformers_network() -> None:
    model = tiny("dpt").train()
    terms = run(UniMatchV2VL(), model=model)
    sum(terms.values()).backward()
    assert all(weight.grad is not None for weight in model.parameters() if weight.requires_grad)
