"""Changed objects with the right classes of both dates, counted by hand."""

from __future__ import annotations

import math

import numpy as np

from semicdvl.metrics.transition_objects import TransitionObjectCounts, count_transition_objects


def test_objects_by_hand() -> None:
    """Four changed objects: right, wrong before, found by less than half, and one whose class is not known."""
    truth, t1, t2 = np.zeros((3, 12, 20), np.uint8)
    truth[1:4, 1:5] = truth[1:4, 8:12] = truth[6:10, 1:5] = truth[6:10, 8:12] = 1
    t1[1:4, 1:5] = t1[1:4, 8:12] = t1[6:10, 1:5] = 1
    t2[truth == 1] = 2
    t1[6:10, 8:12] = 255
    change = truth.copy()
    change[1:4, 1:3] = 0  # half of the first object is left
    change[6:10, 1:4] = 0  # a quarter of the third one
    said1, said2 = t1.copy(), t2.copy()
    said1[1:4, 8:12] = 2
    said1[1, 3:5] = 0  # the majority of the first object stays right
    counts = count_transition_objects(
        change, said1 % 255, said2, true_change_HW=truth, true_t1_HW=t1, true_t2_HW=t2, class_count=3
    )
    assert counts == TransitionObjectCounts(actual=3, found=2, right=1)
    assert (counts.right_frac, counts.right, counts.found) == (1 / 3, 1, 2)
    assert counts + counts == TransitionObjectCounts(6, 4, 2)


def test_a_class_that_the_prediction_does_not_know_is_wrong_as_of_pixels() -> None:
    """Also where the true class is the first one."""
    ones, first, unknown = np.ones((4, 5), np.uint8), np.zeros((4, 5), np.uint8), np.full((4, 5), 255, np.uint8)
    counts = count_transition_objects(
        ones, unknown, first, true_change_HW=ones, true_t1_HW=first, true_t2_HW=first, class_count=3
    )
    assert counts == TransitionObjectCounts(actual=1, found=1, right=0)


def test_nothing_changed() -> None:
    nothing = np.zeros((5, 7), np.uint8)
    counts = count_transition_objects(
        nothing, nothing, nothing, true_change_HW=nothing, true_t1_HW=nothing, true_t2_HW=nothing, class_count=2
    )
    assert counts == TransitionObjectCounts() and math.isnan(counts.right_frac)
