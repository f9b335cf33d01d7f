"""Connected components (8-connected), of a whole mask and of a mask that comes strip by strip.

A strip's components are labelled by themselves. `find_touching_labels` tells which labels meet across the edge between
two strips, `group_labels` which of all labels are one component, and `find_first_blocks` gives the order in which the
components of the whole mask would have been numbered.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LabelledObjects:
    """The changed objects of a change map.

    Attributes:
        labels_HW: int32, 0 = unchanged, 1 ... N = the objects, 8-connected, numbered from the top left.
        area_px: int64 N+1, pixels of each label; index 0 is the unchanged rest.
    """

    labels_HW: NDArray[np.int32]
    area_px: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of objects."""
        return len(self.area_px) - 1


def find_objects(change_HW: NDArray[np.uint8], *, min_area_px: float = 0) -> LabelledObjects:
    """Label the 8-connected objects (value 1) of a change map and leave out those smaller than `min_area_px`."""
    changed_HW = (change_HW == 1).astype(np.uint8)
    count, labels_HW, stats, _ = cv2.connectedComponentsWithStats(changed_HW, connectivity=8)
    area_px = stats[:, cv2.CC_STAT_AREA].astype(np.int64)
    keep = area_px >= min_area_px
    keep[0] = False
    renumbered = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    kept_HW: NDArray[np.int32] = renumbered[labels_HW] if count > 1 else np.zeros(change_HW.shape, np.int32)
    return LabelledObjects(kept_HW, np.concatenate([[change_HW.size - area_px[keep].sum()], area_px[keep]]))


def find_touching_labels(above_W: NDArray[np.integer], below_W: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return the pairs (2, N) of labels that touch across the edge between two strips, corners included.

    Args:
        above_W: labels of the upper strip's last row; 0 is no object.
        below_W: labels of the lower strip's first row.
    """
    pairs = []
    width = len(above_W)
    for shift in (-1, 0, 1):
        upper = above_W[max(0, -shift) : width - max(0, shift)]
        lower = below_W[max(0, shift) : width - max(0, -shift)]
        both = (upper > 0) & (lower > 0)
        pairs.append(np.stack([upper[both], lower[both]]).astype(np.int64))
    return np.unique(np.concatenate(pairs, axis=1), axis=1)


def group_labels(pairs_2N: NDArray[np.int64], *, count: int) -> NDArray[np.int64]:
    """Return the group (numbered from 0) of each of `count` labels, where both labels of a pair are in one group.

    Groups are numbered in the order of their first labels. SciPy's graphs give the same; to import them takes longer
    than this.
    """
    root_N = np.arange(count)  # a label of the same group that is not larger
    while True:
        one, other = root_N[pairs_2N[0]], root_N[pairs_2N[1]]
        if (one == other).all():
            return np.unique(root_N, return_inverse=True)[1]
        lower = np.minimum(one, other)
        np.minimum.at(root_N, one, lower)
        np.minimum.at(root_N, other, lower)
        while not np.array_equal(shorter_N := root_N[root_N], root_N):
            root_N = shorter_N


def find_first_blocks(
    labels_N: NDArray[np.integer], rows_N: NDArray[np.integer], cols_N: NDArray[np.integer], *, width: int, count: int
) -> NDArray[np.int64]:
    """Return the first of the raster's blocks of 2 x 2 px, row by row, in which each label has a pixel.

    OpenCV numbers the objects of a whole mask in the order of these blocks, and no two 8-connected objects share one.
    Objects that are sorted by it have the same numbers however the raster was cut into strips.

    Args:
        labels_N: label of each pixel of an object.
        rows_N: row of each pixel on the raster.
        cols_N: column of each pixel.
        width: width of the raster.
        count: number of labels, 0 included.
    """
    first = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(first, labels_N, (rows_N.astype(np.int64) // 2) * ((width + 1) // 2) + cols_N // 2)
    return first
