"""Thresholds on colour, for tests: six words, correct on synthetic images only.

Grey-white or red is building, dark grey road, green grass or tree (bright or dark), blue water.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semicdvl.types import DescribedVLM, Segments
from semicdvl.vlms.model_cards import ModelCard
from semicdvl.vlms.validation import check_image, check_prompts

CARD = ModelCard(
    description="tests only",
    licence="Apache-2.0",
    size="-",
    needs="nothing",
    gamma=0.5,
    measured_on="synthetic images only",
)
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
class FakeVLM(DescribedVLM):
    """Score pixels by the distance of their colour from a word's colours; unknown words score 0 everywhere."""

    identity: str = "fake-1"
    gamma: float = CARD.gamma

    def segment(self, image_HWC: NDArray[np.uint8], prompts: Sequence[str], *, gsd_m: float | None = None) -> Segments:
        """Return exp(-distance / DECAY_DISTANCE) per word; `gsd_m` changes nothing.

        Raises:
            ConfigError: the image is not uint8 RGB, or there is no prompt.
        """
        check_image(image_HWC, vlm="fake")
        check_prompts(prompts)
        pixels_HWC = image_HWC.astype(np.float32)
        scores_CHW = np.zeros((len(prompts), *image_HWC.shape[:2]), np.float32)
        for channel, word in enumerate(prompts):
            for colour in COLOURS.get(word.strip().lower(), ()):
                distance_HW = np.linalg.norm(pixels_HWC - np.array(colour, np.float32), axis=-1)
                np.maximum(scores_CHW[channel], np.exp(-distance_HW / DECAY_DISTANCE), out=scores_CHW[channel])
        return Segments(scores_CHW, tuple(prompts))


def build_fake(*, weights: object = None, device: str = "cpu") -> FakeVLM:
    """Return the VLM; `weights` and `device` are accepted as by every builder, and not used."""
    return FakeVLM()
