"""Fit a network with few weights at once: no steps over crops, but the minimum over all training pairs.

The loss terms are those of the method. Since such a network decides pixel by pixel, a sample of a pair's pixels does
for the pair: the method is shown images that are one pixel high. With a penalty on the squared weights the sum is
convex, so neither a learning rate nor an order of the pairs has a part in the result, and it takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import nn

from semicdvl.config import Recipe
from semicdvl.data.images.cache import ImageCache
from semicdvl.data.pairs import read_pair
from semicdvl.errors import ConfigError, DataError, DivergedError
from semicdvl.pseudo_labels.quality import select_evenly
from semicdvl.training.checkpoint import FitResult, TrainingCheckpoint
from semicdvl.training.distributed import join_process_group
from semicdvl.training.few_labels.pixel_fit import PixelFit, PixelSample, PixelwiseNetwork
from semicdvl.training.log import TrainingLog
from semicdvl.types import IGNORE, Method, PairFiles, Split, VLMLabelSource

OPTIMIZER = "lbfgs"
PIXELS = 4000
"""Pixels that are drawn from each pair."""


@dataclass(frozen=True)
class FitData:
    """What a network is fitted to.

    Attributes:
        split: the pairs.
        store: the VLM's labels of those without a true one; None: the method needs none.
        cache: reads the files, with the meaning of the labels' values.
    """

    split: Split
    store: VLMLabelSource | None
    cache: ImageCache


def check_fit(recipe: Recipe, method: Method, model: nn.Module) -> None:
    """Refuse to fit at once what cannot be.

    Raises:
        ConfigError: the network does not decide pixel by pixel, it is to read other bands than RGB, or the method
            compares views of a pair, or learns from pairs without a label by something else than the VLM.
    """
    if not isinstance(model, PixelwiseNetwork):
        raise ConfigError(
            f"train.optimizer = '{OPTIMIZER}' fits a network that decides pixel by pixel, and model "
            f"'{recipe.model.name}' does not. Take adamw, or model 'vlm_prior'."
        )
    if recipe.data.bands is not None:
        raise ConfigError(f"train.optimizer = '{OPTIMIZER}' fits on red, green and blue alone. Leave data.bands out.")
    if method.compares_views:
        raise ConfigError(
            f"train.optimizer = '{OPTIMIZER}' has no strong views, which method '{recipe.method.name}' compares with. "
            "Take 'supervised', or 'semicd_vl' with method.strong_view = false."
        )
    if method.uses_unlabelled and not method.uses_vlm:
        raise ConfigError(
            f"train.optimizer = '{OPTIMIZER}' learns from pairs without a label by the VLM's alone, which method "
            f"'{recipe.method.name}' does not use here. Take 'supervised', or set method.vlm_guidance = true."
        )


def fit_at_once(
    model: nn.Module,
    method: Method,
    recipe: Recipe,
    data: FitData,
    *,
    validate: Callable[[nn.Module, torch.device], Mapping[str, float]],
    run: Path,
    quiet: bool = False,
) -> FitResult:
    """Fit `model` and leave its weights in RUN/model.safetensors; `train.steps` bounds the iterations.

    Of the pairs without labels, `train.unlabelled_batch` are taken, evenly over their list.

    Raises:
        DataError: no training pair has a pixel with a label.
        DivergedError: the loss is not a number.
    """
    assert isinstance(model, PixelwiseNetwork), "checked by `check_fit`"
    config, rng = recipe.train, np.random.default_rng(recipe.seed)
    is_main = join_process_group(config.device).is_main
    model.train()
    labelled = _sample_pairs(model, data.split.labelled, data.cache, None, rng)
    others = select_evenly(data.split.unlabelled, config.unlabelled_batch) if method.uses_unlabelled else ()
    unlabelled = _sample_pairs(model, others, data.cache, data.store, rng)
    if labelled is None and unlabelled is None:
        raise DataError(f"{recipe.data.root}: no training pair has a pixel with a label. Give some that have.")
    checkpoint = TrainingCheckpoint(run, model, [], is_writer=is_main)
    fitting = PixelFit(model, method, config.steps or 100, labelled, unlabelled)
    decay = fitting.choose_decay(config.weight_decay) if config.cross_validate else config.weight_decay
    if decay is None:
        _say_nothing_was_learnt(run, quiet=quiet or not is_main)
    with TrainingLog(run, config, total_steps=1, start_step=0, is_main=is_main, quiet=quiet) as log:
        logged = fitting.finish(decay)
        if not all(bool(weight.isfinite().all()) for weight in fitting.weights):
            raise DivergedError(f"{run}: the loss is not a number. Check the images and labels of the training pairs.")
        chosen = {"weight_decay": decay} if config.cross_validate and decay is not None else {}
        log.log_step(1, terms=logged, diagnostics=chosen, pairs=len(data.split.labelled) + len(others))
        scores = dict(validate(model.eval(), torch.device("cpu")))
        best = checkpoint.keep_if_best(1, scores, newest=True)
        log.log_validation(1, scores=scores, best=best)
    return checkpoint.to_result()


def _say_nothing_was_learnt(run: Path, *, quiet: bool) -> None:
    """Say that the labels correct nothing."""
    Console(stderr=True, quiet=quiet).print(
        f"{run}: no correction that some of the labelled pairs ask for made the map of the others better, so the map "
        "stays that of `semicdvl detect` without labels. More labelled pairs may change this.",
        markup=False,
        soft_wrap=True,
    )


def _sample_pairs(
    network: PixelwiseNetwork,
    pairs: Sequence[PairFiles],
    cache: ImageCache,
    store: VLMLabelSource | None,
    rng: np.random.Generator,
) -> PixelSample | None:
    """Draw pixels of each pair with their true labels, or those of the store where one is given; None without any."""
    inputs, priors, labels = [], [], []
    for pair in pairs:
        arrays = read_pair(pair, cache=cache, with_label=store is None)
        label_HW = arrays.label_HW if store is None else store.read_labels(pair).change_HW
        known_N = np.flatnonzero(np.full(1, IGNORE) != label_HW) if label_HW is not None else np.zeros(0, np.int64)
        if not len(known_N):
            continue
        assert label_HW is not None
        pixels_P = rng.choice(known_N, PIXELS, replace=len(known_N) < PIXELS)
        inputs_DP, prior_P = network.describe_pixels(arrays.t1_HWC, arrays.t2_HWC, pixels_P, labelled=store is None)
        inputs.append(inputs_DP[:, None])
        priors.append(prior_P[None, None])
        labels.append(torch.from_numpy(label_HW.ravel()[pixels_P].astype(np.int64))[None])
    return PixelSample(torch.stack(inputs), torch.stack(priors), torch.stack(labels)) if inputs else None
