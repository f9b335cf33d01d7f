"""LEVIR-CD: building change, 637 pairs of 1024 px at 0.5 m; published as 445 / 64 / 128 for train / val / test.

Source: Chen and Shi 2020, "A Spatial-Temporal Attention-Based Method and a New Dataset for Remote Sensing Image Change
Detection". The literature trains on 16 crops of 256 px per tile: 7120 / 1024 / 2048. The crop `train_369_10` is the
10th of tile `train_369`, counted row by row from 1. Both forms are read: tiles are cut while reading, crops are taken
as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from semicdvl.data.images import read_image_size
from semicdvl.data.pairs import SUBSETS, ChangeDataset
from semicdvl.data.readers import folder
from semicdvl.errors import DataError
from semicdvl.types import PairFiles

CROP_NAME_PATTERN = re.compile(r"^((?:train|val|test)_\d+)_(?:\d+|\d{4}_\d{4})$")
"""Name of a crop: its tile, then its number, or its first row and column (two ways of cutting are around)."""


def read_levir_cd(root: Path | str, *, crop_px: int | None = 256) -> ChangeDataset:
    """Return LEVIR-CD's pairs as crops.

    Args:
        root: folder with train/ val/ test/ of A/ B/ label/, or with A/ B/ label/ for all (subsets by list or by name).
        crop_px: side of the crops that larger images are cut into, without overlap; None leaves tiles whole.

    Raises:
        InputError, DataError: as in `folder.read_folder`; or an image's sides are no multiple of `crop_px`.
    """
    found = folder.read_folder(root, name="levir_cd")
    subsets = found.subsets or _subsets_from_names(found.pairs)
    sides = {pair.name: read_image_size(pair.before) for pair in found.pairs} if crop_px else {}
    crops = {pair.name: tuple(_cut_tile(pair, sides.get(pair.name), crop_px)) for pair in found.pairs}
    return ChangeDataset(
        "levir_cd",
        tuple(crop for pair in found.pairs for crop in crops[pair.name]),
        {subset: tuple(crop.name for name in names for crop in crops[name]) for subset, names in subsets.items()},
        {crop.name: find_source_tile(name) for name, parts in crops.items() for crop in parts},
    )


def find_source_tile(name: str) -> str:
    """Return the tile that a published crop name belongs to; a tile belongs to itself."""
    match = CROP_NAME_PATTERN.match(name)
    return match[1] if match else name


def _cut_tile(tile: PairFiles, size_px: tuple[int, int] | None, crop_px: int | None) -> Iterator[PairFiles]:
    """Yield a tile's crops, numbered row by row from 1; an image no larger than a crop stays as it is."""
    if crop_px is None or size_px is None or max(size_px) <= crop_px:
        yield tile
        return
    height, width = size_px
    if height % crop_px or width % crop_px:
        raise DataError(
            f"{tile.before}: {height} x {width} px cannot be cut into crops of {crop_px} px without a rest."
            " Give a crop_px that divides it (256 for LEVIR-CD's 1024), or none to take tiles whole."
        )
    columns = width // crop_px
    for number in range(height // crop_px * columns):
        row, col = number // columns * crop_px, number % columns * crop_px
        window = (row, col, crop_px, crop_px)
        yield PairFiles(f"{tile.name}_{number + 1}", tile.before, tile.after, tile.label, window)


def _subsets_from_names(pairs: tuple[PairFiles, ...]) -> dict[str, tuple[str, ...]]:
    """Tell the subsets by the names' first word; none if some name has another."""
    named = {subset: tuple(p.name for p in pairs if p.name.startswith(f"{subset}_")) for subset in SUBSETS}
    if sum(len(names) for names in named.values()) < len(pairs):
        return {}
    return {subset: names for subset, names in named.items() if names}
