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

LEAST_PX = 64 * 64
"""Smaller black regions at the edge are taken for dark ground."""
STRIP_ROWS = 512

IsBlack = Callable[[int, int, int, int], NDArray[np.bool_]]
"""(row, col, height, width) -> where the window's pixels are exactly 0 in every band."""


@dataclass(frozen=True)
class BlackBorder:
    """The black border of one image, as compressed strips; an image without one holds no strip."""

    height: int
    width: int
    strips: tuple[bytes, ...] = ()

    def window(self, row: int, col: int, height: int, width: int) -> NDArray[np.bool_]:
        """Return where a window (which may reach over the image's edge) is border; outside the image it is not."""
        border_HW = np.zeros((height, width), bool)
        if not self.strips:
            return border_HW
        first, last = max(row, 0), min(row + height, self.height)
        left, right = max(col, 0), min(col + width, self.width)
        for start in range(first - first % STRIP_ROWS, last, STRIP_ROWS):
            strip_HW = _unpack(self.strips[start // STRIP_ROWS], self.width)
            top, bottom = max(start, first), min(start + len(strip_HW), last)
            part_HW = strip_HW[top - start : bottom - start, left:right]
            border_HW[top - row : bottom - row, left - col : right - col] = part_HW
        return border_HW


def find(is_black: IsBlack, *, height: int, width: int, least_px: int = LEAST_PX) -> BlackBorder:
    """Return the black border of an image that is read through `is_black`, window by window."""
    frame = [(0, 0, 1, width), (height - 1, 0, 1, width), (0, 0, height, 1), (0, width - 1, height, 1)]
    if not any(is_black(*window).any() for window in frame):
        return BlackBorder(height, width)
    black, regions = _label(is_black, height, width)
    wanted = regions.wanted(least_px)
    if not wanted.any():
        return BlackBorder(height, width)
    strips = []
    for labels_HW, offset in _relabel(black, width):
        strips.append(_pack(np.where(labels_HW > 0, wanted[labels_HW + offset], False)))
    return BlackBorder(height, width, tuple(strips))


class _Regions:
    """Union-find over the strips' labels; a label's number is its place in its strip plus the strip's offset."""

    def __init__(self) -> None:
        self.parent, self.area_px, self.at_edge = [0], [0], [False]

    def add(self, area_px: int, at_edge: bool) -> None:
        self.parent.append(len(self.parent))
        self.area_px.append(area_px)
        self.at_edge.append(at_edge)

    def root(self, label: int) -> int:
        while self.parent[label] != label:
            self.parent[label] = self.parent[self.parent[label]]
            label = self.parent[label]
        return label

    def join(self, label: int, other: int) -> None:
        keep, gone = sorted((self.root(label), self.root(other)))
        if keep != gone:
            self.parent[gone] = keep
            self.area_px[keep] += self.area_px[gone]
            self.at_edge[keep] |= self.at_edge[gone]

    def wanted(self, least_px: int) -> NDArray[np.bool_]:
        roots = [self.root(label) for label in range(len(self.parent))]
        return np.array([self.at_edge[root] and self.area_px[root] > least_px for root in roots])


def _label(is_black: IsBlack, height: int, width: int) -> tuple[list[bytes], _Regions]:
    """Label strip by strip and join what touches across a strip's edge; return the packed zeros and the regions."""
    packed, regions = [], _Regions()
    above_W: NDArray[np.int64] | None = None
    for row in range(0, height, STRIP_ROWS):
        black_HW = is_black(row, 0, min(STRIP_ROWS, height - row), width)
        count, labels_HW, stats, _ = cv2.connectedComponentsWithStats(black_HW.astype(np.uint8), connectivity=8)
        offset = len(regions.parent) - 1
        at_edge = set(np.unique(np.concatenate([labels_HW[:, 0], labels_HW[:, -1]])).tolist())
        at_edge |= set(np.unique(labels_HW[0]).tolist()) if row == 0 else set()
        at_edge |= set(np.unique(labels_HW[-1]).tolist()) if row + STRIP_ROWS >= height else set()
        for label in range(1, count):
            regions.add(int(stats[label, cv2.CC_STAT_AREA]), label in at_edge)
        first_W = np.where(labels_HW[0] > 0, labels_HW[0] + np.int64(offset), 0)
        if above_W is not None:
            for upper, lower in _touching(above_W, first_W):
                regions.join(upper, lower)
        above_W = np.where(labels_HW[-1] > 0, labels_HW[-1] + np.int64(offset), 0)
        packed.append(_pack(black_HW))
    return packed, regions


def _touching(above_W: NDArray[np.int64], below_W: NDArray[np.int64]) -> set[tuple[int, int]]:
    """Return the pairs of labels that touch, corners included, between the last row above and the first below."""
    pairs: set[tuple[int, int]] = set()
    for upper, lower in ((above_W, below_W), (above_W[:-1], below_W[1:]), (above_W[1:], below_W[:-1])):
        both = (upper > 0) & (lower > 0)
        pairs |= set(zip(upper[both].tolist(), lower[both].tolist(), strict=True))
    return pairs


def _relabel(packed: list[bytes], width: int) -> Iterator[tuple[NDArray[np.int32], int]]:
    """Give each strip's labels again, with the offset that makes them numbers of `_Regions`."""
    offset = 0
    for strip in packed:
        count, labels_HW = cv2.connectedComponents(_unpack(strip, width).astype(np.uint8), connectivity=8)
        yield np.asarray(labels_HW, np.int32), offset
        offset += count - 1


def _pack(mask_HW: NDArray[np.bool_]) -> bytes:
    return zlib.compress(np.packbits(mask_HW, axis=1).tobytes(), 1)


def _unpack(packed: bytes, width: int) -> NDArray[np.bool_]:
    bits = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(-1, (width + 7) // 8)
    return np.unpackbits(bits, axis=1, count=width).astype(bool)
