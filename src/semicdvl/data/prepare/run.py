"""Two rasters and polygons of change -> training patches in the layout that `data.readers.folder` reads.

    DATA/A DATA/B DATA/label      PNG patches, GeoTIFFs of more bands than three; label 0 unchanged, 255 changed. A
                                  patch whose label is not known everywhere (outside the labelled area, no data) has
                                  no label file, or, with `min_known_frac` below 1, a label with 128 on its unknown
                                  pixels.
    DATA/label_A DATA/label_B     with class columns: the class before and after, 255 where nothing changed
    DATA/classes.toml             with class columns: the names of the classes
    DATA/list/train.txt val.txt test.txt
    DATA/patches.gpkg             the outline of every patch with its subset, to be looked at in a GIS
    DATA/patches.jsonl            the journal, one patch a line: an interrupted run resumes from it
    DATA/prepare.json             inputs, settings and what came out

Windows are read one by one, so memory does not grow with the rasters.
"""

from __future__ import annotations

import json
import math
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import rasterio
from rich.console import Console

from semicdvl.atomic_files import hash_file, hash_values, leave_nothing_if_refused, write_atomically, write_json
from semicdvl.data.labels.classes import LEGEND_FILE
from semicdvl.data.prepare.config import PrepareInputs, PrepareSettings
from semicdvl.data.prepare.labels import LabelLayers, read_label_layers
from semicdvl.data.prepare.outputs import PREPARE_FORMAT, PrepareRecord, make_record, write_outputs
from semicdvl.data.prepare.patch_cutter import cut_patches, open_journal
from semicdvl.data.prepare.results import PreparedPatches
from semicdvl.data.prepare.spatial_split import (
    SKIPPED,
    CutPatch,
    PatchCell,
    lay_out_patches,
    measure_leakage,
    require_enough_blocks,
    split_by_blocks,
)
from semicdvl.errors import ConfigError, DataError, InputError, OutputError
from semicdvl.outputs.exchange import sweep_unfinished_files
from semicdvl.outputs.locks import lock_argument
from semicdvl.raster.grid import Grid
from semicdvl.raster.io.inputs import is_local_name, resolve_input
from semicdvl.raster.io.pair_reader import RasterPair
from semicdvl.raster.registration.co_registration import open_registered_pair
from semicdvl.raster.vector.reading import GEODATABASE_TABLE
from semicdvl.reading.json_files import read_model
from semicdvl.reading.regular_files import resolve_links

CACHE_BYTES = 256 * 2**20
"""GDAL's memory for rows of the rasters that several patches share; its default is a twentieth of the machine's."""
MAX_BLOCK_PATCHES = 8
MIN_BLOCKS_WITH_CHANGE = 12
"""Without `block_m`, blocks are the largest (up to 8 x 8 patches) of which at least this many hold a change."""
MIN_UNUSED_FRAC = 0.005
"""A note says how much of the ground is in no patch from this share on."""
VECTOR_SUFFIXES_HASHED = frozenset({".gpkg", ".geojson", ".json", ".fgb", ".parquet"})
"""Inputs that are recognised by their content; rasters, which are large, by size and time of modification."""


@lock_argument("out")
def prepare_patches(
    before: Path,
    after: Path,
    out: Path,
    *,
    labels: Path,
    labelled_area: Path | None = None,
    settings: PrepareSettings | None = None,
    console: Console | None = None,
) -> PreparedPatches:
    """Cut two rasters into training patches; started again after an interruption, it resumes.

    Args:
        before: image of date 1.
        after: image of date 2; on another grid it is resampled, and moved if `settings.align` says so, see
            `raster.registration.co_registration`.
        out: folder to write.
        labels: polygons of what changed, in any CRS.
        labelled_area: polygons of the ground on which all change is in `labels`; None: all of it.
        settings: see `PrepareSettings`.
        console: where progress is shown; standard error unless given.

    Raises:
        InputError: an image or a vector file cannot be used, or they don't cover the same place.
        DataError: no patch fits, or there is too little labelled change to divide.
        OutputError: `out` holds something else, or cannot be written.
    """
    settings, out = settings or PrepareSettings(), Path(out)
    console = console or Console(stderr=True)
    inputs: PrepareInputs = {"before": before, "after": after, "labels": labels, "labelled_area": labelled_area}
    with ExitStack() as opened:
        opened.enter_context(rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES))
        registered = open_registered_pair(before, after, settings, allow_outside=settings.allow_outside)
        pair = opened.enter_context(registered.pair)
        source = pair.read_exactly() if settings.keeps_values else pair
        layers = read_label_layers(labels, labelled_area, grid=pair.grid, settings=settings)
        per_block = choose_block_patches(pair.grid, layers, settings)
        cells = _lay_out_pair(pair, settings, per_block)
        _require_blocks_with_change(pair.grid, layers, cells, settings)
        key = _make_key(inputs, settings)
        is_resumed = (out / "prepare.json").is_file()
        with leave_nothing_if_refused(out, keep=lambda: is_resumed):
            _start_folder(out, key, inputs, settings)
            patches = _cut_remaining(source, cells, out, layers=layers, settings=settings, console=console)
            if _make_key(inputs, settings) != key:
                problem = "the images or the polygons were changed while they were read"
                raise InputError(before, problem, "Run the same command again once they are complete")
            notes = _collect_notes(source, layers, cells, settings, unmoved=registered.note)
            prepared = _split_patches(
                out, pair, patches, per_block=per_block, layers=layers, settings=settings, notes=notes
            )
            write_outputs(prepared, pair.grid, key, inputs, settings)
    return prepared


