"""WHU-CD: building change in Christchurch, 2012 and 2016, 0.2 m; 7434 patches of 256 px from one mosaic.

Source: Ji, Wei and Lu 2019, "Fully Convolutional Networks for Multisource Building Extraction from an Open Aerial and
Satellite Imagery Data Set". The semi-supervised literature uses patches `whucd_00001` to `whucd_07434` in random lists
of 5947 / 743 / 744: neighbours in the mosaic are neighbours in number, and nearly every test patch has a training patch
beside it (`splits.count_leaks` counts them).

The mosaics themselves (32507 x 15354 px) are read, too: cut while reading, numbered row by row from the top left. That
this is the published numbering is an inference from the number of whole patches (126 x 59 = 7434).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from semicdvl.data.images import read_image_size
from semicdvl.data.pairs import SUBSETS, ChangeDataset, check_all_pair_files
from semicdvl.data.readers import folder
from semicdvl.errors import InputError
from semicdvl.types import PairFiles


def read_whu_cd(root: Path | str) -> ChangeDataset:
    """Return WHU-CD's pairs with the subsets of the lists in `root` or `root/list`.

    Args:
        root: folder with A/ B/ label/ (or one such folder per subset) and train.txt, val.txt, test.txt; or with the
            mosaics `before*.tif`, `after*.tif` and `*label*.tif`, also in folders below.

    Raises:
        InputError, DataError: as in `folder.read_folder`; or the mosaics differ in size or hold no whole patch.
    """
    root = Path(root)
    found = None if _has_patches(root) else find_mosaics(root)
    if found is None:
        return folder.read_folder(root, name="whu_cd")
    return ChangeDataset("whu_cd", tuple(_cut_mosaics(found)), folder.read_subset_lists(root))


def _has_patches(root: Path) -> bool:
    """Tell whether a folder holds patches in one of the usual layouts, and not before/before.tif, after/after.tif."""
    dates = [folder.find_date_folders(each) for each in (root, *(root / subset for subset in SUBSETS))]
    stems = [[{path.stem for path in date.iterdir()} for date in pair] for pair in dates if pair is not None]
    return any(first & second for first, second in stems)


# ------------------------------------------------------------------------------------------------ mosaics
def find_mosaics(root: Path) -> PairFiles | None:
    """Return the mosaics of both dates and their label below `root`, or None if there are none.

    Raises:
        InputError: one of the three is missing or there are several of a kind.
    """
    tifs = sorted(path for path in root.rglob("*.tif") if not path.name.startswith("."))
    kinds: dict[str, list[Path]] = {"before": [], "after": [], "label": []}
    for path in tifs:
        date = next((date for date, words in _DATES.items() if any(word in path.stem for word in words)), None)
        kind = "label" if "label" in path.stem and date is None else None if "label" in path.stem else date
        if kind is not None:
            kinds[kind].append(path)
    if not tifs:
        return None
    for kind, paths in kinds.items():
        if len(paths) != 1:
            some = ", ".join(path.name for path in paths[:3]) or "none"
            remedy = "Give a folder with before.tif, after.tif and change_label.tif, or with A, B and label"
            raise InputError(root, f"holds {len(paths)} mosaics that could be '{kind}' ({some}), wanted one", remedy)
    return PairFiles("mosaic", kinds["before"][0], kinds["after"][0], kinds["label"][0])


def _cut_mosaics(whole: PairFiles) -> Iterator[PairFiles]:
    """Yield the patches of the mosaics."""
    check_all_pair_files([whole], read_masks=False)
    height, width = read_image_size(whole.before)
    columns = width // _SIDE_PX
    for index in range(height // _SIDE_PX * columns):
        window = (index // columns * _SIDE_PX, index % columns * _SIDE_PX, _SIDE_PX, _SIDE_PX)
        yield PairFiles(f"whucd_{index + 1:05d}", whole.before, whole.after, whole.label, window)


# ------------------------------------------------------------------------------------------------ names


_DATES = {"before": ("before", "2012"), "after": ("after", "2016")}
_SIDE_PX = 256
_PATCH_NAME_PATTERN = re.compile(r"^whucd_(\d+)$")
_PATCHES_PER_ROW = 126
"""Whole patches of 256 px in a row of the mosaic, 32507 px wide (and 59 rows of them: 7434)."""


def find_borders(name: str) -> frozenset[str]:
    """Return the borders to the patch before and after, by number: two patches with a common one are neighbours."""
    match = _PATCH_NAME_PATTERN.match(name)
    if match is None:
        return frozenset()
    number = int(match[1])
    return frozenset({f"whucd_{number - 1}|{number}", f"whucd_{number}|{number + 1}"})


def find_mosaic_strip(name: str) -> str | None:
    """Return the strip of consecutive patches that a patch belongs to, or None for another kind of name."""
    match = _PATCH_NAME_PATTERN.match(name)
    return f"whucd_strip_{(int(match[1]) - 1) // _PATCHES_PER_ROW}" if match else None
