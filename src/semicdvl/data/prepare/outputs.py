"""What `prepare` writes beside the patches: lists, outlines and the record; and what it says in words."""

from __future__ import annotations

import math
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import shapely

from semicdvl.atomic_files import write_atomically, write_json
from semicdvl.data.patch_files import LABEL_VALUES_OPTION, list_patch_files
from semicdvl.data.prepare.spatial_split import LABELLED, SPATIAL_SUBSETS
from semicdvl.raster.grid import Grid
from semicdvl.raster.vector.files import write_vector

if TYPE_CHECKING:
    from semicdvl.data.prepare.polygon_layer import PolygonLayer
    from semicdvl.data.prepare.run import PreparedPatches, PrepareSettings
    from semicdvl.data.prepare.spatial_split import PatchCell
    from semicdvl.raster.io.pair_reader import RasterPair

PREPARE_FORMAT = "semicdvl-prepare-1"
PrepareInputs = dict[str, Path | None]
SMALL_RECIPE_CROP_PX = 128
"""What the small recipes crop."""


def write_outputs(
    prepared: PreparedPatches, grid: Grid, key: str, inputs: PrepareInputs, settings: PrepareSettings
) -> None:
    """Write lists, outlines and record; take away patches that no side may use."""
    out, division = prepared.out, prepared.split
    for side in SPATIAL_SUBSETS:
        names = [f"{patch.cell.name}.png\n" for patch in getattr(division, side)]
        path = out / "list" / f"{side}.txt"
        if not names:
            path.unlink(missing_ok=True)
            continue
        with write_atomically(path) as part:
            part.write_text("".join(names), encoding="utf-8")
    write_vector(out / "patches.gpkg", _make_outlines(prepared, grid), layer="patches")
    for patch in division.left_out:
        for path in list_patch_files(out, patch.cell.name):
            path.unlink(missing_ok=True)
    columns = ("side", "labelled", "unlabelled", "changed_frac", "unknown_frac")
    result = {
        "patches": [dict(zip(columns, row, strict=True)) for row in prepared.subset_rows],
        "skipped": prepared.skipped,
        "left_out": len(division.left_out),
        "block_patches": prepared.block_patches,
        "gsd_m": prepared.gsd_m,
        "leakage": asdict(prepared.leakage),
        "notes": list(prepared.notes),
    }
    write_json(out / "prepare.json", {**make_record("finished", key, inputs, settings), "result": result})


def make_record(status: str, key: str, inputs: PrepareInputs, settings: PrepareSettings) -> dict[str, Any]:
    """Return what prepare.json says of a run."""
    paths = {name: path and str(Path(path).absolute()) for name, path in inputs.items()}
    return {"format": PREPARE_FORMAT, "status": status, "key": key, "inputs": paths, "settings": asdict(settings)}


def _make_outlines(prepared: PreparedPatches, grid: Grid) -> gpd.GeoDataFrame:
    """Return one row per patch: its outline and what it is."""
    side_px = prepared.size_px
    rows: list[dict[str, Any]] = []
    for side in (*SPATIAL_SUBSETS, "left_out"):
        for patch in getattr(prepared.split, side):
            outline = shapely.box(*grid.window(patch.cell.row, patch.cell.col, side_px, side_px).bounds)
            rows.append(
                {
                    "name": patch.cell.name,
                    "side": side,
                    "labelled": patch.state == LABELLED,
                    "changed_frac": patch.changed_px / patch.known_px if patch.known_px else math.nan,
                    "known_frac": patch.known_px / side_px**2,
                    "valid_frac": patch.valid_px / side_px**2,
                    "geometry": shapely.MultiPolygon([outline]),
                }
            )
    return gpd.GeoDataFrame(rows, geometry="geometry", crs=None if grid.crs is None else grid.crs.to_wkt())


# ------------------------------------------------------------------------------------------------ words
def collect_notes(
    pair: RasterPair,
    changes: PolygonLayer,
    area: PolygonLayer | None,
    cells: tuple[PatchCell, ...],
    settings: PrepareSettings,
) -> tuple[str, ...]:
    """Say what a user of the data should know."""
    unused = 1 - len(cells) * settings.size_px**2 / math.prod(pair.shape_hw)
    notes = [*pair.notes, *changes.describe_repairs(), *(area.describe_repairs() if area else ())]
    if area is None:
        notes.append("Without --labelled-area all ground outside the polygons counts as unchanged.")
    if unused >= 0.005:
        notes.append(f"{unused:.0%} of the ground lies in gaps between blocks or at the edge and is in no patch.")
    return tuple(notes)


def format_summary(prepared: PreparedPatches) -> str:
    """Return what came out, and what can be done with it next, for the console."""
    division, leaks = prepared.split, prepared.leakage
    lines = [
        f"{side:5} {labelled:6} labelled, {unlabelled:6} unlabelled, {changed:7.2%} of the labelled ground changed"
        + (f", {unknown:.1%} not known" if unknown else "")
        for side, labelled, unlabelled, changed, unknown in prepared.subset_rows
    ]
    lines.append(
        f"skipped: {prepared.skipped} with too little data; left out: {len(division.left_out)} unlabelled ones"
        " on the ground of validation and test"
    )
    for side in ("val", "test"):
        if (nearest := leaks.nearest_px.get(side)) is not None:
            held = len(getattr(division, side))
            lines.append(
                f"leakage: {leaks.touching[side]} of {held} {side} patches touch a training patch;"
                f" the smallest gap is {nearest} px"
            )
    if any(unknown for *_, unknown in prepared.subset_rows):
        lines.append(
            f"note: Labels hold 128 where nothing is known; recipes need data.label_values={LABEL_VALUES_OPTION}"
        )
    lines += [f"note: {note}" for note in prepared.notes]
    return "\n".join(
        [
            *lines,
            f"patches: {prepared.out}, to look at: {prepared.out / 'patches.gpkg'}",
            "next:",
            *(f"  {command}" for command in suggest_next_commands(prepared)),
        ]
    )


def suggest_next_commands(prepared: PreparedPatches) -> list[str]:
    """Return the commands that train on the patches."""
    data, run = shlex.quote(str(prepared.out)), shlex.quote(f"runs/{prepared.out.name}")
    settings = [f"--set data.root={data}", "--set data.labelled=1.0"]
    if any(unknown for *_, unknown in prepared.subset_rows):
        settings.append(f"--set 'data.label_values={LABEL_VALUES_OPTION}'")
    if prepared.size_px < SMALL_RECIPE_CROP_PX:
        settings.append(f"--set data.crop_px={prepared.size_px}")
    _, _, unlabelled, _, _ = prepared.subset_rows[0]
    if not unlabelled:
        return [f"semicdvl train recipes/small-supervised.toml -o {run} {' '.join(settings)}"]
    store = shlex.quote(f"{prepared.out}-store")
    gsd = "" if prepared.gsd_m is None else f" --gsd {prepared.gsd_m:.3g}"
    return [
        f"semicdvl pseudo {data} -o {store}{gsd}",
        f"semicdvl train recipes/small-semicd_vl.toml -o {run} {' '.join(settings)} --set pseudo.store={store}",
    ]
