"""Find solid black borders that no tag declares as no-data: the corners of a rotated scene, the end of an image strip.

A black border is an 8-connected region of pixels that are exactly 0 in every band, touches the edge of the image and is
larger than `MIN_BORDER_PX`. Shadows are not exactly 0, and black roofs do not touch the edge. The search is exact and
takes one pass over the pixels, but only where the outermost pixels hold zeros. The image is labelled strip by strip and
the strips are kept compressed, so memory does not grow with the raster.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from semicdvl.raster.connected_components import find_touching_labels, group_labels

MIN_BORDER_PX = 64 * 64
"""Smaller black regions at the edge of an image count as dark ground."""
BORDER_STRIP_ROWS = 512

ReadBlackMask = Callable[[int, int, int, int], NDArray[np.bool_]]
"""(row, col, height, width) -> where the pixels of a window are exactly 0 in every band."""


@dataclass(frozen=True)
class BlackBorder:
    """The black border of one image, as compressed strips; an image without one holds no strip."""

    height: int
    width: int
    strips: tuple[bytes, ...] = ()

    def join(self, other: BlackBorder) -> BlackBorder:
        """Return the border that holds the pixels of both."""
        if not self.strips or not other.strips:
            return self if self.strips else other
        both = zip(self.strips, other.strips, strict=True)
        return BlackBorder(
            self.height,
            self.width,
            tuple(_pack_mask(_unpack_mask(a, self.width) | _unpack_mask(b, self.width)) for a, b in both),
        )

    def read_window(self, row: int, col: int, height: int, width: int) -> NDArray[np.bool_]:
        """Return where a window (which may reach over the image's edges) is border; outside the image it is not."""
        border_HW = np.zeros((height, width), bool)
        if not self.strips:
            return border_HW
        first, last = max(row, 0), min(row + height, self.height)
        left, right = max(col, 0), min(col + width, self.width)
        for start in range(first - first % BORDER_STRIP_ROWS, last, BORDER_STRIP_ROWS):
            top, bottom = max(start, first), min(start + BORDER_STRIP_ROWS, last)
            part_HW = _unpack_mask(self.strips[start // BORDER_STRIP_ROWS], self.width, left=left, right=right)
            border_HW[top - row : bottom - row, left - col : right - col] = part_HW[top - start : bottom - start]
        return border_HW

    def read_dilated(
        self, row: int, col: int, height: int, width: int, *, radius_px: int, shape_hw: tuple[int, int]
    ) -> NDArray[np.bool_]:
        """Return the border of a window, dilated by `radius_px` and decimated by nearest neighbour to `shape_hw`.

        Memory holds one strip of the window, however high the window is.
        """
        rows, cols = (_find_nearest(size, count) for size, count in zip((height, width), shape_hw, strict=True))
        kernel_HW = np.ones((2 * radius_px + 1, 2 * radius_px + 1), np.uint8)
        dilated_HW = np.zeros(shape_hw, bool)
        for start in range(0, height, BORDER_STRIP_ROWS):
            first, last = np.searchsorted(rows, (start, start + BORDER_STRIP_ROWS))
            if first == last:
                continue
            top, bottom = int(rows[first]), int(rows[last - 1]) + 1
            wide_HW = self.read_window(
                row + top - radius_px, col - radius_px, bottom - top + 2 * radius_px, width + 2 * radius_px
            )
            if wide_HW.any():
                near_HW = cv2.dilate(wide_HW.view(np.uint8), kernel_HW)[radius_px:-radius_px, radius_px:-radius_px]
                sampled_HW = near_HW if near_HW.shape[1] == len(cols) else near_HW[:, cols]
                dilated_HW[first:last] = sampled_HW[rows[first:last] - top] > 0
        return dilated_HW


def find_black_border(
    read_black: ReadBlackMask, *, height: int, width: int, min_area_px: int = MIN_BORDER_PX
) -> BlackBorder:
    """Find the black border of an image that is read window by window.

    Args:
        read_black: tells where a window is exactly 0 in every band.
        height: rows of the image.
        width: columns of the image.
        min_area_px: regions up to this size are no border.
    """
    frame = [(0, 0, 1, width), (height - 1, 0, 1, width), (0, 0, height, 1), (0, width - 1, height, 1)]
    if not any(read_black(*window).any() for window in frame):
        return BlackBorder(height, width)
    regions = _BlackRegions()
    for row in range(0, height, BORDER_STRIP_ROWS):
        rows = min(BORDER_STRIP_ROWS, height - row)
        regions.add_strip(read_black(row, 0, rows, width), is_first=row == 0, is_last=row + rows == height)
    is_border_N = regions.select_borders(min_area_px)
    if not is_border_N.any():
        return BlackBorder(height, width)
    strips = []
    for packed, offset in zip(regions.strips, regions.offsets, strict=True):
        count, labels_HW = cv2.connectedComponents(_unpack_mask(packed, width).astype(np.uint8), connectivity=8)
        in_border = np.concatenate([[False], is_border_N[offset : offset + count - 1]])
        strips.append(_pack_mask(in_border[labels_HW]))
    return BlackBorder(height, width, tuple(strips))


class _BlackRegions:
    """The black regions of an image, labelled strip by strip; regions of all strips are numbered on from 0.

    Attributes:
        strips: the black pixels of each strip, compressed.
        offsets: number of the first region of each strip.
    """

    def __init__(self) -> None:
        self.strips: list[bytes] = []
        self.offsets: list[int] = []
        self._count = 0
        self._area_px: list[NDArray[np.int64]] = []
        self._at_edge: list[NDArray[np.bool_]] = []
        self._pairs: list[NDArray[np.int64]] = [np.zeros((2, 0), np.int64)]
        self._last_row_W: NDArray[np.int64] | None = None

    def add_strip(self, black_HW: NDArray[np.bool_], *, is_first: bool, is_last: bool) -> None:
        """Label the regions of the next strip."""
        count, labels_HW = cv2.connectedComponents(black_HW.astype(np.uint8), connectivity=8)
        edges = [labels_HW[:, 0], labels_HW[:, -1]] + [labels_HW[0]] * is_first + [labels_HW[-1]] * is_last
        at_edge = np.zeros(count, bool)
        at_edge[np.concatenate(edges)] = True
        area_px = np.bincount(labels_HW.ravel(), minlength=count)  # OpenCV's own statistics take ten times as long
        first_row_W, last_row_W = (
            np.where(row_W > 0, row_W + np.int64(self._count), 0) for row_W in (labels_HW[0], labels_HW[-1])
        )
        if self._last_row_W is not None:
            self._pairs.append(find_touching_labels(self._last_row_W, first_row_W) - 1)
        self.strips.append(_pack_mask(black_HW))
        self.offsets.append(self._count)
        self._area_px.append(area_px[1:])
        self._at_edge.append(at_edge[1:])
        self._last_row_W, self._count = last_row_W, self._count + count - 1

    def select_borders(self, min_area_px: int) -> NDArray[np.bool_]:
        """Tell of each region whether it belongs to a border: at the edge, and larger than `min_area_px`."""
        group_N = group_labels(np.concatenate(self._pairs, axis=1), count=self._count)
        group_area_px = np.bincount(group_N, weights=np.concatenate(self._area_px))
        group_at_edge = np.bincount(group_N, weights=np.concatenate(self._at_edge)) > 0
        return np.asarray((group_at_edge & (group_area_px > min_area_px))[group_N])


def _pack_mask(mask_HW: NDArray[np.bool_]) -> bytes:
    return zlib.compress(np.packbits(mask_HW, axis=1).tobytes(), 1)


def _unpack_mask(packed: bytes, width: int, *, left: int = 0, right: int | None = None) -> NDArray[np.bool_]:
    """Return the columns of a strip from `left` to `right`; only their bytes are unpacked."""
    right = width if right is None else right
    bits = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(-1, (width + 7) // 8)
    part_HW = np.unpackbits(bits[:, left // 8 : (right + 7) // 8], axis=1)
    return part_HW[:, left % 8 : left % 8 + right - left].astype(bool)


def _find_nearest(size: int, count: int) -> NDArray[np.intp]:
    """Return which of `size` pixels a nearest-neighbour decimation to `count` takes, as GDAL does."""
    return np.minimum(((np.arange(count) + 0.5) * (size / count)).astype(np.intp), size - 1)
