"""A detector's change map, strip by strip -> the rasters of a result, in files or in memory, and its objects."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from semicdvl.detection.changes import DetectedChanges, LeftOut
from semicdvl.detection.tiles.background_io import write_in_background
from semicdvl.raster.grid import Grid
from semicdvl.raster.io.cog import BandDescription, CogWriter, create_cog
from semicdvl.raster.vector.polygonise import PackedMask
from semicdvl.raster.vector.simplify import SimplifySettings
from semicdvl.raster.vector.streaming_objects import ObjectCollector
from semicdvl.reports.colours import CHANGE_MAP_COLOURS, choose_class_colours
from semicdvl.types import IGNORE, ChangeMap

SCORE_FILE_STEPS = 1024
"""Scores are rounded to this many steps: finer ones are noise, and noise does not compress."""
FINISHING_THREADS = 2
"""Rasters that are compressed at a time; what GDAL does in one thread for one raster is done for two at once."""
STRIP_ROWS = 512
"""Rows that are written at a time where a raster lies in memory."""


@dataclass(frozen=True)
class MapRows:
    """Rows of the result, and pixels of earlier rows (or of these) that turned out to belong to small objects.

    Attributes:
        row: the first of the rows on the raster.
        change: the rows.
        small: the pixels; they become unchanged.
    """

    row: int
    change: ChangeMap
    small: list[PackedMask]

    def list_rounded(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """Give name and rows of every raster, with the scores rounded as they are stored."""
        for name, array_HW in _list_arrays(self.change).items():
            if name == "score":
                array_HW = np.round(array_HW * SCORE_FILE_STEPS).astype(np.float32) / np.float32(SCORE_FILE_STEPS)
            yield name, array_HW


def _list_arrays(change: ChangeMap) -> dict[str, NDArray[Any]]:
    """Return the rows of every raster that the detector gives, by name."""
    rows: dict[str, NDArray[Any] | None] = {
        "change": change.change_HW,
        "score": change.score_HW,
        "t1": change.t1_HW,
        "t2": change.t2_HW,
    }
    return {name: array_HW for name, array_HW in rows.items() if array_HW is not None}


class RasterSink(Protocol):
    """Where the rows of a result go to."""

    def open(self, change: ChangeMap) -> None:
        """Make room for the rasters that the first rows show; further calls do nothing."""
        ...

    def write_all(self, rows: Iterator[MapRows]) -> None:
        """Take the rows from the top to the bottom."""
        ...


def collect_changes(
    maps: Iterator[ChangeMap],
    sink: RasterSink,
    *,
    grid: Grid,
    min_area_m2: float = 0,
    gsd_m: float | None = None,
    simplify: SimplifySettings | None = None,
    folder: Path | None = None,
    on_decided: Callable[[], None] = lambda: None,
) -> DetectedChanges:
    """Pass the rows of a result on to a sink and return the changed objects.

    One thread goes through the rows and collects the objects, another one writes.

    Args:
        maps: the rows of the result from the top.
        sink: takes the rows.
        grid: the raster's.
        min_area_m2: smaller objects are left out of the map and of the polygons; pixels if `gsd_m` is None.
        gsd_m: metres per pixel, None if not known.
        simplify: how the objects' outlines are simplified; None: not at all.
        folder: where objects are kept until all are known; None: the system's folder for such files.
        on_decided: called once all rows came and only the writing is left.

    Raises:
        OutputError: the files cannot be written.
    """
    min_area_px = round(min_area_m2 / gsd_m**2, 6) if gsd_m else min_area_m2  # 49 m2 of 0.7 m are not above 100 px
    collector = ObjectCollector(grid, min_area_px=min_area_px, folder=folder)
    counts = _PixelCounts()
    with write_in_background(sink.write_all, depth=1) as write:
        for change in maps:
            sink.open(change)
            counts.add(change)
            row = collector.row_count
            write(MapRows(row, change, collector.add_strip(change)))
        if collector.row_count != grid.height:
            raise AssertionError(f"a detector decided on {collector.row_count} rows of {grid.height}")
    on_decided()
    layer = collector.build_layer(gsd_m=gsd_m, simplify=simplify)
    return DetectedChanges(
        objects=layer,
        changed_px=layer.area_px,
        seen_px=counts.seen_px,
        class_px_2K=counts.class_px_2K if collector.classes else None,
        classes=collector.classes,
        foreground=collector.foreground,
        gsd_m=gsd_m,
        left_out=LeftOut(min_area_m2, collector.left_out, collector.left_out_px),
    )


@dataclass
class _PixelCounts:
    """Pixels counted over all strips."""

    seen_px: int = 0
    class_px_2K: NDArray[np.int64] | None = None

    def add(self, change: ChangeMap) -> None:
        """Count some rows."""
        self.seen_px += int(np.count_nonzero(change.change_HW != IGNORE))
        dates = [date_HW for date_HW in (change.t1_HW, change.t2_HW) if date_HW is not None]
        if len(dates) == 2:
            known = slice(len(change.classes))
            counts = np.stack([np.bincount(date_HW.ravel(), minlength=256)[known] for date_HW in dates])
            self.class_px_2K = counts if self.class_px_2K is None else self.class_px_2K + counts


# ------------------------------------------------------------------------------------------------ in files
class RasterFiles(contextlib.ExitStack):
    """The rasters of a result as cloud-optimised GeoTIFFs; `finishing` finishes them, an error removes them."""

    def __init__(self, folder: Path, grid: Grid) -> None:
        """Keep where they go to; they are opened when the first rows show which there are."""
        super().__init__()
        self._folder, self._grid = folder, grid
        self._cogs: dict[str, CogWriter] = {}
        self._files: list[contextlib.ExitStack] = []

    def open(self, change: ChangeMap) -> None:
        """Open the rasters that the first rows show.

        To be called by the thread that also finishes the files: opening silences a warning, which Python can only do
        for all threads at once.
        """
        for name in _list_arrays(change):
            if name not in self._cogs:
                file = self.enter_context(contextlib.ExitStack())
                opened = create_cog(
                    self._folder / f"{name}.tif", grid=self._grid, band=_describe_band(name, change.classes)
                )
                self._cogs[name] = file.enter_context(opened)
                self._files.append(file)

    def write_all(self, rows: Iterator[MapRows]) -> None:
        """Write the rows."""
        for part in rows:
            for name, array_HW in part.list_rounded():
                self._cogs[name].write_rows(part.row, array_HW)
            for patch in part.small:
                self._cogs["change"].clear_pixels(patch.row, patch.col, patch.mask_HW)

    @contextlib.contextmanager
    def finishing(self) -> Iterator[None]:
        """Finish the rasters, of which all rows are written, several at a time, and wait at the end of the block.

        The block reads images at most. Libraries for polygons change Python's warning filters, as these threads do for
        moments, and filters belong to the whole process.
        """
        with ThreadPoolExecutor(FINISHING_THREADS, thread_name_prefix="finishing") as threads:
            pending = [threads.submit(file.close) for file in self._files]
            yield
            for finished in pending:
                finished.result()


def _describe_band(name: str, classes: tuple[str, ...]) -> BandDescription:
    """Return what a raster of the result says of itself."""
    if name == "change":
        tags = {"CLASS_0": "unchanged", "CLASS_1": "changed"}
        return BandDescription("uint8", IGNORE, tags, CHANGE_MAP_COLOURS, "change")
    if name == "score":
        return BandDescription("float32", float("nan"), description="change score 0-1")
    tags = {f"CLASS_{value}": word for value, word in enumerate(classes)}
    return BandDescription("uint8", IGNORE, tags, choose_class_colours(classes), f"class at date {name[1]}")


# ------------------------------------------------------------------------------------------------ in memory
@dataclass
class RasterArrays:
    """The rasters of a result as arrays.

    Attributes:
        grid: the raster's.
        classes: names of the classes, if the detector has any.
        arrays: "change", "score" and, where there are classes, "t1" and "t2", each HW.
    """

    grid: Grid
    classes: tuple[str, ...] = ()
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)

    def open(self, change: ChangeMap) -> None:
        """Make the arrays that the first rows show."""
        self.classes = change.classes
        for name, array_HW in _list_arrays(change).items():
            if name not in self.arrays:
                self.arrays[name] = np.empty((self.grid.height, self.grid.width), array_HW.dtype)

    def write_all(self, rows: Iterator[MapRows]) -> None:
        """Copy the rows."""
        for part in rows:
            for name, array_HW in part.list_rounded():
                self.arrays[name][part.row : part.row + len(array_HW)] = array_HW
            for patch in part.small:
                height, width = patch.mask_HW.shape
                window_HW = self.arrays["change"][patch.row : patch.row + height, patch.col : patch.col + width]
                window_HW[patch.mask_HW] = 0

    def write_files(self, folder: Path) -> None:
        """Write the rasters as `RasterFiles` would have.

        Raises:
            OutputError: the files cannot be written.
        """
        for name, array_HW in self.arrays.items():
            band = _describe_band(name, self.classes)
            with create_cog(folder / f"{name}.tif", grid=self.grid, band=band) as cog:
                for row in range(0, self.grid.height, STRIP_ROWS):
                    cog.write_rows(row, array_HW[row : row + STRIP_ROWS])
