"""Pairs of images: which there are (`ChangeDataset`) and what is in one (`read_pair`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio

from semicdvl.data.images import PILLOW_SUFFIXES, ImageCache, UInt8Array, open_image_raster, read_image_size
from semicdvl.errors import DataError, InputError
from semicdvl.registry import suggest_nearest
from semicdvl.types import IGNORE, PairFiles

SUBSETS = ("train", "val", "test")


@dataclass(frozen=True)
class ChangeDataset:
    """What a reader finds on disk.

    Attributes:
        name: of the data set, for reports.
        pairs: all pairs, in a fixed order.
        subsets: the published division: "train", "val", "test" (those that exist) -> names of pairs.
        source_tiles: name of a pair -> name of the tile that it was cut from, where the reader knows; see
        `splits.count_leaks`.
    """

    name: str
    pairs: tuple[PairFiles, ...]
    subsets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    source_tiles: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse an empty set, double names and subsets of pairs that are not there."""
        if not self.pairs:
            raise DataError(f"{self.name}: no pair found. A/ and B/ must hold images with the same file names.")
        require_unique_names(f"data set {self.name}", [pair.name for pair in self.pairs])
        for subset, names in self.subsets.items():
            require_unique_names(f"{self.name}, subset {subset}", names)
            self.select_pairs(names, what=f"subset '{subset}'")

    @cached_property
    def pairs_by_name(self) -> dict[str, PairFiles]:
        """The pairs by name."""
        return {pair.name: pair for pair in self.pairs}

    def select_pairs(self, names: Iterable[str], *, what: str = "the list") -> tuple[PairFiles, ...]:
        """Return the pairs of these names, in their order.

        Raises:
            DataError: some name is not in the data set; `what` says in the message who asked.
        """
        wanted = list(names)
        missing = [name for name in wanted if name not in self.pairs_by_name]
        if missing:
            hint = suggest_nearest(missing[0], self.pairs_by_name) if len(self.pairs_by_name) < 2000 else ""
            raise DataError(
                f"{self.name}: {what} names {len(missing)} of {len(wanted)} pairs that have no files, e.g."
                f" '{missing[0]}'.{hint} Add the files, or take the names out of the list."
            )
        return tuple(self.pairs_by_name[name] for name in wanted)

    def select_subset(self, name: str) -> tuple[PairFiles, ...]:
        """Return the pairs of a published subset.

        Raises:
            DataError: the data set has no such subset.
        """
        if name not in self.subsets:
            known = ", ".join(self.subsets) or "none"
            raise DataError(f"{self.name}: has no subset '{name}' (known: {known}). Make one with a split by fraction.")
        return self.select_pairs(self.subsets[name])


def merge_datasets(*sets: ChangeDataset, name: str) -> ChangeDataset:
    """Return several data sets as one; a subset is the union of the sets' own.

    Raises:
        DataError: two sets have a pair of the same name.
    """
    subsets = {
        subset: tuple(pair for each in sets for pair in each.subsets.get(subset, ()))
        for subset in SUBSETS
        if any(subset in each.subsets for each in sets)
    }
    sources = {pair: f"{each.name}/{source}" for each in sets for pair, source in each.source_tiles.items()}
    return ChangeDataset(name, tuple(pair for each in sets for pair in each.pairs), subsets, sources)


def require_unique_names(what: str, names: Iterable[str]) -> None:
    """Raise `DataError` if a name occurs twice."""
    doubles = [name for name, count in Counter(names).items() if count > 1]
    if doubles:
        raise DataError(f"{what}: {len(doubles)} names occur twice, e.g. '{doubles[0]}'. Each pair needs its own name.")


# ------------------------------------------------------------------------------------------------ one pair
class PairArrays(NamedTuple):
    """One pair, decoded: two uint8 RGB images HWC and the mask HW of 0, 1 and IGNORE (None without a label file)."""

    t1_HWC: UInt8Array
    t2_HWC: UInt8Array
    label_HW: UInt8Array | None


