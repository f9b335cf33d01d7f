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

from semicdvl.detection.results import Found, RunFacts, area_text, count, describe, versions
from semicdvl.raster.grid import Grid
from semicdvl.raster.io.pair_reader import RasterPair
from semicdvl.raster.vector.files import KINDS
from semicdvl.reports import colours as reports_colours
from semicdvl.reports import html

OVERVIEW_PX = 1300
CROPS = 10
CROP_LEAST_PX = 96
CROP_MOST_PX = 720
MOST_BARS = 9
CLASSES_PX = 700


def write(path: Path, pair: RasterPair, found: Found, run: RunFacts) -> None:
    """Write report.html."""
    names = _names(pair)
    sections = [_overview(pair, found, run.warned), _amounts(found)]
    if len(found.frame):
        sections.append(_largest(pair, found))
    if found.class_px_2K is not None:
        sections.append(_classes(found))
    sections.append(_how(pair, found, run))
    title = run.settings.title or f"Changes from {names[0]} to {names[1]}"
    html.write(path, title, sections, subtitle=f"{run.detector.name} on {_ground(pair, found)}")


def _names(pair: RasterPair) -> tuple[str, str]:
    """Return short names of both images that differ."""
    first, second = pair.before.path, pair.after.path
    if first.name != second.name:
        return first.name, second.name
    return f"{first.parent.name}/{first.name}", f"{second.parent.name}/{second.name}"


def _ground(pair: RasterPair, found: Found) -> str:
    """Return the size of what was looked at."""
    size = f"{pair.grid.width:,} × {pair.grid.height:,} px"
    return size if found.gsd_m is None else f"{size} at {found.gsd_m:.2g} m"


# ------------------------------------------------------------------------------------------------ sections
def _overview(pair: RasterPair, found: Found, warned: tuple[str, ...]) -> html.Section:
    numbers = count(found)
    changed = area_text(numbers.changed_m2 or float(numbers.changed_px), metric=found.metric)
    window = pair.overview(most_px=OVERVIEW_PX)
    before, after = (
        reports_colours.hatched(image_HWC, window.valid_HW) for image_HWC in (window.t1_HWC, window.t2_HWC)
    )
    labels_HW = _burnt(found.frame, pair.grid, window.valid_HW.shape, values=[*map(KINDS.index, found.frame["kind"])])
    colours = [reports_colours.KIND_COLOURS[kind] for kind in KINDS]
    kinds = [kind for kind in reports_colours.KIND_COLOURS if kind in numbers.by_kind]
    parts = [
        html.numbers(
            [
                (changed, "changed area"),
                (f"{numbers.objects:,}", "changed object" if numbers.objects == 1 else "changed objects"),
                (f"{numbers.changed_frac:.2%}", "of the ground seen at both dates"),
                *((f"{numbers.by_kind[kind]:,}", kind) for kind in kinds if kind != "changed"),
            ]
        ),
        html.notes(warned),
        html.swipe(before, after, "Move the line to compare the dates."),
        Markup("<br>"),
        html.picture(
            reports_colours.hatched(reports_colours.overlay(window.t2_HWC, labels_HW, colours), window.valid_HW),
            "The change map over the after image, drawn in grey.",
        ),
        html.legend((kind, reports_colours.KIND_COLOURS[kind]) for kind in kinds),
    ]
    return html.Section("At a glance", parts)


