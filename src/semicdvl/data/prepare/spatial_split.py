"""Where patches lie on a raster, and which subset each belongs to: assigned by blocks of ground with gaps between them.

Neighbouring patches resemble each other, so a test on randomly drawn patches rewards memory. Here the raster is divided
into square blocks of whole patches with an unused gap between any two, and a block is assigned to train, val or test as
a whole. No test patch can touch a training patch, however the blocks are drawn; `measure_leakage` measures the distance
all the same, on the patches as they are.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from semicdvl.data.change_dataset import SUBSETS
from semicdvl.errors import DataError

LABELLED, UNLABELLED, SKIPPED = "labelled", "unlabelled", "skipped"

BlockIndex = tuple[int, int]
"""(row, col) of a block, counted in blocks."""


@dataclass(frozen=True)
class PatchCell:
    """One place where a patch is cut: its top left pixel on the raster, and the block that it belongs to."""

    row: int
    col: int
    block: BlockIndex

    @property
    def name(self) -> str:
        """The name of the patch's files: its place in pixels."""
        return f"r{self.row:06d}_c{self.col:06d}"


@dataclass(frozen=True)
class CutPatch:
    """What was found at a cell.

    Attributes:
        cell: its place.
        state: `LABELLED`, `UNLABELLED` or `SKIPPED` (too little data).
        valid_px: pixels with data on both dates.
        known_px: pixels whose label is known.
        changed_px: pixels labelled as changed.
    """

    cell: PatchCell
    state: str
    valid_px: int = 0
    known_px: int = 0
    changed_px: int = 0


@dataclass(frozen=True)
class SpatialSplit:
    """Patches by subset; `left_out` are the unlabelled ones on the ground of validation and test."""

    train: tuple[CutPatch, ...] = ()
    val: tuple[CutPatch, ...] = ()
    test: tuple[CutPatch, ...] = ()
    left_out: tuple[CutPatch, ...] = ()


@dataclass(frozen=True)
class Leakage:
    """How close the held-out patches come to the training patches.

    Attributes:
        touching: val, test -> number of its patches that touch or overlap a training patch.
        nearest_px: val, test -> smallest gap to a training patch, along rows or columns; None where one of the two
            subsets is empty.
    """

    touching: dict[str, int] = field(default_factory=dict)
    nearest_px: dict[str, int | None] = field(default_factory=dict)


# ------------------------------------------------------------------------------------------------ places
def lay_out_patches(
    height: int, width: int, *, size_px: int, block_patches: int, buffer_px: int
) -> tuple[PatchCell, ...]:
    """Return the places of patches on a raster, row by row.

    Args:
        height: of the raster in px.
        width: of the raster in px.
        size_px: side of a patch. The right and lower edge, where no whole patch fits, stays unused.
        block_patches: patches along a side of a block.
        buffer_px: unused gap between blocks.
    """
    rows, cols = (
        _list_patch_starts(length, size_px=size_px, block_patches=block_patches, buffer_px=buffer_px)
        for length in (height, width)
    )
    return tuple(PatchCell(row, col, (block_row, block_col)) for row, block_row in rows for col, block_col in cols)


