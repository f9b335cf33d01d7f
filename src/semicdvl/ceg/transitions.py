"""Transitions: the class of every changed object at date 1 and at date 2, with its change score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semicdvl.ceg.prompts import Prompts
from semicdvl.ceg.rules import compute_change_score
from semicdvl.errors import DataError
from semicdvl.raster.connected_components import LabelledObjects, find_objects
from semicdvl.raster.vector.object_stats import (
    UNSURE,
    classify_change,
    count_classes,
    find_majority_classes,
    is_named,
    score_classes,
    score_objects,
)
from semicdvl.types import Segments, VLMLabels


@dataclass(frozen=True)
class ChangeObject:
    """One 8-connected object of a change label.

    Attributes:
        number: its value in the label image of the objects, from 1, numbered from the top left.
        kind: appeared (background -> foreground), disappeared, replaced (foreground -> foreground) or changed.
        from_class: its prompt at date 1: of the concept with more pixels, the most frequent prompt; or "unsure".
        to_class: its prompt at date 2.
        score: mean change score over its pixels, see `rules.compute_change_score`.
        area_px: number of its pixels.
        box_px: (row, col, height, width).
    """

    number: int
    kind: str
    from_class: str
    to_class: str
    score: float
    area_px: int
    box_px: tuple[int, int, int, int]

    @property
    def transition(self) -> str:
        """The transition in words, such as "tree -> building"."""
        return f"{self.from_class} -> {self.to_class}"


def list_change_objects(
    labels: VLMLabels, t1: Segments, t2: Segments, *, prompts: Prompts, min_area_px: int = 0, class_score: float = 0.0
) -> list[ChangeObject]:
    """List the changed objects of a pair's label.

    The same rule as for the polygons of `detect`, which use `raster.vector.files`.

    Args:
        labels: labels of the pair.
        t1: the answer for date 1, with the maps of all `prompts`, in their order.
        t2: the answer for date 2.
        prompts: the prompts of the answers.
        min_area_px: smaller objects are omitted.
        class_score: mean score from which a class is named and not "unsure"; 0: always. A prompt of the foreground is
            named from `raster.vector.object_stats.FOREGROUND_SCORE` on, if that is lower.

    Raises:
        DataError: the score maps do not fit the labels or the prompts.
    """
    wanted = (len(prompts.words), *labels.change_HW.shape)
    if t1.scores_CHW.shape != wanted or t2.scores_CHW.shape != wanted:
        shapes = f"{t1.scores_CHW.shape} and {t2.scores_CHW.shape}"
        raise DataError(
            f"answers have the shapes {shapes}, but {wanted} is needed: one map per prompt, of the labels' size."
        )
    found = find_objects(labels.change_HW, min_area_px=min_area_px)
    foreground = prompts.foreground
    start, end = (
        find_majority_classes(
            found, segments.scores_CHW.argmax(axis=0).astype(np.uint8), len(prompts.words), foreground
        )
        for segments in (t1, t2)
    )
    mean, _ = score_objects(found, compute_change_score(t1.scores_CHW, t2.scores_CHW, foreground=foreground))
    boxes = _bounding_boxes(found.labels_HW)
    support_2N = [
        score_classes(majority, _sum_class_scores(found, segments), found.area_px[1:], foreground)
        for majority, segments in ((start, t1), (end, t2))
    ]
    objects = []
    for at, (was, is_now) in enumerate(zip(start, end, strict=True)):
        assert was is not None and is_now is not None, "every pixel of an answer has a class"
        start_word, end_word = (
            prompts.words[one]
            if is_named(one, float(support_N[at]), least_score=class_score, foreground=foreground)
            else UNSURE
            for one, support_N in zip((was, is_now), support_2N, strict=True)
        )
        area_px = int(found.area_px[at + 1])
        kind = classify_change(was, is_now, foreground)
        objects.append(ChangeObject(at + 1, kind, start_word, end_word, float(mean[at]), area_px, boxes[at]))
    return objects


def _sum_class_scores(found: LabelledObjects, segments: Segments) -> NDArray[np.float64]:
    """Return the sums of the best scores of every object by the prompt that has them."""
    inside_HW = found.labels_HW > 0
    scores_CN = segments.scores_CHW[:, inside_HW]
    sums_NK = count_classes(
        found.labels_HW[inside_HW],
        scores_CN.argmax(axis=0).astype(np.uint8),
        count=len(found) + 1,
        classes=len(scores_CN),
        weights_N=scores_CN.max(axis=0),
    )
    return np.asarray(sums_NK[1:], np.float64)


def _bounding_boxes(labels_HW: NDArray[np.int32]) -> list[tuple[int, int, int, int]]:
    """Return row, col, height, width of every label."""
    from scipy.ndimage import find_objects as slices_of

    return [
        (rows.start, cols.start, rows.stop - rows.start, cols.stop - cols.start) for rows, cols in slices_of(labels_HW)
    ]
