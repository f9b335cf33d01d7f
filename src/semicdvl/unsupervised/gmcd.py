"""In the spirit of GMCD: a graph network that learns, on the pair itself, from the certain parts of a difference map.

Source: Tang et al., "An unsupervised remote sensing change detection method based on multiscale graph convolutional
network and metric learning", TGRS 2021. Its code and constants are not public: **the idea is theirs, all constants and
the form of the network are ours.** A pretrained network gives a difference map, which is divided into changed,
unchanged and uncertain; a graph over positions with similar features, whose edges are recomputed in every layer,
propagates the certain classes to the uncertain positions, trained with a classification and a metric loss on this pair.

How this differs, beyond the constants: one scale (the third of an encoder's four feature maps) instead of several; the
difference is that of normalised features; the three classes come from Otsu's criterion over the whole raster; nodes for
training are a sample of the raster (`nodes`), and every other position is connected to its nearest among them, so that
neither the result depends on the tiles nor the memory on the raster. Guard: the changed part must stand out
(`thresholds`); with fewer than `MIN_CHANGED_NODES` such positions nothing is changed, and a certainly unchanged
position stays so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from semicdvl.errors import ConfigError, DataError
from semicdvl.types import ChangeMap, Detector, PairTiles, ScoreStrips
from semicdvl.unsupervised.common.detector import UnsupervisedDetector
from semicdvl.unsupervised.common.features import (
    FeatureNetwork,
    Map,
    extract_feature_maps,
    iterate_feature_cells,
    normalise_features,
    resize_to_image,
)
from semicdvl.unsupervised.common.statistics import HashedSample, measure_moments
from semicdvl.unsupervised.common.thresholds import Histogram, apply_guard, make_change_map, normalise_by_threshold

if TYPE_CHECKING:
    from semicdvl.unsupervised.common.graph_conv import TrainedGraph

CANDIDATE_COUNT = 32_768
"""Number of positions from which nodes are chosen."""
MIN_CHANGED_NODES = 8
"""Smallest number of certainly changed positions to learn from."""


@dataclass(frozen=True)
class DifferenceBands:
    """Thresholds of the difference: unchanged up to `low`, changed above `high`, uncertain between."""

    low: float
    high: float


@dataclass(frozen=True)
class GMCD(UnsupervisedDetector):
    """A graph network that learns on the pair, in the spirit of GMCD; see the module.

    Attributes:
        features: the encoder.
        layer: index of the feature map that gives the nodes.
        nodes: greatest number of nodes in training.
        neighbours: number of edges of a node.
        steps: number of training steps.
        guard: whether the changed class must stand out.
        seed: seed of the sample and the graph network.
        parts: thresholds of the difference, known after `prepare`.
        graph: the trained graph; None where nothing is changed.
    """

    name, map_count = "gmcd", 2
    stored_kind = "semicdvl.classic.gmcd.GMCD"

    features: FeatureNetwork
    layer: int = 2
    nodes: int = 2048
    neighbours: int = 8
    steps: int = 80
    guard: bool = True
    seed: int = 0
    parts: DifferenceBands | None = None
    graph: TrainedGraph | None = None

    def description(self) -> dict[str, str]:
        """Return what the detector does, and its network."""
        return {
            "Detector": "graph network learned on this pair, no labels (in the spirit of GMCD; constants of our own)",
            "Network": self.features.identity,
            "Guard": "the changed part must stand out" if self.guard else "none",
        }

    def prepare(self, tiles: PairTiles) -> Detector:
        """Divide the difference and learn from the certain positions, in one pass of the network over the whole pair.

        Raises:
            DataError: no data, one colour, fewer than three bands, or no cell of the feature map is valid throughout.
        """
        moments = measure_moments(tiles, method=self.name, bands=3)
        histogram = Histogram()
        sample = HashedSample(
            share=min(1.0, CANDIDATE_COUNT * 256 / (tiles.shape_hw[0] * tiles.shape_hw[1])), seed=self.seed
        )
        for (found,) in iterate_feature_cells(tiles, self.features, layers=[self.layer]):
            t1_ND, t2_ND = normalise_features(found.t1_ND.T).T, normalise_features(found.t2_ND.T).T
            histogram.add(_euclidean_distance(t1_ND.T, t2_ND.T))
            sample.add(found.row_N * tiles.shape_hw[1] + found.col_N, np.hstack([t1_ND, t2_ND]))
        if histogram.total == 0:
            raise DataError("gmcd: no cell of the feature map has data throughout. Use a larger area, or cva.")
        low, high = histogram.otsu_three_classes()
        if self.guard and moments.is_noise():
            high = apply_guard(histogram, high)
        known = replace(self, parts=DifferenceBands(low, high))
        return replace(known, graph=known._train_graph(np.asarray(sample.values_NV, np.float32)))

    def _train_graph(self, candidates_NV: Map) -> TrainedGraph | None:
        """Choose nodes of all three classes and train on them."""
        from semicdvl.unsupervised.common.graph_conv import UNCERTAIN, train_graph

        assert self.parts is not None
        distance_N = _euclidean_distance(*np.split(candidates_NV.T, 2))
        label_N = np.where(distance_N > self.parts.high, 1, np.where(distance_N > self.parts.low, UNCERTAIN, 0))
        if (label_N == 1).sum() < MIN_CHANGED_NODES or not (label_N == 0).any():
            return None
        rng = np.random.default_rng(self.seed)
        chosen = []
        for value, share in ((1, 4), (0, 2), (UNCERTAIN, 4)):  # a quarter, a half, a quarter
            chosen.append(rng.permutation(np.flatnonzero(label_N == value))[: self.nodes // share])
        index = np.sort(np.concatenate(chosen))
        t1_ND, t2_ND = np.split(candidates_NV[index], 2, axis=1)
        return train_graph(
            t1_ND, t2_ND, label_N[index], neighbours=min(self.neighbours, len(index)), steps=self.steps, seed=self.seed
        )

    def predict_scores(
        self, t1_HWC: NDArray[np.uint8], t2_HWC: NDArray[np.uint8], *, gsd_m: float | None = None
    ) -> NDArray[np.float32]:
        """Return the graph's probability of change, and the difference of features, 2HW."""
        assert self.parts is not None, "prepare() comes first"
        (t1_DHW,), (t2_DHW,) = (
            extract_feature_maps(self.features, image, layers=[self.layer]) for image in (t1_HWC, t2_HWC)
        )
        t1_DHW, t2_DHW = normalise_features(t1_DHW), normalise_features(t2_DHW)
        distance_HW = _euclidean_distance(t1_DHW, t2_DHW)
        changed_HW = np.zeros_like(distance_HW)
        if self.graph is not None:
            size = len(t1_DHW)
            changed_HW = self.graph.predict_probability(t1_DHW.reshape(size, -1).T, t2_DHW.reshape(size, -1).T)
        shape_hw = t1_HWC.shape[0], t1_HWC.shape[1]
        return np.stack(
            [resize_to_image(part.reshape(distance_HW.shape), shape_hw) for part in (changed_HW, distance_HW)]
        )

    def decide(self, strips: ScoreStrips) -> Iterator[ChangeMap]:
        """Yield the change maps: changed where the graph predicts it and the difference is not certainly small."""
        assert self.parts is not None, "prepare() comes first"
        for strip in strips:
            probability_HW, distance_HW = strip.scores_PHW
            yield make_change_map(
                np.minimum(probability_HW, normalise_by_threshold(distance_HW, self.parts.low)), strip.valid_HW
            )


