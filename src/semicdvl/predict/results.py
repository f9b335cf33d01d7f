"""What `detect` writes beside the report: rasters, polygons and the record of the run."""

from __future__ import annotations

import platform
import resource
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import rasterio
from scipy.ndimage import find_objects as find_slices

from semicdvl import __version__
from semicdvl.files import sha256, write_json
from semicdvl.predict import paint
from semicdvl.predict.detector import Described
from semicdvl.rasters.pair import RasterPair
from semicdvl.rasters.vector import Objects, write_vector
from semicdvl.rasters.write import write_cog
from semicdvl.types import IGNORE, ChangeMap, Detector

if TYPE_CHECKING:
    from semicdvl.predict.run import DetectSettings

FORMAT = "semicdvl-detect"
OUTPUTS = ("change.tif", "score.tif", "t1.tif", "t2.tif", "changes.gpkg", "report.html", "run.json")
EVALUATIONS = ("evaluation.json", "evaluation.gpkg")
"""What `evaluate` adds; it goes with the map that it is about. A sample with a person's answers stays."""
SCORE_STEPS = 1024
"""score.tif is kept in these steps: finer ones are noise, and noise does not compress."""
MUCH = 0.4
"""A greater share of changed ground than this is more often a fault than a fact."""


@dataclass(frozen=True)
class Found:
    """The result in all its forms.

    Attributes:
        change: the maps, small objects left out.
        objects: its objects as labels.
        frame: the objects as polygons, largest first.
        gsd_m: metres per pixel, None if not known.
    """

    change: ChangeMap
    objects: Objects
    frame: gpd.GeoDataFrame
    gsd_m: float | None

    @property
    def metric(self) -> bool:
        """Whether areas are in square metres and not in pixels."""
        return "area_m2" in self.frame.columns

    @cached_property
    def boxes(self) -> list[tuple[int, int, int, int]]:
        """Top, left, bottom, right of every label in pixels, ends excluded; index 0 is nothing."""
        slices = find_slices(self.objects.labels_HW)
        return [(0, 0, 0, 0)] + [(rows.start, cols.start, rows.stop, cols.stop) for rows, cols in slices]

    @property
    def area(self) -> Any:
        """The polygons' areas, in m2 or px."""
        return self.frame["area_m2" if self.metric else "area_px"]


@dataclass(frozen=True)
class Numbers:
    """The result in numbers: see `DetectResult`."""

    objects: int
    changed_px: int
    seen_px: int
    changed_m2: float | None
    by_kind: dict[str, int]

    @property
    def changed_frac(self) -> float:
        """Share of the ground seen at both dates that changed."""
        return self.changed_px / max(self.seen_px, 1)


def count(found: Found) -> Numbers:
    """Count what was found."""
    change_HW = found.change.change_HW
    return Numbers(
        objects=len(found.frame),
        changed_px=int((change_HW == 1).sum()),
        seen_px=int((change_HW != IGNORE).sum()),
        changed_m2=float(found.area.sum()) if found.metric else None,
        by_kind={str(kind): int(many) for kind, many in found.frame["kind"].value_counts().items()},
    )


def warnings_of(pair: RasterPair, found: Found, *, settings: DetectSettings) -> tuple[str, ...]:
    """Say what a reader of the result should know."""
    numbers, lines = count(found), list(pair.notes)
    on_map_m = pair.gsd_m
    if found.gsd_m is None:
        lines.append("How large a pixel is on the ground is not known: areas are in pixels. Give --gsd to have metres.")
    elif settings.gsd_m and on_map_m and abs(settings.gsd_m / on_map_m - 1) > 0.05:
        lines.append(f"The detector was told {settings.gsd_m:g} m per pixel, but the map says {on_map_m:.3g} m.")
    if numbers.objects == 0:
        lines.append("No change was found. Look at score.tif: high values show what just missed the threshold.")
    elif numbers.changed_frac > MUCH:
        lines.append(
            f"{numbers.changed_frac:.0%} of the ground is marked as changed. That is rare: check that the images are "
            "aligned and of one kind, and that what is looked for fits the place."
        )
    return tuple(lines)


