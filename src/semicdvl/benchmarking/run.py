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

from semicdvl.atomic_files import make_output_error, read_json, write_atomically
from semicdvl.benchmarking.config import Suite
from semicdvl.benchmarking.cost_plot import write_cost_plot
from semicdvl.benchmarking.data import PreparedData, prepare_data
from semicdvl.benchmarking.detectors import DETECTORS_NOTE, DetectorJob
from semicdvl.benchmarking.jobs import BenchmarkJob, JobPlan, check_suite, plan_jobs
from semicdvl.benchmarking.plot import write_plot
from semicdvl.benchmarking.report import write_report
from semicdvl.benchmarking.results import Outcome, describe_status, render_markdown, write_csv
from semicdvl.benchmarking.worker import run_benchmark_job
from semicdvl.errors import DataError
from semicdvl.version import __version__

POLL_S = 0.5


@dataclass(frozen=True)
class BenchmarkResult:
    """What a benchmark came to: an outcome per run, and the files that tell of them."""

    outcomes: tuple[Outcome, ...]
    table: Path
    csv: Path
    report: Path
    plots: tuple[Path, ...]

    @property
    def failed_count(self) -> int:
        """Number of runs that did not finish."""
        return sum(one["status"] != "finished" for one in self.outcomes)


def run_benchmark(
    suite: Suite,
    out: Path,
    *,
    jobs: int = 1,
    retry: bool = False,
    devices: Sequence[str] | None = None,
    console: Console | None = None,
) -> BenchmarkResult:
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
    check_suite(suite)
    prepared = _prepare_data_sets(suite, out, console)
    planned = plan_jobs(suite, prepared, out)
    everything = planned.jobs
    for reason in planned.left_out:
        console.print(f"left out: {reason}", highlight=False, markup=False, soft_wrap=True)
    if not everything:
        raise DataError(f"suite '{suite.name}': no run is left to make. Give data that is there, or other methods.")
    if retry:
        for job in everything:
            if job.result.exists() and _read_outcome(job)["status"] != "finished":
                job.result.unlink()
    waiting = [job for job in everything if not job.result.exists()]
    console.print(f"{len(everything)} runs, {len(everything) - len(waiting)} of them there already", highlight=False)
    try:
        _run_jobs(waiting, jobs, console, devices=_list_gpus() if devices is None else tuple(devices))
    finally:
        result = _write_results(suite, planned, out)
    return result


def _prepare_data_sets(suite: Suite, out: Path, console: Console) -> dict[str, PreparedData]:
    """Make the data sets ready; say which are left out."""
    prepared = {}
    for entry in suite.data:
        with console.status(f"data '{entry.name}'"):
            found = prepare_data(entry, out / "data")
        if found is None:
            console.print(
                f"data '{entry.name}' is left out: its images are not at {getattr(entry, 'root', '?')}.", soft_wrap=True
            )
        else:
            prepared[entry.name] = found
    return prepared


# ------------------------------------------------------------------------------------------------ processes
class _RunningJob:
    """A run in a process of its own."""

    def __init__(self, job: BenchmarkJob, threads: int, device: str | None = None) -> None:
        """Start it, on a GPU if one is named; what it prints goes to a file."""
        self.job, self.device = job, device
        path = job.write()
        environment = {"OMP_NUM_THREADS": str(threads)} | os.environ
        if device is not None:
            environment["CUDA_VISIBLE_DEVICES"] = device
        try:
            with path.with_suffix(".log").open("ab") as log:
                command = [sys.executable, "-m", "semicdvl.benchmarking.worker", str(path)]
                self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        except OSError as error:
            raise make_output_error(path, error) from error

    def read_progress(self) -> float:
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


