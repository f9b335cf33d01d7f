"""Where patches lie on a raster, and which side of train | val | test each goes to: by blocks of ground, with gaps.

Neighbouring patches resemble each other, so random patches make a test that a network passes by memory. Here the raster
is divided into square blocks of whole patches with an unused gap between any two; a block goes to one side as a whole.
So no test patch can touch a training patch, however the blocks are drawn; `leakage` measures it all the same, on the
patches as they are.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.spatial import cKDTree

from semicdvl.errors import DataError

LABELLED, UNLABELLED, SKIPPED = "labelled", "unlabelled", "skipped"
SPATIAL_SUBSETS = ("train", "val", "test")


@dataclass(frozen=True)
class PatchCell:
    """One patch to be cut: its top left pixel on the raster, and the (row, col) of its block."""

    row: int
    col: int
    block: tuple[int, int]

    @property
    def name(self) -> str:
        """The name of its files: where it lies, in pixels."""
        return f"r{self.row:06d}_c{self.col:06d}"


@dataclass(frozen=True)
class CutPatch:
    """What became of a cell.

    Attributes:
        cell: where it lies.
        state: `LABELLED`, `UNLABELLED` or `SKIPPED` (too little data).
        valid_px: pixels with data in both dates.
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
    """Patches by side; `left_out` are unlabelled ones on the ground of validation and test."""

    train: tuple[CutPatch, ...] = ()
    val: tuple[CutPatch, ...] = ()
    test: tuple[CutPatch, ...] = ()
    left_out: tuple[CutPatch, ...] = ()


@dataclass(frozen=True)
class Leakage:
    """How close the held-out patches come to the training patches.

    Attributes:
        touching: side -> its patches that touch or overlap a training patch.
        nearest_px: side -> smallest gap to a training patch, rows or columns; None without patches on either side.
    """

    touching: dict[str, int] = field(default_factory=dict)
    nearest_px: dict[str, int | None] = field(default_factory=dict)


# ------------------------------------------------------------------------------------------------ where
def lay_out_patches(
    height: int, width: int, *, size_px: int, block_patches: int, buffer_px: int
) -> tuple[PatchCell, ...]:
    """Return the patches of a raster, row by row.

    Args:
        height: of the raster.
        width: of the raster.
        size_px: side of a patch. What is left at the right and lower edge and holds no whole patch is not used.
        block_patches: patches along a side of a block.
        buffer_px: unused gap between blocks.
    """
    rows, cols = (
        _patch_starts(length, size_px=size_px, block_patches=block_patches, buffer_px=buffer_px)
        for length in (height, width)
    )
    return tuple(PatchCell(row, col, (above, left)) for row, above in rows for col, left in cols)


