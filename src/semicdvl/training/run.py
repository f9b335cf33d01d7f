"""Recipe -> parts -> loop -> run directory."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from semicdvl.atomic_files import write_json
from semicdvl.checkpoint import build, build_network, load_into, load_network, load_weights, read_run
from semicdvl.config import DataConfig, Recipe, TrainConfig
from semicdvl.data import DATASETS
from semicdvl.data.augment import Strong, Weak
from semicdvl.data.loaders import check_split, train_batches
from semicdvl.data.pairs import DataSet, check_pairs
from semicdvl.data.samples import Options
from semicdvl.data.split_file import read_split
from semicdvl.data.splits import cross, pick, published_names, split
from semicdvl.errors import ConfigError, DataError, StoreError
from semicdvl.methods import METHODS
from semicdvl.pseudo_labels.store import PseudoStore
from semicdvl.training.compatibility import fits_together
from semicdvl.training.distributed import Processes, join
from semicdvl.training.evaluate import Validate, evaluate, validator
from semicdvl.training.loop import Plan, fit
from semicdvl.training.optim import OptimSettings
from semicdvl.training.run_record import WATCHED, TrainedRun, begin, describe_split, finish, finished
from semicdvl.training.vlm_baseline import guide_scores
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
    processes = join(settings.device)
    record = begin(recipe, run, processes)
    processes.wait()  # all have looked at the directory before the first one writes
    if record.get("status") == "finished":
        return finished(record, run)
    method = build_method(recipe)
    division = make_split(recipe.data, select=settings.select)
    labels = label_source(recipe, method, division)
    torch.manual_seed(recipe.seed)
    model = build_network(recipe.model.model_dump())
    fits_together(recipe, method, model)
    loading = _loading(recipe, method, processes)
    wanted = {"wants_labelled": bool(division.labelled), "wants_unlabelled": method.uses_unlabelled}
    check_split(division, **wanted, options=loading)
    check_pairs(division.val + division.test, label_values=loading.label_values, to_learn=False)  # scored much later
    length = length_of(settings, division, uses_unlabelled=method.uses_unlabelled, processes=processes.count)
    record |= {"heads": sorted(method.heads), "steps": length.steps, "steps_per_epoch": length.epoch}
    if processes.main:
        write_json(run / "run.json", record)  # first of all files: what has one is a run and can be gone on with
        record |= describe_split(recipe, division, run)
        write_json(run / "run.json", record)

    fitted = fit(
        model,
        method,
        plan=_plan(recipe, length),
        batches=lambda start: train_batches(
            division,
            crop_px=recipe.data.crop_px,
            labelled_batch=settings.labelled_batch if division.labelled else 0,
            unlabelled_batch=settings.unlabelled_batch if method.uses_unlabelled else 0,
            vlm=labels,
            steps=length.steps,
            start_step=start,
            seed=recipe.seed,
            workers=settings.workers,
            options=replace(loading, check=False),  # done above, before anything was written
        ),
        validate=_validate(recipe, division, processes),
        run=run,
        quiet=quiet,
    )
    processes.wait()  # the first one has written the weights
    scores = _test_scores(recipe, run, model=model, pairs=division.test, processes=processes)
    if labels is not None and processes.main:
        record["guide"] = guide_scores(labels, division.val, label_values=loading.label_values, quiet=quiet)
    return finish(record, run, fitted=fitted, test=scores, seconds=time.monotonic() - began, main=processes.main)


# ------------------------------------------------------------------------------------------------ recipe -> parts
def build_method(recipe: Recipe) -> Method:
    """Build the method of a recipe."""
    method: Method = build("method", recipe.method.name, METHODS, recipe.method.options)
    return method


def read_dataset(config: DataConfig, root: Path) -> DataSet:
    """Read the data set at `root` with the recipe's reader."""
    dataset: DataSet = build("data set", config.dataset, DATASETS, {"root": root, **config.options})
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
        division = _divide(config, config.root)
        if config.unlabelled is not None:
            # published lists are of one data set; of the other one all training pairs are taken
            other = config.model_copy(update={"labelled": 1.0})
            division = cross(division, _divide(other, config.unlabelled))
    needed = ["labelled"] if config.labelled != 0 else []
    for side in (*needed, *([select] if select != "last" else [])):
        if not getattr(division, side):
            field = "labelled" if side == "labelled" else f"{side}_frac"
            raise DataError(f"{config.root}: the split has no {side} pair. Raise data.{field}, or take other lists.")
    return division


