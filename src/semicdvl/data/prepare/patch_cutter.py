"""Cells of a raster pair -> patches on disk, one by one, with a journal by which an interrupted run goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from semicdvl.atomic_files import make_output_error
from semicdvl.data.patch_files import CHANGED, UNCHANGED, UNKNOWN, list_patch_files, write_patch
from semicdvl.data.prepare.polygon_layer import PolygonLayer
from semicdvl.data.prepare.spatial_split import LABELLED, SKIPPED, UNLABELLED, CutPatch, PatchCell
from semicdvl.errors import OutputError
from semicdvl.raster.io.pair_reader import RasterPair

if TYPE_CHECKING:
    from semicdvl.data.prepare.run import PrepareSettings


class PatchJournal:
    """Patches that are done, by name; new ones are appended to the file as they come."""

    def __init__(self, done: dict[str, CutPatch], handle: TextIO) -> None:
        """Take what is done and the file to append to."""
        self.patches, self.handle = done, handle

    def append(self, patch: CutPatch) -> None:
        """Write one line, now."""
        values = {name: value for name, value in asdict(patch).items() if name != "cell"}
        self.handle.write(json.dumps({"row": patch.cell.row, "col": patch.cell.col, **values}) + "\n")
        self.handle.flush()

    def __enter__(self) -> PatchJournal:
        """Return the journal itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.handle.close()


def open_journal(out: Path) -> PatchJournal:
    """Open the journal of a folder, less what a killed run left of its last line.

    Raises:
        OutputError: it cannot be written, or is damaged.
    """
    path = out / "patches.jsonl"
    done: dict[str, CutPatch] = {}
    try:
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
            if line.endswith("}"):
                values = json.loads(line)
                cell = PatchCell(values.pop("row"), values.pop("col"), (0, 0))
                done[cell.name] = CutPatch(cell, **values)
        handle = path.open("a", encoding="utf-8")
    except OSError as error:
        raise make_output_error(path, error) from error
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{path}: is damaged ({error}). Delete it to cut the patches again.") from error
    handle.write("\n")  # ends a broken line; empty lines are nothing
    return PatchJournal(done, handle)


def cut_patches(
    pair: RasterPair,
    cells: tuple[PatchCell, ...],
    journal: PatchJournal,
    *,
    changes: PolygonLayer,
    area: PolygonLayer | None,
    settings: PrepareSettings,
    console: Console,
) -> Iterator[CutPatch]:
    """Yield every cell's patch, cut now or found done."""
    out = Path(journal.handle.name).parent
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("patches"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True) as shown:
        for cell in shown.track(cells, description="cutting"):
            known = journal.patches.get(cell.name)
            if known is not None and (known.state == SKIPPED or list_patch_files(out, cell.name)[0].is_file()):
                yield CutPatch(cell, known.state, known.valid_px, known.known_px, known.changed_px)
                continue
            patch = _cut_patch(pair, cell, out, changes=changes, area=area, settings=settings)
            journal.append(patch)
            yield patch


def _cut_patch(
    pair: RasterPair,
    cell: PatchCell,
    out: Path,
    *,
    changes: PolygonLayer,
    area: PolygonLayer | None,
    settings: PrepareSettings,
) -> CutPatch:
    """Read one cell and write its files."""
    side = settings.size_px
    window = pair.read(cell.row, cell.col, side, side)
    valid_px = int(window.valid_HW.sum())
    if valid_px == 0 or valid_px < settings.min_valid_frac * side**2:
        return CutPatch(cell, SKIPPED, valid_px)
    grid = pair.grid.window(cell.row, cell.col, side, side)
    known_HW = window.valid_HW if area is None else window.valid_HW & area.rasterize_mask(grid)
    known_px = int(known_HW.sum())
    if known_px == 0 or known_px < settings.min_known_frac * side**2:
        write_patch(out, cell.name, window.t1_HWC, window.t2_HWC, None)
        return CutPatch(cell, UNLABELLED, valid_px)
    changed_HW = changes.rasterize_mask(grid) & known_HW
    label_HW = np.where(changed_HW, CHANGED, np.where(known_HW, UNCHANGED, UNKNOWN)).astype(np.uint8)
    write_patch(out, cell.name, window.t1_HWC, window.t2_HWC, label_HW)
    return CutPatch(cell, LABELLED, valid_px, known_px, int(changed_HW.sum()))
