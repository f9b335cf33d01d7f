"""Two rasters and polygons of change -> training patches in the layout that `data.readers.folder` reads.

    DATA/A DATA/B DATA/label      PNG patches; label 0 unchanged, 255 changed. Patches not wholly known (outside
                                  the labelled area, no data) have no label file; or, where that is asked for, 128
                                  on their unknown pixels.
    DATA/list/train.txt val.txt test.txt
    DATA/patches.gpkg             the outline of every patch with its side, for a look at it in a GIS
    DATA/patches.jsonl            what was cut so far, one patch a line: an interrupted run goes on from here
    DATA/prepare.json             from what, with which settings, and what came out

Windows are read one by one, so memory does not grow with the rasters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import rasterio
import shapely
from rich.console import Console

from semicdvl.atomic_files import hash_file, hash_values, read_json, write_json
from semicdvl.data.prepare.outputs import (
    PREPARE_FORMAT,
    PrepareInputs,
    collect_notes,
    format_summary,
    make_record,
    write_outputs,
)
from semicdvl.data.prepare.patch_cutter import cut_patches, open_journal
from semicdvl.data.prepare.polygon_layer import PolygonLayer, read_polygons
from semicdvl.data.prepare.spatial_split import (
    LABELLED,
    SKIPPED,
    SPATIAL_SUBSETS,
    CutPatch,
    Leakage,
    PatchCell,
    SpatialSplit,
    lay_out_patches,
    measure_leakage,
    require_enough_blocks,
    split_by_blocks,
)
from semicdvl.errors import ConfigError, DataError, InputError, OutputError
from semicdvl.raster.grid import Grid
from semicdvl.raster.io.pair_reader import RasterPair, open_pair

CACHE_BYTES = 256 * 2**20
"""Memory for rows of the rasters that several patches share; GDAL would take a twentieth of the machine's."""
MAX_BLOCK_PATCHES = 8
MIN_BLOCKS_WITH_CHANGE = 12
"""Without `block_m`, blocks are the largest (up to 8 x 8 patches) of which this many hold a change."""


