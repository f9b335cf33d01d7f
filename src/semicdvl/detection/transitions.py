"""What became what: pixels of the change map by their classes at both dates, in the report and in run.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from semicdvl.detection.changes import DetectedChanges
from semicdvl.raster.io.georeference_warnings import ignore_not_georeferenced
from semicdvl.reports import html
from semicdvl.reports.colours import choose_class_colours
from semicdvl.reports.flow_chart import render_flow_chart
from semicdvl.reports.numbers import format_area

BLOCK_ROWS = 512
"""Rows that are read at a time."""


def count_transitions(
    change_HW: NDArray[np.uint8], t1_HW: NDArray[np.uint8], t2_HW: NDArray[np.uint8], *, classes: int
) -> NDArray[np.int64]:
    """Return the changed pixels by class at date 1 (row) and date 2 (column), KK; pixels without data don't count."""
    counted_HW = (change_HW == 1) & (t1_HW < classes) & (t2_HW < classes)
    codes = t1_HW[counted_HW].astype(np.int64) * classes + t2_HW[counted_HW]
    return np.bincount(codes, minlength=classes**2).reshape(classes, classes)


def read_transitions(folder: Path, *, classes: int) -> NDArray[np.int64]:
    """Return `count_transitions` of the rasters of a result, of which some rows at a time are in memory."""
    total_KK = np.zeros((classes, classes), np.int64)
    with ignore_not_georeferenced():
        rasters = [rasterio.open(folder / f"{name}.tif") for name in ("change", "t1", "t2")]
    try:
        height, width = rasters[0].shape
        for row in range(0, height, BLOCK_ROWS):
            window = Window(0, row, width, min(BLOCK_ROWS, height - row))
            total_KK += count_transitions(*(raster.read(1, window=window) for raster in rasters), classes=classes)
    finally:
        for raster in rasters:
            raster.close()
    return total_KK


def describe_transitions(folder: Path, changes: DetectedChanges) -> list[dict[str, Any]]:
    """Return the transitions of a result for run.json: the largest first, with their pixels and, if known, m2."""
    names, count_KK = changes.classes, read_transitions(folder, classes=len(changes.classes))
    pixel_m2 = None if changes.gsd_m is None else changes.gsd_m**2
    return [
        {"from": names[before], "to": names[after], "px": int(count_KK[before, after])}
        | ({} if pixel_m2 is None else {"m2": float(count_KK[before, after] * pixel_m2)})
        for before, after in sorted(np.argwhere(count_KK).tolist(), key=lambda cell: -count_KK[cell[0], cell[1]])
    ]


def build_transition_section(folder: Path, changes: DetectedChanges, notes: tuple[str, ...]) -> html.Section:
    """Return the section of a report: a flow chart and the matrix, rows before, columns after.

    Args:
        folder: of the result, whose rasters are finished.
        changes: what was found.
        notes: sentences below the matrix.
    """
    names, count_KK = changes.classes, read_transitions(folder, classes=len(changes.classes))
    if not count_KK.any():
        return html.Section("What became what", [html.render_paragraph("No ground has changed.")])
    metric, colours = changes.gsd_m is not None, choose_class_colours(names)
    amount_KK = count_KK.astype(np.float64) * (changes.gsd_m or 1.0) ** 2
    unit = "m²" if metric else "px"
    rows = [
        [name, *(f"{amount:,.0f}" if amount else "–" for amount in amounts_K), f"{amounts_K.sum():,.0f}"]
        for name, amounts_K in zip(names, amount_KK, strict=True)
    ]
    rows.append(["all", *(f"{amount:,.0f}" for amount in amount_KK.sum(axis=0)), f"{amount_KK.sum():,.0f}"])
    chart = render_flow_chart(
        names,
        colours,
        amount_KK,
        titles=("before", "after"),
        format_amount=lambda amount: format_area(amount, metric=metric),
    )
    table = html.render_table(
        [f"before, {unit}", *(f"→ {name}" for name in names), "all"], rows, total=True, swatches=colours
    )
    lead = "The changed ground by its classes at both dates, pixel by pixel."
    return html.Section("What became what", [chart, table, html.render_notes(notes)], lead=lead)
