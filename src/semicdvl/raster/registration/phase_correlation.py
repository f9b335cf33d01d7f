"""How far one picture lies beside another of the same ground: sub-pixel phase correlation of gradient directions.

What is correlated is not brightness but the direction of its slope, with its angle doubled: a roof's edge stays the
same edge when the sun, the season or the sensor makes it dark on bright instead of bright on dark. The spectrum is
whitened (phase correlation), so that long straight things don't blur the peak, and damped towards fine detail, which
is noise.

Sources: C. D. Kuglin and D. C. Hines, "The phase correlation image alignment method", 1975; A. J. Fitch et al.,
"Orientation correlation", BMVC 2002; M. Guizar-Sicairos et al., "Efficient subpixel image registration algorithms",
Optics Letters 33, 2008 (the refined peak by a matrix product). Differs from the second in the doubled angle, in the
softened magnitude (flat ground counts little instead of in full) and in the whitening.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft

SMOOTH_PX = 1.0
"""Gaussian blur before slopes are taken."""
NODATA_MARGIN_PX = 4
"""Slopes this close to ground without data are left out: they are the edge of the data and no thing on the ground."""
HALF_WEIGHT_DN = 1.5
"""Slopes (grey values of 255 per pixel) that count half; weaker ones count less."""
DAMPING = 0.16
"""Standard deviation in cycles per pixel of the Gaussian by which fine detail is damped."""
FINE_STEP_PX = 0.05
PEAK_EXCLUSION_PX = 8
"""A fit farther away than this on either axis is another one."""


@dataclass(frozen=True)
class CorrelationPeak:
    """Where two pictures fit best.

    Attributes:
        row_px, col_px: what lies at (r, c) in the first picture lies at (r + row_px, c + col_px) in the second.
        height: correlation there: 1 for equal pictures, around 0 for unrelated ones.
        sigmas: the same in standard deviations of the correlation elsewhere.
        ratio: the same over the next best fit elsewhere; little over 1 where a pattern repeats itself.
    """

    row_px: float
    col_px: float
    height: float
    sigmas: float
    ratio: float


def compute_gradient_directions(image_HWC: NDArray[np.uint8], valid_HW: NDArray[np.bool_]) -> NDArray[np.complex64]:
    """Return the gradient's doubled direction as complex HW, of magnitude 0 (flat, or no data) to 1 (steep)."""
    grey_HW = image_HWC.astype(np.float32).mean(axis=2)
    if not valid_HW.all():
        grey_HW = np.where(valid_HW, grey_HW, grey_HW[valid_HW].mean() if valid_HW.any() else 0).astype(np.float32)
    grey_HW = cv2.GaussianBlur(grey_HW, (0, 0), SMOOTH_PX)
    down_HW = cv2.Sobel(grey_HW, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8)
    right_HW = cv2.Sobel(grey_HW, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8)
    slope_HW = (right_HW + 1j * down_HW).astype(np.complex64)
    square_HW = np.square(right_HW) + np.square(down_HW)
    doubled_HW = np.square(slope_HW) / (square_HW + np.float32(HALF_WEIGHT_DN**2))
    inside_HW = cv2.erode(valid_HW.astype(np.uint8), np.ones((2 * NODATA_MARGIN_PX + 1,) * 2, np.uint8), borderValue=1)
    return np.asarray(np.where(inside_HW > 0, doubled_HW, 0), np.complex64)


def measure_texture(directions_HW: NDArray[np.complex64]) -> float:
    """Return how much of a picture has slopes, from 0 to 1."""
    return float(np.abs(directions_HW).mean())


