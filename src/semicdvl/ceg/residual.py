"""The residual rule: what one date shows and the other does not, without matching whole objects (beyond the paper).

The paper's rule asks whether an object has any common pixel with an object of the other date, so it loses a house that
was rebuilt on old ground, and a new house whose answer merges with a house that was there before. The residual rule
compares areas instead, with hysteresis. For each date:

    found     = foreground with a score >= `residual_score`,
    elsewhere = foreground of the other date with a score >= `residual_other_score`, grown by `residual_apart_m`,
    event     = found without elsewhere, opened by `residual_open_m`, of at least `residual_area_m2`,
    change    = event grown back by up to `residual_regrow_m` inside its own object.

The object of an event is the part of `found` that is connected to it; growing follows 8-connected steps inside of it,
so an event never grows into a neighbour. Lengths are radii of discs in metres. Where the ground sampling distance is
unknown, `ASSUMED_GSD_M` is assumed. Pixels beyond the edge of the raster do not count against an event: opening treats
them as part of it.

Every step depends on pixels that are near, except the area of an event. So `find_streamed_residual_events` measures the
areas in a first pass over the strips of a raster, and paints in a second one; it holds a few strips at a time, and the
result is that of `find_residual_events` on the whole maps.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from semicdvl.ceg.config import CEGSettings
from semicdvl.ceg.prompts import Prompts
from semicdvl.ceg.rules import find_foreground
from semicdvl.ceg.streaming_components import PairScoreStrip
from semicdvl.raster.connected_components import find_touching_labels, group_labels

ASSUMED_GSD_M = 0.5
"""Metres per pixel where the ground sampling distance is unknown: that of most very-high-resolution images."""

Mask = NDArray[np.uint8]
"""0 or 1 per pixel, as OpenCV's morphology takes it."""


@dataclass(frozen=True)
class ResidualSizes:
    """The lengths and the area of the rule in pixels.

    Attributes:
        apart_px: how far the other date's foreground is grown.
        open_px: radius of the opening.
        area_px: smallest area of an event.
        regrow_px: how far an event is grown back inside its own object.
    """

    apart_px: float
    open_px: float
    area_px: float
    regrow_px: float

    @property
    def event_reach_px(self) -> int:
        """How far away a pixel can be that decides whether a pixel belongs to an event."""
        return math.floor(self.apart_px) + 2 * math.floor(self.open_px)

    @property
    def regrow_reach_px(self) -> int:
        """How far an event can grow back."""
        return math.floor(self.regrow_px)


def convert_to_pixels(settings: CEGSettings) -> ResidualSizes:
    """Return the sizes of the rule in pixels, at `settings.gsd_m` or else `ASSUMED_GSD_M`.

    Example:
        >>> convert_to_pixels(CEGSettings(level="residual", gsd_m=1.0))
        ResidualSizes(apart_px=2.0, open_px=2.0, area_px=12.0, regrow_px=2.0)
    """
    gsd_m = settings.gsd_m or ASSUMED_GSD_M
    return ResidualSizes(
        round(settings.residual_apart_m / gsd_m, 6),
        round(settings.residual_open_m / gsd_m, 6),
        round(settings.residual_area_m2 / gsd_m**2, 6),
        round(settings.residual_regrow_m / gsd_m, 6),
    )


# ------------------------------------------------------------------------------------------------ the rule on arrays
@dataclass(frozen=True)
class PairForeground:
    """The foreground of both dates, each at the higher and at the lower score.

    Attributes:
        found: per date, foreground from the higher score on.
        present: per date, foreground from the lower score on.
    """

    found: tuple[Mask, Mask]
    present: tuple[Mask, Mask]


