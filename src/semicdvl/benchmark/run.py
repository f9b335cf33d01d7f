"""All runs of a suite: side by side, resumed where they stopped, with progress; then the table and the plot.

    OUT/data/<data set>-<key>/    pairs, the VLM's answers, pseudo-label store, a split per fraction and seed
    OUT/jobs/<run>.json           what was to be done; <run>.result.json what came out; <run>.log what it printed
    OUT/runs/<run>/               run directories, as `semicdvl train` writes them
    OUT/results.csv  table.md  report.html  plot.svg  plot.png  costs.svg

A run that has ended is never made again. A run that was killed goes on from its last saved state.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from semicdvl.atomic_files import read_json, unwritable, whole
from semicdvl.benchmark.config import Suite
from semicdvl.benchmark.cost_plot import write_costs
from semicdvl.benchmark.data import Prepared, prepare
from semicdvl.benchmark.detectors import NOTE, DetectorJob
from semicdvl.benchmark.jobs import AnyJob, Planned, check, plan
from semicdvl.benchmark.plot import write_plot
from semicdvl.benchmark.report import write_page
from semicdvl.benchmark.results import Outcome, how_it_ended, markdown, write_csv
from semicdvl.benchmark.worker import work
from semicdvl.errors import DataError
from semicdvl.version import __version__

POLL_S = 0.5


@dataclass(frozen=True)
class SuiteResult:
    """What a benchmark came to: an outcome per run, and the files that tell of them."""

    outcomes: tuple[Outcome, ...]
    table: Path
    csv: Path
    page: Path
    plots: tuple[Path, ...]

    @property
    def failed(self) -> int:
        """Number of runs that did not finish."""
        return sum(one["status"] != "finished" for one in self.outcomes)


def run_suite(
    suite: Suite,
    out: Path,
    *,
    jobs: int = 1,
    retry: bool = False,
    devices: Sequence[str] | None = None,
    console: Console | None = None,
) -> SuiteResult:
    """Make every run of a suite and write its table and plot; both are also written when it is interrupted.

    Args:
        suite: what to compare.
        out: folder for everything; started again with the same one, only what is missing is done.
        jobs: runs at a time, each in a process of its own that gets its share of the cores; 0 makes them one by one in
            this process (then peak memory is that of the largest so far).
        retry: make runs again that failed or diverged.
        devices: GPUs, by number, that runs are dealt to as they start, each to the one with the fewest; None: all that
            there are.
        console: where progress goes; standard error if not given.

    Raises:
        ConfigError, DataError, InputError: the suite, or what it names, cannot be used.
        OutputError: `out` cannot be written.
    """
    console, out = console or Console(stderr=True), out.resolve()
    check(suite)
    prepared = _prepare(suite, out, console)
    planned = plan(suite, prepared, out)
    everything = planned.jobs
    for reason in planned.left_out:
        console.print(f"left out: {reason}", highlight=False, markup=False, soft_wrap=True)
    if not everything:
        raise DataError(f"suite '{suite.name}': no run is left to make. Give data that is there, or other methods.")
    if retry:
        for job in everything:
            if job.result.exists() and _outcome(job)["status"] != "finished":
                job.result.unlink()
    waiting = [job for job in everything if not job.result.exists()]
    console.print(f"{len(everything)} runs, {len(everything) - len(waiting)} of them there already", highlight=False)
    try:
        _make(waiting, jobs, console, devices=_gpus() if devices is None else tuple(devices))
    finally:
        result = _write(suite, planned, out)
    return result


def _prepare(suite: Suite, out: Path, console: Console) -> dict[str, Prepared]:
    """Make the data sets ready; say which are left out."""
    prepared = {}
    for entry in suite.data:
        with console.status(f"data '{entry.name}'"):
            found = prepare(entry, out / "data")
        if found is None:
            console.print(
                f"data '{entry.name}' is left out: its images are not at {getattr(entry, 'root', '?')}.", soft_wrap=True
            )
        else:
            prepared[entry.name] = found
    return prepared


# ------------------------------------------------------------------------------------------------ processes
class _Started:
    """A run in a process of its own."""

    def __init__(self, job: AnyJob, threads: int, device: str | None = None) -> None:
        """Start it, on a GPU if one is named; what it prints goes to a file."""
        self.job, self.device = job, device
        path = job.write()
        environment = {"OMP_NUM_THREADS": str(threads)} | os.environ
        if device is not None:
            environment["CUDA_VISIBLE_DEVICES"] = device
        try:
            with path.with_suffix(".log").open("ab") as log:
                command = [sys.executable, "-m", "semicdvl.benchmark.worker", str(path)]
                self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        except OSError as error:
            raise unwritable(path, error) from error

    def frac(self) -> float:
        """Return the share of its steps that are done, by its log."""
        try:
            with (self.job.run / "log.jsonl").open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - 4096))
                lines = log.read().splitlines()
            step = next(int(json.loads(line)["step"]) for line in reversed(lines) if line.endswith(b"}"))
        except (OSError, StopIteration, ValueError, KeyError):
            return 0.0
        return min(1.0, step / self.job.steps)

    def stop(self) -> None:
        """End it; what it has saved stays."""
        self.process.terminate()
        self.process.wait()


def _make(waiting: Sequence[AnyJob], jobs: int, console: Console, *, devices: Sequence[str] = ()) -> None:
    """Make runs, several at a time and dealt over the GPUs; report each that ends."""
    if jobs == 0:
        for job in waiting:
            _say(console, work(job.write()))
        return
    threads = max(1, _cores() // jobs)
    queue, running = deque(waiting), list[_Started]()
    clock = _Clock(waiting)
    try:
        with clock.bar(console) as update:
            while queue or running:
                while queue and len(running) < jobs:
                    free = least_busy(devices, [one.device for one in running])
                    running.append(_Started(queue.popleft(), threads, free))
                time.sleep(POLL_S)
                for one in [one for one in running if one.process.poll() is not None]:
                    running.remove(one)
                    clock.ended(one.job)
                    _say(console, _outcome(one.job), left=clock.left(running))
                update(running)
    finally:
        for one in running:
            one.stop()


def least_busy(devices: Sequence[str], busy: Sequence[str | None]) -> str | None:
    """Return the device with the fewest runs, the first of several; None where there is none to choose."""
    return min(devices, key=busy.count, default=None)


def _gpus() -> tuple[str, ...]:
    """Return the numbers of the GPUs that this process may use, if there are several; one needs no dealing."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return tuple(named or map(str, range(count))) if count > 1 else ()


