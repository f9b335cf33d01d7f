"""Pixel scores: identities, undefined cases, pooling, and a cross-check with torchmetrics."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semicdvl.metrics.change import SCORE_NAMES, ConfusionCounts
from semicdvl.metrics.objects import count_objects

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
    for name, value in ConfusionCounts(tn, fp, fn, tp).list_scores().items():
        low = -1 if name == "kappa" else 0
        assert math.isnan(value) or low <= value <= 1


def test_scores_of_a_small_map() -> None:
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
    assert all(math.isnan(value) for value in nothing.list_scores().values())
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
    ours = ConfusionCounts.from_maps(pred_HW, label_HW).list_scores()
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


def test_reported_scores_are_undefined_without_change_in_the_truth() -> None:
    reported = ConfusionCounts(tn=90, fp=10).list_meaningful_scores()
    assert all(math.isnan(reported[name]) for name in ("iou", "f1", "recall", "kappa"))
    assert reported["precision"] == 0 and reported["accuracy"] == 0.9
    some = ConfusionCounts(tn=80, fp=10, fn=5, tp=5)
    assert some.list_meaningful_scores() == some.list_scores()
