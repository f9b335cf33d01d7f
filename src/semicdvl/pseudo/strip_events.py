"""Change events of a raster that is too large to hold: the objects of its score maps, seen strip by strip, twice.

The first round labels the objects of every strip, joins those that continue in the next one, and counts in one table
how many pixels the objects of the two dates share (under every shift that is tolerated). From the table follows which
objects are events; the second round labels the strips again and paints them. The result is that of
`labels.component_events` on the whole maps, for all of its options but `min_cosine`. What is remembered grows with the
number of objects (and of tolerated shifts), not with the raster.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from semicdvl.pseudo import ceg, events
from semicdvl.pseudo.prompts import Prompts
from semicdvl.pseudo.settings import CEGSettings
from semicdvl.rasters.strips import first_blocks, groups, touching

_Ints = NDArray[np.int64]
_Chosen = tuple[NDArray[np.bool_], NDArray[np.bool_]]


@dataclass(frozen=True)
class StripAnswers:
    """The score maps of both dates in some rows of the raster.

    Attributes:
        row: the raster's row that the strip begins with.
        t1_CHW: one map per prompt at date 1.
        t2_CHW: the same of date 2.
        valid_HW: False where either date has no data: there is no object.
    """

    row: int
    t1_CHW: NDArray[np.float32]
    t2_CHW: NDArray[np.float32]
    valid_HW: NDArray[np.bool_]


@dataclass(frozen=True)
class JudgedObjects:
    """Which objects of a raster are change events, ready to be painted strip by strip: `judge` makes it.

    Attributes:
        prompts, settings: what it was made with.
        starts: for the row that a strip begins with, how many labels the strips before it have, per date.
        alone: per date, whether a label (numbered on from strip to strip; 0 is none) is of an object that met nothing.
        replaced: the same for objects that were replaced.
    """

    prompts: Prompts
    settings: CEGSettings
    starts: Mapping[int, tuple[int, int]]
    alone: _Chosen
    replaced: _Chosen

    def events(self, strip: StripAnswers) -> events.Events:
        """Return the events of one of the strips that were judged."""
        alone_HW, replaced_HW = (np.zeros(strip.valid_HW.shape, bool) for _ in range(2))
        for date, scores_CHW in enumerate((strip.t1_CHW, strip.t2_CHW)):
            labels_HW = _objects(scores_CHW, strip.valid_HW, prompts=self.prompts, settings=self.settings)
            labels_HW[~strip.valid_HW] = 0
            start, count = self.starts[strip.row][date], int(labels_HW.max(initial=0))
            own = slice(start + 1, start + count + 1)
            alone_HW |= np.concatenate([[False], self.alone[date][own]])[labels_HW]
            replaced_HW |= np.concatenate([[False], self.replaced[date][own]])[labels_HW]
        return events.Events(alone_HW, replaced_HW)


def _objects(
    scores_CHW: NDArray[np.float32], valid_HW: NDArray[np.bool_], *, prompts: Prompts, settings: CEGSettings
) -> NDArray[np.int32]:
    """Return the foreground objects of a strip as a label image; small ones too, since they may go on in the next."""
    return ceg.components(
        np.where(valid_HW, scores_CHW, np.float32(0)),
        foreground=prompts.foreground,
        threshold=settings.instance_score,
    )


# ------------------------------------------------------------------------------------------------ the first round
def judge(strips: Iterable[StripAnswers], *, prompts: Prompts, settings: CEGSettings) -> JudgedObjects:
    """Go through the strips once and find which objects are events.

    Args:
        strips: the whole raster from the top.
        prompts: what the maps are of.
        settings: instance score, least area, delta and options; `level` and `gamma` play no part here.
    """
    foreground = prompts.foreground if settings.replaced_class else ()
    dates = _DateSurvey(foreground), _DateSurvey(foreground)
    shared, starts = _Shared(settings.shift_px), {}
    for strip in strips:
        starts[strip.row] = dates[0].count, dates[1].count
        labels = []
        for date, scores_CHW in zip(dates, (strip.t1_CHW, strip.t2_CHW), strict=True):
            labels_HW = _objects(scores_CHW, strip.valid_HW, prompts=prompts, settings=settings)
            labels.append(date.add(labels_HW, scores_CHW, strip.valid_HW, row=strip.row))
        shared.add(*labels)
    first, second = (date.joined(min_area_px=settings.min_area_px) for date in dates)
    met = shared.meetings(first, second)
    alone = [totals <= settings.delta for totals in (met.totals_t1_N, met.totals_t2_M)]
    replaced = [np.zeros(len(totals), bool) for totals in (met.totals_t1_N, met.totals_t2_M)]
    if settings.replaced_iou is not None or settings.replaced_class:
        classes = (first.classes_N, second.classes_N) if settings.replaced_class else None
        replaced = list(events.replaced_by(met, classes, least_iou=settings.replaced_iou))
    replaced = [some & ~lone for some, lone in zip(replaced, alone, strict=True)]
    return JudgedObjects(
        prompts, settings, starts, _of_labels(alone, first, second), _of_labels(replaced, first, second)
    )


def _of_labels(chosen: list[NDArray[np.bool_]], first: _Joined, second: _Joined) -> _Chosen:
    """Turn what was decided per object into what it means per label of a strip."""
    at_t1, at_t2 = (np.concatenate([[False], of_date]) for of_date in chosen)
    return at_t1[first.number_L], at_t2[second.number_L]


@dataclass(frozen=True)
class _Joined:
    """The objects of one date over the whole raster, numbered 1 ... N from the top left.

    Attributes:
        number_L: number of the object that a label of a strip belongs to; 0 for none, or a small one.
        area_N: pixels with data of each object.
        classes_N: foreground prompt of each, where that is wanted.
    """

    number_L: _Ints
    area_N: _Ints
    classes_N: _Ints


@dataclass
class _DateSurvey:
    """What is remembered of one date's labels, strip after strip; lists hold one array per strip.

    Attributes:
        foreground: prompts whose scores are summed up per label; empty if nobody asks.
    """

    foreground: tuple[int, ...]
    count: int = 0
    areas: list[_Ints] = field(default_factory=list)
    valid_areas: list[_Ints] = field(default_factory=list)
    firsts: list[_Ints] = field(default_factory=list)
    sums_FL: list[NDArray[np.float64]] = field(default_factory=list)
    links_2N: list[_Ints] = field(default_factory=list)
    last_W: _Ints | None = None

    def add(
        self, labels_HW: NDArray[np.int32], scores_CHW: NDArray[np.float32], valid_HW: NDArray[np.bool_], *, row: int
    ) -> _Ints:
        """Remember a strip; return its labels, numbered on from the strips before, where there is data."""
        width, count = labels_HW.shape[1], int(labels_HW.max(initial=0)) + 1
        rows, cols = np.nonzero(labels_HW)
        labels, valid = labels_HW[rows, cols], valid_HW[rows, cols]
        self.areas.append(np.bincount(labels, minlength=count)[1:])
        self.valid_areas.append(np.bincount(labels[valid], minlength=count)[1:])
        self.firsts.append(first_blocks(labels, rows + row, cols, width=width, count=count)[1:])
        weights = (scores_CHW[index, rows, cols][valid] for index in self.foreground)
        sums = [np.bincount(labels[valid], weights=weight, minlength=count)[1:] for weight in weights]
        self.sums_FL.append(np.array(sums, np.float64).reshape(len(self.foreground), count - 1))
        numbered_HW = np.where(labels_HW > 0, labels_HW + np.int64(self.count), 0)
        if self.last_W is not None:
            self.links_2N.append(touching(self.last_W, numbered_HW[0]))
        self.last_W = numbered_HW[-1].copy()
        self.count += count - 1
        return np.where(valid_HW, numbered_HW, 0)

    def joined(self, *, min_area_px: int) -> _Joined:
        """Join the labels to objects, and drop those below the least area and those on ground without data."""
        none = np.zeros((2, 0), np.int64)
        group_L = groups(np.concatenate([none, *self.links_2N], axis=1) - 1, count=self.count)
        many = int(group_L.max(initial=-1)) + 1
        area, valid_area = (_sums(group_L, parts, many) for parts in (self.areas, self.valid_areas))
        first = np.full(many, np.iinfo(np.int64).max)
        np.minimum.at(first, group_L, _flat(self.firsts))
        order = np.argsort(first)
        order = order[(area[order] >= min_area_px) & (valid_area[order] > 0)]
        number = np.zeros(many, np.int64)
        number[order] = np.arange(1, len(order) + 1)
        classes = np.zeros(len(order), np.int64)
        if self.foreground:
            sums_FL = np.concatenate([np.zeros((len(self.foreground), 0)), *self.sums_FL], axis=1)
            sums_FN = np.stack([np.bincount(group_L, weights=sums_L, minlength=many) for sums_L in sums_FL])
            classes = np.array(self.foreground, np.int64)[sums_FN[:, order].argmax(axis=0)]
        return _Joined(np.concatenate([[0], number[group_L]]), valid_area[order], classes)


def _flat(parts: list[_Ints]) -> _Ints:
    return np.concatenate([np.zeros(0, np.int64), *parts])


def _sums(group_L: _Ints, parts: list[_Ints], many: int) -> _Ints:
    """Add up what the labels of each group count."""
    total = np.zeros(many, np.int64)
    np.add.at(total, group_L, _flat(parts))
    return total


class _Shared:
    """Counts how many pixels the labels of the two dates share, under every shift that is tolerated."""

    def __init__(self, shift_px: int) -> None:
        """Start with nothing seen."""
        self._shifts, self._reach = events.disc(shift_px), shift_px
        self._kept: tuple[_Ints, _Ints] | None = None
        self._found: list[_Ints] = []

    def add(self, t1_HW: _Ints, t2_HW: _Ints) -> None:
        """Count a strip; the last rows before it are kept, since a shift reaches over a strip's edge."""
        kept = 0 if self._kept is None else len(self._kept[0])
        if self._kept is not None:
            t1_HW, t2_HW = np.concatenate([self._kept[0], t1_HW]), np.concatenate([self._kept[1], t2_HW])
        for at, shift in enumerate(self._shifts):
            first_2N = _pairs(*_shifted(t1_HW, t2_HW, shift, kept=kept))
            self._found.append(np.concatenate([first_2N, np.full((1, first_2N.shape[1]), at)]))
        if self._reach:
            self._kept = t1_HW[-self._reach :].copy(), t2_HW[-self._reach :].copy()

    def meetings(self, first: _Joined, second: _Joined) -> events.Meetings:
        """Return which objects meet and how well: `events.meetings` from the counts."""
        table_4N = np.concatenate([np.zeros((4, 0), np.int64), *self._found], axis=1)
        own, other, count, shift = first.number_L[table_4N[0]], second.number_L[table_4N[1]], table_4N[2], table_4N[3]
        kept, steps = (own > 0) & (other > 0), len(self._shifts)
        codes = ((own[kept] - 1) * len(second.area_N) + other[kept] - 1) * steps + shift[kept]
        code, inverse = np.unique(codes, return_inverse=True)
        common = np.zeros(len(code), np.int64)
        np.add.at(common, inverse, count[kept])
        pair, shift = code // steps, code % steps
        own, other = pair // max(len(second.area_N), 1), pair % max(len(second.area_N), 1)
        iou = common / (first.area_N[own] + second.area_N[other] - common)
        pairs, starts = np.unique(pair, return_index=True)
        best = np.maximum.reduceat(iou, starts) if len(starts) else np.zeros(0)
        return events.Meetings(
            pairs // max(len(second.area_N), 1),
            pairs % max(len(second.area_N), 1),
            best,
            _greatest_sums(own, shift, iou, count=len(first.area_N), steps=steps),
            _greatest_sums(other, shift, iou, count=len(second.area_N), steps=steps),
        )


