"""Cut the cells of a raster pair into patches on disk, one by one, with a journal from which a run resumes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Literal, TextIO

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from semicdvl.data.patch_files import CHANGED, list_patch_files, write_band_image, write_patch, write_png
from semicdvl.data.prepare.config import PrepareSettings
from semicdvl.data.prepare.labels import LabelLayers
from semicdvl.data.prepare.spatial_split import LABELLED, SKIPPED, UNLABELLED, CutPatch, PatchCell
from semicdvl.errors import InputError, OutputError
from semicdvl.outputs.exchange import open_plain_file
from semicdvl.outputs.messages import make_output_error
from semicdvl.raster.io.pair_reader import PairWindow, RasterPair
from semicdvl.reading.json_files import parse_json
from semicdvl.text_files import read_text_file

CLASS_FOLDERS = ("label_A", "label_B")
"""Folders of the class maps of both dates."""


class PatchJournal:
    """The patches that were cut so far, by name; a new one is appended to the file at once.

    Attributes:
        patches: name of a patch -> the patch.
        handle: the open file.
    """

    def __init__(self, patches: dict[str, CutPatch], handle: TextIO) -> None:
        """Take the patches that the file holds and the file to append to."""
        self.patches, self.handle = patches, handle

    def append(self, patch: CutPatch) -> None:
        """Write one line and flush it."""
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
    """Open the journal of a folder; an incomplete last line, left by a killed run, is ignored.

    Raises:
        OutputError: it cannot be written, or is damaged.
    """
    path = out / "patches.jsonl"
    try:
        patches = _read_journal(path)
        handle = open(path, "a", encoding="utf-8", opener=open_plain_file)
    except OSError as error:
        raise make_output_error(path, error) from error
    except (ValueError, KeyError, TypeError, InputError) as error:
        raise OutputError(f"{path}: is damaged ({error}). Delete it to cut the patches again.") from error
    handle.write("\n")  # ends an incomplete line; empty lines are skipped when the file is read
    return PatchJournal(patches, handle)


def _read_journal(path: Path) -> dict[str, CutPatch]:
    """Return the patches of a journal by name."""
    patches: dict[str, CutPatch] = {}
    for line in read_text_file(path).split("\n") if path.is_file() else ():
        if line.endswith("}"):
            values = _JournalLine.model_validate(parse_json(line)).model_dump()
            cell = PatchCell(values.pop("row"), values.pop("col"), (0, 0))
            patches[cell.name] = CutPatch(cell, **values)
    return patches


class _JournalLine(BaseModel):
    """A line of the journal; the names are stored."""

    row: int = Field(ge=0)
    col: int = Field(ge=0)
    state: Literal["labelled", "unlabelled", "skipped"]
    valid_px: int = Field(ge=0)
    known_px: int = Field(0, ge=0)
    changed_px: int = Field(0, ge=0)


def cut_patches(
    pair: RasterPair,
    cells: tuple[PatchCell, ...],
    journal: PatchJournal,
    *,
    layers: LabelLayers,
    settings: PrepareSettings,
    console: Console,
) -> Iterator[CutPatch]:
    """Yield the patch of every cell; one that the journal has, and whose files are there, is not cut again.

    Args:
        pair: the open raster pair.
        cells: where to cut.
        journal: of the folder to write.
        layers: the polygons that labels are made from.
        settings: size, and how much data and known label a patch needs.
        console: where progress is shown.

    Raises:
        InputError: a window cannot be read.
        OutputError: the folder cannot be written.
    """
    out = Path(journal.handle.name).parent
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("patches"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True) as progress:
        for cell in progress.track(cells, description="cutting"):
            known = journal.patches.get(cell.name)
            first = list_patch_files(out, cell.name, suffix=settings.image_suffix)[0]
            if known is not None and (known.state == SKIPPED or first.is_file()):
                yield CutPatch(cell, known.state, known.valid_px, known.known_px, known.changed_px)
                continue
            patch = _cut_patch(pair, cell, out, layers=layers, settings=settings)
            journal.append(patch)
            yield patch


def _cut_patch(
    pair: RasterPair, cell: PatchCell, out: Path, *, layers: LabelLayers, settings: PrepareSettings
) -> CutPatch:
    """Read one cell and write its files."""
    side_px = settings.size_px
    window = pair.read(cell.row, cell.col, side_px, side_px)
    valid_px = int(window.valid_HW.sum())
    if valid_px == 0 or valid_px < settings.min_valid_frac * side_px**2:
        return CutPatch(cell, SKIPPED, valid_px)
    grid = pair.grid.window(cell.row, cell.col, side_px, side_px)
    known_HW = layers.find_known(grid, window.valid_HW)
    known_px = int(known_HW.sum())
    if known_px == 0 or known_px < settings.min_known_frac * side_px**2:
        _write_patch(out, cell, pair, window, None, settings=settings)
        return CutPatch(cell, UNLABELLED, valid_px)
    label_HW = layers.make_label(grid, known_HW)
    if layers.classes is not None:
        for folder, class_HW in zip(CLASS_FOLDERS, layers.make_classes(grid, known_HW), strict=True):
            write_png(out / folder / f"{cell.name}.png", class_HW)
    _write_patch(out, cell, pair, window, label_HW, settings=settings)
    return CutPatch(cell, LABELLED, valid_px, known_px, int((label_HW == CHANGED).sum()))


def _write_patch(
    out: Path,
    cell: PatchCell,
    pair: RasterPair,
    window: PairWindow,
    label_HW: NDArray[np.uint8] | None,
    *,
    settings: PrepareSettings,
) -> None:
    """Write the images and the label of a patch; the values of more bands than three as they are stored."""
    if not settings.keeps_values:
        write_patch(out, cell.name, window.t1_HWC, window.t2_HWC, label_HW)
        return
    assert settings.bands is not None
    grid = pair.grid.window(cell.row, cell.col, settings.size_px, settings.size_px)
    first, second, label = list_patch_files(out, cell.name, suffix=settings.image_suffix)
    if label_HW is not None:
        write_png(label, label_HW)
    for path, values_HWC, reader in ((first, window.t1_HWC, pair.before), (second, window.t2_HWC, pair.after)):
        write_band_image(path, values_HWC, grid=grid, dtype=reader.exact_dtype, source_bands=settings.bands)
