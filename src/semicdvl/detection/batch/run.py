"""Many pairs, one detector: each pair of a table becomes a result of its own, and a page lists them all.

    ROOT/NAME/          what `detect` writes for one pair
    ROOT/pairs.json     what came out of each pair
    ROOT/index.html     the same as a page, with links to the reports

A pair that fails does not stop the others. A finished pair is not processed again: a result whose `run.json` carries
the key of the same images, settings, detector and versions stays as it is.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import rasterio
from rasterio.errors import RasterioError
from rich.console import Console

from semicdvl.atomic_files import write_json
from semicdvl.detection.batch import report
from semicdvl.detection.batch.outcomes import (
    BATCH_FORMAT,
    INDEX_FILE,
    RECORD_FILE,
    BatchResult,
    PairOutcome,
    read_batch_record,
)
from semicdvl.detection.batch.pairs_table import BatchPair, PairsTable
from semicdvl.detection.config import GDAL_CACHE_BYTES, DetectionConfig, check_config, follow_detector
from semicdvl.detection.fingerprint import RunFingerprint, fingerprint_run
from semicdvl.detection.output_folder import check_output_folder, sweep_work_folder
from semicdvl.detection.pipeline import write_detection
from semicdvl.detection.run_record import read_run_record
from semicdvl.detection.tiles.tile_runner import TileExecutor
from semicdvl.errors import InputError, OutputError, SemicdvlError
from semicdvl.outputs.locks import lock_argument
from semicdvl.raster.io.inputs import resolve_input
from semicdvl.types import Detector

REQUIRED_FILES = ("change.tif", "score.tif", "changes.gpkg", "report.html")
"""Files without which a result does not count as finished."""
INDEX_INTERVAL_S = 10.0
"""How often the list is written while pairs are processed; at the end it is written in any case."""


@lock_argument("root")
def detect_batch(
    table: PairsTable,
    root: Path,
    *,
    detector: Detector,
    config: DetectionConfig | None = None,
    progress: Console | None = None,
    executor: TileExecutor | None = None,
) -> BatchResult:
    """Find what changed in every pair of a table, each into a folder of its own.

    An interrupted run leaves a list of what it did (`pairs.json`, `index.html`); started again, it skips finished pairs
    and resumes the pair that was interrupted.

    Args:
        table: from `pairs_table.read_pairs`.
        root: folder of the results; other files in it stay.
        detector: finds the change, the same for all pairs.
        config: the settings, the same for all pairs; None: the defaults.
        progress: where progress is shown; standard error unless given.
        executor: computes the tiles; None: this process.

    Raises:
        OutputError: `root`, or the folder of a pair, holds files that no earlier run wrote, or cannot be written.
            Checked before any pair is processed.
        ConfigError: settings that fit no pair.
        MissingExtraError: a vector format that needs an optional package.
    """
    config, root = follow_detector(config or DetectionConfig(), detector), Path(root).absolute()
    console = progress or Console(stderr=True)
    check_config(config, detector)
    _check_root(root, table.pairs, overwrite=config.overwrite)
    for note in table.notes:
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    outcomes: list[PairOutcome] = []
    clock, listed_s = _TimeEstimate(len(table.pairs)), time.monotonic()
    try:
        for at, pair in enumerate(table.pairs, 1):
            console.print(f"[{at}/{len(table.pairs)}] {pair.name}", markup=False, highlight=False, soft_wrap=True)
            outcome = _process_pair(pair, root / pair.name, detector, config, console, executor)
            outcomes.append(outcome)
            words = f"  {'done before: ' if outcome.state == 'kept' else ''}{outcome.summary}{clock.update(outcome)}"
            style = "red" if outcome.state == "failed" else None
            console.print(words, style=style, markup=False, highlight=False, soft_wrap=True)
            if time.monotonic() - listed_s > INDEX_INTERVAL_S:
                _write_index(root, table, outcomes)
                listed_s = time.monotonic()
    finally:  # also when interrupted
        _write_index(root, table, outcomes)
    return BatchResult(root, tuple(outcomes))


def _process_pair(
    pair: BatchPair,
    out: Path,
    detector: Detector,
    config: DetectionConfig,
    console: Console,
    executor: TileExecutor | None,
) -> PairOutcome:
    """Process one pair; an error, the user's or the program's, becomes its outcome."""
    start = time.perf_counter()
    try:
        fingerprint = _fingerprint_earlier(pair, out, detector, config)
        state = "kept" if fingerprint is not None and _has_result(out, fingerprint) else "done"
        if state == "kept":
            sweep_work_folder(out)
        else:
            write_detection(
                pair.before,
                pair.after,
                out,
                detector=detector,
                config=config,
                progress=console,
                executor=executor,
                fingerprint=fingerprint,
            )
        return _read_outcome(pair.name, state, out, round(time.perf_counter() - start, 3))
    except SemicdvlError as error:
        reason = str(error)
    except Exception as error:  # shown in full, but the other pairs go on
        console.print_exception()
        reason = f"an error in this program ({type(error).__name__}: {error}); the traceback was printed"
    return PairOutcome(pair.name, "failed", seconds=round(time.perf_counter() - start, 3), error=reason)


def _fingerprint_earlier(
    pair: BatchPair, out: Path, detector: Detector, config: DetectionConfig
) -> RunFingerprint | None:
    """Gather a run's ingredients where a folder may hold its result already; None where it does not, or on an error."""
    required = [*REQUIRED_FILES, *(f"changes.{kind}" for kind in config.polygons)]
    if not all((out / name).is_file() for name in ("run.json", *required)):
        return None
    try:
        with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_BYTES):
            outside = config.allow_outside
            names = (
                resolve_input(pair.before, allow_outside=outside),
                resolve_input(pair.after, allow_outside=outside),
            )
            return fingerprint_run(names, detector=detector, config=config)
    except (InputError, RasterioError):  # `write_detection` reports it in full
        return None


