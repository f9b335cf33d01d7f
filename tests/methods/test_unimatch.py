"""UniMatch and SemiVL, worked out by hand: views, boxes, weights, guidance."""

import math
from dataclasses import replace

import pytest
import torch
from tests.support.method_batches import AllHeads, random_batches
from torch import nn

from semicdvl.errors import DataError
from semicdvl.methods.semivl import SemiVL
from semicdvl.methods.unimatch import UniMatch, use_second_view
from semicdvl.types import IGNORE, LabelledBatch, Outputs, TrainingProgress, UnlabelledBatch, VLMTargets

SURE, UNSURE = 4.0, 1.0  # logits: sigmoid(4) = 0.982, sigmoid(1) = 0.731
START = TrainingProgress(step=0, total=10)


class PixelNetwork(nn.Module):
    """Change logits = (0, difference of the first channels); the perturbed ones are half of that."""

    def forward(self, t1_BCHW, t2_BCHW, *, heads=None) -> Outputs:
        difference_BHW = (t2_BCHW - t1_BCHW)[:, 0]
        logits_BKHW = torch.stack([torch.zeros_like(difference_BHW), difference_BHW], dim=1)
        return Outputs(logits_BKHW, perturbed_change_BKHW=logits_BKHW / 2 if "perturbed" in (heads or ()) else None)


def image(map_BHW: torch.Tensor) -> torch.Tensor:
    return map_BHW[:, None].expand(-1, 3, -1, -1)


def unlabelled_of(weak, first, second, **changes) -> UnlabelledBatch:
    """Pairs whose first date is black and whose second date is a map in every band, one map for each view."""
    weak, first, second = (torch.tensor(values) for values in (weak, first, second))
    black, none = image(torch.zeros_like(weak)), torch.zeros(weak.shape, dtype=torch.bool)
    batch = UnlabelledBatch(black, image(weak), black, image(first), ~none, none)
    return replace(
        batch, second_strong_t1_BCHW=black, second_strong_t2_BCHW=image(second), second_cutmix_box_BHW=none, **changes
    )


LABELLED = LabelledBatch(torch.zeros(1, 3, 1, 3), torch.zeros(1, 3, 1, 3), torch.tensor([[[0, 1, IGNORE]]]))


def softplus(value: float) -> float:
    return math.log1p(math.exp(value))


def test_a_step_by_hand() -> None:
    """Three pixels, two of them confident; the strong views say -1 and 2, the perturbed features half of the weak."""
    batch = unlabelled_of([[[SURE, SURE, UNSURE]]], [[[-1.0, -1.0, -1.0]]], [[[2.0, 2.0, 2.0]]])
    progress = TrainingProgress(0, 10)
    terms = UniMatch().step(PixelNetwork(), PixelNetwork(), LABELLED, batch, progress)
    assert set(terms) == {"supervised", "consistency", "perturbed"}
    assert terms["supervised"].item() == pytest.approx(math.log(2) / 2)
    of_views = softplus(1.0) * 2 / 3, softplus(-2.0) * 2 / 3
    assert terms["consistency"].item() == pytest.approx((of_views[0] / 4 + of_views[1] / 4) / 2)
    assert terms["perturbed"].item() == pytest.approx(softplus(-SURE / 2) * 2 / 3 / 2 / 2)
    assert progress.diagnostics["confident_frac"] == pytest.approx(2 / 3)


def test_each_strong_view_has_its_own_box() -> None:
    """Pair 1 takes the middle pixel from pair 0 in the second view only, pseudo label and all."""
    weak = [[[SURE, SURE, SURE]], [[-SURE, -SURE, -SURE]]]
    zero = [[[0.0, 0.0, 0.0]], [[0.0, 0.0, 0.0]]]
    box_BHW = torch.zeros(2, 1, 3, dtype=torch.bool)
    box_BHW[1, 0, 1] = True
    second = [[[9.0, 9.0, 9.0]], [[-9.0, -9.0, -9.0]]]  # agrees with the pseudo labels where they go along
    batch = replace(unlabelled_of(weak, zero, second), second_cutmix_box_BHW=box_BHW)
    terms = UniMatch(perturbed_weight=0).step(PixelNetwork(), PixelNetwork(), LABELLED, batch, START)
    assert terms["consistency"].item() == pytest.approx((math.log(2) + softplus(-9.0)) / 4 / 2)
    assert torch.equal(use_second_view(batch).cutmix_box_BHW, box_BHW) and not batch.cutmix_box_BHW.any()


def test_both_strong_views_go_through_the_network_as_one_batch() -> None:
    sizes = []

    class Counting(PixelNetwork):
        def forward(self, t1_BCHW, t2_BCHW, *, heads=None) -> Outputs:
            sizes.append((len(t1_BCHW), sorted(heads)))
            return super().forward(t1_BCHW, t2_BCHW, heads=heads)

    batch = unlabelled_of([[[SURE] * 3]] * 2, [[[SURE] * 3]] * 2, [[[SURE] * 3]] * 2)
    UniMatch().step(Counting(), Counting(), LABELLED, batch, START)
    assert sizes == [(2, ["change"]), (3, ["change", "perturbed"]), (4, ["change"])]  # weak, x + weak, s1 + s2


