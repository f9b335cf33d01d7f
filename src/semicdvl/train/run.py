"""Recipe -> parts -> loop -> run directory."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from semicdvl import __version__
from semicdvl.checkpoint import FORMAT, build, build_network, load_into, load_network, load_weights, read_run
from semicdvl.config import DataConfig, Recipe, parse_recipe
from semicdvl.data import DATASETS
from semicdvl.data.augment import Weak
from semicdvl.data.loaders import train_batches
from semicdvl.data.pairs import DataSet
from semicdvl.data.samples import Options
from semicdvl.data.split_file import read_split, write_split
from semicdvl.data.splits import cross, leaks, pick, published_names, split
from semicdvl.errors import CheckpointError, ConfigError, DataError, StoreError
from semicdvl.files import key_of, write_json
from semicdvl.methods import METHODS
from semicdvl.pseudo.store import PseudoStore
from semicdvl.train.evaluate import evaluate, validator
from semicdvl.train.optim import OptimSettings
from semicdvl.train.trainer import Fitted, Plan, fit
from semicdvl.types import Method, PairFiles, Split


@dataclass(frozen=True)
class TrainedRun:
    """What a training ended with: scores on validation (selected step) and on test, which chose nothing."""

    run: Path
    fitted: Fitted
    val: dict[str, float]
    test: dict[str, float]
    seconds: float


def train(recipe: Recipe, run: Path, *, quiet: bool = False) -> TrainedRun:
    """Train what a recipe describes; a run that was interrupted goes on, one that is finished is only read.

    Raises:
        ConfigError, DataError, StoreError, InputError: the recipe, or what it names, cannot be used.
        CheckpointError: `run` holds a run of another recipe.
        DivergedError: the loss is not a number.
    """
    began = time.monotonic()
    record = _record(recipe, run)
    if record.get("status") == "finished":
        return _finished(record, run)
    method = build_method(recipe)
    division = make_split(recipe.data)
    labels = label_source(recipe, method, division)
    torch.manual_seed(recipe.seed)
    model = build_network(recipe.model.model_dump())
    fits_together(recipe, method, model)
    record |= _describe_split(recipe, division, run)
    write_json(run / "run.json", record)

    settings = recipe.train
    selection = division.val if settings.select == "val" else division.test
    fitted = fit(
        model,
        method,
        plan=_plan(recipe),
        batches=lambda start: train_batches(
            division,
            crop_px=recipe.data.crop_px,
            labelled_batch=settings.labelled_batch,
            unlabelled_batch=settings.unlabelled_batch if method.uses_unlabelled else 0,
            vlm=labels,
            steps=settings.steps,
            start_step=start,
            seed=recipe.seed,
            workers=settings.workers,
            options=Options(
                weak=Weak(vflip=recipe.data.vflip, rot90=recipe.data.rot90), label_values=recipe.data.label_values
            ),
        ),
        validate=validator(selection, label_values=recipe.data.label_values),
        run=run,
        quiet=quiet,
    )
    scores = _test_scores(recipe, run, model=model, pairs=division.test)
    return _finish(record, run, fitted=fitted, test=scores, seconds=time.monotonic() - began)


# ------------------------------------------------------------------------------------------------ recipe -> parts
def build_method(recipe: Recipe) -> Method:
    """Build the method of a recipe."""
    method: Method = build("method", recipe.method.name, METHODS, recipe.method.options)
    return method


def read_dataset(config: DataConfig, root: Path) -> DataSet:
    """Read the data set at `root` with the recipe's reader."""
    dataset: DataSet = build("data set", config.dataset, DATASETS, {"root": root, **config.options})
    return dataset


def make_split(config: DataConfig) -> Split:
    """Divide the data as the recipe says: a written split, published lists, or by fraction and seed.

    Raises:
        DataError: no labelled or no validation pair is left.
    """
    if config.split is not None:
        division = read_split(config.split)
    else:
        division = _divide(config, config.root)
        if config.unlabelled is not None:
            division = cross(division, _divide(config, config.unlabelled))
    for side in ("labelled", "val"):
        if not getattr(division, side):
            raise DataError(f"{config.root}: the split has no {side} pair. Raise data.labelled or data.val_frac.")
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


