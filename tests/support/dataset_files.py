"""Write small data sets for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def save(path: Path, array: np.ndarray) -> Path:
    """Write an array as an image in the format of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def folder_of_pairs(
    root: Path, names: list[str], *, size_px: tuple[int, int] = (40, 56), labelled: bool = True
) -> Path:
    """Write A/ B/ label/ with one rectangle of change per pair; band 0 of each image holds the number of its pair."""
    for number, name in enumerate(names):
        rng = np.random.default_rng(number)
        for date in ("A", "B"):
            image_HWC = rng.integers(0, 256, (*size_px, 3), dtype=np.uint8)
            image_HWC[..., 0] = number
            save(root / date / f"{name}.png", image_HWC)
        if labelled:
            label_HW = np.zeros(size_px, np.uint8)
            label_HW[5 : 15 + number % 7, 8:30] = 255
            save(root / "label" / f"{name}.png", label_HW)
    return root
