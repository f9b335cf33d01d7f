"""Runs of a suite, each in its own process: several at a time, distributed over the GPUs, with progress."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from semicdvl.benchmarking.jobs import BenchmarkJob
from semicdvl.benchmarking.results import Outcome, describe_status
from semicdvl.benchmarking.worker import run_benchmark_job
from semicdvl.errors import InputError
from semicdvl.outputs.exchange import open_plain_file
from semicdvl.outputs.messages import make_output_error
from semicdvl.reading.json_files import read_model

_REMEDY = "Delete the file and start again"
POLL_S = 0.5
END_S = 10.0
"""How long a run may take to end once it is asked to."""
LEAST_PASSED_FRAC = 0.02
"""No time is foretold from less: rows that are not trained come first, and they say little about trainings."""


class RunningJob:
    """A run in its own process, which ends with this one: its standard input is a pipe that only this one holds."""

    def __init__(self, job: BenchmarkJob, threads: int, device: str | None = None) -> None:
        """Start it, on a GPU if one is named; its output goes to a file."""
        self.job, self.device = job, device
        path = job.write()
        environment = {"OMP_NUM_THREADS": str(threads)} | os.environ
        if device is not None:
            environment["CUDA_VISIBLE_DEVICES"] = device
        try:
            with open(path.with_suffix(".log"), "ab", opener=open_plain_file) as log:
                command = [sys.executable, "-m", "semicdvl.benchmarking.worker", str(path), "--end-with-input"]
                self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment)
        except OSError as error:
            raise make_output_error(path, error) from error

    def read_progress(self) -> float:
        """Return the share of its steps that are done, from its log."""
        try:
            with (self.job.run / "log.jsonl").open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - 4096))
                lines = log.read().splitlines()
            step = next(int(json.loads(line)["step"]) for line in reversed(lines) if line.endswith(b"}"))
        except (OSError, StopIteration, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return 0.0  # only a bar is drawn of it
        return min(1.0, step / self.job.steps)

    def stop(self) -> None:
        """End the process of the run; its checkpoint stays."""
        self.process.terminate()
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        finally:
            self.close()

    def close(self) -> None:
        """Close the pipe by which it notices the end of this process."""
        if self.process.stdin is not None:
            self.process.stdin.close()


def run_jobs(waiting: Sequence[BenchmarkJob], jobs: int, console: Console, *, devices: Sequence[str] = ()) -> None:
    """Run jobs, several at a time and distributed over the GPUs; report each that ends."""
    if jobs == 0:
        for job in waiting:
            _print_outcome(console, run_benchmark_job(job.write()))
        return
    threads = max(1, count_cores() // jobs)
    queue, running = deque(waiting), list[RunningJob]()
    estimate = _ProgressEstimate(waiting)
    try:
        with estimate.open_bar(console) as update:
            while queue or running:
                while queue and len(running) < jobs:
                    free = choose_least_busy(devices, [one.device for one in running])
                    running.append(RunningJob(queue.popleft(), threads, free))
                time.sleep(POLL_S)
                for one in [one for one in running if one.process.poll() is not None]:
                    running.remove(one)
                    one.close()
                    estimate.note_finished(one.job)
                    _print_outcome(console, read_outcome(one.job), left=estimate.describe_remaining(running))
                update(running)
    finally:
        for one in running:
            one.stop()


def choose_least_busy(devices: Sequence[str], busy: Sequence[str | None]) -> str | None:
    """Return the device with the fewest runs, the first of several; None without devices."""
    return min(devices, key=busy.count, default=None)


def list_gpus() -> tuple[str, ...]:
    """Return the numbers of the GPUs that this process may use, if there are several."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return tuple(named or map(str, range(count))) if count > 1 else ()


def count_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_outcome(job: BenchmarkJob) -> Outcome:
    """Return the outcome of a run; one without a result was killed.

    Raises:
        InputError: its file is damaged, or of another run.
    """
    if job.result.exists():
        stored = read_model(job.result, _StoredOutcome, remedy=_REMEDY).model_dump(exclude_unset=True)
        found: Outcome = {"error": "", "pairs": {}} | stored
        other = [key for key, value in job.place.items() if found.get(key, value) != value]
        if other:
            raise InputError(job.result, f"{other[0]}: is the outcome of another run", _REMEDY)
        return found
    text = "It ended without a result (killed, out of memory?); the same command resumes it."
    return {**job.place, "status": "unfinished", "error": text}