def _amounts(found: Found) -> html.Section:
    if not len(found.frame):
        return html.Section("How much", [html.text("No object was found.")])
    groups = found.frame.assign(area=found.area).groupby(["kind", "from_class", "to_class"], dropna=False)
    rows, swatches = [], []
    ordered = sorted(groups, key=lambda item: -float(item[1]["area"].sum()))
    for (kind, start, end), group in ordered:
        classes = f"{start} → {end}" if isinstance(start, str) and isinstance(end, str) else None
        rows.append([kind, classes, f"{len(group):,}", *_area_cells(float(group["area"].sum()), metric=found.metric)])
        swatches.append(reports_colours.KIND_COLOURS[kind])
    total = _area_cells(float(found.area.sum()), metric=found.metric)
    rows.append(["all", None, f"{len(found.frame):,}", *total])
    columns = ["kind", "from → to", "objects", *(("m²", "ha") if found.metric else ("px",))]
    if all(row[1] is None for row in rows):
        columns, rows = [columns[0], *columns[2:]], [[row[0], *row[2:]] for row in rows]
    unit = "m²" if found.metric else "px"
    parts = [
        html.table(columns, rows, total=True, swatches=swatches),
        html.bars(_size_classes(found), x_title=f"area of one object in {unit}", y_title="objects"),
    ]
    return html.Section("How much", parts, lead="Totals by kind of change, and how large the objects are.")


def _area_cells(area: float, *, metric: bool) -> list[str]:
    return [f"{area:,.0f}", f"{area / 10_000:,.3f}"] if metric else [f"{area:,.0f}"]


