"""Write patches to disk: one PNG per date and label, each written completely or not at all."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from semicdvl.atomic_files import write_atomically

UNCHANGED, UNKNOWN, CHANGED = 0, 128, 255
"""Values in the label files."""
LABEL_VALUES_OPTION = "{0=0,128=255,255=1}"
"""The value of `data.label_values` in a recipe by which unknown pixels are ignored."""


def list_patch_files(root: Path, name: str) -> tuple[Path, Path, Path]:
    """Return the paths below `root` of the first date, the second date and the label of a patch."""
    first, second, label = (root / kind / f"{name}.png" for kind in ("A", "B", "label"))
    return first, second, label


def write_patch(
    root: Path,
    name: str,
    t1_HWC: NDArray[np.uint8],
    t2_HWC: NDArray[np.uint8],
    label_HW: NDArray[np.uint8] | None,
) -> None:
    """Write the patch of both dates and its label, if it has one.

    Args:
        root: folder of the data set.
        name: of the patch, without suffix.
        t1_HWC: RGB of date 1.
        t2_HWC: RGB of date 2.
        label_HW: label in the values of label files (UNCHANGED, UNKNOWN, CHANGED); None: no label file.

    Raises:
        OutputError: the folder cannot be written.
    """
    images = (t1_HWC, t2_HWC, label_HW)
    for path, image in zip(list_patch_files(root, name), images, strict=True):
        if image is not None:
            write_png(path, image)


def write_png(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an RGB (HWC) or grey (HW) image as PNG."""
    ok, data = cv2.imencode(".png", image[..., ::-1] if image.ndim == 3 else image)
    assert ok, "a uint8 array can always be encoded"
    with write_atomically(path) as temporary:
        temporary.write_bytes(data.tobytes())
