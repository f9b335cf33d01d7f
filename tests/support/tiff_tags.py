"""Set a tag of a TIFF that GDAL does not write."""

from __future__ import annotations

import struct
from pathlib import Path


def set_orientation(path: Path, orientation: int) -> Path:
    """Give the first image of a little-endian TIFF an orientation tag: a new directory is appended to the file."""
    content = bytearray(path.read_bytes())
    assert content[:4] == b"II*\0", "a plain little-endian TIFF"
    (place,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, place)
    entries = [bytes(content[place + 2 + 12 * at : place + 14 + 12 * at]) for at in range(count)]
    following = bytes(content[place + 2 + 12 * count : place + 6 + 12 * count])
    entries = [entry for entry in entries if entry[:2] != struct.pack("<H", 274)]
    entries.append(struct.pack("<HHIHH", 274, 3, 1, orientation, 0))
    entries.sort(key=lambda entry: struct.unpack_from("<H", entry)[0])
    content += b"\0" * (len(content) % 2)
    struct.pack_into("<I", content, 4, len(content))
    path.write_bytes(bytes(content) + struct.pack("<H", len(entries)) + b"".join(entries) + following)
    return path
