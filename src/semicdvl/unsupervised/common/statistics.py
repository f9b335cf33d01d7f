"""Statistics of a whole pair, tile by tile: moments, and a sample of positions that does not depend on the tiles.

Only one tile and the sums are held in memory. Sums are in float64; for 8-bit pixels they are exact, so that the moments
of a raster do not depend on how it is tiled.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from semicdvl.errors import DataError
from semicdvl.types import PairTile, PairTiles

FloatArray = NDArray[np.float64]

NOISE_RATIO = 0.5
"""Ratio of steps to variance: 1 in white noise, near 0 where areas differ. Half of it leaves room for noise smoothed by
compression (0.64 to 0.75 in photographs with noise of 4 grey values, saved as JPEG of quality 90)."""


# ------------------------------------------------------------------------------------------------ where a tile lies
@dataclass(frozen=True)
class PlacedTile:
    """A tile with its first row and column in the raster."""

    row: int
    col: int
    tile: PairTile


def locate_tiles(tiles: PairTiles) -> Iterator[PlacedTile]:
    """Yield the tiles with their positions, which follow from their order: row by row, without gap or overlap."""
    row = col = 0
    for tile in tiles:
        yield PlacedTile(row, col, tile)
        height, width = tile.valid_HW.shape
        col += width
        assert col <= tiles.shape_hw[1], "tiles go beyond the raster's width"
        if col == tiles.shape_hw[1]:
            row, col = row + height, 0


def valid_pixels(tile: PairTile) -> tuple[FloatArray, FloatArray]:
    """Return the valid pixels of both dates as float64 NC."""
    return tile.t1_HWC[tile.valid_HW].astype(np.float64), tile.t2_HWC[tile.valid_HW].astype(np.float64)


def count_valid_pixels(valid_HW: NDArray[np.bool_], grid_hw: tuple[int, int]) -> FloatArray:
    """Return the number of valid pixels in each cell of a grid over a tile, row by row."""
    share_HW = cv2.resize(valid_HW.astype(np.float64), grid_hw[::-1], interpolation=cv2.INTER_AREA)
    return np.asarray(share_HW * (valid_HW.size / (grid_hw[0] * grid_hw[1])), np.float64).ravel()


# ------------------------------------------------------------------------------------------------ moments
class Moments:
    """Weighted mean and covariance of vectors that are added in parts."""

    def __init__(self, size: int) -> None:
        """Start without vectors of this size."""
        self.weight = 0.0
        self._sum_V: FloatArray = np.zeros(size)
        self._products_VV: FloatArray = np.zeros((size, size))

    def add(self, values_NV: NDArray[np.floating], weight_N: FloatArray | None = None) -> None:
        """Add vectors, each with a weight (none: 1)."""
        values_NV = values_NV.astype(np.float64, copy=False)
        heavy_NV = values_NV if weight_N is None else values_NV * weight_N[:, None]
        self.weight += float(len(values_NV) if weight_N is None else weight_N.sum())
        self._sum_V += heavy_NV.sum(axis=0)
        self._products_VV += heavy_NV.T @ values_NV

    @property
    def mean_V(self) -> FloatArray:
        """Mean of the added vectors."""
        return self._sum_V / self.weight

    @property
    def second_VV(self) -> FloatArray:
        """Second moment about 0 of the added vectors; 0 if there are none."""
        return self._products_VV / max(self.weight, 1e-300)

    @property
    def cov_VV(self) -> FloatArray:
        """Covariance of the added vectors, divided by the sum of weights."""
        mean_V = self.mean_V
        return self.second_VV - np.outer(mean_V, mean_V)


@dataclass(frozen=True)
class PairMoments:
    """Moments of the pixels with data in both dates.

    Attributes:
        count: number of pixels.
        mean_V: mean of the bands of date 1, then of date 2.
        cov_VV: their covariance.
        step_VV: second moment of the differences between a pixel and its right neighbour.
    """

    count: int
    mean_V: FloatArray
    cov_VV: FloatArray
    step_VV: FloatArray

    @property
    def bands(self) -> int:
        """Number of bands per date."""
        return len(self.mean_V) // 2

    @property
    def std_V(self) -> FloatArray:
        """Standard deviation of each band; 1 for a constant band, so that it can be divided by."""
        std_V = np.sqrt(np.maximum(self.cov_VV.diagonal(), 0))
        return np.where(std_V > 1e-6, std_V, 1.0)

    @property
    def matched_VC(self) -> FloatArray:
        """Matrix that maps the bands of both dates to their matched difference, in standard deviations."""
        scale_VV = np.diag(1 / self.std_V)
        return scale_VV[:, self.bands :] - scale_VV[:, : self.bands]

    def is_noise(self, difference_VC: FloatArray | None = None) -> bool:
        """Return whether the dates differ by noise alone: whether their difference has no spatial structure.

        The differences between neighbours are compared with the variance (von Neumann's ratio, 1941): it is 1 where
        neighbours are independent, as in noise, and near 0 where areas differ: change, season, illumination.

        Args:
            difference_VC: its columns map the bands of both dates to differences; None: the matched difference of each
                band.
        """
        difference_VC = self.matched_VC if difference_VC is None else difference_VC
        traces = [np.trace(difference_VC.T @ part_VV @ difference_VC) for part_VV in (self.cov_VV, self.step_VV)]
        return bool(traces[1] >= NOISE_RATIO * 2 * traces[0])

    def standardise(self, image_HWC: NDArray[np.uint8], *, date: int) -> NDArray[np.float32]:
        """Return an image of date 0 or 1, scaled to mean 0 and standard deviation 1 of each band over the raster."""
        part = slice(date * self.bands, (date + 1) * self.bands)
        scaled_HWC: NDArray[np.float32] = (
            (image_HWC - self.mean_V[part].astype(np.float32)) / self.std_V[part].astype(np.float32)
        ).astype(np.float32)
        return scaled_HWC


def measure_moments(tiles: PairTiles, *, method: str, bands: int = 1, different: int | None = 1) -> PairMoments:
    """Return the moments of a pair, in one pass, and refuse a pair that cannot be compared.

    Args:
        tiles: the pair.
        method: name of the method, for error texts.
        bands: number of bands that the method needs.
        different: number of linearly independent bands that it needs (a grey image has one, however often it is
            repeated); None: all.

    Raises:
        DataError: no pixel has data in both dates, too few bands, or a date is one colour everywhere.
    """
    moments: Moments | None = None
    for at in locate_tiles(tiles):
        tile, have = at.tile, at.tile.t1_HWC.shape[2]
        if have < bands:
            raise DataError(f"{method} needs {bands} bands, the pair has {have}. Take pca_km or cva, which need one.")
        if moments is None:
            moments, steps = Moments(2 * have), Moments(2 * have)
        moments.add(np.hstack(valid_pixels(tile)))
        steps.add(_neighbour_steps(at))
    if moments is None or moments.weight == 0:
        raise DataError(
            f"{method}: no pixel has data in both dates. Check the no-data values, and that both show the same place."
        )
    found = PairMoments(int(moments.weight), moments.mean_V, moments.cov_VV, steps.second_VV)
    _refuse_uninformative(found, method=method, different=found.bands if different is None else different)
    return found


def _neighbour_steps(at: PlacedTile) -> FloatArray:
    """Return the differences within every other pair of neighbours of a row, of both dates, NV.

    Pairs begin at even columns of the raster, so that tiles of even size give those of the whole raster.
    """
    tile, first = at.tile, at.col % 2
    count = (tile.valid_HW.shape[1] - first) // 2
    left, right = (slice(first + side, first + side + 2 * count, 2) for side in (0, 1))
    both_HW = tile.valid_HW[:, left] & tile.valid_HW[:, right]
    steps = [
        image[:, right][both_HW].astype(np.float64) - image[:, left][both_HW] for image in (tile.t1_HWC, tile.t2_HWC)
    ]
    return np.hstack(steps)


def _refuse_uninformative(found: PairMoments, *, method: str, different: int) -> None:
    """Refuse a date of one colour, or linearly dependent bands."""
    for date in (0, 1):
        part = slice(date * found.bands, (date + 1) * found.bands)
        cov_CC = found.cov_VV[part, part]
        if cov_CC.diagonal().max() < 1e-9:
            raise DataError(
                f"{method}: date {date + 1} has the same colour everywhere, so there is nothing to compare. "
                "Check that it is the image that was meant, and its no-data value."
            )
        own = count_independent_bands(cov_CC)
        if own < different:
            raise DataError(
                f"{method} compares what bands say together and needs {different} different ones; of date {date + 1}'s "
                f"{found.bands} only {own} is (a grey image?). Take pca_km, cva or log_ratio, which need one."
            )


def count_independent_bands(cov_CC: FloatArray) -> int:
    """Return the number of linearly independent bands: the rank of their correlation, up to rounding of pixels."""
    std_C = np.sqrt(np.maximum(cov_CC.diagonal(), 0))
    alive_C = std_C > 1e-6
    scale_C = std_C[alive_C]
    eigenvalues = np.linalg.eigvalsh(cov_CC[np.ix_(alive_C, alive_C)] / np.outer(scale_C, scale_C))
    return int((eigenvalues > 1e-7).sum())


# ------------------------------------------------------------------------------------------------ samples
def draw_by_hash(number_N: NDArray[np.int64], *, share: float, seed: int) -> NDArray[np.bool_]:
    """Return which of the numbered items belong to a random share of all.

    A hash of number and seed decides (the finaliser of SplitMix64, Steele et al. 2014), not the order of the items, so
    the sample does not depend on how the raster is tiled.
    """
    if share >= 1:
        return np.ones(number_N.shape, bool)
    step = np.array([0x9E3779B97F4A7C15], np.uint64)
    mixed_N = (number_N.astype(np.uint64) + np.array([seed + 1], np.uint64)) * step
    mixed_N = (mixed_N ^ (mixed_N >> np.uint64(30))) * np.array([0xBF58476D1CE4E5B9], np.uint64)
    mixed_N = (mixed_N ^ (mixed_N >> np.uint64(27))) * np.array([0x94D049BB133111EB], np.uint64)
    mixed_N ^= mixed_N >> np.uint64(31)
    chosen: NDArray[np.bool_] = mixed_N < np.uint64(int(share * 2**64))
    return chosen


class HashedSample:
    """A random share of numbered vectors, which are added in parts and returned in the order of their numbers."""

    def __init__(self, *, share: float, seed: int) -> None:
        """Start without vectors; about `share` of the added ones is kept."""
        self.share, self.seed = share, seed
        self._numbers: list[NDArray[np.int64]] = []
        self._values: list[NDArray[Any]] = []

    def add(self, number_N: NDArray[np.int64], values_NV: NDArray[Any]) -> None:
        """Keep the vectors that are drawn."""
        kept_N = draw_by_hash(number_N, share=self.share, seed=self.seed)
        self._numbers.append(number_N[kept_N])
        self._values.append(values_NV[kept_N])

    @property
    def values_NV(self) -> NDArray[Any]:
        """The sample, ordered by number."""
        order = np.argsort(np.concatenate(self._numbers), kind="stable")
        values_NV: NDArray[Any] = np.concatenate(self._values)[order]
        return values_NV


def number_pixels(at: PlacedTile, *, raster_width: int) -> NDArray[np.int64]:
    """Return each pixel's number in the raster, counted row by row."""
    height, width = at.tile.valid_HW.shape
    rows, cols = np.arange(at.row, at.row + height), np.arange(at.col, at.col + width)
    return rows[:, None] * raster_width + cols
