"""DINOv2 + CVA: distance between the last feature maps of a self-supervised vision transformer.

Source: the baseline of that name in AnyChange (Zheng et al., NeurIPS 2024; no public code of it): patch features of
both dates, enlarged to the image (bilinear), the length of their difference, a threshold per image.

Differences from the source: any vision transformer, or other encoder, of timm; the length is computed on the grid of
patches and then enlarged; there is one threshold per raster, with the no-change guard of `thresholds`. One threshold
for many rasters is found with `thresholds.pool_threshold` and given as `threshold`, or by a benchmark suite (`fit =
"side"`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from semicdvl.types import Detector, PairTiles
from semicdvl.unsupervised.common.detector import ThresholdDetector
from semicdvl.unsupervised.common.features import FeatureNetwork, extract_feature_maps, resize_to_image
from semicdvl.unsupervised.common.networks import default_networks
from semicdvl.unsupervised.common.thresholds import ThresholdRule

LAST = -1


@dataclass(frozen=True)
class DinoCVA(ThresholdDetector):
    """DINOv2 + CVA; see the module.

    Attributes:
        features: the encoder.
        rule: how the threshold is found; its unit is that of the network's features.
    """

    name, map_count = "dino_cva", 1
    stored_kind = "semicdvl.classic.dino_cva.DinoCVA"

    features: FeatureNetwork
    rule: ThresholdRule = field(default_factory=ThresholdRule)

    def description(self) -> dict[str, str]:
        """Return what the detector does, and its network."""
        return {
            "Detector": "change vectors of a vision transformer's features, no labels, no training",
            "Network": self.features.identity,
            "Threshold": str(self.rule),
        }

    def prepare(self, tiles: PairTiles) -> Detector:
        """Check that the pair can be compared, and whether the guard is needed."""
        return replace(self, rule=self.fit_rule(tiles))

    def predict_scores(
        self, t1_HWC: NDArray[np.uint8], t2_HWC: NDArray[np.uint8], *, gsd_m: float | None = None
    ) -> NDArray[np.float32]:
        """Return the length of the difference of the last features, 1HW."""
        (t1_DHW,), (t2_DHW,) = (extract_feature_maps(self.features, image, layers=[LAST]) for image in (t1_HWC, t2_HWC))
        length_HW = np.sqrt(np.square(t1_DHW - t2_DHW).sum(axis=0))
        return resize_to_image(length_HW, (t1_HWC.shape[0], t1_HWC.shape[1]))[None]


@default_networks(features="vit_small_patch14_dinov2")
def build_dino_cva(features: FeatureNetwork, *, threshold: float | str = "otsu", guard: bool = True) -> DinoCVA:
    """Return DINOv2 + CVA.

    Args:
        features: the encoder.
        threshold: "otsu", or a length in the unit of the network's features.
        guard: whether the no-change guard is applied to Otsu's threshold.

    Raises:
        ConfigError: not a valid threshold.
    """
    return DinoCVA(features, ThresholdRule(threshold, guard))
