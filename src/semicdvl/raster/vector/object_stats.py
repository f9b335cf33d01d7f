"""Statistics of changed objects, summed over their pixels, and the kinds of change that follow from them.

Statistics come in parts where an object crosses several strips of a map. An object is classified by the majority class
of either date: appeared, disappeared, replaced, changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semicdvl.raster.connected_components import LabelledObjects, find_first_blocks
from semicdvl.types import ChangeMap

CHANGE_KINDS = ("appeared", "disappeared", "replaced", "changed")
UNSURE = "unsure"
"""In place of a class that is only a guess."""
FOREGROUND_SCORE = 0.5
"""Mean score from which a class that was searched for is named, unless a lower one is asked for."""


@dataclass(frozen=True)
class ObjectStats:
    """Statistics of N objects, or of parts of objects.

    Attributes:
        first_block_N: position of each one's beginning, see `connected_components.find_first_blocks`.
        area_N: pixels.
        score_sum_N: sum of the scores.
        score_max_N: greatest score.
        class_px_2NK: pixels of each of K classes at either date; K is 0 for a method without classes.
        box_N4: top, left, bottom, right, ends excluded.
        probability_sum_N: sum of the probabilities of change; NaN where unknown, 0 for a method without them.
        class_score_2NK: sum of the scores of the pixels of each class at either date; 0 for classes without scores.
    """

    first_block_N: NDArray[np.int64]
    area_N: NDArray[np.int64]
    score_sum_N: NDArray[np.float64]
    score_max_N: NDArray[np.float64]
    class_px_2NK: NDArray[np.int64]
    box_N4: NDArray[np.int64]
    probability_sum_N: NDArray[np.float64]
    class_score_2NK: NDArray[np.float64]

    def select(self, chosen: NDArray[Any]) -> ObjectStats:
        """Return the statistics of some of the objects, by a mask or by indices."""
        return ObjectStats(
            self.first_block_N[chosen], self.area_N[chosen], self.score_sum_N[chosen], self.score_max_N[chosen],
            self.class_px_2NK[:, chosen], self.box_N4[chosen], self.probability_sum_N[chosen],
            self.class_score_2NK[:, chosen],
        )  # fmt: skip

    def merge(self) -> ObjectStats:
        """Return the statistics of all parts taken as one object."""
        box_N4 = self.box_N4
        return ObjectStats(
            self.first_block_N.min(keepdims=True), self.area_N.sum(keepdims=True),
            self.score_sum_N.sum(keepdims=True), self.score_max_N.max(keepdims=True),
            self.class_px_2NK.sum(axis=1, keepdims=True),
            np.concatenate([box_N4[:, :2].min(axis=0), box_N4[:, 2:].max(axis=0)])[None],
            self.probability_sum_N.sum(keepdims=True), self.class_score_2NK.sum(axis=1, keepdims=True),
        )  # fmt: skip


def concatenate_stats(parts: Sequence[ObjectStats], *, classes: int) -> ObjectStats:
    """Concatenate statistics; `classes` is the number of classes, needed where there is no part."""
    none = np.zeros(0, np.int64)
    empty = ObjectStats(
        none, none, np.zeros(0), np.zeros(0), np.zeros((2, 0, classes), np.int64), none.reshape(0, 4), np.zeros(0),
        np.zeros((2, 0, classes)),
    )  # fmt: skip
    every = [empty, *parts]
    return ObjectStats(
        np.concatenate([part.first_block_N for part in every]), np.concatenate([part.area_N for part in every]),
        np.concatenate([part.score_sum_N for part in every]), np.concatenate([part.score_max_N for part in every]),
        np.concatenate([part.class_px_2NK for part in every], axis=1),
        np.concatenate([part.box_N4 for part in every]),
        np.concatenate([part.probability_sum_N for part in every]),
        np.concatenate([part.class_score_2NK for part in every], axis=1),
    )  # fmt: skip


def measure_objects(labels_HW: NDArray[np.int32], change: ChangeMap, *, row: int, classes: int) -> ObjectStats:
    """Measure every label of some rows of a map.

    Args:
        labels_HW: labels 1 ... N of the pixels; 0 is no object.
        change: the rows.
        row: the first of them on the raster.
        classes: number of classes.
    """
    rows, cols = np.nonzero(labels_HW)
    labels = labels_HW[rows, cols]
    count, width = int(labels.max(initial=0)) + 1, labels_HW.shape[1]
    scores = np.nan_to_num(change.score_HW[rows, cols]).astype(np.float64)
    probability_sum = np.zeros(count)
    if change.probability_HW is not None:
        probabilities = change.probability_HW[rows, cols]
        probability_sum = np.bincount(labels, weights=probabilities, minlength=count).astype(np.float64)
    score_max = np.zeros(count)
    np.maximum.at(score_max, labels, scores)
    class_px, class_score = [], []
    for classes_HW, scores_HW in ((change.t1_HW, change.t1_score_HW), (change.t2_HW, change.t2_score_HW)):
        classes_N = None if classes_HW is None else classes_HW[rows, cols]
        weights_N = None if scores_HW is None else scores_HW[rows, cols]
        class_px.append(count_classes(labels, classes_N, count=count, classes=classes).astype(np.int64))
        scored_N = None if weights_N is None else classes_N
        class_score.append(count_classes(labels, scored_N, count=count, classes=classes, weights_N=weights_N))
    box_4N = np.array([np.full(count, labels_HW.size)] * 2 + [np.zeros(count, np.int64)] * 2)
    for axis, positions in enumerate((rows, cols)):
        np.minimum.at(box_4N[axis], labels, positions)
        np.maximum.at(box_4N[2 + axis], labels, positions + 1)
    box_4N[[0, 2]] += row
    return ObjectStats(
        find_first_blocks(labels, rows + row, cols, width=width, count=count)[1:],
        np.bincount(labels, minlength=count)[1:],
        np.bincount(labels, weights=scores, minlength=count)[1:].astype(np.float64),
        score_max[1:],
        np.stack(class_px)[:, 1:],
        box_4N.T[1:],
        probability_sum[1:],
        np.stack(class_score)[:, 1:].astype(np.float64),
    )


def count_classes(
    labels_N: NDArray[np.int32],
    classes_N: NDArray[np.uint8] | None,
    *,
    count: int,
    classes: int,
    weights_N: NDArray[np.float32] | None = None,
) -> NDArray[Any]:
    """Count the pixels that each label (0 included) has of each class, or add up their weights.

    Args:
        labels_N: label of each pixel.
        classes_N: class of each pixel; values from `classes` on are ignored. None: no class is known.
        count: number of labels.
        classes: number of classes.
        weights_N: weight of each pixel; None: 1.
    """
    if classes_N is None or not classes:
        return np.zeros((count, classes), np.int64)
    known = classes_N < classes
    codes = labels_N[known].astype(np.int64) * classes + classes_N[known]
    weights = None if weights_N is None else weights_N[known]
    return np.bincount(codes, weights, minlength=count * classes).reshape(count, classes)


def score_objects(
    objects: LabelledObjects, score_HW: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean and the greatest score of each object, rounded to 4 decimals; NaN counts as 0."""
    inside_HW = objects.labels_HW > 0
    labels = objects.labels_HW[inside_HW]
    scores = np.nan_to_num(score_HW[inside_HW]).astype(np.float64)
    mean = np.bincount(labels, weights=scores, minlength=len(objects) + 1)[1:] / np.maximum(objects.area_px[1:], 1)
    greatest = np.zeros(len(objects) + 1)
    np.maximum.at(greatest, labels, scores)
    return np.round(mean, 4), np.round(greatest[1:], 4)


