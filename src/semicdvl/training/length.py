"""How long a training is: optimiser steps in all, in an epoch, and between validations."""

from __future__ import annotations

from dataclasses import dataclass

from semicdvl.config import TrainConfig
from semicdvl.types import Split

EVAL_EVERY = 200
"""Steps between validations where the recipe names neither these nor epochs."""


@dataclass(frozen=True)
class TrainingLength:
    """Optimiser steps in all, in an epoch, and between validations (after each of which a checkpoint is saved)."""

    steps: int
    epoch: int
    eval_every: int


def compute_training_length(
    config: TrainConfig, split: Split, *, uses_unlabelled: bool, processes: int = 1
) -> TrainingLength:
    """Return how long to train.

    An epoch is one pass over the unlabelled pairs (over the labelled ones, for a method that learns from labels alone),
    its last, incomplete step left out: LEVIR-CD at 5 % has 6764 unlabelled pairs, at 8 a step 845 steps an epoch, as in
    the public code.

    Args:
        config: the recipe's section.
        split: gives the number of pairs.
        uses_unlabelled: whether the method learns from unlabelled pairs.
        processes: that share a step's pairs.
    """
    pairs = split.unlabelled if uses_unlabelled else split.labelled
    batch = config.unlabelled_batch if uses_unlabelled else config.labelled_batch
    epoch = max(1, len(pairs) // (batch * config.accumulate * processes))
    steps = config.steps if config.steps is not None else epoch * (config.epochs or 1)
    return TrainingLength(steps, epoch, config.eval_every or (EVAL_EVERY if config.epochs is None else epoch))
