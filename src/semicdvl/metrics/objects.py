"""Score a change map against the truth by object: which predicted objects match actual ones.

An object is an 8-connected region of changed pixels. As with pixels, counts are added over pairs first and divided
last, and a score that the counts don't define (0 / 0) is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semicdvl.metrics.change import BinaryMap, divide_counts


@dataclass(frozen=True)
class ObjectCounts:
    """Object counts of a prediction against the truth; add them up over pairs, then read the scores.

    Attributes:
        predicted: number of objects in the prediction.
        actual: number of objects in the truth.
        matched: number of pairs of a predicted and an actual object whose IoU reaches the threshold; each object is in
            at most one pair.
        predicted_touching: number of predicted objects that share a pixel with an actual one.
        actual_touched: number of actual objects that share a pixel with a predicted one.
    """

    predicted: int = 0
    actual: int = 0
    matched: int = 0
    predicted_touching: int = 0
    actual_touched: int = 0

    def __add__(self, other: ObjectCounts) -> ObjectCounts:
        """Pool the counts of two maps."""
        return ObjectCounts(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    @property
    def precision(self) -> float:
        """Share of the predicted objects that match an actual one."""
        return divide_counts(self.matched, self.predicted)

    @property
    def recall(self) -> float:
        """Share of the actual objects that are matched."""
        return divide_counts(self.matched, self.actual)

    @property
    def f1(self) -> float:
        """F1 of matched objects: 2 matched / (predicted + actual)."""
        return divide_counts(2 * self.matched, self.predicted + self.actual)

    @property
    def any_precision(self) -> float:
        """Share of the predicted objects that share a pixel with an actual one."""
        return divide_counts(self.predicted_touching, self.predicted)

    @property
    def any_recall(self) -> float:
        """Share of the actual objects that share a pixel with a predicted one."""
        return divide_counts(self.actual_touched, self.actual)

    @property
    def any_f1(self) -> float:
        """Harmonic mean of `any_precision` and `any_recall`; as `f1`, 0 without any overlap and NaN without objects."""
        if not (self.predicted_touching and self.actual_touched):
            return divide_counts(0, self.predicted + self.actual)
        return 2 * self.any_precision * self.any_recall / (self.any_precision + self.any_recall)

    def list_meaningful_scores(self) -> dict[str, float]:
        """Return the scores by name, for a report: recall and F1 are NaN where the truth has no object."""
        names = ("precision", "recall", "f1", "any_precision", "any_recall", "any_f1")
        scores: dict[str, float] = {name: getattr(self, name) for name in names}
        if self.actual == 0:
            scores |= dict.fromkeys(("recall", "f1", "any_recall", "any_f1"), math.nan)
        return scores


def count_objects(
    pred_HW: BinaryMap, truth_HW: BinaryMap, *, min_iou: float = 0.5, min_area_px: int = 1, ignore: int = 255
) -> ObjectCounts:
    """Count matching objects (8-connected regions) of two change maps.

    Args:
        pred_HW: the prediction: 0 or False unchanged, 1 or True changed, `ignore` no prediction.
        truth_HW: the truth, with the same values; pixels to ignore in either map belong to no object.
        min_iou: IoU from which two objects match; they are paired in order of falling IoU, each object at most once.
        min_area_px: smaller objects are left out of both maps.
        ignore: a pixel with this value in either map is not counted.

    Raises:
        ValueError: the shapes differ, or a map is not two-dimensional.
    """
    pred, truth = np.asarray(pred_HW), np.asarray(truth_HW)
    if pred.shape != truth.shape or pred.ndim != 2:
        raise ValueError(f"prediction {pred.shape} and truth {truth.shape} must be two maps of one size")
    counted = (pred != ignore) & (truth != ignore)
    pred_numbers_HW, pred_areas = label_objects((pred != 0) & counted, min_area_px)
    truth_numbers_HW, truth_areas = label_objects((truth != 0) & counted, min_area_px)
    overlaps = ObjectOverlaps(len(pred_areas), len(truth_areas))
    overlaps.add(pred_numbers_HW, truth_numbers_HW)
    return overlaps.match(min_iou=min_iou).counts


@dataclass(frozen=True)
class ObjectMatches:
    """The result of matching, by object; index = number of the object - 1.

    Attributes:
        counts: the counts over all objects.
        pred_area_px: area of each predicted object; 0: the number is not on the map.
        truth_area_px: area of each actual object; 0: the number is not on the map.
        pred_matched: bool, whether a predicted object is matched.
        truth_matched: bool, whether an actual object is matched.
        pred_touching: bool, whether a predicted object shares a pixel with an actual one.
        truth_touched: bool, whether an actual object shares a pixel with a predicted one.
    """

    counts: ObjectCounts
    pred_area_px: NDArray[np.int64]
    truth_area_px: NDArray[np.int64]
    pred_matched: NDArray[np.bool_]
    truth_matched: NDArray[np.bool_]
    pred_touching: NDArray[np.bool_]
    truth_touched: NDArray[np.bool_]


class ObjectOverlaps:
    """Counts the pixels that the objects of two maps share, strip by strip, so that the maps need not fit in memory.

    Attributes:
        pred_area_px: pixels so far of each number in the prediction; entry 0 is the background.
        truth_area_px: pixels so far of each number in the truth.
    """

    def __init__(self, pred_count: int, truth_count: int) -> None:
        """Start without pixels; the counts are the largest object numbers of the two maps."""
        self.pred_area_px = np.zeros(pred_count + 1, np.int64)
        self.truth_area_px = np.zeros(truth_count + 1, np.int64)
        self._keys: list[NDArray[np.int64]] = []
        self._shared: list[NDArray[np.int64]] = []

    def add(self, pred_HW: NDArray[np.integer[Any]], truth_HW: NDArray[np.integer[Any]]) -> None:
        """Count a strip of both maps: object numbers from 1, 0 where there is no object or the pixel is not counted."""
        self.pred_area_px += np.bincount(pred_HW.ravel(), minlength=len(self.pred_area_px))
        self.truth_area_px += np.bincount(truth_HW.ravel(), minlength=len(self.truth_area_px))
        both = (pred_HW > 0) & (truth_HW > 0)
        keys = pred_HW[both].astype(np.int64) * len(self.truth_area_px) + truth_HW[both]
        unique, counts = np.unique(keys, return_counts=True)
        self._keys.append(unique)
        self._shared.append(counts.astype(np.int64))

    def match(self, *, min_iou: float = 0.5) -> ObjectMatches:
        """Pair objects in order of falling IoU to `min_iou`, each at most once; ones without pixels don't count."""
        keys, where = np.unique(np.concatenate([np.zeros(0, np.int64), *self._keys]), return_inverse=True)
        shared = np.zeros(len(keys), np.int64)
        np.add.at(shared, where, np.concatenate([np.zeros(0, np.int64), *self._shared]))
        pred_N, truth_N = keys // len(self.truth_area_px), keys % len(self.truth_area_px)
        iou = shared / (self.pred_area_px[pred_N] + self.truth_area_px[truth_N] - shared)
        pairs = _match_objects(pred_N, truth_N, iou, min_iou=min_iou)
        flags = [
            _flag_numbers([pred for pred, _ in pairs], len(self.pred_area_px)),
            _flag_numbers([truth for _, truth in pairs], len(self.truth_area_px)),
            _flag_numbers(pred_N, len(self.pred_area_px)),
            _flag_numbers(truth_N, len(self.truth_area_px)),
        ]
        areas = self.pred_area_px[1:], self.truth_area_px[1:]
        scores = ObjectCounts(
            predicted=int((areas[0] > 0).sum()),
            actual=int((areas[1] > 0).sum()),
            matched=len(pairs),
            predicted_touching=int(flags[2].sum()),
            actual_touched=int(flags[3].sum()),
        )
        return ObjectMatches(scores, *areas, *flags)


