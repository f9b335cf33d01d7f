"""Many pairs, one detector: each pair of a table becomes a result of its own, and a page lists them all.

    ROOT/NAME/          what `detect` writes for one pair
    ROOT/pairs.json     what came out of each pair
    ROOT/index.html     the same as a page, with links to the reports

A pair that fails does not stop the others. What is finished is not done again: a result whose `run.json` carries the
key of the same images, settings, detector and versions stays as it is.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import rasterio
from rasterio.errors import RasterioError
from rich.console import Console

from semicdvl.atomic_files import read_json, write_json
from semicdvl.detection.batch import report
from semicdvl.detection.batch.pairs_table import BatchPair, PairsTable, read_pairs
from semicdvl.detection.output_folder import check_output_folder
from semicdvl.detection.pipeline import GDAL_CACHE_BYTES, DetectionConfig, check_config, detect_to_folder
from semicdvl.detection.results import DETECTION_FORMAT as RESULT_FORMAT
from semicdvl.detection.results import compute_result_key, format_area
from semicdvl.detection.tile_runner import TileExecutor
from semicdvl.errors import ConfigError, InputError, OutputError, SemicdvlError
from semicdvl.raster.io.inputs import resolve_input
from semicdvl.types import Detector

BATCH_FORMAT = "semicdvl-pairs"
INDEX_FILE, RECORD_FILE = "index.html", "pairs.json"
REQUIRED_FILES = ("change.tif", "score.tif", "changes.gpkg", "report.html")
"""Files without which a result is not taken for finished."""
INDEX_INTERVAL_S = 10.0
"""How often the list is written while pairs are worked on; at the end it is written anyway."""


@dataclass(frozen=True)
class PairOutcome:
    """What came out of one pair.

    Attributes:
        name: of the pair, and of its folder.
        state: "done", "kept" (it was done before) or "failed".
        objects: number of changed objects; this and the next four are None where the pair failed.
        changed_m2: changed area; None, too, where the size of a pixel is not known.
        changed_px: changed pixels.
        seen_px: pixels with data in both dates.
        by_kind: objects per kind of change.
        warnings: what a reader of the result should know.
        seconds: what the pair took now.
        error: why it failed.
    """

    name: str
    state: str
    objects: int | None = None
    changed_m2: float | None = None
    changed_px: int | None = None
    seen_px: int | None = None
    by_kind: dict[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    error: str | None = None

    @property
    def summary(self) -> str:
        """What came out, in a few words."""
        if self.objects is None:
            return f"failed: {self.error}"
        area = format_area(self.changed_m2 or float(self.changed_px or 0), metric=self.changed_m2 is not None)
        noted = {0: "", 1: ", 1 note"}.get(len(self.warnings), f", {len(self.warnings)} notes")
        return f"{self.objects} changed object{'' if self.objects == 1 else 's'}, {area}{noted}"


@dataclass(frozen=True)
class BatchResult:
    """What came out of all pairs.

    Attributes:
        root: the folder of results.
        outcomes: one per pair, in the order of the table.
    """

    root: Path
    outcomes: tuple[PairOutcome, ...]

    @property
    def failed(self) -> tuple[PairOutcome, ...]:
        """The pairs that failed."""
        return tuple(one for one in self.outcomes if one.state == "failed")

    @property
    def summary(self) -> str:
        """All of it in a few lines."""
        states = [one.state for one in self.outcomes]
        counts = ((states.count("done"), "done"), (states.count("kept"), "done before"), (len(self.failed), "failed"))
        words = ", ".join(f"{count} {word}" for count, word in counts if count)
        return f"{len(states)} pair{'' if len(states) == 1 else 's'}: {words}\nindex:   {self.root / INDEX_FILE}"


def parse_inputs(before: str | None, after: str | None, pairs: Path | None) -> PairsTable | tuple[str, str]:
    """Return what the command was given: a table of pairs, read and checked, or two images.

    Raises:
        ConfigError: both, none, or one image alone.
        InputError: the table cannot be worked on, see `pairs_table.read_pairs`.
        MissingExtraError: a parquet table without pyarrow.
    """
    given = [value for value in (before, after) if value is not None]
    if pairs is not None:
        if given:
            raise ConfigError(f"--pairs {pairs} names the images; leave out {' '.join(given)}, or the table.")
        return read_pairs(pairs)
    if before is None or after is None:
        came = f"{before} alone" if given else "no image"
        raise ConfigError(f"{came} was given; wanted BEFORE AFTER, or --pairs TABLE with columns before and after.")
    return before, after


def detect_batch(
    table: PairsTable,
    root: Path,
    *,
    detector: Detector,
    settings: DetectionConfig | None = None,
    progress: Console | None = None,
    engine: TileExecutor | None = None,
) -> BatchResult:
    """Find what changed in every pair of a table, each into a folder of its own.

    An interrupted run leaves a list of what it did (`pairs.json`, `index.html`); started again, it skips what is
    finished and goes on inside the pair that was interrupted.

    Args:
        table: from `pairs_table.read_pairs`.
        root: folder of the results; further things in it stay as they are.
        detector: what finds the change, the same for all.
        settings: of every pair; see `run.DetectionConfig`.
        progress: where progress is shown; standard error unless given.
        engine: what computes the tiles; None: this process.

    Raises:
        OutputError: `root`, or the folder of a pair, holds what no earlier run wrote, or cannot be written. Told before
            work begins.
        ConfigError: settings that no pair could be worked on with.
        MissingExtraError: a format that needs an optional package.
    """
    settings, root, console = settings or DetectionConfig(), Path(root).absolute(), progress or Console(stderr=True)
    check_config(settings, detector)
    _check_root(root, table.pairs, overwrite=settings.overwrite)
    for note in table.notes:
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    outcomes: list[PairOutcome] = []
    clock, listed_s = _TimeEstimate(len(table.pairs)), time.monotonic()
    try:
        for at, pair in enumerate(table.pairs, 1):
            console.print(f"[{at}/{len(table.pairs)}] {pair.name}", markup=False, highlight=False, soft_wrap=True)
            outcome = _process_pair(pair, root / pair.name, detector, settings, console, engine)
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
    settings: DetectionConfig,
    console: Console,
    engine: TileExecutor | None,
) -> PairOutcome:
    """Work on one pair; what a user can mend, and what is a mistake of the program for this pair, is its outcome."""
    start = time.perf_counter()
    try:
        state = "kept" if is_finished(pair, out, detector=detector, settings=settings) else "done"
        if state == "done":
            detect_to_folder(
                pair.before, pair.after, out, detector=detector, settings=settings, progress=console, engine=engine
            )
        return _read_outcome(pair.name, state, out, round(time.perf_counter() - start, 3))
    except SemicdvlError as error:
        reason = str(error)
    except Exception as error:  # shown whole, but a night's work does not end for it
        console.print_exception()
        reason = f"a mistake of this program ({type(error).__name__}: {error}); the traceback was printed"
    return PairOutcome(pair.name, "failed", seconds=round(time.perf_counter() - start, 3), error=reason)


def is_finished(pair: BatchPair, out: Path, *, detector: Detector, settings: DetectionConfig) -> bool:
    """Tell whether a folder holds the whole result of a pair with these settings and this detector."""
    wanted = [*REQUIRED_FILES, *(f"changes.{kind}" for kind in settings.polygons)]
    if not all((out / name).is_file() for name in ("run.json", *wanted)):
        return False
    try:
        record = read_json(out / "run.json", remedy="")
        with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_BYTES):
            key = compute_result_key(
                resolve_input(pair.before), resolve_input(pair.after), detector=detector, settings=settings
            )
    except (InputError, RasterioError):  # `detect` says it better
        return False
    return isinstance(record, dict) and record.get("format") == RESULT_FORMAT and record.get("key") == key


def _read_outcome(name: str, state: str, out: Path, seconds: float) -> PairOutcome:
    """Read what came out of a pair."""
    record = read_json(out / "run.json", remedy="Delete its folder and run again")
    return PairOutcome(name, state, **record["result"], warnings=tuple(record["warnings"]), seconds=seconds)


# ------------------------------------------------------------------------------------------------ the folder
def _check_root(root: Path, pairs: Sequence[BatchPair], *, overwrite: bool) -> None:
    """Make sure that nothing but earlier results is replaced."""
    if root.exists() and not root.is_dir():
        raise OutputError(f"{root}: is a file, wanted a folder for the results. Give another name with -o.")
    if (root / INDEX_FILE).exists() and not overwrite and not _is_batch_folder(root):
        raise OutputError(
            f"{root / INDEX_FILE}: no earlier `detect --pairs` wrote it. Give another folder with -o, or --overwrite."
        )
    for pair in pairs:
        check_output_folder(root / pair.name, overwrite=overwrite)


def _is_batch_folder(root: Path) -> bool:
    """Tell whether the index is that of an earlier run."""
    try:
        record = read_json(root / RECORD_FILE, remedy="")
    except InputError:
        return False
    return isinstance(record, dict) and record.get("format") == BATCH_FORMAT


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
    """How long the rest will take, by the pairs that were worked on so far."""

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
        return f" ({_format_duration(outcome.seconds)}{f'; at most about {_format_duration(rest_s)} to go' if self.left else ''})"


def _format_duration(seconds: float) -> str:
    """Return a duration as one says it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
