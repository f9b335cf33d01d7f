"""List every changed object in a report: its number, its kind, its size, and where it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from markupsafe import Markup

from semicdvl.detection.changes import DetectedChanges
from semicdvl.raster.grid import WGS84, Grid
from semicdvl.reports import html
from semicdvl.reports.colours import KIND_COLOURS
from semicdvl.reports.numbers import format_area

if TYPE_CHECKING:
    import geopandas as gpd

MAX_LISTED = 5_000
"""So many objects make a table of about 1 MB; further ones are in changes.gpkg only."""


def build_object_index(changes: DetectedChanges, grid: Grid, *, shown: int) -> html.Section:
    """Return the section that lists the objects, the largest first.

    Args:
        changes: what was found.
        grid: of the rasters.
        shown: how many of them have a card with pictures, to which their numbers lead.
    """
    listed = min(len(changes.objects), MAX_LISTED)
    has_classes = bool(changes.classes)
    rows, kinds = [], []
    for row, kind in _list_rows(changes, grid, shown=shown, has_classes=has_classes):
        rows.append(row)
        kinds.append(kind)
    columns = ["id", "kind", *(["from → to"] if has_classes else []), "area", "score", "where"]
    words = ("id", "kind", "from → to", "area", "score", "where")
    table = html.render_table(columns, rows, swatches=[KIND_COLOURS[kind] for kind in kinds], words=words)
    lead = "The number is the object's id in changes.gpkg; those with pictures above are links."
    if listed < len(changes.objects):
        lead += f" The {listed:,} largest of {len(changes.objects):,} objects; all of them are in changes.gpkg."
    summary = "Show the object" if listed == 1 else f"Show all {listed:,} objects"
    return html.Section("All objects", [html.render_details(summary, table)], lead=lead)


def name_card(number: int) -> str:
    """Return the name by which a link finds the card of an object."""
    return f"object-{number}"


def format_locations(objects: gpd.GeoDataFrame, grid: Grid) -> list[str]:
    """Return where objects are: degrees north and east, column and row in a plain image, or map coordinates."""
    points = objects.geometry.representative_point()
    if not grid.has_position_on_earth:
        plain = grid.crs is None and grid.transform.e > 0
        return [f"col {at.x:.0f}, row {at.y:.0f}" if plain else f"x {at.x:.1f}, y {at.y:.1f}" for at in points]
    return [
        f"{abs(at.y):.5f}° {'N' if at.y >= 0 else 'S'}, {abs(at.x):.5f}° {'E' if at.x >= 0 else 'W'}"
        for at in points.to_crs(WGS84.to_wkt())
    ]


def _list_rows(
    changes: DetectedChanges, grid: Grid, *, shown: int, has_classes: bool
) -> Iterator[tuple[list[object], str]]:
    """Yield the cells and the kind of each listed object."""
    rank = 0
    for frame in changes.objects.iterate_frames():
        frame = frame[: MAX_LISTED - rank]
        if not len(frame):
            return
        for row, place in zip(frame.itertuples(), format_locations(frame, grid), strict=True):
            number: object = int(row.id)
            if rank < shown:
                number = html.render_link(f"#{name_card(int(row.id))}", str(row.id))
            classes = [f"{row.from_class} → {row.to_class}"] if has_classes else []
            area = format_area(float(changes.objects.area_N[rank]), metric=changes.has_metric_areas)
            yield [number, row.kind, *classes, area, f"{row.score:.2f}", place], str(row.kind)
            rank += 1


def link_files(files: list[list[str]]) -> list[list[object]]:
    """Return rows of a table of files, whose names lead to the files beside the page."""
    return [
        [Markup(", ").join(html.render_link(name, name) for name in names.split(", ")), *others]
        for names, *others in files
    ]