def _flag_numbers(numbers: Sequence[int] | NDArray[np.int64], count: int) -> NDArray[np.bool_]:
    """Return for each of the objects 1 ... count - 1 whether it is among the numbers."""
    flags = np.zeros(count, bool)
    flags[np.asarray(numbers, np.int64)] = True
    return flags[1:]


def label_objects(mask_HW: NDArray[np.bool_], min_area_px: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return a map HW of object numbers from 1, and the area of each object in px."""
    import cv2

    _, numbers_HW = cv2.connectedComponents(np.ascontiguousarray(mask_HW).view(np.uint8), connectivity=8)
    areas = np.bincount(numbers_HW.ravel())
    kept = areas >= min_area_px
    kept[0] = False  # the background
    renumbered = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    return renumbered[numbers_HW], areas[kept]


def _match_objects(
    pred_N: NDArray[np.int64], truth_N: NDArray[np.int64], iou: NDArray[np.float64], *, min_iou: float
) -> list[tuple[int, int]]:
    """Return the matches (predicted, actual), best first, each object at most once."""
    used_pred: set[int] = set()
    used_truth: set[int] = set()
    pairs: list[tuple[int, int]] = []
    for index in np.argsort(-iou, kind="stable"):
        pair = int(pred_N[index]), int(truth_N[index])
        if iou[index] < min_iou:
            break
        if pair[0] not in used_pred and pair[1] not in used_truth:
            used_pred.add(pair[0])
            used_truth.add(pair[1])
            pairs.append(pair)
    return pairs