def read_pair(
    pair: PairFiles,
    *,
    label_values: Mapping[int, int] | None = None,
    cache: ImageCache | None = None,
    with_label: bool = True,
) -> PairArrays:
    """Decode one pair.

    Args:
        pair: files, and the window of them that is meant.
        label_values: as in `images.read_mask`; a cache brings its own.
        cache: decoded files to look in first. Arrays from it are shared: don't write into them.
        with_label: False leaves the label file unread.

    Raises:
        InputError: a file is missing, broken, no 8-bit RGB or of odd label values, or the sizes differ.
    """
    source = cache or ImageCache(0, label_values=label_values)
    t1_HWC, t2_HWC = source.read_rgb(pair.before, pair.window_px), source.read_rgb(pair.after, pair.window_px)
    _require_same_size(pair.after, t2_HWC.shape[:2], pair.before, t1_HWC.shape[:2])
    if pair.label is None or not with_label:
        return PairArrays(t1_HWC, t2_HWC, None)
    label_HW = source.read_mask(pair.label, pair.window_px)
    _require_same_size(pair.label, label_HW.shape[:2], pair.before, t1_HWC.shape[:2])
    return PairArrays(t1_HWC, t2_HWC, label_HW)


def read_pair_size(pair: PairFiles) -> tuple[int, int]:
    """Return (height, width) of a pair in px, from its window or the first image's header."""
    return pair.window_px[2:] if pair.window_px else read_image_size(pair.before)


def check_pair_files(pair: PairFiles) -> None:
    """Check from the headers alone that a pair's files exist, are images and lie over each other.

    Raises:
        InputError: a file is missing or no image, sizes differ, or two GeoTIFFs are more than a pixel apart.
    """
    size = read_image_size(pair.before)
    _require_same_size(pair.after, read_image_size(pair.after), pair.before, size)
    if pair.label is not None:
        _require_same_size(pair.label, read_image_size(pair.label), pair.before, size)
    if pair.before.suffix.lower() not in PILLOW_SUFFIXES and pair.after.suffix.lower() not in PILLOW_SUFFIXES:
        _require_same_ground(pair)


def check_all_pair_files(
    pairs: Sequence[PairFiles],
    *,
    label_values: Mapping[int, int] | None = None,
    read_masks: bool = True,
    require_changes: bool = True,
    cache_bytes: int = 2**28,
) -> None:
    """Check pairs before hours are spent on them: all headers, and all masks if they are used.

    Raises:
        InputError: a file is missing or no image, sizes differ, or a mask holds odd values.
        DataError: with `read_masks` that are there to learn from, if no pixel has a label, or none is changed.
    """
    cache = ImageCache(cache_bytes, label_values=label_values)
    counted = changed = 0
    seen: set[tuple[object, ...]] = set()
    for pair in pairs:
        files = (pair.before, pair.after, pair.label)
        if files not in seen:  # the crops of a tile share its files
            check_pair_files(pair)
            seen.add(files)
        if read_masks and pair.label is not None:
            label_HW = cache.read_mask(pair.label, pair.window_px)
            counted += int((label_HW != IGNORE).sum())
            changed += int((label_HW == 1).sum())
    if read_masks and require_changes and pairs and not changed:
        what = "a changed pixel" if counted else "a single labelled pixel"
        raise DataError(
            f"none of the {len(pairs)} labelled pairs has {what}: there is nothing to learn from."
            " Label more pairs, or take another seed for the split."
        )


def _require_same_size(path: Path, size: tuple[int, ...], other: Path, other_size: tuple[int, ...]) -> None:
    """Raise if two (height, width) differ."""
    if tuple(size) != tuple(other_size):
        raise InputError(
            path,
            f"is {size[0]} x {size[1]} px, but {other.name} of the same pair is {other_size[0]} x {other_size[1]} px",
            "Both dates and the label of a pair must cover the same ground at the same size",
        )


def _require_same_ground(pair: PairFiles) -> None:
    """Raise if both rasters say where they lie and it is not the same place."""
    with open_image_raster(pair.before) as before, open_image_raster(pair.after) as after:
        if before.crs is None or after.crs is None:
            return
        remedy = "Resample one onto the grid of the other, e.g. with `gdalwarp`, and cut the patches again"
        if before.crs != after.crs:
            raise InputError(pair.after, f"has another CRS ({after.crs}) than the first date ({before.crs})", remedy)
        offset_px = _measure_offset_px(before, after)
        if offset_px > 1:
            raise InputError(pair.after, f"lies {offset_px:.1f} px beside {pair.before.name}", remedy)


def _measure_offset_px(before: rasterio.io.DatasetReader, after: rasterio.io.DatasetReader) -> float:
    """Return how far the corners of the second raster are from those of the first, in px of the first."""
    corners = np.array([[0, after.width], [0, after.height], [1, 1]], dtype=np.float64)
    to_map, from_map = (np.array(raster.transform).reshape(3, 3) for raster in (after, before))
    return float(np.abs(np.linalg.solve(from_map, to_map @ corners) - corners).max())
