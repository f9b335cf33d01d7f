"""Lists of pair names in text files, as data sets publish their subsets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from semicdvl.data.change_dataset import SUBSETS, require_unique_names
from semicdvl.data.images.files import IMAGE_SUFFIXES
from semicdvl.errors import DataError, InputError
from semicdvl.text_files import read_text_file

_FIRST_FILE = re.compile(rf"(.+?(?:{'|'.join(map(re.escape, IMAGE_SUFFIXES))}))(?:[\s,;]|$)", re.IGNORECASE)
"""The first file of a line, with its suffix; a name may hold blanks."""


def read_name_list(path: Path) -> tuple[str, ...]:
    """Return the pair names of a text file, one a line; of several files or words in a line the first counts.

    A name may hold blanks if it ends in an image suffix (`tile 01.png`), or if the first words alone would not tell the
    lines apart. Folders and image suffixes are dropped (`A/train_1_1.png` -> `train_1_1`), empty lines are skipped.

    Raises:
        InputError: the file cannot be read.
        DataError: it is empty or names a pair twice.
    """
    try:
        lines = read_text_file(path).splitlines()
    except InputError as error:
        raise InputError(path, f"is not a list that can be read: it {error.problem}", error.remedy) from error
    names = tuple(_parse_names(lines))
    if len(set(names)) < len(names):
        whole = tuple(_parse_names(lines, whole_lines=True))
        names = whole if len(set(whole)) == len(whole) else names
    if not names:
        raise DataError(f"{path}: is an empty list. Put one file name on each line.")
    require_unique_names(str(path), names)
    return names


def _parse_names(lines: Iterable[str], *, whole_lines: bool = False) -> Iterator[str]:
    """Yield the pair name of each line that has one."""
    for line in lines:
        if text := line.strip():
            first_file = _FIRST_FILE.match(text)
            first = first_file[1] if first_file else text if whole_lines else text.split()[0]
            file = PurePosixPath(first.replace("\\", "/"))
            yield file.stem if file.suffix.lower() in IMAGE_SUFFIXES else file.name


def read_subset_lists(root: Path) -> dict[str, tuple[str, ...]]:
    """Return the names of train, val and test by `root/list/*.txt`, or else by `root/*.txt`; empty without lists.

    Raises:
        InputError: a list cannot be read.
        DataError: a list is empty or names a pair twice.
    """
    for folder in (root / "list", root):
        paths = {subset: folder / f"{subset}.txt" for subset in SUBSETS}
        if any(path.is_file() for path in paths.values()):
            return {subset: read_name_list(path) for subset, path in paths.items() if path.is_file()}
    return {}
