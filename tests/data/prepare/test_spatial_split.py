"""Patches are assigned to subsets by blocks of ground, with gaps between them, and leakage is measured."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semicdvl.data.prepare.spatial_split import (
    LABELLED,
    UNLABELLED,
    CutPatch,
    PatchCell,
    SpatialSplit,
    lay_out_patches,
    measure_leakage,
    split_by_blocks,
)
from semicdvl.errors import DataError


@settings(max_examples=60, deadline=None)
@given(st.integers(33, 700), st.integers(33, 700), st.integers(1, 4), st.integers(0, 40), st.integers(0, 5))
def test_blocks_never_come_closer_than_the_gap(
    height: int, width: int, block_patches: int, gap: int, seed: int
) -> None:
    cells = lay_out_patches(height, width, size_px=32, block_patches=block_patches, buffer_px=gap)
    assert all(cell.row + 32 <= height and cell.col + 32 <= width for cell in cells)
    assert len({cell.name for cell in cells}) == len(cells) > 0
    patches = [CutPatch(cell, LABELLED if i % 5 else UNLABELLED, 1024, 1024, i % 3) for i, cell in enumerate(cells)]
    changed = {patch.cell.block for patch in patches if patch.state == LABELLED and patch.changed_px}
    if len(changed) < 3:
        with pytest.raises(DataError, match="hold a labelled change"):
            split_by_blocks(patches, val_frac=0.2, test_frac=0.3, seed=seed)
        return
    made = split_by_blocks(patches, val_frac=0.2, test_frac=0.3, seed=seed)
    for side_patches in (made.train, made.val, made.test):
        assert any(patch.changed_px for patch in side_patches if patch.state == LABELLED)
    assert sum(len(each) for each in vars(made).values()) == len(patches)
    found = measure_leakage(made, size_px=32)
    assert all(nearest is None or nearest >= gap for nearest in found.nearest_px.values())
    if gap:
        assert not any(found.touching.values())


def test_leakage_is_measured() -> None:
    train, near, far = (CutPatch(PatchCell(row, col, (0, 0)), LABELLED) for row, col in ((0, 0), (32, 32), (40, 71)))
    found = measure_leakage(SpatialSplit(train=(train,), test=(near, far)), size_px=32)
    assert found.touching == {"val": 0, "test": 1} and found.nearest_px == {"val": None, "test": 0}
    assert measure_leakage(SpatialSplit(train=(train,), test=(far,)), size_px=32).nearest_px["test"] == 39
