"""The choice of a penalty by pairs that were left out."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from semicdvl.training.few_labels.cross_validation import FOLDS, choose_decay, divide_pairs


@pytest.mark.parametrize("count", [1, 5, FOLDS, 19])
def test_every_pair_is_left_out_once(count: int) -> None:
    parts = divide_pairs(count)
    assert len(parts) == min(count, FOLDS)
    assert sorted(np.concatenate(parts).tolist()) == list(range(count))


@pytest.mark.parametrize(
    ("found", "chosen"), [({0.1: 6, 0.4: 5}, 0.1), ({0.1: 6, 0.4: 7}, 0.4), ({0.1: 4, 0.4: 3}, None)]
)
def test_the_highest_iou_on_pairs_left_out_counts(found: dict[float, int], chosen: float | None) -> None:
    """Each of three pairs has 10 changed pixels, of which 4 are found without a correction."""
    fitted: list[tuple[float, list[int]]] = []

    def count_on(rows: NDArray[np.int64]) -> NDArray[np.int64]:
        right = found[fitted[-1][0]] * len(rows)
        return np.array([right, 0, 10 * len(rows) - right])

    decay = choose_decay(
        (0.1, 0.4),
        pairs=3,
        without=np.array([12, 0, 18]),
        fit=lambda penalty, left_out: fitted.append((penalty, left_out.tolist())),
        count_on=count_on,
    )
    assert decay == chosen
    assert fitted == [(penalty, [row]) for penalty in (0.1, 0.4) for row in range(3)]


def test_a_single_pair_says_nothing_about_others() -> None:
    def refuse(*given: object) -> NDArray[np.int64]:
        raise AssertionError("nothing is fitted")

    assert choose_decay((0.1,), pairs=1, without=np.array([0, 0, 9]), fit=refuse, count_on=refuse) is None
