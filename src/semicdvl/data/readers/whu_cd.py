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

from semicdvl.data.change_dataset import SUBSETS, ChangeDataset
from semicdvl.data.images.reading import read_image_size
from semicdvl.data.name_lists import read_subset_lists
from semicdvl.data.pair_checks import check_all_pair_files
from semicdvl.data.publication import Publication
from semicdvl.data.readers.folder import find_date_folders, read_folder
from semicdvl.errors import InputError
from semicdvl.types import PairFiles

PATCH_PX = 256
PATCHES_PER_ROW = 126
"""Whole patches of 256 px in a row of the mosaic, 32507 px wide (and 59 rows of them: 7434)."""
_DATE_WORDS = {"before": ("before", "2012"), "after": ("after", "2016")}
_PATCH_NAME_PATTERN = re.compile(r"^whucd_(\d+)$")


def read_whu_cd(root: Path | str) -> ChangeDataset:
    """Read the pairs of WHU-CD, with the subsets of the lists in `root` or `root/list`.

    Args:
        root: folder with A/ B/ label/ (or one such folder per subset) and train.txt, val.txt, test.txt; or with the
            mosaics `before*.tif`, `after*.tif` and `*label*.tif`, also in folders below.

    Raises:
        InputError: as in `folder.read_folder`; or the mosaics differ in size, or one of them is missing.
        DataError: as in `folder.read_folder`; or the mosaics hold no whole patch.
    """
    root = Path(root)
    mosaics = None if _has_patches(root) else find_mosaics(root)
    if mosaics is None:
        return read_folder(root, name="whu_cd")
    return ChangeDataset("whu_cd", tuple(_cut_mosaics(mosaics)), read_subset_lists(root))


def _has_patches(root: Path) -> bool:
    """Tell whether a folder holds patches in one of the usual layouts, and not before/before.tif, after/after.tif."""
    dates = [find_date_folders(folder) for folder in (root, *(root / subset for subset in SUBSETS))]
    stems = [[{path.stem for path in date.iterdir()} for date in pair] for pair in dates if pair is not None]
    return any(before & after for before, after in stems)


# ------------------------------------------------------------------------------------------------ mosaics
def find_mosaics(root: Path) -> PairFiles | None:
    """Return the mosaics of both dates and their label below `root`, or None if there are none.

    Raises:
        InputError: one of the three is missing or there are several of a kind.
    """
    paths = sorted(path for path in root.rglob("*.tif") if not path.name.startswith("."))
    if not paths:
        return None
    kinds: dict[str, list[Path]] = {"before": [], "after": [], "label": []}
    for path in paths:
        if (kind := _find_mosaic_kind(path)) is not None:
            kinds[kind].append(path)
    for kind, candidates in kinds.items():
        if len(candidates) != 1:
            some = ", ".join(path.name for path in candidates[:3]) or "none"
            remedy = "Give a folder with before.tif, after.tif and change_label.tif, or with A, B and label"
            raise InputError(root, f"holds {len(candidates)} mosaics that could be '{kind}' ({some}), not one", remedy)
    return PairFiles("mosaic", kinds["before"][0], kinds["after"][0], kinds["label"][0])


def _find_mosaic_kind(path: Path) -> str | None:
    """Return before, after or label by the words of a file's name; None for another raster, such as a date's label."""
    date = next((date for date, words in _DATE_WORDS.items() if any(word in path.stem for word in words)), None)
    if "label" in path.stem:
        return "label" if date is None else None
    return date


def _cut_mosaics(mosaics: PairFiles) -> Iterator[PairFiles]:
    """Yield the patches of the mosaics."""
    check_all_pair_files([mosaics], read_masks=False)
    height, width = read_image_size(mosaics.before)
    columns = width // PATCH_PX
    for index in range(height // PATCH_PX * columns):
        window_px = (index // columns * PATCH_PX, index % columns * PATCH_PX, PATCH_PX, PATCH_PX)
        yield PairFiles(f"whucd_{index + 1:05d}", mosaics.before, mosaics.after, mosaics.label, window_px)


# ------------------------------------------------------------------------------------------------ names
def list_borders(name: str) -> frozenset[str]:
    """Return the borders to the patch before and after, by number: two patches with a common one are neighbours."""
    match = _PATCH_NAME_PATTERN.match(name)
    if match is None:
        return frozenset()
    number = int(match[1])
    return frozenset({f"whucd_{number - 1}|{number}", f"whucd_{number}|{number + 1}"})


def find_mosaic_strip(name: str) -> str | None:
    """Return the strip of consecutive patches that a patch belongs to, or None for another kind of name."""
    match = _PATCH_NAME_PATTERN.match(name)
    return f"whucd_strip_{(int(match[1]) - 1) // PATCHES_PER_ROW}" if match else None


PUBLICATION = Publication(
    find_tile=find_mosaic_strip,
    list_ground_keys=list_borders,
    recipe_prefix="whu",
    cut_note="Patches are numbered row by row; compare one or two with the origin of a list before you use it.",
    lists={
        "train": (5947, "3b97b8e3b84e97a5"),
        "val": (743, "fb68878dc5e5d482"),
        "test": (744, "d5e0b2cdf214a790"),
        "5%/labeled": (297, "2229e12b8c92cdee"),
        "5%/unlabeled": (5650, "115e0f435c03b37b"),
        "10%/labeled": (594, "4010acd7b87ae59c"),
        "10%/unlabeled": (5353, "110f0fe75cc11394"),
        "20%/labeled": (1189, "10bbaad342e9cd50"),
        "20%/unlabeled": (4758, "17974074c49547d3"),
        "40%/labeled": (2378, "59186565164102dc"),
        "40%/unlabeled": (3569, "dc1376befc00fa70"),
    },
)
"""The lists are those that UniMatch and SemiCD-VL publish, which are the same; counted and hashed from their files."""
