"""Every loss on hand-made maps with known answers, and what must hold for any map."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semicdvl import losses
from semicdvl.types import IGNORE

LN2, LN4 = math.log(2), math.log(4)


def logits_of(probability_BHW: torch.Tensor) -> torch.Tensor:
    """Logits BKHW whose softmax gives class 1 this probability."""
    return torch.stack([(1 - probability_BHW).log(), probability_BHW.log()], dim=1)


def random_maps(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits_BKHW = torch.randn(2, 2, 5, 7, generator=generator)
    return logits_BKHW, torch.randint(0, 2, (2, 5, 7), generator=generator)


# ---------------------------------------------------------------------------------------- masked_mean
def test_masked_mean_counts_only_what_it_is_told():
    value_BHW = torch.tensor([[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]])
    counted_BHW = torch.tensor([[[True, False, True], [False, False, True]]])
    assert losses.masked_mean(value_BHW, counted_BHW).item() == pytest.approx(10 / 3)
    all_BHW = torch.ones_like(counted_BHW)
    assert losses.masked_mean(value_BHW, counted_BHW, over_BHW=all_BHW).item() == pytest.approx(10 / 6)


def test_masked_mean_of_nothing_is_zero_and_passes_no_gradient():
    value_BHW = torch.ones(2, 5, 7, requires_grad=True)
    mean = losses.masked_mean(value_BHW, torch.zeros(2, 5, 7, dtype=torch.bool))
    mean.backward()
    assert mean.item() == 0
    assert value_BHW.grad is not None and not value_BHW.grad.any()


def test_masked_mean_does_not_see_nan_where_it_does_not_count():
    value_BHW = torch.tensor([[[math.nan, 2.0, math.inf]]])
    assert losses.masked_mean(value_BHW, torch.tensor([[[False, True, False]]])).item() == 2.0


# ---------------------------------------------------------------------------------------- with labels
def test_cross_entropy_of_known_probabilities():
    logits_BKHW = logits_of(torch.tensor([[[0.5, 0.75, 0.75, 0.1]]]))
    label_BHW = torch.tensor([[[1, 1, 0, IGNORE]]])
    expected = (LN2 + math.log(4 / 3) + LN4) / 3
    assert losses.label_cross_entropy(logits_BKHW, label_BHW).item() == pytest.approx(expected, rel=1e-6)


def test_change_weight_weighs_the_mean():
    logits_BKHW = logits_of(torch.tensor([[[0.5, 0.75]]]))
    label_BHW = torch.tensor([[[1, 0]]])
    expected = (3 * LN2 + LN4) / 4
    assert losses.label_cross_entropy(logits_BKHW, label_BHW, change_weight=3.0).item() == pytest.approx(
        expected, rel=1e-6
    )


def test_cross_entropy_weights_as_torch_does():
    logits_BKHW, label_BHW = random_maps(3)
    label_BHW[0, 1] = IGNORE
    theirs = torch.nn.functional.cross_entropy(
        logits_BKHW, label_BHW, weight=torch.tensor([1.0, 2.5]), ignore_index=IGNORE
    )
    ours = losses.label_cross_entropy(logits_BKHW, label_BHW, change_weight=2.5)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)


def test_dice_of_known_probabilities():
    logits_BKHW = logits_of(torch.tensor([[[0.5, 0.25, 0.9]]]))
    label_BHW = torch.tensor([[[1, 0, IGNORE]]])
    assert losses.dice_loss(logits_BKHW, label_BHW).item() == pytest.approx(
        1 - (2 * 0.5 + 1) / (0.75 + 1 + 1), rel=1e-5
    )


def test_dice_is_zero_for_perfect_and_for_empty_maps():
    sure_BHW = torch.tensor([[[1 - 1e-7, 1e-7]]])
    assert losses.dice_loss(logits_of(sure_BHW), torch.tensor([[[1, 0]]])).item() == pytest.approx(0, abs=1e-5)
    nothing_BHW = torch.full((2, 5, 7), 1e-7)
    assert losses.dice_loss(logits_of(nothing_BHW), torch.zeros(2, 5, 7, dtype=torch.long)).item() == pytest.approx(
        0, abs=1e-4
    )


def test_hard_cross_entropy_keeps_the_hardest_share():
    logits_BKHW = logits_of(torch.tensor([[[0.5, 0.25, 0.9, 0.001, 0.01]]]))
    label_BHW = torch.tensor([[[1, 1, 1, 0, IGNORE]]])  # cross entropies ln 2, ln 4, small, tiny
    hard = losses.hard_cross_entropy(logits_BKHW, label_BHW, hard_frac=0.5)
    assert hard.item() == pytest.approx((LN2 + LN4) / 2, rel=1e-5)


def test_supervised_adds_dice_and_takes_the_hardest():
    logits_BKHW, label_BHW = random_maps(5)
    entropy, dice = losses.label_cross_entropy(logits_BKHW, label_BHW), losses.dice_loss(logits_BKHW, label_BHW)
    assert losses.supervised_loss(logits_BKHW, label_BHW).item() == entropy.item()
    assert losses.supervised_loss(logits_BKHW, label_BHW, dice_weight=2.0).item() == pytest.approx(
        (entropy + 2 * dice).item()
    )
    hard = losses.hard_cross_entropy(logits_BKHW, label_BHW, hard_frac=0.1)
    assert losses.supervised_loss(logits_BKHW, label_BHW, hard_frac=0.1).item() == hard.item() > entropy.item()


# ---------------------------------------------------------------------------------------- without labels
def test_consistency_divides_confident_pixels_by_all_valid_ones():
    logits_BKHW = logits_of(torch.full((1, 1, 5), 0.25))
    pseudo_BHW = torch.tensor([[[1, 0, 1, 1, 1]]])
    confidence_BHW = torch.tensor([[[0.95, 0.99, 0.94, 0.99, 0.5]]])
    valid_BHW = torch.tensor([[[True, True, True, False, True]]])
    loss = losses.consistency_loss(logits_BKHW, pseudo_BHW, confidence_BHW, valid_BHW, confidence_min=0.95)
    assert loss.item() == pytest.approx((LN4 + math.log(4 / 3)) / 4, rel=1e-6)  # two count, four are valid


def test_consistency_weighs_changed_pseudo_labels_and_has_a_bound_of_their_own():
    logits_BKHW = logits_of(torch.full((1, 1, 5), 0.25))
    pseudo_BHW = torch.tensor([[[1, 0, 1, 1, 0]]])
    confidence_BHW = torch.tensor([[[0.95, 0.99, 0.75, 0.99, 0.8]]])
    valid_BHW = torch.tensor([[[True, True, True, False, True]]])
    maps = logits_BKHW, pseudo_BHW, confidence_BHW, valid_BHW
    loss = losses.consistency_loss(*maps, confidence_min=0.9, confidence_min_changed=0.7, change_weight=3.0)
    # counted: changed .95 and .75, unchanged .99; valid weights are 3 + 1 + 3 + 1
    assert loss.item() == pytest.approx((3 * LN4 + math.log(4 / 3) + 3 * LN4) / 8, rel=1e-6)
    same = losses.consistency_loss(*maps, confidence_min=0.9, confidence_min_changed=0.9)
    assert same.item() == losses.consistency_loss(*maps, confidence_min=0.9).item()


def test_vlm_cross_entropy_over_all_and_over_valid():
    logits_BKHW = logits_of(torch.full((1, 2, 4), 0.25))
    target_BHW = torch.full((1, 2, 4), IGNORE)
    target_BHW[0, 1, :2] = 1
    assert losses.vlm_cross_entropy(logits_BKHW, target_BHW).item() == pytest.approx(2 * LN4 / 8, rel=1e-6)
    assert losses.vlm_cross_entropy(logits_BKHW, target_BHW, over="valid").item() == pytest.approx(LN4, rel=1e-6)


@pytest.mark.parametrize("over", ["all", "valid"])
def test_a_vlm_that_is_sure_of_nothing_gives_zero_not_nan(over):
    logits_BKHW = torch.randn(2, 2, 5, 7, requires_grad=True)
    loss = losses.vlm_cross_entropy(logits_BKHW, torch.full((2, 5, 7), IGNORE), over=over)
    loss.backward()
    assert loss.item() == 0
    assert logits_BKHW.grad is not None and not logits_BKHW.grad.any()


# ---------------------------------------------------------------------------------------- contrast
def test_distance_is_over_channels():
    t1_BDHW, t2_BDHW = torch.zeros(2, 8, 5, 7), torch.zeros(2, 8, 5, 7)
    t1_BDHW[1, 2, 3, 4], t2_BDHW[1, 6, 3, 4] = 3.0, 4.0
    distance_BHW = losses.feature_distance(t1_BDHW, t2_BDHW, size_px=(5, 7))
    assert distance_BHW.shape == (2, 5, 7)
    assert distance_BHW[1, 3, 4].item() == pytest.approx(5.0)
    assert distance_BHW.count_nonzero() == 1


def test_distance_map_is_resized_not_the_features():
    t1_BDHW = torch.zeros(1, 3, 2, 1)
    t1_BDHW[0, 0, 0] = 3.0
    distance_BHW = losses.feature_distance(t1_BDHW, torch.zeros_like(t1_BDHW), size_px=(4, 1))
    assert distance_BHW.flatten().tolist() == pytest.approx([3.0, 2.25, 0.75, 0.0])  # bilinear, corners not aligned


def test_official_axis_sums_over_columns_and_takes_channels_for_rows():
    t1_BDHW = torch.zeros(1, 3, 5, 7)
    t1_BDHW[0, 2, 4] = 1.0
    distance = losses.feature_distance(t1_BDHW, torch.zeros_like(t1_BDHW), size_px=(3, 5), axis="official_columns")
    assert distance[0, 2, 4].item() == pytest.approx(math.sqrt(7))
    assert distance.count_nonzero() == 1


def test_normalised_distance_ignores_length():
    t1_BDHW, t2_BDHW = torch.zeros(1, 2, 1, 3), torch.zeros(1, 2, 1, 3)
    t1_BDHW[0, 0, 0, :] = torch.tensor([10.0, 10.0, 0.0])
    t2_BDHW[0, 0, 0, 0], t2_BDHW[0, 1, 0, 1] = 0.1, 7.0  # same direction; at a right angle; both zero
    distance_BHW = losses.feature_distance(t1_BDHW, t2_BDHW, size_px=(1, 3), normalise=True)
    assert distance_BHW.flatten().tolist() == pytest.approx([0.0, math.sqrt(2), 0.0], abs=1e-6)


def test_equal_features_have_a_finite_gradient():
    t1_BDHW = torch.ones(2, 8, 5, 7, requires_grad=True)
    losses.feature_distance(t1_BDHW, torch.ones(2, 8, 5, 7), size_px=(9, 11)).sum().backward()
    assert t1_BDHW.grad is not None and t1_BDHW.grad.isfinite().all()


DISTANCE_BHW = torch.tensor([[[0.5, 1.0, 1.5, 2.5, 9.0]]])
LABEL_BHW = torch.tensor([[[0, 0, 1, 1, IGNORE]]])


@pytest.mark.parametrize(
    ("form", "expected"),
    [("linear", (0.5 + 1.0) / 2 + (0.5 + 0) / 2), ("squared", (0.25 + 1.0) / 2 + (0.25 + 0) / 2)],
)
def test_balanced_contrastive(form, expected):
    loss = losses.balanced_contrastive_loss(DISTANCE_BHW, LABEL_BHW, margin=2.0, form=form)
    assert loss.item() == pytest.approx(expected)


def test_balanced_contrastive_balances_only_what_counts():
    counted_BHW = torch.tensor([[[False, True, True, False, True]]])
    loss = losses.balanced_contrastive_loss(DISTANCE_BHW, LABEL_BHW, margin=2.0, counted_BHW=counted_BHW)
    assert loss.item() == pytest.approx(1.0 + 0.5)


def test_balance_makes_one_changed_pixel_weigh_as_much_as_all_others():
    distance_BHW, label_BHW = torch.ones(1, 5, 7), torch.zeros(1, 5, 7, dtype=torch.long)
    label_BHW[0, 2, 3] = 1
    assert losses.balanced_contrastive_loss(distance_BHW, label_BHW, margin=3.0).item() == pytest.approx(1.0 + 2.0)


def test_pixel_contrastive_has_no_balance():
    counted_BHW = torch.tensor([[[True, True, True, False, True]]])
    over_BHW = torch.ones(1, 1, 5, dtype=torch.bool)
    loss = losses.pixel_contrastive_loss(
        DISTANCE_BHW, LABEL_BHW, margin=2.0, counted_BHW=counted_BHW, over_BHW=over_BHW, form="squared"
    )
    assert loss.item() == pytest.approx((0.25 + 1.0 + 0.25) / 5)


# ---------------------------------------------------------------------------------------- for any map
ON_LABELS = {
    "cross_entropy": losses.label_cross_entropy,
    "weighted": lambda x, y: losses.label_cross_entropy(x, y, change_weight=4.0),
    "dice": losses.dice_loss,
    "hard": lambda x, y: losses.hard_cross_entropy(x, y, hard_frac=0.3),
    "vlm_all": losses.vlm_cross_entropy,
    "vlm_valid": lambda x, y: losses.vlm_cross_entropy(x, y, over="valid"),
    "contrast": lambda x, y: losses.balanced_contrastive_loss(x[:, 0].abs(), y, margin=2.0),
    "contrast_pixel": lambda x, y: losses.pixel_contrastive_loss(
        x[:, 0].abs(), y, margin=2.0, counted_BHW=y < 9, over_BHW=y < 999
    ),
}


@pytest.mark.parametrize("name", ON_LABELS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 9999), share=st.floats(0, 1))
def test_ignored_pixels_change_nothing(name, seed, share):
    logits_BKHW, label_BHW = random_maps(seed)
    ignored_BHW = torch.rand(label_BHW.shape, generator=torch.Generator().manual_seed(seed)) < share
    label_BHW[ignored_BHW] = IGNORE
    other_BKHW = torch.where(ignored_BHW[:, None], 17.0 - logits_BKHW, logits_BKHW).requires_grad_()
    loss = ON_LABELS[name](other_BKHW, label_BHW)
    assert loss.isfinite() and loss >= 0
    torch.testing.assert_close(loss, ON_LABELS[name](logits_BKHW, label_BHW))
    loss.backward()
    assert other_BKHW.grad is not None and other_BKHW.grad.isfinite().all()
    assert not other_BKHW.grad.permute(0, 2, 3, 1)[ignored_BHW].any()


@pytest.mark.parametrize("name", ON_LABELS)
def test_no_pairs_and_bfloat16_are_no_trouble(name):
    logits_BKHW, label_BHW = random_maps(1)
    assert ON_LABELS[name](logits_BKHW[:0], label_BHW[:0]).item() == 0
    half = ON_LABELS[name](logits_BKHW.bfloat16(), label_BHW)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, ON_LABELS[name](logits_BKHW, label_BHW), rtol=0.02, atol=0.01)
