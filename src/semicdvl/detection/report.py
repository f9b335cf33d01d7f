"""The report of a detection: what changed, where, how much, and how it was found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio
import shapely
from markupsafe import Markup
from numpy.typing import NDArray
from rasterio.features import rasterize

from semicdvl.detection.changes import DetectedChanges, summarise_changes
from semicdvl.detection.fingerprint import describe_detector, list_versions
from semicdvl.detection.object_index import build_object_index, format_locations, link_files, name_card
from semicdvl.detection.run_record import RunRecord
from semicdvl.detection.transitions import build_transition_section
from semicdvl.raster.grid import Grid
from semicdvl.raster.io.georeference_warnings import ignore_not_georeferenced
from semicdvl.raster.io.pair_reader import PairWindow, RasterPair
from semicdvl.raster.vector.object_stats import CHANGE_KINDS
from semicdvl.raster.vector.polygonise import hold_as_arrays
from semicdvl.reports import html
from semicdvl.reports.colours import (
    KIND_COLOURS,
    apply_palette,
    choose_class_colours,
    draw_outline,
    draw_overlay,
    hatch_no_data,
)
from semicdvl.reports.numbers import format_area

if TYPE_CHECKING:
    import geopandas as gpd

REPORT_OVERVIEW_PX = 1300
MAX_CROPS = 10
MIN_CROP_PX = 96
MAX_CROP_PX = 720
MAX_BARS = 9
CLASS_MAP_PX = 700
MAX_CRS_CHARACTERS = 60
BURNT_AT_A_TIME = 4000
"""Polygons that are handed to rasterio in one call."""
MANY_CORNERS = 100
"""Outlines with more corners are handed over as arrays: a twentieth of the memory, half as much time again."""


def read_report_overview(pair: RasterPair) -> PairWindow:
    """Return the images of a pair as its report shows them whole; the rasters need not be finished.

    Raises:
        InputError: a file is damaged.
    """
    return pair.select_rgb().read_overview(max_px=REPORT_OVERVIEW_PX)


def write_detection_report(
    folder: Path,
    pair: RasterPair,
    changes: DetectedChanges,
    run: RunRecord,
    *,
    overview: PairWindow | None = None,
) -> None:
    """Write report.html into the folder of a result, whose rasters are finished.

    Args:
        folder: of the result.
        pair: the images, in red, green and blue.
        changes: what was found.
        run: what was run and how it went.
        overview: from `read_report_overview`, where it was read already.

    Raises:
        InputError: a file is damaged.
        OutputError: the folder cannot be written.
    """
    window = read_report_overview(pair) if overview is None else overview
    names = _shorten_names(pair)
    sections = [_build_overview(window, pair.grid, changes, run.warnings), _build_amounts(changes, run)]
    if len(changes.objects):
        sections.append(_build_largest(pair, changes))
        sections.append(build_object_index(changes, pair.grid, shown=MAX_CROPS))
    if changes.class_px_2K is not None:
        if run.detector.tells_transitions:
            sections.append(build_transition_section(folder, changes, run.detector.notes()))
        sections.append(_build_classes(folder, changes))
    sections.append(_build_provenance(pair, changes, run))
    title = run.config.title or f"Changes from {names[0]} to {names[1]}"
    subtitle = f"{run.detector.name} on {_format_extent(pair, changes)}"
    html.write_page(folder / "report.html", title, sections, subtitle=subtitle)


def _shorten_names(pair: RasterPair) -> tuple[str, str]:
    """Return short names of both images that differ."""
    first, second = pair.before.path, pair.after.path
    if first.name != second.name:
        return first.name, second.name
    return f"{first.parent.name}/{first.name}", f"{second.parent.name}/{second.name}"


def _format_extent(pair: RasterPair, changes: DetectedChanges) -> str:
    """Return the size of the result."""
    size = f"{pair.grid.width:,} × {pair.grid.height:,} px"
    return size if changes.gsd_m is None else f"{size} at {changes.gsd_m:.2g} m"


# ------------------------------------------------------------------------------------------------ overview
def draw_overview(
    window: PairWindow, grid: Grid, changes: DetectedChanges
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """Return before, after, and the changes over a grey version of after: RGB, no data hatched.

    Args:
        window: the images, in red, green and blue, at a reduced size.
        grid: of the images at their full size.
        changes: what was found.
    """
    kinds_N = changes.objects.code_kinds(CHANGE_KINDS)
    labels_HW = np.zeros(window.valid_HW.shape, np.int32)
    done = 0
    for frame in changes.objects.iterate_frames():
        _burn_polygons(frame, grid, labels_HW, values=kinds_N[done : done + len(frame)].tolist())
        done += len(frame)
    overlay_HWC = draw_overlay(window.t2_HWC, labels_HW, [KIND_COLOURS[kind] for kind in CHANGE_KINDS])
    images = (window.t1_HWC, window.t2_HWC, overlay_HWC)
    before, after, change = (hatch_no_data(image_HWC, window.valid_HW) for image_HWC in images)
    return before, after, change


def _build_overview(window: PairWindow, grid: Grid, changes: DetectedChanges, warned: tuple[str, ...]) -> html.Section:
    """Build the section with the result in numbers, its warnings, and the whole images with the changes."""
    summary = summarise_changes(changes)
    before, after, change = draw_overview(window, grid, changes)
    kinds = [kind for kind in KIND_COLOURS if kind in summary.by_kind]
    headline = [
        (summary.area_text, "changed area"),
        (f"{summary.objects:,}", "changed object" if summary.objects == 1 else "changed objects"),
        (f"{summary.changed_frac:.2%}", "of the area with data at both dates"),
        *((f"{summary.by_kind[kind]:,}", kind) for kind in kinds if kind != "changed"),
    ]
    parts = [
        html.render_headline(headline),
        html.render_notes(warned),
        html.render_swipe(before, after, "Move the line to compare the dates."),
        Markup("<br>"),
        html.render_figure(change, "The change map over the after image in grey."),
        html.render_legend((kind, KIND_COLOURS[kind]) for kind in kinds),
    ]
    return html.Section("At a glance", parts)


def _burn_polygons(frame: gpd.GeoDataFrame, grid: Grid, burnt_HW: NDArray[np.int32], *, values: Sequence[int]) -> None:
    """Burn polygons into an image of the grid, the value plus 1; where it is decimated, small objects stay visible.

    Some at a time, and the large ones as arrays: rasterio holds all polygons of a call, by shapely as Python numbers.
    """
    height, width = burnt_HW.shape
    for start in range(0, len(frame), BURNT_AT_A_TIME):
        part = slice(start, start + BURNT_AT_A_TIME)
        outlines = frame.geometry.iloc[part]
        held = [hold_as_arrays(one) if shapely.get_num_coordinates(one) > MANY_CORNERS else one for one in outlines]
        rasterize(
            zip(held, [value + 1 for value in values[part]], strict=True),
            out=burnt_HW,
            transform=grid.resize(height, width).transform,
            all_touched=(height, width) != (grid.height, grid.width),
        )


# ------------------------------------------------------------------------------------------------ amounts
def _build_amounts(changes: DetectedChanges, run: RunRecord) -> html.Section:
    """Build the section with the area of every kind of change, and how large the objects are."""
    if not len(changes.objects):
        return html.Section("Amounts", [html.render_paragraph("No changed object was found.")])
    rows, swatches = [], []
    for group in sorted(changes.objects.groups, key=lambda group: -group.area):
        known = group.from_class is not None and group.to_class is not None
        classes = f"{group.from_class} → {group.to_class}" if known else None
        rows.append([group.kind, classes, f"{group.count:,}", *_format_area_cells(group.area, changes)])
        swatches.append(KIND_COLOURS[group.kind])
    rows.append(
        ["all", None, f"{len(changes.objects):,}", *_format_area_cells(float(changes.objects.area_N.sum()), changes)]
    )
    columns = ["kind", "from → to", "objects", *(("m²", "ha") if changes.has_metric_areas else ("px",))]
    if all(row[1] is None for row in rows):
        columns, rows = [columns[0], *columns[2:]], [[row[0], *row[2:]] for row in rows]
    unit = "m²" if changes.has_metric_areas else "px"
    parts = [
        html.render_table(columns, rows, total=True, swatches=swatches),
        html.render_bar_chart(_count_by_size(changes), x_title=f"area of an object in {unit}", y_title="objects"),
    ]
    lead = "Totals by kind of change, and the sizes of the objects."
    named = describe_detector(run.detector).get("Classes")
    if named is not None and "from → to" in columns:
        lead += f" Classes before and after: {named}."
    return html.Section("Amounts", parts, lead=lead)


def _format_area_cells(area: float, changes: DetectedChanges) -> list[str]:
    """Return an area (m2, or pixels) as the cells of a row: in m2 and ha, or in pixels."""
    return [f"{area:,.0f}", f"{area / 10_000:,.3f}"] if changes.has_metric_areas else [f"{area:,.0f}"]


def _count_by_size(changes: DetectedChanges) -> list[tuple[str, float]]:
    """Count objects by area between 1, 2, 5, 10, 20, 50, ...; coarser where that would be more than `MAX_BARS`."""
    area = np.maximum(changes.objects.area_N, 0.1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        edges = np.array([step * 10.0**power for power in range(-1, 13) for step in steps])
        first = int(np.searchsorted(edges, area.min(), side="right")) - 1
        edges = edges[first : int(np.searchsorted(edges, area.max(), side="right")) + 1]
        if len(edges) <= MAX_BARS + 1:
            break
    counts = np.histogram(area, edges)[0]
    texts = [f"{edge:g}" if edge < 1e3 else f"{edge / 1e3:g}k" if edge < 1e6 else f"{edge / 1e6:g}M" for edge in edges]
    return [(f"{texts[at]}–{texts[at + 1]}", float(count)) for at, count in enumerate(counts)]


# ------------------------------------------------------------------------------------------------ objects
def _build_largest(pair: RasterPair, changes: DetectedChanges) -> html.Section:
    """Build the section with pictures of the largest objects."""
    cards = [_build_card(pair, changes, rank) for rank in range(min(MAX_CROPS, len(changes.objects)))]
    lead = "Both images show the same outline; the number is the object's id in changes.gpkg."
    lead = lead if pair.grid.crs is None else f"North is up. {lead}"
    title = "The largest change" if len(cards) == 1 else f"The {len(cards)} largest changes"
    return html.Section(title, [html.render_gallery(cards, least_px=460)], lead=lead)


def _build_card(pair: RasterPair, changes: DetectedChanges, rank: int) -> Markup:
    """Return before and after of one object, with its outline."""
    outline = changes.objects.read_rows(rank, rank + 1)
    row = outline.iloc[0]
    label = int(row["id"])
    place = _choose_crop(changes.objects.read_box(rank), pair.shape_hw)
    window = pair.read(*place, max_px=MAX_CROP_PX)
    burnt_HW = np.zeros(window.valid_HW.shape, np.int32)
    _burn_polygons(outline, pair.grid.window(*place), burnt_HW, values=[0])
    mask_HW = burnt_HW > 0
    figures = [
        html.render_figure(draw_outline(hatch_no_data(image, window.valid_HW), mask_HW), name)
        for image, name in ((window.t1_HWC, "before"), (window.t2_HWC, "after"))
    ]
    facts = [
        format_area(float(changes.objects.area_N[rank]), metric=changes.has_metric_areas),
        f"score {row['score']:.2f}",
    ]
    if math.isfinite(row.get("probability", math.nan)):
        facts.append(f"probability {row['probability']:.2f}")
    if isinstance(row["from_class"], str) and isinstance(row["to_class"], str):
        facts.append(f"{row['from_class']} → {row['to_class']}")
    facts += format_locations(outline, pair.grid)
    return html.render_card(
        f"{label} · {row['kind']}", " · ".join(facts), figures, colour=KIND_COLOURS[row["kind"]], name=name_card(label)
    )


def _choose_crop(box: NDArray[np.int64], shape_hw: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return row, col, height, width of a square around an object, with room beside it, inside the raster."""
    (height, width), (top, left, bottom, right) = shape_hw, box.tolist()
    side = max(MIN_CROP_PX, round(1.6 * max(bottom - top, right - left)))
    tall, wide = min(side, height), min(side, width)
    row = min(max(0, (top + bottom - tall) // 2), height - tall)
    return row, min(max(0, (left + right - wide) // 2), width - wide), tall, wide


# ------------------------------------------------------------------------------------------------ classes
def _build_classes(folder: Path, changes: DetectedChanges) -> html.Section:
    """Build the section with the class maps of both dates, read from `folder`, and the share of every class."""
    assert changes.class_px_2K is not None, "the section is for detectors with classes"
    colours = choose_class_colours(changes.classes)
    maps = [
        html.render_figure(apply_palette(_read_thumbnail(folder / f"{date}.tif"), colours), title, lossless=True)
        for date, title in (("t1", "before"), ("t2", "after"))
    ]
    shares = changes.class_px_2K / np.maximum(changes.class_px_2K.sum(axis=1, keepdims=True), 1)
    rows = [
        [
            name,
            *(["foreground" if at in changes.foreground else "background"] if changes.foreground else []),
            f"{before:.1%}",
            f"{after:.1%}",
            f"{after - before:+.1%}".replace("-", "−"),
        ]
        for at, (name, before, after) in enumerate(zip(changes.classes, *shares, strict=True))
    ]
    columns = ["class", *(["role"] if changes.foreground else []), "before", "after", "difference"]
    parts = [html.render_gallery(maps), html.render_table(columns, rows, swatches=colours)]
    return html.Section("Classes of each date", parts, lead="The class with the highest score of every pixel.")


def _read_thumbnail(path: Path) -> NDArray[np.uint8]:
    """Read a class map decimated."""
    with ignore_not_georeferenced(), rasterio.open(path) as source:
        step = max(1, -(-max(source.shape) // CLASS_MAP_PX))
        size = -(-source.height // step), -(-source.width // step)
        classes_HW: NDArray[np.uint8] = source.read(1, out_shape=size)
    return classes_HW


# ------------------------------------------------------------------------------------------------ provenance
def _build_provenance(pair: RasterPair, changes: DetectedChanges, run: RunRecord) -> html.Section:
    """Build the section that says of what, how and with which versions the result was made, and what lies beside it."""
    config, metric, least = run.config, changes.has_metric_areas, changes.left_out.least_area
    facts = {
        "Before": str(pair.before.path),
        "After": str(pair.after.path),
        "Grid": _format_extent(pair, changes),
        "CRS": _format_crs(pair.grid),
        **describe_detector(run.detector),
        "Reliable": str(run.reliability),
        "Tiles": f"{config.tile_px} px with an overlap of {config.overlap_px} px",
        "Smallest object": format_area(least, metric=metric) if least else "any size",
        "Time": ", ".join(f"{name} {value:.1f} s" for name, value in run.seconds.items()),
        "Versions": ", ".join(f"{name} {number}" for name, number in list_versions().items()),
    }
    files = [
        ["change.tif", "1 changed, 0 unchanged, 255 no data"],
        ["score.tif", "change score from 0 to 1, NaN no data; for ranking and filtering"],
        ["changes.gpkg", "one polygon per changed object, for any GIS"],
        ["run.json", "settings, versions, hashes of the inputs, all numbers"],
    ]
    if changes.class_px_2K is not None:
        files.insert(2, ["t1.tif, t2.tif", "classes of each date; the tags CLASS_0, CLASS_1, ... hold their names"])
    parts = [html.render_facts(facts), html.render_table(["file", "content"], link_files(files))]
    return html.Section("How this was made", parts)


def _format_crs(grid: Grid) -> str:
    if grid.crs is None:
        return "none"
    text: str = grid.crs.to_string()
    return text if len(text) < MAX_CRS_CHARACTERS else f"{grid.crs.to_wkt()[:MAX_CRS_CHARACTERS]} ..."