def _list_patch_starts(length: int, *, size_px: int, block_patches: int, buffer_px: int) -> list[tuple[int, int]]:
    """Return (start, number of its block) of the patches along one axis."""
    pitch = block_patches * size_px + buffer_px
    starts = (
        (block * pitch + i * size_px, block) for block in range(length // pitch + 1) for i in range(block_patches)
    )
    return [(start, block) for start, block in starts if start + size_px <= length]


# ------------------------------------------------------------------------------------------------ subsets
def split_by_blocks(patches: Iterable[CutPatch], *, val_frac: float, test_frac: float, seed: int) -> SpatialSplit:
    """Assign every block to one subset.

    Blocks with and without change are drawn separately, in an order given by a hash of place and seed, until a subset
    has its share of the labelled patches; each subset gets at least one block with change.

    Args:
        patches: what was cut.
        val_frac: share of the labelled patches for validation; 0: none.
        test_frac: share for test; 0: none.
        seed: of the draw.

    Raises:
        DataError: there is no labelled patch, no change, or fewer blocks with change than subsets.
    """
    used = [patch for patch in patches if patch.state != SKIPPED]
    blocks: dict[BlockIndex, list[CutPatch]] = defaultdict(list)
    for patch in used:
        if patch.state == LABELLED:
            blocks[patch.cell.block].append(patch)
    with_change = {block for block, members in blocks.items() if any(patch.changed_px for patch in members)}
    require_enough_blocks(with_change, blocks, val=val_frac, test=test_frac)
    shares = {"test": test_frac, "val": val_frac}
    held_out: dict[BlockIndex, str] = {}
    for stratum in (with_change, blocks.keys() - with_change):
        sizes = {block: len(blocks[block]) for block in stratum}
        held_out |= _draw_blocks(sizes, shares, seed=seed, minimum=1 if stratum is with_change else 0)
    return _assign_patches(used, held_out)


def require_enough_blocks(
    with_change: Collection[BlockIndex], blocks: Collection[BlockIndex], *, val: float, test: float
) -> None:
    """Make sure that each subset can have a block with change.

    Args:
        with_change: the blocks that hold a labelled change.
        blocks: all blocks.
        val: share of validation; 0: that subset is empty.
        test: share of test; 0: that subset is empty.

    Raises:
        DataError: there are too few.
    """
    needed = 1 + (val > 0) + (test > 0)
    if len(with_change) < needed:
        raise DataError(
            f"{len(with_change)} of {len(blocks)} blocks of ground hold a labelled change, but {needed} or more are"
            f" needed: one for training{', one for validation' if val else ''}{', one for test' if test else ''}. Use"
            " smaller blocks (--block-m) or patches (--size-px), label more ground, or leave a subset out"
            " (--test-frac 0)."
        )


def _draw_blocks(
    sizes: dict[BlockIndex, int], shares: Mapping[str, float], *, seed: int, minimum: int
) -> dict[BlockIndex, str]:
    """Return the held-out blocks with their subsets; each subset, training included, gets at least `minimum` blocks."""
    remaining = sorted(sizes, key=lambda block: hashlib.sha256(f"{seed}:{block}".encode()).digest())
    held_out: dict[BlockIndex, str] = {}
    total = sum(sizes.values())
    subsets_to_come = sum(share > 0 for share in shares.values()) + 1
    for subset, share in shares.items():
        if share <= 0:
            continue
        subsets_to_come -= 1
        patches = blocks = 0
        # A block is drawn if that brings the subset closer to its share, and enough remain for the other subsets.
        while len(remaining) > subsets_to_come * minimum and (
            blocks < minimum or patches + sizes[remaining[0]] / 2 <= share * total
        ):
            block = remaining.pop(0)
            held_out[block] = subset
            patches, blocks = patches + sizes[block], blocks + 1
    return held_out


def _assign_patches(used: Sequence[CutPatch], held_out: Mapping[BlockIndex, str]) -> SpatialSplit:
    """Sort patches by the subset of their block."""
    members: dict[str, list[CutPatch]] = {subset: [] for subset in (*SUBSETS, "left_out")}
    for patch in used:
        subset = held_out.get(patch.cell.block, "train")
        members["left_out" if subset != "train" and patch.state == UNLABELLED else subset].append(patch)
    return SpatialSplit(**{subset: tuple(patches) for subset, patches in members.items()})


# ------------------------------------------------------------------------------------------------ leakage
def measure_leakage(split: SpatialSplit, *, size_px: int) -> Leakage:
    """Measure on the ground how close validation and test patches come to a training patch, labelled or not.

    Args:
        split: the patches by subset.
        size_px: side of a patch.
    """
    touching: dict[str, int] = {}
    nearest_px: dict[str, int | None] = {}
    train_N2 = _list_corners(split.train)
    for subset in ("val", "test"):
        held_out_M2 = _list_corners(getattr(split, subset))
        if not len(held_out_M2) or not len(train_N2):
            touching[subset], nearest_px[subset] = 0, None
            continue
        # Squares of one size: the gap is the larger of the gaps along rows and columns.
        gaps_M = cKDTree(train_N2).query(held_out_M2, p=math.inf)[0] - size_px
        touching[subset], nearest_px[subset] = int((gaps_M <= 0).sum()), max(0, int(gaps_M.min()))
    return Leakage(touching, nearest_px)


def _list_corners(patches: Sequence[CutPatch]) -> NDArray[np.float64]:
    """Return the top left pixels (row, col) as N2."""
    return np.array([(patch.cell.row, patch.cell.col) for patch in patches], np.float64).reshape(-1, 2)
