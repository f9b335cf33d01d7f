"""Outputs of a network that are no numbers: of them any map could be made, and an empty one looks like an answer."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from semicdvl.errors import CheckpointError


def check_finite_scores(scores: NDArray[Any], network: str) -> None:
    """Refuse scores or logits that are not all finite.

    Args:
        scores: what the network gave, of any shape.
        network: what the error calls it, such as "runs/levir: its network".

    Raises:
        CheckpointError: one is NaN or infinite.
    """
    if not np.isfinite(scores).all():
        raise CheckpointError(
            f"{network} gives scores that are not numbers, so its weights are damaged or too large. "
            "Train again, or take the file from a backup."
        )