def _divide(config: DataConfig, root: Path) -> Split:
    """Divide one data set."""
    dataset = read_dataset(config, root)
    if isinstance(config.labelled, Path):
        lists = config.labelled
        return pick(dataset, published_names(lists.parent, part=lists.name))
    return split(dataset, labelled=config.labelled, seed=config.split_seed, val=config.val_frac, test=config.test_frac)


def label_source(recipe: Recipe, method: Method, division: Split) -> PseudoStore | None:
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
    store = PseudoStore.open(recipe.pseudo.store)
    pairs = division.labelled + division.unlabelled
    missing = [pair.name for pair in pairs if not store.has(pair)]
    if missing:
        raise StoreError(
            f"{recipe.pseudo.store}: holds no labels for {len(missing)} of {len(pairs)} training pairs, such as "
            f"'{missing[0]}'. Run `semicdvl pseudo {recipe.data.root} -o {recipe.pseudo.store}` (with the same reader)."
        )
    return store


@dataclass(frozen=True)
class Length:
    """How long to train: optimiser steps in all, in an epoch, and between validations."""

    steps: int
    epoch: int
    eval_every: int


def length_of(settings: TrainConfig, division: Split, *, uses_unlabelled: bool, processes: int = 1) -> Length:
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
    return Length(steps, epoch, settings.eval_every or (EVAL_EVERY if settings.epochs is None else epoch))


def _loading(recipe: Recipe, method: Method, processes: Processes) -> Options:
    """Return the loader's part of the recipe."""
    return Options(
        weak=Weak(scale=recipe.data.scale, vflip=recipe.data.vflip, rot90=recipe.data.rot90),
        strong=Strong(paired=recipe.data.paired_looks),
        strong_views=getattr(method, "strong_views", 1),
        label_values=recipe.data.label_values,
        rank=processes.rank,
        ranks=processes.count,
        accumulate=recipe.train.accumulate,
    )


def _plan(recipe: Recipe, length: Length) -> Plan:
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


def _validate(recipe: Recipe, division: Split, processes: Processes) -> Validate:
    """Return what the loop validates with; scores of test pairs, where asked for, stand beside the others."""
    values, select = recipe.data.label_values, recipe.train.select
    pairs = division.val if select == "last" else getattr(division, select)
    chosen = validator(pairs, processes=processes, label_values=values) if pairs else _not_scored
    if not recipe.train.score_test or select == "test" or not division.test:
        return chosen
    watched = validator(division.test, processes=processes, label_values=values)

    def both(model: nn.Module, device: torch.device) -> dict[str, float]:
        """Return the scores that choose, and those that are only noted."""
        return chosen(model, device) | {f"{WATCHED}{name}": value for name, value in watched(model, device).items()}

    return both


def _not_scored(model: nn.Module, device: torch.device) -> dict[str, float]:
    """Return no score: without a labelled pair there is none."""
    return {}


def _test_scores(
    recipe: Recipe, run: Path, *, model: nn.Module, pairs: tuple[PairFiles, ...], processes: Processes
) -> dict[str, float]:
    """Score the selected weights on the test pairs."""
    if not pairs:
        return {}
    load_into(model, load_weights(run / "model.safetensors"), source=run)
    values = recipe.data.label_values
    return evaluate(model.eval(), pairs, device=processes.device, label_values=values, processes=processes).scores()


# ------------------------------------------------------------------------------------------------ evaluation
def evaluate_run(run: Path, dataset: DataSet, *, subset: str) -> dict[str, float]:
    """Score a trained run on a data set: on the run's own val or test pairs, the set's published ones, or all labelled.

    Raises:
        DataError: the subset is not known for this data.
    """
    processes = join("auto")
    model = load_network(run, device=str(processes.device))
    pairs = _chosen(run, dataset, subset)
    if not pairs:
        raise DataError(f"{dataset.name}: no labelled pair to evaluate on in '{subset}'. Take --split all.")
    data = read_run(run)["recipe"].get("data")  # an imported run has none
    values = None if data is None else DataConfig.model_validate(data).label_values
    return evaluate(model, pairs, device=processes.device, label_values=values, processes=processes).scores()


def _chosen(run: Path, dataset: DataSet, subset: str) -> tuple[PairFiles, ...]:
    """Return the pairs of a subset, in the run's own division where the data is what the run was trained with."""
    labelled = tuple(pair for pair in dataset.pairs if pair.label is not None)
    if subset == "all":
        return labelled
    if (run / "split.json").exists():
        own: tuple[PairFiles, ...] = getattr(read_split(run / "split.json"), subset)
        there = {(pair.before.resolve(), pair.window_px) for pair in labelled}
        if own and all((pair.before.resolve(), pair.window_px) in there for pair in own):
            return own
    return tuple(pair for pair in dataset.subset(subset) if pair.label is not None)
