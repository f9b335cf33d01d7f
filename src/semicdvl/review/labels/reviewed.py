"""A training set of a review, in one step: patches around the changes that a person has decided on.

Accepted changes are change. Rejected ones are not, and neither is the other ground of a patch: what the map missed has
to be drawn. Not known is the ground of changes that nobody decided on, and around places of unchanged ground of which
a person said that they did change. A patch that was painted in label mode is taken as it was painted.

Patches come from where the review corrects the map. Those where it only confirms it would teach that what the map
missed there is unchanged: on a synthetic city 8 painted patches with 13 such ones reached an IoU of 0.673, with the one
that was corrected 0.707, and alone 0.706. They are taken where the others hold no accepted change.

    OUT/reviewed-patches/A B label list    the patches; `train.toml` is the recipe that corrects the map with them
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.features import rasterize
from shapely import STRtree

from semicdvl.data.patch_files import CHANGED, UNCHANGED, UNKNOWN, list_patch_files, write_patch
from semicdvl.errors import DataError
from semicdvl.outputs.exchange import require_own_folder
from semicdvl.raster.grid import Grid
from semicdvl.review.labels.sources import LABEL_FOLDER, choose_patch_px, name_patch, read_stored_mask
from semicdvl.review.labels.training import choose_prompts, list_commands, write_lists, write_recipe
from semicdvl.review.session import PairSession
from semicdvl.review.store import Change

REVIEWED_FOLDER = "reviewed-patches"
"""In the folder of a result."""
MAX_PATCHES = 64
"""On a map of any size the training then takes minutes."""
MIN_KNOWN_FRAC = 0.5
MISSED_RADIUS_PX = 12
"""Around a place that changed though the map does not say so, this ground is not known."""


@dataclass(frozen=True)
class ReviewedPatches:
    """The training set that was written.

    Attributes:
        root: its folder.
        patches: number of patches.
        accepted: number of accepted changes in them.
        rejected: number of rejected ones.
        corrected: how many of both, and of places that changed, correct the map.
        painted: how many of the patches were painted in label mode.
        commands: what trains on them, maps the place anew and shows that map.
    """

    root: Path
    patches: int
    accepted: int
    rejected: int
    corrected: int
    painted: int
    commands: list[str]


@dataclass(frozen=True)
class ReviewedGround:
    """What a review says of the ground of a map.

    Attributes:
        grid: of the map.
        shapes: outlines in map coordinates: accepted, rejected and not decided changes, and missed ground.
        values: the label of each; UNCHANGED of a rejected one.
        corrects: bool, whether it says something else than the map: rejected, drawn, redrawn, missed.
    """

    grid: Grid
    shapes: Sequence[Any]
    values: NDArray[np.uint8]
    corrects: NDArray[np.bool_]

    @cached_property
    def spatial_index(self) -> STRtree:
        """The spatial index of the outlines."""
        return STRtree(list(self.shapes))

    def find(self, grid: Grid) -> NDArray[np.int64]:
        """Return the indices of the outlines that touch a window."""
        return np.sort(self.spatial_index.query(shapely.box(*grid.bounds), predicate="intersects"))

    def make_label(self, grid: Grid, valid_HW: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Return the label HW of a window: not known wins over unchanged, and accepted change over both."""
        label_HW = np.full((grid.height, grid.width), UNCHANGED, np.uint8)
        inside = self.find(grid)
        for value, touched in ((UNKNOWN, True), (CHANGED, False)):
            chosen = [(self.shapes[at], 1) for at in inside if self.values[at] == value]
            if chosen:
                mask_HW = rasterize(
                    chosen, label_HW.shape, transform=grid.transform, all_touched=touched, dtype="uint8"
                )
                label_HW[mask_HW == 1] = value
        return np.where(valid_HW, label_HW, UNKNOWN).astype(np.uint8)


def write_reviewed_patches(session: PairSession) -> ReviewedPatches:
    """Write the training set of a review as it is now; an earlier one is replaced.

    Raises:
        DataError: no change is accepted, so there is nothing to learn from.
        InputError: the images cannot be read.
        OutputError: the folder cannot be written.
    """
    changes, root = session.store.list_changes(), session.pair.folder / REVIEWED_FOLDER
    if not any(change.state == "accepted" for change in changes):
        raise DataError("No change is accepted yet, so there is nothing to learn. Accept or draw at least one.")
    ground, side_px = _gather_ground(session, changes), choose_patch_px(session.grid)
    painted = _find_painted(session.pair.folder / LABEL_FOLDER, side_px)
    places = dict.fromkeys([*choose_cells(ground, side_px=side_px, confirming=not painted), *painted])
    for folder in (root, *(path.parent for path in list_patch_files(root, ""))):
        require_own_folder(folder)  # what is there and not of this set is deleted
    written = [at for at in places if _write_cell(session, ground, root, (*at, side_px), painted.get(at))]
    if not written:
        raise DataError(
            "Too little of the ground around the accepted changes is known. Decide on their neighbours, too."
        )
    return _finish(session, root, ground, written, painted=painted, side_px=side_px)


