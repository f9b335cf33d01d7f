"""Estimate the shift between two images of the same ground: sub-pixel phase correlation of gradient orientations.

Not brightness is correlated but the direction of its gradient, with the angle doubled: a roof edge stays the same edge
when sun, season or sensor turn it from dark-on-bright to bright-on-dark. The cross spectrum is whitened (phase
correlation), so that long straight edges do not blur the peak. High frequencies, which are mostly noise, are damped.

Sources: C. D. Kuglin and D. C. Hines, "The phase correlation image alignment method", 1975; A. J. Fitch et al.,
"Orientation correlation", BMVC 2002; M. Guizar-Sicairos et al., "Efficient subpixel image registration algorithms",
Optics Letters 33, 2008 (the peak refined by a matrix product). Differs from the second in the doubled angle, in the
softened magnitude (flat ground has a low weight instead of the full one) and in the whitening.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft

SMOOTH_PX = 1.0
"""Standard deviation of the Gaussian blur before gradients are computed."""
NODATA_MARGIN_PX = 4
"""Gradients this close to no-data are left out: they are caused by the edge of the data."""
HALF_WEIGHT_DN = 1.5
"""Gradient magnitude (grey values of 255 per pixel) that has half the full weight; weaker gradients have less."""
DAMPING = 0.16
"""Standard deviation, in cycles per pixel, of the Gaussian that damps high frequencies."""
FINE_STEP_PX = 0.05
PEAK_EXCLUSION_PX = 8
"""Correlation farther than this from the peak on either axis belongs to another peak."""


@dataclass(frozen=True)
class CorrelationPeak:
    """The best fit of two images.

    Attributes:
        row_px, col_px: what lies at (r, c) in the first image lies at (r + row_px, c + col_px) in the second.
        height: correlation at the peak: 1 for identical images, about 0 for unrelated ones.
        sigmas: height of the peak in standard deviations of the correlation elsewhere.
        ratio: height of the peak over that of the next best one; little over 1 where a pattern repeats itself.
    """

    row_px: float
    col_px: float
    height: float
    sigmas: float
    ratio: float


def compute_gradient_directions(image_HWC: NDArray[np.uint8], valid_HW: NDArray[np.bool_]) -> NDArray[np.complex64]:
    """Compute the doubled gradient direction as complex HW, with a magnitude from 0 (flat, no-data) to 1 (steep)."""
    bands = cv2.split(image_HWC)
    grey_HW = np.add.reduce(bands, dtype=np.float32) / np.float32(len(bands))
    if not valid_HW.all():
        grey_HW = np.where(valid_HW, grey_HW, grey_HW[valid_HW].mean() if valid_HW.any() else 0).astype(np.float32)
    grey_HW = cv2.GaussianBlur(grey_HW, (0, 0), SMOOTH_PX)
    down_HW = cv2.Sobel(grey_HW, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8)
    right_HW = cv2.Sobel(grey_HW, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8)
    gradient_HW = (right_HW + 1j * down_HW).astype(np.complex64)
    square_HW = np.square(right_HW) + np.square(down_HW)
    doubled_HW = np.square(gradient_HW) / (square_HW + np.float32(HALF_WEIGHT_DN**2))
    kernel_HW = np.ones((2 * NODATA_MARGIN_PX + 1,) * 2, np.uint8)
    inside_HW = cv2.erode(valid_HW.astype(np.uint8), kernel_HW, borderValue=1)
    return np.asarray(np.where(inside_HW > 0, doubled_HW, 0), np.complex64)


def compute_cross_spectrum(first_HW: NDArray[np.complex64], second_HW: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """Compute the whitened, damped cross spectrum of two images of gradient directions of the same size."""
    height, width = first_HW.shape
    hann_H, hann_W = (np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2 for size in (height, width))
    taper_HW = np.outer(hann_H, hann_W).astype(np.float32)
    spectra = [fft.fft2(directions_HW * taper_HW) for directions_HW in (first_HW, second_HW)]
    cross_HW = np.conj(spectra[0]) * spectra[1]
    magnitude_HW = np.abs(cross_HW)
    damping_HW = np.outer(_damping_window(height), _damping_window(width))
    # Whitened down to a floor: frequencies of next to no energy hold nothing but noise.
    floor = 0.05 * float(magnitude_HW.mean()) + 1e-12
    return np.asarray(cross_HW / (magnitude_HW + floor) * damping_HW, np.complex64)


def find_peak(cross_HW: NDArray[np.complex64], *, max_shift_px: float | None = None) -> CorrelationPeak:
    """Find the peak of the correlation in a cross spectrum, or in the sum of several.

    Args:
        cross_HW: the cross spectrum.
        max_shift_px: greatest shift on each axis; None: any.
    """
    height, width = cross_HW.shape
    correlation_HW = np.real(fft.ifft2(cross_HW))
    rows, cols = (fft.fftfreq(size, 1 / size) for size in (height, width))
    allowed_HW = np.ones(correlation_HW.shape, bool)
    if max_shift_px is not None:
        allowed_HW = np.logical_and.outer(np.abs(rows) <= max_shift_px, np.abs(cols) <= max_shift_px)
    best = int(np.argmax(np.where(allowed_HW, correlation_HW, -np.inf)))
    row, col = (int(index) for index in np.unravel_index(best, correlation_HW.shape))
    median = float(np.median(correlation_HW))
    sigma = 1.4826 * float(np.median(np.abs(correlation_HW - median))) + 1e-12
    row_px, col_px = _refine_peak(cross_HW, float(rows[row]), float(cols[col]))
    identical = float(np.outer(_damping_window(height), _damping_window(width)).sum()) / correlation_HW.size
    # The next best one does not belong to the peak; the correlation is periodic.
    others_HW = np.roll(correlation_HW, (PEAK_EXCLUSION_PX - row, PEAK_EXCLUSION_PX - col), (0, 1)).copy()
    others_HW[: 2 * PEAK_EXCLUSION_PX + 1, : 2 * PEAK_EXCLUSION_PX + 1] = -np.inf
    top = float(correlation_HW[row, col])
    ratio = top / max(float(others_HW.max()), 1e-12)
    return CorrelationPeak(row_px, col_px, top / identical, (top - median) / sigma, ratio)


def _refine_peak(cross_HW: NDArray[np.complex64], row_px: float, col_px: float) -> tuple[float, float]:
    """Refine a whole-pixel peak: evaluate the correlation on a fine grid around it, and fit a parabola to the best."""
    steps = np.arange(-1, 1 + FINE_STEP_PX / 2, FINE_STEP_PX)
    height, width = cross_HW.shape
    down = np.exp(2j * np.pi * np.outer(row_px + steps, fft.fftfreq(height)))
    right = np.exp(2j * np.pi * np.outer(fft.fftfreq(width), col_px + steps))
    fine = np.real(down @ cross_HW @ right)
    row, col = np.unravel_index(int(np.argmax(fine)), fine.shape)
    row_fine = row_px + steps[row] + FINE_STEP_PX * _find_parabola_vertex(fine[:, col], int(row))
    return float(row_fine), float(col_px + steps[col] + FINE_STEP_PX * _find_parabola_vertex(fine[row], int(col)))


def _find_parabola_vertex(values: NDArray[Any], peak: int) -> float:
    """Return the vertex of the parabola through a peak and its two neighbours, in steps from the peak."""
    if not 0 < peak < len(values) - 1:
        return 0.0
    left, top, right = (float(value) for value in values[peak - 1 : peak + 2])
    curvature = left - 2 * top + right
    return 0.5 * (left - right) / curvature if curvature < 0 else 0.0


def _damping_window(size: int) -> NDArray[np.float64]:
    return np.asarray(np.exp(-0.5 * np.square(fft.fftfreq(size) / DAMPING)))
