"""Scores: identities, undefined cases, pooling, objects, and a cross-check with torchmetrics."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semicdvl.metrics.change import SCORE_NAMES, ConfusionCounts, ObjectCounts, bootstrap_interval, count_objects

COUNTS = st.integers(0, 10_000_000)


@given(COUNTS, COUNTS, COUNTS, COUNTS)
def test_f1_follows_from_iou(tn: int, fp: int, fn: int, tp: int) -> None:
    counts = ConfusionCounts(tn, fp, fn, tp)
    if tp + fp + fn == 0:
        assert math.isnan(counts.f1) and math.isnan(counts.iou)
        return
    assert counts.f1 == pytest.approx(2 * counts.iou / (1 + counts.iou))
    if tp:
        harmonic = 2 / (1 / counts.precision + 1 / counts.recall)
        assert counts.f1 == pytest.approx(harmonic)


@given(COUNTS, COUNTS, COUNTS, COUNTS)
def test_scores_stay_in_range(tn: int, fp: int, fn: int, tp: int) -> None:
    for name, value in ConfusionCounts(tn, fp, fn, tp).scores().items():
        low = -1 if name == "kappa" else 0
        assert math.isnan(value) or low <= value <= 1


def test_hand_made_map() -> None:
    pred_HW = np.array([[1, 1, 0, 0, 255], [1, 0, 0, 1, 1]], np.uint8)
    label_HW = np.array([[1, 0, 0, 1, 1], [1, 0, 0, 1, 255]], np.uint8)
    counts = ConfusionCounts.from_maps(pred_HW, label_HW)
    assert counts == ConfusionCounts(tn=3, fp=1, fn=1, tp=3)
    assert counts.iou == pytest.approx(0.6)
    assert counts.accuracy == pytest.approx(0.75)
    assert counts.kappa == pytest.approx(0.5)  # observed 0.75, expected by chance 0.5


def test_bool_maps_count_like_numbers() -> None:
    rng = np.random.default_rng(0)
    pred_HW, label_HW = rng.random((5, 7)) < 0.4, rng.random((5, 7)) < 0.4
    as_numbers = ConfusionCounts.from_maps(pred_HW.astype(np.uint8), label_HW.astype(np.int64))
    assert ConfusionCounts.from_maps(pred_HW, label_HW) == as_numbers


def test_undefined_scores_are_nan_and_silent() -> None:
    nothing = ConfusionCounts()
    assert all(math.isnan(value) for value in nothing.scores().values())
    assert math.isnan(ConfusionCounts(tn=9).precision) and ConfusionCounts(tn=9).accuracy == 1
    missed = ConfusionCounts(tn=5, fn=4)
    assert missed.iou == 0 and missed.f1 == 0 and missed.recall == 0 and math.isnan(missed.precision)


def test_pooling_is_not_a_mean() -> None:
    large, small = ConfusionCounts(tp=90, fn=10), ConfusionCounts(tp=0, fn=1)
    assert (large + small).iou == pytest.approx(90 / 101)


@pytest.mark.parametrize("bad", [2, 7, 254])
def test_odd_values_are_refused(bad: int) -> None:
    odd_HW = np.full((3, 4), bad, np.uint8)
    with pytest.raises(ValueError, match="prediction"):
        ConfusionCounts.from_maps(odd_HW, np.zeros((3, 4), np.uint8))
    with pytest.raises(ValueError, match="label"):
        ConfusionCounts.from_maps(np.zeros((3, 4), np.uint8), odd_HW)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="shape"):
        ConfusionCounts.from_maps(np.zeros((3, 4), np.uint8), np.zeros((4, 3), np.uint8))
    with pytest.raises(ValueError, match="size"):
        count_objects(np.zeros((3, 4), np.uint8), np.zeros((4, 3), np.uint8))


def test_agrees_with_torchmetrics() -> None:
    torch = pytest.importorskip("torch")
    classification = pytest.importorskip("torchmetrics.functional.classification")
    rng = np.random.default_rng(3)
    label_HW = (rng.random((31, 17)) < 0.2).astype(np.uint8)
    pred_HW = np.where(rng.random((31, 17)) < 0.8, label_HW, 1 - label_HW).astype(np.uint8)
    label_HW[:4] = 255
    ours = ConfusionCounts.from_maps(pred_HW, label_HW).scores()
    names = {
        "iou": "binary_jaccard_index",
        "f1": "binary_f1_score",
        "precision": "binary_precision",
        "recall": "binary_recall",
        "kappa": "binary_cohen_kappa",
        "accuracy": "binary_accuracy",
    }
    assert set(names) == set(SCORE_NAMES)
    for score, function in names.items():
        theirs = getattr(classification, function)(
            torch.from_numpy(pred_HW.astype(np.int64)), torch.from_numpy(label_HW.astype(np.int64)), ignore_index=255
        )
        assert ours[score] == pytest.approx(float(theirs), abs=1e-6), score


# ------------------------------------------------------------------------------------------------ spread
def test_spread_holds_the_score_and_shrinks_with_more_pairs() -> None:
    rng = np.random.default_rng(0)
    counts = [ConfusionCounts(tn=100, fp=int(a), fn=int(b), tp=50) for a, b in rng.integers(0, 60, (200, 2))]
    widths = []
    for some in (counts[:10], counts):
        pooled = sum(some, ConfusionCounts()).iou
        low, high = bootstrap_interval(some, rng=np.random.default_rng(1), resamples=300)
        assert low < pooled < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_spread_of_equal_pairs_is_a_point() -> None:
    low, high = bootstrap_interval(
        [ConfusionCounts(1, 2, 3, 4)] * 5, score="f1", rng=np.random.default_rng(0), resamples=20
    )
    assert low == high == ConfusionCounts(1, 2, 3, 4).f1


def test_spread_of_nothing() -> None:
    assert all(
        math.isnan(bound)
        for bound in bootstrap_interval([ConfusionCounts(tn=3)], rng=np.random.default_rng(0), resamples=5)
    )
    with pytest.raises(ValueError, match="score"):
        bootstrap_interval([], rng=np.random.default_rng(0))


# ------------------------------------------------------------------------------------------------ objects
def _drawn(boxes: list[tuple[int, int, int, int]], shape: tuple[int, int] = (20, 30)) -> np.ndarray:
    drawn_HW = np.zeros(shape, np.uint8)
    for row, col, height, width in boxes:
        drawn_HW[row : row + height, col : col + width] = 1
    return drawn_HW


def test_objects_hit_missed_and_false() -> None:
    truth_HW = _drawn([(0, 0, 4, 5), (10, 10, 4, 4), (0, 20, 3, 3)])
    pred_HW = _drawn([(0, 0, 4, 4), (10, 13, 4, 4), (17, 0, 2, 2)])  # IoU 0.8, IoU 1/7, none
    scores = count_objects(pred_HW, truth_HW)
    assert scores == ObjectCounts(predicted=3, actual=3, matched=1, predicted_touching=2, actual_touched=2)
    assert scores.precision == scores.recall == scores.f1 == pytest.approx(1 / 3)
    assert scores.any_precision == scores.any_recall == scores.any_f1 == pytest.approx(2 / 3)


def test_diagonal_neighbours_are_one_object() -> None:
    truth_HW = np.eye(6, dtype=np.uint8)
    assert count_objects(truth_HW, truth_HW) == ObjectCounts(1, 1, 1, 1, 1)


def test_one_object_matches_once_at_exactly_half() -> None:
    truth_HW = _drawn([(0, 0, 1, 3), (5, 0, 1, 4)])
    pred_HW = _drawn([(5, 0, 1, 1), (5, 2, 1, 2)])
    scores = count_objects(pred_HW, truth_HW, min_iou=0.25)  # IoU 1/4 and 1/2 with the same object
    assert (scores.matched, scores.predicted_touching, scores.actual_touched) == (1, 2, 1)
    assert count_objects(pred_HW, truth_HW, min_iou=0.5).matched == 1


def test_ignored_and_small_objects_are_left_out() -> None:
    truth_HW, pred_HW = _drawn([(0, 0, 4, 4)]), _drawn([(0, 0, 4, 4), (10, 10, 1, 2), (15, 20, 4, 4)])
    truth_HW[14:, 18:] = 255
    assert count_objects(pred_HW, truth_HW).predicted == 2
    assert count_objects(pred_HW, truth_HW, min_area_px=3).predicted == 1


def test_empty_maps_are_undefined_not_perfect() -> None:
    empty_HW = np.zeros((4, 5), bool)
    scores = count_objects(empty_HW, empty_HW)
    assert scores == ObjectCounts() and math.isnan(scores.f1) and math.isnan(scores.any_f1)
    one_sided = count_objects(empty_HW, _drawn([(0, 0, 2, 2)], (4, 5)))
    assert one_sided.recall == 0 and one_sided.f1 == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.02, 0.6))
def test_objects_against_a_slow_count(seed: int, share: float) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    rng = np.random.default_rng(seed)
    pred_HW, truth_HW = rng.random((13, 11)) < share, rng.random((13, 11)) < share
    found_HW, found = ndimage.label(pred_HW, np.ones((3, 3)))
    real_HW, real = ndimage.label(truth_HW, np.ones((3, 3)))
    matched = 0
    for f in range(1, found + 1):
        for r in range(1, real + 1):
            one, other = found_HW == f, real_HW == r
            matched += bool((one & other).sum() / (one | other).sum() > 0.5)  # above a half the match is unique
    scores = count_objects(pred_HW, truth_HW, min_iou=0.5 + 1e-9)
    assert (scores.predicted, scores.actual, scores.matched) == (found, real, matched)
    assert scores.predicted_touching == sum(bool(truth_HW[found_HW == f].any()) for f in range(1, found + 1))
    assert scores + ObjectCounts() == scores
