"""From a map of change scores to changed or unchanged: one threshold for the whole raster, and its no-change guard.

The histogram is gathered strip by strip in one pass; its bins follow the float's own digits (12 bits of exponent and
fraction are rounded away), so the value range need not be known, counts add up exactly, and a threshold is exact to
0.05 %.

**The no-change guard.** Otsu's threshold (and two-means, which is equivalent in one dimension) always finds two groups,
also in noise alone. So two conditions are checked. Does the difference between the dates have spatial structure, or are
neighbouring pixels independent (`statistics.PairMoments.is_noise`)? With structure (change, but also season or
illumination) the method's own threshold holds. Without: does the upper group stand out? Its mean has to lie `STANDS_OUT
= 4.5` robust deviations (1.4826 x median absolute deviation) of the lower group above the median of the lower group.
For the two halves of a normal distribution this number is 2.5, of a half-normal one 3.1, of an exponential one 4.3; for
a second group whose mean lies 4 or 5 deviations of the noise above 0 it is 5.7 or 7.2. If it does not stand out, only
outliers count: scores above median + `OUTLIER = 4` deviations of all, which few of a thousand noise pixels reach. A
small change in a large, otherwise equal raster is found by this last rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from semicdvl.errors import ConfigError
from semicdvl.types import IGNORE, ChangeMap, ScoreStrips
from semicdvl.unsupervised.common.statistics import PairMoments

MIN_SEPARATION = 4.5
OUTLIER_DEVIATIONS = 4.0
NORMAL_PER_MAD = 1.4826
"""Standard deviation of a normal distribution whose median absolute deviation is 1."""
_DROPPED_BITS = 12
_BINS = 1 << (31 - _DROPPED_BITS)


# ------------------------------------------------------------------------------------------------ histogram
class Histogram:
    """Counts of non-negative float32 values at a relative resolution of 2^-11."""

    def __init__(self) -> None:
        """Start without values."""
        self.counts_N: NDArray[np.int64] = np.zeros(_BINS, np.int64)

    def add(self, values: NDArray[np.floating]) -> None:
        """Count values of any shape; negative ones count as 0."""
        positive = np.ascontiguousarray(np.maximum(values, 0), dtype=np.float32)
        self.counts_N += np.bincount(positive.view(np.uint32).ravel() >> _DROPPED_BITS, minlength=_BINS)

    @property
    def total(self) -> int:
        """Number of counted values."""
        return int(self.counts_N.sum())

    def nonempty_bins(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return counts and centres of the bins that are not empty."""
        index_N = np.flatnonzero(self.counts_N)
        bits_N = (index_N << _DROPPED_BITS) + np.where(index_N > 0, 1 << (_DROPPED_BITS - 1), 0)
        return self.counts_N[index_N], bits_N.astype(np.uint32).view(np.float32).astype(np.float64)

    def quantile(self, share: float) -> float:
        """Return the value below which this share of the counted values lies."""
        counts_N, centres_N = self.nonempty_bins()
        return _weighted_quantile(centres_N, counts_N, share)

    def deviation(self, centre: float) -> float:
        """Return the robust standard deviation about a centre: 1.4826 x the median distance from it."""
        counts_N, centres_N = self.nonempty_bins()
        away_N = np.abs(centres_N - centre)
        order = np.argsort(away_N, kind="stable")
        return NORMAL_PER_MAD * _weighted_quantile(away_N[order], counts_N[order], 0.5)

    def mean_above(self, threshold: float) -> float:
        """Return the mean of the values above a threshold; the threshold itself if there are none."""
        counts_N, centres_N = self.nonempty_bins()
        above_N = centres_N > threshold
        return float(np.average(centres_N[above_N], weights=counts_N[above_N])) if above_N.any() else threshold

    def restrict_to(self, threshold: float) -> Histogram:
        """Return the histogram of the values up to a threshold."""
        counts_N, centres_N = self.nonempty_bins()
        lower = Histogram()
        lower.counts_N[np.flatnonzero(self.counts_N)] = np.where(centres_N <= threshold, counts_N, 0)
        return lower

    def otsu(self) -> float:
        """Return Otsu's threshold (1979), which separates two groups with the least variance within them.

        It is the upper end of a bin: at the centre, equal values above it, which can be those of all unchanged ground,
        would be on the wrong side.
        """
        from skimage.filters import threshold_otsu

        counts_N, centres_N = self.nonempty_bins()
        if len(centres_N) == 1:
            return _end_of_bin(centres_N[0])
        return _end_of_bin(threshold_otsu(hist=(counts_N, centres_N)))  # type: ignore[no-untyped-call]

    def otsu_three_classes(self) -> tuple[float, float]:
        """Return the two thresholds of three groups by Otsu's criterion (Liao et al. 2001), on 256 equal bins."""
        from skimage.filters import threshold_multiotsu

        counts_N, centres_N = self.nonempty_bins()
        equal_M, edges = np.histogram(centres_N, bins=256, weights=counts_N.astype(np.float64))
        if np.count_nonzero(equal_M) < 3:  # two groups, or one
            return self.otsu(), self.otsu()
        bins = (equal_M, (edges[1:] + edges[:-1]) / 2)
        low, high = threshold_multiotsu(hist=bins, classes=3)  # type: ignore[no-untyped-call]
        return float(low), float(high)


