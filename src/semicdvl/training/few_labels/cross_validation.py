"""Choose how firmly the weights of a network that is fitted at once are held, by leaving labelled pairs out in turn.

A few labels may say nothing about pairs that were not labelled. So a correction has to show on labelled pairs that it
has not seen that it helps: of the penalties, the one is taken whose corrections give the highest IoU of change over
all labelled pairs, each found without it. Where none gives more than no correction, there is none. Ours alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

FOLDS = 8
"""Parts that the labelled pairs are divided into; fewer pairs are left out one by one."""
DECAY_FACTORS = (1.0, 4.0)
"""Penalties that are tried, as multiples of `train.weight_decay`."""

FitWithout = Callable[[float, NDArray[np.int64]], None]
"""Fit with a penalty to all labelled pairs but some."""
CountOn = Callable[[NDArray[np.int64]], NDArray[np.int64]]
"""Return the pixels of some labelled pairs that are changed and found, found alone, and missed."""


def divide_pairs(count: int) -> list[NDArray[np.int64]]:
    """Return the labelled pairs, by their place, that are left out at a time."""
    return [np.arange(count)[first::FOLDS] for first in range(min(count, FOLDS))]


def choose_decay(
    decays: Sequence[float], *, pairs: int, without: NDArray[np.int64], fit: FitWithout, count_on: CountOn
) -> float | None:
    """Return the penalty with the highest IoU on pairs that were left out, or None where no correction is as good.

    Args:
        decays: the penalties.
        pairs: number of labelled pairs.
        without: counts of all labelled pairs without a correction, as `CountOn` returns them.
        fit: fits without some pairs.
        count_on: counts with what was fitted last.
    """
    if pairs < 2:
        return None
    best, chosen = _compute_iou(without), None
    for decay in decays:
        counts = np.zeros(3, np.int64)
        for left_out in divide_pairs(pairs):
            fit(decay, left_out)
            counts += count_on(left_out)
        if (score := _compute_iou(counts)) > best:
            best, chosen = score, decay
    return chosen


def _compute_iou(counts: NDArray[np.int64]) -> float:
    return float(counts[0] / max(counts.sum(), 1))