class _Scores(BaseModel):
    """The scores of an outcome; the names are stored."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    iou: float | None
    f1: float | None
    precision: float | None
    recall: float | None
    semantic_sek: float | None = None
    semantic_f_scd: float | None = None
    semantic_miou: float | None = None


class _StoredOutcome(BaseModel):
    """What a worker wrote of a run; the names are stored, further ones are kept as they are."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    data: str
    method: str
    model: str
    labelled: float
    seed: int
    seeds: list[int] = Field(default_factory=list)
    steps: int | None = None
    step: int | None = None
    best_step: int | None = None
    status: str
    error: str = ""
    test: _Scores | None = None
    test_last: _Scores | None = None
    test_best: _Scores | None = None
    pairs: dict[str, int] = Field(default_factory=dict)
    seconds: float | None = None
    peak_mib: float | None = None
    peak_gpu_mib: float | None = None

    @model_validator(mode="after")
    def _require_scores(self) -> _StoredOutcome:
        """Require scores of a run that finished."""
        has_scores = self.test is not None and self.test.iou is not None
        if self.status == "finished" and (not has_scores or self.seconds is None or self.peak_mib is None):
            raise ValueError("a finished run without test scores, seconds or memory")
        return self


def _print_outcome(console: Console, one: Outcome, *, left: str = "") -> None:
    """Print how a run ended."""
    what = f"{one['data']}: {one['method']}, {one['labelled']:.4g} labels, seed {one['seed']}"
    if one["status"] == "finished":
        text = f"{what}: test IoU {one['test']['iou']:.3f}, {one['seconds']:.0f} s, {one['peak_mib']:.0f} MiB"
    else:
        text = f"{what}: {describe_status(one)}. {one['error']}"
    console.print(text + left, highlight=False, markup=False, soft_wrap=True)


class _ProgressEstimate:
    """An estimate of what is done and how long the rest takes, by the pairs that pass the network."""

    def __init__(self, waiting: Sequence[BenchmarkJob]) -> None:
        self.began, self.total, self.done = time.monotonic(), sum(job.cost for job in waiting), 0.0
        self.count, self.finished = len(waiting), 0

    def note_finished(self, job: BenchmarkJob) -> None:
        """Record the end of a run."""
        self.done += job.cost
        self.finished += 1

    def compute_completed_cost(self, running: Sequence[RunningJob]) -> float:
        """Return the cost that is done, parts of running runs included."""
        return self.done + sum(one.job.cost * one.read_progress() for one in running)

    def describe_remaining(self, running: Sequence[RunningJob]) -> str:
        """Return in words how long the rest will take."""
        passed, elapsed_s = self.compute_completed_cost(running), time.monotonic() - self.began
        if passed < LEAST_PASSED_FRAC * self.total or passed >= self.total:
            return f"; {self.finished} of {self.count}"
        minutes = elapsed_s * (self.total / passed - 1) / 60
        return f"; {self.finished} of {self.count}, about {minutes:.0f} min left"

    def open_bar(self, console: Console) -> _ProgressBar:
        """Return the bar, to be used in a `with`."""
        return _ProgressBar(self, console)


class _ProgressBar:
    """The progress bar of the runs."""

    def __init__(self, estimate: _ProgressEstimate, console: Console) -> None:
        self.estimate = estimate
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=32), TextColumn("{task.percentage:.0f} %"))
        hidden = not console.is_terminal
        self.progress = Progress(*columns, console=console, transient=True, disable=hidden)
        self.task = self.progress.add_task("", total=max(estimate.total, 1.0))

    def __enter__(self) -> _ProgressBar:
        """Start the bar."""
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the bar."""
        self.progress.stop()

    def __call__(self, running: Sequence[RunningJob]) -> None:
        """Update the bar."""
        text = f"runs{self.estimate.describe_remaining(running)}"
        self.progress.update(self.task, completed=self.estimate.compute_completed_cost(running), description=text)
