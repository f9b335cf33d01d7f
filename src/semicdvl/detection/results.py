"""What `detect` writes beside the report: rasters, polygons and the record of the run."""

from __future__ import annotations

import json
import platform
import resource
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import rasterio
from numpy.typing import NDArray

from semicdvl.atomic_files import hash_values, write_json
from semicdvl.raster.io.fingerprint import fingerprint_input, fingerprint_pair
from semicdvl.raster.io.inputs import ResolvedInput, resolve_input
from semicdvl.raster.io.pair_reader import RasterPair
from semicdvl.types import Detector, identify_detector
from semicdvl.version import __version__

if TYPE_CHECKING:
    from semicdvl.detection.pipeline import DetectionConfig

DETECTION_FORMAT = "semicdvl-detect"
OUTPUT_FILES = ("change.tif", "score.tif", "t1.tif", "t2.tif", "changes.gpkg", "changes.qml", "report.html", "run.json")
EXTRA_OUTPUT_FILES = ("changes.geojson", "changes.fgb", "changes.parquet")
"""The polygons in further formats, where they were asked for."""
EVALUATION_FILES = ("evaluation.json", "evaluation.gpkg", "suggest.gpkg", "suggest.html")
"""What `evaluate` and `suggest` add; it goes with the map that it is about. A sample with a person's answers stays."""
MAX_PLAUSIBLE_FRAC = 0.4
"""A greater share of changed ground than this is more often a fault than a fact."""


@dataclass(frozen=True)
class DetectedChanges:
    """The result in numbers and polygons; its rasters lie in files.

    Attributes:
        objects: the objects as polygons, largest first.
        box_N4: top, left, bottom, right of each object in pixels, ends excluded; of the one with `id` n at n - 1.
        changed_px: changed pixels.
        seen_px: pixels with data in both dates.
        class_px_2K: pixels of each class at either date; None for a route without classes.
        classes: names of the classes.
        foreground: index of the classes that were looked for.
        gsd_m: metres per pixel, None if not known.
        folder: where change.tif, score.tif, and t1.tif and t2.tif if there are classes, lie.
    """

    objects: gpd.GeoDataFrame
    box_N4: NDArray[np.int64]
    changed_px: int
    seen_px: int
    class_px_2K: NDArray[np.int64] | None
    classes: tuple[str, ...]
    foreground: tuple[int, ...]
    gsd_m: float | None
    folder: Path

    @property
    def has_metric_areas(self) -> bool:
        """Whether areas are in square metres and not in pixels."""
        return "area_m2" in self.objects.columns

    @property
    def area(self) -> Any:
        """The polygons' areas, in m2 or px."""
        return self.objects["area_m2" if self.has_metric_areas else "area_px"]


@dataclass(frozen=True)
class RunRecord:
    """What was run and how it went.

    Attributes:
        detector: what looked for changes.
        settings: of the run.
        warnings: what a reader of the result should know.
        alignment: how the dates lie on each other, see `check.build_alignment_record`.
        tiles: how many there are in all, and how many an interrupted run had done before.
        seconds: duration of the stages.
        key: of the result, see `compute_result_key`.
    """

    detector: Detector
    settings: DetectionConfig
    warnings: tuple[str, ...]
    alignment: Mapping[str, Any]
    tiles: Mapping[str, int]
    seconds: Mapping[str, float]
    key: str


@dataclass(frozen=True)
class ChangeSummary:
    """The result in numbers: see `DetectionSummary`."""

    objects: int
    changed_px: int
    seen_px: int
    changed_m2: float | None
    by_kind: dict[str, int]

    @property
    def changed_frac(self) -> float:
        """Share of the ground seen at both dates that changed."""
        return self.changed_px / max(self.seen_px, 1)


def summarise_changes(found: DetectedChanges) -> ChangeSummary:
    """Count what was found."""
    return ChangeSummary(
        objects=len(found.objects),
        changed_px=found.changed_px,
        seen_px=found.seen_px,
        changed_m2=float(found.area.sum()) if found.has_metric_areas else None,
        by_kind={str(kind): int(many) for kind, many in found.objects["kind"].value_counts().items()},
    )


