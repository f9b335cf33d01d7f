"""Lists of pair names in text files, as data sets publish their subsets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from semicdvl.data.change_dataset import SUBSETS, require_unique_names
from semicdvl.data.images import IMAGE_SUFFIXES
from semicdvl.errors import DataError, InputError


def read_name_list(path: Path) -> tuple[str, ...]:
    """Return the pair names of a text file, one a line; of several words in a line the first counts.

    Folders and image suffixes are dropped (`A/train_1_1.png` -> `train_1_1`), empty lines are skipped.

    Raises:
        InputError: the file cannot be read.
        DataError: it is empty or names a pair twice.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            path, "is not a list that can be read", "Give a text file with one file name per line"
        ) from error
    names = tuple(_parse_names(lines))
    if not names:
        raise DataError(f"{path}: is an empty list. Put one file name on each line.")
    require_unique_names(str(path), names)
    return names


def _parse_names(lines: Iterable[str]) -> Iterator[str]:
    """Yield the pair name of each line that has one."""
    for line in lines:
        if words := line.split():
            file = PurePosixPath(words[0].replace("\\", "/"))
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
