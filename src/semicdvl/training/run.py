"""Recipe -> parts -> loop -> run directory."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from semicdvl.atomic_files import write_json
from semicdvl.checkpoint import build_network, load_network, load_weights, load_weights_into, read_run
from semicdvl.config import DataConfig, Recipe, TrainConfig
from semicdvl.data import DATASETS
from semicdvl.data.augment import StrongAugmentation, WeakAugmentation
from semicdvl.data.loaders import check_split, load_train_batches
from semicdvl.data.pairs import ChangeDataset, check_all_pair_files
from semicdvl.data.samples import LoaderOptions
from semicdvl.data.split_file import read_split
from semicdvl.data.splits import combine_splits, read_published_lists, select_split, split_by_fraction
from semicdvl.errors import ConfigError, DataError, StoreError
from semicdvl.methods import METHODS
from semicdvl.pseudo_labels.store import PseudoLabelStore
from semicdvl.registry import build_part
from semicdvl.training.compatibility import check_compatibility
from semicdvl.training.distributed import ProcessGroup, join_process_group
from semicdvl.training.evaluate import Validator, build_validator, evaluate_network
from semicdvl.training.loop import Plan, run_training_loop
from semicdvl.training.optim import OptimSettings
from semicdvl.training.run_record import (
    TEST_SCORE_PREFIX,
    TrainedRun,
    finish_record,
    read_training_result,
    record_split,
    start_record,
)
from semicdvl.training.vlm_baseline import score_vlm_alone
from semicdvl.types import Method, PairFiles, Split

EVAL_EVERY = 200


def train(recipe: Recipe, run: Path, *, quiet: bool = False) -> TrainedRun:
    """Train what a recipe describes; a run that was interrupted goes on, one that is finished is only read.

    Raises:
        ConfigError, DataError, StoreError, InputError: the recipe, or what it names, cannot be used.
        CheckpointError: `run` holds a run of another recipe, or of another number of processes.
        DivergedError: the loss is not a number.
    """
    began, settings = time.monotonic(), recipe.train
    processes = join_process_group(settings.device)
    record = start_record(recipe, run, processes)
    processes.wait_for_all()  # all have looked at the directory before the first one writes
    if record.get("status") == "finished":
        return read_training_result(record, run)
    method = build_method(recipe)
    division = make_split(recipe.data, select=settings.select)
    labels = open_label_store(recipe, method, division)
    torch.manual_seed(recipe.seed)
    model = build_network(recipe.model.model_dump())
    check_compatibility(recipe, method, model)
    loading = _build_sample_options(recipe, method, processes)
    wanted = {"wants_labelled": bool(division.labelled), "wants_unlabelled": method.uses_unlabelled}
    check_split(division, **wanted, options=loading)
    check_all_pair_files(
        division.val + division.test, label_values=loading.label_values, require_changes=False
    )  # scored much later
    length = compute_training_length(
        settings, division, uses_unlabelled=method.uses_unlabelled, processes=processes.count
    )
    record |= {"heads": sorted(method.heads), "steps": length.steps, "steps_per_epoch": length.epoch}
    if processes.is_main:
        write_json(run / "run.json", record)  # first of all files: what has one is a run and can be gone on with
        record |= record_split(recipe, division, run)
        write_json(run / "run.json", record)

    fitted = run_training_loop(
        model,
        method,
        plan=_plan(recipe, length),
        batches=lambda start: load_train_batches(
            division,
            crop_px=recipe.data.crop_px,
            labelled_batch=settings.labelled_batch if division.labelled else 0,
            unlabelled_batch=settings.unlabelled_batch if method.uses_unlabelled else 0,
            vlm=labels,
            steps=length.steps,
            start_step=start,
            seed=recipe.seed,
            workers=settings.workers,
            options=replace(loading, check_files=False),  # done above, before anything was written
        ),
        validate=_build_validator(recipe, division, processes),
        run=run,
        quiet=quiet,
    )
    processes.wait_for_all()  # the first one has written the weights
    scores = _score_test_pairs(recipe, run, model=model, pairs=division.test, processes=processes)
    if labels is not None and processes.is_main:
        record["guide"] = score_vlm_alone(labels, division.val, label_values=loading.label_values, quiet=quiet)
    return finish_record(
        record, run, fitted=fitted, test=scores, seconds=time.monotonic() - began, main=processes.is_main
    )


# ------------------------------------------------------------------------------------------------ recipe -> parts
def build_method(recipe: Recipe) -> Method:
    """Build the method of a recipe."""
    method: Method = build_part("method", recipe.method.name, METHODS, recipe.method.options)
    return method


def read_dataset(config: DataConfig, root: Path) -> ChangeDataset:
    """Read the data set at `root` with the recipe's reader."""
    dataset: ChangeDataset = build_part("data set", config.dataset, DATASETS, {"root": root, **config.options})
    return dataset


