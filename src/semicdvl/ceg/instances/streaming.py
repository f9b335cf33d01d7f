"""Change events of a VLM's own instances over a raster that is too large for memory.

The raster is read part by part (one part per tile, without overlap), and the pixels of the merged instances (`merging`)
in each part are counted once. `matching` decides from the counts which instances are change events, and these are
painted strip by strip. The result is that of `labels.find_instance_events` on the merged instances of the whole raster,
overlapping instances included. Memory grows with the number of instances (and of tolerated shifts), not with the
raster.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from semicdvl.ceg.config import CEGSettings
from semicdvl.ceg.instances.events import ChangeEvents
from semicdvl.ceg.instances.feature_similarity import MosaickedFeatures, SimilarityAccumulator
from semicdvl.ceg.instances.masks import CroppedMask, count_overlaps
from semicdvl.ceg.instances.matching import EventFlags, IntArray, ObjectTable, decide_events
from semicdvl.ceg.instances.merging import MergedInstances
from semicdvl.ceg.instances.tile_windows import Window, intersect_windows, tile_core_windows
from semicdvl.ceg.streaming_components import PairScoreStrip
from semicdvl.types import TileInstanceReader


@dataclass(frozen=True)
class StreamedInstanceEvents:
    """The change events of a raster, to be painted strip by strip; made by `find_streamed_instance_events`.

    Attributes:
        instances: the merged instances.
        flags: which of them are change events.
    """

    instances: MergedInstances
    flags: EventFlags

    def paint_strip(self, strip: PairScoreStrip) -> ChangeEvents:
        """Return the change events in some rows of the raster."""
        height, width = strip.valid_HW.shape
        window = slice(strip.row, strip.row + height), slice(0, width)
        unmatched_HW, replaced_HW = np.zeros((height, width), bool), np.zeros((height, width), bool)
        for instance in self.instances.parts_in(window):
            unmatched, replaced = (
                flags[instance.date][instance.number - 1] for flags in (self.flags.unmatched, self.flags.replaced)
            )
            part = intersect_windows(instance.box, window) if unmatched or replaced else None
            if part is not None:
                target_HW = unmatched_HW if unmatched else replaced_HW
                target_HW[part[0].start - strip.row : part[0].stop - strip.row, part[1]] |= instance.crop_mask(part)
        return ChangeEvents(unmatched_HW, replaced_HW)


def find_streamed_instance_events(
    tile_instances: TileInstanceReader, *, settings: CEGSettings
) -> StreamedInstanceEvents:
    """Merge the instances of all tiles and find which of them are change events.

    Args:
        tile_instances: instances of the tiles, and their features if `min_cosine` is set.
        settings: delta and the options. As in `labels.find_instance_events`, a VLM's own instances are taken as they
            are: `instance_score` and `min_area_px` apply to VLMs that give score maps only.
    """
    merged = MergedInstances(tile_instances)
    parts = tile_core_windows(tuple(tile_instances.tile_windows))
    counts = _OverlapCounts([np.zeros(count, np.int64) for count in merged.counts])
    for step, part in enumerate(parts):
        counts.add(merged, part, step=step, shift_px=settings.shift_px)
    first, second = (
        ObjectTable(np.arange(len(area_N) + 1), area_N, classes_N)
        for area_N, classes_N in zip(counts.area_N, merged.classes_N, strict=True)
    )
    flags = decide_events(counts.table_4N, first, second, settings=settings)
    if settings.min_cosine is not None:
        t1_N, t2_N = _measure_similarity(merged, parts, counts.last_step_N, flags)
        flags = flags.with_dissimilar_replaced((t1_N < settings.min_cosine, t2_N < settings.min_cosine))
    return StreamedInstanceEvents(merged, flags)


# ------------------------------------------------------------------------------------------------ counts
@dataclass
class _OverlapCounts:
    """Areas and common pixels of the instances, counted part by part.

    Attributes:
        area_N: pixels of each instance, per date.
        last_step_N: the last part in which each instance has pixels, per date.
    """

    area_N: list[IntArray]
    last_step_N: list[IntArray] = field(init=False)
    _rows: list[IntArray] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.last_step_N = [np.full(len(area_N), -1) for area_N in self.area_N]

    @property
    def table_4N(self) -> IntArray:
        """The common pixels, as `matching.decide_events` takes them."""
        return np.concatenate([np.zeros((4, 0), np.int64), *self._rows], axis=1)

    def add(self, merged: MergedInstances, part: Window, *, step: int, shift_px: int) -> None:
        """Count the instances in a part; for date 1 also those beyond its edges that a shift moves into it."""
        (top, bottom), (left, right) = ((span.start, span.stop) for span in part)
        reach = slice(max(0, top - shift_px), bottom + shift_px), slice(max(0, left - shift_px), right + shift_px)
        t1, t2 = merged.masks_in(reach, 0), merged.masks_in(part, 1)
        for date, masks in enumerate((t1, t2)):
            for number, mask in masks.items():
                inside = intersect_windows(mask.window, part)
                count = 0 if inside is None else np.count_nonzero(_crop_to_window(mask, inside))
                self.area_N[date][number - 1] += count
                if count:
                    self.last_step_N[date][number - 1] = step
        numbers = list(t1), list(t2)
        for first, second, common_S in count_overlaps(list(t1.values()), list(t2.values()), shift_px=shift_px):
            shift = np.flatnonzero(common_S)
            own, other = np.full(len(shift), numbers[0][first]), np.full(len(shift), numbers[1][second])
            self._rows.append(np.stack([own, other, common_S[shift], shift]))


def _crop_to_window(mask: CroppedMask, window: Window) -> NDArray[np.bool_]:
    """Return the pixels of a mask in a window that lies within its box."""
    rows, cols = window
    return mask.mask_HW[rows.start - mask.row : rows.stop - mask.row, cols.start - mask.col : cols.stop - mask.col]


def _measure_similarity(
    merged: MergedInstances, parts: Sequence[Window], last_step_N: Sequence[IntArray], flags: EventFlags
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the feature similarity of the matched instances, per date; 1 for the others."""
    similarity = [
        SimilarityAccumulator(np.where(unmatched, -1, last))
        for unmatched, last in zip(flags.unmatched, last_step_N, strict=True)
    ]
    features = MosaickedFeatures(merged.tile_instances)
    for step, part in enumerate(parts):
        for patch in features.read_window(part):
            for date, of_date in enumerate(similarity):
                for number, mask in merged.masks_in(patch.window, date).items():
                    rows, cols = (
                        slice(span.start - start.start, span.stop - start.start)
                        for span, start in zip(mask.window, patch.window, strict=True)
                    )
                    cell_M = patch.cell_HW[rows, cols][mask.mask_HW]
                    of_date.add(np.full(len(cell_M), number), cell_M, patch.cells_KE)
        for of_date in similarity:
            of_date.finish_step(step)
    return similarity[0].cosine_N, similarity[1].cosine_N
