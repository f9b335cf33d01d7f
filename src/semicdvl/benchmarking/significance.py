"""Test whether one method beats another by more than chance, seed by seed.

A seed draws split, start and order for all methods alike, so methods are compared within a seed: by the paired t test
and by the exact sign-permutation test. With few seeds neither test has much power: with three seeds the
sign-permutation test never gives less than p = 0.25, with five never less than 0.0625.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semicdvl.raster.io.georeference_warnings import ignore_warnings

CONFIDENCE = 0.95
MAX_PERMUTATIONS = 100_000
"""Up to this many choices of signs (16 seeds) all are counted; beyond, this many are drawn."""


@dataclass(frozen=True)
class PairedTests:
    """Two-sided tests of the mean difference against 0.

    Attributes:
        mean: of the differences.
        deviation: their sample standard deviation; None for a single one.
        count: of seeds.
        low, high: 95 % confidence interval of the mean, by Student's t; None for a single difference.
        p_t: by the paired t test; None for a single difference, or where all are equal.
        p_signs: by the exact sign-permutation test.
    """

    mean: float
    deviation: float | None
    count: int
    low: float | None
    high: float | None
    p_t: float | None
    p_signs: float

    @classmethod
    def from_differences(cls, differences: Sequence[float]) -> PairedTests | None:
        """Return the tests; None without a difference."""
        if not differences:
            return None
        middle, count = mean(differences), len(differences)
        if count == 1:
            return cls(middle, None, 1, None, None, None, 1.0)
        p_signs, deviation = _test_sign_permutations(differences), stdev(differences)
        if deviation == 0:
            return cls(middle, 0.0, count, middle, middle, None, p_signs)
        from scipy.stats import ttest_rel

        with ignore_warnings(RuntimeWarning):  # differences that are equal but for rounding: the p is that of no spread
            test = ttest_rel(differences, np.zeros(count))
            interval = test.confidence_interval(CONFIDENCE)
        return cls(middle, deviation, count, float(interval.low), float(interval.high), float(test.pvalue), p_signs)

    @property
    def min_p_signs(self) -> float:
        """The smallest p that the sign-permutation test can give with so many seeds."""
        return min(1.0, 2.0 ** (1 - self.count))


def _test_sign_permutations(differences: Sequence[float]) -> float:
    """Return the share of all choices of signs whose mean is at least as far from 0 as the observed one."""
    from scipy.stats import permutation_test

    def distance_from_zero(values: NDArray[np.float64], axis: int) -> Any:
        return np.abs(values.sum(axis=axis))

    result = permutation_test(
        (np.asarray(differences, float),),
        distance_from_zero,
        permutation_type="samples",  # of a single sample: the signs are flipped
        alternative="greater",
        n_resamples=MAX_PERMUTATIONS,
        batch=4096,
        vectorized=True,
        rng=np.random.default_rng(0),
    )
    return float(result.pvalue)