def collect_warnings(pair: RasterPair, found: DetectedChanges, *, settings: DetectionConfig) -> tuple[str, ...]:
    """Say what a reader of the result should know."""
    numbers, lines = summarise_changes(found), list(pair.notes)
    on_map_m = pair.gsd_m
    if found.gsd_m is None:
        lines.append("How large a pixel is on the ground is not known: areas are in pixels. Give --gsd to have metres.")
    elif settings.gsd_m and on_map_m and abs(settings.gsd_m / on_map_m - 1) > 0.05:
        lines.append(f"The detector was told {settings.gsd_m:g} m per pixel, but the map says {on_map_m:.3g} m.")
    if numbers.objects == 0:
        lines.append("No change was found. Look at score.tif: high values show what just missed the threshold.")
    elif numbers.changed_frac > MAX_PLAUSIBLE_FRAC:
        lines.append(
            f"{numbers.changed_frac:.0%} of the ground is marked as changed. That is rare: check that the images are "
            "aligned and of one kind, and that what is looked for fits the place."
        )
    return tuple(lines)


# ------------------------------------------------------------------------------------------------ files
def write_record(path: Path, pair: RasterPair, found: DetectedChanges, run: RunRecord) -> None:
    """Write run.json: what was run on what, with which settings and versions, and what came out."""
    record = {
        "format": DETECTION_FORMAT,
        "key": run.key,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": list_versions(),
        "inputs": fingerprint_pair(pair),
        "grid": {
            "crs": None if pair.grid.crs is None else pair.grid.crs.to_string(),
            "transform": list(pair.grid.transform)[:6],
            "height_px": pair.grid.height,
            "width_px": pair.grid.width,
            "gsd_m": found.gsd_m,
        },
        "alignment": dict(run.alignment),
        "detector": {"name": run.detector.name, **describe_detector(run.detector)},
        "settings": asdict(run.settings),
        "classes": list(found.classes),
        "result": asdict(summarise_changes(found)),
        "warnings": list(run.warnings),
        "tiles": dict(run.tiles),
        "seconds": dict(run.seconds),
        "peak_memory_mib": measure_peak_memory_mib(),
    }
    write_json(path, record)


def describe_detector(detector: Detector) -> dict[str, str]:
    """Return what a detector tells of itself."""
    return detector.description() or {"Detector": detector.name}


def list_versions() -> dict[str, str]:
    """Return the versions of what had a part in the result."""
    found = {
        "semicdvl": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "rasterio": rasterio.__version__,
        "gdal": rasterio.__gdal_version__,
    }
    if "torch" in sys.modules:
        found["torch"] = str(sys.modules["torch"].__version__)
    return found


def measure_peak_memory_mib() -> int:
    """Return the greatest memory that this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak / (2**20 if sys.platform == "darwin" else 2**10))  # macOS counts bytes, Linux KiB


def compute_result_key(
    before: ResolvedInput, after: ResolvedInput, *, detector: Detector, settings: DetectionConfig
) -> str:
    """Return a hash of all that a result depends on: images, settings, detector, versions. Equal keys, equal results.

    It is known without opening the pair, so that what is done is not done twice. An image at an address has no hash: it
    is told from others by its name alone.

    Args:
        before: date 1.
        after: date 2.
        detector: as it was built, before it has seen the pair.
        settings: of the run.

    Raises:
        rasterio.errors.RasterioError: an image cannot be opened.
    """
    grid = settings.grid
    parts = {
        "inputs": [fingerprint_input(before), fingerprint_input(after)],
        "settings": {name: value for name, value in asdict(settings).items() if name != "overwrite"},
        "grid": fingerprint_input(resolve_input(grid)) if grid not in ("before", "after", "finest") else None,
        "detector": [identify_detector(detector), describe_detector(detector)],
        "versions": list_versions() | {"torch": version("torch")},  # whether somebody has imported it yet or not
    }
    return hash_values(DETECTION_FORMAT, json.loads(json.dumps(parts, default=str)))


# ------------------------------------------------------------------------------------------------ words
def format_area(area: float, *, metric: bool) -> str:
    """Return an area as one reads it: px, m² below a hectare, ha above."""
    if not metric:
        return f"{area:,.0f} px"
    return f"{area:,.0f} m²" if area < 10_000 else f"{area / 10_000:,.2f} ha"


def format_detection_summary(found: DetectedChanges, warnings: tuple[str, ...], out: Path) -> str:
    """Return the result in a few lines for the console."""
    numbers = summarise_changes(found)
    kinds = ", ".join(f"{many} {kind}" for kind, many in numbers.by_kind.items())
    area = format_area(numbers.changed_m2 or float(numbers.changed_px), metric=found.has_metric_areas)
    lines = [f"{numbers.objects} changed objects{f' ({kinds})' if kinds else ''}, {area}"]
    lines[0] += f", {numbers.changed_frac:.2%} of the ground seen at both dates"
    lines += [f"note: {line}" for line in warnings]
    return "\n".join([*lines, f"results: {out}", f"report:  {out / 'report.html'}"])
