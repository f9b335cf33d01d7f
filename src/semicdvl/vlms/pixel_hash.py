"""The hash of an image's pixels: what caches and folders of predictions know an image by."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def hash_pixels(image_HWC: NDArray[np.uint8]) -> str:
    """Return the SHA-256 of an image's shape and pixels, in hex."""
    digest = hashlib.sha256(repr(image_HWC.shape).encode())
    digest.update(np.ascontiguousarray(image_HWC).tobytes())
    return digest.hexdigest()
