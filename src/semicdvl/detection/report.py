"""The report of one detection: what changed, where, how much, and how that was found."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
from markupsafe import Markup
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.features import rasterize

from semicdvl.detection.results import (
    DetectedChanges,
    RunRecord,
    describe_detector,
    format_area,
    list_versions,
    summarise_changes,
)
from semicdvl.raster.grid import Grid
from semicdvl.raster.io.pair_reader import RasterPair
from semicdvl.raster.vector.change_kinds import CHANGE_KINDS
from semicdvl.reports import colours as reports_colours
from semicdvl.reports import html

REPORT_OVERVIEW_PX = 1300
MAX_CROPS = 10
MIN_CROP_PX = 96
MAX_CROP_PX = 720
MAX_BARS = 9
CLASS_MAP_PX = 700


def write_detection_report(path: Path, pair: RasterPair, found: DetectedChanges, run: RunRecord) -> None:
    """Write report.html."""
    names = _shorten_names(pair)
    sections = [_build_overview(pair, found, run.warnings), _build_amounts(found)]
    if len(found.objects):
        sections.append(_build_largest(pair, found))
    if found.class_px_2K is not None:
        sections.append(_build_classes(found))
    sections.append(_build_provenance(pair, found, run))
    title = run.settings.title or f"Changes from {names[0]} to {names[1]}"
    html.write_page(path, title, sections, subtitle=f"{run.detector.name} on {_format_extent(pair, found)}")


def _shorten_names(pair: RasterPair) -> tuple[str, str]:
    """Return short names of both images that differ."""
    first, second = pair.before.path, pair.after.path
    if first.name != second.name:
        return first.name, second.name
    return f"{first.parent.name}/{first.name}", f"{second.parent.name}/{second.name}"


def _format_extent(pair: RasterPair, found: DetectedChanges) -> str:
    """Return the size of what was looked at."""
    size = f"{pair.grid.width:,} × {pair.grid.height:,} px"
    return size if found.gsd_m is None else f"{size} at {found.gsd_m:.2g} m"


# ------------------------------------------------------------------------------------------------ sections
def _build_overview(pair: RasterPair, found: DetectedChanges, warned: tuple[str, ...]) -> html.Section:
    numbers = summarise_changes(found)
    changed = format_area(numbers.changed_m2 or float(numbers.changed_px), metric=found.has_metric_areas)
    window = pair.read_overview(max_px=REPORT_OVERVIEW_PX)
    before, after = (
        reports_colours.hatch_no_data(image_HWC, window.valid_HW) for image_HWC in (window.t1_HWC, window.t2_HWC)
    )
    labels_HW = _burn_polygons(
        found.objects, pair.grid, window.valid_HW.shape, values=[*map(CHANGE_KINDS.index, found.objects["kind"])]
    )
    colours = [reports_colours.KIND_COLOURS[kind] for kind in CHANGE_KINDS]
    kinds = [kind for kind in reports_colours.KIND_COLOURS if kind in numbers.by_kind]
    parts = [
        html.render_headline(
            [
                (changed, "changed area"),
                (f"{numbers.objects:,}", "changed object" if numbers.objects == 1 else "changed objects"),
                (f"{numbers.changed_frac:.2%}", "of the ground seen at both dates"),
                *((f"{numbers.by_kind[kind]:,}", kind) for kind in kinds if kind != "changed"),
            ]
        ),
        html.render_notes(warned),
        html.render_swipe(before, after, "Move the line to compare the dates."),
        Markup("<br>"),
        html.render_figure(
            reports_colours.hatch_no_data(
                reports_colours.draw_overlay(window.t2_HWC, labels_HW, colours), window.valid_HW
            ),
            "The change map over the after image, drawn in grey.",
        ),
        html.render_legend((kind, reports_colours.KIND_COLOURS[kind]) for kind in kinds),
    ]
    return html.Section("At a glance", parts)


def _build_amounts(found: DetectedChanges) -> html.Section:
    if not len(found.objects):
        return html.Section("How much", [html.render_paragraph("No object was found.")])
    groups = found.objects.assign(area=found.area).groupby(["kind", "from_class", "to_class"], dropna=False)
    rows, swatches = [], []
    ordered = sorted(groups, key=lambda item: -float(item[1]["area"].sum()))
    for (kind, start, end), group in ordered:
        classes = f"{start} → {end}" if isinstance(start, str) and isinstance(end, str) else None
        rows.append(
            [
                kind,
                classes,
                f"{len(group):,}",
                *_format_area_cells(float(group["area"].sum()), metric=found.has_metric_areas),
            ]
        )
        swatches.append(reports_colours.KIND_COLOURS[kind])
    total = _format_area_cells(float(found.area.sum()), metric=found.has_metric_areas)
    rows.append(["all", None, f"{len(found.objects):,}", *total])
    columns = ["kind", "from → to", "objects", *(("m²", "ha") if found.has_metric_areas else ("px",))]
    if all(row[1] is None for row in rows):
        columns, rows = [columns[0], *columns[2:]], [[row[0], *row[2:]] for row in rows]
    unit = "m²" if found.has_metric_areas else "px"
    parts = [
        html.render_table(columns, rows, total=True, swatches=swatches),
        html.render_bar_chart(_count_by_size(found), x_title=f"area of one object in {unit}", y_title="objects"),
    ]
    return html.Section("How much", parts, lead="Totals by kind of change, and how large the objects are.")


def _format_area_cells(area: float, *, metric: bool) -> list[str]:
    return [f"{area:,.0f}", f"{area / 10_000:,.3f}"] if metric else [f"{area:,.0f}"]


def _count_by_size(found: DetectedChanges) -> list[tuple[str, float]]:
    """Count objects by area between 1, 2, 5, 10, 20, 50, ...; coarser where that would be more than `MAX_BARS`."""
    area = np.maximum(found.area.to_numpy(float), 0.1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        edges = np.array([step * 10.0**power for power in range(-1, 13) for step in steps])
        first = int(np.searchsorted(edges, area.min(), side="right")) - 1
        edges = edges[first : int(np.searchsorted(edges, area.max(), side="right")) + 1]
        if len(edges) <= MAX_BARS + 1:
            break
    counts = np.histogram(area, edges)[0]
    texts = [f"{edge:g}" if edge < 1e3 else f"{edge / 1e3:g}k" if edge < 1e6 else f"{edge / 1e6:g}M" for edge in edges]
    return [(f"{texts[at]}–{texts[at + 1]}", float(many)) for at, many in enumerate(counts)]


def _build_largest(pair: RasterPair, found: DetectedChanges) -> html.Section:
    cards = [_build_card(pair, found, rank) for rank in range(min(MAX_CROPS, len(found.objects)))]
    lead = "The outline is the same in both images; the number is the object's id in changes.gpkg."
    lead = lead if pair.grid.crs is None else f"North is up. {lead}"
    many = len(cards)
    title = "The largest change" if many == 1 else f"The {many} largest changes"
    return html.Section(title, [html.render_gallery(cards, least_px=460)], lead=lead)


def _build_card(pair: RasterPair, found: DetectedChanges, rank: int) -> Markup:
    """Return before and after of one object, with its outline."""
    row = found.objects.iloc[rank]
    label = int(row["id"])
    place = _choose_crop(found.box_N4[label - 1], pair.shape_hw)
    window = pair.read(*place, max_px=MAX_CROP_PX)
    mask_HW = (
        _burn_polygons(found.objects.iloc[[rank]], pair.grid.window(*place), window.valid_HW.shape, values=[0]) > 0
    )
    figures = [
        html.render_figure(
            reports_colours.draw_outline(reports_colours.hatch_no_data(image, window.valid_HW), mask_HW), name
        )
        for image, name in ((window.t1_HWC, "before"), (window.t2_HWC, "after"))
    ]
    facts = [format_area(float(found.area.iloc[rank]), metric=found.has_metric_areas), f"score {row['score']:.2f}"]
    if math.isfinite(row.get("probability", math.nan)):
        facts.append(f"probability {row['probability']:.2f}")
    if isinstance(row["from_class"], str) and isinstance(row["to_class"], str):
        facts.append(f"{row['from_class']} → {row['to_class']}")
    facts.append(_format_location(found, rank))
    return html.render_card(
        f"{label} · {row['kind']}", " · ".join(facts), figures, colour=reports_colours.KIND_COLOURS[row["kind"]]
    )


def _burn_polygons(
    frame: gpd.GeoDataFrame, grid: Grid, size_hw: tuple[int, ...], *, values: Sequence[int]
) -> NDArray[np.int32]:
    """Burn polygons into a picture of the grid, the value plus 1; shrunk, small objects stay visible."""
    height, width = size_hw
    burnt_HW = np.zeros((height, width), np.int32)
    if len(frame):
        rasterize(
            zip(frame.geometry, [value + 1 for value in values], strict=True),
            out=burnt_HW,
            transform=grid.resize(height, width).transform,
            all_touched=(height, width) != (grid.height, grid.width),
        )
    return burnt_HW


def _choose_crop(box: NDArray[np.int64], shape_hw: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return row, col, height, width of a square around an object, with room beside it, inside the raster."""
    (height, width), (top, left, bottom, right) = shape_hw, box.tolist()
    side = max(MIN_CROP_PX, round(1.6 * max(bottom - top, right - left)))
    tall, wide = min(side, height), min(side, width)
    row = min(max(0, (top + bottom - tall) // 2), height - tall)
    return row, min(max(0, (left + right - wide) // 2), width - wide), tall, wide


def _format_location(found: DetectedChanges, rank: int) -> str:
    """Return where an object is: degrees north and east, or column and row in a plain image."""
    if found.objects.crs is None:
        at = found.objects.geometry.iloc[rank].representative_point()
        return f"col {at.x:.0f}, row {at.y:.0f}"
    at = found.objects.geometry.iloc[[rank]].representative_point().to_crs(4326).iloc[0]
    return f"{abs(at.y):.5f}° {'N' if at.y >= 0 else 'S'}, {abs(at.x):.5f}° {'E' if at.x >= 0 else 'W'}"


def _build_classes(found: DetectedChanges) -> html.Section:
    assert found.class_px_2K is not None
    names, colours = found.classes, reports_colours.choose_class_colours(found.classes)
    maps = [
        html.render_figure(
            reports_colours.apply_palette(_read_thumbnail(found.folder / f"{date}.tif"), colours), title, lossless=True
        )
        for date, title in (("t1", "before"), ("t2", "after"))
    ]
    shares = found.class_px_2K / np.maximum(found.class_px_2K.sum(axis=1, keepdims=True), 1)
    rows = [
        [
            name,
            "looked for" if at in found.foreground else "background",
            f"{a:.1%}",
            f"{b:.1%}",
            f"{b - a:+.1%}".replace("-", "−"),
        ]
        for at, (name, a, b) in enumerate(zip(names, *shares, strict=True))
    ]
    parts = [
        html.render_gallery(maps),
        html.render_table(["class", "role", "before", "after", "difference"], rows, swatches=colours),
    ]
    return html.Section("What each image shows", parts, lead="The class with the highest score at each date.")


def _read_thumbnail(path: Path) -> NDArray[np.uint8]:
    """Read a class map decimated."""
    with warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning), rasterio.open(path) as source:
        step = max(1, -(-max(source.shape) // CLASS_MAP_PX))
        size = -(-source.height // step), -(-source.width // step)
        classes_HW: NDArray[np.uint8] = source.read(1, out_shape=size)
    return classes_HW


def _build_provenance(pair: RasterPair, found: DetectedChanges, run: RunRecord) -> html.Section:
    settings = run.settings
    crs = pair.grid.crs
    facts = {
        "Before": str(pair.before.path),
        "After": str(pair.after.path),
        "Grid": _format_extent(pair, found),
        "CRS": "none" if crs is None else crs.to_string() if len(crs.to_string()) < 60 else crs.to_wkt()[:60] + " ...",
        **describe_detector(run.detector),
        "Tiles": f"{settings.tile_px} px, overlapping by {settings.overlap_px} px",
        "Smallest object": format_area(settings.min_area_m2, metric=found.has_metric_areas)
        if settings.min_area_m2
        else "any size",
        "Time": ", ".join(f"{name} {value:.1f} s" for name, value in run.seconds.items()),
        "Versions": ", ".join(f"{name} {number}" for name, number in list_versions().items()),
    }
    files = [
        ["change.tif", "1 changed, 0 unchanged, 255 no data"],
        ["score.tif", "change score from 0 to 1, NaN no data; rank and filter by it"],
        ["changes.gpkg", "one row per changed object, for any GIS"],
        ["run.json", "settings, versions, hashes of the inputs, all numbers"],
    ]
    if found.class_px_2K is not None:
        files.insert(2, ["t1.tif, t2.tif", "classes of each date, named in the files' tags CLASS_0, CLASS_1, ..."])
    return html.Section("How this was made", [html.render_facts(facts), html.render_table(["file", "content"], files)])
