"""The residual rule over a raster that is too large for memory, strip by strip.

Every step of the rule depends on pixels that are near, except the area of an event and how much its features differ, in
comparison with the ground of the whole raster. So these are measured in a first pass over the strips, and a second one
paints. A few strips are held at a time, and the result is that of
`rule.find_residual_events` on the whole maps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice

import cv2
import numpy as np
from numpy.typing import NDArray

from semicdvl.ceg.config import CEGSettings
from semicdvl.ceg.prompts import Prompts
from semicdvl.ceg.residual.appearance import (
    DISTANCE_STEPS,
    NO_DATA,
    count_ground,
    find_least_distance,
    quantise_distance,
    sum_by_label,
)
from semicdvl.ceg.residual.rule import (
    Mask,
    PairForeground,
    ResidualSizes,
    convert_to_pixels,
    find_opened_residuals,
    find_pair_foreground,
    grow_back,
)
from semicdvl.ceg.streaming_components import PairScoreStrip
from semicdvl.raster.connected_components import find_touching_labels, group_labels


@dataclass(frozen=True)
class MaskStrip:
    """Some rows of several masks of a raster, stacked: NHW."""

    row: int
    masks_NHW: NDArray[np.uint8]


@dataclass(frozen=True)
class MaskWindow:
    """A strip with the rows around it that exist; `own` are the rows of the strip itself."""

    row: int
    masks_NHW: NDArray[np.uint8]
    own: slice


@dataclass(frozen=True)
class StreamedResidualEvents:
    """The events of a raster, to be painted strip by strip; made by `find_streamed_residual_events`.

    Attributes:
        prompts, settings: what the events were found with.
        kept: per date, whether each label (numbers through all strips; 0 is none) belongs to an event that is kept:
            large enough, and its features differ enough.
    """

    prompts: Prompts
    settings: CEGSettings
    kept: tuple[NDArray[np.bool_], NDArray[np.bool_]]

    def paint(self, strips: Iterable[PairScoreStrip]) -> Iterator[NDArray[np.bool_]]:
        """Yield where there is change, HW, for each of the strips that the events were found in."""
        sizes = convert_to_pixels(self.settings)
        # A path of growth may be one reach long, and its pixels may be near to events that are another one away.
        reach = 2 * sizes.regrow_reach_px
        for window in add_neighbouring_rows(self._keep_large(strips, sizes), reach):
            events, objects = window.masks_NHW[:2], window.masks_NHW[2:]
            grown = [grow_back(event_HW, object_HW, sizes) for event_HW, object_HW in zip(events, objects, strict=True)]
            yield (grown[0] | grown[1])[window.own].astype(bool)

    def _keep_large(self, strips: Iterable[PairScoreStrip], sizes: ResidualSizes) -> Iterator[MaskStrip]:
        """Yield the events of both dates that are large enough, then the objects of both dates."""
        counts = [0, 0]
        for found in _find_residual_strips(strips, self.prompts, self.settings, sizes):
            large = []
            for date, event_HW in enumerate(found.events):
                count, labels_HW = cv2.connectedComponents(event_HW, connectivity=8)
                own = slice(counts[date] + 1, counts[date] + count)
                flags = np.concatenate([[False], self.kept[date][own]]).astype(np.uint8)
                large.append(flags[labels_HW])
                counts[date] += count - 1
            yield MaskStrip(found.row, np.stack([*large, *found.objects]))


def find_streamed_residual_events(
    strips: Iterable[PairScoreStrip], *, prompts: Prompts, settings: CEGSettings
) -> StreamedResidualEvents:
    """Measure the events in one pass over the strips: their areas, and how much their features differ.

    Args:
        strips: the whole raster from the top.
        prompts: prompts of the score maps.
        settings: scores, lengths and area of the rule, and the ground sampling distance.
    """
    sizes = convert_to_pixels(settings)
    dates = _EventMeasures(), _EventMeasures()
    ground_S = np.zeros(DISTANCE_STEPS + 1, np.int64)
    for strip in _find_residual_strips(strips, prompts, settings, sizes):
        ground_S += count_ground(strip.steps_HW, strip.events[0] | strip.events[1])
        for date, event_HW in zip(dates, strip.events, strict=True):
            date.add(event_HW, strip.steps_HW)
    least = find_least_distance(ground_S, settings) if settings.vetoes_by_distance else 0.0
    kept = (dates[0].flag_kept(sizes.area_px, least), dates[1].flag_kept(sizes.area_px, least))
    return StreamedResidualEvents(prompts, settings, kept)


@dataclass
class _EventMeasures:
    """Areas and summed distances of the labels of one date, strip after strip, and which continue in the next strip."""

    areas: list[NDArray[np.int64]] = field(default_factory=list)
    distances: list[NDArray[np.int64]] = field(default_factory=list)
    links_2N: list[NDArray[np.int64]] = field(default_factory=list)
    count: int = 0
    last_W: NDArray[np.int64] | None = None

    def add(self, event_HW: Mask, steps_HW: Mask) -> None:
        """Label a strip, count the pixels of its labels and sum up their distances."""
        count, labels_HW, stats, _ = cv2.connectedComponentsWithStats(event_HW, connectivity=8)
        self.areas.append(stats[1:, cv2.CC_STAT_AREA].astype(np.int64))
        self.distances.append(sum_by_label(np.asarray(labels_HW, np.int32), steps_HW, count)[1:])
        first_W, last_W = (np.where(labels_HW[at] > 0, labels_HW[at] + np.int64(self.count), 0) for at in (0, -1))
        if self.last_W is not None:
            self.links_2N.append(find_touching_labels(self.last_W, first_W))
        self.last_W, self.count = last_W, self.count + count - 1

    def flag_kept(self, area_px: float, least: float) -> NDArray[np.bool_]:
        """Return for every label whether its event has at least this area and mean distance; label 0 is none."""
        links_2N = np.concatenate([np.zeros((2, 0), np.int64), *self.links_2N], axis=1)
        group_L = group_labels(links_2N - 1, count=self.count)
        area_N, distance_N = (np.zeros(int(group_L.max(initial=-1)) + 1, np.int64) for _ in range(2))
        for total_N, parts in ((area_N, self.areas), (distance_N, self.distances)):
            np.add.at(total_N, group_L, np.concatenate([np.zeros(0, np.int64), *parts]))
        kept_N = (area_N >= area_px) & (distance_N >= least * DISTANCE_STEPS * area_N)
        return np.concatenate([[False], kept_N[group_L]])


@dataclass(frozen=True)
class _ResidualStrip:
    """The opened residuals of some rows of a raster, of any area.

    Attributes:
        row: first row.
        events: the residuals of both dates.
        objects: what was found at both dates.
        steps_HW: distance of the features in steps (`appearance.quantise_distance`); NO_DATA where not compared.
    """

    row: int
    events: tuple[Mask, Mask]
    objects: tuple[Mask, Mask]
    steps_HW: Mask


def _find_residual_strips(
    strips: Iterable[PairScoreStrip], prompts: Prompts, settings: CEGSettings, sizes: ResidualSizes
) -> Iterator[_ResidualStrip]:
    """Yield the opened residuals of each strip."""

    def find_masks() -> Iterator[MaskStrip]:
        for strip in strips:
            both = find_pair_foreground(strip.t1_CHW, strip.t2_CHW, foreground=prompts.foreground, settings=settings)
            masks_NHW = np.stack([*both.found, *both.present]) * strip.valid_HW.view(np.uint8)
            steps_HW = np.full(strip.valid_HW.shape, NO_DATA, np.uint8)
            if strip.distance_HW is not None:
                steps_HW = quantise_distance(strip.distance_HW, strip.valid_HW)
            yield MaskStrip(strip.row, np.concatenate([masks_NHW, steps_HW[None]]))

    for window in add_neighbouring_rows(find_masks(), sizes.event_reach_px):
        found_t1_HW, found_t2_HW, present_t1_HW, present_t2_HW, steps_HW = window.masks_NHW
        opened = find_opened_residuals(
            PairForeground((found_t1_HW, found_t2_HW), (present_t1_HW, present_t2_HW)), sizes
        )
        events = opened[0][window.own], opened[1][window.own]
        objects = found_t1_HW[window.own], found_t2_HW[window.own]
        yield _ResidualStrip(window.row, events, objects, steps_HW[window.own])


def add_neighbouring_rows(strips: Iterable[MaskStrip], reach: int) -> Iterator[MaskWindow]:
    """Yield every strip with `reach` rows above and below it, or as many as there are."""
    above_NHW: NDArray[np.uint8] | None = None
    waiting: deque[MaskStrip] = deque()
    for strip in chain(strips, (None,)):  # None: no strip comes any more
        if strip is not None:
            waiting.append(strip)
        while waiting and (strip is None or sum(each.masks_NHW.shape[1] for each in islice(waiting, 1, None)) >= reach):
            first = waiting.popleft()
            above_NHW = first.masks_NHW[:, :0] if above_NHW is None else above_NHW
            own = slice(above_NHW.shape[1], above_NHW.shape[1] + first.masks_NHW.shape[1])
            parts = [above_NHW, first.masks_NHW, *(each.masks_NHW for each in waiting)]
            masks_NHW = np.concatenate(parts, axis=1)[:, : own.stop + reach]
            yield MaskWindow(first.row, masks_NHW, own)
            above_NHW = masks_NHW[:, max(0, own.stop - reach) : own.stop].copy()
