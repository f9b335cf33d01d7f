"""Measure the radiometry of a pair: range and saturation of each band, and how the two images differ.

Everything is measured on one decimated read (nearest neighbour) of the whole overlap, at the pixels with data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semicdvl.raster.io.pair_reader import RasterPair

LOW_PERCENTILE, HIGH_PERCENTILE = 0.5, 99.5
"""Percentiles that are given as the range of a band."""
GREY_RANGE_DN, GREY_FRAC = 2, 0.995
"""An image is grey where red, green and blue of so many of its pixels differ by no more than this."""


@dataclass(frozen=True)
class BandStatistics:
    """Statistics of one band, in the units of the file.

    Attributes:
        band: its 1-based number in the file.
        low, median, high: percentiles 0.5, 50 and 99.5.
        mean, std: mean and standard deviation.
        saturated_frac: share of pixels at the greatest value of the data type or the greatest one that occurs.
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
    """How one band differs between the images, in grey values of 255.

    Attributes:
        gain, offset: `gain * before + offset` has the median and the 5-95 % range of the after image.
        residual: median absolute difference that remains: what no global correction removes.
        correlation: of the two images' pixels, from -1 to 1.
        mean_difference: mean of the after image minus that of the before image.
    """

    gain: float
    offset: float
    residual: float
    correlation: float
    mean_difference: float


@dataclass(frozen=True)
class ImageRadiometry:
    """One image on the overlap.

    Attributes:
        data_frac: share of the overlap with data.
        black_border_frac: share that is a black border without a no-data tag.
        bands: statistics of its bands; none where no pixel has data.
        is_grey: whether red, green and blue are equal, to what compression changes: a black and white image.
    """

    data_frac: float
    black_border_frac: float
    bands: tuple[BandStatistics, ...]
    is_grey: bool = False


@dataclass(frozen=True)
class PairRadiometry:
    """Both images on the overlap.

    Attributes:
        before, after: each image by itself.
        common_frac: share of the overlap with data in both.
        bands: difference of each band; none where no pixel has data in both.
        equal_frac: share of the pixels with data in both whose grey values are equal in all bands.
    """

    before: ImageRadiometry
    after: ImageRadiometry
    common_frac: float
    bands: tuple[BandDifference, ...]
    equal_frac: float = 0.0


def compare_radiometry(pair: RasterPair) -> PairRadiometry:
    """Measure the radiometry of both images of an open pair and their difference.

    Raises:
        InputError: the pixels of a file cannot be read.
    """
    readers = pair.before, pair.after
    samples = [(reader.read_sample().data_CHW, reader.read_sample().usable_HW) for reader in readers]
    both_HW = samples[0][1] & samples[1][1]
    images, grey_CN = [], []
    for reader, (data_CHW, usable_HW) in zip(readers, samples, strict=True):
        seen = zip(reader.bands, data_CHW[:, usable_HW], strict=True) if usable_HW.any() else ()
        statistics = tuple(_measure_band(band, values_N) for band, values_N in seen)
        grey_CHW = data_CHW if reader.stretch is None else reader.stretch(data_CHW)
        few_colours_N = np.ptp(grey_CHW[:3, usable_HW], axis=0) <= GREY_RANGE_DN
        is_grey = few_colours_N.size > 0 and bool(few_colours_N.mean() >= GREY_FRAC)
        images.append(ImageRadiometry(float(usable_HW.mean()), reader.measure_border_frac(), statistics, is_grey))
        grey_CN.append(grey_CHW[:, both_HW].astype(np.float64))
    bands = tuple(_compare_band(*band) for band in zip(*grey_CN, strict=True)) if both_HW.any() else ()
    equal_frac = float((grey_CN[0] == grey_CN[1]).all(axis=0).mean()) if both_HW.any() else 0.0
    return PairRadiometry(images[0], images[1], float(both_HW.mean()), bands, equal_frac)


def _measure_band(band: int, values_N: NDArray[Any]) -> BandStatistics:
    low, median, high = (float(value) for value in np.percentile(values_N, (LOW_PERCENTILE, 50, HIGH_PERCENTILE)))
    saturated_frac = 0.0
    if values_N.dtype.kind in "ui":
        # 12-bit data in 16 bits saturate at the greatest value that occurs, not at that of the data type.
        top = min(np.iinfo(values_N.dtype).max, int(values_N.max()))
        if top == 255 or values_N.dtype != np.uint8:
            saturated_frac = float((values_N == top).mean())
    mean, std = float(values_N.mean(dtype=np.float64)), float(values_N.std(dtype=np.float64))
    return BandStatistics(band, low, median, high, mean, std, saturated_frac, float((values_N == 0).mean()))


def _compare_band(before_N: NDArray[Any], after_N: NDArray[Any]) -> BandDifference:
    medians = [float(np.median(values_N)) for values_N in (before_N, after_N)]
    spreads = [float(np.subtract(*np.percentile(values_N, (95, 5)))) for values_N in (before_N, after_N)]
    gain = spreads[1] / spreads[0] if min(spreads) > 0 else 1.0
    offset = medians[1] - gain * medians[0]
    stds = before_N.std(), after_N.std()
    covariance = float(np.mean((before_N - before_N.mean()) * (after_N - after_N.mean())))
    return BandDifference(
        gain=gain,
        offset=offset,
        residual=float(np.median(np.abs(gain * before_N + offset - after_N))),
        correlation=covariance / float(stds[0] * stds[1]) if min(stds) > 0 else 0.0,
        mean_difference=float(after_N.mean() - before_N.mean()),
    )
