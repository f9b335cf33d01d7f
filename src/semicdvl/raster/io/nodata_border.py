"""Solid black borders that no tag declares as no-data: the corners of a rotated scene, the end of a strip.

A black border is an 8-connected region of pixels that are exactly 0 in every band, touches the edge of the image and is
larger than `LEAST_PX`. A shadow is not black in that sense, and a black roof does not touch the edge. The search is
exact and needs one pass over the pixels, but only where the outermost pixels hold zeros; strips are labelled one by
one and kept compressed, so memory does not grow with the raster.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

MIN_BORDER_PX = 64 * 64
"""Smaller black regions at the edge are taken for dark ground."""
STRIP_ROWS = 512

ReadBlackMask = Callable[[int, int, int, int], NDArray[np.bool_]]
"""(row, col, height, width) -> where the window's pixels are exactly 0 in every band."""


@dataclass(frozen=True)
class BlackBorder:
    """The black border of one image, as compressed strips; an image without one holds no strip."""

    height: int
    width: int
    strips: tuple[bytes, ...] = ()

    def read_window(self, row: int, col: int, height: int, width: int) -> NDArray[np.bool_]:
        """Return where a window (which may reach over the image's edge) is border; outside the image it is not."""
        border_HW = np.zeros((height, width), bool)
        if not self.strips:
            return border_HW
        first, last = max(row, 0), min(row + height, self.height)
        left, right = max(col, 0), min(col + width, self.width)
        for start in range(first - first % STRIP_ROWS, last, STRIP_ROWS):
            top, bottom = max(start, first), min(start + STRIP_ROWS, last)
            part_HW = _unpack_mask(self.strips[start // STRIP_ROWS], self.width, left=left, right=right)
            border_HW[top - row : bottom - row, left - col : right - col] = part_HW[top - start : bottom - start]
        return border_HW

    def read_dilated(
        self, row: int, col: int, height: int, width: int, *, radius_px: int, shape_hw: tuple[int, int]
    ) -> NDArray[np.bool_]:
        """Return the border grown by `radius_px` in a window, decimated by nearest neighbour to `shape_hw`.

        Memory holds one strip of the window, however high it is.
        """
        rows, cols = (_nearest_indices(size, count) for size, count in zip((height, width), shape_hw, strict=True))
        kernel_HW = np.ones((2 * radius_px + 1, 2 * radius_px + 1), np.uint8)
        grown_HW = np.zeros(shape_hw, bool)
        for start in range(0, height, STRIP_ROWS):
            first, last = np.searchsorted(rows, (start, start + STRIP_ROWS))
            if first == last:
                continue
            top, bottom = int(rows[first]), int(rows[last - 1]) + 1
            wide_HW = self.read_window(
                row + top - radius_px, col - radius_px, bottom - top + 2 * radius_px, width + 2 * radius_px
            )
            if wide_HW.any():
                near_HW = cv2.dilate(wide_HW.view(np.uint8), kernel_HW)[radius_px:-radius_px, radius_px:-radius_px]
                picked_HW = near_HW if near_HW.shape[1] == len(cols) else near_HW[:, cols]
                grown_HW[first:last] = picked_HW[rows[first:last] - top] > 0
        return grown_HW


def find_black_border(
    read_black: ReadBlackMask, *, height: int, width: int, min_area_px: int = MIN_BORDER_PX
) -> BlackBorder:
    """Return the black border of an image that is read through `read_black`, window by window."""
    frame = [(0, 0, 1, width), (height - 1, 0, 1, width), (0, 0, height, 1), (0, width - 1, height, 1)]
    if not any(read_black(*window).any() for window in frame):
        return BlackBorder(height, width)
    black, regions = _label_strips(read_black, height, width)
    wanted = regions.select_borders(min_area_px)
    if not wanted.any():
        return BlackBorder(height, width)
    strips = []
    for labels_HW, offset, count in _iterate_strip_labels(black, width):
        table = np.concatenate([[False], wanted[offset + 1 : offset + count]])
        strips.append(_pack_mask(table[labels_HW]))
    return BlackBorder(height, width, tuple(strips))


class _RegionUnion:
    """Union-find over the strips' labels; a label's number is its place in its strip plus the strip's offset."""

    def __init__(self) -> None:
        self.parent, self.area_px, self.at_edge = [0], [0], [False]

    def add(self, area_px: int, at_edge: bool) -> None:
        self.parent.append(len(self.parent))
        self.area_px.append(area_px)
        self.at_edge.append(at_edge)

    def find_root(self, label: int) -> int:
        while self.parent[label] != label:
            self.parent[label] = self.parent[self.parent[label]]
            label = self.parent[label]
        return label

    def merge(self, label: int, other: int) -> None:
        keep, gone = sorted((self.find_root(label), self.find_root(other)))
        if keep != gone:
            self.parent[gone] = keep
            self.area_px[keep] += self.area_px[gone]
            self.at_edge[keep] |= self.at_edge[gone]

    def select_borders(self, least_px: int) -> NDArray[np.bool_]:
        roots = [self.find_root(label) for label in range(len(self.parent))]
        return np.array([self.at_edge[root] and self.area_px[root] > least_px for root in roots])


def _label_strips(is_black: ReadBlackMask, height: int, width: int) -> tuple[list[bytes], _RegionUnion]:
    """Label strip by strip and join what touches across a strip's edge; return the packed zeros and the regions."""
    packed, regions = [], _RegionUnion()
    above_W: NDArray[np.int64] | None = None
    for row in range(0, height, STRIP_ROWS):
        black_HW = is_black(row, 0, min(STRIP_ROWS, height - row), width)
        count, labels_HW = cv2.connectedComponents(black_HW.astype(np.uint8), connectivity=8)
        area_px = np.bincount(labels_HW.ravel(), minlength=count)  # OpenCV's own statistics take ten times as long
        offset = len(regions.parent) - 1
        at_edge = set(np.unique(np.concatenate([labels_HW[:, 0], labels_HW[:, -1]])).tolist())
        at_edge |= set(np.unique(labels_HW[0]).tolist()) if row == 0 else set()
        at_edge |= set(np.unique(labels_HW[-1]).tolist()) if row + STRIP_ROWS >= height else set()
        for label in range(1, count):
            regions.add(int(area_px[label]), label in at_edge)
        first_W = np.where(labels_HW[0] > 0, labels_HW[0] + np.int64(offset), 0)
        if above_W is not None:
            for upper, lower in _touching_labels(above_W, first_W):
                regions.merge(upper, lower)
        above_W = np.where(labels_HW[-1] > 0, labels_HW[-1] + np.int64(offset), 0)
        packed.append(_pack_mask(black_HW))
    return packed, regions


def _touching_labels(above_W: NDArray[np.int64], below_W: NDArray[np.int64]) -> set[tuple[int, int]]:
    """Return the pairs of labels that touch, corners included, between the last row above and the first below."""
    pairs: set[tuple[int, int]] = set()
    for upper, lower in ((above_W, below_W), (above_W[:-1], below_W[1:]), (above_W[1:], below_W[:-1])):
        both = (upper > 0) & (lower > 0)
        pairs |= set(zip(upper[both].tolist(), lower[both].tolist(), strict=True))
    return pairs


def _iterate_strip_labels(packed: list[bytes], width: int) -> Iterator[tuple[NDArray[np.int32], int, int]]:
    """Give each strip's labels again, the offset that makes them numbers of `_RegionUnion`, and how many there are."""
    offset = 0
    for strip in packed:
        count, labels_HW = cv2.connectedComponents(_unpack_mask(strip, width).astype(np.uint8), connectivity=8)
        yield np.asarray(labels_HW, np.int32), offset, count
        offset += count - 1


def _pack_mask(mask_HW: NDArray[np.bool_]) -> bytes:
    return zlib.compress(np.packbits(mask_HW, axis=1).tobytes(), 1)


def _unpack_mask(packed: bytes, width: int, *, left: int = 0, right: int | None = None) -> NDArray[np.bool_]:
    """Return a strip's columns from `left` to `right`; only their bytes are unpacked."""
    right = width if right is None else right
    bits = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(-1, (width + 7) // 8)
    part_HW = np.unpackbits(bits[:, left // 8 : (right + 7) // 8], axis=1)
    return part_HW[:, left % 8 : left % 8 + right - left].astype(bool)


def _nearest_indices(size: int, count: int) -> NDArray[np.intp]:
    """Return which of `size` places a nearest-neighbour decimation to `count` takes, as GDAL does."""
    return np.minimum(((np.arange(count) + 0.5) * (size / count)).astype(np.intp), size - 1)
