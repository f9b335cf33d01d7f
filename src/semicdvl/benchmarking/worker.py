"""One run of a suite in its own process: peak memory is measured per run, and a crash ends only this run.

python -m semicdvl.benchmarking.worker JOB.json [--end-with-input]
"""

from __future__ import annotations

import math
import re
import resource
import sys
import time
import traceback
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from semicdvl.atomic_files import write_json
from semicdvl.checkpoint import (
    build_untrained_network,
    load_weights,
    load_weights_into,
    read_run,
    read_run_bands,
    read_run_stretch,
)
from semicdvl.config import Recipe, parse_recipe
from semicdvl.data.split_file import read_split
from semicdvl.errors import CheckpointError, DivergedError, SemicdvlError
from semicdvl.metrics.pair_sets import HEADLINE_SCORES
from semicdvl.reading.json_files import read_json
from semicdvl.training.checkpoint import find_last_checkpoint
from semicdvl.training.distributed import ProcessGroup
from semicdvl.training.evaluate import evaluate_network
from semicdvl.training.run import train_recipe
from semicdvl.training.validation import list_scored_classes
from semicdvl.worker_processes import end_with_parent

REPORTED_SCORES = ("iou", "f1", "precision", "recall")
SEMANTIC_SCORES = tuple(f"semantic_{name}" for name in HEADLINE_SCORES)
"""Further ones of runs that know classes."""


def run_benchmark_job(job_file: Path) -> dict[str, Any]:
    """Execute or resume the run of a job file, write its outcome and return it.

    An error of the run is an outcome too: `status` is finished, diverged or failed, `error` says why.
    """
    content = read_json(job_file, remedy="Start `semicdvl benchmark` again, it writes the job files")
    outcome = dict(content["job"])
    try:
        if "detector" in content:
            from semicdvl.benchmarking.detectors import run_detector_job  # a training run needs none of its imports

            outcome |= run_detector_job(content)
        else:
            outcome |= _train_and_score(parse_recipe(content["recipe"], source=str(job_file)), Path(content["run"]))
    except DivergedError as error:
        at = re.search(r"at step (\d+)", str(error))
        outcome |= {"status": "diverged", "error": str(error), "step": int(at[1]) if at else None}
    except SemicdvlError as error:
        outcome |= {"status": "failed", "error": str(error)}
    except Exception as error:
        traceback.print_exc()
        outcome |= {"status": "failed", "error": f"{type(error).__name__}: {error}"}
    write_json(Path(content["result"]), outcome)
    return outcome


def _train_and_score(recipe: Recipe, run: Path) -> dict[str, Any]:
    """Train and return the outcome: test scores of the selected and of the last step, and cost."""
    began = time.monotonic()
    trained = train_recipe(recipe, run, quiet=True)
    record = read_run(run)
    kept = trained.test if recipe.train.keeps_last_step else None
    last = record.get("test_last") or kept or _score_last_step(recipe, run)
    return {
        "status": "finished",
        "error": "",
        "run": str(run),
        "best_step": trained.fit_result.best_step,
        "val": _select_scores(trained.val),
        "test": _select_scores(trained.test),
        "test_last": _select_scores(last),
        "test_best": record.get("test_best"),
        "pairs": {
            subset: (record.get("split") or {}).get(subset, 0) for subset in ("labelled", "unlabelled", "val", "test")
        },
        "seconds": trained.seconds,
        "total_seconds": time.monotonic() - began,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "peak_gpu_mib": torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else None,
    }


def _select_scores(scores: Mapping[str, float]) -> dict[str, float | None]:
    """Return the reported scores for a table: 0 where one is undefined, as the precision where no change was found."""
    found = {
        name: scores.get(name) for name in (*REPORTED_SCORES, *(name for name in SEMANTIC_SCORES if name in scores))
    }
    return {name: value if value is None or math.isfinite(value) else 0.0 for name, value in found.items()}


def _score_last_step(recipe: Recipe, run: Path) -> dict[str, float]:
    """Score the weights of the last step on test; with a moving average, those of the average, as validation does."""
    newest = find_last_checkpoint(run)
    if newest is None:
        raise CheckpointError(f"{run}: has lost the weights of its last step (state/). Delete it to train it again.")
    averaged = newest / "teacher.safetensors"
    if averaged.exists():
        inside = load_weights(averaged).items()
        weights = {name.removeprefix("module."): value for name, value in inside if name.startswith("module.")}
    else:
        weights = load_weights(newest / "model.safetensors")
    model = build_untrained_network(recipe.model.model_dump())
    load_weights_into(model, weights, source=newest)
    device = torch.device("cuda" if torch.cuda.is_available() and recipe.train.device != "cpu" else "cpu")
    record = read_run(run)
    pairs = read_split(run / "split.json").test
    return evaluate_network(
        model.eval().to(device),
        pairs,
        processes=ProcessGroup(0, 1, device),
        label_values=recipe.data.label_values,
        stretch=read_run_stretch(record),
        bands=read_run_bands(record),
        classes=list_scored_classes(recipe),
        network=f"{run}: its network of the last step",
    ).list_meaningful_scores()


if __name__ == "__main__":
    if len(sys.argv) > 2:  # the benchmark holds the other end of standard input
        end_with_parent(sys.stdin.fileno())
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    run_benchmark_job(Path(sys.argv[1]))
