"""What was run on what, with which settings and versions, and what came out: run.json, and what a caller gets of it."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from semicdvl.atomic_files import write_json
from semicdvl.detection.changes import ChangeSummary, DetectedChanges, summarise_changes
from semicdvl.detection.config import DetectionConfig
from semicdvl.detection.fingerprint import RunFingerprint, describe_detector, list_versions
from semicdvl.detection.output_folder import DETECTION_FORMAT
from semicdvl.detection.transitions import describe_transitions
from semicdvl.errors import InputError
from semicdvl.process_memory import return_freed_memory
from semicdvl.raster.grid import Grid
from semicdvl.raster.io.inputs import resolve_input
from semicdvl.raster.io.open_pair import GRID_CHOICES
from semicdvl.reading.folder_kinds import FOLDER, RESULT, describe_folder, is_folder
from semicdvl.reading.json_files import read_model
from semicdvl.types import Detector, ReadingSettings, Reliability

REMEDY = "Give a folder that `semicdvl detect` wrote, or run it again"


class _RecordedGrid(BaseModel):
    """The grid in a record; the names are stored."""

    gsd_m: float | None = Field(None, gt=0)


class _RecordedInput(BaseModel):
    """An image in a record; one of the network has no size."""

    path: str
    size_bytes: int | None = Field(None, alias="bytes", ge=0)


class _RecordedInputs(BaseModel):
    """Both images in a record."""

    before: _RecordedInput
    after: _RecordedInput


class _RecordedResult(BaseModel):
    """The changes in a record, in numbers."""

    objects: int = Field(ge=0)
    changed_px: int = Field(ge=0)
    seen_px: int = Field(ge=0)
    changed_m2: float | None = Field(None, ge=0)
    by_kind: dict[str, int] = Field(default_factory=dict)


class StoredRecord(BaseModel):
    """What is read of the run.json of a detection; the names are stored, further ones are left out."""

    model_config = ConfigDict(allow_inf_nan=False)

    format: Literal["semicdvl-detect"]
    key: str = ""
    grid: _RecordedGrid = _RecordedGrid(gsd_m=None)
    settings: ReadingSettings = ReadingSettings()
    inputs: _RecordedInputs
    result: _RecordedResult
    warnings: tuple[str, ...] = ()


def read_run_record(out: Path) -> StoredRecord:
    """Return the run.json of a result.

    Raises:
        InputError: it is missing, not the record of a detection, or was changed to something that is none.
    """
    try:
        return read_model(out / "run.json", StoredRecord, remedy=REMEDY)
    except InputError as error:
        kind = describe_folder(out)
        if not is_folder(out) or kind == RESULT or (kind == FOLDER and (out / "run.json").exists()):
            raise
        missing = " (it has no run.json)" if kind == FOLDER else ""
        raise InputError(out, f"is {kind}, not {RESULT}{missing}", REMEDY) from error


@dataclass(frozen=True)
class RunRecord:
    """What was run and how it went.

    Attributes:
        detector: what found the changes.
        fingerprint: the run's ingredients, with its settings.
        warnings: what a reader of the result should know.
        alignment: how the dates are registered to each other, see `pair_check.check.build_alignment_record`.
        tiles: how many there are ("all"), and how many an interrupted run had finished ("from_an_interrupted_run").
        seconds: duration of the stages; stages that end later are added.
        reliability: whether images and words lie within what the detector was measured on.
    """

    detector: Detector
    fingerprint: RunFingerprint
    warnings: tuple[str, ...]
    alignment: Mapping[str, Any]
    tiles: Mapping[str, int]
    seconds: dict[str, float] = field(default_factory=dict)
    reliability: Reliability = field(default_factory=lambda: Reliability(None))

    @property
    def config(self) -> DetectionConfig:
        """The settings of the run."""
        return self.fingerprint.config


def write_run_record(path: Path, grid: Grid, changes: DetectedChanges, run: RunRecord) -> None:
    """Write run.json.

    Raises:
        OutputError: the folder cannot be written.
    """
    record: dict[str, Any] = {
        "format": DETECTION_FORMAT,
        "key": run.fingerprint.key,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": list_versions(),
        "inputs": run.fingerprint.inputs,
        "grid": {
            "crs": None if grid.crs is None else grid.crs.to_string(),
            "transform": list(grid.transform)[:6],
            "height_px": grid.height,
            "width_px": grid.width,
            "gsd_m": changes.gsd_m,
        },
        "alignment": dict(run.alignment),
        "detector": {"name": run.detector.name, **describe_detector(run.detector)},
        "settings": asdict(run.config) | {"min_area_m2": changes.left_out.least_area, "grid": _name_grid(run.config)},
        "classes": list(changes.classes),
        "result": asdict(summarise_changes(changes)),
        "left_out": {
            "by_default": run.config.min_area_m2 is None,
            "unit": "m2" if changes.gsd_m is not None else "px",
            **asdict(changes.left_out),
        },
        "reliable": run.reliability.reliable,
        "reliability_reasons": list(run.reliability.reasons),
        "warnings": list(run.warnings),
        "tiles": dict(run.tiles),
        "seconds": dict(run.seconds),
        "peak_memory_mib": measure_peak_memory_mib(),
    }
    if run.detector.tells_transitions and changes.class_px_2K is not None:
        record["transitions"] = describe_transitions(path.parent, changes)
    write_json(path, record)


def _name_grid(config: DetectionConfig) -> str:
    """Return whose grid the result has; a file by its absolute path, since the images are read again by the record."""
    return config.grid if config.grid in GRID_CHOICES else resolve_input(config.grid).lasting_name


def measure_peak_memory_mib() -> int:
    """Return the largest amount of memory that this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak / (2**20 if sys.platform == "darwin" else 2**10))  # macOS counts bytes, Linux KiB


@dataclass
class StageClock:
    """Measures the seconds of the stages, in the order in which they end.

    Attributes:
        seconds: name of a stage -> its duration.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    _start: float = field(default_factory=time.perf_counter)

    def end_stage(self, name: str) -> None:
        """End a stage and start the next, for which the memory that this one has freed goes back to the system."""
        return_freed_memory()
        now = time.perf_counter()
        self.seconds[name], self._start = round(now - self._start, 3), now


@dataclass(frozen=True)
class SavedDetection:
    """What a detection wrote.

    Attributes:
        folder: the output folder.
        summary: the result in numbers.
        warnings: what a reader of the result should know.
        seconds: duration of the stages.
        reliability: whether images and words lie within what the detector was measured on.

    Examples:
        >>> import semicdvl as cd
        >>> saved = cd.detect_to_folder(before_tif, after_tif, out, detector=cd.create_detector("cva"), progress=False)
        >>> (saved.folder / "report.html").is_file(), saved.summary.seen_px
        (True, 6144)
    """

    folder: Path
    summary: ChangeSummary
    warnings: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    reliability: Reliability = field(default_factory=lambda: Reliability(None))

    def format_text(self) -> str:
        """Return all of that in a few lines; that the result is not reliable comes first."""
        unreliable = str(self.reliability)
        lines = [f"warning: {unreliable}"] if unreliable in self.warnings else []
        lines += [self.summary.format_line(), *(f"note: {line}" for line in self.warnings if line != unreliable)]
        return "\n".join([*lines, f"results: {self.folder}", f"report:  {self.folder / 'report.html'}"])
