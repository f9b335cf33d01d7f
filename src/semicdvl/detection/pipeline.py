"""Two rasters and a detector -> a folder with the map, the polygons and the report, written whole or not at all."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import rasterio
from rich.console import Console

from semicdvl.detection import report, results
from semicdvl.detection.detectors.network import build_network_detector, build_vlm_detector
from semicdvl.detection.output_folder import carry_over_other_files, check_output_folder
from semicdvl.detection.pair_check.check import build_alignment_record, collect_remaining_warnings, open_checked_pair
from semicdvl.detection.raster_writer import write_rasters
from semicdvl.detection.results import DetectedChanges, RunRecord
from semicdvl.detection.resume import WorkFolder, open_work_folder
from semicdvl.detection.score_store import ScoreStore
from semicdvl.detection.tile_runner import TileExecutor, fit_detector, run_tiles
from semicdvl.errors import ConfigError
from semicdvl.raster.io.fingerprint import fingerprint_pair
from semicdvl.raster.io.inputs import ImageInput
from semicdvl.raster.io.pair_reader import RasterPair
from semicdvl.raster.tiling import plan_tiles
from semicdvl.raster.vector.files import get_vector_driver, write_vector
from semicdvl.raster.vector.qgis_style import CHANGE_KIND_STYLE
from semicdvl.raster.vector.simplify import SimplifySettings
from semicdvl.types import Detector, identify_detector

__all__ = ["DetectionConfig", "DetectionSummary", "build_network_detector", "build_vlm_detector", "detect_to_folder"]

GDAL_CACHE_BYTES = 256 * 2**20
"""What GDAL may keep of the rasters that it reads and writes; its own default is a share of the machine's memory."""
POSTPROCESSING_SETTINGS = ("min_area_m2", "simplify_m", "regularise", "polygons", "title", "overwrite")
"""Settings that change what is made of the tiles' maps, but not the maps: an interrupted run may go on with others."""


@dataclass(frozen=True)
class DetectionConfig:
    """How `detect` works.

    Attributes:
        tile_px: side of a tile; its memory grows with the square.
        overlap_px: over which neighbouring tiles are blended; the detector should not look much further than half.
        min_area_m2: smaller objects are left out of the map and the polygons alike (0: none). Pixels where the
            size of a pixel is not known.
        gsd_m: metres per pixel where the files don't say (or say it wrong); handed to the detector.
        bands: 1-based numbers of the bands, red, green and blue first; None: as tagged, or the first three. More than
            three are for methods that look at any number of bands.
        after_bands: the same in the after image, where its bands lie in another order.
        grid: whose pixels the result has: "before", "after", "finest" or a raster file.
        normalise: "match" brings the after image to the before image's light, once for the whole pair; "none" does not.
        simplify_m: corners of the polygons that lie off the line between others by less are left out (0: none).
        regularise: polygons with right angles where they fit, for buildings.
        polygons: further files of the polygons beside changes.gpkg: "geojson", "fgb", "parquet".
        title: heading of the report; None: made from the file names.
        align: move the after image by the shift that is measured between the dates, where it is known.
        overwrite: use OUT even if it holds other things than an earlier result; these stay where they are.
    """

    tile_px: int = 1024
    overlap_px: int = 128
    min_area_m2: float = 0.0
    gsd_m: float | None = None
    bands: tuple[int, ...] | None = None
    after_bands: tuple[int, ...] | None = None
    grid: str = "before"
    normalise: str = "none"
    simplify_m: float = 0.0
    regularise: bool = False
    polygons: tuple[str, ...] = ()
    title: str | None = None
    align: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class DetectionSummary:
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


def detect_to_folder(
    before: ImageInput,
    after: ImageInput,
    out: Path,
    *,
    detector: Detector,
    settings: DetectionConfig | None = None,
    progress: Console | None = None,
    engine: TileExecutor | None = None,
) -> DetectionSummary:
    """Find what changed between two images and write it to a folder.

    Written are `change.tif` (1 changed, 0 not, 255 no data), `score.tif` (NaN no data), `t1.tif` and `t2.tif` (classes,
    where the detector has them), `changes.gpkg` (with its colours for a GIS, which `changes.qml` has, too),
    `report.html` and `run.json`. All of it is made in a hidden folder beside `out`, which takes its place at the end:
    whatever happens before (an error, Ctrl-C, a full disk), `out` is what it was. A run that was interrupted goes on
    from its finished rows of tiles when it is started again with the same images, settings and detector, and gives the
    same bytes. Memory does not grow with the rasters: what is known of the whole lies in files of that folder, 4 bytes
    a pixel and map of the detector, and in the list of objects.

    Args:
        before: date 1: a file, a folder, an address, or several files (`raster.io.inputs.resolve_input`).
        after: date 2; see `raster.io.pair_reader.open_pair` for what happens when the grids differ.
        out: the folder. An earlier result in it is replaced.
        detector: what finds the change.
        settings: see `DetectionConfig`.
        progress: where progress is shown; standard error unless given.
        engine: what computes the tiles (`fill_on_ray.RayTileExecutor`); None: this process. The result is the same.

    Raises:
        InputError: an image cannot be used, or the two have no pixel with data in common.
        OutputError: `out` holds other things, or cannot be written.
        ConfigError: impossible tiles, or more bands than the detector looks at.
        MissingExtraError: a format that needs an optional package.
    """
    settings = settings or DetectionConfig()
    out = Path(out).absolute()
    check_config(settings, detector)
    check_output_folder(out, overwrite=settings.overwrite)
    console = progress or Console(stderr=True)
    with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_BYTES), ExitStack() as opened:
        clock = _StageTimer()
        pair, checked, left = open_checked_pair(
            before,
            after,
            bands=settings.bands,
            after_bands=settings.after_bands,
            grid=settings.grid,
            normalise=settings.normalise,
            align=settings.align,
        )
        opened.enter_context(pair)
        alignment = build_alignment_record(checked, pair.alignment, left)
        gsd_m = settings.gsd_m or pair.gsd_m
        parts = _list_resume_parts(pair, detector, settings=settings, alignment=alignment)
        key = results.compute_result_key(pair.before.input, pair.after.input, detector=detector, settings=settings)
        clock.mark("open")
        with open_work_folder(out, parts) as partial, _announce_interruption(console):
            work = _DetectionRun(pair, detector, settings, gsd_m, console, clock, engine)
            found, tiles = work.run_tiles_and_write(partial)
            warned = (
                *results.collect_warnings(pair, found, settings=settings),
                *collect_remaining_warnings(checked, pair.alignment, left),
            )
            warned += work.detector.notes()
            facts = RunRecord(work.detector, settings, warned, alignment, tiles, clock.seconds, key)
            work.write_report(partial.result, found, facts)
            carry_over_other_files(out, partial.result)
    numbers = results.summarise_changes(found)
    return DetectionSummary(
        out=out,
        objects=numbers.objects,
        changed_px=numbers.changed_px,
        seen_px=numbers.seen_px,
        changed_m2=numbers.changed_m2,
        by_kind=numbers.by_kind,
        warnings=warned,
        seconds=dict(clock.seconds),
        summary=results.format_detection_summary(found, warned, out),
    )


