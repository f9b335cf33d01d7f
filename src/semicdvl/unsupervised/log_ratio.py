"""Log-ratio: the factor by which each pixel became brighter or darker, relative to the whole raster.

Source: the log-ratio operator of radar change detection (Dekker, IJRS 1998; Bazi et al., TGRS 2005). Differences from
the source: it is taken for each band of an optical image, whose noise is additive, not multiplicative as in radar
images: `offset`, an eighth of the range, is added first (in the sources: just enough to avoid the logarithm of 0), so
that a few steps of an 8-bit value in a shadow are not a large factor; the mean log-ratio of the raster is subtracted,
which removes a gain; bands are combined by the root mean square; the threshold is Otsu's with the no-change guard of
`thresholds`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from semicdvl.errors import ConfigError
from semicdvl.types import Detector, PairTiles
from semicdvl.unsupervised.common.detector import ThresholdDetector
from semicdvl.unsupervised.common.statistics import FloatArray, Moments, measure_moments, valid_pixels
from semicdvl.unsupervised.common.thresholds import ThresholdRule


@dataclass(frozen=True)
class LogRatio(ThresholdDetector):
    """The log-ratio operator; see the module.

    Attributes:
        rule: how the threshold is found; its unit is the natural logarithm of a factor.
        offset: added to every value before the logarithm.
        mean_ratio_C: mean log-ratio of the raster, known after `prepare`.
    """

    name, map_count = "log_ratio", 1
    stored_kind = "semicdvl.classic.log_ratio.LogRatio"

    rule: ThresholdRule = field(default_factory=ThresholdRule)
    offset: float = 32.0
    mean_ratio_C: FloatArray | None = None

    def description(self) -> dict[str, str]:
        """Return what the detector does."""
        return {"Detector": "log-ratio of the bands, no labels, no training", "Threshold": str(self.rule)}

    def prepare(self, tiles: PairTiles) -> Detector:
        """Measure the mean log-ratio of every band."""
        pair = measure_moments(tiles, method=self.name)
        ratios = Moments(pair.bands)
        for tile in tiles:
            ratios.add(self._compute_ratio(*valid_pixels(tile)))
        return replace(self, mean_ratio_C=ratios.mean_V, rule=self.rule.for_pair(pair))

    def _compute_ratio(self, t1_XC: NDArray[np.floating], t2_XC: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return the log-ratio of each band."""
        ratio_XC: NDArray[np.floating] = np.log(t2_XC + self.offset) - np.log(t1_XC + self.offset)
        return ratio_XC

    def predict_scores(
        self, t1_HWC: NDArray[np.uint8], t2_HWC: NDArray[np.uint8], *, gsd_m: float | None = None
    ) -> NDArray[np.float32]:
        """Return the root mean square over bands of the log-ratio minus its mean over the raster, 1HW."""
        assert self.mean_ratio_C is not None, "prepare() comes first"
        ratio_HWC = self._compute_ratio(t1_HWC.astype(np.float32), t2_HWC.astype(np.float32))
        length_HW = np.sqrt(np.square(ratio_HWC - self.mean_ratio_C).mean(axis=2))
        return np.asarray(length_HW, np.float32)[None]


def build_log_ratio(*, threshold: float | str = "otsu", guard: bool = True, offset: float = 32.0) -> LogRatio:
    """Return the log-ratio operator.

    Args:
        threshold: "otsu", or the logarithm of a factor: 0.7 is "twice or half as bright".
        guard: whether the no-change guard is applied to Otsu's threshold.
        offset: added to the 8-bit values before the logarithm; the higher, the lower the weight of shadows.

    Raises:
        ConfigError: not a valid threshold, or an offset that is not positive.
    """
    if offset <= 0:
        raise ConfigError(f"offset = {offset:g}: the logarithm of 0 is undefined; give a positive number such as 32.")
    return LogRatio(ThresholdRule(threshold, guard), offset)
