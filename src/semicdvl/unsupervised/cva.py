"""Change vector analysis: the length of each pixel's change in band space, after matching the dates radiometrically.

Source: Malila 1980; Bruzzone and Fernandez Prieto, TGRS 2000. Differences from the source: the dates are matched by
mean and deviation of every band over the whole raster (the sources assume calibrated images), the length is divided by
the square root of the number of bands, so that its unit is the standard deviation of a band, and the threshold is
Otsu's with the no-change guard of `thresholds` instead of a Bayesian one that assumes two normal distributions.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from semicdvl.types import Detector, PairTiles
from semicdvl.unsupervised.common.detector import ThresholdDetector
from semicdvl.unsupervised.common.statistics import PairMoments, measure_moments
from semicdvl.unsupervised.common.thresholds import ThresholdRule


@dataclass(frozen=True)
class CVA(ThresholdDetector):
    """Change vector analysis; see the module.

    Attributes:
        rule: how the threshold is found; its unit is standard deviations of a band.
        moments: moments of the pair, known after `prepare`.
    """

    name, map_count = "cva", 1
    stored_kind = "semicdvl.classic.cva.CVA"

    rule: ThresholdRule = field(default_factory=ThresholdRule)
    moments: PairMoments | None = None

    def description(self) -> dict[str, str]:
        """Return what the detector does."""
        return {"Detector": "change vector analysis, no labels, no training", "Threshold": str(self.rule)}

    def prepare(self, tiles: PairTiles) -> Detector:
        """Measure the moments of the bands of both dates."""
        moments = measure_moments(tiles, method=self.name)
        return replace(self, moments=moments, rule=self.rule.for_pair(moments))

    def predict_scores(
        self, t1_HWC: NDArray[np.uint8], t2_HWC: NDArray[np.uint8], *, gsd_m: float | None = None
    ) -> NDArray[np.float32]:
        """Return the length of the change vector, 1HW."""
        assert self.moments is not None, "prepare() comes first"
        return compute_change_magnitude(t1_HWC, t2_HWC, self.moments)[None]


def compute_change_magnitude(
    t1_HWC: NDArray[np.uint8], t2_HWC: NDArray[np.uint8], moments: PairMoments
) -> NDArray[np.float32]:
    """Return the change of each pixel in standard deviations of a band, HW (or N of NC)."""
    difference_HWC = moments.standardise(t2_HWC, date=1) - moments.standardise(t1_HWC, date=0)
    length: NDArray[np.float32] = np.sqrt(np.square(difference_HWC).mean(axis=-1))
    return length


def build_cva(*, threshold: float | str = "otsu", guard: bool = True) -> CVA:
    """Return change vector analysis.

    Args:
        threshold: "otsu", or a length in standard deviations of a band.
        guard: whether the no-change guard is applied to Otsu's threshold.

    Raises:
        ConfigError: not a valid threshold.
    """
    return CVA(ThresholdRule(threshold, guard))