def compute_cross_spectrum(first_HW: NDArray[np.complex64], second_HW: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """Return the whitened, damped cross spectrum of two direction pictures of one size."""
    height, width = first_HW.shape
    taper_HW = np.outer(_hann_window(height), _hann_window(width)).astype(np.float32)
    spectra = [fft.fft2(picture_HW * taper_HW) for picture_HW in (first_HW, second_HW)]
    cross_HW = np.conj(spectra[0]) * spectra[1]
    size_HW = np.abs(cross_HW)
    damping_HW = np.outer(_lowpass(height), _lowpass(width))
    # Whitened up to a floor: frequencies in which there is next to nothing hold nothing but noise.
    floor = 0.05 * float(size_HW.mean()) + 1e-12
    return np.asarray(cross_HW / (size_HW + floor) * damping_HW, np.complex64)


def find_peak(cross_HW: NDArray[np.complex64], *, max_shift_px: float | None = None) -> CorrelationPeak:
    """Return the best fit that a cross spectrum (or a sum of several) holds, at most `max_shift_px` away on each
    axis."""
    height, width = cross_HW.shape
    surface_HW = np.real(fft.ifft2(cross_HW))
    rows, cols = (fft.fftfreq(size, 1 / size) for size in (height, width))
    allowed_HW = np.ones(surface_HW.shape, bool)
    if max_shift_px is not None:
        allowed_HW = np.logical_and.outer(np.abs(rows) <= max_shift_px, np.abs(cols) <= max_shift_px)
    at = np.unravel_index(int(np.argmax(np.where(allowed_HW, surface_HW, -np.inf))), surface_HW.shape)
    middle = float(np.median(surface_HW))
    spread = 1.4826 * float(np.median(np.abs(surface_HW - middle))) + 1e-12
    row_px, col_px = _refine_peak(cross_HW, float(rows[at[0]]), float(cols[at[1]]))
    full = float(np.outer(_lowpass(height), _lowpass(width)).sum()) / surface_HW.size
    top = float(surface_HW[at])
    ratio = top / max(_second_best(surface_HW, int(at[0]), int(at[1])), 1e-12)
    return CorrelationPeak(row_px, col_px, top / full, (top - middle) / spread, ratio)


def _second_best(surface_HW: NDArray[Any], row: int, col: int) -> float:
    """Return the greatest correlation that does not belong to the peak; the surface goes on over its edges."""
    others_HW = np.roll(surface_HW, (PEAK_EXCLUSION_PX - row, PEAK_EXCLUSION_PX - col), (0, 1)).copy()
    others_HW[: 2 * PEAK_EXCLUSION_PX + 1, : 2 * PEAK_EXCLUSION_PX + 1] = -np.inf
    return float(others_HW.max())


def _refine_peak(cross_HW: NDArray[np.complex64], row_px: float, col_px: float) -> tuple[float, float]:
    """Evaluate the correlation on a fine grid around a whole-pixel peak, and a parabola through the best of that."""
    steps = np.arange(-1, 1 + FINE_STEP_PX / 2, FINE_STEP_PX)
    height, width = cross_HW.shape
    down = np.exp(2j * np.pi * np.outer(row_px + steps, fft.fftfreq(height)))
    right = np.exp(2j * np.pi * np.outer(fft.fftfreq(width), col_px + steps))
    fine = np.real(down @ cross_HW @ right)
    row, col = np.unravel_index(int(np.argmax(fine)), fine.shape)
    row_fine = row_px + steps[row] + FINE_STEP_PX * _parabola_vertex(fine[:, col], int(row))
    return float(row_fine), float(col_px + steps[col] + FINE_STEP_PX * _parabola_vertex(fine[row], int(col)))


def _parabola_vertex(values: NDArray[Any], at: int) -> float:
    """Return where the parabola through a peak and its neighbours has its top, in steps from the peak."""
    if not 0 < at < len(values) - 1:
        return 0.0
    left, top, right = (float(value) for value in values[at - 1 : at + 2])
    bend = left - 2 * top + right
    return 0.5 * (left - right) / bend if bend < 0 else 0.0


def _hann_window(size: int) -> NDArray[np.float64]:
    return np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2


def _lowpass(size: int) -> NDArray[np.float64]:
    return np.asarray(np.exp(-0.5 * np.square(fft.fftfreq(size) / DAMPING)))
