"""The instance level: an object without a match at the other date is a change event.

Pure functions on masks of any size. Source: SemiCD-VL, section 3.2, Eq. 8-10. The threshold of Eq. 9 is "smaller than
delta" with delta = 0, which is the empty set; here it is `<= delta`. The authors' later code uses delta = 0.01.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from semicdvl.ceg.rules import find_foreground
from semicdvl.errors import DataError

InstanceMask = NDArray[Any] | Mapping[str, Any]
"""One object: an HW mask (non-zero = object) or a COCO RLE dict with `size` and `counts`."""


MAX_PAIRS_AT_ONCE = 2**22
"""Pairs of instances that are compared at once; more are done in rows, so that the table of IoUs stays small."""


def instance_level(
    instances_t1: Sequence[InstanceMask],
    instances_t2: Sequence[InstanceMask],
    *,
    shape_hw: tuple[int, int],
    delta: float = 0.0,
) -> NDArray[np.bool_]:
    """Return the union of the instances that have no match at the other date (Eq. 8-10).

    An instance is a change event when the sum of its IoUs with all instances of the other date is `<= delta`; with
    delta = 0 that means "no common pixel" (touching is not overlapping). If one date has no instance, all of the
    other's are change events. Instances of one date may overlap each other.

    Args:
        instances_t1: foreground objects of date 1, as HW masks or COCO RLE dicts.
        instances_t2: foreground objects of date 2.
        shape_hw: height and width of the image in pixels.
        delta: greatest sum of IoUs of a change event.

    Returns:
        HW, bool: the pixels of the change events.

    Raises:
        DataError: an instance does not have the image's size.

    Example:
        >>> import numpy as np
        >>> stays, new = np.zeros((4, 6), bool), np.zeros((4, 6), bool)
        >>> stays[:2, :2], new[2:, 3:5] = True, True
        >>> events_HW = instance_level([stays], [stays, new], shape_hw=(4, 6))
        >>> bool((events_HW == new).all())
        True
    """
    rles_t1, rles_t2 = encode_instances(instances_t1, shape_hw), encode_instances(instances_t2, shape_hw)
    totals_t1, totals_t2 = _iou_sums(rles_t1, rles_t2)
    events = [one for one, total in zip(rles_t2, totals_t2, strict=True) if total <= delta or not rles_t1]
    events += [one for one, total in zip(rles_t1, totals_t1, strict=True) if total <= delta or not rles_t2]
    if not events:
        return np.zeros(shape_hw, bool)
    return _decode_rle(_merge_rles(events))


def encode_instances(instances: Sequence[InstanceMask], shape_hw: tuple[int, int]) -> list[dict[str, Any]]:
    """Return masks and COCO RLEs, compressed or not, as compressed COCO RLEs.

    Raises:
        DataError: an instance does not have the image's size.
    """
    rles = []
    for instance in instances:
        size = tuple(instance["size"]) if isinstance(instance, Mapping) else instance.shape
        if size != tuple(shape_hw):
            raise DataError(f"an instance mask is {size}, the image is {tuple(shape_hw)}; both must be equal.")
        if not isinstance(instance, Mapping):
            rles.append(rle.encode(np.asfortranarray(instance != 0, dtype=np.uint8)))
        elif isinstance(instance["counts"], list):  # uncompressed run lengths, as in COCO's crowd annotations
            rles.append(rle.frPyObjects(dict(instance), *shape_hw))
        else:
            rles.append(dict(instance))
    return rles


def _merge_rles(rles: list[dict[str, Any]]) -> dict[str, Any]:
    """Merge RLEs as a tree: merging into one growing mask would cost the square of the count."""
    while len(rles) > 1:
        rles = [rle.merge(rles[at : at + 8]) for at in range(0, len(rles), 8)]
    return rles[0]


def _decode_rle(one: dict[str, Any]) -> NDArray[np.bool_]:
    """Return the mask of an RLE in C order: pycocotools gives columns first, which makes what follows slow."""
    import cv2

    columns_first_HW = rle.decode(one)
    mask_HW: NDArray[np.bool_] = np.asarray(cv2.transpose(columns_first_HW.T)).view(bool)
    return mask_HW


def _iou_sums(
    rles_t1: list[dict[str, Any]], rles_t2: list[dict[str, Any]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return for each instance the sum of its IoUs with all instances of the other date; 0 where there are none."""
    totals_t1, totals_t2 = np.zeros(len(rles_t1)), np.zeros(len(rles_t2))
    if not rles_t1 or not rles_t2:
        return totals_t1, totals_t2
    rows = max(1, MAX_PAIRS_AT_ONCE // len(rles_t1))
    for start in range(0, len(rles_t2), rows):
        some = rles_t2[start : start + rows]
        iou_NM = rle.iou(some, rles_t1, [False] * len(rles_t1))
        totals_t2[start : start + rows] = iou_NM.sum(axis=1)
        totals_t1 += iou_NM.sum(axis=0)
    return totals_t1, totals_t2


def instance_level_from_label_images(
    labels_t1_HW: NDArray[np.int32], labels_t2_HW: NDArray[np.int32], *, delta: float = 0.0
) -> NDArray[np.bool_]:
    """Return what `instance_level` returns, for instances without overlap in label images (0 = none).

    One contingency table of the two label images holds every intersection, so the cost is one pass over the pixels,
    whatever the number of instances.
    """
    if labels_t1_HW.shape != labels_t2_HW.shape:
        raise DataError(f"label images differ in shape: {labels_t1_HW.shape} and {labels_t2_HW.shape}.")
    area_t1 = np.bincount(labels_t1_HW.ravel())
    area_t2 = np.bincount(labels_t2_HW.ravel())
    both_HW = (labels_t1_HW > 0) & (labels_t2_HW > 0)
    codes = labels_t1_HW[both_HW].astype(np.int64) * len(area_t2) + labels_t2_HW[both_HW]
    code, common = np.unique(codes, return_counts=True)
    first, second = code // len(area_t2), code % len(area_t2)
    iou = common / (area_t1[first] + area_t2[second] - common)
    unmatched_t1 = np.bincount(first, weights=iou, minlength=len(area_t1)) <= delta
    unmatched_t2 = np.bincount(second, weights=iou, minlength=len(area_t2)) <= delta
    unmatched_t1[0] = unmatched_t2[0] = False
    events_HW: NDArray[np.bool_] = unmatched_t1[labels_t1_HW] | unmatched_t2[labels_t2_HW]
    return events_HW


def find_components(
    scores_CHW: NDArray[np.floating[Any]], *, foreground: Sequence[int], threshold: float, min_area_px: int = 0
) -> NDArray[np.int32]:
    """Return the objects of a VLM that gives maps only: a label image of 8-connected foreground components.

    Foreground is where the foreground concept wins with a score >= threshold (rounded to the scores' dtype). Components
    below `min_area_px` are dropped. The paper's VLM gives instances itself; this is for VLMs that do not.
    """
    import cv2

    found_HW, best_HW = find_foreground(scores_CHW, foreground=foreground)
    object_HW = found_HW & (best_HW >= best_HW.dtype.type(threshold))
    count, labels_HW, stats, _ = cv2.connectedComponentsWithStats(object_HW.astype(np.uint8), connectivity=8)
    keep = stats[:, cv2.CC_STAT_AREA] >= min_area_px
    keep[0] = False
    renumbered = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    if count == 1:
        return np.zeros(object_HW.shape, np.int32)
    kept_HW: NDArray[np.int32] = renumbered[labels_HW]
    return kept_HW
