"""Score what changed into what: the measures of semantic change detection, from one confusion matrix.

Every pixel has two class maps, one per date, in which 0 means *unchanged* and 1..K are the classes. A pixel predicted
as unchanged has 0 in both predicted maps, whatever its classes were. The confusion matrix pools both dates' maps over
all pairs: rows predicted, columns true. Counts are added first and divided last, and a score that the counts don't
define (0 / 0) is NaN.

Sources: Yang et al., Asymmetric Siamese Networks for Semantic Change Detection (2020/21; SECOND) for mIoU, SeK and
Score; Ding et al., Bi-Temporal Semantic Reasoning for the Semantic Change Detection in HR Remote Sensing Images (2022)
for F_scd. Where the public evaluation code says 0 for a kappa that is 0 / 0, we say NaN. All scores are fractions, not
per cent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semicdvl.metrics.change import divide_counts

ClassMap = NDArray[np.integer[Any]]
"""Classes 0..K-1 of one date, and `ignore` where the class is not known."""


@dataclass(frozen=True)
class SemanticScores:
    """Scores of a semantic change map, fractions in [0, 1] (SeK can be below 0); NaN where the counts don't define one.

    Attributes:
        miou: mean of `iou_unchanged` and `iou_changed`.
        sek: separated kappa: Cohen's kappa without the pixels that both maps call unchanged, times
            exp(iou_changed - 1), so that a map must find change and name it.
        score: 0.3 miou + 0.7 sek.
        f_scd: harmonic mean of `precision_scd` and `recall_scd`.
        overall_accuracy: share of all pixels that are right.
        iou_unchanged: IoU of unchanged ground.
        iou_changed: IoU of changed ground, whatever its classes.
        precision_scd: share of the pixels predicted as changed whose class is right.
        recall_scd: share of the changed pixels whose class is right.
        class_iou: IoU of each class 1..K over changed ground.

    Examples:
        >>> from semicdvl.metrics.semantic import semantic_scores
        >>> scores = semantic_scores([[90, 2, 0], [1, 4, 1], [0, 0, 2]])
        >>> round(scores.miou, 4), round(scores.f_scd, 4)
        (0.8339, 0.7059)
    """

    miou: float
    sek: float
    score: float
    f_scd: float
    overall_accuracy: float
    iou_unchanged: float
    iou_changed: float
    precision_scd: float
    recall_scd: float
    class_iou: tuple[float, ...]

    def list_scores(self) -> dict[str, float]:
        """Return the scores by name, without those of single classes."""
        return {name: value for name, value in vars(self).items() if name != "class_iou"}


def semantic_scores(confusion: ArrayLike) -> SemanticScores:
    """Compute the scores of semantic change detection from a confusion matrix.

    Args:
        confusion: (K + 1) x (K + 1) counts: row = predicted, column = true, index 0 = unchanged, 1..K the classes.

    Raises:
        ValueError: the matrix is not square, smaller than 2 x 2, or holds a count that is negative or not finite.
    """
    counts_KK = _check_confusion(confusion)
    total, both_unchanged = counts_KK.sum(), counts_KK[0, 0]
    rows_K, columns_K, right_K = counts_KK.sum(axis=1), counts_KK.sum(axis=0), np.diag(counts_KK)
    iou_unchanged = _divide(both_unchanged, rows_K[0] + columns_K[0] - both_unchanged)
    iou_changed = _divide(counts_KK[1:, 1:].sum(), total - both_unchanged)
    kappa = _kappa_without_unchanged(counts_KK)
    miou, sek = (iou_unchanged + iou_changed) / 2, kappa * math.exp(iou_changed - 1)
    right = right_K[1:].sum()
    precision, recall = _divide(right, rows_K[1:].sum()), _divide(right, columns_K[1:].sum())
    return SemanticScores(
        miou=miou,
        sek=sek,
        score=0.3 * miou + 0.7 * sek,
        f_scd=_divide(2 * right, rows_K[1:].sum() + columns_K[1:].sum()),
        overall_accuracy=_divide(right_K.sum(), total),
        iou_unchanged=iou_unchanged,
        iou_changed=iou_changed,
        precision_scd=precision,
        recall_scd=recall,
        class_iou=tuple(_divide(right_K[k], rows_K[k] + columns_K[k] - right_K[k]) for k in range(1, len(rows_K))),
    )


def _divide(part: float, total: float) -> float:
    """Return part / total as a plain number, NaN for 0 / 0."""
    return float(divide_counts(part, total))


def _check_confusion(confusion: ArrayLike) -> NDArray[np.float64]:
    """Return the counts as float64."""
    counts_KK = np.asarray(confusion, np.float64)
    if counts_KK.ndim != 2 or counts_KK.shape[0] != counts_KK.shape[1] or len(counts_KK) < 2:
        raise ValueError(f"a confusion matrix of shape {counts_KK.shape}; (K + 1) x (K + 1) with K >= 1 is needed")
    if not np.isfinite(counts_KK).all() or counts_KK.min() < 0:
        raise ValueError("a confusion matrix holds a count that is negative or not finite")
    return counts_KK


def _kappa_without_unchanged(counts_KK: NDArray[np.float64]) -> float:
    """Return Cohen's kappa of the matrix with the pixels that both call unchanged set to 0."""
    rest_KK = counts_KK.copy()
    rest_KK[0, 0] = 0
    total = rest_KK.sum()
    if not total:
        return math.nan
    observed = np.trace(rest_KK) / total
    chance = float(rest_KK.sum(axis=1) @ rest_KK.sum(axis=0)) / total**2
    return _divide(observed - chance, 1 - chance)