def find_residual_events(
    scores_t1_CHW: NDArray[np.floating],
    scores_t2_CHW: NDArray[np.floating],
    *,
    foreground: tuple[int, ...],
    settings: CEGSettings,
) -> NDArray[np.bool_]:
    """Return the pixels of the change events of both dates, HW.

    Args:
        scores_t1_CHW: one score map per prompt at date 1.
        scores_t2_CHW: the same at date 2.
        foreground: indices of the prompts that are searched for.
        settings: scores, lengths and area of the rule, and the ground sampling distance.

    Example:
        >>> import numpy as np
        >>> old, both = np.zeros((1, 30, 40), np.float32), np.zeros((1, 30, 40), np.float32)
        >>> old[0, 5:20, 2:12] = 0.9  # a house of 5 m x 7.5 m at 0.5 m per pixel
        >>> both[0, 5:20, 2:30] = 0.9  # another one was built against it
        >>> scores = [np.concatenate([1 - house, house]) for house in (old, both)]
        >>> changed_HW = find_residual_events(*scores, foreground=(1,), settings=CEGSettings(level="residual"))
        >>> bool(changed_HW[12, 20]), bool(changed_HW[12, 8])
        (True, False)
    """
    sizes = convert_to_pixels(settings)
    both = _find_pair_foreground(scores_t1_CHW, scores_t2_CHW, foreground=foreground, settings=settings)
    events = [_drop_small(event_HW, sizes.area_px) for event_HW in find_opened_residuals(both, sizes)]
    grown = [grow_back(event_HW, object_HW, sizes) for event_HW, object_HW in zip(events, both.found, strict=True)]
    return (grown[0] | grown[1]).astype(bool)


def _find_pair_foreground(
    scores_t1_CHW: NDArray[np.floating],
    scores_t2_CHW: NDArray[np.floating],
    *,
    foreground: tuple[int, ...],
    settings: CEGSettings,
) -> PairForeground:
    """Return where the foreground concept wins at each date, with either of the two scores."""
    found, present = [], []
    for scores_CHW in (scores_t1_CHW, scores_t2_CHW):
        wins_HW, best_HW = find_foreground(scores_CHW, foreground=foreground)
        high, low = (best_HW.dtype.type(score) for score in (settings.residual_score, settings.residual_other_score))
        found.append((wins_HW & (best_HW >= high)).astype(np.uint8))
        present.append((wins_HW & (best_HW >= low)).astype(np.uint8))
    return PairForeground((found[0], found[1]), (present[0], present[1]))


def find_opened_residuals(both: PairForeground, sizes: ResidualSizes) -> tuple[Mask, Mask]:
    """Return the residuals of both dates after the opening, of any area."""
    opened = []
    for date in (0, 1):
        residual_HW = both.found[date] & ~_dilate(both.present[1 - date], sizes.apart_px)
        eroded_HW = cv2.erode(residual_HW, _disc(sizes.open_px))
        opened.append(_dilate(np.asarray(eroded_HW), sizes.open_px))
    return opened[0], opened[1]


def grow_back(event_HW: Mask, object_HW: Mask, sizes: ResidualSizes) -> Mask:
    """Grow events by up to `regrow_px` inside of their objects, along paths that do not leave them."""
    near_HW = _dilate(event_HW, sizes.regrow_px) & object_HW
    grown_HW, neighbours = event_HW, np.ones((3, 3), np.uint8)
    for _ in range(sizes.regrow_reach_px):
        wider_HW: Mask = np.asarray(cv2.dilate(grown_HW, neighbours), np.uint8)
        grown_HW = event_HW | (wider_HW & near_HW)
    return grown_HW


def _drop_small(event_HW: Mask, area_px: float) -> Mask:
    """Return the mask without its 8-connected components below an area."""
    _, labels_HW, stats, _ = cv2.connectedComponentsWithStats(event_HW, connectivity=8)
    keep = stats[:, cv2.CC_STAT_AREA] >= area_px
    keep[0] = False
    kept_HW: Mask = keep.astype(np.uint8)[labels_HW]
    return kept_HW


def _dilate(mask_HW: Mask, radius_px: float) -> Mask:
    """Return the pixels within a distance of the mask."""
    return np.asarray(cv2.dilate(mask_HW, _disc(radius_px))).astype(np.uint8, copy=False)


