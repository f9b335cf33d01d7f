"""The record of a run, RUN/run.json: its recipe, the versions it was trained with, and its scores."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, Field, ValidationError

from semicdvl.atomic_files import hash_values, write_json
from semicdvl.checkpoint import RUN_FORMAT, read_run
from semicdvl.config import DataConfig, Recipe
from semicdvl.data.shared_ground import check_leaks, describe_leaks
from semicdvl.data.split_file import write_split
from semicdvl.errors import CheckpointError, SemicdvlError
from semicdvl.metrics.pair_sets import find_undefined_scores
from semicdvl.outputs.exchange import TEMPORARY_PREFIX
from semicdvl.reading.json_files import describe_fault, shorten
from semicdvl.reports.numbers import format_count
from semicdvl.training.checkpoint import FitResult
from semicdvl.training.distributed import ProcessGroup
from semicdvl.training.log import read_events
from semicdvl.training.parts import read_dataset
from semicdvl.types import Split
from semicdvl.version import __version__

TEST_SELECTED_MARK = "(test-selected)"
"""Mark of scores whose weights were chosen by looking at test pairs."""

TEST_SCORE_PREFIX = "test_"
"""Prefix of the names of test scores that are logged at each validation (`train.score_test`)."""


MAX_SHOWN_DIFFERENCES = 3
"""Keys that are told where a run is of another recipe."""
STORED_SCORES = ("val", "val_last", "test", "test_last", "test_best", "test_selected", "test_selection")
"""Entries of a record that hold scores."""
SELF_TRAINING_FOLDER = "adapt"
"""Folder that may exist in a run directory before training: the patches and labels of `semicdvl adapt`."""


@dataclass(frozen=True)
class TrainedRun:
    """What a training ended with.

    Attributes:
        run: its directory.
        fit_result: selected step, and scores of the pairs that selected it.
        val: validation scores of the selected step; empty where the test pairs selected it, or there are none.
        test: test scores of the selected step. They selected nothing, unless `selected_on` is "test".
        seconds: how long it took; of a resumed training with the earlier sessions, up to the last checkpoint of each.
        selected_on: "val"; "test" for parity with published numbers; "last" where no score selected anything.
        vlm_scores: validation scores of the VLM alone, where it guided the training (see `score_vlm_alone`).
        leaks: says that held-out pairs show ground of training pairs, whose scores are then too high.

    Examples:
        >>> import semicdvl as cd
        >>> trained = cd.train(recipe, out)                         # doctest: +SKIP
        >>> trained.run, trained.val["iou"], trained.test["iou"]    # doctest: +SKIP
    """

    run: Path
    fit_result: FitResult
    val: dict[str, float]
    test: dict[str, float]
    seconds: float
    selected_on: str = "val"
    vlm_scores: dict[str, float] | None = None
    leaks: str | None = None

    def list_score_columns(self) -> dict[str, dict[str, float]]:
        """Return the scores by column name; the name shows what selected the weights."""
        if self.selected_on == "test":
            return {f"test {TEST_SELECTED_MARK}": self.test}
        chosen = "validation" if self.selected_on == "last" else "validation (selected)"
        scores = {chosen: self.val, "test": self.test, "VLM alone (validation)": self.vlm_scores}
        return {name: values for name, values in scores.items() if values}

    def give_advice(self) -> str | None:
        """Return advice where the VLM alone is better on the validation pairs; None otherwise."""
        if self.vlm_scores is None or not self.val or not self.vlm_scores["iou"] > self.val["iou"]:
            return None
        return (
            f"On the validation pairs the VLM's stored labels alone have an IoU of {self.vlm_scores['iou']:.3f}, this "
            f"network {self.val['iou']:.3f}: until it has more labels or steps, try `semicdvl detect` without --model, "
            "which compares the VLM's answers by a rule of its own."
        )


def start_record(recipe: Recipe, run: Path, processes: ProcessGroup) -> dict[str, Any]:
    """Return the run's record: the kept one if it is of this recipe, or a new one.

    Raises:
        CheckpointError: the directory holds something else.
    """
    plain = recipe.model_dump(mode="json")
    if (run / "run.json").exists():
        record = read_run(run)
        kept = _fill_in_defaults(record["recipe"])
        if hash_values(kept) != hash_values(plain):
            raise CheckpointError(
                f"{run}: holds a run of another recipe ({_describe_differences(kept, plain)}). Give another folder with"
                " -o, or remove it."
            )
        then = record.get("processes", 1)
        if record.get("status") != "finished" and then != processes.count:
            was, now = (format_count(count, "process", "processes") for count in (then, processes.count))
            raise CheckpointError(
                f"{run}: was started by {was}, and is now resumed by {now}: a step would have another number of pairs. "
                f"Launch {was} as before, or give another folder with -o."
            )
        return record | {"recipe": plain}  # the kept one may be too old to have all fields
    if run.exists() and (not run.is_dir() or any(not _may_precede_run(path) for path in run.iterdir())):
        raise CheckpointError(f"{run}: exists and is not a run directory. Give another folder with -o.")
    return {
        "format": RUN_FORMAT,
        "status": "started",
        "recipe": plain,
        "processes": processes.count,
        "versions": {"semicdvl": __version__, "torch": torch.__version__, "python": sys.version.split()[0]},
    }


def _may_precede_run(path: Path) -> bool:
    """Tell whether a directory with this in it can become a run: it is of `adapt`, or left by a killed process."""
    return path.name == SELF_TRAINING_FOLDER or path.name.startswith(TEMPORARY_PREFIX)


def _fill_in_defaults(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return a kept recipe with the defaults of fields that it is too old to have."""
    try:
        return Recipe.model_validate(recipe).model_dump(mode="json")
    except ValidationError:
        return recipe


