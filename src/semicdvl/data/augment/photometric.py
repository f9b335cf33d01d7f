"""Colour and blur of the strong view.

Bands other than 8-bit RGB (float32) get brightness, contrast and blur, all of them alike: saturation and hue are of
red, green and blue. Their values are not clipped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from semicdvl.data.images.files import UInt8Array
from semicdvl.errors import ConfigError


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
