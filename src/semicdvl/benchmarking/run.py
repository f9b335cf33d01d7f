"""All runs of a suite: in parallel, resumed where they stopped, with progress; then the table and the plot.

    OUT/data/<data set>-<key>/    pairs, the VLM's answers, pseudo-label store, a split per fraction and seed
    OUT/jobs/<run>.json           what to do; <run>.result.json its outcome; <run>.log what it printed
    OUT/runs/<run>/               run directories, as `semicdvl train` writes them
    OUT/results.csv  table.md  report.html  plot.svg  plot.png  costs.svg

A run that has ended is not repeated. A run that was killed resumes from its last checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from semicdvl.atomic_files import leave_nothing_if_refused, write_atomically
from semicdvl.benchmarking.config import Suite
from semicdvl.benchmarking.cost_plot import write_cost_plot
from semicdvl.benchmarking.data import PreparedData, prepare_data
from semicdvl.benchmarking.detector_jobs import DetectorJob
from semicdvl.benchmarking.detectors import DETECTORS_NOTE
from semicdvl.benchmarking.jobs import JobPlan, check_suite, plan_jobs
from semicdvl.benchmarking.plot import write_plot
from semicdvl.benchmarking.processes import count_cores, list_gpus, read_outcome, run_jobs
from semicdvl.benchmarking.report import write_report
from semicdvl.benchmarking.results import Outcome, render_markdown, write_csv
from semicdvl.errors import DataError, OutputError
from semicdvl.outputs.exchange import sweep_unfinished_files
from semicdvl.outputs.locks import lock_argument
from semicdvl.reading.regular_files import resolve_links
from semicdvl.reports.numbers import format_count
from semicdvl.version import __version__


@dataclass(frozen=True)
class BenchmarkResult:
    """The result of a benchmark: an outcome per run, and the files written.

    Attributes:
        outcomes: of the runs, each with its scores, duration and memory, or with what went wrong.
        table: the table with means and spreads, in Markdown.
        csv: one row per run.
        report: the page with tables and plots.
        plots: the plots.

    Examples:
        >>> import semicdvl as cd
        >>> result = cd.benchmark("recipes/suites/small.toml")      # doctest: +SKIP
        >>> result.table.read_text(), result.failed_count           # doctest: +SKIP
    """

    outcomes: tuple[Outcome, ...]
    table: Path
    csv: Path
    report: Path
    plots: tuple[Path, ...]

    @property
    def failed_count(self) -> int:
        """Number of runs that did not finish."""
        return sum(one["status"] != "finished" for one in self.outcomes)


@lock_argument("out")
def run_benchmark(
    suite: Suite,
    out: Path,
    *,
    jobs: int = 1,
    retry: bool = False,
    devices: Sequence[str] | None = None,
    console: Console | None = None,
) -> BenchmarkResult:
    """Run a suite and write its table and plots; they are also written when it is interrupted.

    Args:
        suite: what to compare.
        out: folder for everything; started again with the same folder, only missing runs are made.
        jobs: runs at a time, each in its own process with its share of the cores; 0: one after another in this process
            (peak memory is then that of the largest so far).
        retry: repeat runs that failed or diverged.
        devices: numbers of the GPUs; each run starts on the one with the fewest runs. None: all GPUs.
        console: where progress goes; standard error if not given.

    Raises:
        ConfigError, DataError, InputError: the suite, or what it names, cannot be used.
        OutputError: `out` cannot be written, or holds something else.
    """
    console, out = console or Console(stderr=True), resolve_links(out)
    check_suite(suite)
    if (out / "run.json").exists():
        raise OutputError(f"{out}: holds a run or a result (run.json), and no benchmark. Give another folder with -o.")
    sweep_unfinished_files(out, depth=2)
    with leave_nothing_if_refused(out, keep=lambda: any(out.glob("jobs/*.result.json"))):
        return _run_checked_suite(suite, out, jobs=jobs, retry=retry, devices=devices, console=console)


def _run_checked_suite(
    suite: Suite, out: Path, *, jobs: int, retry: bool, devices: Sequence[str] | None, console: Console
) -> BenchmarkResult:
    """Prepare the data sets, make the runs that are missing, and write what came out."""
    prepared = _prepare_data_sets(suite, out, console)
    planned = plan_jobs(suite, prepared, out)
    everything = planned.jobs
    for reason in planned.left_out:
        console.print(f"left out: {reason}", highlight=False, markup=False, soft_wrap=True)
    if not everything:
        raise DataError(f"suite '{suite.name}': no run is possible. Give data that exists, or other methods.")
    if retry:
        for job in everything:
            if job.result.exists() and read_outcome(job)["status"] != "finished":
                job.result.unlink()
    waiting = [job for job in everything if not job.result.exists()]
    done = len(everything) - len(waiting)
    console.print(f"{format_count(len(everything), 'run')}, {done} of them done already", highlight=False)
    try:
        run_jobs(waiting, jobs, console, devices=list_gpus() if devices is None else tuple(devices))
    finally:
        result = _write_results(suite, planned, out)
    return result


def _prepare_data_sets(suite: Suite, out: Path, console: Console) -> dict[str, PreparedData]:
    """Prepare the data sets; print which are left out."""
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


# ------------------------------------------------------------------------------------------------ results
def _write_results(suite: Suite, planned: JobPlan, out: Path) -> BenchmarkResult:
    """Write tables, report and plots of the runs that have ended."""
    outcomes = tuple(read_outcome(job) for job in planned.jobs)
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
    """Yield what was left out, and which versions and device the numbers are from."""
    for reason in planned.left_out:
        yield f"\nLeft out: {reason}"
    if any(isinstance(job, DetectorJob) for job in planned.jobs):
        yield DETECTORS_NOTE
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{count_cores()} CPU cores"
    yield f"\nsemicdvl {__version__}, torch {torch.__version__}, {device}."
