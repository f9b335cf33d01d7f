"""Two images and a detector -> what changed, in memory or as an output folder."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path

import rasterio
from rich.console import Console

from semicdvl.detection.changes import DetectedChanges, collect_warnings, summarise_changes
from semicdvl.detection.config import (
    GDAL_CACHE_BYTES,
    GDAL_WRITE_CACHE_BYTES,
    DetectionConfig,
    check_config,
    follow_detector,
)
from semicdvl.detection.fingerprint import RunFingerprint, fingerprint_run
from semicdvl.detection.gis_layers import write_gis_layers
from semicdvl.detection.inputs import ArrayImage, open_in_memory
from semicdvl.detection.output_folder import carry_over_other_files, check_output_folder, open_work_folder
from semicdvl.detection.pair_check.check import CheckedPair, judge_reliability, open_checked_pair
from semicdvl.detection.raster_writer import RasterArrays, RasterFiles, RasterSink, collect_changes
from semicdvl.detection.report import read_report_overview, write_detection_report
from semicdvl.detection.results import DetectionResult, ResultSource, make_result
from semicdvl.detection.run_record import RunRecord, SavedDetection, StageClock, write_run_record
from semicdvl.detection.tiles.memory_store import MemoryScoreStore
from semicdvl.detection.tiles.score_store import ScoreStore
from semicdvl.detection.tiles.tile_runner import PairTileReader, TileExecutor, run_tiles
from semicdvl.detection.tiles.tile_store import TileStore, WriterT
from semicdvl.process_memory import return_freed_memory
from semicdvl.raster.io.inputs import ImageInput
from semicdvl.raster.io.pair_reader import PairWindow, RasterPair
from semicdvl.raster.tiling import Tiling, plan_tiles
from semicdvl.raster.vector.simplify import SimplifySettings
from semicdvl.reading.regular_files import FileStamps
from semicdvl.types import Detector

CHECKING = "checking how the images fit"


def detect_in_memory(
    before: ImageInput | ArrayImage,
    after: ImageInput | ArrayImage,
    *,
    detector: Detector,
    config: DetectionConfig | None = None,
    progress: Console | None = None,
    executor: TileExecutor | None = None,
) -> DetectionResult:
    """Find what changed between two images; nothing is written.

    All maps are held in memory: 4 bytes per pixel and map of the detector, beside the result. For rasters that are too
    large for that, and for runs that can be resumed, use `write_detection`, which finds the same.

    Args:
        before: date 1: a file, a folder, an address, several files (`raster.io.inputs.resolve_input`), or an array.
        after: date 2; see `raster.io.open_pair.open_pair` for what happens when the grids differ.
        detector: finds the change.
        config: the settings; None: the defaults.
        progress: where progress is shown; standard error unless given.
        executor: computes the tiles; None: this process.

    Raises:
        InputError: an image cannot be used, or the two have no pixel with data in common.
        ConfigError: impossible tiles, or more bands than the detector accepts.
        MissingExtraError: a vector format that needs an optional package.
    """
    config, console = follow_detector(config or DetectionConfig(), detector), progress or Console(stderr=True)
    check_config(config, detector)
    with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_BYTES), ExitStack() as held:
        clock = StageClock()
        names = held.enter_context(open_in_memory(before, after))
        with console.status(CHECKING):
            checked = open_checked_pair(*names, config=config)
        held.enter_context(checked.pair)
        stamps = FileStamps.take((*checked.pair.before.files, *checked.pair.after.files))
        fingerprint = fingerprint_run(checked.pair, detector=detector, config=config)
        clock.end_stage("open")
        run = _DetectionRun(checked, detector, fingerprint, console, clock, executor)
        store = MemoryScoreStore(run.tiling, map_count=run.prepare_detector().map_count)
        run.score_tiles(store)
        rasters = RasterArrays(checked.pair.grid)
        changes = run.decide(store, rasters)
        stamps.require_unchanged()
        return make_result(ResultSource(checked.pair, rasters, changes, run.make_record(changes), held.pop_all()))


def write_detection(
    before: ImageInput,
    after: ImageInput,
    out: Path,
    *,
    detector: Detector,
    config: DetectionConfig | None = None,
    progress: Console | None = None,
    executor: TileExecutor | None = None,
    fingerprint: RunFingerprint | None = None,
) -> SavedDetection:
    """Find what changed between two images and write it to a folder.

    Written are `change.tif` (1 changed, 0 unchanged, 255 no data), `score.tif` (NaN no data), `t1.tif` and `t2.tif`
    (classes, where the detector has them), `changes.gpkg`, a style for QGIS beside each of them (`.qml`),
    `report.html` and `run.json`. They are made in a hidden folder beside `out`, which takes its place at the end:
    whatever happens before (an error, Ctrl-C, a full disk), `out` stays what it was. An interrupted run is resumed from
    its finished rows of tiles when it is started again with the same images, settings and detector, and gives the same
    bytes. Memory does not grow with the rasters: the score maps lie in files of that folder, 4 bytes per pixel and map
    of the detector.

    Args:
        before: date 1: a file, a folder, an address, or several files (`raster.io.inputs.resolve_input`).
        after: date 2; see `raster.io.open_pair.open_pair` for what happens when the grids differ.
        out: the folder. An earlier result in it is replaced.
        detector: finds the change.
        config: the settings; None: the defaults.
        progress: where progress is shown; standard error unless given.
        executor: computes the tiles (`tiles.ray_executor.RayTileExecutor`); None: this process. The result is the same.
        fingerprint: of this run, where it is known already.

    Raises:
        InputError: an image cannot be used, or the two have no pixel with data in common.
        OutputError: `out` holds other files, or cannot be written.
        ConfigError: impossible tiles, or more bands than the detector accepts.
        MissingExtraError: a vector format that needs an optional package.
    """
    config, console = follow_detector(config or DetectionConfig(), detector), progress or Console(stderr=True)
    out = Path(out).resolve()  # work folder and result lie where a link leads to
    check_config(config, detector)
    check_output_folder(out, overwrite=config.overwrite)
    with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_BYTES), ExitStack() as held:
        clock = StageClock()
        with console.status(CHECKING):
            checked = open_checked_pair(before, after, config=config)
        pair = held.enter_context(checked.pair)
        stamps = FileStamps.take((*pair.before.files, *pair.after.files))
        ingredients = fingerprint or fingerprint_run(pair, detector=detector, config=config)
        clock.end_stage("open")
        run = _DetectionRun(checked, detector, ingredients, console, clock, executor)
        _import_in_background("geopandas")
        parts = ingredients.list_resume_parts(pair, checked.build_alignment_record())
        with open_work_folder(out, parts) as work, _announce_interruption(console):
            store = ScoreStore(work.tiles, run.tiling, map_count=run.prepare_detector().map_count)
            run.score_tiles(store)
            with rasterio.Env(GDAL_CACHEMAX=GDAL_WRITE_CACHE_BYTES), RasterFiles(work.result, pair.grid) as rasters:
                return_freed_memory()
                changes = run.decide(store, rasters, folder=work.result)
                return_freed_memory()
                with rasters.finishing():
                    overview = read_report_overview(pair)
            return_freed_memory()
            record = run.write_files(work.result, changes, overview)
            stamps.require_unchanged()
            carry_over_other_files(out, work.result)
    return SavedDetection(out, summarise_changes(changes), record.warnings, dict(clock.seconds), record.reliability)


@dataclass
class _DetectionRun:
    """One detection and what all its stages need."""

    checked: CheckedPair
    detector: Detector
    fingerprint: RunFingerprint
    console: Console
    clock: StageClock
    executor: TileExecutor | None
    resumed_tiles: int = 0

    @property
    def gsd_m(self) -> float | None:
        """Metres per pixel, None if not known."""
        return self.fingerprint.config.gsd_m or self.checked.pair.gsd_m

    @cached_property
    def tile_pair(self) -> RasterPair:
        """The pair as the detector reads it."""
        return self.checked.pair.read_exactly() if self.detector.reads_values else self.checked.pair

    @cached_property
    def tiling(self) -> Tiling:
        """How the raster is cut into tiles."""
        config = self.fingerprint.config
        return plan_tiles(*self.checked.pair.shape_hw, tile_px=config.tile_px, overlap_px=config.overlap_px)

    def prepare_detector(self) -> Detector:
        """Fit the detector to the whole pair, where it needs that, and return it."""
        tiles = PairTileReader(self.tile_pair, tile_px=self.fingerprint.config.tile_px, gsd_m=self.gsd_m)
        with self.console.status("reading the whole pair"):
            self.detector = self.detector.prepare(tiles)
        if self.fingerprint.config.min_area_m2 is not None:
            self.detector = self.detector.set_least_area(self.fingerprint.config.min_area_m2)
        return self.detector

    def score_tiles(self, store: TileStore[WriterT]) -> None:
        """Run the detector over all tiles that the store does not have yet."""
        compute = None if self.executor is None else self.executor.bind(self.detector, gsd_m=self.gsd_m)
        self.resumed_tiles = run_tiles(
            store, self.tile_pair, self.detector, gsd_m=self.gsd_m, console=self.console, compute=compute
        )
        self.clock.end_stage("detect")

    def decide(self, store: TileStore[WriterT], rasters: RasterSink, *, folder: Path | None = None) -> DetectedChanges:
        """Turn the score maps into the change map and its objects, which may be kept in a folder meanwhile."""
        config, simplify = self.fingerprint.config, None
        least_area = config.min_area_m2  # in m2, or in pixels where their size is not known
        if least_area is None:
            least_area = 0.0 if self.gsd_m is None else self.detector.usual_area_m2
        if config.simplify_m or config.regularise:
            simplify = SimplifySettings(config.simplify_m, config.regularise)
        with self.console.status("objects and rasters"):
            return collect_changes(
                self.detector.decide(store),
                rasters,
                grid=self.checked.pair.grid,
                min_area_m2=least_area,
                gsd_m=self.gsd_m,
                simplify=simplify,
                folder=folder,
                on_decided=partial(self.clock.end_stage, "decide"),
            )

    def make_record(self, changes: DetectedChanges) -> RunRecord:
        """Return what was run and how it went; the seconds of later stages are added to it."""
        pair = self.checked.pair
        own = collect_warnings(
            changes, notes=self.tile_pair.notes, grid_gsd_m=pair.gsd_m, config=self.fingerprint.config
        )
        reliability = judge_reliability(self.checked, self.detector, self.fingerprint.config)
        told = reliability.reasons if reliability.reliable is False else ()
        unreliable = (str(reliability),) if told else ()
        warnings = (*unreliable, *own, *self.checked.collect_warnings(told=told), *self.detector.notes())
        tiles = {"all": len(self.tiling), "from_an_interrupted_run": self.resumed_tiles}
        alignment = self.checked.build_alignment_record()
        return RunRecord(self.detector, self.fingerprint, warnings, alignment, tiles, self.clock.seconds, reliability)

    def write_files(self, folder: Path, changes: DetectedChanges, overview: PairWindow) -> RunRecord:
        """Write what stands beside the rasters: polygons, report (with the images as an overview) and run.json."""
        with self.console.status("objects and rasters"):
            write_gis_layers(folder, changes, self.fingerprint.config)
        self.clock.end_stage("write")
        record, pair = self.make_record(changes), self.checked.pair
        with self.console.status("report"):
            write_detection_report(folder, pair.select_rgb(), changes, record, overview=overview)
        self.clock.end_stage("report")
        write_run_record(folder / "run.json", pair.grid, changes, record)
        return record


def _import_in_background(module: str) -> None:
    """Import a module in another thread, where it is not imported yet: what needs it comes after the tiles."""
    if module not in sys.modules:
        threading.Thread(target=import_module, args=(module,), name=f"importing {module}", daemon=True).start()


@contextmanager
def _announce_interruption(console: Console) -> Iterator[None]:
    """Tell a user who stops a run that it can be resumed."""
    try:
        yield
    except KeyboardInterrupt:
        console.print("Interrupted. The finished tiles are kept beside the output: run the same command to resume.")
        raise
