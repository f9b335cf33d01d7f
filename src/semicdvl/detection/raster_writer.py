"""A detector's verdict, strip by strip -> the rasters of a result and its objects."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semicdvl.detection.background_io import BackgroundWriter
from semicdvl.detection.results import DetectedChanges
from semicdvl.raster.grid import Grid
from semicdvl.raster.io.cog import BandDescription, CogWriter, create_cog
from semicdvl.raster.vector.object_stats import MapStrip
from semicdvl.raster.vector.polygonise import PackedMask
from semicdvl.raster.vector.simplify import NO_SIMPLIFICATION, SimplifySettings
from semicdvl.raster.vector.streaming_objects import ObjectCollector
from semicdvl.reports import colours
from semicdvl.types import IGNORE, ChangeMap

SCORE_FILE_STEPS = 1024
"""score.tif is kept in these steps: finer ones are noise, and noise does not compress."""


def write_rasters(
    folder: Path,
    maps: Iterator[ChangeMap],
    *,
    grid: Grid,
    min_area_m2: float = 0,
    gsd_m: float | None = None,
    shaping: SimplifySettings = NO_SIMPLIFICATION,
    on_decided: Callable[[], None] = lambda: None,
) -> DetectedChanges:
    """Write the rasters while their rows come, and return what was found.

    One thread goes through the rows and gathers the objects, another one writes.

    Args:
        folder: where to.
        maps: the rows of the result from the top.
        grid: the raster's.
        min_area_m2: smaller objects are left out of the map and the polygons alike; pixels if `gsd_m` is None.
        gsd_m: metres per pixel, None if not known.
        shaping: how the objects' outlines are drawn.
        on_decided: called once all rows came; what is left to do then is to make the final files of them.

    Raises:
        OutputError: the files cannot be written.
    """
    stream = ObjectCollector(grid, min_area_px=min_area_m2 / gsd_m**2 if gsd_m else min_area_m2)
    with contextlib.ExitStack() as files:
        rasters = _RasterFiles(folder, grid, files)
        tally = _PixelCounts()
        with BackgroundWriter[_RasterRows](rasters.write_all, depth=1) as writer:
            for strip in _number_strips(maps, stream):
                rasters.open(strip, stream.classes)
                tally.add(strip, classes=len(stream.classes))
                writer.put(_RasterRows(strip, stream.add_strip(strip)))
        on_decided()
    table = stream.build_table(gsd_m=gsd_m, simplify=shaping)
    return DetectedChanges(
        objects=table.frame,
        box_N4=table.box_N4,
        changed_px=table.area_px,
        seen_px=tally.seen_px,
        class_px_2K=tally.class_px_2K if stream.classes else None,
        classes=stream.classes,
        foreground=stream.foreground,
        gsd_m=gsd_m,
        folder=folder,
    )


def _number_strips(maps: Iterator[ChangeMap], stream: ObjectCollector) -> Iterator[MapStrip]:
    """Number the rows on, and tell the objects' stream the classes that come with the first."""
    row = 0
    for change in maps:
        if not row:
            stream.classes, stream.foreground = change.classes, change.foreground
            stream.has_probability = change.probability_HW is not None
        yield MapStrip(row, change.change_HW, change.score_HW, change.t1_HW, change.t2_HW, change.probability_HW)
        row += len(change.change_HW)
    if row != stream.grid.height:
        raise AssertionError(f"a detector decided on {row} rows of {stream.grid.height}")


@dataclass
class _PixelCounts:
    """Pixels counted over all strips."""

    seen_px: int = 0
    class_px_2K: NDArray[np.int64] | None = None

    def add(self, strip: MapStrip, *, classes: int) -> None:
        """Count a strip."""
        self.seen_px += int(np.count_nonzero(strip.change_HW != IGNORE))
        dates = [date_HW for date_HW in (strip.t1_HW, strip.t2_HW) if date_HW is not None]
        if len(dates) == 2:
            counts = np.stack([np.bincount(date_HW.ravel(), minlength=256)[:classes] for date_HW in dates])
            self.class_px_2K = counts if self.class_px_2K is None else self.class_px_2K + counts


@dataclass(frozen=True)
class _RasterRows:
    """What the writer gets: rows, and pixels of earlier rows (or these) that turned out to be of small objects."""

    strip: MapStrip
    small: list[PackedMask]


class _RasterFiles:
    """The rasters in the making; opened when the first rows show which there are."""

    def __init__(self, folder: Path, grid: Grid, files: contextlib.ExitStack) -> None:
        """Keep where they go to; `atomic_files` finishes them."""
        self._folder, self._grid, self._files = folder, grid, files
        self._cogs: dict[str, CogWriter] = {}

    def open(self, strip: MapStrip, classes: tuple[str, ...]) -> None:
        """Open what the first rows show that there is.

        To be called by the thread that also finishes the files: opening quietens a warning, which Python can only do
        for all threads at once.
        """
        for name, array_HW in _list_arrays(strip).items():
            if array_HW is not None and name not in self._cogs:
                opened = create_cog(self._folder / f"{name}.tif", grid=self._grid, band=_describe_band(name, classes))
                self._cogs[name] = self._files.enter_context(opened)

    def write_all(self, given: Iterator[_RasterRows]) -> None:
        """Write what comes."""
        for rows in given:
            for name, array_HW in _list_arrays(rows.strip).items():
                if name == "score":
                    array_HW = np.round(array_HW * SCORE_FILE_STEPS).astype(np.float32) / np.float32(SCORE_FILE_STEPS)
                if array_HW is not None:
                    self._cogs[name].write_rows(rows.strip.row, array_HW)
            for patch in rows.small:
                self._cogs["change"].clear_pixels(patch.row, patch.col, patch.mask_HW)


def _list_arrays(strip: MapStrip) -> dict[str, Any]:
    """Return the rows of every raster, None where the route has none."""
    return {"change": strip.change_HW, "score": strip.score_HW, "t1": strip.t1_HW, "t2": strip.t2_HW}


def _describe_band(name: str, classes: tuple[str, ...]) -> BandDescription:
    """Return what a raster of the result says of itself."""
    if name == "change":
        tags = {"CLASS_0": "unchanged", "CLASS_1": "changed"}
        return BandDescription("uint8", IGNORE, tags, [(245, 245, 240), (230, 60, 40)], "change")
    if name == "score":
        return BandDescription("float32", float("nan"), description="change score 0-1")
    tags = {f"CLASS_{value}": word for value, word in enumerate(classes)}
    return BandDescription("uint8", IGNORE, tags, colours.choose_class_colours(classes), f"class at date {name[1]}")
