"""A folder of pairs: `A/ B/ label/` with lists or with one folder per subset.

    ROOT/A ROOT/B ROOT/label                                   one file per pair in each
    ROOT/list/train.txt val.txt test.txt  (or ROOT/train.txt)  names of the subsets, with or without suffix
    ROOT/train/A ROOT/train/B ROOT/train/label, ROOT/val/...   the other usual way

The file name without suffix is the pair's name, so a JPEG may have a PNG label. Labels are optional, each by itself.
Date folders may also be called t1/t2, im1/im2, before/after, pre/post and so on (`DATE_FOLDERS`).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from semicdvl.data.images import IMAGE_SUFFIXES
from semicdvl.data.pairs import SUBSETS, ChangeDataset, require_unique_names
from semicdvl.errors import DataError, InputError
from semicdvl.types import PairFiles

DATE_FOLDERS = (
    ("A", "B"),
    ("t1", "t2"),
    ("T1", "T2"),
    ("im1", "im2"),
    ("time1", "time2"),
    ("before", "after"),
    ("pre", "post"),
)
LABEL_FOLDERS = ("label", "labels", "Label", "mask", "masks", "gt", "GT", "change", "OUT")


def read_folder(root: Path | str, *, name: str | None = None) -> ChangeDataset:
    """Return the pairs below `root`.

    Args:
        root: folder in one of the two layouts above.
        name: of the data set; the folder's name if not given.

    Raises:
        InputError: `root` is no folder or has no date folders.
        DataError: the dates hold different files, no label fits an image, or a list names pairs that have no files.
    """
    root = Path(root)
    name = name or root.resolve().name
    if not root.is_dir():
        raise InputError(root, "is no folder", "Give the folder that holds A, B and label")
    below = {subset: root / subset for subset in SUBSETS if find_date_folders(root / subset) is not None}
    if below and find_date_folders(root) is None:
        return _read_subfolders(name, below)
    pairs = list_pairs(root)
    return ChangeDataset(name, pairs, read_subset_lists(root))


def _read_subfolders(name: str, below: dict[str, Path]) -> ChangeDataset:
    """Read one folder per subset; names that occur in two of them get the subset in front."""
    found = {subset: list_pairs(folder) for subset, folder in below.items()}
    names = [pair.name for pairs in found.values() for pair in pairs]
    prefixed = len(set(names)) < len(names)
    if prefixed:
        found = {
            subset: tuple(PairFiles(f"{subset}_{pair.name}", pair.before, pair.after, pair.label) for pair in pairs)
            for subset, pairs in found.items()
        }
    subsets = {subset: tuple(pair.name for pair in pairs) for subset, pairs in found.items()}
    return ChangeDataset(name, tuple(pair for pairs in found.values() for pair in pairs), subsets)


# ------------------------------------------------------------------------------------------------ files
def find_date_folders(root: Path) -> tuple[Path, Path] | None:
    """Return the folders of date 1 and date 2, or None."""
    for before, after in DATE_FOLDERS:
        if (root / before).is_dir() and (root / after).is_dir():
            return root / before, root / after
    return None


def list_pairs(root: Path) -> tuple[PairFiles, ...]:
    """Return the pairs of one folder with two date folders and, perhaps, a label folder, by name.

    Raises:
        InputError: there are no date folders.
        DataError: the dates hold different files, or no label fits an image.
    """
    dates = find_date_folders(root)
    if dates is None:
        known = ", ".join("/".join(names) for names in DATE_FOLDERS)
        raise InputError(root, f"has no pair of date folders ({known})", "Put the first dates in A, the second in B")
    before, after = _list_images(dates[0]), _list_images(dates[1])
    if lonely := sorted(before.keys() ^ after.keys()):
        raise DataError(
            f"{root}: {len(lonely)} images are in only one of {dates[0].name} and {dates[1].name}, e.g. '{lonely[0]}'."
            " Both dates of a pair need the same file name (the suffix may differ)."
        )
    folder = next((root / label for label in LABEL_FOLDERS if (root / label).is_dir()), None)
    labels = _list_images(folder) if folder else {}
    if folder and labels and not labels.keys() & before.keys():
        raise DataError(
            f"{folder}: none of its {len(labels)} labels has the name of an image, e.g. '{min(labels)}' where"
            f" '{min(before, default='nothing')}' is wanted. Name each label like its images."
        )
    return tuple(PairFiles(stem, before[stem], after[stem], labels.get(stem)) for stem in sorted(before))


def _list_images(folder: Path) -> dict[str, Path]:
    """Return the images of a folder by key: the stem, less the folder's own name at its end (`0_pre` in `pre/`)."""
    files = sorted(
        path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )
    ending = f"_{folder.name}".lower()
    strip = bool(files) and all(path.stem.lower().endswith(ending) for path in files)
    keys = [path.stem[: -len(ending)] if strip else path.stem for path in files]
    require_unique_names(str(folder), keys)
    return dict(zip(keys, files, strict=True))


# ------------------------------------------------------------------------------------------------ lists
def read_subset_lists(root: Path) -> dict[str, tuple[str, ...]]:
    """Return the subsets that `root/list/*.txt`, or else `root/*.txt`, name: train, val, test."""
    for folder in (root / "list", root):
        found = {subset: folder / f"{subset}.txt" for subset in SUBSETS if (folder / f"{subset}.txt").is_file()}
        if found:
            return {subset: read_name_list(path) for subset, path in found.items()}
    return {}


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
        raise InputError(path, "is no list that can be read", "Give a text file with one file name a line") from error
    names = tuple(parse_names(lines))
    if not names:
        raise DataError(f"{path}: an empty list. Put one file name on each line.")
    require_unique_names(str(path), names)
    return names


def parse_names(lines: Iterable[str]) -> Iterable[str]:
    """Yield the pair name of each line that has one."""
    for line in lines:
        if words := line.split():
            file = PurePosixPath(words[0].replace("\\", "/"))
            yield file.stem if file.suffix.lower() in IMAGE_SUFFIXES else file.name
