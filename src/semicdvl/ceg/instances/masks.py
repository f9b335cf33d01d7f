"""Instance masks cropped to their bounding boxes, and the number of pixels that the masks of two dates share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from pycocotools import mask as rle

from semicdvl.ceg.instances.matching import list_shifts
from semicdvl.ceg.instances.rule import InstanceMask, encode_instances


@dataclass(frozen=True)
class CroppedMask:
    """An instance mask, cropped to its bounding box; an instance without pixels has an empty mask.

    Attributes:
        row: first row of the box in the image.
        col: first column of the box in the image.
        mask_HW: True on the pixels of the instance.
    """

    row: int
    col: int
    mask_HW: NDArray[np.bool_]

    @property
    def window(self) -> tuple[slice, slice]:
        """The rows and columns of the image that the box covers."""
        height, width = self.mask_HW.shape
        return slice(self.row, self.row + height), slice(self.col, self.col + width)


# ------------------------------------------------------------------------------------------------ cropping
def crop_instances(instances: Sequence[InstanceMask], *, shape_hw: tuple[int, int]) -> list[CroppedMask]:
    """Crop masks or COCO RLEs to their bounding boxes.

    Raises:
        DataError: an instance does not have the image's size.
    """
    rles = encode_instances(instances, shape_hw)
    if not rles:
        return []
    boxes_N4 = rle.toBbox(rles).astype(int)  # x, y, width, height
    return [
        CroppedMask(int(y), int(x), np.ascontiguousarray(rle.decode(one)[y : y + height, x : x + width]).astype(bool))
        for one, (x, y, width, height) in zip(rles, boxes_N4, strict=True)
    ]


def crop_label_image(labels_HW: NDArray[np.int32]) -> list[CroppedMask]:
    """Crop the objects of a label image (0 = none) to their bounding boxes, in the order of their labels."""
    from scipy.ndimage import find_objects

    found = [(label, window) for label, window in enumerate(find_objects(labels_HW), 1) if window is not None]
    return [CroppedMask(rows.start, cols.start, labels_HW[rows, cols] == label) for label, (rows, cols) in found]


def classify_masks(
    masks: Sequence[CroppedMask], scores_CHW: NDArray[np.floating], *, foreground: Sequence[int]
) -> list[int]:
    """Return the prompt of each mask: the foreground prompt with the greatest mean score over its pixels."""
    prompts = list(foreground)
    return [prompts[int(_sum_scores(mask, scores_CHW, prompts).argmax())] for mask in masks]


def _sum_scores(mask: CroppedMask, scores_CHW: NDArray[np.floating], prompts: list[int]) -> NDArray[np.float64]:
    """Return the sum of each prompt's score over a mask (it has the same maximum as the mean)."""
    rows, cols = mask.window
    return np.array([scores_CHW[index, rows, cols][mask.mask_HW].sum(dtype=np.float64) for index in prompts])


# ------------------------------------------------------------------------------------------------ common pixels
def count_overlaps(
    masks_t1: Sequence[CroppedMask], masks_t2: Sequence[CroppedMask], *, shift_px: int = 0
) -> Iterator[tuple[int, int, NDArray[np.int64]]]:
    """Yield the pairs of masks that share pixels under some shift of the first, in ascending order.

    Only masks whose boxes come close enough are compared pixel by pixel.

    Yields:
        index of the mask of date 1, index of the mask of date 2, and the number of common pixels under each shift of
        `matching.list_shifts`.
    """
    shifts = list_shifts(shift_px)
    for first, second in _candidate_pairs(masks_t1, masks_t2, shift_px):
        common_S = np.array(
            [_count_common_pixels(masks_t1[first], masks_t2[second], shift) for shift in shifts], np.int64
        )
        if common_S.any():
            yield first, second, common_S


def _candidate_pairs(
    masks_t1: Sequence[CroppedMask], masks_t2: Sequence[CroppedMask], shift_px: int
) -> Iterator[tuple[int, int]]:
    """Yield the pairs whose boxes touch once those of date 1 are enlarged by the tolerance, in ascending order."""
    if not masks_t1 or not masks_t2:
        return
    tree = shapely.STRtree(_search_boxes(masks_t2, 0))
    pairs_2P = tree.query(_search_boxes(masks_t1, shift_px), predicate="intersects")
    for index in np.lexsort(pairs_2P[::-1]):
        yield int(pairs_2P[0, index]), int(pairs_2P[1, index])


def _search_boxes(masks: Sequence[CroppedMask], margin_px: int) -> NDArray[np.object_]:
    """Return the boxes of masks for a search tree."""
    boxes_N4 = np.array([(mask.col, mask.row, *mask.mask_HW.shape[::-1]) for mask in masks], np.float64)
    left, top, width, height = boxes_N4.T
    boxes: NDArray[np.object_] = shapely.box(
        left - margin_px, top - margin_px, left + width + margin_px, top + height + margin_px
    )
    return boxes


def _count_common_pixels(first: CroppedMask, second: CroppedMask, shift: tuple[int, int]) -> int:
    """Return the number of pixels that two masks share after the first is shifted by (rows, columns)."""
    row, col = first.row + shift[0], first.col + shift[1]
    top, left = max(row, second.row), max(col, second.col)
    bottom = min(row + first.mask_HW.shape[0], second.row + second.mask_HW.shape[0])
    right = min(col + first.mask_HW.shape[1], second.col + second.mask_HW.shape[1])
    if bottom <= top or right <= left:
        return 0
    first_HW = first.mask_HW[top - row : bottom - row, left - col : right - col]
    second_HW = second.mask_HW[top - second.row : bottom - second.row, left - second.col : right - second.col]
    return int(np.count_nonzero(first_HW & second_HW))
