"""The files of a preparation beside the patches: subset lists, patch outlines and the record."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import geopandas as gpd
import shapely
from pydantic import BaseModel, Field

from semicdvl.atomic_files import write_atomically, write_json
from semicdvl.data.change_dataset import SUBSETS
from semicdvl.data.patch_files import list_patch_files
from semicdvl.data.prepare.config import PrepareInputs, PrepareSettings
from semicdvl.data.prepare.results import PreparedPatches
from semicdvl.data.prepare.spatial_split import LABELLED, CutPatch
from semicdvl.raster.grid import Grid
from semicdvl.raster.vector.files import write_vector

PREPARE_FORMAT = "semicdvl-prepare-1"


class PrepareRecord(BaseModel):
    """What a later run needs of prepare.json; the names are stored.

    Attributes:
        key: hash of inputs and settings.
    """

    format: Literal["semicdvl-prepare-1"]
    status: Literal["started", "finished"]
    key: str = Field(max_length=64)


def write_outputs(
    prepared: PreparedPatches, grid: Grid, key: str, inputs: PrepareInputs, settings: PrepareSettings
) -> None:
    """Write lists, outlines and record, and delete the patches that no subset may use.

    Args:
        prepared: what was made.
        grid: of the raster pair.
        key: hash of inputs and settings, by which a later run recognises the folder.
        inputs: the files that were read.
        settings: the settings of the preparation.

    Raises:
        OutputError: the folder cannot be written.
    """
    _write_lists(prepared, suffix=settings.image_suffix)
    write_vector(prepared.out / "patches.gpkg", _make_outlines(prepared, grid), layer="patches")
    for patch in prepared.split.left_out:
        for path in list_patch_files(prepared.out, patch.cell.name, suffix=settings.image_suffix):
            path.unlink(missing_ok=True)
    record = make_record("finished", key, inputs, settings)
    write_json(prepared.out / "prepare.json", {**record, "result": _make_result(prepared)})


def make_record(status: str, key: str, inputs: PrepareInputs, settings: PrepareSettings) -> dict[str, Any]:
    """Return the content of prepare.json; `status` is "started" or "finished"."""
    paths = {name: path and str(Path(path).absolute()) for name, path in inputs.items()}
    return {"format": PREPARE_FORMAT, "status": status, "key": key, "inputs": paths, "settings": asdict(settings)}


def _write_lists(prepared: PreparedPatches, *, suffix: str) -> None:
    """Write the names of each subset that has patches; delete the list of one that has none."""
    for subset in SUBSETS:
        names = [f"{patch.cell.name}{suffix}\n" for patch in getattr(prepared.split, subset)]
        path = prepared.out / "list" / f"{subset}.txt"
        if not names:
            path.unlink(missing_ok=True)
            continue
        with write_atomically(path) as temporary:
            temporary.write_text("".join(names), encoding="utf-8")


def _make_result(prepared: PreparedPatches) -> dict[str, Any]:
    """Return what prepare.json says of the patches."""
    counts = [asdict(stats) for stats in prepared.subset_stats]
    return {
        "patches": [{"side": each.pop("subset"), **each} for each in counts],
        "skipped": prepared.skipped,
        "left_out": len(prepared.split.left_out),
        "block_patches": prepared.block_patches,
        "gsd_m": prepared.gsd_m,
        "leakage": asdict(prepared.leakage),
        "notes": list(prepared.notes),
    }


def _make_outlines(prepared: PreparedPatches, grid: Grid) -> gpd.GeoDataFrame:
    """Return one row per patch: its outline, subset and shares of known, changed and valid pixels."""
    rows = [
        _make_outline(patch, subset, grid, size_px=prepared.size_px)
        for subset in (*SUBSETS, "left_out")
        for patch in getattr(prepared.split, subset)
    ]
    return gpd.GeoDataFrame(rows, geometry="geometry", crs=None if grid.crs is None else grid.crs.to_wkt())


def _make_outline(patch: CutPatch, subset: str, grid: Grid, *, size_px: int) -> dict[str, Any]:
    """Return the row of one patch."""
    bounds = grid.window(patch.cell.row, patch.cell.col, size_px, size_px).bounds
    return {
        "name": patch.cell.name,
        "side": subset,
        "labelled": patch.state == LABELLED,
        "changed_frac": patch.changed_px / patch.known_px if patch.known_px else math.nan,
        "known_frac": patch.known_px / size_px**2,
        "valid_frac": patch.valid_px / size_px**2,
        "geometry": shapely.MultiPolygon([shapely.box(*bounds)]),
    }
