"""Instance matching: which objects of two dates are change events, from the numbers of pixels that they share.

No mask is read here. `events` counts the common pixels of whole masks, `ceg.streaming_components` and `streaming` those
of a raster that is read part by part; from equal counts follow equal events, to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semicdvl.ceg.config import CEGSettings

IntArray = NDArray[np.int64]
FlagsPerDate = tuple[NDArray[np.bool_], NDArray[np.bool_]]
"""One boolean per object (or per label) of date 1, and of date 2."""


@dataclass(frozen=True)
class ObjectTable:
    """The objects of one date over a whole image or raster.

    Attributes:
        number_L: number of the object (1 ... N) that each label belongs to; a label names the part of an object that is
            seen at one time. 0 for no object, or one that is left out.
        area_N: number of valid pixels of each object.
        classes_N: prompt of each object, where it is needed.
    """

    number_L: IntArray
    area_N: IntArray
    classes_N: IntArray


@dataclass(frozen=True)
class InstanceMatches:
    """Which objects of the dates overlap, and how well; every IoU is the best over all tolerated shifts.

    Attributes:
        first_P: index of the object of date 1, for each pair that shares a pixel.
        second_P: index of the object of date 2.
        iou_P: IoU of the pair.
        iou_sum_t1_N: greatest sum of IoUs with all objects of date 2, per object of date 1.
        iou_sum_t2_M: greatest sum of IoUs with all objects of date 1, per object of date 2.
    """

    first_P: IntArray
    second_P: IntArray
    iou_P: NDArray[np.float64]
    iou_sum_t1_N: NDArray[np.float64]
    iou_sum_t2_M: NDArray[np.float64]


@dataclass(frozen=True)
class EventFlags:
    """Which objects of either date are change events.

    Attributes:
        unmatched: objects without a match at the other date.
        replaced: objects with a match that an option counts as a replacement.
    """

    unmatched: FlagsPerDate
    replaced: FlagsPerDate

    def with_dissimilar_replaced(self, dissimilar: FlagsPerDate) -> EventFlags:
        """Return the flags with matched objects counted as replaced where their features are dissimilar."""
        replaced = [
            flags | (of_date & ~unmatched)
            for flags, of_date, unmatched in zip(self.replaced, dissimilar, self.unmatched, strict=True)
        ]
        return EventFlags(self.unmatched, (replaced[0], replaced[1]))


def list_shifts(radius_px: int) -> list[tuple[int, int]]:
    """Return all shifts of whole pixels (rows, columns) of a length up to `radius_px`, in a fixed order."""
    reach = range(-radius_px, radius_px + 1)
    return [(down, right) for down in reach for right in reach if down**2 + right**2 <= radius_px**2]


def decide_events(table_4N: IntArray, first: ObjectTable, second: ObjectTable, *, settings: CEGSettings) -> EventFlags:
    """Apply delta, shift tolerance, `replaced_iou` and `replaced_class` to counted objects.

    Feature similarity (`min_cosine`) is added by `EventFlags.with_dissimilar_replaced`.

    Args:
        table_4N: label of date 1, label of date 2, number of common pixels, and index of the shift in `list_shifts`;
            counts of the same pair and shift are added up.
        first: objects of date 1.
        second: objects of date 2.
        settings: delta and the options.
    """
    matches = match_objects(table_4N, first, second, shift_px=settings.shift_px)
    unmatched = matches.iou_sum_t1_N <= settings.delta, matches.iou_sum_t2_M <= settings.delta
    replaced = np.zeros_like(unmatched[0]), np.zeros_like(unmatched[1])
    if settings.replaced_iou is not None or settings.replaced_class:
        classes = (first.classes_N, second.classes_N) if settings.replaced_class else None
        replaced = find_replaced(matches, classes, min_iou=settings.replaced_iou)
    return EventFlags(unmatched, (replaced[0] & ~unmatched[0], replaced[1] & ~unmatched[1]))


def match_objects(table_4N: IntArray, first: ObjectTable, second: ObjectTable, *, shift_px: int) -> InstanceMatches:
    """Return which objects overlap and how well, under every shift up to `shift_px`; see `decide_events`."""
    own, other = first.number_L[table_4N[0]], second.number_L[table_4N[1]]
    kept, shift_count, second_count = (own > 0) & (other > 0), len(list_shifts(shift_px)), max(len(second.area_N), 1)
    codes = ((own[kept] - 1) * second_count + other[kept] - 1) * shift_count + table_4N[3][kept]
    code, inverse = np.unique(codes, return_inverse=True)
    common = np.zeros(len(code), np.int64)
    np.add.at(common, inverse, table_4N[2][kept])
    pair, shift = code // shift_count, code % shift_count
    own, other = pair // second_count, pair % second_count
    iou = common / (first.area_N[own] + second.area_N[other] - common)
    pairs, starts = np.unique(pair, return_index=True)
    return InstanceMatches(
        pairs // second_count,
        pairs % second_count,
        np.maximum.reduceat(iou, starts) if len(starts) else np.zeros(0),
        _greatest_iou_sums(own, shift, iou, count=len(first.area_N), shift_count=shift_count),
        _greatest_iou_sums(other, shift, iou, count=len(second.area_N), shift_count=shift_count),
    )


def _greatest_iou_sums(
    object_P: IntArray, shift_P: IntArray, iou_P: NDArray[np.float64], *, count: int, shift_count: int
) -> NDArray[np.float64]:
    """Return for each object the greatest, over the shifts, of the sum of its IoUs."""
    code, inverse = np.unique(object_P * shift_count + shift_P, return_inverse=True)
    sums = np.bincount(inverse, weights=iou_P, minlength=len(code))
    greatest = np.zeros(count)
    np.maximum.at(greatest, code // shift_count, sums)
    return greatest


def find_replaced(
    matches: InstanceMatches, classes: tuple[IntArray, IntArray] | None, *, min_iou: float | None
) -> FlagsPerDate:
    """Return which matched objects of each date have a poor best match, or one of another class.

    Args:
        matches: which objects overlap.
        classes: class of each object per date; None: classes are not compared.
        min_iou: objects whose best IoU is lower are replaced; None: IoUs are not compared.
    """
    dates = (matches.first_P, matches.second_P), (matches.second_P, matches.first_P)
    counts = len(matches.iou_sum_t1_N), len(matches.iou_sum_t2_M)
    found = []
    for date, ((own_P, other_P), count) in enumerate(zip(dates, counts, strict=True)):
        replaced_N = np.zeros(count, bool)
        order = np.lexsort((other_P, -matches.iou_P, own_P))  # best match first, the earlier one of two equal ones
        owners, starts = np.unique(own_P[order], return_index=True)
        best = order[starts]
        if min_iou is not None:
            replaced_N[owners] |= matches.iou_P[best] < min_iou
        if classes is not None:
            replaced_N[owners] |= classes[date][owners] != classes[1 - date][other_P[best]]
        found.append(replaced_N)
    return found[0], found[1]


def flags_per_label(flags: FlagsPerDate, first: ObjectTable, second: ObjectTable) -> FlagsPerDate:
    """Return the flag of each label, given one per object; label 0 (no object) is False."""
    of_t1, of_t2 = (np.concatenate([[False], of_date]) for of_date in flags)
    return of_t1[first.number_L], of_t2[second.number_L]
