"""Read .npy and .npz files: a header is believed only as far as the bytes behind it, and no object is unpickled."""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from semicdvl.errors import InputError
from semicdvl.reading.limits import (
    MAX_ARCHIVE_MEMBERS,
    MAX_ARCHIVE_RATIO,
    MAX_ARRAY_AXES,
    MAX_ARRAY_BYTES,
    MIB,
)
from semicdvl.reading.regular_files import require_regular_file

PLAIN_KINDS = "biuf"
"""Kinds of arrays that are read: truth values, whole numbers, fractions."""
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""How NumPy packs the members of an archive."""
_FAULTS = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    TypeError,
    SyntaxError,
    IndexError,
    OverflowError,
    RecursionError,
    MemoryError,
    RuntimeError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
    tokenize.TokenError,
)
"""What NumPy and zipfile raise for damaged files."""


def read_npy(path: Path, *, remedy: str) -> NDArray[Any]:
    """Read the array of a .npy file.

    Raises:
        InputError: the file is missing or no regular file, its header is damaged or announces another size than there
            is, or its values are no plain numbers.
    """
    size = require_regular_file(path, remedy=remedy, max_bytes=MAX_ARRAY_BYTES)
    try:
        with path.open("rb") as handle:
            return _read_array(handle, size)
    except _FAULTS as error:
        raise InputError(path, f"is not an array file that can be read ({_first_line(error)})", remedy) from error


def read_npz(path: Path, *, remedy: str) -> dict[str, NDArray[Any]]:
    """Read the arrays of a .npz file by name.

    Raises:
        InputError: the file is missing or no regular file, encrypted, unpacks to more than it can hold, or one of its
            arrays is damaged, see `read_npy`.
    """
    require_regular_file(path, remedy=remedy, max_bytes=MAX_ARRAY_BYTES)
    try:
        with path.open("rb") as handle, zipfile.ZipFile(handle) as archive:
            members = archive.infolist()
            check_members(members)
            return {member.filename.removesuffix(".npy"): _read_member(archive, member) for member in members}
    except _FAULTS as error:
        raise InputError(
            path, f"is not an archive of arrays that can be read ({_first_line(error)})", remedy
        ) from error


def check_members(members: list[zipfile.ZipInfo], *, max_bytes: int = MAX_ARRAY_BYTES) -> None:
    """Check what an archive says of its members, before any is unpacked.

    Raises:
        ValueError: they are encrypted, too many, packed in an unknown way, twice there, or unpack to too much.
    """
    if len(members) > MAX_ARCHIVE_MEMBERS:
        raise ValueError(f"it has {len(members):,} members, and {MAX_ARCHIVE_MEMBERS:,} are possible")
    if len({member.filename for member in members}) < len(members):
        raise ValueError("it has two members of one name")
    for member in members:
        if member.flag_bits & 1:
            raise ValueError("it is encrypted")
        if member.compress_type not in METHODS:
            raise ValueError("it is packed in a way that NumPy does not use")
        if member.file_size > MAX_ARCHIVE_RATIO * (member.compress_size + 1):
            raise ValueError(f"it would unpack to {member.file_size / MIB:,.0f} MiB, which cannot be right")
    total = sum(member.file_size for member in members)
    if total > max_bytes:
        raise ValueError(f"it would unpack to {total / MIB:,.0f} MiB, and {max_bytes / MIB:,.0f} MiB are possible")


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(member) as stream:
        return _read_array(stream, member.file_size)


def _read_array(stream: IO[bytes], size: int) -> NDArray[Any]:
    """Read an array from a stream of a known number of bytes."""
    version = npy.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"its format has the unknown version {version[0]}.{version[1]}")
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, in_columns, dtype = read_header(stream)
    if dtype.hasobject or dtype.kind not in PLAIN_KINDS:
        raise ValueError(f"its values are {dtype}, not real numbers")
    if len(shape) > MAX_ARRAY_AXES or min(shape, default=0) < 0:
        raise ValueError(f"its shape {shape} is impossible")
    announced, there = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if announced != there:
        raise ValueError(f"its header announces {announced:,} bytes of values, and {there:,} are there")
    content = stream.read(announced)
    if len(content) != announced:
        raise ValueError("it ends too early")
    array: NDArray[Any] = np.frombuffer(content, dtype).reshape(shape, order="F" if in_columns else "C").copy()
    return array


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")