def _patch_starts(length: int, *, size_px: int, block_patches: int, buffer_px: int) -> list[tuple[int, int]]:
    """Return (start, number of its block) of the patches along one side."""
    pitch = block_patches * size_px + buffer_px
    starts = (
        (block * pitch + i * size_px, block) for block in range(length // pitch + 1) for i in range(block_patches)
    )
    return [(start, block) for start, block in starts if start + size_px <= length]


# ------------------------------------------------------------------------------------------------ which side
def split_by_blocks(patches: Iterable[CutPatch], *, val_frac: float, test_frac: float, seed: int) -> SpatialSplit:
    """Give every block to one side.

    Blocks with and without change are drawn apart, in an order that a hash of place and seed gives, until a side has
    its share of the labelled patches; each side gets at least one block with change.

    Args:
        patches: what was cut.
        val_frac: share of the labelled patches for validation; 0: none.
        test_frac: share for test; 0: none.
        seed: of the draw.

    Raises:
        DataError: there is no labelled patch, no change, or fewer blocks with change than sides.
    """
    used = [patch for patch in patches if patch.state != SKIPPED]
    blocks: dict[tuple[int, int], list[CutPatch]] = defaultdict(list)
    for patch in used:
        if patch.state == LABELLED:
            blocks[patch.cell.block].append(patch)
    with_change = {block for block, inside in blocks.items() if any(patch.changed_px for patch in inside)}
    require_enough_blocks(with_change, blocks, val=val_frac, test=test_frac)
    sides = {"test": test_frac, "val": val_frac}
    owner: dict[tuple[int, int], str] = {}
    for stratum in (with_change, blocks.keys() - with_change):
        sizes = {block: len(blocks[block]) for block in stratum}
        owner |= _draw_blocks(sizes, sides, seed=seed, least=1 if stratum is with_change else 0)
    return _assign_patches(used, owner)


def require_enough_blocks(
    with_change: Collection[tuple[int, int]], blocks: Collection[tuple[int, int]], *, val: float, test: float
) -> None:
    """Make sure that each side can have a block with change.

    Raises:
        DataError: there are too few.
    """
    wanted = 1 + (val > 0) + (test > 0)
    if len(with_change) < wanted:
        raise DataError(
            f"{len(with_change)} of {len(blocks)} blocks of ground hold a labelled change, {wanted} or more are wanted,"
            f" one each for training{', validation' if val else ''}{' and test' if test else ''}. Take smaller blocks"
            " (--block-m) or patches (--size-px), label more ground, or leave a side out (--test-frac 0)."
        )


def _draw_blocks(
    sizes: dict[tuple[int, int], int], sides: dict[str, float], *, seed: int, least: int
) -> dict[tuple[int, int], str]:
    """Return the held-out blocks with their sides; `least` blocks at least go to each side, training included."""
    left = sorted(sizes, key=lambda block: hashlib.sha256(f"{seed}:{block}".encode()).digest())
    owner: dict[tuple[int, int], str] = {}
    total = sum(sizes.values())
    owed = sum(share > 0 for share in sides.values()) + 1
    for side, share in sides.items():
        if share <= 0:
            continue
        owed -= 1
        taken = blocks = 0
        # A block is taken if that brings the side closer to its share, and enough is left for the other sides.
        while len(left) > owed * least and (blocks < least or taken + sizes[left[0]] / 2 <= share * total):
            block = left.pop(0)
            owner[block] = side
            taken, blocks = taken + sizes[block], blocks + 1
    return owner


def _assign_patches(used: Sequence[CutPatch], owner: dict[tuple[int, int], str]) -> SpatialSplit:
    """Sort patches by the side of their block."""
    sides: dict[str, list[CutPatch]] = {side: [] for side in (*SPATIAL_SUBSETS, "left_out")}
    for patch in used:
        side = owner.get(patch.cell.block, "train")
        sides["left_out" if side != "train" and patch.state == UNLABELLED else side].append(patch)
    return SpatialSplit(**{side: tuple(found) for side, found in sides.items()})


# ------------------------------------------------------------------------------------------------ leakage
def measure_leakage(division: SpatialSplit, *, size_px: int) -> Leakage:
    """Measure on the ground how close validation and test patches come to a training patch, labelled or not."""
    touching: dict[str, int] = {}
    nearest: dict[str, int | None] = {}
    train_N2 = _top_left_pixels(division.train)
    for side in ("val", "test"):
        held_M2 = _top_left_pixels(getattr(division, side))
        if not len(held_M2) or not len(train_N2):
            touching[side], nearest[side] = 0, None
            continue
        # Squares of one size: the gap is the larger of the gaps along rows and columns.
        gaps_M = cKDTree(train_N2).query(held_M2, p=math.inf)[0] - size_px
        touching[side], nearest[side] = int((gaps_M <= 0).sum()), max(0, int(gaps_M.min()))
    return Leakage(touching, nearest)


def _top_left_pixels(patches: Sequence[CutPatch]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return the top left pixels, N2."""
    return np.array([(patch.cell.row, patch.cell.col) for patch in patches], np.float64).reshape(-1, 2)
