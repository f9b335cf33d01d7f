"""Change events of connected components over a raster that is too large for memory, strip by strip.

The first pass labels the components of every strip, merges those that continue in the next strip, and counts the pixels
that the objects of the two dates share (under every tolerated shift). `instances.matching` decides from the counts
which objects are change events; the last pass labels the strips again and paints them. With `min_cosine` one more pass
between the two sums up the features of the objects (`instances.feature_similarity`). The result is that of
`labels.find_component_events` on the whole maps. Memory grows with the number of objects (and of tolerated shifts), not
with the raster.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from semicdvl.ceg.config import CEGSettings
from semicdvl.ceg.instances.events import ChangeEvents
from semicdvl.ceg.instances.feature_similarity import MosaickedFeatures, SimilarityAccumulator
from semicdvl.ceg.instances.matching import (
    EventFlags,
    FlagsPerDate,
    IntArray,
    ObjectTable,
    decide_events,
    flags_per_label,
    list_shifts,
)
from semicdvl.ceg.instances.rule import find_components
from semicdvl.ceg.prompts import Prompts
from semicdvl.errors import DataError
from semicdvl.raster.connected_components import find_first_blocks, find_touching_labels, group_labels
from semicdvl.types import TileInstanceReader


@dataclass(frozen=True)
class PairScoreStrip:
    """The score maps of both dates in some rows of the raster.

    Attributes:
        row: first row of the strip in the raster.
        t1_CHW: one score map per prompt at date 1.
        t2_CHW: one score map per prompt at date 2.
        valid_HW: False where either date has no data; no object is reported there.
        distance_HW: distance of the features of the dates, for the residual level; None: they are not compared.
    """

    row: int
    t1_CHW: NDArray[np.float32]
    t2_CHW: NDArray[np.float32]
    valid_HW: NDArray[np.bool_]
    distance_HW: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class StreamedComponentEvents:
    """The change events of a raster, to be painted strip by strip; made by `find_streamed_component_events`.

    Attributes:
        prompts, settings: what the events were found with.
        starts: first row of a strip -> number of labels in the strips above it, per date.
        unmatched: per date, whether each label (numbers through all strips; 0 is none) belongs to an object without a
            match.
        replaced: per date, whether each label belongs to an object that was replaced.
    """

    prompts: Prompts
    settings: CEGSettings
    starts: Mapping[int, tuple[int, int]]
    unmatched: FlagsPerDate
    replaced: FlagsPerDate

    def paint_strip(self, strip: PairScoreStrip) -> ChangeEvents:
        """Return the change events in one of the strips."""
        unmatched_HW, replaced_HW = (np.zeros(strip.valid_HW.shape, bool) for _ in range(2))
        for date, scores_CHW in enumerate((strip.t1_CHW, strip.t2_CHW)):
            labels_HW = _label_components(scores_CHW, strip.valid_HW, prompts=self.prompts, settings=self.settings)
            labels_HW[~strip.valid_HW] = 0
            start, count = self.starts[strip.row][date], int(labels_HW.max(initial=0))
            own = slice(start + 1, start + count + 1)
            unmatched_HW |= np.concatenate([[False], self.unmatched[date][own]])[labels_HW]
            replaced_HW |= np.concatenate([[False], self.replaced[date][own]])[labels_HW]
        return ChangeEvents(unmatched_HW, replaced_HW)


def _label_components(
    scores_CHW: NDArray[np.float32], valid_HW: NDArray[np.bool_], *, prompts: Prompts, settings: CEGSettings
) -> NDArray[np.int32]:
    """Return the foreground components of a strip as a label image; also small ones, which may continue in the next."""
    return find_components(
        np.where(valid_HW, scores_CHW, np.float32(0)),
        foreground=prompts.foreground,
        threshold=settings.instance_score,
    )


# ------------------------------------------------------------------------------------------------ first pass
def find_streamed_component_events(
    strips: Iterable[PairScoreStrip],
    *,
    prompts: Prompts,
    settings: CEGSettings,
    tile_instances: TileInstanceReader | None = None,
) -> StreamedComponentEvents:
    """Find which objects are change events in one pass over the strips (two with `min_cosine`).

    Args:
        strips: the whole raster from the top.
        prompts: prompts of the score maps.
        settings: instance score, smallest area, delta and options; `level` and `gamma` are not used.
        tile_instances: features of the tiles; needed for `min_cosine`.

    Raises:
        DataError: `min_cosine` without features.
    """
    foreground = prompts.foreground if settings.replaced_class else ()
    dates = _DateComponents(foreground), _DateComponents(foreground)
    shared, starts = _SharedPixels(settings.shift_px), {}
    for strip in strips:
        starts[strip.row] = dates[0].count, dates[1].count
        labels = []
        for date, scores_CHW in zip(dates, (strip.t1_CHW, strip.t2_CHW), strict=True):
            labels_HW = _label_components(scores_CHW, strip.valid_HW, prompts=prompts, settings=settings)
            labels.append(date.add(labels_HW, scores_CHW, strip.valid_HW, row=strip.row))
        shared.add(*labels)
    first, second = (date.merge_labels(min_area_px=settings.min_area_px) for date in dates)
    flags = decide_events(shared.table_4N, first, second, settings=settings)
    if settings.min_cosine is not None:
        numbers = _ObjectNumbers(prompts, settings, starts, (first.number_L, second.number_L))
        similarity = _measure_similarity(strips, numbers, flags, tile_instances=tile_instances)
        flags = flags.with_dissimilar_replaced(
            (similarity[0] < settings.min_cosine, similarity[1] < settings.min_cosine)
        )
    return StreamedComponentEvents(
        prompts,
        settings,
        starts,
        flags_per_label(flags.unmatched, first, second),
        flags_per_label(flags.replaced, first, second),
    )


@dataclass(frozen=True)
class _ObjectNumbers:
    """Numbers of the objects of a strip in the whole raster."""

    prompts: Prompts
    settings: CEGSettings
    starts: Mapping[int, tuple[int, int]]
    number_L: tuple[IntArray, IntArray]

    def last_steps(self, date: int, measured_N: NDArray[np.bool_]) -> IntArray:
        """Return the last strip that each object lies in; -1 for objects that are not measured."""
        starts = [start[date] for start in self.starts.values()]
        number_L = self.number_L[date]
        strip_L = np.repeat(np.arange(len(starts)), np.diff([*starts, len(number_L) - 1]))
        last = np.full(len(measured_N) + 1, -1)
        np.maximum.at(last, number_L[1:], strip_L)
        return np.where(measured_N, last[1:], -1)

    def numbers_HW(self, strip: PairScoreStrip, date: int) -> IntArray:
        """Return the number of the object at each valid pixel; 0 for none."""
        scores_CHW = strip.t2_CHW if date else strip.t1_CHW
        labels_HW = _label_components(scores_CHW, strip.valid_HW, prompts=self.prompts, settings=self.settings)
        held = np.where(labels_HW > 0, labels_HW + np.int64(self.starts[strip.row][date]), 0)
        return np.where(strip.valid_HW, self.number_L[date][held], 0)


def _measure_similarity(
    strips: Iterable[PairScoreStrip],
    object_numbers: _ObjectNumbers,
    flags: EventFlags,
    *,
    tile_instances: TileInstanceReader | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the feature similarity of the matched objects, per date, in one more pass; 1 for the others."""
    if tile_instances is None:
        raise DataError("min_cosine compares features of the dates, and there are none. Pass them, or leave it out.")
    similarity = [SimilarityAccumulator(object_numbers.last_steps(date, ~flags.unmatched[date])) for date in (0, 1)]
    features = MosaickedFeatures(tile_instances)
    for step, strip in enumerate(strips):
        numbers = [object_numbers.numbers_HW(strip, date) for date in (0, 1)]
        height, width = strip.valid_HW.shape
        for patch in features.read_window((slice(strip.row, strip.row + height), slice(0, width))):
            rows, cols = patch.window
            place = slice(rows.start - strip.row, rows.stop - strip.row), cols
            for of_date, numbers_HW in zip(similarity, numbers, strict=True):
                is_object_HW = numbers_HW[place] > 0
                of_date.add(numbers_HW[place][is_object_HW], patch.cell_HW[is_object_HW], patch.cells_KE)
        for of_date in similarity:
            of_date.finish_step(step)
    return similarity[0].cosine_N, similarity[1].cosine_N