@dataclass(frozen=True)
class SemanticCounts:
    """Pixel counts of a semantic change map against the truth; add them up over pairs, then read the scores.

    Attributes:
        t1_KK: confusion matrix of date 1: row = predicted, column = true, index 0 = unchanged, 1..K the classes.
        t2_KK: confusion matrix of date 2.
        transitions_KK: pixels by predicted class at date 1 (row, 0..K-1) and date 2 (column), where predicted changed.
        true_transitions_KK: the same of the truth.
        right_transitions: pixels that are changed in both maps and whose classes of both dates are right.
        changed_same_class: pixels predicted as changed with the same class at both dates.
        unchanged_other_class: pixels predicted as unchanged whose predicted classes differ.
    """

    t1_KK: NDArray[np.int64]
    t2_KK: NDArray[np.int64]
    transitions_KK: NDArray[np.int64]
    true_transitions_KK: NDArray[np.int64]
    right_transitions: int = 0
    changed_same_class: int = 0
    unchanged_other_class: int = 0

    @classmethod
    def from_maps(
        cls,
        change_HW: NDArray[np.integer[Any]],
        classes_t1_HW: ClassMap,
        classes_t2_HW: ClassMap,
        *,
        true_change_HW: NDArray[np.integer[Any]],
        true_t1_HW: ClassMap,
        true_t2_HW: ClassMap,
        class_count: int,
        ignore: int = 255,
    ) -> SemanticCounts:
        """Count the pixels of one pair, or of a stack of pairs.

        A pixel is counted where change is known in both maps and, where the truth says changed, the true classes of
        both dates are. A predicted class that is `ignore` on changed ground is counted as wrong.

        Args:
            change_HW: predicted change: 0, 1, or `ignore` where there is no prediction.
            classes_t1_HW: predicted classes 0..K-1 at date 1, or `ignore`.
            classes_t2_HW: the same at date 2.
            true_change_HW: true change: 0, 1, or `ignore`.
            true_t1_HW: true classes at date 1; they need be known on changed ground only.
            true_t2_HW: the same at date 2.
            class_count: number K of classes.
            ignore: value of unknown pixels.

        Raises:
            ValueError: shapes differ, or a class is K or more.
        """
        maps = [
            np.asarray(m) for m in (change_HW, classes_t1_HW, classes_t2_HW, true_change_HW, true_t1_HW, true_t2_HW)
        ]
        if len({m.shape for m in maps}) != 1:
            raise ValueError(f"maps of the shapes {[m.shape for m in maps]}; all must be one size")
        for m in (maps[1], maps[2], maps[4], maps[5]):
            known = m[m != ignore]
            if known.size and not 0 <= known.min() <= known.max() < class_count:
                raise ValueError(f"a class map holds {known.max()}; classes are 0 to {class_count - 1} and {ignore}")
        truly_changed = maps[3] == 1
        known_classes = (maps[4] != ignore) & (maps[5] != ignore)
        counted = (maps[0] != ignore) & (maps[3] != ignore) & (~truly_changed | known_classes)
        change, c1, c2, truth, true1, true2 = (m[counted].astype(np.int64) for m in maps)
        return _count_pixels(change == 1, (c1, c2), truth == 1, (true1, true2), classes=class_count, ignore=ignore)

    def __add__(self, other: SemanticCounts) -> SemanticCounts:
        """Pool the counts of two maps.

        Raises:
            ValueError: the numbers of classes differ.
        """
        if self.t1_KK.shape != other.t1_KK.shape:
            raise ValueError(f"counts of {len(self.t1_KK) - 1} and of {len(other.t1_KK) - 1} classes cannot be pooled")
        return SemanticCounts(**{name: value + getattr(other, name) for name, value in vars(self).items()})

    @classmethod
    def make_empty(cls, class_count: int) -> SemanticCounts:
        """Return the counts of no pixel."""
        return cls.from_numbers([0] * (2 * (class_count + 1) ** 2 + 2 * class_count**2 + 3), class_count=class_count)

    def to_numbers(self) -> list[int]:
        """Return all counts in a row, so that other processes' can be added."""
        return [int(number) for value in vars(self).values() for number in np.ravel(value)]

    @classmethod
    def from_numbers(cls, numbers: Sequence[int], *, class_count: int) -> SemanticCounts:
        """Return the counts of `to_numbers`."""
        sides = (class_count + 1, class_count + 1, class_count, class_count)
        ends = np.cumsum([side**2 for side in sides])
        *parts, (right, same, other) = np.split(np.asarray(numbers, np.int64), ends)
        matrices = [part.reshape(side, side) for part, side in zip(parts, sides, strict=True)]
        return cls(matrices[0], matrices[1], matrices[2], matrices[3], int(right), int(same), int(other))

    @property
    def scores(self) -> SemanticScores:
        """The scores of both dates' maps together."""
        return semantic_scores(self.t1_KK + self.t2_KK)

    @property
    def class_iou_by_date(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """IoU of each class over changed ground, at date 1 and at date 2."""
        return semantic_scores(self.t1_KK).class_iou, semantic_scores(self.t2_KK).class_iou


def _count_pixels(
    changed_N: NDArray[np.bool_],
    classes_N: tuple[NDArray[np.int64], NDArray[np.int64]],
    true_changed_N: NDArray[np.bool_],
    true_classes_N: tuple[NDArray[np.int64], NDArray[np.int64]],
    *,
    classes: int,
    ignore: int,
) -> SemanticCounts:
    """Count known pixels; a predicted class that is not known counts as the one after the true class: as wrong."""
    confusions, predicted = [], []
    for found_N, true_N in zip(classes_N, true_classes_N, strict=True):
        wrong_N = (np.where(true_N == ignore, 0, true_N) + 1) % classes
        found_N = np.where(found_N == ignore, wrong_N, found_N)
        predicted.append(found_N)
        rows_N, columns_N = np.where(changed_N, found_N + 1, 0), np.where(true_changed_N, true_N + 1, 0)
        cells = np.bincount(rows_N * (classes + 1) + columns_N, minlength=(classes + 1) ** 2)
        confusions.append(cells.reshape(classes + 1, classes + 1))
    (first_N, second_N), (true_first_N, true_second_N) = predicted, true_classes_N
    known_N = (classes_N[0] != ignore) & (classes_N[1] != ignore)
    right_N = changed_N & true_changed_N & known_N & (first_N == true_first_N) & (second_N == true_second_N)
    return SemanticCounts(
        confusions[0],
        confusions[1],
        _cross_tabulate(first_N, second_N, where_N=changed_N & known_N, classes=classes),
        _cross_tabulate(true_first_N, true_second_N, where_N=true_changed_N, classes=classes),
        int(right_N.sum()),
        int((changed_N & known_N & (first_N == second_N)).sum()),
        int((~changed_N & known_N & (first_N != second_N)).sum()),
    )


def _cross_tabulate(
    first_N: NDArray[np.int64], second_N: NDArray[np.int64], *, where_N: NDArray[np.bool_], classes: int
) -> NDArray[np.int64]:
    """Count pixels by two classes."""
    cells = np.bincount(first_N[where_N] * classes + second_N[where_N], minlength=classes**2)
    return cells.reshape(classes, classes)
