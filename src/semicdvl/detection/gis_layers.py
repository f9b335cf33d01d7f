"""What stands beside the rasters of a result for a GIS: the polygons, and a style for each layer."""

from __future__ import annotations

from pathlib import Path

from semicdvl.detection.changes import DetectedChanges
from semicdvl.detection.config import DetectionConfig
from semicdvl.raster.raster_style import RasterClass, write_class_style, write_ramp_style
from semicdvl.raster.vector.files import write_vector
from semicdvl.raster.vector.qgis_style import CHANGE_KIND_STYLE
from semicdvl.reports.colours import CHANGE_MAP_COLOURS, SCORE_STOPS, choose_class_colours


def write_gis_layers(folder: Path, changes: DetectedChanges, config: DetectionConfig) -> None:
    """Write the changed objects with their style, and the styles of the rasters: names and colours of what is in them.

    The objects go to a GeoPackage and the further formats of the settings.

    Raises:
        OutputError: the folder cannot be written.
    """
    for kind in ("gpkg", *config.polygons):
        write_vector(folder / f"changes.{kind}", changes.objects.iterate_frames(), style=CHANGE_KIND_STYLE)
    unchanged, changed = CHANGE_MAP_COLOURS
    values = [  # what is unchanged lets the layer below be seen
        RasterClass(0, "unchanged", unchanged, changes.seen_px - changes.changed_px, alpha=0),
        RasterClass(1, "changed", changed, changes.changed_px),
    ]
    write_class_style(folder / "change.tif", values)
    write_ramp_style(folder / "score.tif", SCORE_STOPS)
    if changes.class_px_2K is None:
        return
    for date, pixels_K in zip(("t1", "t2"), changes.class_px_2K.tolist(), strict=True):
        named = zip(changes.classes, choose_class_colours(changes.classes), pixels_K, strict=True)
        classes = [RasterClass(value, *one) for value, one in enumerate(named)]
        write_class_style(folder / f"{date}.tif", classes)
