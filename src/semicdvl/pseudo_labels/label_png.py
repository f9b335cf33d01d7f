"""PNG files of the three labels of a pair: red is change, green is date 1, blue is date 2.

Of foreground and background the PNG has a palette: every reader gives three bands of 0, 1 and 255, while the file holds
one byte per pixel, since three labels of three values are 27 colours. Writing then takes a third of the time of three
bands, and two thirds of the space. Labels of more classes are three bands.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from semicdvl.reading.limits import MAX_PICTURE_PX
from semicdvl.reading.regular_files import find_file_fault
from semicdvl.types import IGNORE, VLMLabels

LABEL_OF_BITS = (0, 1, 0, IGNORE)
"""Label that the two lowest bits of its value stand for; 2 does not occur."""
PALETTE = bytes(LABEL_OF_BITS[index >> shift & 3] for index in range(64) for shift in (0, 2, 4))
RUN_LENGTHS = 3
"""Compression strategy of zlib (Z_RLE): labels are areas of equal pixels, and searching strings takes twice as long."""


def encode_labels(labels: VLMLabels) -> bytes:
    """Return the labels of a pair, uint8 HW maps of class indices and IGNORE, as the bytes of a PNG file."""
    maps = labels.change_HW, labels.t1_HW, labels.t2_HW
    if all(_is_binary(map_HW) for map_HW in maps):
        picture = Image.fromarray(maps[0] & 3 | (maps[1] & 3) << 2 | (maps[2] & 3) << 4)
        picture.putpalette(PALETTE)
    else:
        picture = Image.fromarray(np.dstack(maps))
    content = io.BytesIO()
    picture.save(content, format="PNG", compress_level=1, compress_type=RUN_LENGTHS)
    return content.getvalue()


def _is_binary(map_HW: NDArray[np.uint8]) -> bool:
    """Tell whether a map holds 0, 1 and IGNORE alone."""
    return not bool(((map_HW > 1) & (map_HW < IGNORE)).any())


def read_label_png(path: Path) -> VLMLabels | None:
    """Read the labels of a pair; None if the file is missing or damaged."""
    if not path.is_file() or find_file_fault(path) is not None:
        return None
    try:
        with PngImageFile(path) as picture:  # a whole scene is no attack here, but its size is bounded
            if picture.width * picture.height > MAX_PICTURE_PX:
                return None
            bands_HW3 = np.asarray(picture.convert("RGB"))
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError, Image.DecompressionBombError):
        return None
    change_HW, t1_HW, t2_HW = (np.ascontiguousarray(bands_HW3[..., band]) for band in range(3))
    return VLMLabels(change_HW, t1_HW, t2_HW)
