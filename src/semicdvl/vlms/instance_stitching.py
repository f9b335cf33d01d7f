"""Instance stitching: objects cut by tile borders become one instance again.

A VLM segments a large image tile by tile, so an object that crosses a border has an instance in every tile that it
touches. In the strip that two neighbouring tiles share, both contain the same pixels; so two instances of the same
prompt are one object when they agree *there*: an IoU of `MIN_OVERLAP_IOU` or more within the strip. An instance that
its tile's border cuts and that lies nearly whole in an instance of the neighbour is a sliver of it, and is merged too.
Merging goes on over any number of tiles (an object at a corner has four instances).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from semicdvl.types import Instance

MIN_OVERLAP_IOU = 0.5
"""Two instances are one object from this IoU on, measured in the strip that both tiles share."""
MIN_SLIVER_FRAC = 0.8
"""An instance cut by its tile's border merges with one of the neighbour that contains this share of it."""

TileWindow = tuple[slice, slice]
"""Rows and columns of a tile in the image."""


@dataclass(frozen=True)
class InstanceFragment:
    """Hold the instance of an object in one tile.

    Attributes:
        mask_HW: boolean, cut to the object's bounding box.
        top: first row of that box in the image.
        left: first column.
        prompt: index of its prompt.
        score: of this instance.
        tile: number of the tile.
        touches_border: whether it touches a border of its tile that is no border of the image.
    """

    mask_HW: NDArray[np.bool_]
    top: int
    left: int
    prompt: int
    score: float
    tile: int
    touches_border: bool

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Rows from, columns from, rows to, columns to (exclusive), in the image."""
        height, width = self.mask_HW.shape
        return self.top, self.left, self.top + height, self.left + width

    def crop_to(self, box: tuple[int, int, int, int]) -> NDArray[np.bool_]:
        """Return the mask inside a box of the image, of the box's size."""
        top, left, bottom, right = box
        part_HW = np.zeros((bottom - top, right - left), bool)
        rows = slice(max(self.top, top), min(self.box[2], bottom))
        cols = slice(max(self.left, left), min(self.box[3], right))
        if rows.start < rows.stop and cols.start < cols.stop:
            own = self.mask_HW[rows.start - self.top : rows.stop - self.top, cols.start - self.left :]
            part_HW[rows.start - top : rows.stop - top, cols.start - left : cols.stop - left] = own[
                :, : cols.stop - cols.start
            ]
        return part_HW


def decode_mask(mask: Any) -> NDArray[np.bool_]:
    """Decode an instance's mask (boolean array or COCO RLE) to a boolean array."""
    if isinstance(mask, np.ndarray):
        solid_HW: NDArray[np.bool_] = np.asarray(mask != 0)
        return solid_HW
    code = rle.frPyObjects(dict(mask), *mask["size"]) if isinstance(mask["counts"], list) else mask
    decoded: NDArray[np.bool_] = rle.decode(code).astype(bool)
    return decoded


def make_fragment(
    instance: Instance, *, tile: int, window: TileWindow, shape_hw: tuple[int, int]
) -> InstanceFragment | None:
    """Place a tile's instance in the image; None for an empty mask."""
    mask_HW = decode_mask(instance.mask)
    rows, cols = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    if not len(rows):
        return None
    inside = mask_HW[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1].copy()
    height, width = mask_HW.shape
    at_border = (
        (rows[0] == 0 and window[0].start > 0)
        or (cols[0] == 0 and window[1].start > 0)
        or (rows[-1] == height - 1 and window[0].stop < shape_hw[0])
        or (cols[-1] == width - 1 and window[1].stop < shape_hw[1])
    )
    top, left = window[0].start + int(rows[0]), window[1].start + int(cols[0])
    return InstanceFragment(inside, top, left, instance.prompt, instance.score, tile, bool(at_border))


def encode_mask(mask_HW: NDArray[np.bool_], *, top: int, left: int, shape_hw: tuple[int, int]) -> dict[str, Any]:
    """Encode a mask at (top, left) of an image as COCO RLE of the image's size.

    It reads the object's own pixels: encoding a whole image per object would cost the image's size each time.
    """
    height, width = shape_hw
    col, row = np.nonzero(mask_HW.T)  # RLE runs down the columns
    at = (left + col).astype(np.int64) * height + top + row
    if not len(at):
        counts = [height * width]
    else:
        breaks = np.flatnonzero(np.diff(at) != 1)
        starts, stops = at[np.r_[0, breaks + 1]], at[np.r_[breaks, len(at) - 1]] + 1
        edges = np.column_stack([starts, stops]).ravel()
        counts = np.diff(np.r_[0, edges, height * width]).tolist()
    code = rle.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return {"size": [height, width], "counts": code["counts"].decode()}


