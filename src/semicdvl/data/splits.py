"""Which pair is for what: by fraction and seed, by published lists, or across data sets; kept in a hashed file.

A split by fraction is nested: with the same seed the labelled pairs of 5 % are among those of 10 %. A pair's rank comes
from a hash of its name, so the split is the same on every machine and hardly moves when pairs are added.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from semicdvl.data.pairs import ChangeDataset, require_unique_names
from semicdvl.data.readers import levir_cd, whu_cd
from semicdvl.data.readers.folder import read_name_list
from semicdvl.errors import DataError
from semicdvl.types import PairFiles, Split


# ------------------------------------------------------------------------------------------------ by fraction
def split_by_fraction(
    dataset: ChangeDataset, *, labelled: float, seed: int, val: float = 0.1, test: float = 0.2
) -> Split:
    """Divide a data set; published subsets are kept, what is missing is drawn.

    All crops of one tile go to the same side of train | val | test. The labelled pairs are drawn pair by pair, as in
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
            raise DataError(f"{dataset.name}: {what} = {share} is no share. Give a number between 0 and 1.")
    named = {name for names in dataset.subsets.values() for name in names}
    pool = dataset.select_subset("train") if "train" in dataset.subsets else _exclude_names(dataset.pairs, named)
    able = sum(pair.label is not None for pair in pool)
    sides: dict[str, tuple[PairFiles, ...]] = {}
    for side, share in (("test", test), ("val", val)):
        if side in dataset.subsets:
            sides[side] = _require_labels(dataset, dataset.select_subset(side), side)
        else:
            count = max(1, round(share * able)) if share > 0 else 0
            sides[side], pool = _draw_subset(dataset, pool, count=count, key=f"{seed}:{side}")
    kept = _draw_labelled(dataset, pool, share=labelled, seed=seed)
    return Split(kept, _exclude_names(pool, {pair.name for pair in kept}), sides["val"], sides["test"])


def _draw_labelled(
    dataset: ChangeDataset, pool: tuple[PairFiles, ...], *, share: float, seed: int
) -> tuple[PairFiles, ...]:
    """Draw the pairs that keep their label."""
    able = [pair for pair in pool if pair.label is not None]
    count = math.floor(share * len(able) + 1e-9)
    if share > 0 and count == 0:
        least = f"Give at least {1 / len(able):.4f}" if able else "Add label files to some pairs"
        raise DataError(
            f"{dataset.name}: {share:.4g} of {len(able)} training pairs with a label is no pair at all. {least}."
        )
    return tuple(sorted(able, key=lambda pair: _hash_rank(f"{seed}:labelled", pair.name))[:count])


def _draw_subset(
    dataset: ChangeDataset, pool: tuple[PairFiles, ...], *, count: int, key: str
) -> tuple[tuple[PairFiles, ...], tuple[PairFiles, ...]]:
    """Draw whole tiles for validation or test; return their labelled pairs, and the pairs of all other tiles."""
    tiles: dict[str, list[PairFiles]] = {}
    for pair in pool:
        if pair.label is not None:
            tiles.setdefault(_find_tile(pair, dataset.source_tiles), []).append(pair)
    drawn: list[PairFiles] = []
    left = sorted(tiles, key=lambda tile: _hash_rank(key, tile), reverse=True)
    gone: set[str] = set()
    while left and len(drawn) < count:
        tile = left.pop()
        gone.add(tile)
        drawn += tiles[tile]
    if len(drawn) < count or (drawn and not left):
        raise DataError(
            f"{dataset.name}: {len(pool)} pairs, with labels on {len(tiles)} tiles, are too few to draw {count} pairs"
            f" by whole tiles for {key.partition(':')[2]} and have some left. Give smaller shares, or lists."
        )
    return tuple(drawn), tuple(pair for pair in pool if _find_tile(pair, dataset.source_tiles) not in gone)


def _hash_rank(key: str, name: str) -> bytes:
    """Return the place of a name in the order of a key: a hash, equal on every machine."""
    return hashlib.sha256(f"{key}:{name}".encode()).digest()


def _exclude_names(pairs: Iterable[PairFiles], names: set[str]) -> tuple[PairFiles, ...]:
    """Return the pairs that are not named."""
    return tuple(pair for pair in pairs if pair.name not in names)


def _require_labels(dataset: ChangeDataset, pairs: tuple[PairFiles, ...], what: str) -> tuple[PairFiles, ...]:
    """Return the pairs, all of which must have a label file."""
    bare = [pair.name for pair in pairs if pair.label is None]
    if bare:
        raise DataError(
            f"{dataset.name}: {len(bare)} of {len(pairs)} {what} pairs have no label file, e.g. '{bare[0]}'."
            " Add the file to the label folder, or take the pair out of the list."
        )
    return pairs


