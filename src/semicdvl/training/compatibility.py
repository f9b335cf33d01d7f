"""Checks that method, network and training settings are compatible, before anything is trained."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from semicdvl.checkpoint import build_untrained_network
from semicdvl.config import Recipe
from semicdvl.errors import ConfigError
from semicdvl.models.common.heads import models_with_heads, read_heads
from semicdvl.types import Method

HEAD_REMEDIES = {
    "perturbed": "or leave the term out: method.perturbed_weight = 0",
    "vlm_change": "or leave the term out: method.dual_head = false",
    "segmentation": "or leave the term out: method.decoupled = false, without [classes] in the recipe",
    "features": "or leave the term out: method.lambda_c = 0",
}
"""Head -> how to do without it, for the methods that can."""


def check_compatibility(recipe: Recipe, method: Method, model: nn.Module) -> None:
    """Refuse a network, a split or a teacher that the method cannot use.

    Raises:
        ConfigError: heads, labels or a moving average are missing; it names what to take instead.
    """
    has = read_heads(model)
    if missing := method.heads - has:
        name, able = recipe.model.name, models_with_heads(method.heads)
        named = [f"'{one}'" + (" as it is by default" if one == name else "") for one in able]
        found = f"Take model {_join_with_or(named)}" if named else "No model of this package has all of them"
        remedies = [HEAD_REMEDIES[head] for head in sorted(missing) if head in HEAD_REMEDIES]
        raise ConfigError(
            f"method '{recipe.method.name}' needs the heads {', '.join(sorted(missing))}, which model "
            f"'{name}' lacks. {', '.join([found, *remedies])}; or take another method."
        )
    if recipe.data.labelled == 0 and not method.learns_without_labels:
        remedy = "Set method.dual_head = false, so that the VLM teaches the head that is used"
        raise ConfigError(
            f"method '{recipe.method.name}' needs labelled pairs, and data.labelled = 0 leaves none. "
            + (remedy if recipe.method.name == "semicd_vl" else "Take method 'semicd_vl' with dual_head = false")
            + ", or keep some labels."
        )
    if method.needs_average and not recipe.train.ema:
        raise ConfigError(
            f"method '{recipe.method.name}' learns from a moving average of the network, and train.ema = 0 keeps none. "
            "Set train.ema = 0.99, or 0.999 for tens of thousands of steps."
        )


def build_meta_network(part: dict[str, Any]) -> nn.Module:
    """Return the network of a recipe's model section with shapes alone: no values, no memory."""
    with torch.device("meta"):
        return build_untrained_network(part)


def _join_with_or(names: list[str]) -> str:
    """Return `a, b or c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
