"""CNN-CD: distance between the feature maps of a network pretrained on photographs.

Source: El Amin, Liu and Wang, "Convolutional neural network features based change detection in satellite images", 2016
(no public code by the authors). Maps of several layers are normalised, brought to the image's size, joined, and
compared by the Euclidean distance; Otsu's threshold.

Differences from the source: any encoder with four feature maps (the source uses VGG: `backbone=vgg16`; the default is
EfficientNet-Lite0, whose weights come as a package); features are normalised to length 1 at every position and layer,
which needs no value range of the image; distances are taken on each layer's own grid and then enlarged, instead of
enlarging hundreds of channels; the threshold is one for the whole raster, with the no-change guard of `thresholds`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from semicdvl.errors import ConfigError
from semicdvl.types import Detector, PairTiles
from semicdvl.unsupervised.common.detector import ThresholdDetector
from semicdvl.unsupervised.common.features import (
    FeatureNetwork,
    Map,
    extract_feature_maps,
    normalise_features,
    resize_to_image,
)
from semicdvl.unsupervised.common.thresholds import ThresholdRule


@dataclass(frozen=True)
class CNNCD(ThresholdDetector):
    """CNN-CD; see the module.

    Attributes:
        features: the encoder.
        layers: indices of the compared feature maps, 0 the finest.
        rule: how the threshold is found; distances lie between 0 and 2.
    """

    name, map_count = "cnn_cd", 1
    stored_kind = "semicdvl.classic.cnn_cd.CNNCD"

    features: FeatureNetwork
    layers: tuple[int, ...] = (0, 1, 2, 3)
    rule: ThresholdRule = field(default_factory=ThresholdRule)

    def description(self) -> dict[str, str]:
        """Return what the detector does, and its network."""
        return {
            "Detector": "distance of feature maps, no labels, no training",
            "Network": self.features.identity,
            "Threshold": str(self.rule),
        }

    def prepare(self, tiles: PairTiles) -> Detector:
        """Check that the pair can be compared, and whether the guard is needed."""
        return replace(self, rule=self.fit_rule(tiles))

    def predict_scores(
        self, t1_HWC: NDArray[np.uint8], t2_HWC: NDArray[np.uint8], *, gsd_m: float | None = None
    ) -> NDArray[np.float32]:
        """Return the root mean square over layers of the distance of normalised features, 1HW."""
        shape_hw = t1_HWC.shape[0], t1_HWC.shape[1]
        dates = [extract_feature_maps(self.features, image_HWC, layers=self.layers) for image_HWC in (t1_HWC, t2_HWC)]
        squares = [
            resize_to_image(np.square(normalise_features(t1_DHW) - normalise_features(t2_DHW)).sum(axis=0), shape_hw)
            for t1_DHW, t2_DHW in zip(*dates, strict=True)
        ]
        distance_HW: Map = np.sqrt(np.maximum(np.mean(squares, axis=0), 0)).astype(np.float32)
        return distance_HW[None]


def build_cnn_cd(
    features: FeatureNetwork,
    *,
    layers: Sequence[int] = (0, 1, 2, 3),
    threshold: float | str = "otsu",
    guard: bool = True,
) -> CNNCD:
    """Return CNN-CD.

    Args:
        features: the encoder.
        layers: indices of the compared feature maps, 0 the finest.
        threshold: "otsu", or a distance between 0 and 2.
        guard: whether the no-change guard is applied to Otsu's threshold.

    Raises:
        ConfigError: a layer that the network does not have, or not a valid threshold.
    """
    count = len(features.channels)
    if not layers or not set(layers) <= set(range(count)):
        raise ConfigError(f"layers = {list(layers)}: choose from {list(range(count))}, 0 the finest.")
    return CNNCD(features, tuple(layers), ThresholdRule(threshold, guard))
