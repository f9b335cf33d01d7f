"""What tells that pairs of a split show the same ground: groups that the user names, and common image content.

Crops of one picture in training and in test make scores too good. `splits.count_leaks` reads names and windows; here
the user's own grouping and the pixels are added, and where none of it tells anything the answer is "not known".
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semicdvl.data.change_dataset import ChangeDataset
from semicdvl.data.images.files import IMAGE_SUFFIXES
from semicdvl.data.images.reading import (
    has_further_bands,
    holds_deep_values,
    read_bands,
    read_image_size,
    read_rgb,
    read_values,
)
from semicdvl.data.splits import count_leaks, find_leaking_pairs, is_origin_known
from semicdvl.errors import DataError, InputError
from semicdvl.text_files import read_text_file
from semicdvl.types import PairFiles, Split

MANIFEST_NAMES = ("manifest.csv", "pairs.csv")
NAME_COLUMNS = ("name", "file", "filename", "image", "pair")
GROUP_COLUMN = "group"
"""A manifest with this column groups the pairs without being asked."""
WINDOW_PX = 8
"""Side of the windows whose pixels are hashed."""
ANCHOR_BITS = 6
"""About one window in 64, chosen by its content alone: the same ones in every crop, wherever it was cut."""
MIN_COMMON_ANCHORS, MIN_COMMON_FRAC = 12, 0.01
"""Two images share content from this number of equal windows on, and this share of those of the smaller one."""
MAX_HASHED_PX = 6 * 10**8
"""Beyond so many pixels the content is not compared: it would take minutes."""


# ------------------------------------------------------------------------------------------------ named groups
def group_pairs(dataset: ChangeDataset, root: Path, group: str | None) -> ChangeDataset:
    """Return a data set whose `source_tiles` are the groups that the user names.

    Args:
        dataset: as it was read.
        root: its folder, which may hold a manifest (`MANIFEST_NAMES`) with a column of pair names.
        group: a regular expression, whose first group (or whole match) in the name of a pair is its group; or a column
            of the manifest. None: the column "group" of a manifest, if there is one.

    Raises:
        DataError: the expression is none, or the name of a pair does not match it; or there is no such column.
        InputError: the manifest cannot be read.
    """
    manifest = next((root / name for name in MANIFEST_NAMES if (root / name).is_file()), None)
    if group is None or re.fullmatch(r"\w+", group):
        groups = _read_manifest_groups(manifest, group) if manifest is not None else None
        if groups is None and group is not None:
            names = " or ".join(MANIFEST_NAMES)
            raise DataError(
                f"{root}: group = '{group}' names a column, but there is no {names} with it. Add the column, or give a "
                "regular expression with a group, such as '^(.+)_\\d+_\\d+$'."
            )
        if groups is None:
            return dataset
        missing = [pair.name for pair in dataset.pairs if pair.name not in groups]
        if missing:
            raise DataError(
                f"{manifest}: names no group of some pairs ({len(missing)}), e.g. '{missing[0]}'. Add them."
            )
        return replace(dataset, source_tiles={pair.name: groups[pair.name] for pair in dataset.pairs})
    return replace(dataset, source_tiles=_match_groups(dataset, group))


def _match_groups(dataset: ChangeDataset, group: str) -> dict[str, str]:
    """Return the group of each pair by a regular expression."""
    try:
        pattern = re.compile(group)
    except re.error as error:
        raise DataError(f"data.group = '{group}': is no regular expression ({error}). Correct it.") from error
    found = {pair.name: pattern.search(pair.name) for pair in dataset.pairs}
    unmatched = [name for name, match in found.items() if match is None or match[0] == ""]
    if unmatched:
        raise DataError(
            f"{dataset.name}: group = '{group}' does not match {len(unmatched)} of {len(found)} names, e.g. "
            f"'{unmatched[0]}'. Every pair needs a group."
        )
    return {name: match[1] if pattern.groups else match[0] for name, match in found.items() if match is not None}


def _read_manifest_groups(path: Path, column: str | None) -> dict[str, str] | None:
    """Return name -> group of a manifest; None if it has no such column."""
    text = read_text_file(path)
    try:
        dialect = csv.Sniffer().sniff(text.partition("\n")[0], delimiters=",;\t")
    except csv.Error:
        dialect = csv.get_dialect("excel")  # type: ignore[assignment]
    rows = list(csv.DictReader(io.StringIO(text), dialect=dialect))
    columns = list(rows[0]) if rows else []
    name_column = next((each for each in columns if str(each).strip().lower() in NAME_COLUMNS), None)
    wanted = column or GROUP_COLUMN
    if wanted not in columns:
        return None
    if name_column is None:
        raise InputError(path, "has no column of pair names", f"Call it one of {', '.join(NAME_COLUMNS)}")
    return {_to_pair_name(row[name_column] or ""): row[wanted] or "" for row in rows}


def _to_pair_name(text: str) -> str:
    """Return the name of a pair from the name or path of its file."""
    path = Path(text.strip().replace("\\", "/"))
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name


# ------------------------------------------------------------------------------------------------ leaks
def describe_leaks(recorded: Mapping[str, Any]) -> str | None:
    """Say what the record of a split knows of pairs that share ground; None where nothing is wrong.

    Args:
        recorded: as `training.run_record` writes it: sizes of the sides, `leaking_pairs`, `leaks`.
    """
    leaking, held_out = recorded.get("leaking_pairs"), recorded.get("val", 0) + recorded.get("test", 0)
    reason = (recorded.get("leaks") or {}).get("reason", "")
    if leaking is None:
        return f"Whether validation and test pairs share ground with training pairs is not known: {reason}."
    if not leaking:
        return None
    shares = "shares" if leaking == 1 else "share"
    return (
        f"{leaking} of {held_out} validation and test pairs {shares} ground with training pairs ({reason}), so their "
        "scores are too high. Give pairs of more pictures, or name the picture of each pair with data.group."
    )


@dataclass(frozen=True)
class LeakCheck:
    """What is known of pairs that share ground between training and validation or test.

    Attributes:
        leaking_pairs: validation and test pairs that share ground with a training pair; None: not known.
        by_name: of these, found by names, windows and groups.
        by_content: found by equal image content; None: not compared.
        reason: why it is not known, or what was compared.
    """

    leaking_pairs: int | None
    by_name: int
    by_content: int | None
    reason: str


def check_leaks(
    split: Split, *, source_tiles: Mapping[str, str] | None = None, max_px: int = MAX_HASHED_PX
) -> LeakCheck:
    """Tell how many validation and test pairs share ground with a training pair.

    Args:
        split: what is checked; unlabelled pairs count as training pairs.
        source_tiles: name of a pair -> group that it belongs to, where that is known.
        max_px: beyond so many pixels the content is not compared.

    Raises:
        InputError: an image cannot be read.
    """
    tiles = source_tiles or {}
    by_name = find_leaking_pairs(split, source_tiles=tiles)
    assert len(by_name) == count_leaks(split, source_tiles=tiles)
    by_content = _find_common_content(split, max_px=max_px)
    content = None if by_content is None else len(by_content)
    found = len(by_name | (by_content or set()))
    told = "its content was not compared" if by_content is None else "no image content is found twice"
    if found or not split.val + split.test:
        return LeakCheck(found, len(by_name), content, "by names, groups and image content")
    unknown = [pair.name for pair in split.labelled + split.unlabelled + split.val + split.test
               if not is_origin_known(pair, tiles)]  # fmt: skip
    if not unknown:
        return LeakCheck(0, 0, content, "names, windows or groups tell the picture of every pair")
    reason = (
        f"nothing tells of which picture some pairs are ({len(unknown)}, such as '{unknown[0]}'); {told}. Crops of one "
        "picture may be on both sides: name it with data.group (a regular expression or a column of manifest.csv)"
    )
    return LeakCheck(None, 0, content, reason)


def _find_common_content(split: Split, *, max_px: int) -> set[str] | None:
    """Return the held-out pairs that share image content with a training pair; None if there is too much to compare."""
    trained, held_out = split.labelled + split.unlabelled, split.val + split.test
    if sum(_count_px(pair) for pair in (*trained, *held_out)) > max_px:
        return None
    seen = np.unique(np.concatenate([np.zeros(0, np.uint64), *_hash_pairs(trained)]))
    leaking = set()
    for pair, anchors_N in zip(held_out, _hash_pairs(held_out), strict=True):
        common = int(np.isin(anchors_N, seen, assume_unique=True).sum())
        if common >= max(MIN_COMMON_ANCHORS, MIN_COMMON_FRAC * len(anchors_N)):
            leaking.add(pair.name)
    return leaking


def _count_px(pair: PairFiles) -> int:
    height, width = pair.window_px[2:] if pair.window_px else read_image_size(pair.before)
    return height * width


def _hash_pairs(pairs: Sequence[PairFiles]) -> Iterable[NDArray[np.uint64]]:
    """Yield the anchors of the first image of each pair."""
    for pair in pairs:
        yield hash_anchors(_read_content(pair))


def _read_content(pair: PairFiles) -> NDArray[np.uint8]:
    """Return the first date of a pair as bytes HWC; equal values are equal bytes, whatever image they are in."""
    if not holds_deep_values(pair.before) and not has_further_bands(pair.before):
        return read_rgb(pair.before, window_px=pair.window_px)
    if has_further_bands(pair.before):
        values_HWC = read_bands(pair.before, (1, 2, 3), window_px=pair.window_px)
    else:
        values_HWC = read_values(pair.before, window_px=pair.window_px)
    mixed_HWC = values_HWC.astype(np.float32).view(np.uint32) * np.uint32(
        2_654_435_761
    )  # Knuth's multiplicative hash: all bits count
    return (mixed_HWC >> np.uint32(24)).astype(np.uint8)


def hash_anchors(image_HWC: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return hashes of the windows of an image that are chosen by their content; flat ones are left out.

    Two crops of one picture, however they were cut, give the same hashes for the ground that both show.
    """
    if min(image_HWC.shape[:2]) < WINDOW_PX:
        return np.zeros(0, np.uint64)
    step = image_HWC.astype(np.uint64)
    pixels_HW = step[..., 0] * np.uint64(0x1_0001) + step[..., 1] * np.uint64(0x101) + step[..., 2] + np.uint64(1)
    pixels_HW *= np.uint64(0x9E3779B97F4A7C15)
    pixels_HW ^= pixels_HW >> np.uint64(29)
    rows_HW = _hash_lines(pixels_HW, np.uint64(0x100000001B3))
    hashes_HW = _hash_lines(rows_HW.T, np.uint64(0xC2B2AE3D27D4EB4F)).T
    mixed_HW = (hashes_HW ^ (hashes_HW >> np.uint64(31))) * np.uint64(0x9E3779B97F4A7C15)
    chosen_HW = (mixed_HW >> np.uint64(64 - ANCHOR_BITS)) == 0
    height, width = hashes_HW.shape
    middle = WINDOW_PX // 2
    varied_HW = (pixels_HW[:height, :width] != pixels_HW[middle:, middle:][:height, :width]) & (
        pixels_HW[middle : middle + height, :width] != pixels_HW[:height, middle : middle + width]
    )
    return np.unique(mixed_HW[chosen_HW & varied_HW])


def _hash_lines(values_HW: NDArray[np.uint64], factor: np.uint64) -> NDArray[np.uint64]:
    """Return a polynomial hash of each `WINDOW_PX` neighbours along a row."""
    width = values_HW.shape[1] - WINDOW_PX + 1
    total_HW = np.zeros((values_HW.shape[0], width), np.uint64)
    for offset in range(WINDOW_PX):
        total_HW = total_HW * factor + values_HW[:, offset : offset + width]
    return total_HW
