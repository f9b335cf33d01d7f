"""Resample the after image onto the before image: by a translation, and by displacements that vary over the image."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

OFFSET_STEPS_PER_PX = 32
"""Displacements are rounded to this fraction of a pixel, the finest that OpenCV's cubic interpolation distinguishes.
They are rounded before a window's corner is subtracted, so a pixel has the same value in whatever window it is read."""
INTERPOLATION_MARGIN_PX = 3
"""How far cubic interpolation reaches beyond the outermost pixel."""


@dataclass(frozen=True)
class DisplacementField:
    """Displacements on a regular grid of nodes, interpolated linearly and constant beyond the outermost nodes.

    Attributes:
        row, col: position of the first node in pixels.
        step_row_px, step_col_px: distance between nodes.
        offsets_2HW: (row, col) displacement in pixels at each node.
    """

    row: float
    col: float
    step_row_px: float
    step_col_px: float
    offsets_2HW: NDArray[np.float32]

    @property
    def max_offset_px(self) -> float:
        """Greatest displacement on either axis."""
        return float(np.abs(self.offsets_2HW).max())

    def relative_to(self, row: int, col: int) -> DisplacementField:
        """Return the same field in the coordinates of a window that starts at (row, col)."""
        return replace(self, row=self.row - row, col=self.col - col)

    def interpolate(self, rows_H: NDArray[Any], cols_W: NDArray[Any]) -> NDArray[np.float64]:
        """Return the displacements at rows and columns as 2HW, rounded to `OFFSET_STEPS_PER_PX`."""
        rows = (rows_H - self.row) / self.step_row_px
        cols = (cols_W - self.col) / self.step_col_px
        down_HN, right_WN = (
            _interpolation_weights(positions, count)
            for positions, count in zip((rows, cols), self.offsets_2HW.shape[1:], strict=True)
        )
        offsets_2HW = down_HN @ self.offsets_2HW.astype(np.float64) @ right_WN.T
        return np.asarray(np.rint(offsets_2HW * OFFSET_STEPS_PER_PX) / OFFSET_STEPS_PER_PX, np.float64)


@dataclass(frozen=True)
class Alignment:
    """How the after image is co-registered: what the before image shows at (row, col) is read at (row + row_px, ...).

    Attributes:
        row_px, col_px: translation in pixels of the before image, down and right.
        field: displacements that are added to it, in pixels of the before image's file; None: a pure translation.
    """

    row_px: float
    col_px: float
    field: DisplacementField | None = None

    def __str__(self) -> str:
        """Return it in words: `1.50 px down and 0.25 px left`."""
        down = f"{abs(self.row_px):.2f} px {'down' if self.row_px >= 0 else 'up'}"
        right = f"{abs(self.col_px):.2f} px {'right' if self.col_px >= 0 else 'left'}"
        varying = f", plus up to {self.field.max_offset_px:.1f} px from place to place" if self.field else ""
        return f"{down} and {right}{varying}"


def _interpolation_weights(positions_N: NDArray[Any], count: int) -> NDArray[np.float64]:
    """Return linear interpolation between `count` nodes as a matrix of weights."""
    clipped_N = np.clip(positions_N, 0, count - 1)
    return np.asarray(np.clip(1 - np.abs(clipped_N[:, None] - np.arange(count)[None, :]), 0, None))


ReadWindow = Callable[..., tuple[NDArray[Any], NDArray[np.bool_]]]
"""(row, col, height, width, shape_hw=) -> the pixels HWC of a window, decimated to a shape, and HW where valid."""


def read_displaced(
    read: ReadWindow,
    field: DisplacementField,
    window: tuple[int, int, int, int],
    *,
    shape_hw: tuple[int, int] | None,
    raster_hw: tuple[int, int],
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Read a window of a raster whose pixels are moved by a field.

    Args:
        read: reads the raster as it is.
        field: by how much the pixels are moved.
        window: row, col, height and width.
        shape_hw: the size that the window is decimated to; None: its own.
        raster_hw: size of the raster.
    """
    row, col, height, width = window
    top, left, bottom, right = find_source_window(field, row, col, height, width, shape_hw=raster_hw)
    tall, wide = shape_hw or (height, width)
    scale_hw = tall / height, wide / width
    source_hw = round((bottom - top) * scale_hw[0]), round((right - left) * scale_hw[1])
    image_HWC, valid_HW = read(top, left, bottom - top, right - left, shape_hw=None if shape_hw is None else source_hw)
    rows, cols = row + np.arange(tall) / scale_hw[0], col + np.arange(wide) / scale_hw[1]
    offsets_2HW = field.interpolate(rows, cols) * np.array(scale_hw)[:, None, None]
    start = (row - top) * scale_hw[0], (col - left) * scale_hw[1]
    return warp_window(image_HWC, valid_HW, offsets_2HW, row=start[0], col=start[1])


def find_source_window(
    field: DisplacementField, row: int, col: int, height: int, width: int, *, shape_hw: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Return top, left, bottom and right of what must be read to warp a window, inside a raster of `shape_hw`."""
    margin_px = math.ceil(field.max_offset_px) + INTERPOLATION_MARGIN_PX
    top, left = min(max(row - margin_px, 0), shape_hw[0] - 1), min(max(col - margin_px, 0), shape_hw[1] - 1)
    bottom, right = min(row + height + margin_px, shape_hw[0]), min(col + width + margin_px, shape_hw[1])
    return top, left, max(bottom, top + 1), max(right, left + 1)


def warp_window(
    image_HWC: NDArray[Any],
    valid_HW: NDArray[np.bool_],
    offsets_2HW: NDArray[np.float64],
    *,
    row: float,
    col: float,
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Resample an image (cubic) at the pixels of a window plus their displacements.

    Args:
        image_HWC: the image, larger than the window.
        valid_HW: where it has data.
        offsets_2HW: (row, col) displacements of the window's pixels.
        row: row of the window's first pixel in the image.
        col: its column.

    Returns:
        The window's image, and where all of the four nearest pixels have data.
    """
    rows_HW = (offsets_2HW[0] + (np.arange(offsets_2HW.shape[1]) + row)[:, None]).astype(np.float32)
    cols_HW = (offsets_2HW[1] + (np.arange(offsets_2HW.shape[2]) + col)[None, :]).astype(np.float32)
    warped = cv2.remap(image_HWC, cols_HW, rows_HW, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    valid = cv2.remap(
        valid_HW.astype(np.uint8) * 255, cols_HW, rows_HW, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
    )
    return np.asarray(warped, image_HWC.dtype), np.asarray(valid) == 255
