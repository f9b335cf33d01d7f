"""How well a change map fits the truth: by pixel, pooled over a whole set, and by object.

Counts are added first and divided last: a score of a set is the score of its pooled counts, never a mean over pairs.
A score that the counts don't define (0 / 0) is NaN, not 0 and not 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

BinaryMap = NDArray[np.bool_] | NDArray[np.integer[Any]]


def _ratio(part: float, whole: float) -> float:
    """Return part / whole, NaN for 0 / 0."""
    return part / whole if whole else math.nan


def _harmonic_mean(first: float, second: float) -> float:
    """Return the harmonic mean of precision and recall; 0 if both are 0, NaN if one is."""
    return 0.0 if first + second == 0 else 2 * first * second / (first + second)


# ------------------------------------------------------------------------------------------------ pixels
@dataclass(frozen=True)
class ConfusionCounts:
    """Pixel counts of the changed class; add them up over pairs, then ask for scores."""

    tn: int = 0
    fp: int = 0
    fn: int = 0
    tp: int = 0

    @classmethod
    def from_maps(cls, pred_HW: BinaryMap, label_HW: BinaryMap, *, ignore: int = 255) -> ConfusionCounts:
        """Count the pixels of one map, or of a stack of them.

        Args:
            pred_HW: 0 or False unchanged, 1 or True changed, `ignore` no answer (no data).
            label_HW: the truth, same shape and values.
            ignore: a pixel with this value in either map does not count.

        Raises:
            ValueError: the shapes differ, or a value is none of these.
        """
        pred, label = np.asarray(pred_HW), np.asarray(label_HW)
        if pred.shape != label.shape:
            raise ValueError(f"prediction {pred.shape} and label {label.shape} differ in shape")
        counted = (pred != ignore) & (label != ignore)
        pred, label = pred[counted], label[counted]
        for name, values in (("prediction", pred), ("label", label)):
            if values.size and (values.max() > 1 or values.min() < 0):
                raise ValueError(f"{name} holds {values.max()}; 0, 1 and {ignore} are wanted")
        cells = np.bincount(2 * label.astype(np.uint8) + pred.astype(np.uint8), minlength=4)
        tn, fp, fn, tp = (int(count) for count in cells)
        return cls(tn, fp, fn, tp)

    def __add__(self, other: ConfusionCounts) -> ConfusionCounts:
        """Pool the counts of two maps."""
        return ConfusionCounts(self.tn + other.tn, self.fp + other.fp, self.fn + other.fn, self.tp + other.tp)

    @property
    def total(self) -> int:
        """Number of pixels that count."""
        return self.tn + self.fp + self.fn + self.tp

    @property
    def iou(self) -> float:
        """Intersection over union of the changed class (IoU^c)."""
        return _ratio(self.tp, self.tp + self.fp + self.fn)

    @property
    def f1(self) -> float:
        """F1 (Dice) of the changed class: 2 IoU / (1 + IoU)."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def precision(self) -> float:
        """Share of the pixels called changed that are."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """Share of the changed pixels that are found."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def accuracy(self) -> float:
        """Share of all pixels that are right; high on any map where change is rare."""
        return _ratio(self.tp + self.tn, self.total)

    @property
    def kappa(self) -> float:
        """Cohen's kappa: agreement beyond that of two independent maps with the same shares of change."""
        chance = (self.tp + self.fp) * (self.tp + self.fn) + (self.tn + self.fp) * (self.tn + self.fn)
        return _ratio((self.tp + self.tn) * self.total - chance, self.total**2 - chance)

    def scores(self) -> dict[str, float]:
        """Return all scores by name."""
        return {name: getattr(self, name) for name in SCORE_NAMES}


SCORE_NAMES = ("iou", "f1", "precision", "recall", "kappa", "accuracy")