def _gather_ground(session: PairSession, changes: Sequence[Change]) -> ReviewedGround:
    """Return what is known of the ground."""
    value_of = {"accepted": CHANGED, "rejected": UNCHANGED}
    shapes: list[Any] = [change.geometry for change in changes]
    values = [value_of.get(change.state, UNKNOWN) for change in changes]
    corrects = [one.state == "rejected" or (one.state == "accepted" and one.edited) for one in changes]
    radius = MISSED_RADIUS_PX * abs(session.grid.transform.a)
    for place in session.store.list_places():
        if place["mapped"] == 0 and place["truth"] == 1:
            x, y = session.grid.transform @ (place["col"] + 0.5, place["row"] + 0.5)
            shapes.append(shapely.Point(x, y).buffer(radius))
            values.append(UNKNOWN)
            corrects.append(True)
    return ReviewedGround(session.grid, shapes, np.array(values, np.uint8), np.array(corrects, bool))


def choose_cells(ground: ReviewedGround, *, side_px: int, confirming: bool = True) -> list[tuple[int, int]]:
    """Return the patches (row, col) in which the review corrects the map, those with the most decided changes first.

    They lie on the grid of `suggest`: whole patches from the top left, without overlap.

    Args:
        ground: what the review says.
        side_px: side of a patch.
        confirming: where no change is accepted in these, add the patches in which the review confirms the map.
    """
    decided_N, changed_N = np.isin(ground.values, (CHANGED, UNCHANGED)), ground.values == CHANGED
    found: dict[bool, list[tuple[int, int, int]]] = {True: [], False: []}
    has_change = False
    for row in range(0, ground.grid.height - side_px + 1, side_px):
        for col in range(0, ground.grid.width - side_px + 1, side_px):
            inside = ground.find(ground.grid.window(row, col, side_px, side_px))
            if decided_N[inside].any():
                corrects = bool(ground.corrects[inside].any())
                has_change |= corrects and bool(changed_N[inside].any())
                found[corrects].append((-int(decided_N[inside].sum()), row, col))
    chosen = sorted(found[True]) + (sorted(found[False]) if confirming and not has_change else [])
    return [(row, col) for _, row, col in chosen[:MAX_PATCHES]]


def _find_painted(root: Path, side_px: int) -> dict[tuple[int, int], NDArray[np.uint8]]:
    """Return the painted patches of the same size by place."""
    found = {}
    for path in sorted((root / "label").glob("r*_c*.png"))[:MAX_PATCHES]:
        row, _, col = path.stem.partition("_")
        if row[1:].isdecimal() and col[1:].isdecimal():
            mask_HW = read_stored_mask(path)
            if mask_HW is not None and mask_HW.shape == (side_px, side_px):
                found[int(row[1:]), int(col[1:])] = mask_HW
    return found


def _write_cell(
    session: PairSession,
    ground: ReviewedGround,
    root: Path,
    place: tuple[int, int, int],
    painted_HW: NDArray[np.uint8] | None,
) -> bool:
    """Write a patch; False where too little of it is known, or it is not on the map."""
    row, col, side_px = place
    if row + side_px > ground.grid.height or col + side_px > ground.grid.width:
        return False
    with session.open_images().borrow() as handle:
        t1_HWC, valid1_HW = handle.before.read(row, col, side_px, side_px)
        t2_HWC, valid2_HW = handle.after.read(row, col, side_px, side_px)
    label_HW = painted_HW
    if label_HW is None:
        label_HW = ground.make_label(ground.grid.window(row, col, side_px, side_px), valid1_HW & valid2_HW)
        if (label_HW != UNKNOWN).mean() < MIN_KNOWN_FRAC:
            return False
    write_patch(root, name_patch(row, col), t1_HWC, t2_HWC, label_HW)
    return True


def _finish(
    session: PairSession,
    root: Path,
    ground: ReviewedGround,
    written: Sequence[tuple[int, int]],
    *,
    painted: Mapping[tuple[int, int], Any],
    side_px: int,
) -> ReviewedPatches:
    """Remove patches of an earlier set, write list and recipe, and say what is in the set."""
    names = [name_patch(*place) for place in written]
    for path in sorted((root / "label").glob("*.png")):
        if path.stem not in names:
            for old in list_patch_files(root, path.stem):
                old.unlink(missing_ok=True)
    write_lists(root, names, [])
    facts, config = session.pair.facts, session.config
    assert facts is not None
    write_recipe(
        root,
        labels=[list_patch_files(root, name)[2] for name in names],
        patch_px=side_px,
        gsd_m=facts.grid.gsd_m or session.grid.gsd_m,
        prompts=choose_prompts(facts, config),
        validated=False,
        own_lists=False,
        corrects=True,
    )
    inside = {int(at) for row, col in written for at in ground.find(ground.grid.window(row, col, side_px, side_px))}
    corrected = int(ground.corrects[sorted(inside)].sum())
    accepted, rejected = (sum(ground.values[at] == value for at in inside) for value in (CHANGED, UNCHANGED))
    commands = list_commands(
        root,
        folder=session.pair.folder,
        before=config.before or facts.inputs.before.path,
        after=config.after or facts.inputs.after.path,
        settings=facts.given_settings,
    )
    return ReviewedPatches(
        root, len(names), int(accepted), int(rejected), corrected, len(set(written) & set(painted)), commands
    )
