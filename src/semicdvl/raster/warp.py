"""Moving the after image onto the before image: one translation, and small offsets that vary over the place."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

OFFSET_STEPS_PER_PX = 32
"""Offsets are rounded to this: OpenCV's cubic interpolation knows no finer ones, and rounded before a window's own
corner is taken off, a pixel gets the same value whatever window it is read in."""
INTERPOLATION_MARGIN_PX = 3
"""What cubic interpolation looks at beyond the farthest pixel."""


@dataclass(frozen=True)
class DisplacementField:
    """Offsets on a regular grid of nodes, linear in between, constant beyond the outermost.

    Attributes:
        row, col: place of the first node in pixels.
        step_row_px, step_col_px: distance of the nodes.
        offsets_2HW: (row, col) offsets in pixels at the nodes.
    """

    row: float
    col: float
    step_row_px: float
    step_col_px: float
    offsets_2HW: NDArray[np.float32]

    @property
    def max_offset_px(self) -> float:
        """Greatest offset on either axis."""
        return float(np.abs(self.offsets_2HW).max())

    def relative_to(self, row: int, col: int) -> DisplacementField:
        """Return the same field in the coordinates of a window that starts at (row, col)."""
        return replace(self, row=self.row - row, col=self.col - col)

    def interpolate(self, rows_H: NDArray[Any], cols_W: NDArray[Any]) -> NDArray[np.float64]:
        """Return the offsets at rows and columns of pixels as 2HW, in whole `OFFSET_STEPS_PER_PX`-ths."""
        rows = (rows_H - self.row) / self.step_row_px
        cols = (cols_W - self.col) / self.step_col_px
        down_HN, right_WN = (
            _linear_weights(at, count) for at, count in zip((rows, cols), self.offsets_2HW.shape[1:], strict=True)
        )
        offsets_2HW = down_HN @ self.offsets_2HW.astype(np.float64) @ right_WN.T
        return np.asarray(np.rint(offsets_2HW * OFFSET_STEPS_PER_PX) / OFFSET_STEPS_PER_PX, np.float64)


@dataclass(frozen=True)
class Alignment:
    """Where the after image shows what the before image shows at (row, col): at (row + row_px, col + col_px).

    Attributes:
        row_px, col_px: the translation, in pixels of the before image.
        field: what is added to it from place to place, in pixels of the before image's file; None: nothing.
    """

    row_px: float
    col_px: float
    field: DisplacementField | None = None

    def __str__(self) -> str:
        """Return it in words."""
        down = f"{abs(self.row_px):.2f} px {'down' if self.row_px >= 0 else 'up'}"
        right = f"{abs(self.col_px):.2f} px {'right' if self.col_px >= 0 else 'left'}"
        return f"{down} and {right}" + (
            f", and up to {self.field.max_offset_px:.1f} px more from place to place" if self.field else ""
        )


def _linear_weights(at_N: NDArray[Any], count: int) -> NDArray[np.float64]:
    """Return linear interpolation between `count` nodes as a matrix of weights."""
    clipped_N = np.clip(at_N, 0, count - 1)
    return np.asarray(np.clip(1 - np.abs(clipped_N[:, None] - np.arange(count)[None, :]), 0, None))


def find_source_window(
    field: DisplacementField, row: int, col: int, height: int, width: int, *, shape_hw: tuple[int, int]
) -> list[int]:
    """Return top, left, bottom, right of what must be read for a window, inside a raster of `shape_hw`."""
    far = math.ceil(field.max_offset_px) + INTERPOLATION_MARGIN_PX
    top, left = min(max(row - far, 0), shape_hw[0] - 1), min(max(col - far, 0), shape_hw[1] - 1)
    bottom, right = min(row + height + far, shape_hw[0]), min(col + width + far, shape_hw[1])
    return [top, left, max(bottom, top + 1), max(right, left + 1)]


def warp_window(
    image_HWC: NDArray[np.uint8],
    valid_HW: NDArray[np.bool_],
    offsets_2HW: NDArray[np.float64],
    *,
    row: float,
    col: float,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return what lies at a window's pixels plus their offsets (cubic).

    Args:
        image_HWC: what was read, larger than the window.
        valid_HW: where it has data.
        offsets_2HW: the offsets of the window's pixels.
        row: where the window starts in what was read.
        col: the same.

    Returns:
        The window's image, and where all of the four pixels nearest to a place have data.
    """
    rows_HW = (offsets_2HW[0] + (np.arange(offsets_2HW.shape[1]) + row)[:, None]).astype(np.float32)
    cols_HW = (offsets_2HW[1] + (np.arange(offsets_2HW.shape[2]) + col)[None, :]).astype(np.float32)
    image = cv2.remap(image_HWC, cols_HW, rows_HW, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    valid = cv2.remap(
        valid_HW.astype(np.uint8) * 255, cols_HW, rows_HW, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
    )
    return np.asarray(image, np.uint8), np.asarray(valid) == 255
