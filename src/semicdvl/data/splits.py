"""Which pair is used for what: a split by fraction and seed, by published lists, or across data sets.

A split by fraction is nested: with the same seed the labelled pairs of 5 % are among those of 10 %. A pair's rank comes
from a hash of its name, so the split is the same on every machine and hardly changes when pairs are added.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from semicdvl.data.change_dataset import ChangeDataset, require_unique_names
from semicdvl.data.name_lists import read_name_list
from semicdvl.data.publication import Publication, list_publications
from semicdvl.errors import DataError
from semicdvl.types import PairFiles, Split

_CROP_NAME = re.compile(
    r"(?!.*r\d{5,6}_c\d{5,6})(?P<picture>.*?[^\d_-].*?|\d+)"
    r"[_-](?:(?:row|col|r|c|x|y)?[_-]?\d+[_-](?:row|col|r|c|x|y)?[_-]?\d+"
    r"|(?:tile|patch|crop|chip)[_-]?\d+)",
    re.IGNORECASE,
)
"""`PICTURE_row_col`, also as `_r3_c4`, `_x0_y256` and `_row_0_col_256`, and `PICTURE_tile12`. Not the patches of
`prepare` (`r00000_c00256`), which keep a gap between subsets."""
_PREPARED_NAME = re.compile(r"r\d{5,6}_c\d{5,6}$")
ALL_LABELS = "100%"
"""The share of labels for which no lists are published: train.txt says it all."""
MIN_PICTURES = 3
"""Crops are divided by picture from this many pictures on: one each for training, validation and test."""


# ------------------------------------------------------------------------------------------------ by fraction
def split_by_fraction(
    dataset: ChangeDataset, *, labelled: float, seed: int, val: float = 0.1, test: float = 0.2
) -> Split:
    """Divide a data set; published subsets are kept, missing ones are drawn.

    All crops of one tile are put into the same of train, val and test, also those whose names only say so
    (`PICTURE_row_col`). The labelled pairs are drawn pair by pair, as in
    the published lists, and their number is rounded down, as there (5 % of 5947 = 297).

    Args:
        dataset: with the subsets "val" and "test" where they are published.
        labelled: share of the training pairs with a label file that keeps its label, in [0, 1]; 0: no pair does.
        seed: of the draw.
        val: share of the pairs with a label file that becomes validation, if there is no such subset.
        test: the same for test. Pairs without a label stay in training, unless their tile is drawn: then they are left
            out.

    Raises:
        DataError: a share is out of range, no labelled pair would be left, or there are too few tiles to divide.
    """
    for what, share in {"labelled": labelled, "val": val, "test": test}.items():
        if not 0 <= share <= 1:
            raise DataError(f"{dataset.name}: {what} = {share} is not a share. Give a number between 0 and 1.")
    named = {name for names in dataset.subsets.values() for name in names}
    pool = dataset.select_subset("train") if "train" in dataset.subsets else _exclude_names(dataset.pairs, named)
    with_label = sum(pair.has_label for pair in pool)
    publications = list_publications()
    tile_of = _group_crops({pair.name: _find_tile(pair, dataset.source_tiles, publications) for pair in pool})
    held_out: dict[str, tuple[PairFiles, ...]] = {}
    for subset, share in (("test", test), ("val", val)):
        if subset in dataset.subsets:
            held_out[subset] = _require_labels(dataset, dataset.select_subset(subset), subset)
        else:
            count = max(1, round(share * with_label)) if share > 0 else 0
            held_out[subset], pool = _draw_subset(dataset, pool, tile_of, count=count, key=f"{seed}:{subset}")
    kept = _draw_labelled(dataset, pool, share=labelled, seed=seed)
    return Split(kept, _exclude_names(pool, {pair.name for pair in kept}), held_out["val"], held_out["test"])


def _draw_labelled(
    dataset: ChangeDataset, pool: tuple[PairFiles, ...], *, share: float, seed: int
) -> tuple[PairFiles, ...]:
    """Draw the pairs that keep their label."""
    with_label = [pair for pair in pool if pair.has_label]
    count = math.floor(share * len(with_label) + 1e-9)
    if share > 0 and count == 0:
        remedy = (
            f"Give at least {1 / len(with_label):.4f}, or 1.0 for all"
            if with_label
            else "Add label files to some of the pairs"
        )
        raise DataError(
            f"{dataset.name}: {share:.4g} of {len(with_label)} training pairs with a label is less than one pair."
            f" {remedy}."
        )
    return tuple(sorted(with_label, key=lambda pair: _hash_rank(f"{seed}:labelled", pair.name))[:count])


def _draw_subset(
    dataset: ChangeDataset, pool: tuple[PairFiles, ...], tile_of: Mapping[str, str], *, count: int, key: str
) -> tuple[tuple[PairFiles, ...], tuple[PairFiles, ...]]:
    """Draw whole tiles for validation or test; return their labelled pairs, and the pairs of all other tiles."""
    tiles: dict[str, list[PairFiles]] = {}
    for pair in pool:
        if pair.has_label:
            tiles.setdefault(tile_of[pair.name], []).append(pair)
    remaining = sorted(tiles, key=lambda tile: _hash_rank(key, tile), reverse=True)
    drawn: list[PairFiles] = []
    drawn_tiles: set[str] = set()
    while remaining and len(drawn) < count:
        tile = remaining.pop()
        drawn_tiles.add(tile)
        drawn += tiles[tile]
    if len(drawn) < count or (drawn and not remaining):
        raise DataError(
            f"{dataset.name}: has too few pairs ({len(pool)}; tiles with labels: {len(tiles)}) to draw {count}"
            f" by whole tiles for {key.partition(':')[2]} and to keep some for training. Give smaller shares, or lists."
        )
    return tuple(drawn), tuple(pair for pair in pool if tile_of[pair.name] not in drawn_tiles)


def _hash_rank(key: str, name: str) -> bytes:
    """Return the rank of a name in the order of a key: a hash, equal on every machine."""
    return hashlib.sha256(f"{key}:{name}".encode()).digest()


def _exclude_names(pairs: Iterable[PairFiles], names: set[str]) -> tuple[PairFiles, ...]:
    """Return the pairs that are not named."""
    return tuple(pair for pair in pairs if pair.name not in names)


def _require_labels(dataset: ChangeDataset, pairs: tuple[PairFiles, ...], what: str) -> tuple[PairFiles, ...]:
    """Return the pairs, all of which must have a label file."""
    unlabelled = [pair.name for pair in pairs if not pair.has_label]
    if unlabelled:
        have = "has" if len(unlabelled) == 1 else "have"
        raise DataError(
            f"{dataset.name}: {len(unlabelled)} of {len(pairs)} {what} pairs {have} no label file, e.g."
            f" '{unlabelled[0]}'. Add the file to the label folder, or remove the pair from the list."
        )
    return pairs


# ------------------------------------------------------------------------------------------------ by published lists
@dataclass(frozen=True)
class SplitNames:
    """A split as names alone.

    Raises:
        DataError: a name occurs twice, in one list or in two.
    """

    labelled: tuple[str, ...]
    unlabelled: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse a pair that is used twice."""
        lists = vars(self)
        for what, names in lists.items():
            require_unique_names(f"list '{what}'", names)
        for first, second in [(a, b) for a in lists for b in lists if a < b]:
            if common := set(lists[first]) & set(lists[second]):
                number = f"{len(common)} names" if len(common) > 1 else "1 name"
                raise DataError(
                    f"The lists '{first}' and '{second}' have {number} in common, e.g. '{min(common)}'."
                    " A pair has one use only: remove it from one of them."
                )