def bootstrap_interval(
    counts: Sequence[ConfusionCounts],
    *,
    score: str = "iou",
    resamples: int = 1000,
    level: float = 0.95,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Return the bootstrap interval of a pooled score: how far it depends on which pairs are in the set.

    Args:
        counts: one `ConfusionCounts` per pair (per tile, where pairs of one tile resemble each other).
        score: one of `SCORES`.
        resamples: how often as many pairs are drawn, with replacement.
        level: share of the rounds inside the interval.
        rng: source of all randomness.

    Raises:
        ValueError: no counts, or an unknown score.
    """
    if not counts or score not in SCORE_NAMES:
        raise ValueError(f"{len(counts)} counts, score '{score}'; at least one and one of {SCORE_NAMES} are wanted")
    cells_N4 = np.array([[each.tn, each.fp, each.fn, each.tp] for each in counts], np.int64)
    drawn_RN = rng.integers(0, len(counts), (resamples, len(counts)))
    pooled = [ConfusionCounts(*(int(count) for count in cells_N4[rows].sum(axis=0))) for rows in drawn_RN]
    values = np.array([getattr(each, score) for each in pooled])
    if np.isnan(values).all():
        return math.nan, math.nan
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


# ------------------------------------------------------------------------------------------------ objects
@dataclass(frozen=True)
class ObjectCounts:
    """Counts of objects; add them up over pairs, then ask for scores.

    Attributes:
        predicted: objects in the prediction.
        actual: objects in the truth.
        matched: pairs of one predicted and one actual object whose IoU reaches the threshold; each is used once.
        predicted_touching: predicted objects that share a pixel with an actual one.
        actual_touched: actual objects that share a pixel with a predicted one.
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
        return _ratio(self.matched, self.predicted)

    @property
    def recall(self) -> float:
        """Share of the actual objects that are matched."""
        return _ratio(self.matched, self.actual)

    @property
    def f1(self) -> float:
        """F1 over matched objects."""
        return _ratio(2 * self.matched, self.predicted + self.actual)

    @property
    def any_precision(self) -> float:
        """Share of the predicted objects that touch an actual one."""
        return _ratio(self.predicted_touching, self.predicted)

    @property
    def any_recall(self) -> float:
        """Share of the actual objects that a predicted one touches."""
        return _ratio(self.actual_touched, self.actual)

    @property
    def any_f1(self) -> float:
        """Harmonic mean of `any_precision` and `any_recall`."""
        return _harmonic_mean(self.any_precision, self.any_recall)


def count_objects(
    pred_HW: BinaryMap, truth_HW: BinaryMap, *, min_iou: float = 0.5, min_area_px: int = 1, ignore: int = 255
) -> ObjectCounts:
    """Compare the objects (8-connected regions) of two change maps.

    Args:
        pred_HW: 0 or False unchanged, 1 or True changed, `ignore` no answer.
        truth_HW: the same of the truth; pixels to ignore in either map belong to no object.
        min_iou: IoU from which two objects match; pairs are taken in falling IoU, each object once.
        min_area_px: smaller objects are left out of both maps.
        ignore: value of a pixel that does not count.

    Raises:
        ValueError: the shapes differ.
    """
    pred, truth = np.asarray(pred_HW), np.asarray(truth_HW)
    if pred.shape != truth.shape or pred.ndim != 2:
        raise ValueError(f"prediction {pred.shape} and truth {truth.shape} must be two maps of one size")
    counted = (pred != ignore) & (truth != ignore)
    found_HW, pred_areas = _label_objects((pred != 0) & counted, min_area_px)
    real_HW, truth_areas = _label_objects((truth != 0) & counted, min_area_px)
    overlaps = ObjectOverlaps(len(pred_areas), len(truth_areas))
    overlaps.add(found_HW, real_HW)
    return overlaps.match(min_iou=min_iou).counts


@dataclass(frozen=True)
class ObjectMatches:
    """What became of each object, index = its number - 1.

    Attributes:
        counts: the counts.
        pred_area_px: pixels of each predicted object; 0: not on the map.
        truth_area_px: the same of the actual ones.
        pred_matched: bool, predicted objects with a partner of sufficient IoU.
        truth_matched: the same of the actual ones.
        pred_touching: bool, predicted objects that share a pixel with an actual one.
        truth_touched: the same of the actual ones.
    """

    counts: ObjectCounts
    pred_area_px: NDArray[np.int64]
    truth_area_px: NDArray[np.int64]
    pred_matched: NDArray[np.bool_]
    truth_matched: NDArray[np.bool_]
    pred_touching: NDArray[np.bool_]
    truth_touched: NDArray[np.bool_]


class ObjectOverlaps:
    """Counts how many pixels the objects of two maps share, strip by strip, so that the maps need not fit in memory."""

    def __init__(self, pred_count: int, truth_count: int) -> None:
        """Begin with no pixel; the counts are the greatest object numbers of the two maps."""
        self.pred_area_px = np.zeros(pred_count + 1, np.int64)
        self.truth_area_px = np.zeros(truth_count + 1, np.int64)
        self._keys: list[NDArray[np.int64]] = []
        self._shared: list[NDArray[np.int64]] = []

    def add(self, pred_HW: NDArray[np.integer[Any]], truth_HW: NDArray[np.integer[Any]]) -> None:
        """Count a strip of both maps: object numbers from 1, 0 where there is none (or nothing counts)."""
        self.pred_area_px += np.bincount(pred_HW.ravel(), minlength=len(self.pred_area_px))
        self.truth_area_px += np.bincount(truth_HW.ravel(), minlength=len(self.truth_area_px))
        both = (pred_HW > 0) & (truth_HW > 0)
        keys = pred_HW[both].astype(np.int64) * len(self.truth_area_px) + truth_HW[both]
        unique, counts = np.unique(keys, return_counts=True)
        self._keys.append(unique)
        self._shared.append(counts.astype(np.int64))

    def match(self, *, min_iou: float = 0.5) -> ObjectMatches:
        """Pair the objects in falling IoU, from `min_iou` on, each once; objects without a pixel don't count."""
        keys, where = np.unique(np.concatenate([np.zeros(0, np.int64), *self._keys]), return_inverse=True)
        shared = np.zeros(len(keys), np.int64)
        np.add.at(shared, where, np.concatenate([np.zeros(0, np.int64), *self._shared]))
        found, real = keys // len(self.truth_area_px), keys % len(self.truth_area_px)
        iou = shared / (self.pred_area_px[found] + self.truth_area_px[real] - shared)
        pairs = _match_objects(found, real, iou, min_iou=min_iou)
        flags = [
            _flag_numbers([pred for pred, _ in pairs], len(self.pred_area_px)),
            _flag_numbers([truth for _, truth in pairs], len(self.truth_area_px)),
            _flag_numbers(found, len(self.pred_area_px)),
            _flag_numbers(real, len(self.truth_area_px)),
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
    """Return, for the objects 1 ... count - 1, whether each is among the numbers."""
    flags = np.zeros(count, bool)
    flags[np.asarray(numbers, np.int64)] = True
    return flags[1:]


def _label_objects(mask_HW: NDArray[np.bool_], min_area_px: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return a map of object numbers from 1, and each object's area in px."""
    import cv2

    _, numbers_HW = cv2.connectedComponents(np.ascontiguousarray(mask_HW).view(np.uint8), connectivity=8)
    areas = np.bincount(numbers_HW.ravel())
    kept = areas >= min_area_px
    kept[0] = False  # the background
    renumbered = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    return renumbered[numbers_HW], areas[kept]


def _match_objects(
    found: NDArray[np.int64], real: NDArray[np.int64], iou: NDArray[np.float64], *, min_iou: float
) -> list[tuple[int, int]]:
    """Return the matches, best first, each object once."""
    used_found: set[int] = set()
    used_real: set[int] = set()
    pairs: list[tuple[int, int]] = []
    for index in np.argsort(-iou, kind="stable"):
        pair = int(found[index]), int(real[index])
        if iou[index] < min_iou:
            break
        if pair[0] not in used_found and pair[1] not in used_real:
            used_found.add(pair[0])
            used_real.add(pair[1])
            pairs.append(pair)
    return pairs
