"""Estimate the accuracy of a whole map, and the true area of each class, from a stratified sample of checked places.

The number of pixels that a map shows as changed is biased by its errors. From a stratified random sample (the strata
are the classes of the map) the error matrix is estimated in shares of *area*, and from it accuracies and the true area
of each class, with confidence intervals.

Source: Olofsson et al. 2014, "Good practices for estimating area and assessing accuracy of land change", Remote Sensing
of Environment 148, equations 1-11. Here as there: rows are the map, columns the truth, variances use n - 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z95 = 1.96
"""Half width of a 95 % confidence interval in standard errors."""


@dataclass(frozen=True)
class Estimate:
    """A value and the half width of its 95 % confidence interval; NaN where the sample does not define it."""

    value: float
    half_width: float


@dataclass(frozen=True)
class AreaAccuracy:
    """Estimates for a whole map from a sample of it; index = class.

    Attributes:
        sample_KK: number of checked places: row = class on the map, column = class in the truth.
        mapped_areas: area of each class on the map, in the unit that was given (pixels, m2, ...).
        shares_KK: estimated error matrix in shares of the whole area.
        overall_accuracy: share of the area whose class on the map is right.
        users_accuracies: share of the area mapped as a class that is of this class (precision).
        producers_accuracies: share of the area of a class that is mapped as this class (recall).
        estimated_areas: true area of each class, in the unit of `mapped_areas`.
    """

    sample_KK: NDArray[np.int64]
    mapped_areas: tuple[float, ...]
    shares_KK: NDArray[np.float64]
    overall_accuracy: Estimate
    users_accuracies: tuple[Estimate, ...]
    producers_accuracies: tuple[Estimate, ...]
    estimated_areas: tuple[Estimate, ...]


def estimate_area_accuracy(
    sample_KK: Sequence[Sequence[int]] | NDArray[np.integer], *, mapped: Sequence[float]
) -> AreaAccuracy:
    """Estimate accuracies and areas from a stratified random sample.

    Args:
        sample_KK: counts of sampled places, row = class on the map, column = class in the truth.
        mapped: area of each class on the map (pixels, m2, ...).

    Raises:
        ValueError: the matrix is not square, does not fit `mapped`, or a number is negative.
    """
    counts_KK, areas_K = np.asarray(sample_KK, np.int64), np.asarray(mapped, np.float64)
    if counts_KK.shape != (len(areas_K), len(areas_K)) or counts_KK.min() < 0 or areas_K.min() < 0:
        raise ValueError(
            f"a sample of shape {counts_KK.shape} and {len(areas_K)} areas; K x K counts and K areas from 0 are needed"
        )
    total, drawn_K = areas_K.sum(), counts_KK.sum(axis=1)
    weights_K = areas_K / total if total else np.full(len(areas_K), np.nan)
    empty_K = areas_K == 0  # a class that is not on the map needs no sample: its row is 0, not unknown
    with np.errstate(divide="ignore", invalid="ignore"):
        within_KK = np.where(empty_K[:, None], 0.0, counts_KK / drawn_K[:, None])
        # Variance of the share of column j within row i, as far as row i weighs.
        variance_KK = np.where(empty_K[:, None], 0.0, within_KK * (1 - within_KK) / (drawn_K - 1)[:, None])
        shares_KK = weights_K[:, None] * within_KK
        weighted_KK = weights_K[:, None] ** 2 * variance_KK
        true_K = shares_KK.sum(axis=0)
        producers_K = np.diag(shares_KK) / true_K
    users_K = np.where(empty_K, np.nan, np.diag(within_KK))
    return AreaAccuracy(
        sample_KK=counts_KK,
        mapped_areas=tuple(float(area) for area in areas_K),
        shares_KK=shares_KK,
        overall_accuracy=_make_estimate(np.trace(shares_KK), np.trace(weighted_KK)),
        users_accuracies=tuple(map(_make_estimate, users_K, np.where(empty_K, np.nan, np.diag(variance_KK)))),
        producers_accuracies=tuple(
            map(_make_estimate, producers_K, _producers_variance(producers_K, weighted_KK, true_K))
        ),
        estimated_areas=tuple(map(_make_estimate, true_K * total, weighted_KK.sum(axis=0) * total**2)),
    )


def _producers_variance(
    producers_K: NDArray[np.float64], weighted_KK: NDArray[np.float64], true_K: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the variances of the producer's accuracies: equation 7, in shares of area."""
    own_K = np.diag(weighted_KK)
    others_K = weighted_KK.sum(axis=0) - own_K
    with np.errstate(divide="ignore", invalid="ignore"):
        variance_K: NDArray[np.float64] = ((1 - producers_K) ** 2 * own_K + producers_K**2 * others_K) / true_K**2
    return variance_K


def _make_estimate(value: float, variance: float) -> Estimate:
    """Return a value with its confidence interval."""
    return Estimate(float(value), Z95 * float(np.sqrt(variance)))


def allocate_sample(sizes: Sequence[int], total: int, *, minimum: int = 50) -> tuple[int, ...]:
    """Allocate a sample to strata: in proportion to size, but at least `minimum` in each, and never more than its size.

    Section 5.1 of the source recommends 50 to 100 places for rare classes and the rest in proportion.

    Args:
        sizes: pixels of each stratum.
        total: number of places in all; exceeded where the minimum numbers alone are more.
        minimum: number of places in each stratum, if it has as many.
    """
    total_px = max(sum(sizes), 1)
    base = [min(minimum, size) for size in sizes]
    rest = max(0, total - sum(base))
    drawn = [min(size, start + rest * size // total_px) for size, start in zip(sizes, base, strict=True)]
    largest = max(range(len(sizes)), key=sizes.__getitem__)  # gets what rounding leaves
    drawn[largest] = min(sizes[largest], drawn[largest] + max(0, total - sum(drawn)))
    return tuple(drawn)
