"""The folder of a detection: an earlier result in it is replaced, and nothing else is lost."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from semicdvl.atomic_files import read_json
from semicdvl.detection.results import DETECTION_FORMAT, EVALUATION_FILES, EXTRA_OUTPUT_FILES, OUTPUT_FILES
from semicdvl.errors import InputError, OutputError


def check_output_folder(out: Path, *, overwrite: bool) -> None:
    """Make sure that replacing `out` loses nothing but an earlier result."""
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: is a file, wanted a folder for the results. Give another name with -o.")
    entries = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    if not entries or overwrite:
        return
    foreign = [name for name in entries if not _is_output(name)]
    if not foreign and (not (out / "run.json").is_file() or not _is_detection(out)):
        foreign = entries
    if foreign:
        listed = ", ".join(foreign[:4]) + (", ..." if len(foreign) > 4 else "")
        raise OutputError(
            f"{out}: holds what no earlier `detect` wrote ({listed}). "
            "Give a new folder, or --overwrite to put the results beside it."
        )


def _is_output(name: str) -> bool:
    """Tell whether a file is an output, an evaluation of it, or what a GIS leaves beside one."""
    ours = OUTPUT_FILES + EXTRA_OUTPUT_FILES + EVALUATION_FILES
    return name in ours or any(name.startswith(f"{own}.aux") or name.startswith(f"{own}-") for own in ours)


def _is_detection(out: Path) -> bool:
    """Tell whether the folder's run.json is that of an earlier detection."""
    try:
        record = read_json(out / "run.json", remedy="")
    except InputError:
        return False
    return isinstance(record, dict) and record.get("format") == DETECTION_FORMAT


def carry_over_other_files(out: Path, folder: Path) -> None:
    """Bring what is not ours from the old folder into the new one, as links where the disk can, so nothing is lost."""
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