def read_published_lists(folder: Path | str, *, part: str | float | None) -> SplitNames:
    """Read the published lists: `5%/labeled.txt`, `5%/unlabeled.txt`, `val.txt`, `test.txt`, and `train.txt` as check.

    Args:
        folder: holds the lists.
        part: folder of the labelled and unlabelled list ("5%", or 0.05 for it); None, or "100%" without such a folder:
            all of train.txt is labelled.

    Raises:
        InputError: a list is missing.
        DataError: a name occurs twice, or the two training lists together are not train.txt.
    """
    folder = Path(folder)
    val, test = read_name_list(folder / "val.txt"), read_name_list(folder / "test.txt")
    below = None if part is None else folder / (part if isinstance(part, str) else f"{part * 100:g}%")
    if below is None or (below.name == ALL_LABELS and not below.is_dir()):
        return SplitNames(read_name_list(folder / "train.txt"), (), val, test)
    if not below.is_dir():
        known = ", ".join(sorted(each.name for each in folder.iterdir() if each.is_dir())) or "none"
        raise DataError(f"{folder}: has no lists for '{below.name}'. Known: {known}.")
    names = SplitNames(
        read_name_list(_find_list(below, "labeled")), read_name_list(_find_list(below, "unlabeled")), val, test
    )
    if (folder / "train.txt").is_file():
        differing = set(names.labelled + names.unlabelled) ^ set(read_name_list(folder / "train.txt"))
        if differing:
            number = f"{len(differing)} names" if len(differing) > 1 else "1 name"
            raise DataError(
                f"{below}: labelled and unlabelled pairs differ from train.txt in {number}, e.g. '{min(differing)}'."
                " Use the lists of one source."
            )
    return names


def _find_list(folder: Path, stem: str) -> Path:
    """Return the list under its published, American name, or the British one."""
    british = folder / f"{stem.replace('labeled', 'labelled')}.txt"
    return british if british.is_file() else folder / f"{stem}.txt"


