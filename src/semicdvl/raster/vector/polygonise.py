"""Masks of objects, packed while they wait to be whole, and their outlines along the pixels' edges."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import shapes
from rasterio.windows import Window
from shapely import MultiPolygon, get_parts, transform
from shapely.geometry import shape

from semicdvl.raster.io.georeference_warnings import ignore_not_georeferenced

MAX_IN_MEMORY_PX = 2**26
"""An object whose box holds more pixels is traced from a file."""


@dataclass(frozen=True)
class PackedMask:
    """Pixels of a part of an object, packed."""

    row: int
    col: int
    shape_hw: tuple[int, int]
    packed: bytes

    @classmethod
    def pack(cls, mask_HW: NDArray[np.bool_], *, row: int, col: int) -> PackedMask:
        """Pack a mask that lies at (row, col) of the raster."""
        packed = zlib.compress(np.packbits(mask_HW).tobytes(), 1)
        return cls(row, col, (mask_HW.shape[0], mask_HW.shape[1]), packed)

    @property
    def mask_HW(self) -> NDArray[np.bool_]:
        """The pixels, in the patch's box."""
        bits = np.frombuffer(zlib.decompress(self.packed), np.uint8)
        height, width = self.shape_hw
        return np.unpackbits(bits, count=height * width).reshape(height, width).view(bool)


def polygonise_labels(
    labels_HW: NDArray[np.int32], numbers: NDArray[np.int32], box_N4: NDArray[np.int64], *, row: int
) -> list[MultiPolygon]:
    """Return the outlines, in pixels of the raster, of the labels of a strip that `numbers` turns into 1 ... N.

    Args:
        labels_HW: of the strip.
        numbers: for every label 1 ... N, or 0 for those that are not wanted.
        box_N4: top, left, bottom, right of each of the N on the raster.
        row: the raster's row that the strip begins with.
    """
    top, left = box_N4[:, :2].min(axis=0)
    bottom, right = box_N4[:, 2:].max(axis=0)
    part_HW = numbers[labels_HW[top - row : bottom - row, left:right]]
    return _trace_outlines(part_HW, len(box_N4), row=int(top), col=int(left))


def polygonise_masks(masks: Sequence[PackedMask], box: Sequence[int]) -> MultiPolygon:
    """Return the outline, in pixels of the raster, of an object that lies in pieces; `box` holds all of it."""
    top, left, bottom, right = box
    height, width = bottom - top, right - left
    if height * width > MAX_IN_MEMORY_PX:
        return _polygonise_on_disk(masks, row=top, col=left, height=height, width=width)
    mask_HW = np.zeros((height, width), np.uint8)
    for patch in masks:
        tall, wide = patch.shape_hw
        mask_HW[patch.row - top : patch.row - top + tall, patch.col - left : patch.col - left + wide] |= patch.mask_HW
    return _trace_outlines(mask_HW, 1, row=top, col=left)[0]


def _polygonise_on_disk(patches: Sequence[PackedMask], *, row: int, col: int, height: int, width: int) -> MultiPolygon:
    """Do the same for a very large object: its mask goes to a file, of which GDAL needs two rows at a time."""
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "height": height, "width": width, "compress": "LZW"}
    with (
        tempfile.TemporaryDirectory(prefix="semicdvl-") as folder,
        ignore_not_georeferenced(),
        rasterio.open(Path(folder) / "mask.tif", "w+", bigtiff="IF_SAFER", **profile) as mask,
    ):
        for patch in patches:
            window = Window(patch.col - col, patch.row - row, patch.shape_hw[1], patch.shape_hw[0])
            mask.write(mask.read(1, window=window) | patch.mask_HW, 1, window=window)
        band = rasterio.band(mask, 1)
        pieces = [shape(outline) for outline, _ in shapes(band, mask=band, connectivity=4)]
    outline: MultiPolygon = transform(MultiPolygon(list(get_parts(pieces))), lambda at_N2: at_N2 + np.array([col, row]))
    return outline


def _trace_outlines(numbers_HW: NDArray[Any], count: int, *, row: int, col: int) -> list[MultiPolygon]:
    """Trace the outlines of objects 1 ... `count`, 4-connected: see `vector.polygons`."""
    pieces: list[list[Any]] = [[] for _ in range(count)]
    place = Affine.translation(col, row)
    for outline, number in shapes(numbers_HW, mask=numbers_HW > 0, connectivity=4, transform=place):
        pieces[int(number) - 1].append(shape(outline))
    return [MultiPolygon(list(get_parts(parts))) for parts in pieces]
