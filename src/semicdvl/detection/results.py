"""The result of a detection in memory: its arrays, what it writes to a folder, and how a notebook shows it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from semicdvl.atomic_files import write_folder_atomically
from semicdvl.detection.changes import ChangeSummary, DetectedChanges, summarise_changes
from semicdvl.detection.gis_layers import write_gis_layers
from semicdvl.detection.output_folder import carry_over_other_files, check_output_folder
from semicdvl.detection.raster_writer import RasterArrays
from semicdvl.detection.report import draw_overview, write_detection_report
from semicdvl.detection.run_record import RunRecord, SavedDetection, write_run_record
from semicdvl.detection.transitions import count_transitions
from semicdvl.raster.grid import Grid
from semicdvl.raster.io.pair_reader import RasterPair
from semicdvl.reports import html
from semicdvl.types import Reliability

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

NOTEBOOK_PX = 420
"""Longest side of an image that is shown in a notebook."""


@dataclass(frozen=True)
class DetectionResult:
    """The result of a detection in memory.

    The images stay open, so that a report can be written; `close`, or a `with`, closes them.

    Attributes:
        change: uint8 HW: 1 changed, 0 unchanged, 255 no data.
        score: float32 HW: change score from 0 to 1; NaN where there is no data.
        objects: one polygon per changed object, the largest first.
        t1: uint8 HW: class index at date 1, 255 no data; None for a detector without classes.
        t2: the same of date 2.
        classes: names of the classes.
        grid: CRS, transform and size of the rasters.
        gsd_m: metres per pixel, None if not known.
        summary: the result in numbers.
        warnings: what a reader of the result should know.
        seconds: duration of the stages.
        reliability: whether images and words lie within what the detector was measured on.

    Examples:
        >>> import semicdvl as cd
        >>> detector = cd.create_detector("cva", threshold="otsu")
        >>> with cd.detect(before, after, detector=detector) as result:
        ...     saved = result.save(out)
        >>> result.change.dtype, result.t1, (saved.folder / "change.tif").is_file()
        (dtype('uint8'), None, True)
    """

    change: NDArray[np.uint8]
    score: NDArray[np.float32]
    objects: gpd.GeoDataFrame
    t1: NDArray[np.uint8] | None
    t2: NDArray[np.uint8] | None
    classes: tuple[str, ...]
    grid: Grid
    gsd_m: float | None
    summary: ChangeSummary
    warnings: tuple[str, ...]
    seconds: Mapping[str, float]
    reliability: Reliability
    _source: ResultSource = field(repr=False)

    @property
    def transitions(self) -> pd.DataFrame | None:
        """The changed pixels by class before (rows) and after (columns); None for a detector without classes."""
        if self.t1 is None or self.t2 is None:
            return None
        import pandas as pd

        count_KK = count_transitions(self.change, self.t1, self.t2, classes=len(self.classes))
        return pd.DataFrame(count_KK, pd.Index(self.classes, name="before"), pd.Index(self.classes, name="after"))

    def save(self, folder: str | Path, *, overwrite: bool = False) -> SavedDetection:
        """Write rasters, polygons, report and run.json: the files that `semicdvl detect` writes.

        Args:
            folder: where to; an earlier result in it is replaced.
            overwrite: use the folder even if it holds other files; these stay.

        Raises:
            OutputError: the folder holds other files, or cannot be written.
        """
        source, out = self._source, Path(folder).absolute()
        check_output_folder(out, overwrite=overwrite)
        with write_folder_atomically(out) as work:
            source.rasters.write_files(work)
            write_gis_layers(work, source.changes, source.run.config)
            write_detection_report(work, source.pair.select_rgb(), source.changes, source.run)
            write_run_record(work / "run.json", self.grid, source.changes, source.run)
            carry_over_other_files(out, work)
        return SavedDetection(out, self.summary, self.warnings, self.seconds, self.reliability)

    def __repr__(self) -> str:
        """Return the numbers in one line."""
        height, width = self.change.shape
        return f"DetectionResult({height} x {width} px: {self.summary.format_line()})"

    def _repr_html_(self) -> str:
        """Show before, after, change and the numbers in a notebook."""
        pair, changes = self._source.pair, self._source.changes
        before, after, change = draw_overview(pair.read_overview(max_px=NOTEBOOK_PX), pair.grid, changes)
        figures = {"before": before, "after": after, "change": change}
        return str(html.render_notebook_result(self.summary.format_line(), figures, self.warnings))

    def close(self) -> None:
        """Close the images; the arrays and objects stay."""
        self._source.held.close()

    def __enter__(self) -> DetectionResult:
        """Return the result itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the images."""
        self.close()


@dataclass(frozen=True)
class ResultSource:
    """What a report of a result in memory is made of.

    Attributes:
        pair: the opened images.
        rasters: the rasters as arrays.
        changes: the changed objects.
        run: what was run and how it went.
        held: closes the images.
    """

    pair: RasterPair
    rasters: RasterArrays
    changes: DetectedChanges
    run: RunRecord
    held: ExitStack


def make_result(source: ResultSource) -> DetectionResult:
    """Return the result of a detection that ran in memory."""
    changes, rasters = source.changes, source.rasters
    return DetectionResult(
        change=rasters.arrays["change"],
        score=rasters.arrays["score"],
        objects=changes.objects.frame,
        t1=rasters.arrays.get("t1"),
        t2=rasters.arrays.get("t2"),
        classes=changes.classes,
        grid=source.pair.grid,
        gsd_m=changes.gsd_m,
        summary=summarise_changes(changes),
        warnings=source.run.warnings,
        seconds=source.run.seconds,
        reliability=source.run.reliability,
        _source=source,
    )
