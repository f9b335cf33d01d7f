"""Choose how data values that are not 8-bit become grey values: one linear stretch per band, the same for both dates.

Values are compared as physical ones, with the scale and offset that the files' tags name. Where one date has 8 bits
and the other more, the other is brought to the first: unchanged if it holds grey values from 0 to 255 as well, and
otherwise by the gain and offset per band that most of the ground agrees on.

Clouds, sensor saturation and specular roofs would pull plain percentiles far above the ground. So saturated values are
left out, and the limits lie no further from the middle half of the values than Tukey's outer fence (three times the
interquartile range; Tukey, "Exploratory Data Analysis", 1977).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semicdvl.errors import ConfigError
from semicdvl.raster.radiometric_normalisation import RadiometricMatch, fit_radiometric_match
from semicdvl.raster.stored_values import BandScaling, OverviewSample, Stretch

STRETCH_CHOICES = ("auto", "each")
"""One stretch for both dates where their values are comparable, or one for each; or LOW,HIGH in data values."""
STRETCH_PERCENTILES = (0.5, 99.5)
FENCE_IQR = 3.0
MIN_HEAP_FRAC = 0.002
"""Where more values than this are equal to the largest one, the sensor (or whoever converted the file) cut them off."""
MAX_LOG_GAIN = float(np.log(2))
"""The gain of a match lies within this factor of the ratio of the ranges; else little of the ground agrees on it."""
MIN_COMMON_FRAC = 0.5
"""The ranges of both dates must overlap by this share of the larger one for a common stretch."""


def parse_stretch(stretch: str, *, bands: int | None = None) -> Stretch | None:
    """Return the limits that a setting names: `LOW,HIGH` for all bands, or `LOW,HIGH;LOW,HIGH;...` for each one.

    Args:
        stretch: the setting.
        bands: number of bands; None: not known, and only the words are checked.

    Returns:
        The stretch of physical values; None for one of `STRETCH_CHOICES`.

    Raises:
        ConfigError: it is neither, or names limits for another number of bands.
    """
    if stretch in STRETCH_CHOICES:
        return None
    number = r"\s*(-?[\d.]+(?:e[+-]?\d+)?)\s*"
    parts = [re.fullmatch(f"{number},{number}", part) for part in stretch.split(";")]
    limits = [(float(found[1]), float(found[2])) if found else (1.0, 0.0) for found in parts]
    if any(low >= high for low, high in limits):
        raise ConfigError(f"The stretch {stretch!r} is unknown. Give auto, each, or two data values like 200,3000.")
    count = bands or len(limits)
    if len(limits) not in (1, count):
        raise ConfigError(f"The stretch {stretch!r} is for {len(limits)} bands, but {count} are read. Give LOW,HIGH.")
    low_C, high_C = np.array(limits * (count if len(limits) == 1 else 1), np.float64).T
    return Stretch(low_C, high_C)


def format_stretch(stretch: Stretch) -> str:
    """Return the setting that names the limits of a stretch exactly."""
    limits = zip(stretch.low_C.tolist(), stretch.high_C.tolist(), strict=True)
    return ";".join(f"{low!r},{high!r}" for low, high in limits)


def measure_stretch(*samples: OverviewSample) -> Stretch:
    """Measure the stretch on the overview samples of one date or of both, all their bands alike."""
    return _measure_values(*map(_select_values, samples))


def _measure_values(*dates: list[NDArray[np.float64]]) -> Stretch:
    """Measure the stretch on the values of the bands of one date or of both."""
    values_C = [np.concatenate(bands) for bands in zip(*dates, strict=True)]
    low_C, high_C = zip(*map(_find_limits, values_C), strict=True)
    return Stretch(np.array(low_C, np.float64), np.array(high_C, np.float64))


@dataclass(frozen=True)
class StoredDate:
    """One date as its file stores it.

    Attributes:
        sample: the overview sample in stored values.
        scaling: what makes physical values of them.
    """

    sample: OverviewSample
    scaling: BandScaling

    @property
    def holds_grey_values(self) -> bool:
        """Whether it is 8-bit data."""
        return bool(self.sample.data_CHW.dtype == np.uint8)

    def select_values(self) -> list[NDArray[np.float64]]:
        """Return the physical values of each band where there is data, saturated ones left out."""
        tags = zip(_select_values(self.sample), self.scaling.scale_C, self.scaling.offset_C, strict=True)
        return [values_N * scale + offset for values_N, scale, offset in tags]


@dataclass(frozen=True)
class DateStretch:
    """How one date becomes grey values.

    Attributes:
        stretch: of stored values; None: the date is read as it is stored.
        note: what a reader of the result should know.
    """

    stretch: Stretch | None
    note: str = ""


def choose_stretches(before: StoredDate, after: StoredDate, *, stretch: str) -> tuple[DateStretch, DateStretch]:
    """Return the stretches of both dates: the same one, of physical values, if the setting and the values allow it.

    Args:
        before: date 1.
        after: date 2.
        stretch: the setting, see `parse_stretch`.
    """
    alike = before.scaling.equals(after.scaling)
    eight_bit = before.holds_grey_values and alike, after.holds_grey_values and alike
    if all(eight_bit):
        return DateStretch(None), DateStretch(None)
    chosen = _choose_physical_stretches(before, after, eight_bit, stretch)
    tags = before.scaling, after.scaling
    first, second = (
        replace(date, stretch=None if date.stretch is None else scaling.to_stored(date.stretch))
        for date, scaling in zip(chosen, tags, strict=True)
    )
    return first, second


def _choose_physical_stretches(
    before: StoredDate, after: StoredDate, eight_bit: tuple[bool, bool], stretch: str
) -> tuple[DateStretch, DateStretch]:
    """Return the stretches of physical values; `eight_bit` says which date is read as it is stored."""
    values = before.select_values(), after.select_values()
    given = parse_stretch(stretch, bands=len(values[0]))
    if given is not None:
        return _leave_8_bit((given, given), eight_bit)
    each = _measure_values(*values[:1]), _measure_values(*values[1:])
    if any(eight_bit) and stretch == "auto":
        other = _bring_to_8_bit(after, before) if eight_bit[0] else _bring_to_8_bit(before, after)
        return (DateStretch(None), other) if eight_bit[0] else (other, DateStretch(None))
    if stretch == "each":
        return _leave_8_bit(each, eight_bit)
    if not have_common_range(*each):
        return _match_units(before, after, each)
    common = _measure_values(*values)
    return DateStretch(common), DateStretch(common)


def _leave_8_bit(stretches: tuple[Stretch, Stretch], eight_bit: tuple[bool, bool]) -> tuple[DateStretch, DateStretch]:
    """Return a stretch per date, none for 8-bit data."""
    first, second = (DateStretch(None if left else stretch) for stretch, left in zip(stretches, eight_bit, strict=True))
    return first, second


def _bring_to_8_bit(date: StoredDate, grey: StoredDate) -> DateStretch:
    """Return the stretch that brings a date to the grey values of the other one, which has 8 bits."""
    values, grey_values = date.select_values(), grey.select_values()
    own, wanted = _measure_values(values), _measure_values(grey_values)
    bands = len(values)
    in_range = all(band_N.size and band_N.min() >= 0 and band_N.max() <= 255 for band_N in values)
    if in_range and have_common_range(own, wanted):
        return DateStretch(Stretch(np.zeros(bands), np.full(bands, 255.0)), "its values are grey values already")
    match = _fit_match(grey.sample, date, own, expected_gain_C=(wanted.high_C - wanted.low_C) / 255)
    if match is not None:
        note = "the other date has 8 bits: the values were matched to it, with gain and offset per band"
        return DateStretch(match.compose(own, bands), note)
    # The 0.5 and 99.5 % of both dates become equal.
    gain_C = (own.high_C - own.low_C) / np.maximum(wanted.high_C - wanted.low_C, 1.0)
    low_C = own.low_C - wanted.low_C * gain_C
    note = "the other date has 8 bits: the ranges of both were made equal per band, which is a guess"
    return DateStretch(Stretch(low_C, low_C + 255.0 * gain_C), note)


def _match_units(
    before: StoredDate, after: StoredDate, each: tuple[Stretch, Stretch]
) -> tuple[DateStretch, DateStretch]:
    """Return the stretches of dates in other units: the after image is matched to the before image if that is possible.

    Otherwise each has its own stretch, whose limits depend on what changed.
    """
    reference = replace(before.sample, data_CHW=_scale_freely(before, each[0]))
    match = _fit_match(reference, after, each[1], expected_gain_C=np.ones(len(each[0].low_C)))
    if match is None:
        note = "the values of the dates are in other units or ranges, so each date has its own stretch"
        return DateStretch(each[0]), DateStretch(each[1], note)
    note = "the values of the dates are in other units: they were matched, with gain and offset per band"
    return DateStretch(each[0]), DateStretch(match.compose(each[1], len(each[1].low_C)), note)


def _fit_match(
    reference: OverviewSample, date: StoredDate, own: Stretch, *, expected_gain_C: NDArray[np.float64]
) -> RadiometricMatch | None:
    """Fit the grey values of a date in its own stretch to a reference; None where little of the ground agrees on it."""
    match = fit_radiometric_match(reference, replace(date.sample, data_CHW=_scale_freely(date, own)))
    if match is None or (np.abs(np.log(match.gain_C / np.maximum(expected_gain_C, 1e-6))) > MAX_LOG_GAIN).any():
        return None
    return match


def _scale_freely(date: StoredDate, stretch: Stretch) -> NDArray[np.float64]:
    """Return the sample of a date in grey values of a stretch of physical values, not cut off at 0 and 255."""
    stored = date.scaling.to_stored(stretch)
    range_C = np.where(stored.high_C == stored.low_C, 1.0, stored.high_C - stored.low_C)
    return np.asarray(255.0 * (date.sample.data_CHW - stored.low_C[:, None, None]) / range_C[:, None, None], np.float64)


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
    return float(low), float(max(high, np.nextafter(low, np.inf)))  # limits of a setting differ


def have_common_range(before: Stretch, after: Stretch) -> bool:
    """Tell whether the ranges of both dates overlap so far, in every band, that they are in the same unit."""
    shared_C = np.minimum(before.high_C, after.high_C) - np.maximum(before.low_C, after.low_C)
    larger_C = np.maximum(before.high_C - before.low_C, after.high_C - after.low_C)
    return bool((shared_C >= MIN_COMMON_FRAC * larger_C).all())
