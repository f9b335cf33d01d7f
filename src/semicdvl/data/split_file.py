"""A split on disk: JSON with paths relative to the data's root and a hash over everything that matters."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semicdvl.atomic_files import hash_values, read_json, write_json
from semicdvl.data.change_dataset import require_unique_names
from semicdvl.errors import DataError, InputError
from semicdvl.types import PairFiles, Split

SPLIT_FORMAT = "semicdvl-split-1"
_SUBSETS = ("labelled", "unlabelled", "val", "test")
_REMAKE = "Make the split again, or restore the file from a copy"


def write_split(path: Path, split: Split, *, root: Path, notes: Mapping[str, str | int | float] | None = None) -> str:
    """Write a split and return its hash.

    Args:
        path: JSON file to write, whole.
        split: what is written.
        root: folder of the data; paths are kept relative to it, so that both can move.
        notes: how the split came about (seed, share, ...); part of the hash.

    Raises:
        OutputError: the file cannot be written.
    """
    root = root.resolve()
    sides = {side: [_pair_to_json(pair, root) for pair in getattr(split, side)] for side in _SUBSETS}
    content = {"notes": dict(notes or {}), **sides}
    digest = hash_values(SPLIT_FORMAT, content)
    write_json(path, {"format": SPLIT_FORMAT, "sha256": digest, "root": str(root), **content})
    return digest


def read_split(path: Path, *, root: Path | None = None) -> Split:
    """Read a split and check that nobody changed it and that its files are there.

    Args:
        path: file from `write_split`.
        root: folder of the data now; the one that was written if None.

    Raises:
        InputError: the file is missing or is no split.
        DataError: its hash does not fit its content, a pair occurs twice, or files are missing.
    """
    content = read_json(path, remedy=_REMAKE)
    if not isinstance(content, dict) or content.get("format") != SPLIT_FORMAT:
        raise InputError(path, "is no split of this version", _REMAKE)
    hashed = {key: content[key] for key in ("notes", *_SUBSETS) if key in content}
    if hash_values(SPLIT_FORMAT, hashed) != content.get("sha256"):
        raise DataError(f"{path}: the lists do not fit the hash in the file, it was edited or damaged. {_REMAKE}.")
    base = root or Path(content["root"])
    split = Split(**{side: tuple(_pair_from_json(entry, base) for entry in content[side]) for side in _SUBSETS})
    require_unique_names(str(path), [pair.name for side in _SUBSETS for pair in getattr(split, side)])
    _require_files(path, split, base)
    return split


def _pair_to_json(pair: PairFiles, root: Path) -> dict[str, Any]:
    """Write a pair with paths relative to the root."""
    files = {key: getattr(pair, key) for key in ("before", "after", "label")}
    relative = {key: file and Path(os.path.relpath(file.resolve(), root)).as_posix() for key, file in files.items()}
    return {"name": pair.name, **relative, "window_px": pair.window_px and list(pair.window_px)}


def _pair_from_json(entry: Mapping[str, Any], root: Path) -> PairFiles:
    """Read a pair back; the hash has vouched for the form of the entry."""
    label, window = entry["label"], entry["window_px"]
    return PairFiles(
        entry["name"],
        root / entry["before"],
        root / entry["after"],
        root / label if label else None,
        tuple(window) if window else None,
    )


def _require_files(path: Path, split: Split, root: Path) -> None:
    """Raise if files of the split are missing."""
    files = {
        file
        for side in _SUBSETS
        for pair in getattr(split, side)
        for file in (pair.before, pair.after, pair.label)
        if file is not None
    }
    missing = sorted(file for file in files if not file.is_file())
    if missing:
        raise DataError(
            f"{path}: {len(missing)} of {len(files)} files are not there, e.g. {missing[0]}."
            f" Say where the data is now with root (it was {root})."
        )
