"""The weak view: one geometry for both dates, the mask and the VLM's labels of a pair.

Differences from the source: OpenCV and NumPy in place of Pillow; scale is relative to the image's own size (the recipe
says "to the crop", which is the same for its 256 px tiles; `scale_to="crop"` says so for others too); only the part of
the image that the crop needs is resized, so a crop's scale is off by at most half a pixel over its side.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from semicdvl.data.images.files import UInt8Array
from semicdvl.errors import ConfigError
from semicdvl.types import IGNORE


@dataclass(frozen=True)
class WeakAugmentation:
    """Geometry of the weak view, shared by images and labels of a pair."""

    scale: tuple[float, float] = (0.8, 1.2)  # range of the new long side over the old one
    scale_to: Literal["image", "crop"] = "image"  # what the scale is relative to: the image's long side, or the crop's
    hflip: float = 0.5  # probability of a flip left to right
    vflip: float = 0.0  # probability of a flip top to bottom (0 in the source; a good idea for views from above)
    rot90: bool = False  # rotate by 0, 90, 180 or 270 degrees with equal probability (off in the source)
    rotate_deg: float = 0.0  # rotate anticlockwise by up to so many degrees (off in the source)

    def __post_init__(self) -> None:
        """Refuse ranges that are not in order."""
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ConfigError(f"scale {self.scale} is not a range. Give two positive numbers, the smaller one first.")
        if not 0 <= self.rotate_deg <= 180:
            raise ConfigError(f"weak rotate_deg = {self.rotate_deg} is out of range. Give 0 to 180 degrees.")
        if self.scale_to not in ("image", "crop"):
            raise ConfigError(f"weak scale_to '{self.scale_to}' is unknown. Give 'image' or 'crop'.")


@dataclass(frozen=True)
class CropTransform:
    """A drawn geometry: a window of the source is resized, padded to a square, rotated, flipped and turned.

    Attributes:
        window_px: (row, col, height, width) in the source image.
        resized_px: (height, width) of the resized window, at the top left of the crop; the rest is padding.
        size_px: side of the square crop.
        hflip: flip left to right, padding included.
        vflip: flip top to bottom.
        quarter_turns: anticlockwise rotations by 90 degrees, after the flips.
        angle_deg: anticlockwise rotation about the middle, before the flips; what it uncovers is padding.
    """

    window_px: tuple[int, int, int, int]
    resized_px: tuple[int, int]
    size_px: int
    hflip: bool = False
    vflip: bool = False
    quarter_turns: int = 0
    angle_deg: float = 0.0

    def apply_to_image(self, image_HWC: NDArray[Any]) -> NDArray[Any]:
        """Return the crop of an image HWC, of its type: bilinear (by area where it gets much smaller), padding 0."""
        shrink = self.window_px[2] / self.resized_px[0]
        return self._apply(image_HWC, how=cv2.INTER_AREA if shrink > 1.5 else cv2.INTER_LINEAR, padding=0)

    def apply_to_masks(self, masks_HWC: UInt8Array) -> UInt8Array:
        """Return the crop of a stack of class maps HWC: nearest pixel centre, padding IGNORE."""
        return self._apply(masks_HWC, how=cv2.INTER_NEAREST_EXACT, padding=IGNORE)

    def make_valid_mask(self) -> NDArray[np.bool_]:
        """Return bool HW, False on padding."""
        valid_HW = np.zeros((self.size_px, self.size_px), np.bool_)
        valid_HW[: self.resized_px[0], : self.resized_px[1]] = True
        turned_HW = self._rotate(valid_HW.view(np.uint8), how=cv2.INTER_NEAREST, padding=0)
        return self._flip_and_turn(turned_HW).view(np.bool_)

    def _apply(self, source_HWC: NDArray[Any], *, how: int, padding: int) -> NDArray[Any]:
        """Cut, resize, pad, flip, rotate."""
        row, col, height, width = self.window_px
        part = source_HWC[row : row + height, col : col + width]
        if (height, width) != self.resized_px:
            part = _by_four_bands(part, lambda four: cv2.resize(four, self.resized_px[::-1], interpolation=how))
        if self.resized_px != (self.size_px, self.size_px):
            padded = np.full((self.size_px, self.size_px, part.shape[2]), padding, part.dtype)
            padded[: self.resized_px[0], : self.resized_px[1]] = part
            part = padded
        return self._flip_and_turn(self._rotate(part, how=how, padding=padding))

    def _rotate(self, source: NDArray[Any], *, how: int, padding: int) -> NDArray[Any]:
        """Rotate by the angle; images linearly, class maps by the nearest pixel."""
        if not self.angle_deg:
            return source
        smooth = how not in (cv2.INTER_NEAREST, cv2.INTER_NEAREST_EXACT)
        middle = (self.size_px - 1) / 2
        settings: dict[str, Any] = {
            "M": cv2.getRotationMatrix2D((middle, middle), self.angle_deg, 1.0),
            "dsize": (self.size_px, self.size_px),
            "flags": cv2.INTER_LINEAR if smooth else cv2.INTER_NEAREST,
            "borderMode": cv2.BORDER_CONSTANT,
            "borderValue": (padding,) * 4,
        }
        return _by_four_bands(source, lambda four: cv2.warpAffine(four, **settings)).reshape(source.shape)

    def _flip_and_turn(self, source: NDArray[Any]) -> NDArray[Any]:
        """Flip and turn; OpenCV flips ten times as fast as a strided copy does."""
        shape = source.shape
        if self.hflip or self.vflip:
            source = cv2.flip(source, -1 if self.hflip and self.vflip else int(self.hflip))
        if self.quarter_turns:
            codes = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}
            source = _by_four_bands(source, lambda four: cv2.rotate(four, codes[self.quarter_turns]))
        return source.reshape(shape)  # OpenCV drops a channel axis of one


def _by_four_bands(source: NDArray[Any], change: Callable[[NDArray[Any]], Any]) -> NDArray[Any]:
    """Return an image HWC changed four bands at a time: some functions of OpenCV take no more."""
    if source.ndim == 2 or source.shape[2] <= 4:
        changed = np.asarray(change(source))
        return changed.reshape(*changed.shape[:2], -1)
    parts = [
        _by_four_bands(np.ascontiguousarray(source[..., at : at + 4]), change) for at in range(0, source.shape[2], 4)
    ]
    return np.concatenate(parts, axis=2)


def draw_crop(
    size_px: tuple[int, int], weak: WeakAugmentation, *, crop_px: int, rng: np.random.Generator
) -> CropTransform:
    """Draw the geometry of one sample.

    Args:
        size_px: (height, width) of the image.
        weak: the ranges and probabilities of the draw.
        crop_px: side of the square crop.
        rng: source of all randomness.
    """
    long_px = max(size_px)
    base_px = long_px if weak.scale_to == "image" else crop_px
    low, high = (max(1, math.floor(base_px * bound)) for bound in weak.scale)
    scale = int(rng.integers(low, high + 1)) / long_px
    starts, lengths, filled = [], [], []
    for side_px in size_px:
        resized = max(1, round(side_px * scale))
        length = side_px if resized <= crop_px else min(side_px, max(1, round(crop_px / scale)))
        starts.append(int(rng.integers(0, side_px - length + 1)))
        lengths.append(length)
        filled.append(min(resized, crop_px))
    return CropTransform(
        window_px=(starts[0], starts[1], lengths[0], lengths[1]),
        resized_px=(filled[0], filled[1]),
        size_px=crop_px,
        hflip=bool(rng.random() < weak.hflip),
        vflip=bool(rng.random() < weak.vflip),
        quarter_turns=int(rng.integers(0, 4)) if weak.rot90 else 0,
        angle_deg=float(rng.uniform(0, weak.rotate_deg)) if weak.rotate_deg else 0.0,
    )
