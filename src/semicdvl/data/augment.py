"""Augment a pair: its weak and strong training views, on uint8 RGB, or on the values of any number of bands.

What is random is *drawn* first (`draw_crop`, `draw_photometric`, `draw_cutmix_box`, from a generator that is handed
in) and then
*applied*, so that both dates, the mask and the VLM's labels go through one and the same geometry.

The defaults are the recipe that SemiCDNet's successors share (UniMatch, FixMatch and SemiCD-VL for change detection).
Differences: OpenCV and NumPy in place of Pillow; scale is relative to the image's own size (the recipe says "to the
crop", which is the same for its 256 px tiles; `scale_to="crop"` says so for others too); only the part of the image
that the crop needs is resized, so a crop's scale is off by at most half a pixel over its side.

Bands other than 8-bit RGB (float32) get brightness, contrast and blur of the strong view, all of them alike: saturation
and hue are of red, green and blue. Their values are not clipped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from semicdvl.data.images.files import UInt8Array
from semicdvl.errors import ConfigError
from semicdvl.types import IGNORE


# ------------------------------------------------------------------------------------------------ weak: geometry
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


# ------------------------------------------------------------------------------------------------ strong: colour, blur
@dataclass(frozen=True)
class StrongAugmentation:
    """Colour jitter and blur of the strong view."""

    brightness: float = 0.5  # factor in 1 -+ this
    contrast: float = 0.5  # factor in 1 -+ this, about the image's mean grey
    saturation: float = 0.5  # factor in 1 -+ this
    hue: float = 0.25  # shift in -+ this, of a full turn
    color_p: float = 0.8  # probability of the four together
    blur_sigma_px: tuple[float, float] = (0.1, 2.0)
    blur_p: float = 0.5  # probability of the blur
    paired: bool = False  # True: one draw for both dates; False, as in the source: each date its own

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"strong {name} = {getattr(self, name)} is out of range. Give a number from 0 to 1.")
        if not 0 <= self.hue <= 0.5:
            raise ConfigError(f"strong hue = {self.hue} is out of range. Give a number from 0 to 0.5 (half a turn).")
        if not 0 < self.blur_sigma_px[0] <= self.blur_sigma_px[1]:
            raise ConfigError(
                f"strong blur_sigma_px = {self.blur_sigma_px} is not a range. Give two positive numbers in order."
            )


@dataclass(frozen=True)
class PhotometricTransform:
    """A drawn photometric transform: colour steps in their order, as (name, amount), and a blur (None: none)."""

    colors: tuple[tuple[str, float], ...] = ()
    blur_sigma_px: float | None = None

    def apply(self, image_HWC: NDArray[Any]) -> NDArray[Any]:
        """Return the transformed image HWC, uint8 RGB or float32 bands; without any step it is the image itself."""
        steps: Mapping[str, _ColorStep] = _COLOR_STEPS if image_HWC.dtype == np.uint8 else _BAND_STEPS
        for name, amount in self.colors:
            if name in steps:
                image_HWC = steps[name](image_HWC, amount)
        if self.blur_sigma_px is not None:
            # Three sigma on either side contain 99.7 % of the weight.
            reach = max(1, math.ceil(3 * self.blur_sigma_px))
            blurred = cv2.GaussianBlur(image_HWC, (2 * reach + 1, 2 * reach + 1), self.blur_sigma_px)
            image_HWC = np.asarray(blurred)
        return image_HWC


def draw_photometric(strong: StrongAugmentation, *, rng: np.random.Generator) -> PhotometricTransform:
    """Draw colour jitter and blur for one image."""
    colors: tuple[tuple[str, float], ...] = ()
    if rng.random() < strong.color_p:
        factors = {name: 1 + getattr(strong, name) * rng.uniform(-1, 1) for name in _COLOR_STEPS if name != "hue"}
        steps = [*factors.items(), ("hue", strong.hue * rng.uniform(-1, 1))]
        colors = tuple(steps[index] for index in rng.permutation(len(steps)))
    blurred = rng.random() < strong.blur_p
    sigma_px = float(rng.uniform(*strong.blur_sigma_px))
    return PhotometricTransform(colors, sigma_px if blurred else None)


_GREY = np.array([0.299, 0.587, 0.114])


def _brightness(image_HWC: UInt8Array, factor: float) -> UInt8Array:
    """Scale all values."""
    return _apply_colour_matrix(image_HWC, factor * np.eye(3), 0.0)


def _contrast(image_HWC: UInt8Array, factor: float) -> UInt8Array:
    """Scale the difference from the mean grey of the image."""
    mean = cv2.mean(cv2.cvtColor(image_HWC, cv2.COLOR_RGB2GRAY))[0]
    return _apply_colour_matrix(image_HWC, factor * np.eye(3), (1 - factor) * mean)


def _saturation(image_HWC: UInt8Array, factor: float) -> UInt8Array:
    """Scale the difference of each pixel from its own grey."""
    return _apply_colour_matrix(image_HWC, factor * np.eye(3) + (1 - factor) * _GREY, 0.0)


def _hue(image_HWC: UInt8Array, turn: float) -> UInt8Array:
    """Shift the hue by `turn` of a full turn of the colour circle."""
    hsv_HWC = cv2.cvtColor(image_HWC, cv2.COLOR_RGB2HSV_FULL)
    hsv_HWC[..., 0] += np.uint8(round(turn * 256) % 256)  # the circle has 256 steps, as the byte has
    return cast(UInt8Array, cv2.cvtColor(hsv_HWC, cv2.COLOR_HSV2RGB_FULL))


def _apply_colour_matrix(image_HWC: UInt8Array, mix_CC: NDArray[np.float64], offset: float) -> UInt8Array:
    """Return `mix_CC @ pixel + offset` of each pixel, clipped; a table of 256 levels takes four times as long."""
    affine_C4 = np.column_stack([mix_CC, np.full(3, offset)]).astype(np.float32)
    return cast(UInt8Array, cv2.transform(image_HWC, affine_C4))


_ColorStep = Callable[[NDArray[Any], float], NDArray[Any]]
_COLOR_STEPS: dict[str, _ColorStep] = {
    "brightness": _brightness,
    "contrast": _contrast,
    "saturation": _saturation,
    "hue": _hue,
}


def _scale_bands(image_HWC: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    """Scale all values of all bands."""
    return np.asarray(image_HWC * np.float32(factor))


def _spread_bands(image_HWC: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    """Scale the difference of each band from its mean in the image."""
    mean_C = image_HWC.mean(axis=(0, 1), dtype=np.float64).astype(np.float32)
    return np.asarray((image_HWC - mean_C) * np.float32(factor) + mean_C)


_BAND_STEPS: dict[str, _ColorStep] = {"brightness": _scale_bands, "contrast": _spread_bands}


# ------------------------------------------------------------------------------------------------ CutMix
@dataclass(frozen=True)
class CutMixSettings:
    """The box that one pair takes from another (Yun et al. 2019); one box for both dates and all labels."""

    p: float = 0.5  # probability of a box
    area_frac: tuple[float, float] = (0.02, 0.4)  # of the crop
    aspect: tuple[float, float] = (0.3, 1 / 0.3)  # height over width, as in the source

    def __post_init__(self) -> None:
        """Refuse boxes that cannot lie within a square."""
        if not 0 < self.area_frac[0] <= self.area_frac[1] < 1:
            raise ConfigError(
                f"cutmix area_frac = {self.area_frac} is not a range. Give two numbers between 0 and 1 in order."
            )
        if not 0 < self.aspect[0] <= self.aspect[1]:
            raise ConfigError(f"cutmix aspect = {self.aspect} is not a range. Give two positive numbers in order.")
        squarest = min(max(self.aspect[0], 1.0), self.aspect[1])
        if self.area_frac[1] >= min(squarest, 1 / squarest):
            raise ConfigError(
                f"cutmix: no box of area {self.area_frac[1]} and aspect {self.aspect} fits a square crop."
                " Give a smaller area_frac, or an aspect nearer to 1."
            )


def draw_cutmix_box(cutmix: CutMixSettings, *, crop_px: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draw the CutMix box as HW bool; all False when there is none.

    Area and aspect are uniform, the aspect redrawn until the box lies within the crop with its corner drawn in the
    whole crop, as in the source: long boxes are rarer than square ones, and tall ones more frequent than wide ones.
    """
    box_HW = np.zeros((crop_px, crop_px), np.bool_)
    if rng.random() >= cutmix.p:
        return box_HW
    area_px = rng.uniform(*cutmix.area_frac) * crop_px * crop_px
    while True:
        aspect = rng.uniform(*cutmix.aspect)
        height, width = max(1, int(math.sqrt(area_px * aspect))), max(1, int(math.sqrt(area_px / aspect)))
        row, col = (int(start) for start in rng.integers(0, crop_px, 2))
        if row + height <= crop_px and col + width <= crop_px:
            box_HW[row : row + height, col : col + width] = True
            return box_HW
