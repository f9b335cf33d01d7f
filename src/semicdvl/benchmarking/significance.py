"""Whether one method beats another by more than chance, seed by seed: paired t test, and exact sign-permutation test.

A seed draws split, start and order for all methods alike, so methods are compared within a seed. With few seeds neither
test can say much: of three seeds the sign-permutation test never gives less than p = 0.25, of five 0.0625.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from statistics import mean, stdev


@dataclass(frozen=True)
class PairedTests:
    """Two-sided tests of the mean difference against 0.

    Attributes:
        mean: of the differences.
        deviation: their sample standard deviation; None of one.
        count: of seeds.
        low, high: 95 % confidence interval of the mean, by Student's t; None of one difference.
        p_t: by the paired t test; None of one difference, or where all are alike.
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
        signs = _test_sign_permutations(differences)
        if count == 1:
            return cls(middle, None, 1, None, None, None, signs)
        from scipy.stats import t as student

        deviation = stdev(differences)
        error = deviation / math.sqrt(count)
        reach = float(student.ppf(0.975, count - 1)) * error
        p_t = float(2 * student.sf(abs(middle) / error, count - 1)) if error > 0 else None
        return cls(middle, deviation, count, middle - reach, middle + reach, p_t, signs)

    @property
    def min_p_signs(self) -> float:
        """The smallest p that the sign-permutation test can give with so many seeds."""
        return min(1.0, 2.0 ** (1 - self.count))


def _test_sign_permutations(differences: Sequence[float]) -> float:
    """Return the share of all choices of signs whose mean is at least as far from 0; drawn ones beyond 16 seeds."""
    told = abs(sum(differences)) * (1 - 1e-9)
    if len(differences) > 16:
        import numpy as np

        signs = np.random.default_rng(0).choice((-1.0, 1.0), size=(100_000, len(differences)))
        return float((np.abs(signs @ np.asarray(differences)) >= told).mean())
    sums = [
        abs(sum(map(math.prod, zip(signs, differences, strict=True))))
        for signs in product((-1, 1), repeat=len(differences))
    ]
    return sum(one >= told for one in sums) / len(sums)
