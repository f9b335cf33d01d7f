"""DCVA: deep change vector analysis on the features whose difference varies most.

Source: Saha, Bovolo and Bruzzone, TGRS 2019, and the first author's public code, which its author does not claim to be
an exact replica. Of several layers of a network those channels are kept whose difference between the dates deviates
most in any quarter of the image; both dates are standardised, joined and compared by the length of the difference.

Differences from the source: the source's network (a generator trained on Potsdam's land cover) is not available: any
encoder with four feature maps is used, EfficientNet-Lite0 by default, on unchanged images (the public code first
saturates them at a percentile per band). The same share of channels is kept in every layer (in the source a smaller one
in wide layers). Quarters, channels, means, deviations and the percentile at which differences saturate are those of the
whole raster (the percentile on a sample of positions), never of a tile. The local threshold (a multiple of a wide
Gaussian mean), the removal of small objects and the closing of small holes are left out: the first depends on windows
wider than a tile, `detect --min-area-m2` does the second. The threshold is Otsu's with the no-change guard of
`thresholds`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from semicdvl.errors import ConfigError, DataError
from semicdvl.types import Detector, PairTiles
from semicdvl.unsupervised.common.detector import ThresholdDetector
from semicdvl.unsupervised.common.features import (
    FeatureCells,
    FeatureNetwork,
    extract_feature_maps,
    iterate_feature_cells,
    resize_to_image,
)
from semicdvl.unsupervised.common.statistics import FloatArray, HashedSample
from semicdvl.unsupervised.common.thresholds import ThresholdRule

SAMPLE_SIZE = 20_000
"""Number of positions of a layer on which the percentile is measured."""


@dataclass(frozen=True)
class LayerStatistics:
    """Statistics of one layer over the whole raster.

    Attributes:
        channel_S: indices of the selected channels.
        mean_t1_S, std_t1_S, mean_t2_S, std_t2_S: their means and standard deviations, separately for each date.
        saturation: absolute standardised difference at which a channel saturates.
    """

    channel_S: NDArray[np.int64]
    mean_t1_S: FloatArray
    std_t1_S: FloatArray
    mean_t2_S: FloatArray
    std_t2_S: FloatArray
    saturation: float

    def standardised_difference(self, t1_DX: NDArray[np.floating], t2_DX: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return the standardised difference of the selected channels; the channel axis is first."""
        tail = (slice(None), *(None,) * (t1_DX.ndim - 1))
        first_SX = (t1_DX[self.channel_S] - self.mean_t1_S[tail]) / self.std_t1_S[tail]
        second_SX = (t2_DX[self.channel_S] - self.mean_t2_S[tail]) / self.std_t2_S[tail]
        return np.clip(second_SX - first_SX, -self.saturation, self.saturation)


class _LayerSums:
    """Sums over the cells of one layer for means and standard deviations; of the differences, per quarter."""

    def __init__(self, size: int) -> None:
        self.count_4: FloatArray = np.zeros(4)
        self.sums_4D: FloatArray = np.zeros((4, size))
        self.squares_4D: FloatArray = np.zeros((4, size))
        self.dates_22D: FloatArray = np.zeros((2, 2, size))

    def add(self, found: FeatureCells, *, shape_hw: tuple[int, int]) -> None:
        quarter_N = 2 * (2 * found.row_N >= shape_hw[0]) + (2 * found.col_N >= shape_hw[1])
        dates = [part.astype(np.float64) for part in (found.t1_ND, found.t2_ND)]
        difference_ND = dates[1] - dates[0]
        for quarter in range(4):
            part_ND = difference_ND[quarter_N == quarter]
            self.count_4[quarter] += len(part_ND)
            self.sums_4D[quarter] += part_ND.sum(axis=0)
            self.squares_4D[quarter] += np.square(part_ND).sum(axis=0)
        for date, part_ND in enumerate(dates):
            self.dates_22D[date] += part_ND.sum(axis=0), np.square(part_ND).sum(axis=0)

    def select_channels(self, share: float) -> NDArray[np.int64]:
        """Return the channels that are among the `share` with the greatest variance in some quarter."""
        most = max(1, round(share * self.sums_4D.shape[1]))
        chosen: set[int] = set()
        for count, sum_D, square_D in zip(self.count_4, self.sums_4D, self.squares_4D, strict=True):
            if count:
                variance_D = square_D / count - np.square(sum_D / count)
                chosen |= set(np.argsort(-variance_D, kind="stable")[:most].tolist())
        return np.array(sorted(chosen))

    def to_statistics(self, share: float) -> LayerStatistics:
        """Return channels, means and standard deviations, without saturation."""
        channel_S = self.select_channels(share)
        count, parts = self.count_4.sum(), []
        for sum_D, square_D in self.dates_22D:
            mean_S = sum_D[channel_S] / count
            std_S = np.sqrt(np.maximum(square_D[channel_S] / count - np.square(mean_S), 0))
            parts += [mean_S, np.where(std_S > 1e-6, std_S, 1.0)]
        return LayerStatistics(channel_S, parts[0], parts[1], parts[2], parts[3], np.inf)