def _disc(radius_px: float) -> Mask:
    """Return the disc of a radius as a structuring element; below one pixel it is the pixel alone."""
    reach = math.floor(radius_px)
    rows, cols = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    inside_HW: Mask = (rows**2 + cols**2 <= radius_px**2).astype(np.uint8)
    return inside_HW


# ------------------------------------------------------------------------------------------------ strip by strip
@dataclass(frozen=True)
class _MaskStrip:
    """Some rows of several masks of a raster, stacked: NHW."""

    row: int
    masks_NHW: NDArray[np.uint8]


@dataclass(frozen=True)
class _MaskWindow:
    """A strip with the rows around it that exist; `own` are the rows of the strip itself."""

    row: int
    masks_NHW: NDArray[np.uint8]
    own: slice


@dataclass(frozen=True)
class StreamedResidualEvents:
    """The events of a raster, to be painted strip by strip; made by `find_streamed_residual_events`.

    Attributes:
        prompts, settings: what the events were found with.
        kept: per date, whether each label (numbers through all strips; 0 is none) belongs to an event that is large
            enough.
    """

    prompts: Prompts
    settings: CEGSettings
    kept: tuple[NDArray[np.bool_], NDArray[np.bool_]]

    def paint(self, strips: Iterable[PairScoreStrip]) -> Iterator[NDArray[np.bool_]]:
        """Yield where there is change, HW, for each of the strips that the events were found in."""
        sizes = convert_to_pixels(self.settings)
        for window in _add_neighbouring_rows(self._keep_large(strips, sizes), sizes.regrow_reach_px):
            events, objects = window.masks_NHW[:2], window.masks_NHW[2:]
            grown = [grow_back(event_HW, object_HW, sizes) for event_HW, object_HW in zip(events, objects, strict=True)]
            yield (grown[0] | grown[1])[window.own].astype(bool)

    def _keep_large(self, strips: Iterable[PairScoreStrip], sizes: ResidualSizes) -> Iterator[_MaskStrip]:
        """Yield the events of both dates that are large enough, then the objects of both dates."""
        counts = [0, 0]
        for row, events, objects in _find_residual_strips(strips, self.prompts, self.settings, sizes):
            large = []
            for date, event_HW in enumerate(events):
                count, labels_HW = cv2.connectedComponents(event_HW, connectivity=8)
                own = slice(counts[date] + 1, counts[date] + count)
                flags = np.concatenate([[False], self.kept[date][own]]).astype(np.uint8)
                large.append(flags[labels_HW])
                counts[date] += count - 1
            yield _MaskStrip(row, np.stack([*large, *objects]))


def find_streamed_residual_events(
    strips: Iterable[PairScoreStrip], *, prompts: Prompts, settings: CEGSettings
) -> StreamedResidualEvents:
    """Measure the areas of the events in one pass over the strips.

    Args:
        strips: the whole raster from the top.
        prompts: prompts of the score maps.
        settings: scores, lengths and area of the rule, and the ground sampling distance.
    """
    sizes = convert_to_pixels(settings)
    dates = _EventAreas(), _EventAreas()
    for _, events, _ in _find_residual_strips(strips, prompts, settings, sizes):
        for date, event_HW in zip(dates, events, strict=True):
            date.add(event_HW)
    return StreamedResidualEvents(
        prompts, settings, (dates[0].flag_large(sizes.area_px), dates[1].flag_large(sizes.area_px))
    )