def find_majority_classes(
    objects: LabelledObjects, classes_HW: NDArray[np.uint8] | None, count: int, foreground: Sequence[int]
) -> list[int | None]:
    """Return the majority class of each object at one date; None where no class is known.

    Args:
        objects: the objects.
        classes_HW: class of each pixel; values from `count` on are ignored. None for a method without classes.
        count: number of classes.
        foreground: the classes of interest; see `pick_majority_classes`.
    """
    if classes_HW is None or count == 0:
        return [None] * len(objects)
    inside_HW = objects.labels_HW > 0
    labels_N, classes_N = objects.labels_HW[inside_HW], classes_HW[inside_HW]
    class_px_NK = count_classes(labels_N, classes_N, count=len(objects) + 1, classes=count)[1:]
    return pick_majority_classes(class_px_NK, foreground)


def pick_majority_classes(class_px_NK: NDArray[np.int64], foreground: Sequence[int]) -> list[int | None]:
    """Return the majority class of each object from the pixels that it has of each class; None where it has none.

    First the larger of foreground and background is chosen, then its most frequent class: an object of 35 % house,
    25 % building and 40 % road is a house if house and building are the foreground.
    """
    is_foreground = np.isin(np.arange(class_px_NK.shape[1]), list(foreground))
    mostly_foreground = class_px_NK[:, is_foreground].sum(axis=1) >= class_px_NK[:, ~is_foreground].sum(axis=1)
    eligible = np.where(mostly_foreground[:, None] == is_foreground, class_px_NK, -1)
    best = eligible.argmax(axis=1)
    return [int(index) if row.any() else None for index, row in zip(best, class_px_NK, strict=True)]


def score_classes(
    class_N: Sequence[int | None],
    class_score_NK: NDArray[np.float64],
    area_N: NDArray[np.int64],
    foreground: Sequence[int],
) -> NDArray[np.float64]:
    """Return how well the class of each object is supported: the mean over its pixels of the score of that class.

    Pixels of another class count as 0, so that both an answer of low score and a mixed one are worth less. The classes
    that were searched for are synonyms of each other and add up. NaN where an object has no class.
    """
    is_foreground = np.isin(np.arange(class_score_NK.shape[1]), list(foreground))
    foreground_N = class_score_NK[:, is_foreground].sum(axis=1)
    sums = [
        np.nan if one is None else foreground_N[at] if is_foreground[one] else class_score_NK[at, one]
        for at, one in enumerate(class_N)
    ]
    return np.round(np.array(sums, np.float64) / np.maximum(area_N, 1), 4)


def is_named(one: int | None, score: float, *, least_score: float, foreground: Sequence[int]) -> bool:
    """Tell whether the class of an object is more than a guess: see `types.ChangeMap.class_score`."""
    least = min(least_score, FOREGROUND_SCORE) if one in foreground else least_score
    return one is not None and not score < least  # NaN: classes without scores are named


def classify_change(from_class: int | None, to_class: int | None, foreground: Sequence[int]) -> str:
    """Return the kind of a change, one of `CHANGE_KINDS`, from the classes of both dates."""
    if from_class is None or to_class is None or not foreground:
        return "changed"
    before, after = from_class in foreground, to_class in foreground
    if before and after:
        return "replaced"
    return "appeared" if after else "disappeared" if before else "changed"
