"""Score a change map against the truth by pixel, pooled over a whole set of pairs.

Counts are added first and divided last: the score of a set is the score of its pooled counts, never a mean over pairs.
A score that the counts don't define (0 / 0) is NaN, not 0 and not 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BinaryMap = NDArray[np.bool_] | NDArray[np.integer[Any]]
"""A change map or its truth: 0 or False unchanged, 1 or True changed; integer maps may hold an ignore value."""

SCORE_NAMES = ("iou", "f1", "precision", "recall", "kappa", "accuracy")


@dataclass(frozen=True)
class ConfusionCounts:
    """Pixel counts of the changed class against the truth; add them up over pairs, then read the scores.

    Attributes:
        tn: true negatives: unchanged in both maps.
        fp: false positives: predicted as changed, unchanged in the truth.
        fn: false negatives: predicted as unchanged, changed in the truth.
        tp: true positives: changed in both maps.
    """

    tn: int = 0
    fp: int = 0
    fn: int = 0
    tp: int = 0

    @classmethod
    def from_maps(cls, pred_HW: BinaryMap, label_HW: BinaryMap, *, ignore: int = 255) -> ConfusionCounts:
        """Count the pixels of one map, or of a stack of maps.

        Args:
            pred_HW: the prediction: 0 or False unchanged, 1 or True changed, `ignore` no prediction (no data).
            label_HW: the truth, of the same shape and with the same values.
            ignore: a pixel with this value in either map is not counted.

        Raises:
            ValueError: the shapes differ, or a map holds another value.
        """
        pred, label = np.asarray(pred_HW), np.asarray(label_HW)
        if pred.shape != label.shape:
            raise ValueError(f"prediction {pred.shape} and label {label.shape} differ in shape")
        counted = (pred != ignore) & (label != ignore)
        pred, label = pred[counted], label[counted]
        for name, values in (("prediction", pred), ("label", label)):
            if values.size and (values.max() > 1 or values.min() < 0):
                raise ValueError(f"{name} holds {values.max()}; only 0, 1 and {ignore} are allowed")
        cells = np.bincount(2 * label.astype(np.uint8) + pred.astype(np.uint8), minlength=4)
        tn, fp, fn, tp = (int(count) for count in cells)
        return cls(tn, fp, fn, tp)

    def __add__(self, other: ConfusionCounts) -> ConfusionCounts:
        """Pool the counts of two maps."""
        return ConfusionCounts(self.tn + other.tn, self.fp + other.fp, self.fn + other.fn, self.tp + other.tp)

    @property
    def total(self) -> int:
        """Number of counted pixels."""
        return self.tn + self.fp + self.fn + self.tp

    @property
    def iou(self) -> float:
        """Intersection over union of the changed class (IoU^c): tp / (tp + fp + fn)."""
        return divide_counts(self.tp, self.tp + self.fp + self.fn)

    @property
    def f1(self) -> float:
        """F1 (Dice) of the changed class (F1^c): 2 tp / (2 tp + fp + fn) = 2 IoU / (1 + IoU)."""
        return divide_counts(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def precision(self) -> float:
        """Share of the pixels predicted as changed that are changed: tp / (tp + fp)."""
        return divide_counts(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """Share of the changed pixels that are predicted as changed: tp / (tp + fn)."""
        return divide_counts(self.tp, self.tp + self.fn)

    @property
    def accuracy(self) -> float:
        """Share of all pixels that are right, (tp + tn) / total; high on any map where change is rare."""
        return divide_counts(self.tp + self.tn, self.total)

    @property
    def kappa(self) -> float:
        """Cohen's kappa: agreement beyond that of two independent maps with the same shares of change."""
        chance = (self.tp + self.fp) * (self.tp + self.fn) + (self.tn + self.fp) * (self.tn + self.fn)
        return divide_counts((self.tp + self.tn) * self.total - chance, self.total**2 - chance)

    def list_scores(self) -> dict[str, float]:
        """Return the scores of `SCORE_NAMES` by name."""
        return {name: getattr(self, name) for name in SCORE_NAMES}

    def list_meaningful_scores(self) -> dict[str, float]:
        """Return the scores by name, for a report: those that say how well change is found are NaN without any change.

        IoU, F1 and kappa of a map with one false alarm are 0 by their formulas, as if all change had been missed.
        """
        scores = self.list_scores()
        if self.tp + self.fn == 0:
            scores |= dict.fromkeys(("iou", "f1", "recall", "kappa"), math.nan)
        return scores


def divide_counts(part: float, total: float) -> float:
    """Return part / total, NaN for 0 / 0."""
    return part / total if total else math.nan
