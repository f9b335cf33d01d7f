"""IR-MAD: iteratively reweighted multivariate alteration detection, invariant to linear changes of the bands.

Source: Nielsen, "The regularized iteratively reweighted MAD method", IEEE TIP 2007; Canty and Nielsen, RSE 2008.
Canonical correlation finds the linear combinations of bands of the two dates that agree best. Where nothing changed,
the squares of their differences (the MAD variates), each divided by its standard deviation, sum to a chi-square with as
many degrees of freedom as there are bands. Pixels are weighted by the probability of no change and the analysis is
repeated until the correlations converge. A gain, an offset or a mixing of bands between the dates is not a change.

Differences from the source: covariances are gathered tile by tile over the whole raster, one pass per round; iterations
also end when hardly any pixel, or only pixels of one colour, count as unchanged; without the regularisation, which
serves hundreds of bands; the source leaves the threshold to the user, here it is Otsu's on the square root of the sum,
with the no-change guard of `thresholds`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from semicdvl.errors import ConfigError, DataError
from semicdvl.types import Detector, PairTiles
from semicdvl.unsupervised.common.detector import ThresholdDetector
from semicdvl.unsupervised.common.statistics import FloatArray, Moments, PairMoments, measure_moments, valid_pixels
from semicdvl.unsupervised.common.thresholds import ThresholdRule

MIN_VARIANCE = 1e-9
"""Smallest variance of a MAD variate, whose combinations have variance 1: below, the dates agree to the last bit."""
MIN_DIFFERENCE = 1e-6
"""Smallest difference of combinations with variance 1: below, it is rounding."""
MIN_WEIGHT_FRAC = 0.02
"""If less of the raster counts as unchanged, further iterations would only fit a few pixels to themselves."""


@dataclass(frozen=True)
class CanonicalVariates:
    """Linear combinations of bands that agree best between the dates.

    Attributes:
        mean_V: weighted mean of the bands, date 1 then date 2.
        mix_t1_CK: columns are combinations of the bands of date 1, best last.
        mix_t2_CK: the corresponding combinations of date 2.
        correlation_K: correlation of each pair.
    """

    mean_V: FloatArray
    mix_t1_CK: FloatArray
    mix_t2_CK: FloatArray
    correlation_K: FloatArray

    @property
    def deviation_K(self) -> FloatArray:
        """Standard deviation of each difference where nothing changed."""
        return np.sqrt(np.maximum(2 * (1 - self.correlation_K), MIN_VARIANCE))

    def sum_of_squares(self, t1_XC: NDArray[np.floating], t2_XC: NDArray[np.floating]) -> FloatArray:
        """Return the sum over variates of (difference / deviation)^2, of pixels X by C."""
        mean_t1_C, mean_t2_C = np.split(self.mean_V, 2)
        mad_XK = (t1_XC - mean_t1_C) @ self.mix_t1_CK - (t2_XC - mean_t2_C) @ self.mix_t2_CK
        mad_XK[np.abs(mad_XK) < MIN_DIFFERENCE] = 0
        total: FloatArray = np.square(mad_XK / self.deviation_K).sum(axis=-1)
        return total


def compute_canonical_variates(mean_V: FloatArray, cov_VV: FloatArray) -> CanonicalVariates:
    """Return the canonical variates of two dates from their joint mean and covariance.

    Raises:
        numpy.linalg.LinAlgError: the bands of a date are linearly dependent.
    """
    from scipy.linalg import eigh

    bands = len(mean_V) // 2
    within_t1_CC, within_t2_CC = cov_VV[:bands, :bands], cov_VV[bands:, bands:]
    across_CC = cov_VV[:bands, bands:]
    explained_CC = across_CC @ np.linalg.solve(within_t2_CC, across_CC.T)
    squared_K, mix_t1_CK = eigh((explained_CC + explained_CC.T) / 2, within_t1_CC)
    mix_t2_CK = np.linalg.solve(within_t2_CC, across_CC.T @ mix_t1_CK)
    scale_K = np.sqrt(np.maximum(np.einsum("ck,cd,dk->k", mix_t2_CK, within_t2_CC, mix_t2_CK), 1e-30))
    return CanonicalVariates(mean_V, mix_t1_CK, mix_t2_CK / scale_K, np.sqrt(np.clip(squared_K, 0, 1)))


@dataclass(frozen=True)
class IRMAD(ThresholdDetector):
    """IR-MAD; see the module.

    Attributes:
        rule: how the threshold is found, in standard deviations of no change (square root of the chi-square).
        rounds: greatest number of reweighting iterations; 0 is plain MAD.
        tolerance: iterations end when no correlation changes by more.
        variates: the canonical variates, known after `prepare`.
    """

    name, map_count = "irmad", 1
    stored_kind = "semicdvl.classic.irmad.IRMAD"

    rule: ThresholdRule = field(default_factory=ThresholdRule)
    rounds: int = 50
    tolerance: float = 1e-3
    variates: CanonicalVariates | None = None

    def description(self) -> dict[str, str]:
        """Return what the detector does, and the canonical correlations."""
        text = {"Detector": "IR-MAD, no labels, no training", "Threshold": str(self.rule)}
        if self.variates is not None:
            text["Canonical correlations"] = ", ".join(f"{value:.4f}" for value in self.variates.correlation_K[::-1])
        return text

    def prepare(self, tiles: PairTiles) -> Detector:
        """Find the canonical variates, in one pass over the pair per iteration.

        Raises:
            DataError: the pair has no data, is one colour, or its bands are linearly dependent.
        """
        moments = measure_moments(tiles, method=self.name, bands=2, different=None)
        found = self._initial_variates(moments)
        for _ in range(self.rounds):
            before_K = found.correlation_K
            weighted = self._measure_weighted(tiles, found)
            if weighted.weight < MIN_WEIGHT_FRAC * moments.count:
                break
            try:
                found = compute_canonical_variates(weighted.mean_V, weighted.cov_VV)
            except np.linalg.LinAlgError:  # the unchanged pixels have one colour, such as saturated roofs
                break
            if np.abs(found.correlation_K - before_K).max() < self.tolerance:
                break
        difference_VK = np.concatenate([found.mix_t1_CK, -found.mix_t2_CK]) / found.deviation_K
        return replace(self, variates=found, rule=replace(self.rule, shapeless=moments.is_noise(difference_VK)))

    def _measure_weighted(self, tiles: PairTiles, found: CanonicalVariates) -> Moments:
        """Return the moments, weighting every pixel by its probability of no change."""
        from scipy.special import chdtrc

        weighted = Moments(len(found.mean_V))
        for tile in tiles:
            t1_NC, t2_NC = valid_pixels(tile)
            unchanged_N = chdtrc(len(found.correlation_K), found.sum_of_squares(t1_NC, t2_NC))
            weighted.add(np.hstack([t1_NC, t2_NC]), unchanged_N)
        return weighted

    def _initial_variates(self, moments: PairMoments) -> CanonicalVariates:
        """Return the canonical variates with equal weights."""
        try:
            return compute_canonical_variates(moments.mean_V, moments.cov_VV)
        except np.linalg.LinAlgError:
            raise DataError(
                f"{self.name}: a band of this pair is constant or a linear combination of the others, so correlations "
                "are undefined. Leave it out, or use cva."
            ) from None

    def predict_scores(
        self, t1_HWC: NDArray[np.uint8], t2_HWC: NDArray[np.uint8], *, gsd_m: float | None = None
    ) -> NDArray[np.float32]:
        """Return the square root of the sum of squared MAD variates, 1HW."""
        assert self.variates is not None, "prepare() comes first"
        total_HW = self.variates.sum_of_squares(t1_HWC.astype(np.float64), t2_HWC.astype(np.float64))
        return np.sqrt(total_HW)[None].astype(np.float32)


def build_irmad(
    *, threshold: float | str = "otsu", guard: bool = True, rounds: int = 50, tolerance: float = 1e-3
) -> IRMAD:
    """Return IR-MAD.

    Args:
        threshold: "otsu", or a number of standard deviations: with three bands, 1 % of unchanged pixels exceed 3.4.
        guard: whether the no-change guard is applied to Otsu's threshold.
        rounds: greatest number of reweighting iterations, each one pass over both images; 0 is plain MAD.
        tolerance: iterations end when no canonical correlation changes by more.

    Raises:
        ConfigError: not a valid threshold, or a negative number of rounds.
    """
    if rounds < 0 or tolerance <= 0:
        raise ConfigError(
            f"rounds = {rounds}, tolerance = {tolerance:g}: give 0 or more rounds, and a positive tolerance."
        )
    return IRMAD(ThresholdRule(threshold, guard), rounds, tolerance)