@dataclass(frozen=True)
class DCVA(ThresholdDetector):
    """DCVA; see the module.

    Attributes:
        features: the encoder.
        layers: indices of the feature maps that are used, 0 the finest.
        kept_frac: share of a layer's channels that is kept for each quarter.
        saturate: quantile of the absolute differences of a layer at which they saturate.
        rule: how the threshold is found.
        seed: seed of the sample.
        learned: statistics of each layer, known after `prepare`.
    """

    name, map_count = "dcva", 1
    stored_kind = "semicdvl.classic.dcva.DCVA"

    features: FeatureNetwork
    layers: tuple[int, ...] = (0, 1, 2)
    kept_frac: float = 0.1
    saturate: float = 0.95
    rule: ThresholdRule = field(default_factory=ThresholdRule)
    seed: int = 0
    learned: tuple[LayerStatistics, ...] = ()

    def description(self) -> dict[str, str]:
        """Return what the detector does, its network, and the number of channels."""
        kept = ", ".join(str(len(layer.channel_S)) for layer in self.learned)
        return {
            "Detector": "deep change vector analysis, no labels, no training",
            "Network": self.features.identity,
            "Channels kept per layer": kept or "not chosen yet",
            "Threshold": str(self.rule),
        }

    def prepare(self, tiles: PairTiles) -> Detector:
        """Select channels and measure them, in one pass of the network over the whole pair.

        Raises:
            DataError: no data, one colour, fewer than three bands, or no cell of a feature map is valid throughout.
        """
        rule = self.fit_rule(tiles)
        sums = [_LayerSums(self.features.channels[layer]) for layer in self.layers]
        share = min(1.0, SAMPLE_SIZE * 16 / (tiles.shape_hw[0] * tiles.shape_hw[1]))
        samples = [HashedSample(share=share, seed=self.seed) for _ in self.layers]
        width = tiles.shape_hw[1]
        for found in iterate_feature_cells(tiles, self.features, layers=self.layers):
            for part, total, sample in zip(found, sums, samples, strict=True):
                total.add(part, shape_hw=tiles.shape_hw)
                sample.add(part.row_N * width + part.col_N, np.hstack([part.t1_ND, part.t2_ND]))
        if any(total.count_4.sum() == 0 for total in sums):
            raise DataError("dcva: no cell of the feature maps has data throughout. Use a larger area, or cva.")
        learned = tuple(self._with_saturation(total, sample) for total, sample in zip(sums, samples, strict=True))
        return replace(self, learned=learned, rule=rule)

    def _with_saturation(self, total: _LayerSums, sample: HashedSample) -> LayerStatistics:
        """Return the statistics of a layer with the difference at which it saturates."""
        layer = total.to_statistics(self.kept_frac)
        t1_ND, t2_ND = np.split(sample.values_NV, 2, axis=1)
        if not len(t1_ND):
            return layer
        return replace(
            layer, saturation=float(np.quantile(np.abs(layer.standardised_difference(t1_ND.T, t2_ND.T)), self.saturate))
        )

    def predict_scores(
        self, t1_HWC: NDArray[np.uint8], t2_HWC: NDArray[np.uint8], *, gsd_m: float | None = None
    ) -> NDArray[np.float32]:
        """Return the length of the deep change vector, in standard deviations of a channel, 1HW."""
        assert self.learned, "prepare() comes first"
        shape_hw = t1_HWC.shape[0], t1_HWC.shape[1]
        dates = [extract_feature_maps(self.features, image_HWC, layers=self.layers) for image_HWC in (t1_HWC, t2_HWC)]
        total_HW = np.zeros(shape_hw, np.float32)
        for layer, t1_DHW, t2_DHW in zip(self.learned, *dates, strict=True):
            square_HW = np.square(layer.standardised_difference(t1_DHW, t2_DHW)).sum(axis=0)
            total_HW += resize_to_image(square_HW.astype(np.float32), shape_hw)
        channels = sum(len(layer.channel_S) for layer in self.learned)
        return np.sqrt(np.maximum(total_HW, 0) / channels)[None]


def build_dcva(
    features: FeatureNetwork,
    *,
    layers: Sequence[int] = (0, 1, 2),
    kept_frac: float = 0.1,
    saturate: float = 0.95,
    threshold: float | str = "otsu",
    guard: bool = True,
    seed: int = 0,
) -> DCVA:
    """Return DCVA.

    Args:
        features: the encoder.
        layers: indices of the feature maps that are used, 0 the finest.
        kept_frac: share of a layer's channels that is kept for each quarter of the raster.
        saturate: quantile at which differences saturate; 1: never.
        threshold: "otsu", or a number of standard deviations of a channel.
        guard: whether the no-change guard is applied to Otsu's threshold.
        seed: seed of the sample on which the quantile is measured.

    Raises:
        ConfigError: an option out of range.
    """
    count = len(features.channels)
    if not layers or not set(layers) <= set(range(count)):
        raise ConfigError(f"layers = {list(layers)}: choose from {list(range(count))}, 0 the finest.")
    if not (0 < kept_frac <= 1 and 0 < saturate <= 1):
        raise ConfigError(f"kept_frac = {kept_frac:g}, saturate = {saturate:g}: give shares above 0 and up to 1.")
    return DCVA(features, tuple(layers), kept_frac, saturate, ThresholdRule(threshold, guard), seed)
