"""A pair of rasters -> patches on disk, spread over the raster; patches that exist are not cut again.

PATCHES/A PATCHES/B            PNG patches, black where either date has no data
PATCHES/list/train.txt         those that are trained on, written once all have pseudo-labels
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from semicdvl.atomic_files import write_atomically, write_json
from semicdvl.data.pairs import read_pair
from semicdvl.data.patch_files import list_patch_files, write_patch
from semicdvl.data.prepare.spatial_split import PatchCell
from semicdvl.errors import DataError, InputError
from semicdvl.raster.io.pair_reader import RasterPair
from semicdvl.training.self_training.config import MIN_PATCH_PX
from semicdvl.types import PairFiles


def place_patches(height: int, width: int, *, side_px: int, max_patches: int) -> tuple[PatchCell, ...]:
    """Return the places of the patches: evenly over the raster, edges included, neighbours overlapping by half at most.

    Args:
        height: of the raster.
        width: of the raster.
        side_px: of a patch; not longer than either.
        max_patches: patches; where that many would overlap by more than half there are fewer.
    """
    counts = [math.ceil((length - side_px) / (side_px / 2)) + 1 for length in (height, width)]
    if counts[0] * counts[1] > max_patches:
        share = math.sqrt(max_patches / (counts[0] * counts[1]))
        # the shorter side first: it may have a single row of patches, and the other one then has all of them
        short = 0 if counts[0] <= counts[1] else 1
        counts[short] = max(1, int(counts[short] * share))
        counts[1 - short] = max(1, min(counts[1 - short], max_patches // counts[short]))
    rows, cols = (_space_evenly(length - side_px, count) for length, count in zip((height, width), counts, strict=True))
    return tuple(PatchCell(row, col, (0, 0)) for row in rows for col in cols)


def _space_evenly(last: int, count: int) -> list[int]:
    """Return `count` even steps from 0 to `last`; a single one is in the middle."""
    return [last // 2] if count == 1 else sorted({round(at * last / (count - 1)) for at in range(count)})


def choose_patch_size(pair: RasterPair, patch_px: int) -> int:
    """Return the side of the patches of a pair.

    Raises:
        DataError: the overlap is too small for any.
    """
    side = min(patch_px, *pair.shape_hw)
    if side < MIN_PATCH_PX:
        height, width = pair.shape_hw
        raise DataError(
            f"the images overlap on {height} x {width} px, which is too small to train on: at least {MIN_PATCH_PX} px "
            "are needed in both directions. Use `semicdvl detect` without a model."
        )
    return side


def cut_pair_patches(
    pair: RasterPair, cells: Sequence[PatchCell], root: Path, *, side_px: int, min_valid_frac: float, console: Console
) -> tuple[PairFiles, ...]:
    """Write the patches that hold enough data and return them, row by row.

    Raises:
        InputError: a file is damaged, or no patch holds enough data.
        OutputError: the folder cannot be written.
    """
    skipped = root / "skipped"  # empty files, so that a second run need not read the raster again
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("patches"))
    pairs = []
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True) as shown:
        for cell in shown.track(cells, description="cutting"):
            before, after, _ = list_patch_files(root, cell.name)
            if not after.is_file() and not (skipped / f"{cell.name}.json").is_file():
                window = pair.read(cell.row, cell.col, side_px, side_px)
                if window.valid_HW.mean() >= max(min_valid_frac, 1 / side_px**2):
                    write_patch(root, cell.name, window.t1_HWC, window.t2_HWC, None)  # the second date comes last
                else:
                    write_json(skipped / f"{cell.name}.json", {"valid_frac": float(window.valid_HW.mean())})
            if after.is_file():
                pairs.append(PairFiles(cell.name, before, after))
    if not pairs:
        raise InputError(
            pair.after.path,
            f"has no patch of {side_px} px with data in both dates on at least {min_valid_frac:.0%}",
            "Check both images' no-data values, or give a smaller --patch-px",
        )
    return tuple(pairs)


def find_nodata_pixels(pair: PairFiles) -> NDArray[np.bool_]:
    """Return where a patch has no data: there both dates are black."""
    arrays = read_pair(pair, with_label=False)
    none_HW: NDArray[np.bool_] = (arrays.t1_HWC.max(axis=-1) == 0) & (arrays.t2_HWC.max(axis=-1) == 0)
    return none_HW


def write_train_list(root: Path, pairs: Sequence[PairFiles]) -> None:
    """Write which patches are trained on."""
    with write_atomically(root / "list" / "train.txt") as temporary:
        temporary.write_text("".join(f"{pair.name}\n" for pair in pairs), encoding="utf-8")
