"""PCA-KM: principal components of small blocks of the difference image, split into two clusters.

Source: Celik, "Unsupervised change detection in satellite images using principal component analysis and k-means
clustering", IEEE GRSL 2009. The grey difference is cut into blocks without overlap; the neighbourhood of every pixel is
projected onto their principal components; k-means with two clusters splits these projections, and the cluster with the
larger difference is change.

Differences from the source: grey is the mean of all bands, first matched by mean and deviation over the raster (the
source assumes matched images; `matched=false` leaves them unchanged); components and clusters are learned over the
whole raster (never per tile), the clusters on a sample of the same blocks; blocks with no-data are left out. K-means
always finds two clusters, so the changed one must stand out by its mean difference; if it does not, only outliers count
(the no-change guard of `thresholds`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from semicdvl.errors import ConfigError, DataError
from semicdvl.types import ChangeMap, Detector, PairTiles, ScoreStrips
from semicdvl.unsupervised.common.detector import UnsupervisedDetector
from semicdvl.unsupervised.common.statistics import (
    FloatArray,
    HashedSample,
    Moments,
    PairMoments,
    PlacedTile,
    locate_tiles,
    measure_moments,
)
from semicdvl.unsupervised.common.thresholds import (
    build_histogram,
    compute_guard,
    make_change_map,
    normalise_by_threshold,
)

MIN_SAMPLE = 100
"""Smallest sample: blocks are drawn by chance, and of a few expected ones there may be none."""


@dataclass(frozen=True)
class Clusters:
    """The clusters of a pair.

    Attributes:
        axes_SV: principal components of the blocks, by descending variance; V = block_px squared.
        mean_V: mean block.
        unchanged_S, changed_S: centres of the two clusters in these components.
        min_difference: mean difference from which a block can be changed (the guard).
    """

    axes_SV: FloatArray
    mean_V: FloatArray
    unchanged_S: FloatArray
    changed_S: FloatArray
    min_difference: float


@dataclass(frozen=True)
class PCAKM(UnsupervisedDetector):
    """PCA-KM; see the module.

    Attributes:
        block_px: side h of a block.
        components: number S of principal components.
        matched: whether the bands of the dates are first matched by mean and deviation.
        guard: whether the changed cluster must stand out.
        seed: seed of the sample and of k-means.
        sample: greatest number of blocks that the clusters are found on.
        moments: moments of the pair, known after `prepare`.
        clusters: clusters of the pair, known after `prepare`.
    """

    name, map_count = "pca_km", 2
    stored_kind = "semicdvl.classic.pca_km.PCAKM"

    block_px: int = 4
    components: int = 3
    matched: bool = True
    guard: bool = True
    seed: int = 0
    sample: int = 100_000
    moments: PairMoments | None = None
    clusters: Clusters | None = None

    def description(self) -> dict[str, str]:
        """Return what the detector does."""
        return {
            "Detector": f"PCA of {self.block_px} px blocks of the difference and two-means, no labels, no training",
            "Guard": "a changed cluster must stand out" if self.guard else "none",
        }

    # -------------------------------------------------------------------------------------------- fitting
    def prepare(self, tiles: PairTiles) -> Detector:
        """Learn components and clusters, in three passes over the pair.

        Raises:
            DataError: no data, one colour, or no block without no-data.
        """
        known = replace(self, moments=measure_moments(tiles, method=self.name))
        moments = Moments(self.block_px**2)
        for at in locate_tiles(tiles):
            moments.add(known._cut_blocks(at)[0])
        if moments.weight == 0:
            raise DataError(f"pca_km: no block of {self.block_px} px has data throughout. Use smaller blocks, or cva.")
        eigenvalues_V, vectors_VV = np.linalg.eigh(moments.cov_VV)
        axes_SV = vectors_VV[:, np.argsort(eigenvalues_V)[::-1][: self.components]].T
        sample = HashedSample(share=self.sample / moments.weight, seed=self.seed)
        for at in locate_tiles(tiles):
            blocks_NV, number_N = known._cut_blocks(at, raster_width=tiles.shape_hw[1])
            sample.add(number_N, blocks_NV)
        return replace(known, clusters=known._cluster_blocks(sample.values_NV, axes_SV, moments.mean_V))

    def _cut_blocks(self, at: PlacedTile, *, raster_width: int = 0) -> tuple[FloatArray, NDArray[np.int64]]:
        """Return a tile's whole blocks as vectors NV, on the raster's own grid of blocks, with their numbers."""
        side = self.block_px
        top, left = -at.row % side, -at.col % side
        difference_HW = self._grey_difference(at.tile.t1_HWC, at.tile.t2_HWC)[top:, left:]
        valid_HW = at.tile.valid_HW[top:, left:]
        rows, cols = (max(0, size) // side for size in difference_HW.shape)
        shape = rows, side, cols, side
        cut_NV = difference_HW[: rows * side, : cols * side].reshape(shape).swapaxes(1, 2).reshape(-1, side**2)
        whole_N = valid_HW[: rows * side, : cols * side].reshape(shape).all(axis=(1, 3)).ravel()
        row_N = (at.row + top) // side + np.arange(rows)
        col_N = (at.col + left) // side + np.arange(cols)
        number_N = (row_N[:, None] * (raster_width // side + 1) + col_N).ravel()
        return cut_NV[whole_N].astype(np.float64), number_N[whole_N]

    def _grey_difference(self, t1_HWC: NDArray[np.uint8], t2_HWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the absolute difference of the grey images."""
        assert self.moments is not None, "prepare() comes first"
        if self.matched:
            t1_HWC, t2_HWC = (self.moments.standardise(d, date=i) for i, d in enumerate((t1_HWC, t2_HWC)))  # type: ignore[assignment]
        grey_t1_HW, grey_t2_HW = (image_HWC.mean(axis=2, dtype=np.float32) for image_HWC in (t1_HWC, t2_HWC))
        difference_HW: NDArray[np.float32] = np.abs(grey_t2_HW - grey_t1_HW)
        return difference_HW

    def _cluster_blocks(self, blocks_NV: NDArray[np.floating], axes_SV: FloatArray, mean_V: FloatArray) -> Clusters:
        """Split the sample in two; the cluster of the larger mean difference is change."""
        from sklearn.cluster import KMeans

        assert self.moments is not None, "prepare() comes first"
        projected_NS = (blocks_NV - mean_V) @ axes_SV.T
        level_N = blocks_NV.mean(axis=1)
        if np.ptp(projected_NS, axis=0).max() == 0:  # the dates are equal up to a constant
            centre_S = projected_NS.mean(axis=0)
            return Clusters(axes_SV, mean_V, centre_S, centre_S, np.inf)
        means = KMeans(n_clusters=2, n_init=10, random_state=self.seed).fit(projected_NS)
        changed = int(level_N[means.labels_ == 1].mean() > level_N[means.labels_ == 0].mean())
        least = 0.0
        if self.guard and self.moments.is_noise():
            same_N = means.labels_ != changed
            unchanged = build_histogram([level_N[same_N]])
            least = compute_guard(build_histogram([level_N]), unchanged, mean_changed=float(level_N[~same_N].mean()))
        centres_KS = means.cluster_centers_
        return Clusters(axes_SV, mean_V, centres_KS[1 - changed], centres_KS[changed], least)

    # -------------------------------------------------------------------------------------------- prediction
    def predict_scores(
        self, t1_HWC: NDArray[np.uint8], t2_HWC: NDArray[np.uint8], *, gsd_m: float | None = None
    ) -> NDArray[np.float32]:
        """Return each neighbourhood's closeness to the changed cluster (0 to 1), and its mean difference, 2HW."""
        found, side = self.clusters, self.block_px
        assert found is not None, "prepare() comes first"
        difference_HW = self._grey_difference(t1_HWC, t2_HWC)
        anchor = (side // 2, side // 2)
        kernels_Shh = found.axes_SV.reshape(-1, side, side)
        seen_SHW = np.stack([cv2.filter2D(difference_HW, cv2.CV_32F, k_hh, anchor=anchor) for k_hh in kernels_Shh])
        projected_SHW = seen_SHW - (found.axes_SV @ found.mean_V)[:, None, None]
        away_HW, near_HW = (
            np.sqrt(np.square(projected_SHW - centre_S[:, None, None]).sum(axis=0))
            for centre_S in (found.unchanged_S, found.changed_S)
        )
        belongs_HW = away_HW / np.maximum(away_HW + near_HW, 1e-12)
        return np.stack([belongs_HW, cv2.blur(difference_HW, (side, side), anchor=anchor)]).astype(np.float32)

    def decide(self, strips: ScoreStrips) -> Iterator[ChangeMap]:
        """Yield the change maps: changed where a pixel is closer to the changed cluster and passes the guard."""
        assert self.clusters is not None, "prepare() comes first"
        for strip in strips:
            score_HW = strip.scores_PHW[0]
            if self.clusters.min_difference > 0:
                score_HW = np.minimum(
                    score_HW, normalise_by_threshold(strip.scores_PHW[1], self.clusters.min_difference)
                )
            yield make_change_map(score_HW, strip.valid_HW)


def build_pca_km(
    *,
    block_px: int = 4,
    components: int = 3,
    matched: bool = True,
    guard: bool = True,
    seed: int = 0,
    sample: int = 100_000,
) -> PCAKM:
    """Return PCA-KM.

    Args:
        block_px: side of a block; 4 in the source's examples.
        components: number of principal components, at most the square of `block_px`.
        matched: match the bands of the dates by mean and deviation first; false: compare the values unchanged.
        guard: whether the changed cluster must stand out from the rest.
        seed: seed of the sample and of k-means.
        sample: greatest number of blocks that the clusters are found on, 100 or more.

    Raises:
        ConfigError: an option out of range.
    """
    if block_px < 2 or not 1 <= components <= block_px**2 or sample < MIN_SAMPLE:
        raise ConfigError(
            f"block_px = {block_px}, components = {components}, sample = {sample}: give blocks of 2 px or more, 1 to "
            f"block_px squared components, and a sample of {MIN_SAMPLE} or more."
        )
    return PCAKM(block_px, components, matched, guard, seed, sample)
