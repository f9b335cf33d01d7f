"""Run a detector over the tiles of a pair: one thread reads, one predicts, one blends and stores the score maps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from semicdvl.detection.tiles.background_io import read_in_background, write_in_background
from semicdvl.detection.tiles.tile_store import TileStore, WriterT
from semicdvl.errors import InputError
from semicdvl.raster.io.pair_reader import RasterPair
from semicdvl.raster.tiling import BlendedTile, blend_tile_row, pad_tile
from semicdvl.types import Detector, PairTile, TilePrediction

QUEUE_DEPTH = 2
"""Tiles that are read ahead, and that may wait to be written."""


class PairTileReader:
    """A pair as tiles without overlap, for detectors that are fitted to the whole pair.

    Attributes:
        shape_hw: height and width of the raster.
        gsd_m: metres per pixel, None if not known.
    """

    def __init__(self, pair: RasterPair, *, tile_px: int, gsd_m: float | None) -> None:
        """Keep the pair; another thread reads it while the caller works on a tile.

        Args:
            pair: the opened pair.
            tile_px: side of a tile; those at the right and at the bottom are smaller.
            gsd_m: metres per pixel.
        """
        self.shape_hw, self.gsd_m = pair.shape_hw, gsd_m
        self._pair, self._tile_px = pair, tile_px

    def __iter__(self) -> Iterator[PairTile]:
        """Yield the tiles row by row."""
        with read_in_background(self._read(), depth=QUEUE_DEPTH) as tiles:
            yield from tiles

    def _read(self) -> Iterator[PairTile]:
        (height, width), side = self.shape_hw, self._tile_px
        for row in range(0, height, side):
            for col in range(0, width, side):
                window = self._pair.read(row, col, min(side, height - row), min(side, width - col))
                yield PairTile(window.t1_HWC, window.t2_HWC, window.valid_HW)


@dataclass(frozen=True)
class TileJob:
    """A tile to predict.

    Attributes:
        dates_HWC: both dates, padded to the full size of a tile; None: no pixel has data at both dates.
        valid_HW: where both dates have data, of the tile's part of the raster.
    """

    dates_HWC: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None
    valid_HW: NDArray[np.bool_]


ComputeTiles = Callable[[Iterable[TileJob]], Iterator[TilePrediction]]
"""Computes the predictions, one per job, in the order of the jobs."""


class TileExecutor(Protocol):
    """Computes tiles in other processes than the one that reads and writes."""

    def bind(self, detector: Detector, *, gsd_m: float | None) -> ComputeTiles:
        """Return a function that computes `detect_tile` with this detector, which is fitted already."""
        ...


def detect_tile(detector: Detector, job: TileJob, *, gsd_m: float | None) -> TilePrediction:
    """Return the predictions of the detector for a tile; they depend on nothing else, wherever they are computed."""
    if job.dates_HWC is None:
        return detector.skip_tile(job.valid_HW)
    return detector.predict_tile(*job.dates_HWC, valid_HW=job.valid_HW, gsd_m=gsd_m)


def run_tiles(
    store: TileStore[WriterT],
    pair: RasterPair,
    detector: Detector,
    *,
    gsd_m: float | None,
    console: Console,
    compute: ComputeTiles | None = None,
) -> int:
    """Run the detector over every tile that the store does not hold yet; return how many it held.

    One thread reads (nothing else reads the pair meanwhile), this one detects, a third blends and writes.

    Args:
        store: keeps the score maps.
        pair: the opened pair.
        detector: predicts the score maps.
        gsd_m: metres per pixel.
        console: where progress is shown.
        compute: computes `detect_tile` of every tile somewhere else; None: here, one by one.

    Raises:
        InputError: a file is damaged, or no pixel has data at both dates.
        OSError: the store cannot be written.
    """
    first = store.count_finished_rows()
    finished, count = first * len(store.tiling.cols), len(store.tiling)
    compute = compute or partial(map, partial(detect_tile, detector, gsd_m=gsd_m))
    if finished:
        console.print(
            f"Resuming an interrupted run: {finished} of {count} tiles {'is' if finished == 1 else 'are'} finished."
        )
    if first < len(store.tiling.rows):
        with (
            _show_progress(console) as progress,
            read_in_background(_read_jobs(store, pair, first), depth=QUEUE_DEPTH) as jobs,
            write_in_background(partial(_write_rows, store, first), depth=QUEUE_DEPTH) as write,
        ):
            task = progress.add_task("detecting", total=count, completed=finished)
            for prediction in compute(jobs):
                write(prediction)
                progress.advance(task)
    if not store.count_valid_px():
        remedy = "Check the no-data values of both images and that they show the same place"
        raise InputError(pair.after.path, f"has no pixel with data where {pair.before.path.name} has data", remedy)
    return finished


def _show_progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("tiles"))
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True)


def _read_jobs(store: TileStore[WriterT], pair: RasterPair, first: int) -> Iterator[TileJob]:
    """Read the tiles, starting with a row of tiles."""
    tiling = store.tiling
    for index in range(first, len(tiling.rows)):
        for tile in tiling.tiles_in_row(index):
            window = pair.read(tile.row, tile.col, tile.height, tile.width)
            dates_HWC = None
            if window.valid_HW.any():
                dates_HWC = (
                    pad_tile(window.t1_HWC, tile_hw=tiling.tile_hw),
                    pad_tile(window.t2_HWC, tile_hw=tiling.tile_hw),
                )
            yield TileJob(dates_HWC, window.valid_HW)


def _write_rows(store: TileStore[WriterT], first: int, predictions: Iterator[TilePrediction]) -> None:
    """Blend and write the predictions, row of tiles by row of tiles."""
    for index in range(first, len(store.tiling.rows)):
        with store.tile_instances.open_row(index) as instances:
            store.write_row(index, _blend_tiles(store, index, predictions, instances), instances=instances)


def _blend_tiles(
    store: TileStore[WriterT], index: int, predictions: Iterator[TilePrediction], instances: WriterT
) -> Iterator[tuple[BlendedTile, NDArray[np.bool_]]]:
    """Blend one row of tiles; instances and features are written as they come."""
    tiling = store.tiling
    masks: list[NDArray[np.bool_]] = []

    def list_scores() -> Iterator[NDArray[np.float32]]:
        for _ in tiling.cols:
            prediction = next(predictions)
            instances.add(prediction)
            masks.append(prediction.valid_HW)
            scores_PHW = prediction.scores_PHW
            yield np.zeros((store.map_count, *tiling.tile_hw), np.float32) if scores_PHW is None else scores_PHW

    with store.open_row_above(index) as above:
        for at, block in enumerate(blend_tile_row(tiling, index, list_scores(), read_above=above)):
            yield block, masks.pop()[:, : tiling.finished_cols(at)]