def select_split(dataset: ChangeDataset, names: SplitNames) -> Split:
    """Return the split of these names.

    Raises:
        DataError: a name is not in the data set, or a labelled, validation or test pair has no label file.
    """
    pairs = {what: dataset.select_pairs(listed, what=f"list '{what}'") for what, listed in vars(names).items()}
    for what in ("labelled", "val", "test"):
        _require_labels(dataset, pairs[what], what)
    return Split(**pairs)


# ------------------------------------------------------------------------------------------------ across data sets
def combine_splits(labelled: Split, unlabelled: Split) -> Split:
    """Return a split whose labels come from one data set and whose unlabelled pairs come from another.

    Validation and test stay those of the labelled set, whose own unlabelled pairs are not used. Of the other set all
    *training* pairs are used, without their labels; its validation and test pairs are not used.

    Args:
        labelled: gives labelled, val and test.
        unlabelled: gives the unlabelled pairs.

    Raises:
        DataError: both sets have a pair of the same name.
    """
    combined = replace(labelled, unlabelled=unlabelled.labelled + unlabelled.unlabelled)
    require_unique_names(
        "labelled and unlabelled set together", [pair.name for pairs in vars(combined).values() for pair in pairs]
    )
    return combined


# ------------------------------------------------------------------------------------------------ shared ground
def count_leaks(split: Split, *, source_tiles: Mapping[str, str] | None = None) -> int:
    """Count the validation and test pairs that share ground with a training pair, as far as names and windows show.

    Two pairs share ground if they are windows of one file, if they were cut from one tile by `source_tiles`, or if
    their names say so: by the rules of a published data set (crops of one LEVIR-CD tile, WHU-CD patches with
    neighbouring numbers; see `publication.Publication`), or as crops of one picture (`PICTURE_row_col`). 0 means that
    neither names nor windows show a leak; other names say nothing.

    Args:
        split: what is checked; unlabelled pairs count as training pairs.
        source_tiles: name of a pair -> tile that it was cut from (`ChangeDataset.source_tiles`).
    """
    return len(find_leaking_pairs(split, source_tiles=source_tiles))


def find_leaking_pairs(split: Split, *, source_tiles: Mapping[str, str] | None = None) -> set[str]:
    """Return the names of the validation and test pairs that `count_leaks` counts."""
    tiles, publications = source_tiles or {}, list_publications()
    trained = {key for pair in split.labelled + split.unlabelled for key in _ground_keys(pair, tiles, publications)}
    held_out = split.val + split.test
    return {pair.name for pair in held_out if not trained.isdisjoint(_ground_keys(pair, tiles, publications))}


def is_origin_known(pair: PairFiles, source_tiles: Mapping[str, str]) -> bool:
    """Tell whether a group, a window or the name of a pair says which picture it was cut from."""
    if pair.name in source_tiles or pair.window_px is not None or find_cropped_picture(pair.name) is not None:
        return True
    if _PREPARED_NAME.search(pair.name):
        return True
    return any(publication.list_ground_keys(pair.name) for publication in list_publications())


def _ground_keys(
    pair: PairFiles, source_tiles: Mapping[str, str], publications: tuple[Publication, ...]
) -> frozenset[str]:
    """Return keys such that pairs with a common one share ground."""
    keys = {source_tiles.get(pair.name, pair.name)}
    if pair.window_px is not None:
        keys.add(str(pair.before))
    published = frozenset[str]().union(*(publication.list_ground_keys(pair.name) for publication in publications))
    picture = None if published or pair.name in source_tiles else find_cropped_picture(pair.name)
    return published.union(keys, () if picture is None else (f"picture {picture}",))


def _find_tile(pair: PairFiles, source_tiles: Mapping[str, str], publications: tuple[Publication, ...]) -> str:
    """Return the tile whose pairs are drawn together; a pair that is of no tile is one by itself."""
    if (tile := source_tiles.get(pair.name)) is not None:
        return tile
    if pair.window_px is not None:
        return str(pair.before)
    named = (publication.find_tile(pair.name) for publication in publications)
    return next((tile for tile in named if tile is not None), pair.name)


def find_cropped_picture(name: str) -> str | None:
    """Return the picture that a crop called `PICTURE_row_col` or `PICTURE-row-col` was cut from; None for other names.

    Row and column may be pixels or numbers of tiles. A name that ends in two numbers for another reason, such as year
    and month, mostly names one place, too.
    """
    match = _CROP_NAME.fullmatch(name)
    return None if match is None else match["picture"]


def _group_crops(tile_of: dict[str, str]) -> dict[str, str]:
    """Put crops of one picture into one tile, by their names; where all are of one picture they cannot be divided."""
    pictures = {name: find_cropped_picture(name) for name, tile in tile_of.items() if tile == name}
    if len({picture for picture in pictures.values() if picture is not None}) < MIN_PICTURES:
        return tile_of
    return tile_of | {name: f"picture {picture}" for name, picture in pictures.items() if picture is not None}
