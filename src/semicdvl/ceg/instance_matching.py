"""Which objects of a whole raster are change events, from counts: no mask is looked at here.

Whoever sees a raster piece by piece (`strip_events`, `found_objects`) counts how large its objects are and how many
pixels those of the two dates share, under every shift that is tolerated. From the counts follows what `events` says of
the whole masks, to the bit: the same IoUs, summed in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semicdvl.ceg import instance_events
from semicdvl.ceg.config import CEGSettings

IntArray = NDArray[np.int64]
FlagsPerDate = tuple[NDArray[np.bool_], NDArray[np.bool_]]
"""One truth value per object (or per label) of date 1, and of date 2."""


@dataclass(frozen=True)
class ObjectTable:
    """The objects of one date over a whole raster.

    Attributes:
        number_L: object (1 ... N) that a label belongs to: what is seen of an object at one time has one label. 0 for
            none, or one that does not count.
        area_N: pixels with data of each object.
        classes_N: prompt of each, where that is wanted.
    """

    number_L: IntArray
    area_N: IntArray
    classes_N: IntArray


@dataclass(frozen=True)
class EventFlags:
    """What follows from the counts: which objects of either date met nothing, and which were replaced."""

    unmatched: FlagsPerDate
    replaced: FlagsPerDate

    def with_dissimilar_replaced(self, unlike: FlagsPerDate) -> EventFlags:
        """Return the verdict with objects replaced, too, that met something and have other looks."""
        replaced = [
            was | (of_date & ~lone) for was, of_date, lone in zip(self.replaced, unlike, self.unmatched, strict=True)
        ]
        return EventFlags(self.unmatched, (replaced[0], replaced[1]))


def decide_events(table_4N: IntArray, first: ObjectTable, second: ObjectTable, *, settings: CEGSettings) -> EventFlags:
    """Apply delta, shift tolerance, `replaced_iou` and `replaced_class`; looks are added by
    `Verdict.with_dissimilar_replaced`.

    Args:
        table_4N: label of date 1, label of date 2, pixels in common and index of the shift
        (`instance_events.list_shifts`);
        counts
            of the same pair and shift are added up.
        first: objects of date 1.
        second: objects of date 2.
        settings: delta and the options.
    """
    met = match_counted_objects(table_4N, first, second, shift_px=settings.shift_px)
    alone = met.iou_sum_t1_N <= settings.delta, met.iou_sum_t2_M <= settings.delta
    replaced = np.zeros_like(alone[0]), np.zeros_like(alone[1])
    if settings.replaced_iou is not None or settings.replaced_class:
        classes = (first.classes_N, second.classes_N) if settings.replaced_class else None
        replaced = instance_events.find_replaced(met, classes, least_iou=settings.replaced_iou)
    return EventFlags(alone, (replaced[0] & ~alone[0], replaced[1] & ~alone[1]))


def match_counted_objects(
    table_4N: IntArray, first: ObjectTable, second: ObjectTable, *, shift_px: int
) -> instance_events.InstanceMatches:
    """Return which objects meet and how well: `instance_events.match_instances` from the counts."""
    own, other, count, shift = first.number_L[table_4N[0]], second.number_L[table_4N[1]], table_4N[2], table_4N[3]
    kept, steps = (own > 0) & (other > 0), len(instance_events.list_shifts(shift_px))
    codes = ((own[kept] - 1) * len(second.area_N) + other[kept] - 1) * steps + shift[kept]
    code, inverse = np.unique(codes, return_inverse=True)
    common = np.zeros(len(code), np.int64)
    np.add.at(common, inverse, count[kept])
    pair, shift = code // steps, code % steps
    own, other = pair // max(len(second.area_N), 1), pair % max(len(second.area_N), 1)
    iou = common / (first.area_N[own] + second.area_N[other] - common)
    pairs, starts = np.unique(pair, return_index=True)
    best = np.maximum.reduceat(iou, starts) if len(starts) else np.zeros(0)
    return instance_events.InstanceMatches(
        pairs // max(len(second.area_N), 1),
        pairs % max(len(second.area_N), 1),
        best,
        _greatest_iou_sums(own, shift, iou, count=len(first.area_N), steps=steps),
        _greatest_iou_sums(other, shift, iou, count=len(second.area_N), steps=steps),
    )


def _greatest_iou_sums(
    object_P: IntArray, shift_P: IntArray, iou_P: NDArray[np.float64], *, count: int, steps: int
) -> NDArray[np.float64]:
    """Return for each object the greatest, over the shifts, of the sum of its IoUs."""
    code, inverse = np.unique(object_P * steps + shift_P, return_inverse=True)
    sums = np.bincount(inverse, weights=iou_P, minlength=len(code))
    greatest = np.zeros(count)
    np.maximum.at(greatest, code // steps, sums)
    return greatest


def flags_per_label(chosen: FlagsPerDate, first: ObjectTable, second: ObjectTable) -> FlagsPerDate:
    """Turn what was decided per object into what it means per label."""
    at_t1, at_t2 = (np.concatenate([[False], of_date]) for of_date in chosen)
    return at_t1[first.number_L], at_t2[second.number_L]
