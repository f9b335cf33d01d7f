"""What a run is validated with during training, and its test scores afterwards."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from semicdvl.checkpoint import load_weights, load_weights_into
from semicdvl.config import Recipe
from semicdvl.training.distributed import ProcessGroup
from semicdvl.training.evaluate import Validator, build_validator, evaluate_network
from semicdvl.training.run_record import TEST_SCORE_PREFIX
from semicdvl.types import PairFiles, Split


def build_run_validator(recipe: Recipe, split: Split, processes: ProcessGroup) -> Validator:
    """Return what the loop validates with; with `train.score_test` it also gives the scores of the test pairs."""
    values, select = recipe.data.label_values, recipe.train.select
    pairs = split.val if select == "last" else getattr(split, select)
    chosen = build_validator(pairs, processes=processes, label_values=values) if pairs else _score_nothing
    if not recipe.train.score_test or select == "test" or not split.test:
        return chosen
    watched = build_validator(split.test, processes=processes, label_values=values)

    def both(model: nn.Module, device: torch.device) -> dict[str, float]:
        """Return the scores that choose, and those that are only noted."""
        return chosen(model, device) | {
            f"{TEST_SCORE_PREFIX}{name}": value for name, value in watched(model, device).items()
        }

    return both


def _score_nothing(model: nn.Module, device: torch.device) -> dict[str, float]:
    """Return no score: without a labelled pair there is none."""
    return {}


def score_test_pairs(
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