@dataclass
class _DateComponents:
    """The components of one date, strip after strip; lists hold one array per strip.

    Attributes:
        foreground: prompts whose scores are summed up per label; empty if classes are not needed.
    """

    foreground: tuple[int, ...]
    count: int = 0
    areas: list[IntArray] = field(default_factory=list)
    valid_areas: list[IntArray] = field(default_factory=list)
    firsts: list[IntArray] = field(default_factory=list)
    sums_FL: list[NDArray[np.float64]] = field(default_factory=list)
    links_2N: list[IntArray] = field(default_factory=list)
    last_W: IntArray | None = None

    def add(
        self, labels_HW: NDArray[np.int32], scores_CHW: NDArray[np.float32], valid_HW: NDArray[np.bool_], *, row: int
    ) -> IntArray:
        """Add a strip; return its labels, numbers through all strips, where pixels are valid."""
        width, count = labels_HW.shape[1], int(labels_HW.max(initial=0)) + 1
        rows, cols = np.nonzero(labels_HW)
        labels, valid = labels_HW[rows, cols], valid_HW[rows, cols]
        self.areas.append(np.bincount(labels, minlength=count)[1:])
        self.valid_areas.append(np.bincount(labels[valid], minlength=count)[1:])
        self.firsts.append(find_first_blocks(labels, rows + row, cols, width=width, count=count)[1:])
        weights = (scores_CHW[index, rows, cols][valid] for index in self.foreground)
        sums = [np.bincount(labels[valid], weights=weight, minlength=count)[1:] for weight in weights]
        self.sums_FL.append(np.array(sums, np.float64).reshape(len(self.foreground), count - 1))
        numbered_HW = np.where(labels_HW > 0, labels_HW + np.int64(self.count), 0)
        if self.last_W is not None:
            self.links_2N.append(find_touching_labels(self.last_W, numbered_HW[0]))
        self.last_W = numbered_HW[-1].copy()
        self.count += count - 1
        return np.where(valid_HW, numbered_HW, 0)

    def merge_labels(self, *, min_area_px: int) -> ObjectTable:
        """Merge the labels to objects, without those below the smallest area and those without valid pixels."""
        none = np.zeros((2, 0), np.int64)
        group_L = group_labels(np.concatenate([none, *self.links_2N], axis=1) - 1, count=self.count)
        many = int(group_L.max(initial=-1)) + 1
        area, valid_area = (_sum_by_group(group_L, parts, many) for parts in (self.areas, self.valid_areas))
        first = np.full(many, np.iinfo(np.int64).max)
        np.minimum.at(first, group_L, _concatenate(self.firsts))
        order = np.argsort(first)
        order = order[(area[order] >= min_area_px) & (valid_area[order] > 0)]
        number = np.zeros(many, np.int64)
        number[order] = np.arange(1, len(order) + 1)
        classes = np.zeros(len(order), np.int64)
        if self.foreground:
            sums_FL = np.concatenate([np.zeros((len(self.foreground), 0)), *self.sums_FL], axis=1)
            sums_FN = np.stack([np.bincount(group_L, weights=sums_L, minlength=many) for sums_L in sums_FL])
            classes = np.array(self.foreground, np.int64)[sums_FN[:, order].argmax(axis=0)]
        return ObjectTable(np.concatenate([[0], number[group_L]]), valid_area[order], classes)


