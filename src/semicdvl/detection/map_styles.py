"""The styles beside the rasters of a result: names and colours of what occurs in them."""

from __future__ import annotations

from pathlib import Path

from semicdvl.detection.changes import DetectedChanges
from semicdvl.raster.raster_style import RasterClass, RasterRamp, write_class_style, write_ramp_style
from semicdvl.reports.colours import CHANGE_MAP_COLOURS, SCORE_STOPS, choose_class_colours


def write_map_styles(folder: Path, changes: DetectedChanges) -> None:
    """Write the styles of change.tif, score.tif and, where there are classes, t1.tif and t2.tif.

    Raises:
        OutputError: the folder cannot be written.
    """
    write_class_style(folder / "change.tif", list_change_classes(changes))
    write_ramp_style(folder / "score.tif", RasterRamp(SCORE_STOPS))
    if changes.class_px_2K is None:
        return
    for date, pixels_K in zip(("t1", "t2"), changes.class_px_2K.tolist(), strict=True):
        named = zip(changes.classes, choose_class_colours(changes.classes), pixels_K, strict=True)
        classes = [RasterClass(value, *one) for value, one in enumerate(named)]
        write_class_style(folder / f"{date}.tif", classes)


def list_change_classes(changes: DetectedChanges) -> list[RasterClass]:
    """Return the values of change.tif; what is unchanged lets the layer below be seen."""
    unchanged, changed = CHANGE_MAP_COLOURS
    return [
        RasterClass(0, "unchanged", unchanged, changes.seen_px - changes.changed_px, alpha=0),
        RasterClass(1, "changed", changed, changes.changed_px),
    ]
