"""Choose how data values that are not 8-bit become grey values: one linear stretch per band, the same for both dates.

Clouds, sensor saturation and specular roofs would pull plain percentiles far above the ground. So saturated values are
left out, and the limits lie no further from the middle half of the values than Tukey's outer fence (three times the
interquartile range; Tukey, "Exploratory Data Analysis", 1977).
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semicdvl.errors import ConfigError
from semicdvl.raster.radiometric_normalisation import OverviewSample, Stretch

STRETCH_CHOICES = ("auto", "each")
"""One stretch for both dates where their values are comparable, or one for each; or LOW,HIGH in data values."""
STRETCH_PERCENTILES = (0.5, 99.5)
FENCE_IQR = 3.0
MIN_HEAP_FRAC = 0.002
"""Where more values than this are equal to the largest one, the sensor (or whoever converted the file) cut them off."""
MIN_COMMON_FRAC = 0.5
"""The ranges of both dates must overlap by this share of the larger one for a common stretch."""


def parse_stretch(stretch: str) -> tuple[float, float] | None:
    """Return the limits that a setting names; None for one of `STRETCH_CHOICES`.

    Raises:
        ConfigError: it is neither.
    """
    if stretch in STRETCH_CHOICES:
        return None
    number = r"\s*(-?[\d.]+(?:e-?\d+)?)\s*"
    found = re.fullmatch(f"{number},{number}", stretch)
    limits = (float(found[1]), float(found[2])) if found else (1.0, 0.0)
    if limits[0] >= limits[1]:
        raise ConfigError(f"The stretch {stretch!r} is unknown. Give auto, each, or two data values like 200,3000.")
    return limits


def measure_stretch(*samples: OverviewSample) -> Stretch:
    """Measure the stretch on the overview samples of one date or of both, all their bands alike."""
    values_C = [np.concatenate(bands) for bands in zip(*map(_select_values, samples), strict=True)]
    low_C, high_C = zip(*map(_find_limits, values_C), strict=True)
    return Stretch(np.array(low_C, np.float64), np.array(high_C, np.float64))


def choose_stretches(before: OverviewSample, after: OverviewSample, *, stretch: str) -> tuple[Stretch, Stretch]:
    """Return the stretches of both dates: the same one if the setting and the values allow it."""
    limits = parse_stretch(stretch)
    if limits is not None:
        low_C, high_C = (np.full(len(before.data_CHW), limit) for limit in limits)
        return Stretch(low_C, high_C), Stretch(low_C, high_C)
    each = measure_stretch(before), measure_stretch(after)
    if stretch == "each" or before.data_CHW.dtype != after.data_CHW.dtype or not _have_common_range(*each):
        return each
    common = measure_stretch(before, after)
    return common, common


def _select_values(sample: OverviewSample) -> list[NDArray[np.float64]]:
    """Return the values of each band where there is data, saturated ones left out."""
    data_CHW, valid_HW = sample.data_CHW, sample.valid_HW
    not_black_HW = valid_HW & (data_CHW != 0).any(axis=0)  # an untagged black border would pull the lower limit to 0
    shown_HW = not_black_HW if not_black_HW.any() else valid_HW
    return [_leave_out_saturated(band_HW[shown_HW]).astype(np.float64) for band_HW in data_CHW]


def _leave_out_saturated(values_N: NDArray[Any]) -> NDArray[Any]:
    """Return the values below the largest one if that is the end of the scale, or many values are heaped on it."""
    if not values_N.size:
        return values_N
    largest_N = values_N == values_N.max()
    is_end = values_N.dtype.kind in "iu" and values_N.max() == np.iinfo(values_N.dtype).max
    if (is_end or largest_N.mean() > MIN_HEAP_FRAC) and not largest_N.mean() > 0.5:
        return np.asarray(values_N[~largest_N])
    return values_N


def _find_limits(values_N: NDArray[np.float64]) -> tuple[float, float]:
    """Return the limits of one band."""
    if not values_N.size:
        return 0.0, 1.0
    low, first, third, high = np.percentile(values_N, (STRETCH_PERCENTILES[0], 25, 75, STRETCH_PERCENTILES[1]))
    fence = FENCE_IQR * (third - first)
    if fence > 0:
        low, high = max(low, first - fence), min(high, third + fence)
    return float(low), float(high)


def _have_common_range(before: Stretch, after: Stretch) -> bool:
    """Tell whether the ranges of both dates overlap so far, in every band, that they are in the same unit."""
    shared_C = np.minimum(before.high_C, after.high_C) - np.maximum(before.low_C, after.low_C)
    larger_C = np.maximum(before.high_C - before.low_C, after.high_C - after.low_C)
    return bool((shared_C >= MIN_COMMON_FRAC * larger_C).all())
