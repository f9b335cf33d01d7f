"""Thresholds on colour, for tests: knows five words and is right on made-up images only.

Grey-white or red is building, dark grey road, green grass or tree (bright or dark), blue water.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semicdvl.errors import ConfigError
from semicdvl.types import Segments

COLOURS = {
    "building": ((220, 220, 220), (190, 80, 60)),
    "house": ((220, 220, 220), (190, 80, 60)),
    "road": ((90, 90, 90),),
    "grass": ((110, 170, 80),),
    "tree": ((40, 90, 40),),
    "water": ((40, 70, 150),),
}
DECAY_DISTANCE = 60.0
"""Distance in RGB at which a score has fallen to 1/e."""


@dataclass(frozen=True)
class FakeVLM:
    """Scores fall with the distance of a pixel's colour from a word's colours; unknown words score 0 everywhere."""

    identity: str = "fake-1"
    gamma: float = 0.5

    def segment(self, image_HWC: NDArray[np.uint8], prompts: Sequence[str], *, gsd_m: float | None = None) -> Segments:
        """Return exp(-distance / REACH) per word; resolution changes nothing.

        Raises:
            ConfigError: the image isn't uint8 RGB, or nothing was asked.
        """
        if image_HWC.ndim != 3 or image_HWC.shape[2] != 3 or image_HWC.dtype != np.uint8:
            raise ConfigError(f"wanted a uint8 RGB image, got {image_HWC.dtype} {image_HWC.shape}; convert it first.")
        if not prompts:
            raise ConfigError("no word was asked; give at least one.")
        pixels_HWC = image_HWC.astype(np.float32)
        scores_CHW = np.zeros((len(prompts), *image_HWC.shape[:2]), np.float32)
        for channel, word in enumerate(prompts):
            for colour in COLOURS.get(word.strip().lower(), ()):
                distance_HW = np.linalg.norm(pixels_HWC - np.array(colour, np.float32), axis=-1)
                np.maximum(scores_CHW[channel], np.exp(-distance_HW / DECAY_DISTANCE), out=scores_CHW[channel])
        return Segments(scores_CHW, tuple(prompts))


def build_fake(*, weights: object = None, device: str = "cpu") -> FakeVLM:
    """Return the fake; `weights` and `device` are there for its betters."""
    return FakeVLM()
