"""Patches of 16 bits: grass with a red house at both dates, and a second house that is new."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from tests.support.dataset_files import save
from tests.support.synthetic_rasters import at, tif
from tests.support.tiny_training import GREEN, RED

GAIN, OFFSET = 11, 300
NEW_HOUSE, OLD_HOUSE = np.s_[20:38, 8:28], np.s_[4:14, 44:58]


def make_date(rng, *, new: bool) -> np.ndarray:
    """Return grey values HWC of grass with a red house, and another one that is new."""
    image_HWC = rng.normal(0, 6, (64, 64, 3)) + GREEN
    image_HWC[OLD_HOUSE] = RED
    if new:
        image_HWC[NEW_HOUSE] = RED
    return np.clip(image_HWC, 1, 255).astype(np.uint8)


def write_deep_patches(
    root: Path, *, suffix: str = "tif", deep: bool = True, numbers: Iterable[int] = range(12), gain: int = GAIN
) -> Path:
    """Write pairs of 64 px; deep ones have values of 16 bits in the place of grey values."""
    rng = np.random.default_rng(0)
    for index in numbers:
        label = np.zeros((64, 64), np.uint8)
        label[NEW_HOUSE] = 255
        save(root / "label" / f"p{index:02d}.png", label)
        for part in "AB":
            image_HWC = make_date(rng, new=part == "B")
            values_HWC = image_HWC.astype(np.uint16) * gain + OFFSET if deep else image_HWC
            path = root / part / f"p{index:02d}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if suffix == "tif":
                tif(path, values_HWC.transpose(2, 0, 1), at(index * 40, 90))
            elif deep:
                cv2.imwrite(str(path), values_HWC[..., ::-1])
            else:
                save(path, values_HWC)
    return root
