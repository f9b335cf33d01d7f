"""Scores of semantic change detection: known answers, and a second way to the same numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import cohen_kappa_score

from semicdvl.metrics.semantic import SemanticCounts, semantic_scores


def test_known_answers_by_hand() -> None:
    """Rows predicted, columns true: 100 pixels, of which 90 are unchanged in both."""
    scores = semantic_scores([[90, 2, 0], [1, 4, 1], [0, 0, 2]])
    assert scores.iou_unchanged == pytest.approx(90 / 93)
    assert scores.iou_changed == pytest.approx(7 / 10)
    assert scores.miou == pytest.approx((90 / 93 + 0.7) / 2)
    # Without the 90: trace 6 of 10, chance (2 * 1 + 6 * 6 + 2 * 3) / 100.
    kappa = (0.6 - 0.44) / (1 - 0.44)
    assert scores.sek == pytest.approx(kappa * math.exp(0.7 - 1))
    assert scores.score == pytest.approx(0.3 * scores.miou + 0.7 * scores.sek)
    assert scores.precision_scd == pytest.approx(6 / 8) and scores.recall_scd == pytest.approx(6 / 9)
    assert scores.f_scd == pytest.approx(2 * (6 / 8) * (6 / 9) / (6 / 8 + 6 / 9))
    assert scores.overall_accuracy == pytest.approx(0.96)
    assert scores.class_iou == (pytest.approx(4 / 8), pytest.approx(2 / 3))


def test_a_perfect_map() -> None:
    scores = semantic_scores(np.diag([7, 3, 5]))
    assert scores.miou == scores.sek == scores.score == scores.f_scd == 1


def test_what_the_counts_do_not_define_is_nan() -> None:
    nothing = semantic_scores([[9, 0], [0, 0]])
    assert nothing.iou_unchanged == 1 and nothing.overall_accuracy == 1
    assert all(math.isnan(value) for value in (nothing.iou_changed, nothing.sek, nothing.f_scd, nothing.class_iou[0]))


def test_rows_are_predicted_and_columns_true() -> None:
    found_too_much = semantic_scores([[80, 0], [15, 5]])
    assert found_too_much.precision_scd == 5 / 20 and found_too_much.recall_scd == 1


@given(arrays(np.int64, (4, 4), elements=st.integers(0, 30)))
def test_kappa_agrees_with_scikit_learn(confusion: np.ndarray) -> None:
    rest = confusion.copy()
    rest[0, 0] = 0
    rows, columns = np.nonzero(rest)
    if rest.sum() == 0 or len(set(rows) | set(columns)) < 2:
        return
    counts = rest[rows, columns]
    kappa = cohen_kappa_score(np.repeat(rows, counts), np.repeat(columns, counts))
    scores = semantic_scores(confusion)
    assert scores.sek == pytest.approx(kappa * math.exp(scores.iou_changed - 1))
    harmonic = 2 * scores.precision_scd * scores.recall_scd / (scores.precision_scd + scores.recall_scd or math.nan)
    if not math.isnan(harmonic):
        assert scores.f_scd == pytest.approx(harmonic)


@pytest.mark.parametrize("bad", [[[1, 2]], [[1]], [[1, -1], [0, 0]], [[1, math.nan], [0, 0]], [1, 2]])
def test_a_matrix_that_is_none_is_refused(bad: list) -> None:
    with pytest.raises(ValueError, match="confusion matrix"):
        semantic_scores(bad)


def test_maps_are_counted_with_classes_shifted_by_one() -> None:
    """Six pixels: right, wrong class at date 2, missed, invented, unchanged, and one that the truth ignores."""
    change, truth = np.array([[1, 1, 0, 1, 0, 1]]), np.array([[1, 1, 1, 0, 0, 255]])
    found_t1, found_t2 = np.array([[0, 0, 1, 1, 1, 0]]), np.array([[1, 1, 1, 0, 0, 1]])
    true_t1, true_t2 = np.array([[0, 0, 0, 255, 255, 0]]), np.array([[1, 2, 1, 255, 255, 1]])
    counts = SemanticCounts.from_maps(
        change, found_t1, found_t2, true_change_HW=truth, true_t1_HW=true_t1, true_t2_HW=true_t2, class_count=3
    )
    assert counts.t1_KK.tolist() == [[1, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert counts.t2_KK.tolist() == [[1, 0, 1, 0], [1, 0, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]]
    assert counts.transitions_KK.tolist() == [[0, 2, 0], [1, 0, 0], [0, 0, 0]]
    assert counts.true_transitions_KK.tolist() == [[0, 2, 1], [0, 0, 0], [0, 0, 0]]
    assert counts.right_transitions == 1
    assert (counts.changed_same_class, counts.unchanged_other_class) == (0, 1)
    assert (counts + counts).scores == counts.scores
    assert counts.scores == semantic_scores(counts.t1_KK + counts.t2_KK)


def test_a_class_that_is_not_known_is_wrong_on_changed_ground() -> None:
    maps = {"true_change_HW": np.array([[1]]), "true_t1_HW": np.array([[0]]), "true_t2_HW": np.array([[1]])}
    counts = SemanticCounts.from_maps(np.array([[1]]), np.array([[255]]), np.array([[1]]), **maps, class_count=2)
    assert counts.t1_KK.tolist() == [[0, 0, 0], [0, 0, 0], [0, 1, 0]] and counts.right_transitions == 0
    assert counts.scores.iou_changed == 1 and counts.scores.precision_scd == 0.5


def test_changed_ground_without_a_true_class_is_not_counted() -> None:
    maps = {
        "true_change_HW": np.array([[1, 0]]),
        "true_t1_HW": np.array([[255, 255]]),
        "true_t2_HW": np.array([[1, 1]]),
    }
    counts = SemanticCounts.from_maps(np.array([[1, 0]]), np.array([[0, 0]]), np.array([[1, 0]]), **maps, class_count=2)
    assert counts.t1_KK.sum() == 1 and counts.t1_KK[0, 0] == 1


def test_a_class_beyond_the_last_one_is_refused() -> None:
    one = np.array([[1]])
    with pytest.raises(ValueError, match="holds 2; classes are 0 to 1 and 255"):
        SemanticCounts.from_maps(one, one + 1, one, true_change_HW=one, true_t1_HW=one, true_t2_HW=one, class_count=2)


def test_counts_survive_as_a_row_of_numbers() -> None:
    rng = np.random.default_rng(3)
    change_HW, truth_HW = rng.integers(0, 2, (2, 9, 11))
    maps = rng.integers(0, 4, (4, 9, 11))
    counts = SemanticCounts.from_maps(
        change_HW, *maps[:2], true_change_HW=truth_HW, true_t1_HW=maps[2], true_t2_HW=maps[3], class_count=4
    )
    again = SemanticCounts.from_numbers(counts.to_numbers(), class_count=4)
    total = SemanticCounts.make_empty(4) + again
    for name, value in vars(counts).items():
        assert np.array_equal(vars(total)[name], value), name
