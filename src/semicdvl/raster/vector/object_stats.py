"""What is added up over the pixels of changed objects, part by part where an object goes through several strips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semicdvl.raster.connected_components import find_first_blocks


@dataclass(frozen=True)
class MapStrip:
    """Rows of a change map: see `types.ChangeMap` for the arrays."""

    row: int
    change_HW: NDArray[np.uint8]
    score_HW: NDArray[np.float32]
    t1_HW: NDArray[np.uint8] | None = None
    t2_HW: NDArray[np.uint8] | None = None
    probability_HW: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class ObjectStats:
    """What is added up over the pixels of N objects or parts of objects.

    Attributes:
        first_block_N: where each begins, see `strips.find_first_blocks`.
        area_N: pixels.
        score_sum_N: sum of the scores.
        score_max_N: greatest score.
        class_px_2NK: pixels of each class at either date; K is 0 for a route without classes.
        box_N4: top, left, bottom, right, ends excluded.
        probability_sum_N: sum of the probabilities of change; NaN where it is not known, 0 for a route without.
    """

    first_block_N: NDArray[np.int64]
    area_N: NDArray[np.int64]
    score_sum_N: NDArray[np.float64]
    score_max_N: NDArray[np.float64]
    class_px_2NK: NDArray[np.int64]
    box_N4: NDArray[np.int64]
    probability_sum_N: NDArray[np.float64]

    def select(self, chosen: NDArray[Any]) -> ObjectStats:
        """Return the facts of some of them."""
        return ObjectStats(
            self.first_block_N[chosen], self.area_N[chosen], self.score_sum_N[chosen], self.score_max_N[chosen],
            self.class_px_2NK[:, chosen], self.box_N4[chosen], self.probability_sum_N[chosen],
        )  # fmt: skip

    def merge(self) -> ObjectStats:
        """Return the facts of all of them taken as one object."""
        box_N4 = self.box_N4
        return ObjectStats(
            self.first_block_N.min(keepdims=True), self.area_N.sum(keepdims=True), self.score_sum_N.sum(keepdims=True),
            self.score_max_N.max(keepdims=True), self.class_px_2NK.sum(axis=1, keepdims=True),
            np.concatenate([box_N4[:, :2].min(axis=0), box_N4[:, 2:].max(axis=0)])[None],
            self.probability_sum_N.sum(keepdims=True),
        )  # fmt: skip


def concatenate_stats(parts: Sequence[ObjectStats], *, classes: int) -> ObjectStats:
    """Put the facts of several one after another."""
    none = np.zeros(0, np.int64)
    empty = ObjectStats(
        none, none, np.zeros(0), np.zeros(0), np.zeros((2, 0, classes), np.int64), none.reshape(0, 4), np.zeros(0)
    )
    every = [empty, *parts]
    return ObjectStats(
        np.concatenate([one.first_block_N for one in every]), np.concatenate([one.area_N for one in every]),
        np.concatenate([one.score_sum_N for one in every]), np.concatenate([one.score_max_N for one in every]),
        np.concatenate([one.class_px_2NK for one in every], axis=1), np.concatenate([one.box_N4 for one in every]),
        np.concatenate([one.probability_sum_N for one in every]),
    )  # fmt: skip


def measure_objects(labels_HW: NDArray[np.int32], strip: MapStrip, *, classes: int) -> ObjectStats:
    """Add up what is known of every label of a strip (0 is none)."""
    rows, cols = np.nonzero(labels_HW)
    labels = labels_HW[rows, cols]
    count, width = int(labels.max(initial=0)) + 1, labels_HW.shape[1]
    values = np.nan_to_num(strip.score_HW[rows, cols]).astype(np.float64)
    sure = np.zeros(count)
    if strip.probability_HW is not None:
        sure = np.bincount(labels, weights=strip.probability_HW[rows, cols], minlength=count).astype(np.float64)
    most = np.zeros(count)
    np.maximum.at(most, labels, values)
    tables = [
        _count_classes(labels, None if date_HW is None else date_HW[rows, cols], count=count, classes=classes)
        for date_HW in (strip.t1_HW, strip.t2_HW)
    ]
    box_4N = np.array([np.full(count, labels_HW.size)] * 2 + [np.zeros(count, np.int64)] * 2)
    for axis, at in enumerate((rows, cols)):
        np.minimum.at(box_4N[axis], labels, at)
        np.maximum.at(box_4N[2 + axis], labels, at + 1)
    box_4N[[0, 2]] += strip.row
    return ObjectStats(
        find_first_blocks(labels, rows + strip.row, cols, width=width, count=count)[1:],
        np.bincount(labels, minlength=count)[1:],
        np.bincount(labels, weights=values, minlength=count)[1:].astype(np.float64),
        most[1:],
        np.stack(tables)[:, 1:],
        box_4N.T[1:],
        sure[1:],
    )


def _count_classes(
    labels: NDArray[np.int32], found: NDArray[np.uint8] | None, *, count: int, classes: int
) -> NDArray[np.int64]:
    """Count the pixels that each label has of each class."""
    if found is None or not classes:
        return np.zeros((count, classes), np.int64)
    known = found < classes
    codes = labels[known].astype(np.int64) * classes + found[known]
    return np.bincount(codes, minlength=count * classes).reshape(count, classes)
