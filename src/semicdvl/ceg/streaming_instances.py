"""Change events of a VLM's own instances over a raster that is too large to hold.

The raster is gone through part by part (one per tile, without overlap): the pixels of the joined objects
(`found_objects`) in a part are counted once. From the counts follows which objects are events (`judging`), and these
are painted strip by strip. The result is that of `labels.find_instance_events` on the joined objects of the whole
raster,
overlapping objects included. What is remembered grows with the number of objects (and of tolerated shifts), not with
the raster.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from semicdvl.ceg import instance_events, instance_matching
from semicdvl.ceg.config import CEGSettings
from semicdvl.ceg.feature_similarity import (
    FeatureSimilarity,
    MosaickedFeatures,
    Window,
    intersect_windows,
    tile_core_windows,
)
from semicdvl.ceg.instance_merging import MergedInstances
from semicdvl.ceg.streaming_components import PairScoreStrip
from semicdvl.types import TileInstanceReader


@dataclass(frozen=True)
class StreamedInstanceEvents:
    """Which objects of a raster are change events, ready to be painted strip by strip: `find_streamed_instance_events`
    makes it.

    Attributes:
        instances: the objects.
        flags: what was decided about them.
    """

    instances: MergedInstances
    flags: instance_matching.EventFlags

    def paint_strip(self, strip: PairScoreStrip) -> instance_events.ChangeEvents:
        """Return the events in some rows of the raster."""
        height, width = strip.valid_HW.shape
        window = slice(strip.row, strip.row + height), slice(0, width)
        alone_HW, replaced_HW = np.zeros((height, width), bool), np.zeros((height, width), bool)
        for find in self.instances.parts_in(window):
            alone, replaced = (
                chosen[find.date][find.number - 1] for chosen in (self.flags.unmatched, self.flags.replaced)
            )
            part = intersect_windows(find.box, window) if alone or replaced else None
            if part is not None:
                target_HW = alone_HW if alone else replaced_HW
                target_HW[part[0].start - strip.row : part[0].stop - strip.row, part[1]] |= find.crop_mask(part)
        return instance_events.ChangeEvents(alone_HW, replaced_HW)


def find_streamed_instance_events(finds: TileInstanceReader, *, settings: CEGSettings) -> StreamedInstanceEvents:
    """Join the finds of all tiles and find which objects are events.

    Args:
        finds: what was told of the tiles; with features where `min_cosine` is set.
        settings: delta and the options. As in `labels.find_instance_events`, a VLM's own instances are taken as they
        are:
            `instance_score` and `min_area_px` are for VLMs that give maps only.
    """
    joined = MergedInstances(finds)
    parts = tile_core_windows(tuple(finds.tile_windows))
    counted = _OverlapCounts([np.zeros(count, np.int64) for count in joined.counts])
    for step, part in enumerate(parts):
        counted.add(joined, part, step=step, shift_px=settings.shift_px)
    first, second = (
        instance_matching.ObjectTable(np.arange(len(area_N) + 1), area_N, classes_N)
        for area_N, classes_N in zip(counted.area_N, joined.classes_N, strict=True)
    )
    verdict = instance_matching.decide_events(counted.table_4N, first, second, settings=settings)
    if settings.min_cosine is not None:
        alike = _measure_similarity(joined, parts, counted.last_N, verdict)
        verdict = verdict.with_dissimilar_replaced((alike[0] < settings.min_cosine, alike[1] < settings.min_cosine))
    return StreamedInstanceEvents(joined, verdict)


# ------------------------------------------------------------------------------------------------ counts
@dataclass
class _OverlapCounts:
    """What is counted, part by part.

    Attributes:
        area_N: pixels of each object, per date.
        last_N: the last part that each object has pixels in, per date.
    """

    area_N: list[instance_matching.IntArray]
    last_N: list[instance_matching.IntArray] = field(init=False)
    _found: list[instance_matching.IntArray] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.last_N = [np.full(len(area_N), -1) for area_N in self.area_N]

    @property
    def table_4N(self) -> instance_matching.IntArray:
        """What was counted, as `instance_matching.decide_events` wants it."""
        return np.concatenate([np.zeros((4, 0), np.int64), *self._found], axis=1)

    def add(self, joined: MergedInstances, part: Window, *, step: int, shift_px: int) -> None:
        """Count the objects in a part; those of date 1 from beyond its edges, too, where a shift brings them in."""
        (top, bottom), (left, right) = ((span.start, span.stop) for span in part)
        reach = slice(max(0, top - shift_px), bottom + shift_px), slice(max(0, left - shift_px), right + shift_px)
        t1, t2 = joined.masks_in(reach, 0), joined.masks_in(part, 1)
        for date, masks in enumerate((t1, t2)):
            for number, piece in masks.items():
                inside = intersect_windows(piece.window, part)
                count = 0 if inside is None else np.count_nonzero(_crop_to_window(piece, inside))
                self.area_N[date][number - 1] += count
                if count:
                    self.last_N[date][number - 1] = step
        numbers = list(t1), list(t2)
        pairs = instance_events.count_overlaps(list(t1.values()), list(t2.values()), shift_px=shift_px)
        for first, second, common_S in pairs:
            shift = np.flatnonzero(common_S)
            own, other = np.full(len(shift), numbers[0][first]), np.full(len(shift), numbers[1][second])
            self._found.append(np.stack([own, other, common_S[shift], shift]))


def _crop_to_window(piece: instance_events.CroppedMask, part: Window) -> NDArray[np.bool_]:
    """Return the pixels of a piece in a window that lies within it."""
    rows, cols = part
    return piece.mask_HW[rows.start - piece.row : rows.stop - piece.row, cols.start - piece.col : cols.stop - piece.col]


def _measure_similarity(
    joined: MergedInstances,
    parts: Sequence[Window],
    last_N: Sequence[instance_matching.IntArray],
    verdict: instance_matching.EventFlags,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the cosines of the objects that met something, per date; 1 for the others."""
    alike = [FeatureSimilarity(np.where(lone, -1, last)) for lone, last in zip(verdict.unmatched, last_N, strict=True)]
    described = MosaickedFeatures(joined.tile_instances)
    for step, part in enumerate(parts):
        for patch in described.read_window(part):
            for date, of_date in enumerate(alike):
                for number, piece in joined.masks_in(patch.window, date).items():
                    rows, cols = (
                        slice(side.start - start.start, side.stop - start.start)
                        for side, start in zip(piece.window, patch.window, strict=True)
                    )
                    cell_M = patch.cell_HW[rows, cols][piece.mask_HW]
                    of_date.add(np.full(len(cell_M), number), cell_M, patch.cells_KE)
        for of_date in alike:
            of_date.finish_step(step)
    return alike[0].cosine_N, alike[1].cosine_N