def _concatenate(parts: list[IntArray]) -> IntArray:
    return np.concatenate([np.zeros(0, np.int64), *parts])


def _sum_by_group(group_L: IntArray, parts: list[IntArray], many: int) -> IntArray:
    """Sum up the values of the labels of each group."""
    total = np.zeros(many, np.int64)
    np.add.at(total, group_L, _concatenate(parts))
    return total


class _SharedPixels:
    """Number of pixels that the labels of the two dates share, under every tolerated shift."""

    def __init__(self, shift_px: int) -> None:
        """Start without pixels."""
        self._shifts, self._reach = list_shifts(shift_px), shift_px
        self._kept: tuple[IntArray, IntArray] | None = None
        self._found: list[IntArray] = []

    def add(self, t1_HW: IntArray, t2_HW: IntArray) -> None:
        """Count a strip; the last rows above it are kept, since a shift reaches across the edge of a strip."""
        kept = 0 if self._kept is None else len(self._kept[0])
        if self._kept is not None:
            t1_HW, t2_HW = np.concatenate([self._kept[0], t1_HW]), np.concatenate([self._kept[1], t2_HW])
        for at, shift in enumerate(self._shifts):
            first_2N = _count_label_pairs(*_shift_rows(t1_HW, t2_HW, shift, kept=kept))
            self._found.append(np.concatenate([first_2N, np.full((1, first_2N.shape[1]), at)]))
        if self._reach:
            self._kept = t1_HW[-self._reach :].copy(), t2_HW[-self._reach :].copy()

    @property
    def table_4N(self) -> IntArray:
        """The counts, as `instances.matching.decide_events` takes them."""
        return np.concatenate([np.zeros((4, 0), np.int64), *self._found], axis=1)


def _shift_rows(t1_HW: IntArray, t2_HW: IntArray, shift: tuple[int, int], *, kept: int) -> tuple[IntArray, IntArray]:
    """Return the parts of both label images that overlap after the first is shifted.

    Of the rows of earlier strips (`kept`), only those that overlap a new row are returned.
    """
    down, right = shift
    width = t1_HW.shape[1]
    first_cols = slice(max(0, -right), max(0, width - max(0, right)))
    second_cols = slice(max(0, right), max(0, width - max(0, -right)))
    start, end = max(kept, abs(down)), len(t1_HW)
    late, early = slice(start, end), slice(start - abs(down), max(start, end) - abs(down))
    first_rows, second_rows = (early, late) if down >= 0 else (late, early)
    return t1_HW[first_rows, first_cols], t2_HW[second_rows, second_cols]


def _count_label_pairs(t1_HW: IntArray, t2_HW: IntArray) -> IntArray:
    """Return (3, N): label of date 1, label of date 2, and the number of pixels that they share.

    Runs of equal pairs along the rows are counted first, since sorting pixel by pixel takes ten times as long.
    """
    both_HW = (t1_HW > 0) & (t2_HW > 0)
    first, second = t1_HW[both_HW], t2_HW[both_HW]
    if not len(first):
        return np.zeros((3, 0), np.int64)
    starts = np.flatnonzero(np.concatenate([[True], (np.diff(first) != 0) | (np.diff(second) != 0)]))
    lengths = np.diff(np.append(starts, len(first)))
    span = int(second.max()) + 1
    code, inverse = np.unique(first[starts] * span + second[starts], return_inverse=True)
    counts = np.zeros(len(code), np.int64)
    np.add.at(counts, inverse, lengths)
    return np.stack([code // span, code % span, counts])