# ------------------------------------------------------------------------------------------------ files
def write_maps(folder: Path, pair: RasterPair, found: Found) -> None:
    """Write the rasters and the polygons."""
    change, grid = found.change, pair.grid
    write_cog(
        folder / "change.tif",
        change.change_HW,
        grid=grid,
        nodata=IGNORE,
        colours=[(245, 245, 240), (230, 60, 40)],
        tags={"CLASS_0": "unchanged", "CLASS_1": "changed"},
        description="change",
    )
    score_HW = np.round(change.score_HW * SCORE_STEPS).astype(np.float32) / np.float32(SCORE_STEPS)
    write_cog(folder / "score.tif", score_HW, grid=grid, nodata=float("nan"), description="change score 0-1")
    for name, classes_HW in (("t1", change.t1_HW), ("t2", change.t2_HW)):
        if classes_HW is not None:
            write_cog(
                folder / f"{name}.tif",
                classes_HW,
                grid=grid,
                nodata=IGNORE,
                colours=paint.class_colours(change.classes),
                tags={f"CLASS_{value}": word for value, word in enumerate(change.classes)},
                description=f"class at date {name[1]}",
            )
    write_vector(folder / "changes.gpkg", found.frame)


def write_record(
    path: Path,
    pair: RasterPair,
    found: Found,
    *,
    detector: Detector,
    settings: DetectSettings,
    warnings: tuple[str, ...],
    alignment: Mapping[str, Any],
    seconds: Mapping[str, float],
) -> None:
    """Write run.json: what was run on what, with which settings and versions, and what came out."""
    record = {
        "format": FORMAT,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "inputs": {name: _input(date.path) for name, date in (("before", pair.before), ("after", pair.after))},
        "grid": {
            "crs": None if pair.grid.crs is None else pair.grid.crs.to_string(),
            "transform": list(pair.grid.transform)[:6],
            "height_px": pair.grid.height,
            "width_px": pair.grid.width,
            "gsd_m": found.gsd_m,
        },
        "alignment": dict(alignment),
        "detector": {"name": detector.name, **describe(detector)},
        "settings": asdict(settings),
        "classes": list(found.change.classes),
        "result": asdict(count(found)),
        "warnings": list(warnings),
        "seconds": dict(seconds),
        "peak_memory_mib": peak_memory_mib(),
    }
    write_json(path, record)


def describe(detector: Detector) -> dict[str, str]:
    """Return what a detector tells of itself."""
    return detector.description() if isinstance(detector, Described) else {"Detector": detector.name}


def versions() -> dict[str, str]:
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


def peak_memory_mib() -> int:
    """Return the greatest memory that this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak / (2**20 if sys.platform == "darwin" else 2**10))  # macOS counts bytes, Linux KiB


def _input(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {"path": str(path)}
    return {"path": str(path.absolute()), "bytes": path.stat().st_size, "sha256": sha256(path)}


# ------------------------------------------------------------------------------------------------ words
def area_text(area: float, *, metric: bool) -> str:
    """Return an area as one reads it: px, m² below a hectare, ha above."""
    if not metric:
        return f"{area:,.0f} px"
    return f"{area:,.0f} m²" if area < 10_000 else f"{area / 10_000:,.2f} ha"


def summary(found: Found, warnings: tuple[str, ...], out: Path) -> str:
    """Return the result in a few lines for the console."""
    numbers = count(found)
    kinds = ", ".join(f"{many} {kind}" for kind, many in numbers.by_kind.items())
    area = area_text(numbers.changed_m2 or float(numbers.changed_px), metric=found.metric)
    lines = [f"{numbers.objects} changed objects{f' ({kinds})' if kinds else ''}, {area}"]
    lines[0] += f", {numbers.changed_frac:.2%} of the ground seen at both dates"
    lines += [f"note: {line}" for line in warnings]
    return "\n".join([*lines, f"results: {out}", f"report:  {out / 'report.html'}"])
