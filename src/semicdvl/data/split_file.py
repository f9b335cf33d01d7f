"""Write and read a split as JSON, with paths relative to the root of the data and a hash over its content."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError, model_validator

from semicdvl.atomic_files import hash_values, write_json
from semicdvl.data.change_dataset import require_unique_names
from semicdvl.errors import ConfigError, DataError, InputError
from semicdvl.reading.json_files import describe_fault, read_json
from semicdvl.reading.regular_files import is_file, resolve_links, shorten_path
from semicdvl.types import ClassFiles, ClassLegend, PairFiles, Split

SPLIT_FORMAT = "semicdvl-split-1"
_PARTS = ("labelled", "unlabelled", "val", "test")
_REMAKE = "Make the split again, or restore the file from a copy"


class _LegendEntry(BaseModel):
    """The classes of class maps; the names are stored."""

    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...] | None
    unknown_colours: tuple[tuple[int, int, int], ...]

    def to_legend(self) -> ClassLegend:
        """Return the legend."""
        return ClassLegend(self.names, self.colours, self.unknown_colours)


class _ClassesEntry(BaseModel):
    """The class maps of a pair; the names are stored."""

    legend: int = Field(ge=0)
    before: str | None
    after: str | None
    give_change: bool


class _PairEntry(BaseModel):
    """A pair of the file; the names are stored."""

    name: str
    before: str
    after: str
    label: str | None
    window_px: tuple[int, int, int, int] | None
    classes: _ClassesEntry | None = None


class _SplitFile(BaseModel):
    """What a split's file holds; the names are stored."""

    sha256: str
    root: str
    labelled: list[_PairEntry]
    unlabelled: list[_PairEntry]
    val: list[_PairEntry]
    test: list[_PairEntry]
    legends: list[_LegendEntry] = []

    @model_validator(mode="after")
    def _require_legends(self) -> _SplitFile:
        """Refuse class maps of a legend that is not there."""
        for pair in (*self.labelled, *self.unlabelled, *self.val, *self.test):
            if pair.classes is not None and pair.classes.legend >= len(self.legends):
                raise ValueError(f"the classes of '{pair.name}' are of a legend that is not in the file")
        return self


def write_split(path: Path, split: Split, *, root: Path, notes: Mapping[str, str | int | float] | None = None) -> str:
    """Write a split and return its hash.

    Args:
        path: JSON file to write.
        split: what is written.
        root: folder of the data; paths are stored relative to it, so that data and split can be moved.
        notes: how the split was made (seed, share, ...); part of the hash.

    Raises:
        OutputError: the file cannot be written.
    """
    root = resolve_links(root)
    legends = _list_legends(split)
    parts = {part: [_pair_to_json(pair, root, legends) for pair in getattr(split, part)] for part in _PARTS}
    content: dict[str, Any] = {"notes": dict(notes or {}), **parts}
    if legends:
        content["legends"] = [asdict(legend) for legend in legends]
    digest = hash_values(SPLIT_FORMAT, content)
    write_json(path, {"format": SPLIT_FORMAT, "sha256": digest, "root": str(root), **content})
    return digest


def read_split(path: Path, *, root: Path | None = None, sha256: str | None = None, need_files: bool = True) -> Split:
    """Read a split, and check that it was not edited and that its files exist.

    Args:
        path: file from `write_split`.
        root: where the folder of the data is now; None: where it was when the split was written.
        sha256: hash that the split has, where a run's record names it; None: any.
        need_files: whether files that do not exist are an error.

    Raises:
        InputError: the file is missing or not a split.
        DataError: its hash does not fit its content, a pair occurs twice, files are missing, or a pair that is learnt
            from with its label, validated or tested on lies outside of the folder of the data. Unlabelled pairs may be
            of a second data set.
    """
    content = read_json(path, remedy=_REMAKE)
    if not isinstance(content, dict) or content.get("format") != SPLIT_FORMAT:
        raise InputError(path, "is not a split of this version", _REMAKE)
    try:
        given = _SplitFile.model_validate(content)
        legends = [legend.to_legend() for legend in given.legends]
    except ValidationError as error:
        raise InputError(path, describe_fault(error), _REMAKE) from None
    except ConfigError as error:
        raise InputError(path, f"names classes that don't fit: {error}".rstrip("."), _REMAKE) from None
    hashed = {key: content[key] for key in ("notes", *_PARTS, "legends") if key in content}
    if hash_values(SPLIT_FORMAT, hashed) != content.get("sha256"):
        raise DataError(f"{path}: the lists do not fit the hash in the file: it was edited or damaged. {_REMAKE}.")
    if sha256 not in (None, given.sha256):
        raise DataError(f"{path}: is the split of another run than the run.json beside it. {_REMAKE}.")
    base = root or Path(content["root"])
    split = Split(**{part: tuple(_pair_from_json(entry, base, legends) for entry in content[part]) for part in _PARTS})
    require_unique_names(str(path), [pair.name for part in _PARTS for pair in getattr(split, part)])
    _require_inside(path, split, base)
    if need_files:
        _require_files(path, split, base)
    return split