def _describe_differences(kept: dict[str, Any], given: dict[str, Any]) -> str:
    """Return in words in which keys two recipes differ."""
    then, now = (dict(_list_values(recipe)) for recipe in (kept, given))
    keys = [key for key in now | then if then.get(key) != now.get(key)]
    told = [
        f"{key} is {shorten(json.dumps(then.get(key)))} there and {shorten(json.dumps(now.get(key)))} here"
        for key in keys[:MAX_SHOWN_DIFFERENCES]
    ]
    more = len(keys) - len(told)
    return ", ".join([*told, *([format_count(more, "further key differs", "further keys differ")] if more else [])])


def _list_values(recipe: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """List the values of a recipe by their dotted keys."""
    for key, value in recipe.items():
        if isinstance(value, dict):
            yield from ((f"{key}.{below}", one) for below, one in _list_values(value))
        else:
            yield key, value


def record_split(recipe: Recipe, division: Split, run: Path) -> dict[str, Any]:
    """Write RUN/split.json and return the record's entries about it."""
    notes: dict[str, str | int | float] = {"labelled": str(recipe.data.labelled), "seed": recipe.data.split_seed}
    digest = write_split(run / "split.json", division, root=recipe.data.root, notes=notes)
    sizes = {side: len(getattr(division, side)) for side in ("labelled", "unlabelled", "val", "test")}
    leaks = check_leaks(division, source_tiles=_read_source_tiles(recipe.data))
    return {
        "split": {
            "sha256": digest,
            **sizes,
            "leaking_pairs": leaks.leaking_pairs,
            "leaks": {"by_name": leaks.by_name, "by_content": leaks.by_content, "reason": leaks.reason},
        },
        "selected_on": recipe.train.select,
    }


def _read_source_tiles(config: DataConfig) -> dict[str, str]:
    """Return the picture or group of each pair, where the reader or the recipe knows it."""
    roots = [config.root, *([] if config.unlabelled is None else [config.unlabelled])]
    try:
        return {name: tile for root in roots for name, tile in read_dataset(config, root).source_tiles.items()}
    except SemicdvlError:
        if config.split is None:
            raise
        return {}  # a written split needs no folder that the reader understands


def finish_record(
    record: dict[str, Any], run: Path, *, result: FitResult, test: dict[str, float], seconds: float, is_main: bool
) -> TrainedRun:
    """Complete the record and return the result.

    Where the test pairs selected the step, none of their scores has a plain name.
    """
    if record["recipe"]["train"]["select"] == "test":
        scores = {"test_selected": test, "test_selection": result.best, "test_last": result.last}
    else:
        val, val_last = (_select_validation_scores(given) for given in (result.best, result.last))
        scores = {"val": val, "val_last": val_last, "test": test} | _read_test_scores(run, result)
    record |= {"status": "finished", "best_step": result.best_step, **scores, "seconds": seconds}
    record |= {name: _store_scores(record[name]) for name in STORED_SCORES if record.get(name) is not None}
    if is_main:
        write_json(run / "run.json", record)
    return read_training_result(record, run)


def _store_scores(scores: dict[str, Any]) -> dict[str, Any]:
    """Return scores as they are stored: undefined ones are null."""
    undefined = find_undefined_scores(scores)
    return {
        name: None if name in undefined or (isinstance(value, float) and math.isnan(value)) else value
        for name, value in scores.items()
    }


def _load_scores(scores: dict[str, Any]) -> dict[str, float]:
    """Return stored scores as numbers: undefined ones are NaN."""
    return {name: math.nan if value is None else value for name, value in scores.items()}


def _select_validation_scores(scores: dict[str, float]) -> dict[str, float]:
    """Return the scores of the pairs that select the step."""
    return {name: value for name, value in scores.items() if not name.startswith(TEST_SCORE_PREFIX)}


def _read_test_scores(run: Path, result: FitResult) -> dict[str, Any]:
    """Return test scores of the last step, and of the step where they were best, which no fair selection knows."""
    if f"{TEST_SCORE_PREFIX}iou" not in result.last:
        return {}
    events = [event for _, event in read_events(run / "log.jsonl")]
    noted = [(event.step, event.validation) for event in events if event.validation is not None]
    scored = [one for one in noted if f"{TEST_SCORE_PREFIX}iou" in one[1]]
    if not scored:
        raise CheckpointError(f"{run / 'log.jsonl'}: holds no test scores, which the recipe asks for. Train again.")
    step, best = max(scored, key=lambda one: one[1][f"{TEST_SCORE_PREFIX}iou"] or 0.0)
    last, picked = (
        {
            name.removeprefix(TEST_SCORE_PREFIX): value
            for name, value in scores.items()
            if name.startswith(TEST_SCORE_PREFIX)
        }
        for scores in (result.last, best)
    )
    return {"test_last": last, "test_best": picked | {"step": step}}


def read_training_result(record: dict[str, Any], run: Path) -> TrainedRun:
    """Return the result that a record holds."""
    try:
        found = _FinishedRun.model_validate(record)
        select = record["recipe"]["train"]["select"]
        first = _load_scores(record["test_selection" if select == "test" else "val"])
        last = _load_scores(record["test_last" if select == "test" else "val_last"])
        fit = FitResult(found.best_step, first, last)
        division = record.get("split") or {}
        leaks = describe_leaks(division) if division.get("leaking_pairs") else None
        if select == "test":
            return TrainedRun(run, fit, {}, _load_scores(record["test_selected"]), found.seconds, select, leaks=leaks)
        val, test = _load_scores(record["val"]), _load_scores(record["test"])
        return TrainedRun(run, fit, val, test, found.seconds, select, record.get("guide"), leaks)
    except (ValidationError, KeyError, TypeError, AttributeError) as error:
        reason = describe_fault(error) if isinstance(error, ValidationError) else f"{error} is missing"
        raise CheckpointError(f"{run / 'run.json'}: {reason}. Train again, or take the file from a backup.") from None


class _FinishedRun(BaseModel):
    """What is read of the record of a finished training; the names are stored, and an undefined score is null."""

    best_step: int = Field(ge=0)
    seconds: float = Field(ge=0)
    val: dict[str, float | None] | None = None
    val_last: dict[str, float | None] | None = None
    test: dict[str, float | None] | None = None
    test_last: dict[str, Any] | None = None
    test_selection: dict[str, float | None] | None = None
    test_selected: dict[str, float | None] | None = None
    guide: dict[str, float | None] | None = None


def describe_unfinished(run: Path) -> str | None:
    """Return the sentence that says that the training of a run has not finished; None where it has."""
    if read_run(run).get("status") != "started":
        return None
    return (
        f"{run}: its training has not finished, so these are its best weights so far. The same `semicdvl train` "
        "continues it."
    )


def name_score_column(run: Path, subset: str) -> str:
    """Return the column name of a run's scores, marked where its weights were selected on test pairs."""
    return f"{subset} {TEST_SELECTED_MARK}" if read_run(run).get("selected_on") == "test" else subset
