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
from semicdvl.detection.batch.pairs_table import NamedPair, PairsTable, read_pairs
from semicdvl.detection.output_folder import refuse_foreign
from semicdvl.detection.pipeline import CACHE_BYTES, DetectSettings, detect, refuse_settings
from semicdvl.detection.results import FORMAT as RESULT_FORMAT
from semicdvl.detection.results import area_text, result_key
from semicdvl.detection.tile_runner import Engine
from semicdvl.errors import ConfigError, InputError, OutputError, SemicdvlError
from semicdvl.raster.io.inputs import named
from semicdvl.types import Detector

FORMAT = "semicdvl-pairs"
INDEX, RECORD = "index.html", "pairs.json"
NEEDED = ("change.tif", "score.tif", "changes.gpkg", "report.html")
"""Files without which a result is not taken for finished."""
LIST_EVERY_S = 10.0
"""How often the list is written while pairs are worked on; at the end it is written anyway."""


@dataclass(frozen=True)
class Outcome:
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
    def line(self) -> str:
        """What came out, in a few words."""
        if self.objects is None:
            return f"failed: {self.error}"
        area = area_text(self.changed_m2 or float(self.changed_px or 0), metric=self.changed_m2 is not None)
        noted = {0: "", 1: ", 1 note"}.get(len(self.warnings), f", {len(self.warnings)} notes")
        return f"{self.objects} changed object{'' if self.objects == 1 else 's'}, {area}{noted}"


@dataclass(frozen=True)
class ManyResult:
    """What came out of all pairs.

    Attributes:
        root: the folder of results.
        outcomes: one per pair, in the order of the table.
    """

    root: Path
    outcomes: tuple[Outcome, ...]

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """The pairs that failed."""
        return tuple(one for one in self.outcomes if one.state == "failed")

    @property
    def summary(self) -> str:
        """All of it in a few lines."""
        states = [one.state for one in self.outcomes]
        counts = ((states.count("done"), "done"), (states.count("kept"), "done before"), (len(self.failed), "failed"))
        words = ", ".join(f"{count} {word}" for count, word in counts if count)
        return f"{len(states)} pair{'' if len(states) == 1 else 's'}: {words}\nindex:   {self.root / INDEX}"


def asked_for(before: str | None, after: str | None, pairs: Path | None) -> PairsTable | tuple[str, str]:
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


def detect_many(
    table: PairsTable,
    root: Path,
    *,
    detector: Detector,
    settings: DetectSettings | None = None,
    progress: Console | None = None,
    engine: Engine | None = None,
) -> ManyResult:
    """Find what changed in every pair of a table, each into a folder of its own.

    An interrupted run leaves a list of what it did (`pairs.json`, `index.html`); started again, it skips what is
    finished and goes on inside the pair that was interrupted.

    Args:
        table: from `pairs_table.read_pairs`.
        root: folder of the results; further things in it stay as they are.
        detector: what finds the change, the same for all.
        settings: of every pair; see `run.DetectSettings`.
        progress: where progress is shown; standard error unless given.
        engine: what computes the tiles; None: this process.

    Raises:
        OutputError: `root`, or the folder of a pair, holds what no earlier run wrote, or cannot be written. Told before
            work begins.
        ConfigError: settings that no pair could be worked on with.
        MissingExtraError: a format that needs an optional package.
    """
    settings, root, console = settings or DetectSettings(), Path(root).absolute(), progress or Console(stderr=True)
    refuse_settings(settings, detector)
    _refuse_root(root, table.pairs, overwrite=settings.overwrite)
    for note in table.notes:
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    outcomes: list[Outcome] = []
    clock, listed_s = _Eta(len(table.pairs)), time.monotonic()
    try:
        for at, pair in enumerate(table.pairs, 1):
            console.print(f"[{at}/{len(table.pairs)}] {pair.name}", markup=False, highlight=False, soft_wrap=True)
            outcome = _one(pair, root / pair.name, detector, settings, console, engine)
            outcomes.append(outcome)
            words = f"  {'done before: ' if outcome.state == 'kept' else ''}{outcome.line}{clock.after(outcome)}"
            style = "red" if outcome.state == "failed" else None
            console.print(words, style=style, markup=False, highlight=False, soft_wrap=True)
            if time.monotonic() - listed_s > LIST_EVERY_S:
                _write(root, table, outcomes)
                listed_s = time.monotonic()
    finally:  # also when interrupted
        _write(root, table, outcomes)
    return ManyResult(root, tuple(outcomes))


