"""Objects of a mask that is seen strip by strip: which of one strip's are the same as the next strip's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def find_touching_labels(above_W: NDArray[np.integer], below_W: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return the pairs (2, N) of labels that touch, 8-connected, where one strip's last row meets the next one's first.

    0 is no object.
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
    """Return the group of each of `count` things, numbered from 0, if those of every pair belong together."""
    table = coo_array((np.ones(pairs_2N.shape[1], bool), (pairs_2N[0], pairs_2N[1])), shape=(count, count))
    group: NDArray[np.int64] = connected_components(table, directed=False)[1].astype(np.int64)
    return group


def find_first_blocks(
    labels_N: NDArray[np.integer], rows_N: NDArray[np.integer], cols_N: NDArray[np.integer], *, width: int, count: int
) -> NDArray[np.int64]:
    """Return where each label begins: the first of the raster's blocks of 2 x 2 px, row by row, that it has a pixel in.

    That is the order in which OpenCV numbers the objects of a whole mask, and no two 8-connected objects share a block.
    So objects numbered by it have the same numbers however the raster was cut into strips.

    Args:
        labels_N: label of each pixel of an object.
        rows_N: the raster's row of each.
        cols_N: its column.
        width: of the raster.
        count: number of labels, 0 included.
    """
    first = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(first, labels_N, (rows_N.astype(np.int64) // 2) * ((width + 1) // 2) + cols_N // 2)
    return first