# ------------------------------------------------------------------------------------------------ by published lists
@dataclass(frozen=True)
class SplitNames:
    """A split as names alone; no name may occur twice."""

    labelled: tuple[str, ...]
    unlabelled: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse a pair that is used twice."""
        sides = vars(self)
        for side, names in sides.items():
            require_unique_names(f"list '{side}'", names)
        for first, second in [(a, b) for a in sides for b in sides if a < b]:
            if common := set(sides[first]) & set(sides[second]):
                raise DataError(
                    f"lists '{first}' and '{second}' have {len(common)} names in common, e.g. '{min(common)}'."
                    " A pair has one use only: take it out of one of them."
                )


def read_published_lists(folder: Path | str, *, part: str | float | None) -> SplitNames:
    """Read the published lists: `5%/labeled.txt`, `5%/unlabeled.txt`, `val.txt`, `test.txt`, and `train.txt` as check.

    Args:
        folder: that holds the lists.
        part: folder of the labelled and unlabelled list ("5%", or 0.05 for it); None: all of train.txt is labelled.

    Raises:
        InputError: a list is missing.
        DataError: a name occurs twice, or the two training lists together are not train.txt.
    """
    folder = Path(folder)
    val, test = read_name_list(folder / "val.txt"), read_name_list(folder / "test.txt")
    if part is None:
        return SplitNames(read_name_list(folder / "train.txt"), (), val, test)
    below = folder / (part if isinstance(part, str) else f"{part * 100:g}%")
    if not below.is_dir():
        known = ", ".join(sorted(each.name for each in folder.iterdir() if each.is_dir())) or "none"
        raise DataError(f"{folder}: has no lists for '{below.name}'. Known: {known}.")
    names = SplitNames(
        read_name_list(_find_list(below, "labeled")), read_name_list(_find_list(below, "unlabeled")), val, test
    )
    if (folder / "train.txt").is_file():
        odd = set(names.labelled + names.unlabelled) ^ set(read_name_list(folder / "train.txt"))
        if odd:
            raise DataError(
                f"{below}: labelled and unlabelled pairs differ from train.txt in {len(odd)} names, e.g. '{min(odd)}'."
                " Take the lists of one source."
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
    sides = {side: dataset.select_pairs(listed, what=f"list '{side}'") for side, listed in vars(names).items()}
    for side in ("labelled", "val", "test"):
        _require_labels(dataset, sides[side], side)
    return Split(**sides)


# ------------------------------------------------------------------------------------------------ across data sets
def combine_splits(labelled: Split, unlabelled: Split, *, keep_own_unlabelled: bool = False) -> Split:
    """Return a split whose labels come from one data set and whose unlabelled pairs come from another.

    Validation and test stay those of the labelled set. Of the other set all *training* pairs are taken, without their
    labels; its validation and test pairs stay untouched.

    Args:
        labelled: gives labelled, val and test.
        unlabelled: gives the unlabelled pairs.
        keep_own_unlabelled: the labelled set's own unlabelled pairs take part as well.

    Raises:
        DataError: both sets have a pair of the same name.
    """
    foreign = unlabelled.labelled + unlabelled.unlabelled
    joined = replace(labelled, unlabelled=(labelled.unlabelled if keep_own_unlabelled else ()) + foreign)
    require_unique_names(
        "labelled and unlabelled set together", [p.name for side in vars(joined).values() for p in side]
    )
    return joined


# ------------------------------------------------------------------------------------------------ leaks
def count_leaks(split: Split, *, source_tiles: Mapping[str, str] | None = None) -> int:
    """Count the validation and test pairs that share ground, as far as names and windows tell, with a training pair.

    Two pairs share ground if they are windows of one file, crops of one LEVIR-CD tile by name, WHU-CD patches with
    neighbouring numbers, or have one source in `source_tiles`.

    Args:
        split: what is checked; unlabelled pairs count as training pairs.
        source_tiles: name -> tile that it was cut from (`DataSet.source_tiles`).
    """
    known = source_tiles or {}
    trained = {key for pair in split.labelled + split.unlabelled for key in _ground_keys(pair, known)}
    return sum(not trained.isdisjoint(_ground_keys(pair, known)) for pair in split.val + split.test)


def _ground_keys(pair: PairFiles, sources: Mapping[str, str]) -> frozenset[str]:
    """Return keys such that pairs with a common one share ground."""
    keys = {sources.get(pair.name, levir_cd.find_source_tile(pair.name))}
    if pair.window_px is not None:
        keys.add(str(pair.before))
    return frozenset(keys) | whu_cd.find_borders(pair.name)


def _find_tile(pair: PairFiles, sources: Mapping[str, str]) -> str:
    """Return the tile that a pair must not be parted from when sides are drawn."""
    window_of = str(pair.before) if pair.window_px else None
    return (
        sources.get(pair.name)
        or window_of
        or whu_cd.find_mosaic_strip(pair.name)
        or levir_cd.find_source_tile(pair.name)
    )
