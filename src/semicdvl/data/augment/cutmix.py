"""The box of CutMix, which the method applies."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semicdvl.errors import ConfigError


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