def _size_classes(found: Found) -> list[tuple[str, float]]:
    """Count objects by area between 1, 2, 5, 10, 20, 50, ...; coarser where that would be more than `MOST_BARS`."""
    area = np.maximum(found.area.to_numpy(float), 0.1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        edges = np.array([step * 10.0**power for power in range(-1, 13) for step in steps])
        first = int(np.searchsorted(edges, area.min(), side="right")) - 1
        edges = edges[first : int(np.searchsorted(edges, area.max(), side="right")) + 1]
        if len(edges) <= MOST_BARS + 1:
            break
    counts = np.histogram(area, edges)[0]
    texts = [f"{edge:g}" if edge < 1e3 else f"{edge / 1e3:g}k" if edge < 1e6 else f"{edge / 1e6:g}M" for edge in edges]
    return [(f"{texts[at]}–{texts[at + 1]}", float(many)) for at, many in enumerate(counts)]


def _largest(pair: RasterPair, found: Found) -> html.Section:
    cards = [_card(pair, found, rank) for rank in range(min(CROPS, len(found.frame)))]
    lead = "The outline is the same in both images; the number is the object's id in changes.gpkg."
    lead = lead if pair.grid.crs is None else f"North is up. {lead}"
    many = len(cards)
    title = "The largest change" if many == 1 else f"The {many} largest changes"
    return html.Section(title, [html.gallery(cards, least_px=460)], lead=lead)


def _card(pair: RasterPair, found: Found, rank: int) -> Markup:
    """Return before and after of one object, with its outline."""
    row = found.frame.iloc[rank]
    label = int(row["id"])
    place = _crop_place(found.box_N4[label - 1], pair.shape_hw)
    window = pair.read(*place, most_px=CROP_MOST_PX)
    mask_HW = _burnt(found.frame.iloc[[rank]], pair.grid.part(*place), window.valid_HW.shape, values=[0]) > 0
    figures = [
        html.picture(reports_colours.outlined(reports_colours.hatched(image, window.valid_HW), mask_HW), name)
        for image, name in ((window.t1_HWC, "before"), (window.t2_HWC, "after"))
    ]
    facts = [area_text(float(found.area.iloc[rank]), metric=found.metric), f"score {row['score']:.2f}"]
    if math.isfinite(row.get("probability", math.nan)):
        facts.append(f"probability {row['probability']:.2f}")
    if isinstance(row["from_class"], str) and isinstance(row["to_class"], str):
        facts.append(f"{row['from_class']} → {row['to_class']}")
    facts.append(_where(found, rank))
    return html.card(
        f"{label} · {row['kind']}", " · ".join(facts), figures, colour=reports_colours.KIND_COLOURS[row["kind"]]
    )


def _burnt(
    frame: gpd.GeoDataFrame, grid: Grid, size_hw: tuple[int, ...], *, values: Sequence[int]
) -> NDArray[np.int32]:
    """Burn polygons into a picture of the grid, the value plus 1; shrunk, small objects stay visible."""
    height, width = size_hw
    burnt_HW = np.zeros((height, width), np.int32)
    if len(frame):
        rasterize(
            zip(frame.geometry, [value + 1 for value in values], strict=True),
            out=burnt_HW,
            transform=grid.coarser(height, width).transform,
            all_touched=(height, width) != (grid.height, grid.width),
        )
    return burnt_HW


def _crop_place(box: NDArray[np.int64], shape_hw: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return row, col, height, width of a square around an object, with room beside it, inside the raster."""
    (height, width), (top, left, bottom, right) = shape_hw, box.tolist()
    side = max(CROP_LEAST_PX, round(1.6 * max(bottom - top, right - left)))
    tall, wide = min(side, height), min(side, width)
    row = min(max(0, (top + bottom - tall) // 2), height - tall)
    return row, min(max(0, (left + right - wide) // 2), width - wide), tall, wide


def _where(found: Found, rank: int) -> str:
    """Return where an object is: degrees north and east, or column and row in a plain image."""
    if found.frame.crs is None:
        at = found.frame.geometry.iloc[rank].representative_point()
        return f"col {at.x:.0f}, row {at.y:.0f}"
    at = found.frame.geometry.iloc[[rank]].representative_point().to_crs(4326).iloc[0]
    return f"{abs(at.y):.5f}° {'N' if at.y >= 0 else 'S'}, {abs(at.x):.5f}° {'E' if at.x >= 0 else 'W'}"


def _classes(found: Found) -> html.Section:
    assert found.class_px_2K is not None
    names, colours = found.classes, reports_colours.class_colours(found.classes)
    maps = [
        html.picture(reports_colours.palette(_thumbnail(found.folder / f"{date}.tif"), colours), title, lossless=True)
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
        html.gallery(maps),
        html.table(["class", "role", "before", "after", "difference"], rows, swatches=colours),
    ]
    return html.Section("What each image shows", parts, lead="The class with the highest score at each date.")


def _thumbnail(path: Path) -> NDArray[np.uint8]:
    """Read a class map decimated."""
    with warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning), rasterio.open(path) as source:
        step = max(1, -(-max(source.shape) // CLASSES_PX))
        size = -(-source.height // step), -(-source.width // step)
        classes_HW: NDArray[np.uint8] = source.read(1, out_shape=size)
    return classes_HW


def _how(pair: RasterPair, found: Found, run: RunFacts) -> html.Section:
    settings = run.settings
    crs = pair.grid.crs
    facts = {
        "Before": str(pair.before.path),
        "After": str(pair.after.path),
        "Grid": _ground(pair, found),
        "CRS": "none" if crs is None else crs.to_string() if len(crs.to_string()) < 60 else crs.to_wkt()[:60] + " ...",
        **describe(run.detector),
        "Tiles": f"{settings.tile_px} px, overlapping by {settings.overlap_px} px",
        "Smallest object": area_text(settings.min_area_m2, metric=found.metric) if settings.min_area_m2 else "any size",
        "Time": ", ".join(f"{name} {value:.1f} s" for name, value in run.seconds.items()),
        "Versions": ", ".join(f"{name} {number}" for name, number in versions().items()),
    }
    files = [
        ["change.tif", "1 changed, 0 unchanged, 255 no data"],
        ["score.tif", "change score from 0 to 1, NaN no data; rank and filter by it"],
        ["changes.gpkg", "one row per changed object, for any GIS"],
        ["run.json", "settings, versions, hashes of the inputs, all numbers"],
    ]
    if found.class_px_2K is not None:
        files.insert(2, ["t1.tif, t2.tif", "classes of each date, named in the files' tags CLASS_0, CLASS_1, ..."])
    return html.Section("How this was made", [html.facts(facts), html.table(["file", "content"], files)])
