"""Object scores: matches, ignored and small objects, and a comparison with a slow count."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semicdvl.metrics.objects import ObjectCounts, count_objects


def draw_boxes(boxes: list[tuple[int, int, int, int]], shape: tuple[int, int] = (20, 30)) -> np.ndarray:
    drawn_HW = np.zeros(shape, np.uint8)
    for row, col, height, width in boxes:
        drawn_HW[row : row + height, col : col + width] = 1
    return drawn_HW


def test_objects_hit_missed_and_false() -> None:
    truth_HW = draw_boxes([(0, 0, 4, 5), (10, 10, 4, 4), (0, 20, 3, 3)])
    pred_HW = draw_boxes([(0, 0, 4, 4), (10, 13, 4, 4), (17, 0, 2, 2)])  # IoU 0.8, IoU 1/7, none
    scores = count_objects(pred_HW, truth_HW)
    assert scores == ObjectCounts(predicted=3, actual=3, matched=1, predicted_touching=2, actual_touched=2)
    assert scores.precision == scores.recall == scores.f1 == pytest.approx(1 / 3)
    assert scores.any_precision == scores.any_recall == scores.any_f1 == pytest.approx(2 / 3)


def test_diagonal_neighbours_are_one_object() -> None:
    truth_HW = np.eye(6, dtype=np.uint8)
    assert count_objects(truth_HW, truth_HW) == ObjectCounts(1, 1, 1, 1, 1)


def test_one_object_matches_once_at_exactly_half() -> None:
    truth_HW = draw_boxes([(0, 0, 1, 3), (5, 0, 1, 4)])
    pred_HW = draw_boxes([(5, 0, 1, 1), (5, 2, 1, 2)])
    scores = count_objects(pred_HW, truth_HW, min_iou=0.25)  # IoU 1/4 and 1/2 with the same object
    assert (scores.matched, scores.predicted_touching, scores.actual_touched) == (1, 2, 1)
    assert count_objects(pred_HW, truth_HW, min_iou=0.5).matched == 1


def test_ignored_and_small_objects_are_left_out() -> None:
    truth_HW, pred_HW = draw_boxes([(0, 0, 4, 4)]), draw_boxes([(0, 0, 4, 4), (10, 10, 1, 2), (15, 20, 4, 4)])
    truth_HW[14:, 18:] = 255
    assert count_objects(pred_HW, truth_HW).predicted == 2
    assert count_objects(pred_HW, truth_HW, min_area_px=3).predicted == 1


def test_empty_maps_are_undefined_not_perfect() -> None:
    empty_HW = np.zeros((4, 5), bool)
    scores = count_objects(empty_HW, empty_HW)
    assert scores == ObjectCounts() and math.isnan(scores.f1) and math.isnan(scores.any_f1)
    one_sided = count_objects(empty_HW, draw_boxes([(0, 0, 2, 2)], (4, 5)))
    assert one_sided.recall == 0 and one_sided.f1 == 0


def test_f1_by_any_overlap_is_known_where_f1_by_iou_is() -> None:
    """0 where all objects are missed or none overlaps, NaN in a report where the truth has none."""
    empty_HW, one_HW, other_HW = (draw_boxes(boxes) for boxes in ([], [(0, 0, 2, 2)], [(9, 9, 2, 2)]))
    for pred_HW, truth_HW in ((empty_HW, one_HW), (other_HW, one_HW), (one_HW, empty_HW)):
        scores = count_objects(pred_HW, truth_HW)
        assert scores.f1 == scores.any_f1 == 0.0
    for pred_HW, truth_HW in ((empty_HW, one_HW), (other_HW, one_HW), (one_HW, empty_HW), (empty_HW, empty_HW)):
        reported = count_objects(pred_HW, truth_HW).list_meaningful_scores()
        undefined = {name for name, value in reported.items() if math.isnan(value)}
        wanted = {"precision", "any_precision"} if not pred_HW.any() else set()
        wanted |= {"recall", "f1", "any_recall", "any_f1"} if not truth_HW.any() else set()
        assert undefined == wanted


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