def _one(
    pair: NamedPair,
    out: Path,
    detector: Detector,
    settings: DetectSettings,
    console: Console,
    engine: Engine | None,
) -> Outcome:
    """Work on one pair; what a user can mend, and what is a mistake of the program for this pair, is its outcome."""
    start = time.perf_counter()
    try:
        state = "kept" if finished(pair, out, detector=detector, settings=settings) else "done"
        if state == "done":
            detect(pair.before, pair.after, out, detector=detector, settings=settings, progress=console, engine=engine)
        return _outcome(pair.name, state, out, round(time.perf_counter() - start, 3))
    except SemicdvlError as error:
        reason = str(error)
    except Exception as error:  # shown whole, but a night's work does not end for it
        console.print_exception()
        reason = f"a mistake of this program ({type(error).__name__}: {error}); the traceback was printed"
    return Outcome(pair.name, "failed", seconds=round(time.perf_counter() - start, 3), error=reason)


def finished(pair: NamedPair, out: Path, *, detector: Detector, settings: DetectSettings) -> bool:
    """Tell whether a folder holds the whole result of a pair with these settings and this detector."""
    wanted = [*NEEDED, *(f"changes.{kind}" for kind in settings.polygons)]
    if not all((out / name).is_file() for name in ("run.json", *wanted)):
        return False
    try:
        record = read_json(out / "run.json", remedy="")
        with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
            key = result_key(named(pair.before), named(pair.after), detector=detector, settings=settings)
    except (InputError, RasterioError):  # `detect` says it better
        return False
    return isinstance(record, dict) and record.get("format") == RESULT_FORMAT and record.get("key") == key


def _outcome(name: str, state: str, out: Path, seconds: float) -> Outcome:
    """Read what came out of a pair."""
    record = read_json(out / "run.json", remedy="Delete its folder and run again")
    return Outcome(name, state, **record["result"], warnings=tuple(record["warnings"]), seconds=seconds)


# ------------------------------------------------------------------------------------------------ the folder
def _refuse_root(root: Path, pairs: Sequence[NamedPair], *, overwrite: bool) -> None:
    """Make sure that nothing but earlier results is replaced."""
    if root.exists() and not root.is_dir():
        raise OutputError(f"{root}: is a file, wanted a folder for the results. Give another name with -o.")
    if (root / INDEX).exists() and not overwrite and not _is_ours(root):
        raise OutputError(
            f"{root / INDEX}: no earlier `detect --pairs` wrote it. Give another folder with -o, or --overwrite."
        )
    for pair in pairs:
        refuse_foreign(root / pair.name, overwrite=overwrite)


def _is_ours(root: Path) -> bool:
    """Tell whether the index is that of an earlier run."""
    try:
        record = read_json(root / RECORD, remedy="")
    except InputError:
        return False
    return isinstance(record, dict) and record.get("format") == FORMAT


def _write(root: Path, table: PairsTable, outcomes: Sequence[Outcome]) -> None:
    """Write what is known so far, for programs and for people."""
    by_name = {pair.name: pair for pair in table.pairs}
    listed = [
        {"before": by_name[one.name].before, "after": by_name[one.name].after, **asdict(one)}
        | {"report": None if one.state == "failed" else f"{one.name}/report.html"}
        for one in outcomes
    ]
    record = {"format": FORMAT, "table": str(table.path), "all": len(table.pairs), "pairs": listed}
    write_json(root / RECORD, record)
    report.write(root / INDEX, outcomes, table=table)


class _Eta:
    """How long the rest will take, by the pairs that were worked on so far."""

    def __init__(self, count: int) -> None:
        self.left, self.worked_s = count, list[float]()

    def after(self, outcome: Outcome) -> str:
        """Count a pair; return its time and what is left, in words."""
        self.left -= 1
        if outcome.state != "kept":
            self.worked_s.append(outcome.seconds)
        if outcome.state == "kept":
            return ""
        rest_s = self.left * sum(self.worked_s) / len(self.worked_s)
        return f" ({_time(outcome.seconds)}{f'; at most about {_time(rest_s)} to go' if self.left else ''})"


def _time(seconds: float) -> str:
    """Return a duration as one says it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
