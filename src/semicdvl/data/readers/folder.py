"""A folder of pairs: `A/ B/ label/` with lists or with one folder per subset.

    ROOT/A ROOT/B ROOT/label                                   one file per pair in each
    ROOT/list/train.txt val.txt test.txt  (or ROOT/train.txt)  names of the subsets, with or without suffix
    ROOT/train/A ROOT/train/B ROOT/train/label, ROOT/val/...   or one such folder per subset
    ROOT/label_A ROOT/label_B ROOT/classes.toml                the classes of the ground at each date (data.labels)

The file name without suffix is the pair's name, so a JPEG may have a PNG label. Each label is optional, one by one.
Date folders may also be called t1/t2, im1/im2, before/after, pre/post and so on (`DATE_FOLDERS`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from semicdvl.data.change_dataset import SUBSETS, ChangeDataset, require_unique_names
from semicdvl.data.images.files import IMAGE_SUFFIXES
from semicdvl.data.labels.classes import LEGEND_FILE, read_legend
from semicdvl.data.name_lists import read_subset_lists
from semicdvl.errors import DataError, InputError
from semicdvl.reading.folder_kinds import describe_folder
from semicdvl.reading.regular_files import resolve_links
from semicdvl.types import ClassFiles, PairFiles

DATE_FOLDERS = (
    ("A", "B"),
    ("t1", "t2"),
    ("T1", "T2"),
    ("im1", "im2"),
    ("time1", "time2"),
    ("Image1", "Image2"),
    ("before", "after"),
    ("pre", "post"),
)
LABEL_FOLDERS = ("label", "labels", "Label", "mask", "masks", "gt", "GT", "change", "OUT")

CLASS_FOLDERS = ("label_A", "label_B")
"""Folders with the classes of each date."""


def read_folder(root: Path | str, *, name: str | None = None) -> ChangeDataset:
    """Read the pairs below a folder.

    Args:
        root: folder in one of the two layouts above.
        name: of the data set; the folder's name if not given.

    Raises:
        InputError: `root` is not a folder or has no date folders; or label_A, label_B and classes.toml are not
            together, or the latter is not of its form.
        ConfigError: classes.toml does not tell the classes apart.
        DataError: the dates hold different files, no label fits an image, or a list names pairs that have no files.
    """
    root = Path(root)
    name = name or resolve_links(root).name
    if not root.is_dir():
        raise InputError(root, "is not a folder", "Give the folder that holds A, B and label")
    folders = {subset: root / subset for subset in SUBSETS if find_date_folders(root / subset) is not None}
    if folders and find_date_folders(root) is None:
        return _read_subset_folders(name, folders)
    return ChangeDataset(name, list_pairs(root), read_subset_lists(root))


def _read_subset_folders(name: str, folders: dict[str, Path]) -> ChangeDataset:
    """Read one folder per subset; if a name occurs in two of them, all names get the subset as prefix."""
    pairs = {subset: list_pairs(folder, above=folder.parent) for subset, folder in folders.items()}
    names = [pair.name for members in pairs.values() for pair in members]
    if len(set(names)) < len(names):
        pairs = {
            subset: tuple(replace(pair, name=f"{subset}_{pair.name}") for pair in members)
            for subset, members in pairs.items()
        }
    subsets = {subset: tuple(pair.name for pair in members) for subset, members in pairs.items()}
    return ChangeDataset(name, tuple(pair for members in pairs.values() for pair in members), subsets)


# ------------------------------------------------------------------------------------------------ files
def find_date_folders(root: Path) -> tuple[Path, Path] | None:
    """Return the folders of date 1 and date 2, or None."""
    for before, after in DATE_FOLDERS:
        if (root / before).is_dir() and (root / after).is_dir():
            return root / before, root / after
    return None


def list_pairs(root: Path, *, above: Path | None = None) -> tuple[PairFiles, ...]:
    """Return the pairs of one folder with two date folders and, perhaps, label folders, by name.

    Args:
        root: the folder.
        above: where classes.toml may lie, too.

    Raises:
        InputError: there are no date folders; or the classes of the dates as in `read_folder`.
        ConfigError: as in `read_folder`.
        DataError: the dates hold different files, or no label fits an image.
    """
    dates = find_date_folders(root)
    if dates is None:
        known = ", ".join("/".join(names) for names in DATE_FOLDERS)
        problem = f"is {describe_folder(root)}, not a data set: it has no pair of date folders ({known})"
        raise InputError(root, problem, "Put the first dates in A, the second in B")
    before, after = _list_images(dates[0]), _list_images(dates[1])
    if unpaired := sorted(before.keys() ^ after.keys()):
        number = f"{len(unpaired)} images are" if len(unpaired) > 1 else "1 image is"
        raise DataError(
            f"{root}: {number} in only one of {dates[0].name} and {dates[1].name}, e.g. '{unpaired[0]}'."
            " Both dates of a pair need the same file name (the suffix may differ)."
        )
    folder = next((root / label for label in LABEL_FOLDERS if (root / label).is_dir()), None)
    labels = list_labels(folder, images=before) if folder else {}
    classes = _list_classes(root, above, images=before)
    return tuple(
        PairFiles(stem, before[stem], after[stem], labels.get(stem), classes=classes.get(stem))
        for stem in sorted(before)
    )


def list_labels(folder: Path, *, images: Mapping[str, Path]) -> dict[str, Path]:
    """Return the files of a label folder by the name of their pair; none if there is no such folder.

    Raises:
        DataError: none of them has the name of an image, or two have one name.
    """
    labels = _list_images(folder) if folder.is_dir() else {}
    if labels and not labels.keys() & images.keys():
        raise DataError(
            f"{folder}: none of its {len(labels)} labels has the name of an image, e.g. '{min(labels)}' where"
            f" '{min(images, default='nothing')}' was expected. Name each label like its images."
        )
    return labels


def require_both_dates(root: Path, folders: tuple[str, str]) -> None:
    """Raise `InputError` if the classes of one date have a folder and those of the other have none."""
    there = [folder for folder in folders if (root / folder).is_dir()]
    if len(there) == 1:
        missing = folders[1 - folders.index(there[0])]
        raise InputError(
            root,
            f"has the folder {there[0]} without {missing}",
            f"Make the folder {missing}, too; single files may be missing in either",
        )


def _list_classes(root: Path, above: Path | None, *, images: Mapping[str, Path]) -> dict[str, ClassFiles]:
    """Return the class maps of the pairs that have one, by name."""
    require_both_dates(root, CLASS_FOLDERS)
    before, after = (list_labels(root / folder, images=images) for folder in CLASS_FOLDERS)
    if not before and not after:
        return {}
    places = [folder / LEGEND_FILE for folder in (root, above) if folder is not None]
    path = next((place for place in places if place.is_file()), places[0])
    if not path.is_file():
        raise InputError(
            root,
            f"has classes of each date ({' and '.join(CLASS_FOLDERS)}), but no {LEGEND_FILE} that names them",
            f'Write such as names = ["building", "road", "water"] into {path}',
        )
    legend = read_legend(path)
    return {
        stem: ClassFiles(legend, before.get(stem), after.get(stem))
        for stem in images
        if stem in before or stem in after
    }


def _list_images(folder: Path) -> dict[str, Path]:
    """Return the images of a folder by name: the stem, without the folder's name at its end (`0_pre` in `pre/`)."""
    files = sorted(
        path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )
    ending = f"_{folder.name}".lower()
    has_ending = bool(files) and all(path.stem.lower().endswith(ending) for path in files)
    names = [path.stem[: -len(ending)] if has_ending else path.stem for path in files]
    require_unique_names(str(folder), names)
    return dict(zip(names, files, strict=True))
