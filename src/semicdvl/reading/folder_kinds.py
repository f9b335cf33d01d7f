"""Name the folders that this program writes, in the messages of commands that need another one."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from semicdvl.errors import InputError
from semicdvl.reading.json_files import read_json

FOLDER, RESULT, DATA_SET = "a folder", "a result of `semicdvl detect`", "a data set"
RECORDS = {
    ("run.json", "semicdvl-run"): "a trained run",
    ("run.json", "semicdvl-detect"): RESULT,
    ("manifest.json", "semicdvl-pseudo-store"): "a pseudo-label store",
    ("pairs.json", "semicdvl-pairs"): "a list of results, as of `semicdvl detect --pairs`",
    ("adapt/adapt.json", "semicdvl-adapt"): "a run of `semicdvl adapt`",
}
"""(File of a folder, format that it names) -> what the folder is."""
CONTENTS = {
    ("A", "B"): DATA_SET,
    ("jobs", "results.csv"): "what `semicdvl benchmark` wrote",
    ("review.sqlite",): "a review",
}
"""Names in a folder without such a file -> what the folder is."""


def describe_folder(path: Path) -> str:
    """Return what a folder is: "a trained run", "a pseudo-label store", ...; "a folder" where it is none of these."""
    for (name, wanted), kind in RECORDS.items():
        with suppress(InputError, OSError):
            content = read_json(path / name, remedy="")
            if isinstance(content, dict) and content.get("format") == wanted:
                return kind
    with suppress(OSError):
        return next((kind for names, kind in CONTENTS.items() if all((path / name).exists() for name in names)), FOLDER)
    return FOLDER


def is_folder(path: Path) -> bool:
    """Tell whether a path is a folder; one that the system does not take as a name is none."""
    with suppress(OSError, ValueError):
        return path.is_dir()
    return False