def _run_jobs(waiting: Sequence[BenchmarkJob], jobs: int, console: Console, *, devices: Sequence[str] = ()) -> None:
    """Make runs, several at a time and dealt over the GPUs; report each that ends."""
    if jobs == 0:
        for job in waiting:
            _print_outcome(console, run_benchmark_job(job.write()))
        return
    threads = max(1, _count_cores() // jobs)
    queue, running = deque(waiting), list[_RunningJob]()
    clock = _ProgressEstimate(waiting)
    try:
        with clock.open_bar(console) as update:
            while queue or running:
                while queue and len(running) < jobs:
                    free = choose_least_busy(devices, [one.device for one in running])
                    running.append(_RunningJob(queue.popleft(), threads, free))
                time.sleep(POLL_S)
                for one in [one for one in running if one.process.poll() is not None]:
                    running.remove(one)
                    clock.note_finished(one.job)
                    _print_outcome(console, _read_outcome(one.job), left=clock.describe_remaining(running))
                update(running)
    finally:
        for one in running:
            one.stop()


def choose_least_busy(devices: Sequence[str], busy: Sequence[str | None]) -> str | None:
    """Return the device with the fewest runs, the first of several; None where there is none to choose."""
    return min(devices, key=busy.count, default=None)


def _list_gpus() -> tuple[str, ...]:
    """Return the numbers of the GPUs that this process may use, if there are several; one needs no dealing."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return tuple(named or map(str, range(count))) if count > 1 else ()


def _count_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read_outcome(job: BenchmarkJob) -> Outcome:
    """Return what became of a run; one without a result was killed."""
    if job.result.exists():
        outcome: Outcome = read_json(job.result, remedy="Delete the file and start again")
        return outcome
    text = "It ended without a result (killed, out of memory?); started again, the benchmark goes on with it."
    return {**job.place, "status": "unfinished", "error": text}


def _print_outcome(console: Console, one: Outcome, *, left: str = "") -> None:
    """Say how a run ended."""
    what = f"{one['data']}: {one['method']}, {one['labelled']:.4g} labels, seed {one['seed']}"
    if one["status"] == "finished":
        text = f"{what}: test IoU {one['test']['iou']:.3f}, {one['seconds']:.0f} s, {one['peak_mib']:.0f} MiB"
    else:
        text = f"{what}: {describe_status(one)}. {one['error']}"
    console.print(text + left, highlight=False, markup=False, soft_wrap=True)


class _ProgressEstimate:
    """Tells how much is done and how long the rest will take, by the pairs that pass the network."""

    def __init__(self, waiting: Sequence[BenchmarkJob]) -> None:
        self.began, self.total, self.done = time.monotonic(), sum(job.cost for job in waiting), 0.0
        self.count, self.finished = len(waiting), 0

    def note_finished(self, job: BenchmarkJob) -> None:
        """Note the end of a run."""
        self.done += job.cost
        self.finished += 1

    def compute_completed_cost(self, running: Sequence[_RunningJob]) -> float:
        """Return how much is done, with the parts of running ones."""
        return self.done + sum(one.job.cost * one.read_progress() for one in running)

    def describe_remaining(self, running: Sequence[_RunningJob]) -> str:
        """Say how long the rest will take."""
        passed, elapsed_s = self.compute_completed_cost(running), time.monotonic() - self.began
        if passed <= 0 or passed >= self.total:
            return ""
        minutes = elapsed_s * (self.total / passed - 1) / 60
        return f"; {self.finished} of {self.count}, about {minutes:.0f} min left"

    def open_bar(self, console: Console) -> _ProgressBar:
        """Return the bar, to be used in a `with`."""
        return _ProgressBar(self, console)


class _ProgressBar:
    """Shows the clock while runs go on."""

    def __init__(self, clock: _ProgressEstimate, console: Console) -> None:
        self.clock = clock
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=32), TextColumn("{task.percentage:.0f} %"))
        hidden = not console.is_terminal
        self.progress = Progress(*columns, console=console, transient=True, disable=hidden)
        self.task = self.progress.add_task("", total=max(clock.total, 1.0))

    def __enter__(self) -> _ProgressBar:
        """Start it."""
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self.progress.stop()

    def __call__(self, running: Sequence[_RunningJob]) -> None:
        """Show where things stand."""
        text = f"runs{self.clock.describe_remaining(running)}"
        self.progress.update(self.task, completed=self.clock.compute_completed_cost(running), description=text)


# ------------------------------------------------------------------------------------------------ results
def _write_results(suite: Suite, planned: JobPlan, out: Path) -> BenchmarkResult:
    """Write tables, page and plot of what there is."""
    outcomes = tuple(_read_outcome(job) for job in planned.jobs)
    write_csv(out / "results.csv", outcomes)
    compared, notes = suite.list_comparisons(), tuple(_list_notes(planned))
    text = render_markdown(outcomes, title=suite.name, compared=compared, notes=notes)
    with write_atomically(out / "table.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    plots = write_plot(out, outcomes, title=suite.name)
    svg = plots[0] if plots else None
    costs = write_cost_plot(out, outcomes, title=suite.name)
    write_report(out / "report.html", outcomes, title=suite.name, compared=compared, plot=svg, costs=costs, notes=notes)
    return BenchmarkResult(outcomes, out / "table.md", out / "results.csv", out / "report.html", plots)


def _list_notes(planned: JobPlan) -> Iterator[str]:
    """Yield what is not in the tables, and what the numbers were made with."""
    for reason in planned.left_out:
        yield f"\nLeft out: {reason}"
    if any(isinstance(job, DetectorJob) for job in planned.jobs):
        yield DETECTORS_NOTE
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{_count_cores()} CPU cores"
    yield f"\nsemicdvl {__version__}, torch {torch.__version__}, {device}."