@dataclass(frozen=True)
class PrepareSettings:
    """How rasters are cut.

    Attributes:
        size_px: side of a patch.
        val_frac: share of the labelled patches for validation; 0: none.
        test_frac: share of the labelled patches for test; 0: none.
        block_m: side of the blocks of ground that go to one side as a whole; None: see `LEAST_BLOCKS`.
        buffer_px: unused gap between blocks; None: a quarter of a patch.
        seed: of the draw of blocks.
        min_valid_frac: patches with less data (in both dates) are skipped.
        min_known_frac: share of a patch on which the label must be known (labelled area, data in both dates); patches
            with less are unlabelled ones. Below 1, labels hold 128 where it is not, and recipes must say so.
        layer: of the labels' file, where it has several.
        area_layer: the same of the labelled area's file.
        bands: 1-based numbers of red, green and blue; None: as tagged, or the first three.
    """

    size_px: int = 256
    val_frac: float = 0.15
    test_frac: float = 0.25
    block_m: float | None = None
    buffer_px: int | None = None
    seed: int = 0
    min_valid_frac: float = 0.5
    min_known_frac: float = 1.0
    layer: str | None = None
    area_layer: str | None = None
    bands: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be cut.

        Raises:
            ConfigError: a size or share is out of range.
        """
        if self.size_px < 32 or self.gap_px < 0:
            raise ConfigError(f"patches of {self.size_px} px, {self.gap_px} px apart: at least 32 px and 0 px wanted.")
        if min(self.val_frac, self.test_frac) < 0 or self.val_frac + self.test_frac >= 1:
            raise ConfigError(
                f"shares of {self.val_frac:g} for validation and {self.test_frac:g} for test leave nothing to train"
                " with. Give shares from 0 whose sum is below 1."
            )
        if not 0 < self.min_known_frac <= 1:
            raise ConfigError(f"min_known_frac is {self.min_known_frac:g}: a share above 0 and up to 1 is wanted.")
        if self.block_m is not None and self.block_m <= 0:
            raise ConfigError(f"blocks of {self.block_m:g} m: a positive length is wanted.")

    @property
    def gap_px(self) -> int:
        """The gap between blocks in pixels."""
        return self.size_px // 4 if self.buffer_px is None else self.buffer_px


@dataclass(frozen=True)
class PreparedPatches:
    """What came out.

    Attributes:
        out: the folder.
        size_px: side of a patch.
        gsd_m: metres per pixel, None if not known.
        block_patches: patches along a side of a block.
        split: the patches by side.
        skipped: cells with too little data.
        leakage: how close the sides come to each other.
        notes: what a user of the data should know.
    """

    out: Path
    size_px: int
    gsd_m: float | None
    block_patches: int
    split: SpatialSplit
    skipped: int
    leakage: Leakage
    notes: tuple[str, ...]

    @property
    def subset_rows(self) -> list[tuple[str, int, int, float, float]]:
        """Side, labelled patches, unlabelled patches, share of known pixels that changed, share that is not known."""
        found = []
        for side in SPATIAL_SUBSETS:
            patches: tuple[CutPatch, ...] = getattr(self.split, side)
            labelled = [patch for patch in patches if patch.state == LABELLED]
            known = sum(patch.known_px for patch in labelled)
            changed = sum(patch.changed_px for patch in labelled) / max(known, 1)
            unknown = 1 - known / max(len(labelled) * self.size_px**2, 1) if labelled else 0.0
            found.append((side, len(labelled), len(patches) - len(labelled), changed, unknown))
        return found

    @property
    def summary(self) -> str:
        """All of that in a few lines, with the commands that come next."""
        return format_summary(self)


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
    """Cut two rasters into training patches; started again after an interruption, it goes on.

    Args:
        before: image of date 1.
        after: image of date 2; on another grid it is resampled, see `raster.io.pair_reader.open_pair`.
        out: folder to write.
        labels: polygons of what changed, in any CRS.
        labelled_area: polygons of the ground on which all change is in `labels`; None: all of it is.
        settings: see `PrepareSettings`.
        console: where progress is shown; standard error unless given.

    Raises:
        InputError: an image or a vector file cannot be used, or they lie apart.
        DataError: no patch fits, or there is too little labelled change to divide.
        OutputError: `out` holds something else, or cannot be written.
    """
    settings, out = settings or PrepareSettings(), Path(out)
    console = console or Console(stderr=True)
    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES), open_pair(Path(before), Path(after), bands=settings.bands) as pair:
        changes = read_polygons(Path(labels), grid=pair.grid, layer=settings.layer)
        area = _read_labelled_area(labelled_area, changes, pair.grid, settings)
        per_block = choose_block_patches(pair.grid, changes, area, settings)
        cells = _lay_out_pair(pair, settings, per_block)
        changed = _find_squares_with_change(
            pair.grid, [(cell.row, cell.col) for cell in cells], settings.size_px, changes, area
        )
        blocks = {cell.block for cell in cells}
        require_enough_blocks(
            {cells[index].block for index in changed}, blocks, val=settings.val_frac, test=settings.test_frac
        )
        inputs: PrepareInputs = {"before": before, "after": after, "labels": labels, "labelled_area": labelled_area}
        key = hash_values(
            PREPARE_FORMAT, asdict(settings), {name: _fingerprint_input(path) for name, path in inputs.items()}
        )
        _start_folder(out, key, inputs, settings)
        with open_journal(out) as journal:
            patches = tuple(
                cut_patches(pair, cells, journal, changes=changes, area=area, settings=settings, console=console)
            )
        division = split_by_blocks(
            patches, val_frac=settings.val_frac, test_frac=settings.test_frac, seed=settings.seed
        )
        prepared = PreparedPatches(
            out=out,
            size_px=settings.size_px,
            gsd_m=pair.gsd_m,
            block_patches=per_block,
            split=division,
            skipped=sum(patch.state == SKIPPED for patch in patches),
            leakage=measure_leakage(division, size_px=settings.size_px),
            notes=collect_notes(pair, changes, area, cells, settings),
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
def _read_labelled_area(
    path: Path | None, changes: PolygonLayer, grid: Grid, settings: PrepareSettings
) -> PolygonLayer | None:
    """Read the labelled area and make sure that some change lies in it."""
    if path is None:
        return None
    area = read_polygons(Path(path), grid=grid, layer=settings.area_layer)
    if not changes.intersects(area):
        raise InputError(
            changes.path,
            f"none of its {len(changes)} polygons on the images lies in the labelled area of {area.path.name}",
            "Give labels and area of the same place; the area must hold the changes that were drawn in it",
        )
    return area


def choose_block_patches(
    grid: Grid, changes: PolygonLayer, area: PolygonLayer | None, settings: PrepareSettings
) -> int:
    """Return how many patches a side of a block has.

    Raises:
        ConfigError: `block_m` is given, but the size of a pixel is not known.
    """
    if settings.block_m is not None:
        if grid.gsd_m is None:
            raise ConfigError("--block-m needs images with a CRS: the size of a pixel is not known. Leave it out.")
        return max(1, round(settings.block_m / grid.gsd_m / settings.size_px))
    for patches in range(MAX_BLOCK_PATCHES, 1, -1):
        side, pitch = patches * settings.size_px, patches * settings.size_px + settings.gap_px
        corners = [(row, col) for row in range(0, grid.height, pitch) for col in range(0, grid.width, pitch)]
        if (
            len(corners) >= MIN_BLOCKS_WITH_CHANGE
            and len(_find_squares_with_change(grid, corners, side, changes, area)) >= MIN_BLOCKS_WITH_CHANGE
        ):
            return patches
    return 1


def _find_squares_with_change(
    grid: Grid, corners: Sequence[tuple[int, int]], side_px: int, changes: PolygonLayer, area: PolygonLayer | None
) -> set[int]:
    """Return which of the squares with these top left pixels touch a change, and the labelled area."""
    boxes = [shapely.box(*grid.window(row, col, side_px, side_px).bounds) for row, col in corners]
    layers = (changes,) if area is None else (changes, area)
    touched = [set(layer.spatial_index.query(boxes, predicate="intersects")[0].tolist()) for layer in layers]
    return set.intersection(*touched)


def _lay_out_pair(pair: RasterPair, settings: PrepareSettings, per_block: int) -> tuple[PatchCell, ...]:
    """Return the cells of the pair's grid, or say that none fits."""
    height, width = pair.shape_hw
    cells = lay_out_patches(height, width, size_px=settings.size_px, block_patches=per_block, buffer_px=settings.gap_px)
    if not cells:
        raise DataError(
            f"the images overlap on {height} x {width} px, where no patch of {settings.size_px} px fits."
            " Give a smaller --size-px."
        )
    return cells


def _fingerprint_input(path: Path | None) -> Any:
    """Return what tells one input from another: content of vectors, size and time of (large) rasters."""
    if path is None:
        return None
    path = Path(path)
    if not path.is_file():
        return str(path)
    if path.suffix.lower() in {".gpkg", ".geojson", ".json", ".fgb", ".parquet"}:
        return hash_file(path)
    stat = path.stat()
    return [str(path.resolve()), stat.st_size, stat.st_mtime_ns]


def _start_folder(out: Path, key: str, inputs: PrepareInputs, settings: PrepareSettings) -> None:
    """Mark the folder as ours, or refuse one that holds something else."""
    record = out / "prepare.json"
    if record.is_file():
        known = read_json(record, remedy="Give a new folder with -o")
        if isinstance(known, dict) and known.get("key") == key:
            return
        raise OutputError(f"{out}: holds patches of other inputs or settings. Give a new folder with -o.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out}: exists and was not made by `semicdvl prepare`. Give a new folder with -o.")
    write_json(record, make_record("started", key, inputs, settings))
