"""A pair of rasters, tile by tile, through a detector into the store of its maps: three threads at work at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from semicdvl.errors import InputError
from semicdvl.predict.planes import PlaneStore
from semicdvl.predict.streams import Ahead, Behind
from semicdvl.rasters.pair import RasterPair
from semicdvl.rasters.windows import Block, blend_row, pad
from semicdvl.types import Detector, Fits, PairTile

AHEAD = 2
"""Tiles that are read before they are asked for, and that wait to be written."""


class WholePair:
    """A pair as tiles side by side: what a detector that must see all of it goes through first.

    Attributes:
        shape_hw: height and width of the raster.
        gsd_m: metres per pixel, None if not known.
    """

    def __init__(self, pair: RasterPair, *, tile_px: int, gsd_m: float | None) -> None:
        """Keep the pair, which every round opens anew for the thread that reads.

        Args:
            pair: the opened pair.
            tile_px: side of a tile; those at the right and at the bottom are smaller.
            gsd_m: metres per pixel.
        """
        self.shape_hw, self.gsd_m = pair.shape_hw, gsd_m
        self._pair, self._tile_px = pair, tile_px

    def __iter__(self) -> Iterator[PairTile]:
        """Give the tiles, row by row."""
        with self._pair.reopened() as own, Ahead(self._read(own), depth=AHEAD) as tiles:
            yield from tiles

    def _read(self, own: RasterPair) -> Iterator[PairTile]:
        (height, width), side = self.shape_hw, self._tile_px
        for row in range(0, height, side):
            for col in range(0, width, side):
                window = own.read(row, col, min(side, height - row), min(side, width - col))
                yield PairTile(window.t1_HWC, window.t2_HWC, window.valid_HW)


def fitted(detector: Detector, pair: RasterPair, *, tile_px: int, gsd_m: float | None) -> Detector:
    """Show a detector the whole pair where it must see it before it can judge a tile."""
    return detector.fitted(WholePair(pair, tile_px=tile_px, gsd_m=gsd_m)) if isinstance(detector, Fits) else detector


@dataclass(frozen=True)
class _Job:
    """Both dates of a tile, padded to its full size (None: no pixel has data in both), and where they have data."""

    dates_HWC: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None
    valid_HW: NDArray[np.bool_]


def fill(store: PlaneStore, pair: RasterPair, detector: Detector, *, gsd_m: float | None, console: Console) -> int:
    """Run the detector over every tile whose maps the store has not yet; return how many it had.

    One thread reads (with handles of its own), this one detects, a third blends and writes.

    Raises:
        InputError: a file is damaged, or the dates have no pixel with data in common.
        OSError: the store cannot be written.
    """
    first = store.finished_rows()
    had, count = first * len(store.cut.cols), len(store.cut)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("tiles"))
    shown = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True)
    if had:
        console.print(f"going on from an interrupted run: {had} of {count} tiles are done")
    if first < len(store.cut.rows):
        with (
            shown,
            pair.reopened() as own,  # opened here, but read by that thread alone
            Ahead(_jobs(store, own, first), depth=AHEAD) as jobs,
            Behind[_Done](lambda done: _write(store, first, done), depth=AHEAD) as writer,
        ):
            task = shown.add_task("detecting", total=count, completed=had)
            for job in jobs:
                planes_PHW = None if job.dates_HWC is None else detector.planes(*job.dates_HWC, gsd_m=gsd_m)
                writer.put((planes_PHW, job.valid_HW))
                shown.advance(task)
    if not store.valid_px():
        remedy = "Check both images' no-data values and that they show the same place"
        raise InputError(pair.after.path, f"has no pixel with data where {pair.before.path.name} has data", remedy)
    return had


def _jobs(store: PlaneStore, own: RasterPair, first: int) -> Iterator[_Job]:
    """Read the tiles from a row of tiles on."""
    cut = store.cut
    for index in range(first, len(cut.rows)):
        for tile in cut.in_row(index):
            window = own.read(tile.row, tile.col, tile.height, tile.width)
            dates_HWC = None
            if window.valid_HW.any():
                dates_HWC = pad(window.t1_HWC, tile_hw=cut.tile_hw), pad(window.t2_HWC, tile_hw=cut.tile_hw)
            yield _Job(dates_HWC, window.valid_HW)


_Done = tuple[NDArray[np.float32] | None, NDArray[np.bool_]]
"""The maps of a tile (None: nothing to see there) and where it is valid."""


def _write(store: PlaneStore, first: int, done: Iterator[_Done]) -> None:
    """Blend what comes and write it, row of tiles by row of tiles."""
    for index in range(first, len(store.cut.rows)):
        store.write_row(index, _blended(store, index, done))


def _blended(store: PlaneStore, index: int, done: Iterator[_Done]) -> Iterator[tuple[Block, NDArray[np.bool_]]]:
    """Blend one row of tiles."""
    cut = store.cut
    valid_of: list[NDArray[np.bool_]] = []

    def tiles_PHW() -> Iterator[NDArray[np.float32]]:
        for _ in cut.cols:
            planes_PHW, valid_HW = next(done)
            valid_of.append(valid_HW)
            yield np.zeros((store.planes_count, *cut.tile_hw), np.float32) if planes_PHW is None else planes_PHW

    with store.above(index) as above:
        for at, block in enumerate(blend_row(cut, index, tiles_PHW(), above=above)):
            yield block, valid_of.pop()[:, : cut.finished_cols(at)]