def make_split(config: DataConfig, *, select: str = "val") -> Split:
    """Divide the data as the recipe says: a written split, published lists, or by fraction and seed.

    Args:
        config: the recipe's section.
        select: the side that selects the best step, which must not be empty; "last": none does.

    Raises:
        DataError: no labelled pair is left where some were wanted, or none to select with.
    """
    if config.split is not None:
        division = read_split(config.split)
    else:
        division = _split_dataset(config, config.root)
        if config.unlabelled is not None:
            # published lists are of one data set; of the other one all training pairs are taken
            other = config.model_copy(update={"labelled": 1.0})
            division = combine_splits(division, _split_dataset(other, config.unlabelled))
    needed = ["labelled"] if config.labelled != 0 else []
    for side in (*needed, *([select] if select != "last" else [])):
        if not getattr(division, side):
            field = "labelled" if side == "labelled" else f"{side}_frac"
            raise DataError(f"{config.root}: the split has no {side} pair. Raise data.{field}, or take other lists.")
    return division


def _split_dataset(config: DataConfig, root: Path) -> Split:
    """Divide one data set."""
    dataset = read_dataset(config, root)
    if isinstance(config.labelled, Path):
        lists = config.labelled
        return select_split(dataset, read_published_lists(lists.parent, part=lists.name))
    return split_by_fraction(
        dataset, labelled=config.labelled, seed=config.split_seed, val=config.val_frac, test=config.test_frac
    )


def open_label_store(recipe: Recipe, method: Method, division: Split) -> PseudoLabelStore | None:
    """Open the store if the method learns from a VLM, and see that it holds the labels of every training pair.

    Raises:
        ConfigError: the recipe names no store.
        StoreError: labels are missing.
    """
    if not method.uses_vlm:
        return None
    if recipe.pseudo is None:
        raise ConfigError(
            f"method '{recipe.method.name}' learns from a VLM's labels; make them with `semicdvl pseudo "
            f'{recipe.data.root} -o STORE` and add pseudo.store = "STORE" to the recipe.'
        )
    store = PseudoLabelStore.open(recipe.pseudo.store)
    pairs = division.labelled + division.unlabelled
    missing = [pair.name for pair in pairs if not store.has_labels(pair)]
    if missing:
        raise StoreError(
            f"{recipe.pseudo.store}: holds no labels for {len(missing)} of {len(pairs)} training pairs, such as "
            f"'{missing[0]}'. Run `semicdvl pseudo {recipe.data.root} -o {recipe.pseudo.store}` (with the same reader)."
        )
    return store


@dataclass(frozen=True)
class TrainingLength:
    """How long to train: optimiser steps in all, in an epoch, and between validations."""

    steps: int
    epoch: int
    eval_every: int


