"""The served folder: a result of `detect`, or a folder of many results, and nothing outside of it.

A request names a pair by a name of the list that is made here; no path is ever built from a request.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from semicdvl.detection.batch.outcomes import RECORD_FILE, read_batch_record
from semicdvl.detection.output_folder import is_detection
from semicdvl.errors import InputError
from semicdvl.reading.json_files import read_json
from semicdvl.reading.regular_files import resolve_links

MAX_PAIRS = 10_000
RESULT_FILES = ("change.tif", "score.tif", "changes.gpkg", "run.json", "suggest.gpkg", "review.sqlite")
"""What is read of a result, or written to; where one is a symbolic link, it must not lead out of the served folder."""


class _Image(BaseModel):
    """What run.json says of one image."""

    model_config = ConfigDict(extra="ignore", strict=True)
    path: Annotated[str, Field(min_length=1, max_length=100_000)]
    bytes: int | None = None


class _Inputs(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)
    before: _Image
    after: _Image


class _Grid(BaseModel):
    model_config = ConfigDict(extra="ignore")
    gsd_m: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None


class _Alignment(BaseModel):
    model_config = ConfigDict(extra="ignore")
    moved_px: tuple[float, float] | None = None
    offsets_px: list[Any] | None = None


class _Detector(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)
    name: Annotated[str, Field(max_length=1000)] = "unknown"
    looked_for: Annotated[str, Field(alias="Looked for", max_length=100_000)] = ""
    against: Annotated[str, Field(alias="Against", max_length=100_000)] = ""


class _Result(BaseModel):
    model_config = ConfigDict(extra="ignore")
    objects: Annotated[int, Field(ge=0)] | None = None


class _LeftOut(BaseModel):
    model_config = ConfigDict(extra="ignore")
    by_default: bool = True


class RunFacts(BaseModel):
    """What the review needs of a run.json; a file of somebody else may hold anything."""

    model_config = ConfigDict(extra="ignore")
    key: Annotated[str, Field(max_length=200)] = ""
    inputs: _Inputs
    grid: _Grid = _Grid()
    alignment: _Alignment = _Alignment()
    detector: _Detector = _Detector()
    result: _Result = _Result()
    settings: dict[str, Any] = {}
    left_out: _LeftOut = _LeftOut()
    classes: Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=250)] = []
    warnings: Annotated[list[Annotated[str, Field(max_length=5000)]], Field(max_length=200)] = []

    @property
    def given_settings(self) -> dict[str, Any]:
        """The settings without a least area that nobody asked for."""
        usual = {"min_area_m2"} if self.left_out.by_default else set()
        return {name: value for name, value in self.settings.items() if name not in usual}


@dataclass(frozen=True)
class ServedPair:
    """A result of `detect` that is served.

    Attributes:
        name: how requests call it.
        folder: of the result.
        facts: what its run.json says.
        failure: why it cannot be shown; None where it can.
    """

    name: str
    folder: Path
    facts: RunFacts | None
    failure: str | None = None


def find_pairs(root: Path) -> Mapping[str, ServedPair]:
    """Return the results in a folder by name: the folder itself, or the results that lie directly in it.

    Args:
        root: without symbolic links.

    Raises:
        InputError: it holds no result.
    """
    if is_detection(root):
        only = _read_pair(root.name, root, root)
        if only.failure is not None:
            raise InputError(root, f"cannot be shown: {only.failure.rstrip('.')}", "Run `semicdvl detect` again")
        return {root.name: only}
    folders = [path for path in sorted(root.iterdir()) if not path.name.startswith(".") and path.is_dir()]
    found = {path.name: _read_pair(path.name, path, root) for path in folders[:MAX_PAIRS] if is_detection(path)}
    found |= {
        name: ServedPair(name, root / "unused", None, reason)
        for name, reason in _list_failed(root)
        if name not in found
    }
    if not any(pair.failure is None for pair in found.values()):
        reasons = "; ".join(f"{pair.name}: {pair.failure}" for pair in list(found.values())[:3])
        problem = f"holds no result of `detect`{f' that can be shown ({reasons})' if reasons else ''}"
        raise InputError(root, problem, "Give a folder that `semicdvl detect` wrote, or one that holds such folders")
    return found


def _read_pair(name: str, folder: Path, root: Path) -> ServedPair:
    """Read the record of a result."""
    try:
        check_inside(folder, root)
        record = read_json(folder / "run.json", remedy="Run `semicdvl detect` again")
        return ServedPair(name, folder, RunFacts.model_validate(record))
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        return ServedPair(name, folder, None, f"run.json is damaged: {where}: {error.errors()[0]['msg']}")
    except InputError as error:
        return ServedPair(name, folder, None, str(error))


def check_inside(folder: Path, root: Path) -> None:
    """Refuse a folder whose files lie outside of the served one.

    Raises:
        InputError: a symbolic link leads out.
    """
    for path in (folder, *(folder / name for name in RESULT_FILES)):
        if not resolve_links(path).is_relative_to(root):
            raise InputError(path, "is a symbolic link that leads out of the served folder", "Copy the file into it")


def _list_failed(root: Path) -> list[tuple[str, str]]:
    """Return the pairs of `detect --pairs` that failed, with the reason; a damaged record is listed like one."""
    if not os.path.lexists(root / RECORD_FILE):
        return []
    try:
        failed = [pair for pair in read_batch_record(root).pairs if pair.state == "failed"]
    except InputError as error:
        return [(RECORD_FILE, str(error))]
    return [(pair.name, str(pair.error)[:2000]) for pair in failed[:MAX_PAIRS]]
