"""Match the radiometry of the after image to the before image: one gain and offset per band for the whole pair.

Fitted once on decimated samples of both images, averaged over blocks of `BLOCK_SIZE` x `BLOCK_SIZE` samples so that a
misregistration of a pixel or two hardly matters. Changed ground must not pull the line: a least-trimmed-squares fit
keeps the `KEPT_FRAC` of the blocks that lie nearest to the line and fits again (C-steps; Rousseeuw and Van Driessen,
2006). The line is the reduced major axis, whose gain is the ratio of the standard deviations: ordinary least squares
would reduce the contrast wherever the two dates correlate badly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semicdvl.raster.stored_values import OverviewSample, Stretch

BLOCK_SIZE = 4
KEPT_FRAC = 0.6
"""Up to 40 % of the ground may have changed."""
MAX_TRIM_ITERATIONS = 30
MIN_BLOCKS = 64
MIN_CORRELATION = 0.3
"""Of the kept blocks; below it the images are too different for a linear relation to mean anything."""


@dataclass(frozen=True)
class RadiometricMatch:
    """How the after image was matched to the before image, in grey values 0-255: `gain * after + offset`, per band."""

    gain_C: NDArray[np.float64]
    offset_C: NDArray[np.float64]

    def __str__(self) -> str:
        """Return gain and offset of each band: `x1.10 -5, x0.98 +2, x1.00 +0`."""
        return ", ".join(f"x{gain:.2f} {offset:+.0f}" for gain, offset in zip(self.gain_C, self.offset_C, strict=True))

    def compose(self, stretch: Stretch | None, bands: int) -> Stretch:
        """Return the stretch that applies `stretch` (None: none, 8-bit data) and then this match.

        Args:
            stretch: of the image that is matched.
            bands: number of its bands.
        """
        low_C, high_C = (np.zeros(bands), np.full(bands, 255.0)) if stretch is None else (stretch.low_C, stretch.high_C)
        range_C = high_C - low_C
        new_low_C = low_C - self.offset_C * range_C / (255.0 * self.gain_C)
        return Stretch(new_low_C, new_low_C + range_C / self.gain_C)


def fit_radiometric_match(before: OverviewSample, after: OverviewSample) -> RadiometricMatch | None:
    """Fit gain and offset per band between samples of grey values 0-255.

    Returns:
        The match; None where too few blocks have data in both, or a band correlates too little.
    """
    both_HW = before.usable_HW & after.usable_HW
    before_CN, after_CN = (_average_blocks(sample.data_CHW, both_HW) for sample in (before, after))
    if before_CN.shape[1] < MIN_BLOCKS:
        return None
    lines = [_fit_line(after_N, before_N) for after_N, before_N in zip(after_CN, before_CN, strict=True)]
    fitted = [line for line in lines if line is not None]
    if len(fitted) < len(lines):
        return None
    gain_C, offset_C = np.array(fitted, np.float64).T
    return RadiometricMatch(gain_C, offset_C)


def _average_blocks(data_CHW: NDArray[Any], valid_HW: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the means (CN) of the blocks in which every sample is valid."""
    tall, wide = (size // BLOCK_SIZE for size in valid_HW.shape)
    whole_blocks = slice(tall * BLOCK_SIZE), slice(wide * BLOCK_SIZE)
    full_HW = valid_HW[whole_blocks].reshape(tall, BLOCK_SIZE, wide, BLOCK_SIZE).all(axis=(1, 3))
    blocks = data_CHW[:, *whole_blocks].reshape(-1, tall, BLOCK_SIZE, wide, BLOCK_SIZE)
    return np.asarray(blocks.mean(axis=(2, 4), dtype=np.float64)[:, full_HW])


def _fit_line(x_N: NDArray[np.float64], y_N: NDArray[np.float64]) -> tuple[float, float] | None:
    """Return gain and offset of the trimmed reduced major axis; None where x and y are too constant or uncorrelated."""
    spread_y, spread_x = (float(np.subtract(*np.percentile(values_N, (90, 10)))) for values_N in (y_N, x_N))
    if min(spread_y, spread_x) < 1.0:
        return None
    gain = spread_y / spread_x
    offset = float(np.median(y_N) - gain * np.median(x_N))
    count = int(KEPT_FRAC * len(x_N))
    kept: NDArray[np.intp] | None = None
    for _ in range(MAX_TRIM_ITERATIONS):
        distance_N = np.abs(y_N - gain * x_N - offset)
        nearest = np.sort(np.argpartition(distance_N, count)[:count])
        if kept is not None and np.array_equal(nearest, kept):
            break
        kept = nearest
        std_x, std_y = float(x_N[kept].std()), float(y_N[kept].std())
        if min(std_x, std_y) < 1e-3:
            return None
        gain = std_y / std_x
        offset = float(y_N[kept].mean() - gain * x_N[kept].mean())
    return (gain, offset) if np.corrcoef(x_N[kept], y_N[kept])[0, 1] >= MIN_CORRELATION else None
