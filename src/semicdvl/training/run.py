"""Recipe -> parts -> loop -> run directory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from semicdvl.atomic_files import leave_nothing_if_refused, write_json
from semicdvl.checkpoint import build_network, read_run_bands, read_run_stretch, record_bands, record_stretch
from semicdvl.config import Recipe
from semicdvl.data.images.cache import ImageCache
from semicdvl.data.loaders import check_split, load_train_batches
from semicdvl.data.pair_checks import check_all_pair_files, measure_pairs_bands, measure_pairs_stretch
from semicdvl.data.samples import LoaderOptions
from semicdvl.data.shared_ground import describe_leaks
from semicdvl.outputs.locks import lock_output
from semicdvl.pseudo_labels.store import PseudoLabelStore
from semicdvl.training.batches import TrainingBatch
from semicdvl.training.checkpoint import FitResult, check_last_checkpoint, find_last_checkpoint
from semicdvl.training.compatibility import check_compatibility
from semicdvl.training.distributed import ProcessGroup, join_process_group
from semicdvl.training.few_labels import fit
from semicdvl.training.length import TrainingLength, compute_training_length
from semicdvl.training.loop import run_training_loop
from semicdvl.training.parts import (
    build_loader_options,
    build_method,
    make_split,
    open_label_source,
    teach_classes,
    weigh_guidance,
)
from semicdvl.training.run_record import TrainedRun, finish_record, read_training_result, record_split, start_record
from semicdvl.training.validation import DataGuard, build_run_validator, score_test_pairs, score_vlm_alone
from semicdvl.types import Method, PairFiles, Split, VLMLabelSource

MAX_USUAL_CHANGE_FRAC = 0.5
"""More changed pixels than this in the labels are worth a remark: the masks may be inverted."""


def train_recipe(recipe: Recipe, run: Path, *, quiet: bool = False) -> TrainedRun:
    """Train what a recipe describes; an interrupted run is resumed, a finished one is only read.

    Raises:
        ConfigError, DataError, StoreError, InputError: the recipe, or what it names, cannot be used.
        CheckpointError: `run` holds a run of another recipe, or of another number of processes.
        OutputError: another process trains in `run`, or it cannot be written.
        DivergedError: the loss is not a number.
    """
    processes = join_process_group(recipe.train.device)
    is_resumed = (run / "run.json").exists()
    with lock_output(run) if processes.is_main else nullcontext():
        with leave_nothing_if_refused(run, keep=lambda: is_resumed or find_last_checkpoint(run) is not None):
            return _train_locked(recipe, run, processes, quiet=quiet)


@dataclass(frozen=True)
class _Parts:
    """What a recipe names: the method, the pairs, the pseudo-labels if the method takes some, and the network."""

    method: Method
    split: Split
    store: VLMLabelSource | None
    model: nn.Module


def _train_locked(recipe: Recipe, run: Path, processes: ProcessGroup, *, quiet: bool) -> TrainedRun:
    """Train what a recipe describes; the first process holds the lock of the run."""
    began = time.monotonic()
    record = start_record(recipe, run, processes)
    processes.wait_for_all()  # all have read the directory before the first one writes
    if record.get("status") == "finished":
        if processes.is_main:
            _say_finished(run, quiet=quiet)
        return read_training_result(record, run)
    parts = _build_parts(recipe)
    method, split = parts.method, parts.split
    trained, held_out = split.labelled + split.unlabelled, split.val + split.test
    guard = DataGuard.watch(trained + held_out, record=record, run=run, is_main=processes.is_main)
    reading = _measure_images(recipe, record, trained, held_out=held_out)
    loading = replace(build_loader_options(recipe, method, processes), **reading)
    _warn_of_inverted_labels(_check_data(split, method, loading), quiet=quiet or not processes.is_main)
    uses_unlabelled = method.uses_unlabelled
    length = compute_training_length(recipe.train, split, uses_unlabelled=uses_unlabelled, processes=processes.count)
    check_last_checkpoint(run)
    record |= {"heads": sorted(method.heads), "steps": length.steps, "steps_per_epoch": length.epoch}
    record |= record_stretch(loading.stretch) | record_bands(loading.bands)
    if processes.is_main:
        record |= _write_first_record(record, recipe, split, run, quiet=quiet)
    validate = guard.before_each(build_run_validator(recipe, split, processes, **reading))
    result = _fit(parts, recipe, run, length=length, loading=loading, validate=validate, quiet=quiet)
    processes.wait_for_all()  # the first one has written the weights
    test = score_test_pairs(recipe, run, model=parts.model, pairs=split.test, processes=processes, **reading)
    guard.require_unchanged()
    if isinstance(parts.store, PseudoLabelStore) and processes.is_main:
        record["guide"] = score_vlm_alone(parts.store, split.val, label_values=loading.label_values, quiet=quiet)
    seconds = result.earlier_seconds + time.monotonic() - began
    return finish_record(record, run, result=result, test=test, seconds=seconds, is_main=processes.is_main)


def _build_parts(recipe: Recipe) -> _Parts:
    """Build what a recipe names, and check that it fits together.

    Raises:
        ConfigError, DataError, StoreError, InputError: a part cannot be built, or does not fit the others.
    """
    method = build_method(recipe)
    split = make_split(recipe.data, select=recipe.train.select)
    method = weigh_guidance(teach_classes(recipe, method, split), split)
    store = open_label_source(recipe, method, split)
    torch.manual_seed(recipe.seed)
    model = build_network(recipe.model.model_dump())
    check_compatibility(recipe, method, model)
    if recipe.train.fits_at_once:
        fit.check_fit(recipe, method, model)
    return _Parts(method, split, store, model)


def _fit(
    parts: _Parts,
    recipe: Recipe,
    run: Path,
    *,
    length: TrainingLength,
    loading: LoaderOptions,
    validate: Callable[[nn.Module, torch.device], Mapping[str, float]],
    quiet: bool,
) -> FitResult:
    """Fit the network: all labelled pixels at once where the recipe says so, batch by batch otherwise."""
    if recipe.train.fits_at_once:
        cache = ImageCache(loading.cache_bytes, label_values=loading.label_values, stretch=loading.stretch)
        data = fit.FitData(parts.split, parts.store, cache)
        return fit.fit_at_once(parts.model, parts.method, recipe, data, validate=validate, run=run, quiet=quiet)
    batches = _build_loader(recipe, parts.method, parts.split, store=parts.store, length=length, loading=loading)
    return run_training_loop(
        parts.model, parts.method, recipe, length=length, batches=batches, validate=validate, run=run, quiet=quiet
    )


def _measure_images(
    recipe: Recipe, record: dict[str, Any], trained: tuple[PairFiles, ...], *, held_out: tuple[PairFiles, ...]
) -> dict[str, Any]:
    """Return `stretch` and `bands`, by which images become what the network sees: those of the record, or measured."""
    stretch, bands = read_run_stretch(record), read_run_bands(record)
    if recipe.data.bands is not None:
        return {"stretch": None, "bands": bands or measure_pairs_bands(trained, recipe.data.bands)}
    return {"stretch": stretch or measure_pairs_stretch(trained, held_out=held_out), "bands": None}


def _write_first_record(
    record: dict[str, Any], recipe: Recipe, split: Split, run: Path, *, quiet: bool
) -> dict[str, Any]:
    """Write the record of a run that begins, then its split; say which pairs leak. Return the record."""
    write_json(run / "run.json", record)  # first of all files: what has one is a run and can be resumed
    record = record | record_split(recipe, split, run)
    write_json(run / "run.json", record)
    if (leaks := describe_leaks(record["split"])) is not None:
        Console(stderr=True, quiet=quiet).print(leaks, style="yellow", markup=False, soft_wrap=True)
    return record


def _say_finished(run: Path, *, quiet: bool) -> None:
    """Say that nothing is trained."""
    Console(stderr=True, quiet=quiet).print(
        f"{run}: is finished already, so nothing is trained. To train anew, give another folder or remove this one.",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _warn_of_inverted_labels(changed_frac: float | None, *, quiet: bool) -> None:
    """Say where the labels call more ground changed than not: white may mean unchanged in them."""
    if changed_frac is not None and changed_frac > MAX_USUAL_CHANGE_FRAC:
        Console(stderr=True, quiet=quiet).print(
            f"The labels call {changed_frac:.0%} of their pixels changed. If white means unchanged in the masks, give "
            "--set data.label_values='0=changed,255=unchanged'.",
            style="yellow",
            markup=False,
            soft_wrap=True,
        )


def _check_data(split: Split, method: Method, loading: LoaderOptions) -> float | None:
    """Check all files before anything is written: those for scores are read much later.

    Returns:
        The share of the labelled pixels that are changed; None where there are none.
    """
    wanted = {"needs_labelled": bool(split.labelled), "needs_unlabelled": method.uses_unlabelled}
    changed_frac = check_split(split, **wanted, options=loading)
    check_all_pair_files(
        split.val + split.test,
        label_values=loading.label_values,
        require_changes=False,
        bands=None if loading.bands is None else loading.bands.numbers,
    )
    return changed_frac


def _build_loader(
    recipe: Recipe,
    method: Method,
    split: Split,
    *,
    store: VLMLabelSource | None,
    length: TrainingLength,
    loading: LoaderOptions,
) -> Callable[[int], Iterator[TrainingBatch]]:
    """Return what gives the batches of the training from a step on."""

    def load_from(start: int) -> Iterator[TrainingBatch]:
        return load_train_batches(
            split,
            crop_px=recipe.data.crop_px,
            labelled_batch=recipe.train.labelled_batch if split.labelled else 0,
            unlabelled_batch=recipe.train.unlabelled_batch if method.uses_unlabelled else 0,
            vlm=store,
            steps=length.steps,
            start_step=start,
            seed=recipe.seed,
            workers=recipe.train.workers,
            options=replace(loading, check_files=False),  # checked before anything was written
        )

    return load_from
