"""Read safetensors: the header is checked against the file before any tensor is made."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semicdvl.errors import InputError
from semicdvl.reading.array_files import check_members
from semicdvl.reading.json_files import parse_json
from semicdvl.reading.limits import MAX_TENSOR_AXES, MAX_TENSORS, MAX_WEIGHTS_BYTES, MIB
from semicdvl.reading.regular_files import require_regular_file

if TYPE_CHECKING:
    from torch import Tensor

ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
"""Types of tensors that weights have -> bytes of a number."""
MAX_UNPACKED_BYTES = 256 * MIB
"""A file of `torch.save` is not packed and holds its own size; one that somebody packed unpacks to this at most."""
MAX_HEADER_BYTES = 100 * MIB
"""As safetensors itself has it."""


def read_tensors(path: Path, *, remedy: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file by name, and the texts of its header.

    Raises:
        InputError: the file is missing, no regular file or no safetensors; a tensor has an unknown type, a shape that
            does not fit its bytes, or holds numbers that are not finite.
    """
    notes = read_header(path, remedy=remedy)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise InputError(path, f"holds no weights that can be read ({error})", remedy) from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            problem = (
                f"the weights '{name}' hold numbers that are not finite, with which every result would be empty or "
                "random"
            )
            raise InputError(path, problem, remedy)
    return tensors, notes


def read_header(path: Path, *, remedy: str) -> dict[str, str]:
    """Check the header of a safetensors file and return its texts.

    Raises:
        InputError: it is not one that describes exactly the bytes of the file.
    """
    size = require_regular_file(path, remedy=remedy, max_bytes=MAX_WEIGHTS_BYTES)
    try:
        with path.open("rb") as handle:
            length = int.from_bytes(handle.read(8), "little")
            if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
                raise ValueError("its header is longer than the file")
            header = parse_json(handle.read(length))
        return _check_header(header, size - 8 - length)
    except (OSError, ValueError) as error:
        raise InputError(path, f"holds no weights that can be read ({error})", remedy) from error


def _check_header(header: Any, data_bytes: int) -> dict[str, str]:
    """Check what a header says of its tensors; return its texts."""
    if not isinstance(header, dict):
        raise ValueError("its header is no object")
    notes = header.pop("__metadata__", None) or {}
    if not isinstance(notes, dict) or not all(isinstance(text, str) for text in notes.values()):
        raise ValueError("the notes in its header are no texts")
    if len(header) > MAX_TENSORS:
        raise ValueError(f"it has {len(header):,} tensors, and {MAX_TENSORS:,} are possible")
    for name, entry in header.items():
        _check_entry(name, entry, data_bytes)
    return notes


def _check_entry(name: str, entry: Any, data_bytes: int) -> None:
    """Check type, shape and place of one tensor."""
    if not isinstance(entry, dict) or entry.get("dtype") not in ITEM_BYTES:
        raise ValueError(f"the tensor '{name[:100]}' has a type that weights do not have")
    shape: Any = entry.get("shape")
    place: Any = entry.get("data_offsets")
    if not _are_counts(shape) or not _are_counts(place) or len(shape) > MAX_TENSOR_AXES or len(place) != 2:
        raise ValueError(f"the tensor '{name[:100]}' has no shape and place")
    if place[1] > data_bytes or place[1] - place[0] != math.prod(shape) * ITEM_BYTES[entry["dtype"]]:
        raise ValueError(f"the tensor '{name[:100]}' does not fit its bytes in the file")


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(one, int) and one >= 0 for one in values)


def check_torch_archive(path: Path, *, remedy: str) -> None:
    """Check a file of `torch.save` from outside: a regular file whose archive unpacks to what it can hold.

    Raises:
        InputError: it is not. Whether it holds tensors is left to torch.
    """
    size = require_regular_file(path, remedy=remedy, max_bytes=MAX_WEIGHTS_BYTES)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                check_members(archive.infolist(), max_bytes=max(size, MAX_UNPACKED_BYTES))
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise InputError(path, f"cannot be read as a checkpoint ({error})", remedy) from error
