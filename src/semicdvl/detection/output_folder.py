"""The output folder of a detection, and the work folder hidden beside it, from which an interrupted run is resumed.

    .OUT.partial/manifest.json    the key of the run and its ingredients
    .OUT.partial/tiles/           the score maps of the finished rows of tiles (`tiles.score_store.ScoreStore`)
    .OUT.partial/result/          becomes OUT; every run starts it again
    .OUT.lock                     held by the run that is working here (`outputs.locks`)

The key is a hash of everything that the score maps depend on: the bytes of the images, the grid, how they are read, the
tiles, the detector. A run with another key starts from the beginning. OUT itself is not touched before the end, where
the result replaces an earlier one without losing anything else.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semicdvl.atomic_files import hash_values, write_json
from semicdvl.errors import InputError, OutputError, SemicdvlError, WorkerError
from semicdvl.outputs.exchange import TEMPORARY_PREFIX, replace_folder
from semicdvl.outputs.locks import lock_output
from semicdvl.outputs.messages import make_output_error
from semicdvl.raster.vector.formats import VECTOR_FORMATS
from semicdvl.reading.json_files import read_json

WORK_FOLDER_FORMAT = "semicdvl-partial-2"
MANIFEST_FILE = "manifest.json"

DETECTION_FORMAT = "semicdvl-detect"
"""What run.json names as its format."""
OUTPUT_FILES = (
    *("change.tif", "score.tif", "t1.tif", "t2.tif", "changes.gpkg", "report.html", "run.json"),
    *("change.qml", "score.qml", "t1.qml", "t2.qml", "changes.qml"),
    *("change.tif.aux.xml", "t1.tif.aux.xml", "t2.tif.aux.xml"),
)
EXTRA_OUTPUT_FILES = tuple(f"changes.{name}" for name in VECTOR_FORMATS if name != "gpkg")
"""The polygons in further formats, where the settings name some."""
EVALUATION_FILES = ("evaluation.json", "evaluation.gpkg", "evaluation.qml", "suggest.gpkg", "suggest.html")
"""What `evaluate` and `suggest` add; it is replaced with the map it belongs to. A sample with answers in it stays."""
REVIEW_FILES = ("review.sqlite", "reviewed.gpkg", "reviewed.qml", "review.json", "labels", "reviewed-patches")
"""What a person made of a result in the review page; another run into the same folder leaves it there."""


def check_output_folder(out: Path, *, overwrite: bool) -> None:
    """Make sure that replacing `out` loses nothing but an earlier result.

    Raises:
        OutputError: `out` is a file, or a folder that holds other files.
    """
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: is a file, but a folder is needed for the results. Give another name with -o.")
    entries = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    if not entries or overwrite:
        return
    foreign = [name for name in entries if not _is_output(name) and not _is_review(name)]
    if not foreign and not is_detection(out):
        foreign = entries
    if foreign:
        listed = ", ".join(foreign[:4]) + (", ..." if len(foreign) > 4 else "")
        raise OutputError(
            f"{out}: holds files that no earlier `detect` wrote ({listed}). "
            "Give a new folder, or --overwrite to put the results beside them."
        )


def _is_output(name: str) -> bool:
    """Tell whether a file is an output, an evaluation of it, or what a GIS or a killed process leaves beside one."""
    if name.startswith(TEMPORARY_PREFIX):
        return True
    known = OUTPUT_FILES + EXTRA_OUTPUT_FILES + EVALUATION_FILES
    return name in known or any(name.startswith(f"{file}.aux") or name.startswith(f"{file}-") for file in known)


def _is_review(name: str) -> bool:
    """Tell whether a file is the work of a person, or what SQLite or a GIS leaves beside it."""
    return name in REVIEW_FILES or any(name.startswith(f"{file}-") for file in REVIEW_FILES)


def is_detection(out: Path) -> bool:
    """Tell whether a folder holds the run.json of an earlier detection."""
    try:
        record = read_json(out / "run.json", remedy="")
    except InputError:
        return False
    return isinstance(record, dict) and record.get("format") == DETECTION_FORMAT


def carry_over_other_files(out: Path, folder: Path) -> None:
    """Bring files that are no outputs from the old folder into the new one, as hard links where the disk has them."""
    if not out.is_dir():
        return
    for path in out.iterdir():
        if path.name.startswith(TEMPORARY_PREFIX):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(path, folder / path.name, copy_function=_link_or_copy, symlinks=True)
        elif not _is_output(path.name):
            _link_or_copy(str(path), str(folder / path.name))


def _link_or_copy(source: str, target: str) -> None:
    """Give a file a second name; copy it where the file system has no hard links."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


@dataclass(frozen=True)
class WorkFolder:
    """The folders of an unfinished run: `tiles` survives an interruption, `result` becomes the output folder."""

    tiles: Path
    result: Path


@contextlib.contextmanager
def open_work_folder(out: Path, parts: Mapping[str, Any]) -> Iterator[WorkFolder]:
    """Give the folders of a run; at the end of the `with`, `result` replaces `out` and the rest is deleted.

    After an interruption (Ctrl-C, a kill, a crash, a dead worker) the finished tiles are kept for the next run with the
    same `parts`. After an error that the user must correct (`SemicdvlError`, a full disk) nothing is kept.

    Args:
        out: the output folder, an absolute path.
        parts: the ingredients of the score maps, as plain values.

    Raises:
        OutputError: the folder cannot be written, or another run is using it.
    """
    folder = out.parent / f".{out.name}.partial"
    with lock_output(out):
        if folder.is_symlink():
            raise OutputError(f"{folder}: is a link, and what it leads to would be emptied. Delete it, or change -o.")
        try:
            folder.mkdir(exist_ok=True)
            yield _prepare_folder(folder, parts)
            replace_folder(folder / "result", out)
            shutil.rmtree(folder)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise make_output_error(out, error) from error
        except BaseException as error:
            if isinstance(error, SemicdvlError) and not isinstance(error, WorkerError):
                shutil.rmtree(folder, ignore_errors=True)
                raise
            shutil.rmtree(folder / "result", ignore_errors=True)
            if not any((folder / "tiles").glob("*.json")):
                shutil.rmtree(folder, ignore_errors=True)
            raise


def sweep_work_folder(out: Path) -> None:
    """Remove what is left of the run that made a finished result, where it was killed between its last steps."""
    folder = out.parent / f".{out.name}.partial"
    if folder.is_dir() or (out.parent / f".{out.name}.lock").exists():
        with contextlib.suppress(OutputError), lock_output(out):  # somebody else is at work on it
            shutil.rmtree(folder, ignore_errors=True)


def _prepare_folder(folder: Path, parts: Mapping[str, Any]) -> WorkFolder:
    """Keep the tiles of a run with the same key; otherwise start from the beginning."""
    partial, key = WorkFolder(folder / "tiles", folder / "result"), hash_values(WORK_FOLDER_FORMAT, dict(parts))
    if _read_key(folder) != key:
        shutil.rmtree(partial.tiles, ignore_errors=True)
        partial.tiles.mkdir()
        write_json(folder / MANIFEST_FILE, {"format": WORK_FOLDER_FORMAT, "key": key, "parts": dict(parts)})
    shutil.rmtree(partial.result, ignore_errors=True)
    partial.result.mkdir()
    return partial


def _read_key(folder: Path) -> str | None:
    """Return the key of the run that left the folder; None if it is not known."""
    if not (folder / "tiles").is_dir():
        return None
    try:
        manifest = read_json(folder / MANIFEST_FILE, remedy="")
    except InputError:
        return None
    return manifest.get("key") if isinstance(manifest, dict) else None
