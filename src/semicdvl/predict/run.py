"""Two rasters and a detector -> a folder with the map, the polygons and the report, written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from semicdvl.errors import InputError
from semicdvl.files import whole_folder
from semicdvl.predict import detect_page, results
from semicdvl.predict.check import alignment_record, open_checked, warnings_left
from semicdvl.predict.detector import network_detector, vlm_detector
from semicdvl.predict.out_folder import keep_foreign, refuse_foreign
from semicdvl.predict.results import Found
from semicdvl.rasters.pair import RasterPair
from semicdvl.rasters.vector import find_objects, polygons
from semicdvl.rasters.windows import blend, pad, tiling
from semicdvl.types import ChangeMap, Detector

__all__ = ["DetectResult", "DetectSettings", "detect", "network_detector", "vlm_detector"]

IN_MEMORY_BYTES = 2**30
"""Maps of a whole raster that need more lie in a file of the output folder while they are worked on."""


@dataclass(frozen=True)
class DetectSettings:
    """How `detect` works.

    Attributes:
        tile_px: side of a tile; its memory grows with the square.
        overlap_px: over which neighbouring tiles are blended; the detector should not look much further than half.
        min_area_m2: smaller objects are left out of the map and the polygons alike (0: none). Pixels where the
            size of a pixel is not known.
        gsd_m: metres per pixel where the files don't say (or say it wrong); handed to the detector.
        bands: 1-based numbers of red, green and blue; None: as tagged, or the first three.
        title: heading of the report; None: made from the file names.
        align: move the after image by the shift that is measured between the dates, where it is known.
        overwrite: use OUT even if it holds other things than an earlier result; these stay where they are.
    """

    tile_px: int = 1024
    overlap_px: int = 128
    min_area_m2: float = 0.0
    gsd_m: float | None = None
    bands: tuple[int, int, int] | None = None
    title: str | None = None
    align: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class DetectResult:
    """What came out.

    Attributes:
        out: the folder.
        objects: number of changed objects.
        changed_px: changed pixels.
        seen_px: pixels with data in both dates.
        changed_m2: changed area in square metres, None where the size of a pixel is not known.
        by_kind: objects per kind of change.
        warnings: what a reader of the result should know.
        seconds: duration of the stages.
        summary: all of that in a few lines.
    """

    out: Path
    objects: int
    changed_px: int
    seen_px: int
    changed_m2: float | None
    by_kind: dict[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    summary: str = ""


def detect(
    before: Path,
    after: Path,
    out: Path,
    *,
    detector: Detector,
    settings: DetectSettings | None = None,
    progress: Console | None = None,
) -> DetectResult:
    """Find what changed between two images and write it to a folder.

    Written are `change.tif` (1 changed, 0 not, 255 no data), `score.tif` (NaN no data), `t1.tif` and `t2.tif` (classes,
    where the detector has them), `changes.gpkg`, `report.html` and `run.json`. All of it is made in a folder beside
    `out`, which takes its place at the end: whatever happens before (an error, Ctrl-C, a full disk), `out` is what it
    was.

    Args:
        before: image of date 1.
        after: image of date 2; see `rasters.pair.open_pair` for what happens when the grids differ.
        out: the folder. An earlier result in it is replaced.
        detector: what finds the change.
        settings: see `DetectSettings`.
        progress: where progress is shown; standard error unless given.

    Raises:
        InputError: an image cannot be used, or the two have no pixel with data in common.
        OutputError: `out` holds other things, or cannot be written.
        ConfigError: impossible tiles.
    """
    settings = settings or DetectSettings()
    before, after, out = Path(before), Path(after), Path(out).absolute()
    refuse_foreign(out, overwrite=settings.overwrite)
    clock, console = _Clock(), progress or Console(stderr=True)
    pair, checked, left = open_checked(before, after, bands=settings.bands, align=settings.align)
    with pair:
        clock.lap("open")
        with whole_folder(out) as folder:
            gsd_m = settings.gsd_m or pair.gsd_m
            with _planes(folder, pair, detector) as planes_PHW:
                valid_HW = _run_tiles(pair, detector, planes_PHW, settings=settings, gsd_m=gsd_m, console=console)
                clock.lap("detect")
                with console.status("objects"):
                    change = detector.decide(planes_PHW, valid_HW)
            found = _found(pair, change, settings=settings, gsd_m=gsd_m)
            clock.lap("decide")
            with console.status("writing"):
                warnings = (
                    *results.warnings_of(pair, found, settings=settings),
                    *warnings_left(checked, pair.move, left),
                )
                alignment = alignment_record(checked, pair.move, left)
                _write(
                    folder,
                    pair,
                    found,
                    detector=detector,
                    settings=settings,
                    warnings=warnings,
                    alignment=alignment,
                    clock=clock,
                )
            keep_foreign(out, folder)
    numbers = results.count(found)
    return DetectResult(
        out=out,
        objects=numbers.objects,
        changed_px=numbers.changed_px,
        seen_px=numbers.seen_px,
        changed_m2=numbers.changed_m2,
        by_kind=numbers.by_kind,
        warnings=warnings,
        seconds=dict(clock.laps),
        summary=results.summary(found, warnings, out),
    )


# ------------------------------------------------------------------------------------------------ the work
def _run_tiles(
    pair: RasterPair,
    detector: Detector,
    planes_PHW: NDArray[np.float32],
    *,
    settings: DetectSettings,
    gsd_m: float | None,
    console: Console,
) -> NDArray[np.bool_]:
    """Fill the planes of the whole raster tile by tile; return where both dates have data."""
    cut = tiling(*pair.shape_hw, tile_px=settings.tile_px, overlap_px=settings.overlap_px)
    valid_HW = np.zeros(pair.shape_hw, bool)

    def tiles() -> Iterator[NDArray[np.float32]]:
        for tile in shown.track(cut, total=len(cut), description="detecting"):
            window = pair.read(tile.row, tile.col, tile.height, tile.width)
            rows, cols = slice(tile.row, tile.row + tile.height), slice(tile.col, tile.col + tile.width)
            valid_HW[rows, cols] = window.valid_HW
            if not window.valid_HW.any():
                yield np.zeros((detector.planes_count, *cut.tile_hw), np.float32)
                continue
            dates = (pad(image_HWC, tile_hw=cut.tile_hw) for image_HWC in (window.t1_HWC, window.t2_HWC))
            yield detector.planes(*dates, gsd_m=gsd_m)

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("tiles"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True) as shown:
        for strip in blend(cut, tiles(), planes_count=detector.planes_count):
            planes_PHW[:, strip.row : strip.row + strip.planes_PHW.shape[1]] = strip.planes_PHW
    if not valid_HW.any():
        remedy = "Check both images' no-data values and that they show the same place"
        raise InputError(pair.after.path, f"has no pixel with data where {pair.before.path.name} has data", remedy)
    return valid_HW


def _found(pair: RasterPair, change: ChangeMap, *, settings: DetectSettings, gsd_m: float | None) -> Found:
    """Find the objects of the whole map and drop the small ones from the map, too."""
    least_px = settings.min_area_m2 / gsd_m**2 if gsd_m else settings.min_area_m2
    objects = find_objects(change.change_HW, min_area_px=least_px)
    change.change_HW[(change.change_HW == 1) & (objects.labels_HW == 0)] = 0
    frame = polygons(
        objects,
        grid=pair.grid,
        score_HW=change.score_HW,
        t1_HW=change.t1_HW,
        t2_HW=change.t2_HW,
        classes=change.classes,
        foreground=change.foreground,
        gsd_m=gsd_m,
    )
    return Found(change, objects, frame, gsd_m)


@contextlib.contextmanager
def _planes(folder: Path, pair: RasterPair, detector: Detector) -> Iterator[NDArray[np.float32]]:
    """Give room for the maps of the whole raster: memory, or a file of the output folder if they are large."""
    shape = (detector.planes_count, *pair.shape_hw)
    size = 4 * int(np.prod(shape, dtype=np.int64))
    if size <= IN_MEMORY_BYTES:
        yield np.zeros(shape, np.float32)
        return
    path = folder / ".planes"
    with path.open("wb") as handle:
        os.posix_fallocate(handle.fileno(), 0, size)  # a full disk is an error now and not a bus error later
    yield np.memmap(path, np.float32, mode="r+", shape=shape)
    path.unlink()


def _write(
    folder: Path,
    pair: RasterPair,
    found: Found,
    *,
    detector: Detector,
    settings: DetectSettings,
    warnings: tuple[str, ...],
    alignment: dict[str, Any],
    clock: _Clock,
) -> None:
    """Write all outputs."""
    results.write_maps(folder, pair, found)
    clock.lap("write")
    page, record = folder / "report.html", folder / "run.json"
    detect_page.write(page, pair, found, detector=detector, settings=settings, warnings=warnings, seconds=clock.laps)
    clock.lap("report")
    results.write_record(
        record,
        pair,
        found,
        detector=detector,
        settings=settings,
        warnings=warnings,
        alignment=alignment,
        seconds=clock.laps,
    )


class _Clock:
    """Seconds of the stages, in the order in which they ended."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self.start = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name], self.start = round(now - self.start, 3), now