def compute_training_length(
    settings: TrainConfig, division: Split, *, uses_unlabelled: bool, processes: int = 1
) -> TrainingLength:
    """Return how long to train.

    An epoch is one pass over the unlabelled pairs (over the labelled ones, for a method that learns from labels alone),
    its last, incomplete step left out: LEVIR-CD at 5 % has 6764 unlabelled pairs, at 8 a step 845 steps an epoch, as in
    the public code.

    Args:
        settings: the recipe's section.
        division: says how many pairs there are.
        uses_unlabelled: whether the method learns from unlabelled pairs.
        processes: that share a step's pairs.
    """
    pairs = division.unlabelled if uses_unlabelled else division.labelled
    batch = settings.unlabelled_batch if uses_unlabelled else settings.labelled_batch
    epoch = max(1, len(pairs) // (batch * settings.accumulate * processes))
    steps = settings.steps if settings.steps is not None else epoch * (settings.epochs or 1)
    return TrainingLength(steps, epoch, settings.eval_every or (EVAL_EVERY if settings.epochs is None else epoch))


def _build_sample_options(recipe: Recipe, method: Method, processes: ProcessGroup) -> LoaderOptions:
    """Return the loader's part of the recipe."""
    return LoaderOptions(
        weak=WeakAugmentation(scale=recipe.data.scale, vflip=recipe.data.vflip, rot90=recipe.data.rot90),
        strong=StrongAugmentation(paired=recipe.data.paired_looks),
        strong_views=getattr(method, "strong_views", 1),
        label_values=recipe.data.label_values,
        rank=processes.rank,
        world_size=processes.count,
        accumulate=recipe.train.accumulate,
    )


def _plan(recipe: Recipe, length: TrainingLength) -> Plan:
    """Return the loop's part of the recipe."""
    t = recipe.train
    optim = OptimSettings(
        optimizer=t.optimizer,
        lr=t.lr,
        head_lr_multiplier=t.head_lr_multiplier,
        momentum=t.momentum,
        weight_decay=t.weight_decay,
        power=t.power,
        warmup_steps=t.warmup_steps,
        hold_frac=t.hold_frac,
        halve_frac=t.halve_frac,
    )
    return Plan(
        steps=length.steps,
        eval_every=length.eval_every,
        seed=recipe.seed,
        precision=t.precision,
        device=t.device,
        ema=t.ema,
        clip_norm=t.clip_norm,
        accumulate=t.accumulate,
        selected_on=t.select,
        tensorboard=t.tensorboard,
        sheet_every=t.sheet_every,
        optim=optim,
    )


def _build_validator(recipe: Recipe, division: Split, processes: ProcessGroup) -> Validator:
    """Return what the loop validates with; scores of test pairs, where asked for, stand beside the others."""
    values, select = recipe.data.label_values, recipe.train.select
    pairs = division.val if select == "last" else getattr(division, select)
    chosen = build_validator(pairs, processes=processes, label_values=values) if pairs else _score_nothing
    if not recipe.train.score_test or select == "test" or not division.test:
        return chosen
    watched = build_validator(division.test, processes=processes, label_values=values)

    def both(model: nn.Module, device: torch.device) -> dict[str, float]:
        """Return the scores that choose, and those that are only noted."""
        return chosen(model, device) | {
            f"{TEST_SCORE_PREFIX}{name}": value for name, value in watched(model, device).items()
        }

    return both


def _score_nothing(model: nn.Module, device: torch.device) -> dict[str, float]:
    """Return no score: without a labelled pair there is none."""
    return {}


def _score_test_pairs(
    recipe: Recipe, run: Path, *, model: nn.Module, pairs: tuple[PairFiles, ...], processes: ProcessGroup
) -> dict[str, float]:
    """Score the selected weights on the test pairs."""
    if not pairs:
        return {}
    load_weights_into(model, load_weights(run / "model.safetensors"), source=run)
    values = recipe.data.label_values
    return evaluate_network(
        model.eval(), pairs, device=processes.device, label_values=values, processes=processes
    ).compute_scores()


# ------------------------------------------------------------------------------------------------ evaluation
def evaluate_run(run: Path, dataset: ChangeDataset, *, subset: str) -> dict[str, float]:
    """Score a trained run on a data set: on the run's own val or test pairs, the set's published ones, or all labelled.

    Raises:
        DataError: the subset is not known for this data.
    """
    processes = join_process_group("auto")
    model = load_network(run, device=str(processes.device))
    pairs = _select_pairs(run, dataset, subset)
    if not pairs:
        raise DataError(f"{dataset.name}: no labelled pair to evaluate on in '{subset}'. Take --split all.")
    data = read_run(run)["recipe"].get("data")  # an imported run has none
    values = None if data is None else DataConfig.model_validate(data).label_values
    return evaluate_network(
        model, pairs, device=processes.device, label_values=values, processes=processes
    ).compute_scores()


def _select_pairs(run: Path, dataset: ChangeDataset, subset: str) -> tuple[PairFiles, ...]:
    """Return the pairs of a subset, in the run's own division where the data is what the run was trained with."""
    labelled = tuple(pair for pair in dataset.pairs if pair.label is not None)
    if subset == "all":
        return labelled
    if (run / "split.json").exists():
        own: tuple[PairFiles, ...] = getattr(read_split(run / "split.json"), subset)
        there = {(pair.before.resolve(), pair.window_px) for pair in labelled}
        if own and all((pair.before.resolve(), pair.window_px) in there for pair in own):
            return own
    return tuple(pair for pair in dataset.select_subset(subset) if pair.label is not None)