def _euclidean_distance(t1_DX: Map, t2_DX: Map) -> Map:
    """Return the Euclidean distance of features; the channel axis is first."""
    distance_X: Map = np.sqrt(np.square(t1_DX - t2_DX).sum(axis=0))
    return distance_X


def build_gmcd(
    features: FeatureNetwork,
    *,
    layer: int = 2,
    nodes: int = 2048,
    neighbours: int = 8,
    steps: int = 80,
    guard: bool = True,
    seed: int = 0,
) -> GMCD:
    """Return the method in the spirit of GMCD.

    Args:
        features: the encoder.
        layer: index of the feature map that gives the nodes, 0 the finest.
        nodes: greatest number of nodes in training; time grows with its square.
        neighbours: number of edges of a node.
        steps: number of training steps.
        guard: whether the changed class must stand out.
        seed: seed of the sample and the graph network.

    Raises:
        ConfigError: an option out of range.
    """
    if not 0 <= layer < len(features.channels):
        raise ConfigError(f"layer = {layer}: choose from {list(range(len(features.channels)))}, 0 the finest.")
    if nodes < 32 or neighbours < 1 or steps < 1:
        raise ConfigError(f"nodes = {nodes}, neighbours = {neighbours}, steps = {steps}: give at least 32, 1 and 1.")
    return GMCD(features, layer, nodes, neighbours, steps, guard, seed)
