"""LEVIR-CD: building change, 637 pairs of 1024 px at 0.5 m; published as 445 / 64 / 128 for train / val / test.

Source: Chen and Shi 2020, "A Spatial-Temporal Attention-Based Method and a New Dataset for Remote Sensing Image Change
Detection". The literature trains on 16 crops of 256 px per tile: 7120 / 1024 / 2048. The crop `train_369_10` is the
10th of tile `train_369`, counted row by row from 1. Both forms are read: tiles are cut while reading, crops are taken
as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from semicdvl.data.change_dataset import SUBSETS, ChangeDataset
from semicdvl.data.images.reading import read_image_size
from semicdvl.data.publication import Publication
from semicdvl.data.readers.folder import read_folder
from semicdvl.errors import DataError
from semicdvl.types import PairFiles

CROP_NAME_PATTERN = re.compile(r"^((?:train|val|test)_\d+)_(?:\d+|\d{4}_\d{4})$")
"""Name of a crop: its tile, then its number, or its first row and column (both ways of cutting are in use)."""


def read_levir_cd(root: Path | str, *, crop_px: int | None = 256) -> ChangeDataset:
    """Read the pairs of LEVIR-CD as crops.

    Args:
        root: folder with train/ val/ test/ of A/ B/ label/, or with A/ B/ label/ for all (subsets by list or by name).
        crop_px: side of the crops that larger images are cut into, without overlap; None leaves tiles whole.

    Raises:
        InputError: as in `folder.read_folder`.
        DataError: as in `folder.read_folder`; or the sides of an image are no multiple of `crop_px`.
    """
    tiles = read_folder(root, name="levir_cd")
    subsets = tiles.subsets or _subsets_from_names(tiles.pairs)
    sizes_px = {pair.name: read_image_size(pair.before) for pair in tiles.pairs} if crop_px else {}
    crops = {pair.name: tuple(_cut_tile(pair, sizes_px.get(pair.name), crop_px)) for pair in tiles.pairs}
    return ChangeDataset(
        "levir_cd",
        tuple(crop for pair in tiles.pairs for crop in crops[pair.name]),
        {subset: tuple(crop.name for name in names for crop in crops[name]) for subset, names in subsets.items()},
        {crop.name: find_source_tile(name) or name for name, parts in crops.items() for crop in parts},
    )


def find_source_tile(name: str) -> str | None:
    """Return the tile that a crop of a published name was cut from; None for another kind of name."""
    match = CROP_NAME_PATTERN.match(name)
    return match[1] if match else None


def _list_ground_keys(name: str) -> frozenset[str]:
    """Return the tile of a crop: crops of one tile touch each other."""
    tile = find_source_tile(name)
    return frozenset() if tile is None else frozenset({tile})


def _cut_tile(tile: PairFiles, size_px: tuple[int, int] | None, crop_px: int | None) -> Iterator[PairFiles]:
    """Yield a tile's crops, numbered row by row from 1; an image no larger than a crop stays as it is."""
    if crop_px is None or size_px is None or max(size_px) <= crop_px:
        yield tile
        return
    height, width = size_px
    if height % crop_px or width % crop_px:
        raise DataError(
            f"{tile.before}: {height} x {width} px cannot be cut into whole crops of {crop_px} px."
            " Give a crop_px that divides both sides (256 for LEVIR-CD's 1024), or none to read tiles whole."
        )
    columns = width // crop_px
    for number in range(height // crop_px * columns):
        row, col = number // columns * crop_px, number % columns * crop_px
        window_px = (row, col, crop_px, crop_px)
        yield replace(tile, name=f"{tile.name}_{number + 1}", window_px=window_px)


def _subsets_from_names(pairs: tuple[PairFiles, ...]) -> dict[str, tuple[str, ...]]:
    """Return the subsets by the first word of the names; none if some name begins with another word."""
    named = {subset: tuple(p.name for p in pairs if p.name.startswith(f"{subset}_")) for subset in SUBSETS}
    if sum(len(names) for names in named.values()) < len(pairs):
        return {}
    return {subset: names for subset, names in named.items() if names}


PUBLICATION = Publication(
    find_tile=find_source_tile,
    list_ground_keys=_list_ground_keys,
    recipe_prefix="levir",
    lists={
        "train": (7120, "a5ca0daf59c92943"),
        "val": (1024, "75e3a89981af1eb8"),
        "test": (2048, "5b99def8c5efcafe"),
        "5%/labeled": (356, "94ec317207740c91"),
        "5%/unlabeled": (6764, "49a2181cc83f60e4"),
        "10%/labeled": (712, "0c3ac07190860c05"),
        "10%/unlabeled": (6408, "589f967070f6c533"),
        "20%/labeled": (1424, "81608ce855914636"),
        "20%/unlabeled": (5696, "f8f0f6519001f01c"),
        "40%/labeled": (2848, "d5ca1d59223b5714"),
        "40%/unlabeled": (4272, "8f97ce8db2b7416b"),
    },
)
"""The lists are those that UniMatch and SemiCD-VL publish, which are the same; counted and hashed from their files."""
