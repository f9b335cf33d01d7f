"""Bringing the after image to the before image's light: one gain and offset per band, for the whole pair.

Measured once on both dates' decimated samples, averaged over blocks of `BLOCK` samples so that a shift of a pixel or
two hardly matters. What changed must not pull the line: a least-trimmed-squares search keeps the `KEPT_FRAC` share of
the
blocks that lie nearest to it and fits again (C-steps; Rousseeuw and Van Driessen 2006). The line is the reduced major
axis, whose gain is the ratio of the spreads: ordinary regression takes contrast away wherever the dates agree badly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semicdvl.raster.io.image_reader import ImageReader, OverviewSample, Stretch

BLOCK_SIZE = 4
KEPT_FRAC = 0.6
"""Up to 40 % of the ground may have changed."""
MAX_ITERATIONS = 30
MIN_BLOCKS = 64
MIN_CORRELATION = 0.3
"""Of the blocks that were kept: below it the dates are too unlike for a line to mean anything."""


@dataclass(frozen=True)
class RadiometricMatch:
    """How the after image was brought to the before image's light, in grey values of 255: `gain * after + offset`."""

    gain_C: NDArray[np.float64]
    offset_C: NDArray[np.float64]

    def __str__(self) -> str:
        """Return it in words."""
        return ", ".join(f"x{gain:.2f} {offset:+.0f}" for gain, offset in zip(self.gain_C, self.offset_C, strict=True))

    def compose(self, stretch: Stretch | None, bands: int) -> Stretch:
        """Return a stretch that does what `stretch` (None: nothing) and then this do."""
        low_C, high_C = (np.zeros(bands), np.full(bands, 255.0)) if stretch is None else (stretch.low_C, stretch.high_C)
        range_C = high_C - low_C
        new_low_C = low_C - self.offset_C * range_C / (255.0 * self.gain_C)
        return Stretch(new_low_C, new_low_C + range_C / self.gain_C)


def match_radiometry(before: ImageReader, after: ImageReader) -> tuple[ImageReader, RadiometricMatch | None]:
    """Return the after date in the before date's light, and the gains and offsets; as it was and None if unlike.

    Both dates must be `prepared`.
    """
    light = fit_radiometric_match(_scale_sample(before), _scale_sample(after))
    if light is None:
        return after, None
    return replace(after, stretch=light.compose(after.stretch, len(after.bands))), light


def fit_radiometric_match(before: OverviewSample, after: OverviewSample) -> RadiometricMatch | None:
    """Measure gain and offset per band between samples of grey values; None if too little is common or alike."""
    both_HW = before.usable_HW & after.usable_HW
    before_CN, after_CN = (_average_blocks(sample.data_CHW, both_HW) for sample in (before, after))
    if before_CN.shape[1] < MIN_BLOCKS:
        return None
    lines = [_fit_line(after_N, before_N) for after_N, before_N in zip(after_CN, before_CN, strict=True)]
    found = [line for line in lines if line is not None]
    if len(found) < len(lines):
        return None
    gain_C, offset_C = np.array(found, np.float64).T
    return RadiometricMatch(gain_C, offset_C)


def _scale_sample(date: ImageReader) -> OverviewSample:
    """Return the date's sample in grey values from 0 to 255, not rounded."""
    sample = date.read_sample()
    data_CHW = sample.data_CHW.astype(np.float64)
    if date.stretch is not None:
        low_C, high_C = date.stretch.low_C[:, None, None], date.stretch.high_C[:, None, None]
        data_CHW = np.clip(255.0 * (data_CHW - low_C) / np.maximum(high_C - low_C, 1e-12), 0, 255)
    return replace(sample, data_CHW=data_CHW)


def _average_blocks(data_CHW: NDArray[Any], valid_HW: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the means of the blocks that are valid all over, CN."""
    tall, wide = (size // BLOCK_SIZE for size in valid_HW.shape)
    cut = slice(tall * BLOCK_SIZE), slice(wide * BLOCK_SIZE)
    full_HW = valid_HW[cut].reshape(tall, BLOCK_SIZE, wide, BLOCK_SIZE).all(axis=(1, 3))
    means_CHW = data_CHW[:, *cut].reshape(-1, tall, BLOCK_SIZE, wide, BLOCK_SIZE).mean(axis=(2, 4), dtype=np.float64)
    return np.asarray(means_CHW[:, full_HW])


def _fit_line(x_N: NDArray[np.float64], y_N: NDArray[np.float64]) -> tuple[float, float] | None:
    """Return gain and offset of the trimmed reduced major axis; None where there is none to speak of."""
    spread = [float(np.subtract(*np.percentile(values_N, (90, 10)))) for values_N in (y_N, x_N)]
    if min(spread) < 1.0:
        return None
    gain = spread[0] / spread[1]
    offset = float(np.median(y_N) - gain * np.median(x_N))
    kept: NDArray[np.intp] | None = None
    for _ in range(MAX_ITERATIONS):
        distance_N = np.abs(y_N - gain * x_N - offset)
        new = np.sort(np.argpartition(distance_N, int(KEPT_FRAC * len(x_N)))[: int(KEPT_FRAC * len(x_N))])
        if kept is not None and np.array_equal(new, kept):
            break
        kept = new
        deviation = float(x_N[kept].std()), float(y_N[kept].std())
        if min(deviation) < 1e-3:
            return None
        gain = deviation[1] / deviation[0]
        offset = float(y_N[kept].mean() - gain * x_N[kept].mean())
    return (gain, offset) if np.corrcoef(x_N[kept], y_N[kept])[0, 1] >= MIN_CORRELATION else None
