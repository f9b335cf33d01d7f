"""Instance-level change events with the options beyond the paper, all of them off by default (`config.CEGSettings`).

The paper's rule (`rules.instance_level`) calls an instance a change event if it overlaps no instance of the other date.
It misses a house that was demolished and rebuilt on the same ground, and it reports every small object where the images
are not exactly co-registered. The options:

Shift tolerance (`shift_px` = d). An instance is a change event if the sum of its IoUs stays <= delta under every shift
    by whole pixels up to length d. With delta = 0: no instance of the other date comes within d px of it. Each instance
    is shifted separately, since what displaces roofs (relief, viewing angle, mosaic seams) displaces each by another
    amount. A new object within d px of an old one is then missed, so d should be the registration error and no more.
    Areas are those of the whole instance, also where a shift moves it beyond the edge of the image.
Replaced by another shape (`replaced_iou`). An instance with a match whose best IoU is below the bound.
Replaced by another class (`replaced_class`). An instance whose best match answers another prompt. Unsuited to synonyms
    ("house", "building"): which of the two a VLM prefers can differ between dates.
Replaced by something that looks different (`min_cosine`). An instance with a match, over whose pixels the mean features
    of the dates have a cosine similarity below the bound. Features are arrays, from any network.

Instances can overlap, and are masks or COCO RLEs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semicdvl.ceg.config import CEGSettings
from semicdvl.ceg.features import PairFeatures
from semicdvl.ceg.instances.feature_similarity import compute_feature_similarity
from semicdvl.ceg.instances.masks import CroppedMask, count_overlaps, crop_instances
from semicdvl.ceg.instances.matching import IntArray, ObjectTable, decide_events
from semicdvl.ceg.instances.rule import InstanceMask
from semicdvl.errors import DataError


@dataclass(frozen=True)
class ChangeEvents:
    """Pixels of the instances that are change events.

    Attributes:
        unmatched_HW: instances without a match at the other date.
        replaced_HW: instances with a match that an option counts as a replacement.
    """

    unmatched_HW: NDArray[np.bool_]
    replaced_HW: NDArray[np.bool_]


def find_change_events(
    masks_t1: Sequence[CroppedMask],
    masks_t2: Sequence[CroppedMask],
    *,
    shape_hw: tuple[int, int],
    settings: CEGSettings,
    classes_t1: Sequence[int] = (),
    classes_t2: Sequence[int] = (),
    features: PairFeatures | None = None,
) -> ChangeEvents:
    """Apply the paper's rule and the options of `settings` to the instances of two dates.

    With all options off, `unmatched_HW` equals `rules.instance_level` and nothing is replaced.

    Args:
        masks_t1: foreground instances of date 1, from `masks.crop_instances` or `masks.crop_label_image`.
        masks_t2: foreground instances of date 2.
        shape_hw: height and width of the image in pixels.
        settings: delta and the options.
        classes_t1: prompt of each instance of date 1; needed for `replaced_class`.
        classes_t2: prompt of each instance of date 2; needed for `replaced_class`.
        features: feature maps of both dates; needed for `min_cosine`.

    Raises:
        DataError: an option is on and what it needs is missing or does not fit.
    """
    needs_classes = settings.replaced_iou is not None or settings.replaced_class
    tables = [
        _build_object_table(masks, classes if needs_classes else ())
        for masks, classes in ((masks_t1, classes_t1), (masks_t2, classes_t2))
    ]
    table_4N = _count_common_pixels(masks_t1, masks_t2, shift_px=settings.shift_px)
    flags = decide_events(table_4N, tables[0], tables[1], settings=settings)
    if settings.min_cosine is not None:
        if features is None:
            raise DataError(
                "min_cosine compares features of the dates, and there are none. Pass them, or leave it out."
            )
        t1_N, t2_N = (
            compute_feature_similarity(masks, features, shape_hw=shape_hw) < settings.min_cosine
            for masks in (masks_t1, masks_t2)
        )
        flags = flags.with_dissimilar_replaced((t1_N, t2_N))
    unmatched_HW, replaced_HW = np.zeros(shape_hw, bool), np.zeros(shape_hw, bool)
    for date, masks in enumerate((masks_t1, masks_t2)):
        _paint_masks(unmatched_HW, masks, flags.unmatched[date])
        _paint_masks(replaced_HW, masks, flags.replaced[date])
    return ChangeEvents(unmatched_HW, replaced_HW)


def find_change_events_of_instances(
    instances_t1: Sequence[InstanceMask],
    instances_t2: Sequence[InstanceMask],
    *,
    shape_hw: tuple[int, int],
    settings: CEGSettings,
    classes: Mapping[str, Sequence[int]] | None = None,
    features: PairFeatures | None = None,
) -> ChangeEvents:
    """Find change events as `find_change_events`, from masks or COCO RLEs; `classes` has the keys "t1" and "t2"."""
    of_date = classes or {}
    return find_change_events(
        crop_instances(instances_t1, shape_hw=shape_hw),
        crop_instances(instances_t2, shape_hw=shape_hw),
        shape_hw=shape_hw,
        settings=settings,
        classes_t1=of_date.get("t1", ()),
        classes_t2=of_date.get("t2", ()),
        features=features,
    )


def _build_object_table(masks: Sequence[CroppedMask], classes: Sequence[int]) -> ObjectTable:
    """Return masks as objects, the label of each being its number; classes are 0 where none are given."""
    if len(classes) not in (0, len(masks)):
        raise DataError(f"{len(classes)} classes for {len(masks)} instances; give one class per instance.")
    area_N = np.array([np.count_nonzero(mask.mask_HW) for mask in masks], np.int64)
    classes_N = np.asarray(classes, np.int64) if len(classes) else np.zeros(len(masks), np.int64)
    return ObjectTable(np.arange(len(masks) + 1), area_N, classes_N)


def _count_common_pixels(
    masks_t1: Sequence[CroppedMask], masks_t2: Sequence[CroppedMask], *, shift_px: int
) -> IntArray:
    """Return the common pixels of masks as the table of `matching.decide_events`."""
    rows = [np.zeros((4, 0), np.int64)]
    for first, second, common_S in count_overlaps(masks_t1, masks_t2, shift_px=shift_px):
        shift = np.flatnonzero(common_S)
        rows.append(np.stack([0 * shift + first + 1, 0 * shift + second + 1, common_S[shift], shift]))
    return np.concatenate(rows, axis=1)


def _paint_masks(map_HW: NDArray[np.bool_], masks: Sequence[CroppedMask], chosen_N: NDArray[np.bool_]) -> None:
    """Set the pixels of the chosen masks."""
    for mask, chosen in zip(masks, chosen_N, strict=True):
        if chosen:
            map_HW[mask.window] |= mask.mask_HW
