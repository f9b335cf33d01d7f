"""How bright the dates are: range and clipping of each band, and how far the two dates differ in light.

Everything is measured on one decimated read (nearest neighbour) of the whole overlap, at the pixels that count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semicdvl.raster.io.image_reader import ImageReader
from semicdvl.raster.io.pair_reader import RasterPair

LOW_PERCENTILE, HIGH_PERCENTILE = 0.5, 99.5
"""Percentiles that are shown as a band's range."""


@dataclass(frozen=True)
class BandStatistics:
    """Values of one band, in the units of the file.

    Attributes:
        band: its 1-based number in the file.
        low, median, high: percentiles 0.5, 50 and 99.5.
        mean, std: mean and standard deviation.
        saturated_frac: share of pixels at the greatest value that the data can take or that occurs.
        dark_frac: share of pixels at 0.
    """

    band: int
    low: float
    median: float
    high: float
    mean: float
    std: float
    saturated_frac: float
    dark_frac: float


@dataclass(frozen=True)
class BandDifference:
    """How one band differs between the dates, in grey values of 255.

    Attributes:
        gain, offset: `gain * before + offset` has the median and the 5-95 % range of the after image.
        residual: median absolute difference that is left then: what no global correction removes.
        correlation: of the two dates' pixels, from -1 to 1.
        mean_difference: mean of the after image less that of the before image.
    """

    gain: float
    offset: float
    residual: float
    correlation: float
    mean_difference: float


@dataclass(frozen=True)
class ImageRadiometry:
    """What one date holds on the overlap: share with data, share that is an untagged black border, and its bands."""

    data_frac: float
    black_border_frac: float
    bands: tuple[BandStatistics, ...]


@dataclass(frozen=True)
class PairRadiometry:
    """Both dates, what they have in common, and their difference (none if they have no pixel in common)."""

    before: ImageRadiometry
    after: ImageRadiometry
    common_frac: float
    bands: tuple[BandDifference, ...]


def compare_radiometry(pair: RasterPair) -> PairRadiometry:
    """Measure both dates of an opened pair and their difference.

    Raises:
        InputError: a file is damaged.
    """
    samples = [(date.read_sample().data_CHW, date.read_sample().usable_HW) for date in (pair.before, pair.after)]
    both_HW = samples[0][1] & samples[1][1]
    seen = [
        ImageRadiometry(float(valid_HW.mean()), date.measure_border_frac(), _measure_bands(date, data_CHW[:, valid_HW]))
        for date, (data_CHW, valid_HW) in zip((pair.before, pair.after), samples, strict=True)
    ]
    grey_CN = [
        (data_CHW if date.stretch is None else date.stretch(data_CHW))[:, both_HW].astype(np.float64)
        for date, (data_CHW, _) in zip((pair.before, pair.after), samples, strict=True)
    ]
    bands = tuple(_compare_band(*band) for band in zip(*grey_CN, strict=True)) if both_HW.any() else ()
    return PairRadiometry(seen[0], seen[1], float(both_HW.mean()), bands)


def _measure_bands(date: ImageReader, values_CN: NDArray[Any]) -> tuple[BandStatistics, ...]:
    if values_CN.shape[1] == 0:
        return ()
    whole = values_CN.dtype.kind in "ui"
    found = []
    for band, values_N in zip(date.bands, values_CN, strict=True):
        low, median, high = (float(value) for value in np.percentile(values_N, (LOW_PERCENTILE, 50, HIGH_PERCENTILE)))
        # 12-bit data in 16 bits saturate at the greatest value that occurs, not at that of the type.
        top = min(np.iinfo(values_N.dtype).max, int(values_N.max())) if whole else float(values_N.max())
        clipped = float((values_N == top).mean()) if whole and (top == 255 or values_N.dtype != np.uint8) else 0.0
        mean, std = float(values_N.mean(dtype=np.float64)), float(values_N.std(dtype=np.float64))
        found.append(BandStatistics(band, low, median, high, mean, std, clipped, float((values_N == 0).mean())))
    return tuple(found)


def _compare_band(first_N: NDArray[Any], second_N: NDArray[Any]) -> BandDifference:
    centres = [float(np.median(values_N)) for values_N in (first_N, second_N)]
    spreads = [float(np.subtract(*np.percentile(values_N, (95, 5)))) for values_N in (first_N, second_N)]
    gain = spreads[1] / spreads[0] if min(spreads) > 0 else 1.0
    offset = centres[1] - gain * centres[0]
    stds = first_N.std(), second_N.std()
    mixed = float(np.mean((first_N - first_N.mean()) * (second_N - second_N.mean())))
    return BandDifference(
        gain=gain,
        offset=offset,
        residual=float(np.median(np.abs(gain * first_N + offset - second_N))),
        correlation=mixed / float(stds[0] * stds[1]) if min(stds) > 0 else 0.0,
        mean_difference=float(second_N.mean() - first_N.mean()),
    )