def require_paths(**paths: Path | None) -> dict[str, Path]:
    """Return the paths that a preparation of rasters needs.

    Raises:
        ConfigError: one was not given.
    """
    missing = [f"--{name}" for name, path in paths.items() if path is None]
    if missing:
        raise ConfigError(
            f"prepare: {', '.join(missing)} missing. Give two rasters and polygons (--before B --after A --labels"
            " changes.gpkg -o DATA), or a published data set (levir-cd ROOT, whu-cd ROOT)."
        )
    return {name: path for name, path in paths.items() if path is not None}


# ------------------------------------------------------------------------------------------------ before cutting
def choose_block_patches(grid: Grid, layers: LabelLayers, settings: PrepareSettings) -> int:
    """Return how many patches a side of a block has.

    Raises:
        ConfigError: `block_m` is given, but the size of a pixel is not known.
    """
    if settings.block_m is not None:
        if grid.gsd_m is None:
            raise ConfigError("--block-m needs images with a CRS: the size of a pixel is not known. Leave it out.")
        return max(1, round(settings.block_m / grid.gsd_m / settings.size_px))
    for patches in range(MAX_BLOCK_PATCHES, 1, -1):
        side_px, pitch_px = patches * settings.size_px, patches * settings.size_px + settings.gap_px
        corners = [(row, col) for row in range(0, grid.height, pitch_px) for col in range(0, grid.width, pitch_px)]
        if len(corners) < MIN_BLOCKS_WITH_CHANGE:
            continue
        if len(layers.find_squares_with_change(grid, corners, side_px=side_px)) >= MIN_BLOCKS_WITH_CHANGE:
            return patches
    return 1


def _lay_out_pair(pair: RasterPair, settings: PrepareSettings, per_block: int) -> tuple[PatchCell, ...]:
    """Return the cells of the pair's grid, or say that none fits."""
    height, width = pair.shape_hw
    cells = lay_out_patches(height, width, size_px=settings.size_px, block_patches=per_block, buffer_px=settings.gap_px)
    if not cells:
        raise DataError(
            f"The images overlap on {height} x {width} px, where no patch of {settings.size_px} px fits."
            " Give a smaller --size-px."
        )
    return cells


def _require_blocks_with_change(
    grid: Grid, layers: LabelLayers, cells: tuple[PatchCell, ...], settings: PrepareSettings
) -> None:
    """Make sure, before anything is cut, that each subset can have a block with change."""
    corners = [(cell.row, cell.col) for cell in cells]
    with_change = layers.find_squares_with_change(grid, corners, side_px=settings.size_px)
    require_enough_blocks(
        {cells[index].block for index in with_change},
        {cell.block for cell in cells},
        val=settings.val_frac,
        test=settings.test_frac,
    )


def _make_key(inputs: PrepareInputs, settings: PrepareSettings) -> str:
    """Return the hash of inputs and settings by which a later run recognises the folder."""
    files = {name: _fingerprint_input(path) for name, path in inputs.items()}
    return hash_values(PREPARE_FORMAT, settings.list_key_parts(), files)


