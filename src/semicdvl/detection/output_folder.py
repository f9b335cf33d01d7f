"""The output folder of a detection: its files, and how an earlier result is replaced without losing anything else."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from semicdvl.atomic_files import read_json
from semicdvl.errors import InputError, OutputError
from semicdvl.raster.vector.formats import VECTOR_FORMATS

DETECTION_FORMAT = "semicdvl-detect"
"""What run.json names as its format."""
OUTPUT_FILES = ("change.tif", "score.tif", "t1.tif", "t2.tif", "changes.gpkg", "changes.qml", "report.html", "run.json")
EXTRA_OUTPUT_FILES = tuple(f"changes.{name}" for name in VECTOR_FORMATS if name != "gpkg")
"""The polygons in further formats, where the settings name some."""
EVALUATION_FILES = ("evaluation.json", "evaluation.gpkg", "suggest.gpkg", "suggest.html")
"""What `evaluate` and `suggest` add; it is replaced with the map it belongs to. A sample with answers in it stays."""


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
    foreign = [name for name in entries if not _is_output(name)]
    if not foreign and not is_detection(out):
        foreign = entries
    if foreign:
        listed = ", ".join(foreign[:4]) + (", ..." if len(foreign) > 4 else "")
        raise OutputError(
            f"{out}: holds files that no earlier `detect` wrote ({listed}). "
            "Give a new folder, or --overwrite to put the results beside them."
        )


def _is_output(name: str) -> bool:
    """Tell whether a file is an output, an evaluation of it, or what a GIS leaves beside one."""
    known = OUTPUT_FILES + EXTRA_OUTPUT_FILES + EVALUATION_FILES
    return name in known or any(name.startswith(f"{file}.aux") or name.startswith(f"{file}-") for file in known)


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
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(path, folder / path.name, copy_function=_link_or_copy, symlinks=True)
        elif not _is_output(path.name):
            _link_or_copy(str(path), str(folder / path.name))


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)
