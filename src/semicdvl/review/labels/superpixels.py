"""Segments of one date: the brush that takes a whole roof with one click.

Felzenszwalb and Huttenlocher 2004, "Efficient graph-based image segmentation" (scikit-image): regions grow where the
colours inside vary less than those across the edge, so a roof becomes one segment whatever its size.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import felzenszwalb

Detail = Literal["fine", "medium", "coarse"]
SCALES: dict[Detail, tuple[float, int]] = {"fine": (60.0, 30), "medium": (200.0, 60), "coarse": (350.0, 80)}
"""Detail -> scale of the method and smallest segment in pixels."""
SIGMA_PX = 0.3
"""More smoothing draws a seam of its own along every edge."""


def segment_image(image_HWC: NDArray[np.uint8], *, detail: Detail = "medium") -> NDArray[np.int32]:
    """Return the number of the segment of each pixel, from 0."""
    scale, min_size = SCALES[detail]
    segments_HW = felzenszwalb(image_HWC, scale=scale, sigma=SIGMA_PX, min_size=min_size)
    return np.asarray(segments_HW, np.int32)


def encode_segments(segments_HW: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Return the numbers as an RGB image: red is the lowest byte, blue the highest."""
    return np.stack([segments_HW & 255, (segments_HW >> 8) & 255, (segments_HW >> 16) & 255], axis=-1).astype(np.uint8)