def _fingerprint_input(path: Path | None) -> Any:
    """Return what distinguishes one input from another: content of vectors, size and time of (large) rasters."""
    if path is None:
        return None
    path = Path(path)
    if not path.is_file():
        parts = [_stamp(part) for part in _list_parts(path)]
        return [str(path), *parts] if parts else str(path)
    return hash_file(path) if path.suffix.lower() in VECTOR_SUFFIXES_HASHED else _stamp(path)


def _list_parts(path: Path) -> list[Path]:
    """Return the local files of a mosaic or of a file geodatabase; none of an address."""
    if (path / GEODATABASE_TABLE).is_file():
        return sorted(part for part in path.iterdir() if part.is_file())
    return [Path(name) for name in resolve_input(path).gdal_names if is_local_name(name) and Path(name).is_file()]


def _stamp(path: Path) -> list[str | int]:
    """Return place, size and time of a file."""
    stat = path.stat()
    return [str(resolve_links(path)), stat.st_size, stat.st_mtime_ns]


def _start_folder(out: Path, key: str, inputs: PrepareInputs, settings: PrepareSettings) -> None:
    """Write the record of a started preparation, or refuse a folder that holds something else."""
    record = out / "prepare.json"
    if record.is_file():
        if read_model(record, PrepareRecord, remedy="Give a new folder with -o").key == key:
            return
        raise OutputError(f"{out}: holds patches of other inputs or settings. Give a new folder with -o.")
    if out.exists() and (not out.is_dir() or any(map(_holds_files, out.rglob("*")))):
        raise OutputError(f"{out}: exists and was not made by `semicdvl prepare`. Give a new folder with -o.")
    write_json(record, make_record("started", key, inputs, settings))


def _holds_files(path: Path) -> bool:
    """Tell whether a path is a file, or a link to a folder that is not empty: a walk does not go through it."""
    return not path.is_dir() or (path.is_symlink() and any(path.iterdir()))


def _cut_remaining(
    pair: RasterPair,
    cells: tuple[PatchCell, ...],
    out: Path,
    *,
    layers: LabelLayers,
    settings: PrepareSettings,
    console: Console,
) -> tuple[CutPatch, ...]:
    """Cut the patches that an interrupted run has not cut yet, and return all of them."""
    if layers.classes is not None:
        _write_class_names(out / LEGEND_FILE, layers.classes.names)
    sweep_unfinished_files(out, depth=2)
    with open_journal(out) as journal:
        return tuple(cut_patches(pair, cells, journal, layers=layers, settings=settings, console=console))


def _write_class_names(path: Path, names: tuple[str, ...]) -> None:
    """Write the file that names the classes."""
    with write_atomically(path) as temporary:
        temporary.write_text(f"names = {json.dumps(names, ensure_ascii=False)}\n", encoding="utf-8")


# ------------------------------------------------------------------------------------------------ after cutting
def _split_patches(
    out: Path,
    pair: RasterPair,
    patches: tuple[CutPatch, ...],
    *,
    per_block: int,
    layers: LabelLayers,
    settings: PrepareSettings,
    notes: tuple[str, ...],
) -> PreparedPatches:
    """Assign the patches to subsets and measure how far these are apart."""
    split = split_by_blocks(patches, val_frac=settings.val_frac, test_frac=settings.test_frac, seed=settings.seed)
    return PreparedPatches(
        out=out,
        size_px=settings.size_px,
        gsd_m=pair.gsd_m,
        block_patches=per_block,
        split=split,
        skipped=sum(patch.state == SKIPPED for patch in patches),
        leakage=measure_leakage(split, size_px=settings.size_px),
        notes=notes,
        classes=() if layers.classes is None else layers.classes.names,
        kept_bands=len(settings.bands or ()) if settings.keeps_values else 0,
    )


def _collect_notes(
    pair: RasterPair,
    layers: LabelLayers,
    cells: tuple[PatchCell, ...],
    settings: PrepareSettings,
    *,
    unmoved: str | None,
) -> tuple[str, ...]:
    """Say in sentences what a user of the data should know; `unmoved` is why the images were not co-registered."""
    unused_frac = 1 - len(cells) * settings.size_px**2 / math.prod(pair.shape_hw)
    notes = [*pair.notes, *layers.describe_repairs()]
    if unmoved is not None:
        notes.append(f"{unmoved}.")
    if layers.area is None:
        notes.append("Without --labelled-area all ground outside the polygons counts as unchanged.")
    if unused_frac >= MIN_UNUSED_FRAC:
        notes.append(f"{unused_frac:.0%} of the ground lies in gaps between blocks or at the edge and is in no patch.")
    return tuple(notes)
