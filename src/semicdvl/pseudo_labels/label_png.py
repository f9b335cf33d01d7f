"""The picture that holds the three labels of a pair: red is change, green is date 1, blue is date 2.

A PNG with a palette. Every reader of pictures gives three bands of 0, 1 and 255; in the file they are one byte per
pixel, since three labels of three values are 27 colours, so that writing takes a third of the time that three bands
take, and two thirds of the room.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np

from semicdvl.types import IGNORE, VLMLabels

SIGNATURE = b"\x89PNG\r\n\x1a\n"
LABEL_OF_BITS = (0, 1, 0, IGNORE)
"""What the two lowest bits of a label's value stand for; 2 does not occur."""
PALETTE = bytes(LABEL_OF_BITS[index >> shift & 3] for index in range(64) for shift in (0, 2, 4))


def encode_labels(labels: VLMLabels) -> bytes:
    """Return the labels of a pair, maps of 0, 1 and IGNORE, as the bytes of a PNG file."""
    height, width = labels.change_HW.shape
    rows = np.zeros((height, 1 + width), np.uint8)  # each row begins with the number of its filter: 0, none
    rows[:, 1:] = labels.change_HW & 3 | (labels.t1_HW & 3) << 2 | (labels.t2_HW & 3) << 4
    # Runs alone: labels are patches and stripes of equal pixels; looking for repeated strings takes twice as long.
    deflate = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_RLE)
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)  # 8 bits, palette
    parts = (
        (b"IHDR", header),
        (b"PLTE", PALETTE),
        (b"IDAT", deflate.compress(rows.tobytes()) + deflate.flush()),
        (b"IEND", b""),
    )
    return SIGNATURE + b"".join(_chunk(kind, content) for kind, content in parts)


def _chunk(kind: bytes, content: bytes) -> bytes:
    """Return a chunk of a PNG file: length, kind, content, checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def read_label_png(path: Path) -> VLMLabels | None:
    """Read the labels of a pair; None if the file is missing or damaged."""
    bands_HW3 = cv2.imread(str(path), cv2.IMREAD_COLOR) if path.is_file() else None
    if bands_HW3 is None:
        return None
    t2_HW, t1_HW, change_HW = (np.ascontiguousarray(bands_HW3[..., band]).astype(np.uint8) for band in range(3))
    return VLMLabels(change_HW, t1_HW, t2_HW)