def _has_result(out: Path, fingerprint: RunFingerprint) -> bool:
    """Tell whether a folder holds the result of exactly these ingredients."""
    try:
        return read_run_record(out).key == fingerprint.key
    except InputError:
        return False


def _read_outcome(name: str, state: str, out: Path, seconds: float) -> PairOutcome:
    """Read what came out of a pair."""
    record = read_run_record(out)
    return PairOutcome(name, state, **record.result.model_dump(), warnings=record.warnings, seconds=seconds)


# ------------------------------------------------------------------------------------------------ the folder
def _check_root(root: Path, pairs: Sequence[BatchPair], *, overwrite: bool) -> None:
    """Make sure that nothing but earlier results is replaced."""
    if root.exists() and not root.is_dir():
        raise OutputError(f"{root}: is a file, but a folder is needed for the results. Give another name with -o.")
    if (root / INDEX_FILE).exists() and not overwrite and not _is_batch_folder(root):
        raise OutputError(
            f"{root / INDEX_FILE}: no earlier `detect --pairs` wrote it. Give another folder with -o, or --overwrite."
        )
    for pair in pairs:
        check_output_folder(root / pair.name, overwrite=overwrite)


def _is_batch_folder(root: Path) -> bool:
    """Tell whether the index is that of an earlier run."""
    try:
        read_batch_record(root)
    except InputError:
        return False
    return True


def _write_index(root: Path, table: PairsTable, outcomes: Sequence[PairOutcome]) -> None:
    """Write what is known so far, for programs and for people."""
    by_name = {pair.name: pair for pair in table.pairs}
    listed = [
        {"before": by_name[one.name].before, "after": by_name[one.name].after, **asdict(one)}
        | {"report": None if one.state == "failed" else f"{one.name}/report.html"}
        for one in outcomes
    ]
    record = {"format": BATCH_FORMAT, "table": str(table.path), "all": len(table.pairs), "pairs": listed}
    write_json(root / RECORD_FILE, record)
    report.write_batch_report(root / INDEX_FILE, outcomes, table=table)


class _TimeEstimate:
    """Estimates how long the rest will take from the pairs that were processed so far."""

    def __init__(self, count: int) -> None:
        self.left, self.worked_s = count, list[float]()

    def update(self, outcome: PairOutcome) -> str:
        """Count a pair; return its time and what is left, in words."""
        self.left -= 1
        if outcome.state != "kept":
            self.worked_s.append(outcome.seconds)
        if outcome.state == "kept":
            return ""
        rest_s = self.left * sum(self.worked_s) / len(self.worked_s)
        left = f"; at most about {_format_duration(rest_s)} left" if self.left else ""
        return f" ({_format_duration(outcome.seconds)}{left})"


def _format_duration(seconds: float) -> str:
    """Return a duration in seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