def _cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _outcome(job: AnyJob) -> Outcome:
    """Return what became of a run; one without a result was killed."""
    if job.result.exists():
        outcome: Outcome = read_json(job.result, remedy="Delete the file and start again")
        return outcome
    text = "It ended without a result (killed, out of memory?); started again, the benchmark goes on with it."
    return {**job.place, "status": "unfinished", "error": text}


def _say(console: Console, one: Outcome, *, left: str = "") -> None:
    """Say how a run ended."""
    what = f"{one['data']}: {one['method']}, {one['labelled']:.4g} labels, seed {one['seed']}"
    if one["status"] == "finished":
        text = f"{what}: test IoU {one['test']['iou']:.3f}, {one['seconds']:.0f} s, {one['peak_mib']:.0f} MiB"
    else:
        text = f"{what}: {how_it_ended(one)}. {one['error']}"
    console.print(text + left, highlight=False, markup=False, soft_wrap=True)


class _Clock:
    """Tells how much is done and how long the rest will take, by the pairs that pass the network."""

    def __init__(self, waiting: Sequence[AnyJob]) -> None:
        self.began, self.total, self.done = time.monotonic(), sum(job.cost for job in waiting), 0.0
        self.count, self.finished = len(waiting), 0

    def ended(self, job: AnyJob) -> None:
        """Note the end of a run."""
        self.done += job.cost
        self.finished += 1

    def passed(self, running: Sequence[_Started]) -> float:
        """Return how much is done, with the parts of running ones."""
        return self.done + sum(one.job.cost * one.frac() for one in running)

    def left(self, running: Sequence[_Started]) -> str:
        """Say how long the rest will take."""
        passed, elapsed_s = self.passed(running), time.monotonic() - self.began
        if passed <= 0 or passed >= self.total:
            return ""
        minutes = elapsed_s * (self.total / passed - 1) / 60
        return f"; {self.finished} of {self.count}, about {minutes:.0f} min left"

    def bar(self, console: Console) -> _Bar:
        """Return the bar, to be used in a `with`."""
        return _Bar(self, console)


class _Bar:
    """Shows the clock while runs go on."""

    def __init__(self, clock: _Clock, console: Console) -> None:
        self.clock = clock
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=32), TextColumn("{task.percentage:.0f} %"))
        hidden = not console.is_terminal
        self.progress = Progress(*columns, console=console, transient=True, disable=hidden)
        self.task = self.progress.add_task("", total=max(clock.total, 1.0))

    def __enter__(self) -> _Bar:
        """Start it."""
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self.progress.stop()

    def __call__(self, running: Sequence[_Started]) -> None:
        """Show where things stand."""
        text = f"runs{self.clock.left(running)}"
        self.progress.update(self.task, completed=self.clock.passed(running), description=text)


# ------------------------------------------------------------------------------------------------ results
def _write(suite: Suite, planned: Planned, out: Path) -> SuiteResult:
    """Write tables, page and plot of what there is."""
    outcomes = tuple(_outcome(job) for job in planned.jobs)
    write_csv(out / "results.csv", outcomes)
    compared, notes = suite.pairs_compared(), tuple(_notes(planned))
    text = markdown(outcomes, title=suite.name, compared=compared, notes=notes)
    with whole(out / "table.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    plots = write_plot(out, outcomes, title=suite.name)
    svg = plots[0] if plots else None
    costs = write_costs(out, outcomes, title=suite.name)
    write_page(out / "report.html", outcomes, title=suite.name, compared=compared, plot=svg, costs=costs, notes=notes)
    return SuiteResult(outcomes, out / "table.md", out / "results.csv", out / "report.html", plots)


def _notes(planned: Planned) -> Iterator[str]:
    """Yield what is not in the tables, and what the numbers were made with."""
    for reason in planned.left_out:
        yield f"\nLeft out: {reason}"
    if any(isinstance(job, DetectorJob) for job in planned.jobs):
        yield NOTE
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{_cores()} CPU cores"
    yield f"\nsemicdvl {__version__}, torch {torch.__version__}, {device}."
