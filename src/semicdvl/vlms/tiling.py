"""Cutting an image into overlapping tiles, resampling them, and the weights that blend them again."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray


def resample_tile(tile_HWC: NDArray[np.uint8], factor: float, *, mirrored: bool = False) -> NDArray[np.uint8]:
    """Return a tile magnified by `factor` (averaged where it shrinks), mirrored left to right if asked."""
    size = max(1, round(tile_HWC.shape[1] * factor)), max(1, round(tile_HWC.shape[0] * factor))
    if size != tile_HWC.shape[1::-1]:
        how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
        tile_HWC = np.asarray(cv2.resize(tile_HWC, size, interpolation=how), np.uint8)
    return np.ascontiguousarray(tile_HWC[:, ::-1] if mirrored else tile_HWC)


def tile_windows(height: int, width: int, *, tile_px: int, overlap_px: int) -> Iterator[tuple[slice, slice]]:
    """Yield (rows, cols) of tiles that cover an image and end at its edge; neighbours share `overlap_px` at least.

    No side is longer than `tile_px`; within that the tiles are as small as their number allows, since every pixel that
    is seen twice costs time.
    """
    for rows in _tile_spans(height, tile_px, overlap_px):
        for cols in _tile_spans(width, tile_px, overlap_px):
            yield rows, cols


def _tile_spans(size: int, tile_px: int, overlap_px: int) -> list[slice]:
    """Return equally long, evenly spread parts of an axis."""
    if size <= tile_px:
        return [slice(0, size)]
    count = -(-(size - overlap_px) // (tile_px - overlap_px))
    length = -(-(size + (count - 1) * overlap_px) // count)
    starts = [round(k * (size - length) / (count - 1)) for k in range(count)]
    return [slice(start, start + length) for start in starts]


def blending_ramp(span: slice, size: int, overlap_px: float) -> NDArray[np.float32]:
    """Return blending weights along one axis: full inside, falling towards the tile's borders inside the image."""
    at = np.arange(span.start, span.stop, dtype=np.float32) + 0.5
    low = np.inf if span.start == 0 else (at - span.start) / overlap_px
    high = np.inf if span.stop == size else (span.stop - at) / overlap_px
    weights: NDArray[np.float32] = np.clip(np.minimum(low, high), 1e-3, 1.0).astype(np.float32)
    return np.broadcast_to(weights, at.shape)