# ------------------------------------------------------------------------------------------------ the work
@dataclass
class _DetectionRun:
    """One detection on its way: what all its stages need."""

    pair: RasterPair
    detector: Detector
    settings: DetectionConfig
    gsd_m: float | None
    console: Console
    clock: _StageTimer
    engine: TileExecutor | None

    def run_tiles_and_write(self, partial: WorkFolder) -> tuple[DetectedChanges, dict[str, int]]:
        """Run the detector over all tiles, decide, and write rasters and polygons; return also the count of tiles."""
        settings, pair, gsd_m = self.settings, self.pair, self.gsd_m
        cut = plan_tiles(*pair.shape_hw, tile_px=settings.tile_px, overlap_px=settings.overlap_px)
        with self.console.status("looking at the whole pair"):
            self.detector = fit_detector(self.detector, pair, tile_px=settings.tile_px, gsd_m=gsd_m)
        store = ScoreStore(partial.tiles, cut, map_count=self.detector.map_count)
        answers = None if self.engine is None else self.engine.bind(self.detector, gsd_m=gsd_m)
        had = run_tiles(store, pair, self.detector, gsd_m=gsd_m, console=self.console, answers=answers)
        self.clock.mark("detect")
        with self.console.status("objects and rasters"):
            found = write_rasters(
                partial.result,
                self.detector.decide(store),
                grid=pair.grid,
                min_area_m2=settings.min_area_m2,
                gsd_m=gsd_m,
                shaping=SimplifySettings(settings.simplify_m, settings.regularise),
                on_decided=lambda: self.clock.mark("decide"),
            )
            for kind in ("gpkg", *settings.polygons):
                write_vector(partial.result / f"changes.{kind}", found.objects, style=CHANGE_KIND_STYLE)
        self.clock.mark("write")
        return found, {"all": len(cut), "from_an_interrupted_run": had}

    def write_report(self, folder: Path, found: DetectedChanges, facts: RunRecord) -> None:
        """Write what a person reads, and the record of the run."""
        with self.console.status("report"):
            report.write_detection_report(folder / "report.html", self.pair.select_rgb(), found, facts)
        self.clock.mark("report")
        results.write_record(folder / "run.json", self.pair, found, facts)


def check_config(settings: DetectionConfig, detector: Detector) -> None:
    """Refuse at once what would only show at the end of a long run.

    Raises:
        ConfigError: an unknown format, or more bands than the detector looks at.
        MissingExtraError: a format that needs an optional package.
    """
    for kind in settings.polygons:
        get_vector_driver(Path(f"changes.{kind}"))
    for bands in (settings.bands or (), settings.after_bands or ()):
        if detector.max_bands is not None and len(bands) > detector.max_bands:
            asked = ",".join(map(str, bands))
            raise ConfigError(f"{detector.name} looks at red, green and blue; asked for bands {asked}. Name three.")


@contextmanager
def _announce_interruption(console: Console) -> Iterator[None]:
    """Tell who stops a run that the next one goes on from there."""
    try:
        yield
    except KeyboardInterrupt:
        console.print("interrupted. What is done is kept beside the result: the same command goes on from there.")
        raise


def _list_resume_parts(
    pair: RasterPair, detector: Detector, *, settings: DetectionConfig, alignment: dict[str, Any]
) -> dict[str, Any]:
    """Return all that the maps of the tiles depend on: an interrupted run goes on only where all of it is the same."""
    grid = pair.grid
    return {
        "inputs": fingerprint_pair(pair),
        "grid": [None if grid.crs is None else grid.crs.to_wkt(), list(grid.transform)[:6], grid.height, grid.width],
        "settings": {key: value for key, value in asdict(settings).items() if key not in POSTPROCESSING_SETTINGS},
        "alignment": {key: alignment[key] for key in ("moved_px", "offsets_px")},
        "detector": identify_detector(detector),
        "versions": results.list_versions()
        | {"torch": version("torch")},  # whether somebody has imported it yet or not
    }


class _StageTimer:
    """Seconds of the stages, in the order in which they ended."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.start = time.perf_counter()

    def mark(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name], self.start = round(now - self.start, 3), now