def test_perturbed_features_can_be_left_out() -> None:
    method = UniMatch(perturbed_weight=0)
    assert method.heads == {"change"} and UniMatch().heads == {"change", "perturbed"}
    batch = unlabelled_of([[[SURE] * 3]], [[[0.0] * 3]], [[[0.0] * 3]])
    assert set(method.step(PixelNetwork(), PixelNetwork(), LABELLED, batch, START)) == {"supervised", "consistency"}


def test_pseudo_labels_may_start_later() -> None:
    batch = unlabelled_of([[[SURE] * 3]], [[[0.0] * 3]], [[[0.0] * 3]])
    for at, silent in ((1, True), (2, False)):
        terms = UniMatch(pseudo_start_frac=0.2).step(
            PixelNetwork(), PixelNetwork(), LABELLED, batch, TrainingProgress(at, 10)
        )
        assert all((terms[name] == 0) == silent for name in ("consistency", "perturbed"))


def test_official_takes_train_mode_labels_and_the_pair_itself() -> None:
    """A network that says the opposite in eval mode: its own pass decides outside the box, the other one within."""

    class Moody(PixelNetwork):
        def forward(self, t1_BCHW, t2_BCHW, *, heads=None) -> Outputs:
            return super().forward(t1_BCHW, t2_BCHW if self.training else -t2_BCHW, heads=heads)

    box_BHW = torch.tensor([[[False, False, True]]])
    batch = unlabelled_of([[[SURE] * 3]], [[[1.0] * 3]], [[[1.0] * 3]], cutmix_box_BHW=box_BHW)
    ours = UniMatch(perturbed_weight=0).step(Moody(), Moody(), LABELLED, batch, START)
    official = UniMatch.official(perturbed_weight=0).step(Moody(), Moody(), LABELLED, batch, START)
    yes, no = softplus(-1.0), softplus(1.0)
    assert ours["consistency"].item() == pytest.approx((no + no) / 4 / 2)
    assert official["consistency"].item() == pytest.approx(((2 * yes + no) / 3 + yes) / 4 / 2)


# ------------------------------------------------------------------------------------------------ SemiVL
def guided(change: list[int], **changes) -> UnlabelledBatch:
    """Unconfident everywhere, so that the guidance alone teaches."""
    map_BHW = torch.tensor([[change]])
    batch = unlabelled_of([[[UNSURE] * 3]], [[[0.0] * 3]], [[[2.0] * 3]])
    return replace(batch, vlm=VLMTargets(map_BHW, map_BHW, map_BHW), **changes)


def test_guidance_by_hand() -> None:
    """One pixel of three has no answer: it adds nothing and stays in the denominator."""
    terms = SemiVL().step(PixelNetwork(), PixelNetwork(), LABELLED, guided([1, 0, IGNORE]), START)
    of_views = (2 * math.log(2) / 3, (softplus(-2.0) + softplus(2.0)) / 3)
    assert terms["guidance_strong"].item() == pytest.approx(0.1 * sum(of_views) / 4)
    half = UNSURE / 2
    assert terms["guidance_perturbed"].item() == pytest.approx(0.1 / 2 * (softplus(-half) + softplus(half)) / 3)
    assert terms["consistency"] == 0 == terms["perturbed"]


def test_guidance_fades_out() -> None:
    method, batch = SemiVL(), guided([1, 0, IGNORE])
    weights = [
        method.step(PixelNetwork(), PixelNetwork(), LABELLED, batch, TrainingProgress(at, 10))["guidance_strong"].item()
        for at in (0, 5, 10)
    ]
    assert weights[1] == pytest.approx(weights[0] / 2) and weights[2] == 0


def test_no_answer_at_all_is_no_trouble() -> None:
    terms = SemiVL().step(PixelNetwork(), PixelNetwork(), LABELLED, guided([IGNORE] * 3), START)
    assert terms["guidance_strong"] == 0 == terms["guidance_perturbed"]


def test_guidance_goes_along_with_cutmix() -> None:
    batch = guided([1, 1, 1])
    two = UnlabelledBatch(
        **{
            name: value.repeat(2, *[1] * (value.ndim - 1))
            for name, value in vars(batch).items()
            if value is not None and not isinstance(value, VLMTargets)
        },
        vlm=VLMTargets(*(torch.tensor([[[1, 1, 1]], [[0, 0, 0]]]) for _ in range(3))),
    )
    box_BHW = torch.zeros(2, 1, 3, dtype=torch.bool)
    box_BHW[1] = True  # pair 1 is pair 0 altogether
    plain, mixed = (
        SemiVL(perturbed_weight=0).step(PixelNetwork(), PixelNetwork(), LABELLED, one, START)["guidance_strong"].item()
        for one in (two, replace(two, second_cutmix_box_BHW=box_BHW))
    )
    yes, no = softplus(-2.0), softplus(2.0)
    assert plain - mixed == pytest.approx(0.1 * (no - yes) / 2 / 4, rel=1e-4)


def test_without_the_vlm_it_is_unimatch() -> None:
    torch.manual_seed(0)
    model, batches = AllHeads(), random_batches()
    torch.manual_seed(1)
    plain = UniMatch().step(model, model, *batches, START)
    torch.manual_seed(1)
    guided_terms = SemiVL().step(model, model, *batches, START)
    assert all(torch.equal(guided_terms[name], term) for name, term in plain.items())
    with pytest.raises(DataError, match="'semivl' learns from a VLM's labels"):
        SemiVL().step(model, model, batches[0], replace(batches[1], vlm=None), START)
