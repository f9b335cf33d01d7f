"""Patches on disk: one PNG per date and label, each written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from semicdvl.atomic_files import write_atomically

UNCHANGED, UNKNOWN, CHANGED = 0, 128, 255
"""Values in the label files."""
LABEL_VALUES_OPTION = "{0=0,128=255,255=1}"
"""What a recipe says as `data.label_values` to have unknown pixels ignored."""


def list_patch_files(root: Path, name: str) -> tuple[Path, Path, Path]:
    """Return where the first date, the second date and the label of a patch lie below `root`."""
    first, second, label = (root / kind / f"{name}.png" for kind in ("A", "B", "label"))
    return first, second, label


def write_patch(
    root: Path,
    name: str,
    t1_HWC: NDArray[np.uint8],
    t2_HWC: NDArray[np.uint8],
    label_HW: NDArray[np.uint8] | None,
) -> None:
    """Write one pair, RGB, with its label in file values where it has one.

    Raises:
        OutputError: the folder cannot be written.
    """
    images = (t1_HWC, t2_HWC, label_HW)
    for path, image in zip(list_patch_files(root, name), images, strict=True):
        if image is not None:
            write_png(path, image)


def write_png(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an RGB (HWC) or grey (HW) image."""
    ok, data = cv2.imencode(".png", image[..., ::-1] if image.ndim == 3 else image)
    assert ok, "a uint8 array can always be encoded"
    with write_atomically(path) as temporary:
        temporary.write_bytes(data.tobytes())
