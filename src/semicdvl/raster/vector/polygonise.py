"""Polygonise objects along the edges of their pixels, and keep the masks of unfinished objects compressed.

Outlines are traced 4-connected, because 8-connected outlines touch themselves at corners and are invalid in every GIS;
the parts of an 8-connected object form one multi-polygon.
"""

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
from shapely import MultiPolygon, get_coordinates, get_parts, get_rings, transform
from shapely.geometry import shape

from semicdvl.raster.io.georeference_warnings import ignore_not_georeferenced

MAX_IN_MEMORY_PX = 2**26
"""An object whose bounding box has more pixels is polygonised from a file."""


@dataclass(frozen=True)
class PackedMask:
    """A compressed mask of an object, or of a part of one.

    Attributes:
        row, col: position of its top left corner on the raster.
        shape_hw: its height and width.
        packed: the pixels, one bit each, compressed.
    """

    row: int
    col: int
    shape_hw: tuple[int, int]
    packed: bytes

    @classmethod
    def pack(cls, mask_HW: NDArray[np.bool_], *, row: int, col: int) -> PackedMask:
        """Compress a mask whose top left corner lies at (row, col) of the raster."""
        packed = zlib.compress(np.packbits(mask_HW).tobytes(), 1)
        return cls(row, col, (mask_HW.shape[0], mask_HW.shape[1]), packed)

    @property
    def mask_HW(self) -> NDArray[np.bool_]:
        """The mask, decompressed."""
        bits = np.frombuffer(zlib.decompress(self.packed), np.uint8)
        height, width = self.shape_hw
        return np.unpackbits(bits, count=height * width).reshape(height, width).view(bool)


def trace_outlines(labels_HW: NDArray[Any], count: int, transform: Affine) -> list[MultiPolygon]:
    """Trace the outlines of the labels 1 ... `count`.

    Args:
        labels_HW: labels of an integer type that GDAL knows; 0 is no object.
        count: number of labels; every one must occur.
        transform: (col, row) of the array -> coordinates of the outlines.
    """
    parts: list[list[Any]] = [[] for _ in range(count)]
    for outline, label in shapes(labels_HW, mask=labels_HW > 0, connectivity=4, transform=transform):
        parts[int(label) - 1].append(shape(outline))
    return [MultiPolygon(list(get_parts(polygons))) for polygons in parts]


def hold_as_arrays(outline: MultiPolygon) -> dict[str, Any]:
    """Return an outline in the form of GeoJSON with its rings as arrays, for rasterio.

    Sixteen bytes a corner, where the mapping that shapely gives takes some 270.
    """
    rings = [[get_coordinates(ring) for ring in get_rings(part)] for part in get_parts(outline)]
    return {"type": "MultiPolygon", "coordinates": rings}


def polygonise_labels(
    labels_HW: NDArray[np.int32], numbers: NDArray[np.int32], box_N4: NDArray[np.int64], *, row: int
) -> list[MultiPolygon]:
    """Polygonise some labels of a strip, in pixel coordinates (col, row) of the raster.

    Args:
        labels_HW: labels of the strip.
        numbers: for every label a number 1 ... N, or 0 for one that is left out.
        box_N4: top, left, bottom, right of each of the N objects on the raster.
        row: first row of the strip on the raster.
    """
    top, left = box_N4[:, :2].min(axis=0)
    bottom, right = box_N4[:, 2:].max(axis=0)
    numbers_HW = numbers[labels_HW[top - row : bottom - row, left:right]]
    return trace_outlines(numbers_HW, len(box_N4), Affine.translation(int(left), int(top)))


def polygonise_masks(masks: Sequence[PackedMask], box: Sequence[int]) -> MultiPolygon:
    """Polygonise one object that consists of several masks, in pixel coordinates (col, row) of the raster.

    Args:
        masks: the parts of the object.
        box: top, left, bottom, right of all of it.
    """
    top, left, bottom, right = box
    height, width = bottom - top, right - left
    if height * width > MAX_IN_MEMORY_PX:
        return _polygonise_on_disk(masks, row=top, col=left, height=height, width=width)
    mask_HW = np.zeros((height, width), np.uint8)
    for part in masks:
        tall, wide = part.shape_hw
        mask_HW[part.row - top : part.row - top + tall, part.col - left : part.col - left + wide] |= part.mask_HW
    return trace_outlines(mask_HW, 1, Affine.translation(left, top))[0]


def _polygonise_on_disk(masks: Sequence[PackedMask], *, row: int, col: int, height: int, width: int) -> MultiPolygon:
    """Polygonise a very large object from a file, of which GDAL holds two rows at a time."""
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "height": height, "width": width, "compress": "LZW"}
    with (
        tempfile.TemporaryDirectory(prefix="semicdvl-") as folder,
        ignore_not_georeferenced(),
        rasterio.open(Path(folder) / "mask.tif", "w+", bigtiff="IF_SAFER", **profile) as dataset,
    ):
        for part in masks:
            window = Window(part.col - col, part.row - row, part.shape_hw[1], part.shape_hw[0])
            dataset.write(dataset.read(1, window=window) | part.mask_HW, 1, window=window)
        band = rasterio.band(dataset, 1)
        polygons = [shape(outline) for outline, _ in shapes(band, mask=band, connectivity=4)]
    offset = np.array([col, row])
    outline: MultiPolygon = transform(MultiPolygon(list(get_parts(polygons))), lambda points_N2: points_N2 + offset)
    return outline