def stitch_instances(
    fragments: Sequence[InstanceFragment], *, windows: Sequence[TileWindow], shape_hw: tuple[int, int]
) -> tuple[Instance, ...]:
    """Merge fragments into the instances of the image, each with its best score, in order of first fragments."""
    root = list(range(len(fragments)))

    def find(index: int) -> int:
        while root[index] != index:
            root[index] = root[root[index]]
            index = root[index]
        return index

    for first, second in find_same_instances(fragments, windows):
        a, b = find(first), find(second)
        root[max(a, b)] = min(a, b)
    groups: dict[int, list[InstanceFragment]] = {}
    for index, fragment in enumerate(fragments):
        groups.setdefault(find(index), []).append(fragment)
    return tuple(_merge_fragments(group, shape_hw) for group in groups.values())


def find_same_instances(fragments: Sequence[InstanceFragment], windows: Sequence[TileWindow]) -> list[tuple[int, int]]:
    """Return the pairs of fragments that are one object, as indices; a fragment's `tile` is an index of `windows`."""
    of_tile: dict[int, list[int]] = {}
    for index, fragment in enumerate(fragments):
        of_tile.setdefault(fragment.tile, []).append(index)
    boxes_N4 = np.array([fragment.box for fragment in fragments], np.int64).reshape(-1, 4)
    prompts_N = np.array([fragment.prompt for fragment in fragments], np.int64)
    pairs = []
    tiles = sorted(of_tile)
    for at, first in enumerate(tiles):
        for second in tiles[at + 1 :]:
            strip = _shared_strip(windows[first], windows[second])
            if strip is None:
                continue
            here, there = of_tile[first], of_tile[second]
            meet_NM = _boxes_overlap(boxes_N4[here], boxes_N4[there]) & (prompts_N[here][:, None] == prompts_N[there])
            for i, j in zip(*np.nonzero(meet_NM), strict=True):
                if _is_same_instance(fragments[here[i]], fragments[there[j]], strip):
                    pairs.append((here[i], there[j]))
    return pairs


def _shared_strip(first: TileWindow, second: TileWindow) -> tuple[int, int, int, int] | None:
    """Return the part of the image that two tiles share."""
    top, left = max(first[0].start, second[0].start), max(first[1].start, second[1].start)
    bottom, right = min(first[0].stop, second[0].stop), min(first[1].stop, second[1].stop)
    return (top, left, bottom, right) if top < bottom and left < right else None


def _boxes_overlap(first_N4: NDArray[np.int64], second_M4: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which boxes overlap, N x M."""
    low = np.maximum(first_N4[:, None, :2], second_M4[None, :, :2])
    high = np.minimum(first_N4[:, None, 2:], second_M4[None, :, 2:])
    meet: NDArray[np.bool_] = np.logical_and.reduce(low < high, axis=2)
    return meet


def _is_same_instance(first: InstanceFragment, second: InstanceFragment, strip: tuple[int, int, int, int]) -> bool:
    """Tell whether two fragments of neighbouring tiles are the same object."""
    box = (
        max(strip[0], min(first.top, second.top)),
        max(strip[1], min(first.left, second.left)),
        min(strip[2], max(first.box[2], second.box[2])),
        min(strip[3], max(first.box[3], second.box[3])),
    )
    a_HW, b_HW = first.crop_to(box), second.crop_to(box)
    common = int((a_HW & b_HW).sum())
    if not common:
        return False
    if common >= MIN_OVERLAP_IOU * int((a_HW | b_HW).sum()):
        return True
    return any(
        fragment.touches_border and common >= MIN_SLIVER_FRAC * int(fragment.mask_HW.sum())
        for fragment in (first, second)
    )


def _merge_fragments(group: Sequence[InstanceFragment], shape_hw: tuple[int, int]) -> Instance:
    """Return the union of the fragments of one object."""
    boxes = np.array([fragment.box for fragment in group])
    top, left, bottom, right = (int(value) for value in (*boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0)))
    union_HW = np.zeros((bottom - top, right - left), bool)
    for fragment in group:
        part_HW: NDArray[np.bool_] = fragment.crop_to((top, left, bottom, right))
        union_HW[part_HW] = True
    code = encode_mask(union_HW, top=top, left=left, shape_hw=shape_hw)
    return Instance(code, group[0].prompt, max(fragment.score for fragment in group))
