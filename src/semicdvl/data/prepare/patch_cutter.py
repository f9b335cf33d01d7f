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

from semicdvl.atomic_files import unwritable
from semicdvl.data.patch_files import CHANGED, UNCHANGED, UNKNOWN, files_of, write_patch
from semicdvl.data.prepare.polygon_layer import Polygons
from semicdvl.data.prepare.spatial_split import LABELLED, SKIPPED, UNLABELLED, Cell, Patch
from semicdvl.errors import OutputError
from semicdvl.raster.io.pair_reader import RasterPair

if TYPE_CHECKING:
    from semicdvl.data.prepare.run import PrepareSettings


class Journal:
    """Patches that are done, by name; new ones are appended to the file as they come."""

    def __init__(self, done: dict[str, Patch], handle: TextIO) -> None:
        """Take what is done and the file to append to."""
        self.done, self.handle = done, handle

    def add(self, patch: Patch) -> None:
        """Write one line, now."""
        values = {name: value for name, value in asdict(patch).items() if name != "cell"}
        self.handle.write(json.dumps({"row": patch.cell.row, "col": patch.cell.col, **values}) + "\n")
        self.handle.flush()

    def __enter__(self) -> Journal:
        """Return the journal itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.handle.close()


def open_journal(out: Path) -> Journal:
    """Open the journal of a folder, less what a killed run left of its last line.

    Raises:
        OutputError: it cannot be written, or is damaged.
    """
    path = out / "patches.jsonl"
    done: dict[str, Patch] = {}
    try:
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
            if line.endswith("}"):
                values = json.loads(line)
                cell = Cell(values.pop("row"), values.pop("col"), (0, 0))
                done[cell.name] = Patch(cell, **values)
        handle = path.open("a", encoding="utf-8")
    except OSError as error:
        raise unwritable(path, error) from error
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{path}: is damaged ({error}). Delete it to cut the patches again.") from error
    handle.write("\n")  # ends a broken line; empty lines are nothing
    return Journal(done, handle)


def cut(
    pair: RasterPair,
    cells: tuple[Cell, ...],
    journal: Journal,
    *,
    changes: Polygons,
    area: Polygons | None,
    settings: PrepareSettings,
    console: Console,
) -> Iterator[Patch]:
    """Yield every cell's patch, cut now or found done."""
    out = Path(journal.handle.name).parent
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("patches"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True) as shown:
        for cell in shown.track(cells, description="cutting"):
            known = journal.done.get(cell.name)
            if known is not None and (known.state == SKIPPED or files_of(out, cell.name)[0].is_file()):
                yield Patch(cell, known.state, known.valid_px, known.known_px, known.changed_px)
                continue
            patch = _cut_one(pair, cell, out, changes=changes, area=area, settings=settings)
            journal.add(patch)
            yield patch


def _cut_one(
    pair: RasterPair, cell: Cell, out: Path, *, changes: Polygons, area: Polygons | None, settings: PrepareSettings
) -> Patch:
    """Read one cell and write its files."""
    side = settings.size_px
    window = pair.read(cell.row, cell.col, side, side)
    valid_px = int(window.valid_HW.sum())
    if valid_px == 0 or valid_px < settings.min_valid_frac * side**2:
        return Patch(cell, SKIPPED, valid_px)
    grid = pair.grid.part(cell.row, cell.col, side, side)
    known_HW = window.valid_HW if area is None else window.valid_HW & area.mask(grid)
    known_px = int(known_HW.sum())
    if known_px == 0 or known_px < settings.min_known_frac * side**2:
        write_patch(out, cell.name, window.t1_HWC, window.t2_HWC, None)
        return Patch(cell, UNLABELLED, valid_px)
    changed_HW = changes.mask(grid) & known_HW
    label_HW = np.where(changed_HW, CHANGED, np.where(known_HW, UNCHANGED, UNKNOWN)).astype(np.uint8)
    write_patch(out, cell.name, window.t1_HWC, window.t2_HWC, label_HW)
    return Patch(cell, LABELLED, valid_px, known_px, int(changed_HW.sum()))
