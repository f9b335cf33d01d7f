"""Score what changed into what by object: how many changed objects are found and have the right class at both dates.

An object is an 8-connected region of truly changed pixels. It is found where at least half of its pixels are predicted
as changed; its class at a date is the most frequent one over its pixels (of the prediction: over those predicted as
changed). Counts are added over pairs first and divided last.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semicdvl.metrics.change import divide_counts
from semicdvl.metrics.objects import label_objects

FOUND_FRAC = 0.5
"""Share of an object's pixels that must be predicted as changed."""


@dataclass(frozen=True)
class TransitionObjectCounts:
    """Counts of truly changed objects; add them up over pairs.

    Attributes:
        actual: objects whose classes of both dates are known.
        found: of these, those that are predicted as changed.
        right: of the found ones, those whose classes of both dates are right.
    """

    actual: int = 0
    found: int = 0
    right: int = 0

    def __add__(self, other: TransitionObjectCounts) -> TransitionObjectCounts:
        """Pool the counts of two maps."""
        return TransitionObjectCounts(self.actual + other.actual, self.found + other.found, self.right + other.right)

    @property
    def right_frac(self) -> float:
        """Share of the objects that are found with the right transition; NaN without objects."""
        return divide_counts(self.right, self.actual)


def count_transition_objects(
    change_HW: NDArray[np.integer[Any]],
    classes_t1_HW: NDArray[np.integer[Any]],
    classes_t2_HW: NDArray[np.integer[Any]],
    *,
    true_change_HW: NDArray[np.integer[Any]],
    true_t1_HW: NDArray[np.integer[Any]],
    true_t2_HW: NDArray[np.integer[Any]],
    class_count: int,
    ignore: int = 255,
) -> TransitionObjectCounts:
    """Count the objects of one pair; arguments as `semantic.SemanticCounts.from_maps`."""
    known_HW = (true_change_HW == 1) & (true_t1_HW != ignore) & (true_t2_HW != ignore) & (change_HW != ignore)
    numbers_HW, area_N = label_objects(known_HW, 1)
    if not len(area_N):
        return TransitionObjectCounts()
    predicted_HW = np.where(change_HW == 1, numbers_HW, 0)
    found_N = np.bincount(predicted_HW.ravel(), minlength=len(area_N) + 1)[1:] >= FOUND_FRAC * area_N
    right_N = found_N.copy()
    for classes_HW, true_HW in ((classes_t1_HW, true_t1_HW), (classes_t2_HW, true_t2_HW)):
        told_N = _find_majority(predicted_HW, classes_HW, objects=len(area_N), classes=class_count)
        right_N &= told_N == _find_majority(numbers_HW, true_HW, objects=len(area_N), classes=class_count)
    return TransitionObjectCounts(len(area_N), int(found_N.sum()), int(right_N.sum()))


def _find_majority(
    numbers_HW: NDArray[np.integer[Any]], classes_HW: NDArray[np.integer[Any]], *, objects: int, classes: int
) -> NDArray[np.int64]:
    """Return the most frequent class of each object, the lowest of equally frequent ones; -1 where none is known."""
    inside_HW = (numbers_HW > 0) & (classes_HW < classes)
    codes = (numbers_HW[inside_HW].astype(np.int64) - 1) * classes + classes_HW[inside_HW]
    counts_NK = np.bincount(codes, minlength=objects * classes).reshape(objects, classes)
    majority_N: NDArray[np.int64] = np.where(counts_NK.any(axis=1), counts_NK.argmax(axis=1), -1)
    return majority_N