@dataclass
class _EventAreas:
    """Areas of the labels of one date, strip after strip, and which labels continue in the next strip."""

    areas: list[NDArray[np.int64]] = field(default_factory=list)
    links_2N: list[NDArray[np.int64]] = field(default_factory=list)
    count: int = 0
    last_W: NDArray[np.int64] | None = None

    def add(self, event_HW: Mask) -> None:
        """Label a strip and count the pixels of its labels."""
        count, labels_HW, stats, _ = cv2.connectedComponentsWithStats(event_HW, connectivity=8)
        self.areas.append(stats[1:, cv2.CC_STAT_AREA].astype(np.int64))
        first_W, last_W = (np.where(labels_HW[at] > 0, labels_HW[at] + np.int64(self.count), 0) for at in (0, -1))
        if self.last_W is not None:
            self.links_2N.append(find_touching_labels(self.last_W, first_W))
        self.last_W, self.count = last_W, self.count + count - 1

    def flag_large(self, area_px: float) -> NDArray[np.bool_]:
        """Return for every label whether its event has at least this area; label 0 is none."""
        links_2N = np.concatenate([np.zeros((2, 0), np.int64), *self.links_2N], axis=1)
        group_L = group_labels(links_2N - 1, count=self.count)
        area_L = np.concatenate([np.zeros(0, np.int64), *self.areas])
        area_N = np.zeros(int(group_L.max(initial=-1)) + 1, np.int64)
        np.add.at(area_N, group_L, area_L)
        return np.concatenate([[False], area_N[group_L] >= area_px])


def _find_residual_strips(
    strips: Iterable[PairScoreStrip], prompts: Prompts, settings: CEGSettings, sizes: ResidualSizes
) -> Iterator[tuple[int, tuple[Mask, Mask], tuple[Mask, Mask]]]:
    """Yield for each strip its first row, the opened residuals of both dates, and their objects."""

    def find_masks() -> Iterator[_MaskStrip]:
        for strip in strips:
            both = _find_pair_foreground(strip.t1_CHW, strip.t2_CHW, foreground=prompts.foreground, settings=settings)
            yield _MaskStrip(strip.row, np.stack([*both.found, *both.present]) * strip.valid_HW.view(np.uint8))

    for window in _add_neighbouring_rows(find_masks(), sizes.event_reach_px):
        found_t1_HW, found_t2_HW, present_t1_HW, present_t2_HW = window.masks_NHW
        opened = find_opened_residuals(
            PairForeground((found_t1_HW, found_t2_HW), (present_t1_HW, present_t2_HW)), sizes
        )
        events = opened[0][window.own], opened[1][window.own]
        yield window.row, events, (found_t1_HW[window.own], found_t2_HW[window.own])


def _add_neighbouring_rows(strips: Iterable[_MaskStrip], reach: int) -> Iterator[_MaskWindow]:
    """Yield every strip with `reach` rows above and below it, or as many as there are."""
    above_NHW: NDArray[np.uint8] | None = None
    waiting: deque[_MaskStrip] = deque()
    for strip in strips:
        waiting.append(strip)
        while sum(each.masks_NHW.shape[1] for each in waiting) - waiting[0].masks_NHW.shape[1] >= reach:
            window = _make_window(above_NHW, waiting, reach)
            yield window
            above_NHW = _keep_last_rows(above_NHW, waiting.popleft(), reach)
            if not waiting:
                break
    while waiting:
        yield _make_window(above_NHW, waiting, reach)
        above_NHW = _keep_last_rows(above_NHW, waiting.popleft(), reach)


def _make_window(above_NHW: NDArray[np.uint8] | None, waiting: deque[_MaskStrip], reach: int) -> _MaskWindow:
    """Return the first of the waiting strips with the rows around it."""
    first = waiting[0]
    height = first.masks_NHW.shape[1]
    above = [] if above_NHW is None else [above_NHW]
    start = 0 if above_NHW is None else above_NHW.shape[1]
    masks_NHW = np.concatenate([*above, *(each.masks_NHW for each in waiting)], axis=1)
    return _MaskWindow(first.row, masks_NHW[:, : start + height + reach], slice(start, start + height))


def _keep_last_rows(above_NHW: NDArray[np.uint8] | None, strip: _MaskStrip, reach: int) -> NDArray[np.uint8]:
    """Return the last rows above the next strip."""
    parts = [strip.masks_NHW] if above_NHW is None else [above_NHW, strip.masks_NHW]
    rows_NHW = np.concatenate(parts, axis=1)
    return rows_NHW[:, max(0, rows_NHW.shape[1] - reach) :].copy()
