"""Measure the shift between the images of a pair on windows spread over the overlap.

First the cross spectra of large windows are summed: one peak stands out of the sum where no single window has one, as
between summer and winter or before and after a storm. Then each window is measured around that peak, and those that
agree with their neighbours give the median, the spread and the field of local shifts. Only the windows are read, at
most `MAX_WINDOWS` of them: memory does not grow with the raster, and time hardly does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial, reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from semicdvl.raster.grid import Grid, measure_map_unit_m, measure_offset_m
from semicdvl.raster.io.pair_reader import RasterPair
from semicdvl.raster.registration.phase_correlation import (
    CorrelationPeak,
    compute_cross_spectrum,
    compute_gradient_directions,
    find_peak,
)
from semicdvl.raster.registration.shift import (
    MIN_PEAK_SIGMAS,
    NEIGHBOUR_COUNT,
    LocalShift,
    Shift,
    find_neighbours,
)

MAX_WINDOWS = 64
MAX_COARSE_WINDOWS = 16
COARSE_WINDOW_PX, FINE_WINDOW_PX = 512, 256
MIN_WINDOW_PX = 64
SEARCH_RADIUS_PX = 16.0
"""How far from the common shift the shift of a single window may be."""
AGREEMENT_PX = 1.5
"""A window agrees if its shift is this close to the common shift or to the median of its neighbours."""
MIN_VALID_FRAC, MIN_TEXTURE = 0.5, 0.03
DECIMATION = 4
"""Where no peak is found at full resolution, windows this much larger are read decimated."""
THREADS = 2
"""Windows that are correlated at a time."""


def measure_shift(pair: RasterPair) -> Shift:
    """Measure the shift between the images of an open pair: roughly, then window by window around that.

    Raises:
        InputError: the pixels of a file cannot be read.
    """
    with threadpool_limits(1, user_api="blas"):  # for products this small, threads cost more than they save
        coarse, decimation = _measure_coarse(pair, decimation=1), 1
        if coarse.sigmas < MIN_PEAK_SIGMAS and min(pair.shape_hw) >= DECIMATION * FINE_WINDOW_PX:
            decimated = _measure_coarse(pair, decimation=DECIMATION)
            if decimated.sigmas >= MIN_PEAK_SIGMAS:
                coarse, decimation = decimated, DECIMATION
        found = coarse.sigmas >= MIN_PEAK_SIGMAS  # otherwise many small windows may still show a small shift
        start_px = (round(coarse.row_px * decimation), round(coarse.col_px * decimation)) if found else (0, 0)
        summed, local = _measure_fine(pair, start_px)
    if summed is None:  # displaced by the coarse shift, no window has data and texture in both images
        return Shift(sigmas=min(coarse.sigmas, MIN_PEAK_SIGMAS - 1))
    return _combine_windows(pair.grid, summed, local)


def _combine_windows(grid: Grid, summed: CorrelationPeak, local: list[LocalShift]) -> Shift:
    """Combine the peak of the sum and the shifts of the single windows."""
    agreeing = [window for window in local if window.agrees]
    if len(agreeing) < max(4, 0.5 * len(local)):  # too few for a median
        row_px, col_px = summed.row_px, summed.col_px
    else:
        row_px = float(np.median([window.row_px for window in agreeing]))
        col_px = float(np.median([window.col_px for window in agreeing]))
    distances_px = [math.hypot(window.row_px - row_px, window.col_px - col_px) for window in agreeing]
    row_m, col_m = _convert_to_metres(grid, row_px, col_px)
    return Shift(
        row_px=row_px,
        col_px=col_px,
        row_m=row_m,
        col_m=col_m,
        spread_px=float(np.median(distances_px)) if distances_px else 0.0,
        agree_frac=len(agreeing) / len(local),
        sigmas=summed.sigmas,
        ratio=summed.ratio,
        local=tuple(local),
    )


def _measure_coarse(pair: RasterPair, *, decimation: int) -> CorrelationPeak:
    """Find the peak in the summed cross spectra of a few large windows, in pixels of the decimated images."""
    side_px = min(COARSE_WINDOW_PX, *(size // decimation for size in pair.shape_hw)) // 16 * 16
    total: NDArray[Any] | None = None
    for _, _, spectrum in _iterate_cross_spectra(
        pair, side_px=side_px, max_windows=MAX_COARSE_WINDOWS, shift_px=(0, 0), decimation=decimation
    ):
        total = spectrum if total is None else total + spectrum
    return CorrelationPeak(0.0, 0.0, 0.0, 0.0, 0.0) if total is None else find_peak(total)


def _measure_fine(pair: RasterPair, start_px: tuple[int, int]) -> tuple[CorrelationPeak | None, list[LocalShift]]:
    """Measure window by window around a shift, and in the sum of the windows."""
    least_px = min(size - abs(start) for size, start in zip(pair.shape_hw, start_px, strict=True))
    side_px = FINE_WINDOW_PX
    if least_px < 2 * FINE_WINDOW_PX:
        side_px = max(MIN_WINDOW_PX, min(FINE_WINDOW_PX, least_px // 2)) // 16 * 16
    found = list(_iterate_cross_spectra(pair, side_px=side_px, max_windows=MAX_WINDOWS, shift_px=start_px))
    if not found:
        return None, []
    spectra = [spectrum for _, _, spectrum in found]
    centres = [(row + side_px / 2, col + side_px / 2) for row, col, _ in found]
    with ThreadPoolExecutor(THREADS) as threads:
        peaks = list(threads.map(partial(find_peak, max_shift_px=SEARCH_RADIUS_PX), spectra))
    summed = find_peak(reduce(np.add, spectra))
    agrees = _find_agreeing(np.array(centres), np.array([(peak.row_px, peak.col_px) for peak in peaks]), summed)
    local = [
        LocalShift(*centre, start_px[0] + peak.row_px, start_px[1] + peak.col_px, peak.height, bool(agree))
        for centre, peak, agree in zip(centres, peaks, agrees, strict=True)
    ]
    common_px = start_px[0] + summed.row_px, start_px[1] + summed.col_px
    return CorrelationPeak(*common_px, summed.height, summed.sigmas, summed.ratio), local


def _iterate_cross_spectra(
    pair: RasterPair, *, side_px: int, max_windows: int, shift_px: tuple[int, int], decimation: int = 1
) -> Iterator[tuple[int, int, NDArray[np.complex64]]]:
    """Yield row, col and cross spectrum of the windows, spread over the overlap, with data and texture in both images.

    Args:
        pair: the open pair.
        side_px: side of the windows after decimation.
        max_windows: greatest number of windows.
        shift_px: by how much the windows of the after image are displaced.
        decimation: by how much the windows are decimated.
    """
    if side_px < MIN_WINDOW_PX:
        return
    read_px = side_px * decimation
    first_row, first_col = max(0, -shift_px[0]), max(0, -shift_px[1])
    last_row, last_col = (size - read_px - max(0, shift) for size, shift in zip(pair.shape_hw, shift_px, strict=True))
    if last_row < first_row or last_col < first_col:
        return
    corners = _spread_windows((first_row, last_row), (first_col, last_col), side_px=read_px, max_windows=max_windows)
    shape_hw = None if decimation == 1 else (side_px, side_px)
    windows = (
        (
            pair.before.read(row, col, read_px, read_px, shape_hw=shape_hw),
            pair.after.read(row + shift_px[0], col + shift_px[1], read_px, read_px, shape_hw=shape_hw),
        )
        for row, col in corners
    )
    with ThreadPoolExecutor(THREADS) as threads:  # they compute what this thread has read
        for (row, col), spectrum in zip(corners, threads.map(_correlate_dates, windows), strict=True):
            if spectrum is not None:
                yield row, col, spectrum


_ReadWindow = tuple[NDArray[np.uint8], NDArray[np.bool_]]
"""The pixels of a window, HWC, and where they are valid, HW."""


def _correlate_dates(dates: tuple[_ReadWindow, _ReadWindow]) -> NDArray[np.complex64] | None:
    """Return the cross spectrum of a window of both dates; None where one has too little data or texture."""
    directions = []
    for image_HWC, valid_HW in dates:
        if valid_HW.mean() < MIN_VALID_FRAC:
            return None
        directions.append(compute_gradient_directions(image_HWC, valid_HW))
        if np.abs(directions[-1]).mean() < MIN_TEXTURE:
            return None
    return compute_cross_spectrum(*directions)


def _spread_windows(
    rows: tuple[int, int], cols: tuple[int, int], *, side_px: int, max_windows: int
) -> list[tuple[int, int]]:
    """Return the corners of at most `max_windows` evenly spread windows, neighbours at least half a window apart.

    Args:
        rows: first and last row of a corner.
        cols: first and last column of a corner.
        side_px: side of the windows.
        max_windows: greatest number of windows.
    """
    lengths = [last - first for first, last in (rows, cols)]
    counts = [1 + 2 * length // side_px for length in lengths]
    if counts[0] * counts[1] > max_windows:
        ratio = math.sqrt(max_windows * (lengths[0] + side_px) / (lengths[1] + side_px))
        counts[0] = max(1, min(counts[0], math.floor(ratio)))
        counts[1] = max(1, min(counts[1], max_windows // counts[0]))
        counts[0] = max(1, min(1 + 2 * lengths[0] // side_px, max_windows // counts[1]))
    spread = [np.linspace(*ends, count).astype(int) for ends, count in zip((rows, cols), counts, strict=True)]
    return [(int(row), int(col)) for row in spread[0] for col in spread[1]]


def _find_agreeing(centres_N2: NDArray[Any], shifts_N2: NDArray[Any], summed: CorrelationPeak) -> NDArray[np.bool_]:
    """Tell which windows agree with the sum of all or with the median of their nearest neighbours."""
    from_sum = np.hypot(*(shifts_N2 - (summed.row_px, summed.col_px)).T)
    if len(centres_N2) <= NEIGHBOUR_COUNT:
        return np.asarray(from_sum <= AGREEMENT_PX)
    neighbours_NK = find_neighbours(centres_N2)
    from_neighbours = np.hypot(*(shifts_N2 - np.median(shifts_N2[neighbours_NK], axis=1)).T)
    return np.asarray(np.minimum(from_sum, from_neighbours) <= AGREEMENT_PX)


def _convert_to_metres(grid: Grid, row_px: float, col_px: float) -> tuple[float | None, float | None]:
    """Return a shift in metres on the ellipsoid at the grid's centre, with its signs; None without a CRS."""
    if grid.crs is None:
        return None, None
    if not grid.has_position_on_earth:
        unit_m = measure_map_unit_m(grid)
        return row_px * abs(grid.transform.e) * unit_m[1], col_px * abs(grid.transform.a) * unit_m[0]
    right_m, down_m = measure_offset_m(grid, row_px, col_px)
    return math.copysign(down_m, row_px), math.copysign(right_m, col_px)
