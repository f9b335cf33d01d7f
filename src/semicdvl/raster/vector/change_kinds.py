"""Classify changed objects by the majority class of either date: appeared, disappeared, replaced, changed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from semicdvl.raster.connected_components import LabelledObjects
from semicdvl.raster.vector.object_stats import count_classes

CHANGE_KINDS = ("appeared", "disappeared", "replaced", "changed")


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


def classify_change(from_class: int | None, to_class: int | None, foreground: Sequence[int]) -> str:
    """Return the kind of a change, one of `CHANGE_KINDS`, from the classes of both dates."""
    if from_class is None or to_class is None or not foreground:
        return "changed"
    before, after = from_class in foreground, to_class in foreground
    if before and after:
        return "replaced"
    return "appeared" if after else "disappeared" if before else "changed"