def fits_together(recipe: Recipe, method: Method, model: nn.Module) -> None:
    """Refuse a model without the heads that the method needs."""
    has: frozenset[str] = getattr(model, "heads", frozenset({"change"}))
    if missing := method.heads - has:
        raise ConfigError(
            f"method '{recipe.method.name}' needs the heads {', '.join(sorted(missing))}, which model "
            f"'{recipe.model.name}' has not. Take model 'siam_light', or another method."
        )


def _plan(recipe: Recipe) -> Plan:
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
    )
    return Plan(
        steps=t.steps,
        eval_every=t.eval_every,
        seed=recipe.seed,
        precision=t.precision,
        device=t.device,
        ema=t.ema,
        clip_norm=t.clip_norm,
        optim=optim,
    )


# ------------------------------------------------------------------------------------------------ run directory
def _record(recipe: Recipe, run: Path) -> dict[str, Any]:
    """Return the run's record: the kept one if it is of this recipe, or a new one.

    Raises:
        CheckpointError: the directory holds something else.
    """
    plain = recipe.model_dump(mode="json")
    if (run / "run.json").exists():
        record = read_run(run)
        if key_of(record["recipe"]) != key_of(plain):
            raise CheckpointError(f"{run}: holds a run of another recipe. Give another folder with -o, or remove it.")
        return record
    if run.exists() and (not run.is_dir() or any(run.iterdir())):
        raise CheckpointError(f"{run}: exists and is no run directory. Give another folder with -o.")
    return {
        "format": FORMAT,
        "status": "started",
        "recipe": plain,
        "versions": {"semicdvl": __version__, "torch": torch.__version__, "python": sys.version.split()[0]},
    }


def _describe_split(recipe: Recipe, division: Split, run: Path) -> dict[str, Any]:
    """Write RUN/split.json and return what the record says of it."""
    notes: dict[str, str | int | float] = {"labelled": str(recipe.data.labelled), "seed": recipe.data.split_seed}
    digest = write_split(run / "split.json", division, root=recipe.data.root, notes=notes)
    sizes = {side: len(getattr(division, side)) for side in ("labelled", "unlabelled", "val", "test")}
    return {"split": {"sha256": digest, **sizes, "leaking_pairs": leaks(division)}, "selected_on": recipe.train.select}


def _test_scores(recipe: Recipe, run: Path, *, model: nn.Module, pairs: tuple[PairFiles, ...]) -> dict[str, float]:
    """Score the selected weights on the test pairs."""
    if not pairs:
        return {}
    load_into(model, load_weights(run / "model.safetensors"), source=run)
    device = next(model.parameters()).device
    return evaluate(model.eval(), pairs, device=device, label_values=recipe.data.label_values).scores()


def _finish(record: dict[str, Any], run: Path, *, fitted: Fitted, test: dict[str, float], seconds: float) -> TrainedRun:
    """Complete the record."""
    record |= {
        "status": "finished",
        "best_step": fitted.best_step,
        "val": fitted.best,
        "val_last": fitted.last,
        "test": test,
        "seconds": seconds,
    }
    write_json(run / "run.json", record)
    return _finished(record, run)


def _finished(record: dict[str, Any], run: Path) -> TrainedRun:
    """Return the result that a record tells of."""
    fitted = Fitted(record["best_step"], record["val"], record["val_last"])
    return TrainedRun(run, fitted, record["val"], record["test"], record["seconds"])


def evaluate_run(run: Path, dataset: DataSet, *, subset: str) -> dict[str, float]:
    """Score a trained run on a data set: on the run's own val or test pairs, the set's published ones, or all labelled.

    Raises:
        DataError: the subset is not known for this data.
    """
    model = load_network(run)
    pairs = _chosen(run, dataset, subset)
    if not pairs:
        raise DataError(f"{dataset.name}: no labelled pair to evaluate on in '{subset}'. Take --split all.")
    values = parse_recipe(read_run(run)["recipe"], source=str(run)).data.label_values
    return evaluate(model, pairs, device=torch.device("cpu"), label_values=values).scores()


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
