"""What is added up over the pixels of changed objects, part by part where an object goes through several strips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semicdvl.raster.vector.connected_components import first_blocks


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
class Facts:
    """What is added up over the pixels of N objects or parts of objects.

    Attributes:
        first_N: where each begins, see `strips.first_blocks`.
        area_N: pixels.
        total_N: sum of the scores.
        most_N: greatest score.
        table_2NK: pixels of each class at either date; K is 0 for a route without classes.
        box_N4: top, left, bottom, right, ends excluded.
        sure_N: sum of the probabilities of change; NaN where it is not known, 0 for a route without.
    """

    first_N: NDArray[np.int64]
    area_N: NDArray[np.int64]
    total_N: NDArray[np.float64]
    most_N: NDArray[np.float64]
    table_2NK: NDArray[np.int64]
    box_N4: NDArray[np.int64]
    sure_N: NDArray[np.float64]

    def some(self, chosen: NDArray[Any]) -> Facts:
        """Return the facts of some of them."""
        return Facts(
            self.first_N[chosen], self.area_N[chosen], self.total_N[chosen], self.most_N[chosen],
            self.table_2NK[:, chosen], self.box_N4[chosen], self.sure_N[chosen],
        )  # fmt: skip

    def joined(self) -> Facts:
        """Return the facts of all of them taken as one object."""
        box_N4 = self.box_N4
        return Facts(
            self.first_N.min(keepdims=True), self.area_N.sum(keepdims=True), self.total_N.sum(keepdims=True),
            self.most_N.max(keepdims=True), self.table_2NK.sum(axis=1, keepdims=True),
            np.concatenate([box_N4[:, :2].min(axis=0), box_N4[:, 2:].max(axis=0)])[None],
            self.sure_N.sum(keepdims=True),
        )  # fmt: skip


def together(parts: Sequence[Facts], *, classes: int) -> Facts:
    """Put the facts of several one after another."""
    none = np.zeros(0, np.int64)
    empty = Facts(
        none, none, np.zeros(0), np.zeros(0), np.zeros((2, 0, classes), np.int64), none.reshape(0, 4), np.zeros(0)
    )
    every = [empty, *parts]
    return Facts(
        np.concatenate([one.first_N for one in every]), np.concatenate([one.area_N for one in every]),
        np.concatenate([one.total_N for one in every]), np.concatenate([one.most_N for one in every]),
        np.concatenate([one.table_2NK for one in every], axis=1), np.concatenate([one.box_N4 for one in every]),
        np.concatenate([one.sure_N for one in every]),
    )  # fmt: skip


def measured(labels_HW: NDArray[np.int32], strip: MapStrip, *, classes: int) -> Facts:
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
        _class_table(labels, None if date_HW is None else date_HW[rows, cols], count=count, classes=classes)
        for date_HW in (strip.t1_HW, strip.t2_HW)
    ]
    box_4N = np.array([np.full(count, labels_HW.size)] * 2 + [np.zeros(count, np.int64)] * 2)
    for axis, at in enumerate((rows, cols)):
        np.minimum.at(box_4N[axis], labels, at)
        np.maximum.at(box_4N[2 + axis], labels, at + 1)
    box_4N[[0, 2]] += strip.row
    return Facts(
        first_blocks(labels, rows + strip.row, cols, width=width, count=count)[1:],
        np.bincount(labels, minlength=count)[1:],
        np.bincount(labels, weights=values, minlength=count)[1:].astype(np.float64),
        most[1:],
        np.stack(tables)[:, 1:],
        box_4N.T[1:],
        sure[1:],
    )


def _class_table(
    labels: NDArray[np.int32], found: NDArray[np.uint8] | None, *, count: int, classes: int
) -> NDArray[np.int64]:
    """Count the pixels that each label has of each class."""
    if found is None or not classes:
        return np.zeros((count, classes), np.int64)
    known = found < classes
    codes = labels[known].astype(np.int64) * classes + found[known]
    return np.bincount(codes, minlength=count * classes).reshape(count, classes)