def _end_of_bin(centre: float) -> float:
    """Return the greatest value of the bin with this centre; of the first bin its centre, 0."""
    bits = int(np.float32(centre).view(np.uint32)) >> _DROPPED_BITS << _DROPPED_BITS
    return float(np.uint32(bits | (1 << _DROPPED_BITS) - 1).view(np.float32)) if bits else 0.0


def _weighted_quantile(values_N: NDArray[np.float64], counts_N: NDArray[np.int64], share: float) -> float:
    """Return a quantile of ascending values that occur `counts_N` times."""
    reached_N = np.cumsum(counts_N)
    return float(values_N[min(int(np.searchsorted(reached_N, share * reached_N[-1])), len(values_N) - 1)])


def build_histogram(parts: Iterable[NDArray[np.floating]]) -> Histogram:
    """Count the values of all parts."""
    histogram = Histogram()
    for values in parts:
        histogram.add(values)
    return histogram


# ------------------------------------------------------------------------------------------------ threshold
@dataclass(frozen=True)
class ThresholdRule:
    """How a threshold is found.

    Attributes:
        threshold: a number in the method's own unit (to pool several pairs, take `pooled`), or "otsu".
        guard: whether the no-change guard is applied to "otsu".
        shapeless: whether the difference between the dates looks like noise, so that the guard applies.
    """

    threshold: float | str = "otsu"
    guard: bool = True
    shapeless: bool = True

    def __post_init__(self) -> None:
        """Refuse an invalid threshold.

        Raises:
            ConfigError: another word than "otsu", or a negative number.
        """
        value = self.threshold
        if isinstance(value, bool) or (value != "otsu" and (isinstance(value, str) or not value >= 0)):
            raise ConfigError(f"threshold = {value!r}: give 'otsu', or a number of 0 or more in the method's own unit.")

    @property
    def uses_guard(self) -> bool:
        """Whether the guard applies: a given number is used unchanged."""
        return self.guard and self.shapeless and self.threshold == "otsu"

    def for_pair(self, moments: PairMoments) -> ThresholdRule:
        """Return the rule for a pair: the guard applies if the dates differ like noise."""
        return replace(self, shapeless=moments.is_noise())

    def find_threshold(self, histogram: Histogram) -> float:
        """Return the score above which a pixel is changed; infinite where nothing is."""
        if not isinstance(self.threshold, str):
            return float(self.threshold)
        if histogram.total == 0:
            return np.inf
        return apply_guard(histogram, histogram.otsu()) if self.uses_guard else histogram.otsu()

    def __str__(self) -> str:
        """Return the rule in words, for the report."""
        if self.threshold != "otsu":
            return f"{self.threshold:g}, given"
        guard = (
            "" if not self.guard else ", with the no-change guard" if self.shapeless else ", the dates differ in shape"
        )
        return f"Otsu's, over the whole raster{guard}"


def apply_guard(histogram: Histogram, threshold: float) -> float:
    """Return the threshold if its upper group stands out from the rest, else one that only outliers exceed."""
    changed = histogram.mean_above(threshold)
    return max(threshold, compute_guard(histogram, histogram.restrict_to(threshold), mean_changed=changed))


def compute_guard(every: Histogram, unchanged: Histogram, *, mean_changed: float) -> float:
    """Return the guard: 0 if the changed group stands out from the unchanged one, else the threshold of outliers.

    Args:
        every: the scores of both groups.
        unchanged: the scores of the unchanged group.
        mean_changed: mean score of the changed group.
    """
    low, median = unchanged.quantile(0.5), every.quantile(0.5)
    if mean_changed - low >= MIN_SEPARATION * unchanged.deviation(low):
        return 0.0
    return median + OUTLIER_DEVIATIONS * every.deviation(median)


def pool_threshold(rasters: Iterable[ScoreStrips], rule: ThresholdRule | None = None) -> float:
    """Return one threshold for the first score maps of several pairs, to be given to each as a number."""
    every = (strip.scores_PHW[0][strip.valid_HW] for strips in rasters for strip in strips)
    return (rule or ThresholdRule()).find_threshold(build_histogram(every))


# ------------------------------------------------------------------------------------------------ maps
def decide_by_threshold(strips: ScoreStrips, rule: ThresholdRule) -> Iterator[ChangeMap]:
    """Yield change maps by one threshold on the first score map; the score is s / (s + threshold)."""
    border = rule.find_threshold(build_histogram(strip.scores_PHW[0][strip.valid_HW] for strip in strips))
    for strip in strips:
        yield make_change_map(normalise_by_threshold(strip.scores_PHW[0], border), strip.valid_HW)


def normalise_by_threshold(value_HW: NDArray[np.float32], border: float) -> NDArray[np.float32]:
    """Return value / (value + threshold) in [0, 1]: 0.5 at the threshold, 0 everywhere if it is infinite."""
    if np.isinf(border):
        return np.zeros_like(value_HW)
    value_HW = np.maximum(value_HW, 0)
    whole_HW = np.maximum(value_HW + np.float32(border), np.float32(1e-30))
    return np.asarray(value_HW / whole_HW, np.float32)


def make_change_map(score_HW: NDArray[np.float32], valid_HW: NDArray[np.bool_]) -> ChangeMap:
    """Return a change map: changed where the score is above 0.5."""
    change_HW = np.where(valid_HW, score_HW > 0.5, np.uint8(IGNORE)).astype(np.uint8)
    return ChangeMap(change_HW, np.where(valid_HW, score_HW, np.float32(np.nan)).astype(np.float32))