def _greatest_sums(
    object_P: _Ints, shift_P: _Ints, iou_P: NDArray[np.float64], *, count: int, steps: int
) -> NDArray[np.float64]:
    """Return for each object the greatest, over the shifts, of the sum of its IoUs."""
    code, inverse = np.unique(object_P * steps + shift_P, return_inverse=True)
    sums = np.bincount(inverse, weights=iou_P, minlength=len(code))
    greatest = np.zeros(count)
    np.maximum.at(greatest, code // steps, sums)
    return greatest


def _shifted(t1_HW: _Ints, t2_HW: _Ints, shift: tuple[int, int], *, kept: int) -> tuple[_Ints, _Ints]:
    """Return the parts of both label images that lie over each other once the first has moved.

    Of rows that were there before (`kept`) only those are taken that meet a new row.
    """
    down, right = shift
    width = t1_HW.shape[1]
    first_cols = slice(max(0, -right), width - max(0, right))
    second_cols = slice(max(0, right), width - max(0, -right))
    start, end = max(kept, abs(down)), len(t1_HW)
    late, early = slice(start, end), slice(start - abs(down), max(start, end) - abs(down))
    first_rows, second_rows = (early, late) if down >= 0 else (late, early)
    return t1_HW[first_rows, first_cols], t2_HW[second_rows, second_cols]


def _pairs(t1_HW: _Ints, t2_HW: _Ints) -> _Ints:
    """Return (3, N): label of date 1, label of date 2, and how many pixels the two share.

    Runs of equal pairs along the rows are counted first: sorting pixel by pixel would take ten times as long.
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