def _list_legends(split: Split) -> list[ClassLegend]:
    """Return the legends of a split's class maps, each once."""
    pairs = [pair for part in _PARTS for pair in getattr(split, part)]
    return list(dict.fromkeys(pair.classes.legend for pair in pairs if pair.classes is not None))


def _pair_to_json(pair: PairFiles, root: Path, legends: list[ClassLegend]) -> dict[str, Any]:
    """Return a pair as JSON values, with paths relative to the root."""

    def to_json(file: Path | None) -> str | None:
        return None if file is None else Path(os.path.relpath(resolve_links(file), root)).as_posix()

    entry: dict[str, Any] = {"name": pair.name}
    entry |= {key: to_json(getattr(pair, key)) for key in ("before", "after", "label")}
    entry["window_px"] = pair.window_px and list(pair.window_px)
    if (classes := pair.classes) is not None:
        files = {"before": to_json(classes.before), "after": to_json(classes.after)}
        entry["classes"] = {"legend": legends.index(classes.legend), **files, "give_change": classes.give_change}
    return entry


def _pair_from_json(entry: Mapping[str, Any], root: Path, legends: list[ClassLegend]) -> PairFiles:
    """Return the pair of an entry, whose form was checked."""
    label, window = entry["label"], entry["window_px"]
    classes = None
    if (given := entry.get("classes")) is not None:
        before, after = (root / given[date] if given[date] else None for date in ("before", "after"))
        classes = ClassFiles(legends[given["legend"]], before, after, given["give_change"])
    return PairFiles(
        entry["name"],
        root / entry["before"],
        root / entry["after"],
        root / label if label else None,
        tuple(window) if window else None,
        classes,
    )


def _list_files(pairs: Iterable[PairFiles]) -> set[Path]:
    """Return all files of some pairs."""
    each = ((pair.before, pair.after, pair.label, *(pair.classes.files if pair.classes else ())) for pair in pairs)
    return {file for files in each for file in files if file is not None}


def _normalise(path: Path) -> Path:
    """Return an absolute path without `..`; links in it stay."""
    return Path(os.path.normpath(path.absolute()))


def _require_inside(path: Path, split: Split, root: Path) -> None:
    """Raise if a file is outside of the folder of the data and of what the links in this folder lead to."""
    home = _normalise(root)
    files = _list_files((*split.labelled, *split.val, *split.test))
    outside = sorted(file for file in files if not _normalise(file).is_relative_to(home))
    if not outside:
        return
    entries = [entry for level in ("*", "*/*") for entry in root.glob(level)]
    homes = [resolve_links(home), *(resolve_links(entry) for entry in entries if entry.is_symlink())]
    for file in outside:
        if not any(resolve_links(file).is_relative_to(one) for one in homes):
            raise DataError(
                f"{path}: {file} lies outside of the folder of the data ({root}). Give the folder that holds all of the"
                " data as root, or make the split again."
            )


def _require_files(path: Path, split: Split, root: Path) -> None:
    """Raise if files of the split are missing."""
    files = _list_files(pair for part in _PARTS for pair in getattr(split, part))
    missing = sorted(file for file in files if not is_file(file))
    if missing:
        raise DataError(
            f"{path}: {len(missing)} of {len(files)} files do not exist, e.g. {shorten_path(missing[0])}."
            f" Give the present folder of the data as root (it was {root})."
        )
