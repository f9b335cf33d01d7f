"""How far the dates of a pair lie beside each other, measured on windows spread over the overlap.

First the windows' cross spectra are summed: one peak stands out of the sum where no single window has one, as between
summer and winter or before and after a storm. Then each window is measured by itself around that peak, and those whose
answer fits their neighbours' give the median, the spread and the field of local shifts. Only the windows are read, at
most `MAX_WINDOWS` of them: memory does not grow with the raster, and time hardly does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyproj import Geod
from rasterio.warp import transform
from scipy.interpolate import RBFInterpolator
from scipy.spatial import KDTree
from threadpoolctl import threadpool_limits

from semicdvl.raster.grid import WGS84, Grid
from semicdvl.raster.io.image_reader import ImageReader
from semicdvl.raster.io.pair_reader import RasterPair
from semicdvl.raster.registration.phase_correlation import (
    CorrelationPeak,
    compute_cross_spectrum,
    compute_gradient_directions,
    find_peak,
    measure_texture,
)
from semicdvl.raster.warp import Alignment, DisplacementField

MAX_SHIFT_PX = 100.0
"""Images that lie farther apart are not the same place, or not placed at all."""
MIN_SHIFT_PX = 0.25
"""A shorter shift is left as it is: resampling would blur more than it mends."""
MIN_PEAK_SIGMAS = 10.0
"""The summed peak must stand out this far: unrelated real pairs reach 9.2 at most (`benchmarks/shift.py`)."""
MAX_WINDOWS = 64
MAX_COARSE_WINDOWS = 16
COARSE_WINDOW_PX, FINE_WINDOW_PX = 512, 256
MIN_PEAK_RATIO = 1.3
"""And it must be the only one: along furrows or a straight road every place fits."""
MIN_WINDOW_PX = 64
SEARCH_RADIUS_PX = 16.0
"""How far from the common shift a single window may look for its own."""
AGREEMENT_PX = 1.5
NEIGHBOUR_COUNT = 6
MIN_VALID_FRAC, MIN_TEXTURE = 0.5, 0.03
DECIMATION = 4
"""Where nothing is found at full resolution, windows this much larger are read decimated."""


@dataclass(frozen=True)
class LocalShift:
    """The shift at one window: its centre in pixels of the overlap, the shift, and whether its neighbours agree."""

    row: float
    col: float
    row_px: float
    col_px: float
    height: float
    agrees: bool


@dataclass(frozen=True)
class Shift:
    """The measured shift: what the before image shows at (r, c) lies at (r + row_px, c + col_px) in the after image.

    Attributes:
        row_px, col_px: median over the windows that agree (where fewer than half do: from the sum of all windows), in
            pixels of the before image; down and right.
        row_m, col_m: the same in metres on the ground; None without a CRS.
        spread_px: median distance of the agreeing windows from it.
        agree_frac: share of the windows with texture that agree.
        sigmas: how far the summed peak stands out, in standard deviations.
        ratio: the summed peak over the next best one.
        local: the windows' own shifts, in pixels of the overlap.
    """

    row_px: float = 0.0
    col_px: float = 0.0
    row_m: float | None = None
    col_m: float | None = None
    spread_px: float = 0.0
    agree_frac: float = 0.0
    sigmas: float = 0.0
    ratio: float = 0.0
    local: tuple[LocalShift, ...] = ()

    @property
    def is_known(self) -> bool:
        """Whether the images told their shift at all."""
        return self.sigmas >= MIN_PEAK_SIGMAS and self.ratio >= MIN_PEAK_RATIO

    @property
    def confidence(self) -> float:
        """0 where the shift is not known, else from 0.25 to 1 with the share of windows that agree."""
        return 0.25 + 0.75 * self.agree_frac if self.is_known else 0.0

    @property
    def length_px(self) -> float:
        """Length in pixels."""
        return math.hypot(self.row_px, self.col_px)

    @property
    def length_m(self) -> float | None:
        """Length in metres; None without a CRS."""
        return None if self.row_m is None or self.col_m is None else math.hypot(self.row_m, self.col_m)

    @property
    def spread_m(self) -> float | None:
        """The spread in metres, taken at the shift's own direction; None without a CRS or a length."""
        return None if self.length_m is None or not self.length_px else self.spread_px * self.length_m / self.length_px

    @cached_property
    def varies(self) -> bool:
        """Whether it changes over the place, smoothly: neighbours tell a window's shift much better than the median."""
        points = np.array([(at.row, at.col) for at in self.local if at.agrees]).reshape(-1, 2)
        shifts = np.array([(at.row_px, at.col_px) for at in self.local if at.agrees]).reshape(-1, 2)
        if not self.is_known or len(points) < 2 * NEIGHBOUR_COUNT:
            return False
        near = KDTree(points).query(points, NEIGHBOUR_COUNT + 1)[1][:, 1:]
        by_neighbours = np.median(np.hypot(*(shifts - shifts[near].mean(axis=1)).T))
        by_median = np.median(np.hypot(*(shifts - np.median(shifts, axis=0)).T))
        return bool(by_median > 0.5 and by_neighbours < 0.6 * by_median)

    def to_alignment(self, pair: RasterPair) -> Alignment | None:
        """Return what brings the after image onto the before image; None if it is not known or not worth it."""
        if not self.is_known or self.length_px > MAX_SHIFT_PX:
            return None
        if self.varies:
            row_px, col_px = round(self.row_px), round(self.col_px)
            field = _fit_displacement_field(self, pair.grid, row_px=row_px, col_px=col_px)
            return Alignment(row_px, col_px, field.relative_to(-pair.row, -pair.col))
        return Alignment(self.row_px, self.col_px) if self.length_px >= MIN_SHIFT_PX else None


def measure_shift(pair: RasterPair) -> Shift:
    """Measure the shift between the dates of an opened pair.

    Raises:
        InputError: a file is damaged.
    """
    with threadpool_limits(1, user_api="blas"):  # small products: threads wait longer than they work
        return _measure(pair)


def _measure(pair: RasterPair) -> Shift:
    """Measure roughly, then window by window around that."""
    coarse, zoom = _measure_coarse(pair, zoom=1), 1
    if coarse.sigmas < MIN_PEAK_SIGMAS and min(pair.shape_hw) >= DECIMATION * FINE_WINDOW_PX:
        wider = _measure_coarse(pair, zoom=DECIMATION)
        if wider.sigmas >= MIN_PEAK_SIGMAS:
            coarse, zoom = wider, DECIMATION
    found = coarse.sigmas >= MIN_PEAK_SIGMAS  # otherwise many small windows may still tell, if the shift is small
    start_px = (round(coarse.row_px * zoom), round(coarse.col_px * zoom)) if found else (0, 0)
    summed, local = _measure_fine(pair, start_px)
    if summed is None:
        return Shift(
            sigmas=min(coarse.sigmas, MIN_PEAK_SIGMAS - 1)
        )  # nothing is left to see at the place that was found
    return _combine_windows(pair.grid, summed, local)


def _combine_windows(grid: Grid, summed: CorrelationPeak, local: list[LocalShift]) -> Shift:
    """Put the sum and the windows together."""
    agreeing = [at for at in local if at.agrees]
    if len(agreeing) < max(4, 0.5 * len(local)):  # too few for a median
        row_px, col_px = summed.row_px, summed.col_px
    else:
        row_px, col_px = (float(np.median([getattr(at, name) for at in agreeing])) for name in ("row_px", "col_px"))
    spread = [math.hypot(at.row_px - row_px, at.col_px - col_px) for at in agreeing]
    row_m, col_m = _shift_in_metres(grid, row_px, col_px)
    return Shift(
        row_px=row_px,
        col_px=col_px,
        row_m=row_m,
        col_m=col_m,
        spread_px=float(np.median(spread)) if spread else 0.0,
        agree_frac=len(agreeing) / len(local),
        sigmas=summed.sigmas,
        ratio=summed.ratio,
        local=tuple(local),
    )


def _measure_coarse(pair: RasterPair, *, zoom: int) -> CorrelationPeak:
    """Sum the cross spectra of a few large windows and return the best fit anywhere, in pixels of `zoom`."""
    side = min(COARSE_WINDOW_PX, *(size // zoom for size in pair.shape_hw)) // 16 * 16
    total: NDArray[Any] | None = None
    for _, _, spectrum in _iterate_cross_spectra(pair, side=side, most=MAX_COARSE_WINDOWS, move_px=(0, 0), zoom=zoom):
        total = spectrum if total is None else total + spectrum
    return CorrelationPeak(0.0, 0.0, 0.0, 0.0, 0.0) if total is None else find_peak(total)


def _measure_fine(pair: RasterPair, start_px: tuple[int, int]) -> tuple[CorrelationPeak | None, list[LocalShift]]:
    """Measure window by window around a shift, and in their sum."""
    least = min(size - abs(start) for size, start in zip(pair.shape_hw, start_px, strict=True))
    side = (
        FINE_WINDOW_PX
        if least >= 2 * FINE_WINDOW_PX
        else max(MIN_WINDOW_PX, min(FINE_WINDOW_PX, least // 2)) // 16 * 16
    )
    total: NDArray[Any] | None = None
    places, peaks = [], []
    for row, col, spectrum in _iterate_cross_spectra(pair, side=side, most=MAX_WINDOWS, move_px=start_px):
        total = spectrum if total is None else total + spectrum
        peaks.append(find_peak(spectrum, max_shift_px=SEARCH_RADIUS_PX))
        places.append((row + side / 2, col + side / 2))
    if total is None:
        return None, []
    summed = find_peak(total)
    agree = _find_agreeing(np.array(places), np.array([(peak.row_px, peak.col_px) for peak in peaks]), summed)
    local = [
        LocalShift(*place, start_px[0] + peak.row_px, start_px[1] + peak.col_px, peak.height, bool(yes))
        for place, peak, yes in zip(places, peaks, agree, strict=True)
    ]
    return CorrelationPeak(
        start_px[0] + summed.row_px, start_px[1] + summed.col_px, summed.height, summed.sigmas, summed.ratio
    ), local


def _iterate_cross_spectra(
    pair: RasterPair, *, side: int, most: int, move_px: tuple[int, int], zoom: int = 1
) -> Iterator[tuple[int, int, NDArray[np.complex64]]]:
    """Give row, col and cross spectrum of windows spread over the overlap that have data and texture at both dates."""
    if side < MIN_WINDOW_PX:
        return
    tall, wide = pair.shape_hw
    first_row, first_col = max(0, -move_px[0]), max(0, -move_px[1])
    last_row, last_col = (size - side * zoom - max(0, move) for size, move in zip((tall, wide), move_px, strict=True))
    if last_row < first_row or last_col < first_col:
        return
    for row, col in _spread_windows((first_row, last_row), (first_col, last_col), side=side * zoom, most=most):
        before = _read_gradient_directions(pair.before, row, col, side=side, zoom=zoom)
        after = None
        if before is not None:
            after = _read_gradient_directions(pair.after, row + move_px[0], col + move_px[1], side=side, zoom=zoom)
        if before is not None and after is not None:
            yield row, col, compute_cross_spectrum(before, after)


def _read_gradient_directions(
    date: ImageReader, row: int, col: int, *, side: int, zoom: int
) -> NDArray[np.complex64] | None:
    """Return the directions in a window, or None where there is too little data or texture."""
    shape_hw = None if zoom == 1 else (side, side)
    image_HWC, valid_HW = date.read(row, col, side * zoom, side * zoom, shape_hw=shape_hw)
    if valid_HW.mean() < MIN_VALID_FRAC:
        return None
    found_HW = compute_gradient_directions(image_HWC, valid_HW)
    return found_HW if measure_texture(found_HW) >= MIN_TEXTURE else None


def _spread_windows(rows: tuple[int, int], cols: tuple[int, int], *, side: int, most: int) -> list[tuple[int, int]]:
    """Return at most `most` corners spread evenly, neighbours at least half a window apart."""
    lengths = [last - first for first, last in (rows, cols)]
    counts = [1 + 2 * length // side for length in lengths]
    if counts[0] * counts[1] > most:
        ratio = math.sqrt(most * (lengths[0] + side) / (lengths[1] + side))
        counts[0] = max(1, min(counts[0], math.floor(ratio)))
        counts[1] = max(1, min(counts[1], most // counts[0]))
        counts[0] = max(1, min(1 + 2 * lengths[0] // side, most // counts[1]))
    spread = [np.linspace(*ends, many).astype(int) for ends, many in zip((rows, cols), counts, strict=True)]
    return [(int(row), int(col)) for row in spread[0] for col in spread[1]]


def _find_agreeing(places_N2: NDArray[Any], shifts_N2: NDArray[Any], summed: CorrelationPeak) -> NDArray[np.bool_]:
    """Tell which windows fit the sum or the median of their nearest neighbours."""
    from_sum = np.hypot(*(shifts_N2 - (summed.row_px, summed.col_px)).T)
    if len(places_N2) <= NEIGHBOUR_COUNT:
        return np.asarray(from_sum <= AGREEMENT_PX)
    near = KDTree(places_N2).query(places_N2, NEIGHBOUR_COUNT + 1)[1][:, 1:]
    from_near = np.hypot(*(shifts_N2 - np.median(shifts_N2[near], axis=1)).T)
    return np.asarray(np.minimum(from_sum, from_near) <= AGREEMENT_PX)


def _shift_in_metres(grid: Grid, row_px: float, col_px: float) -> tuple[float | None, float | None]:
    """Return a shift in metres along the ellipsoid at the grid's centre, down and right as the pixels."""
    if grid.crs is None:
        return None, None
    row, col = grid.height / 2, grid.width / 2
    places = [grid.transform @ at for at in ((col, row), (col, row + row_px), (col + col_px, row))]
    lon, lat = transform(grid.crs, WGS84, [x for x, _ in places], [y for _, y in places])[:2]
    geod = Geod(ellps="WGS84")
    down, right = (float(geod.inv(lon[0], lat[0], lon[at], lat[at])[2]) for at in (1, 2))
    return math.copysign(down, row_px), math.copysign(right, col_px)


def _fit_displacement_field(shift: Shift, grid: Grid, *, row_px: int, col_px: int) -> DisplacementField:
    """Return a smooth field through the agreeing windows' shifts, less a translation."""
    agreeing = [at for at in shift.local if at.agrees]
    unit = max(grid.height, grid.width)
    points = np.array([(at.row, at.col) for at in agreeing]) / unit
    offsets = np.array([(at.row_px - row_px, at.col_px - col_px) for at in agreeing])
    spline = RBFInterpolator(points, offsets, kernel="thin_plate_spline", smoothing=1e-3)
    nodes = 17
    steps = grid.height / (nodes - 1), grid.width / (nodes - 1)
    at = np.stack(np.meshgrid(np.arange(nodes) * steps[0], np.arange(nodes) * steps[1], indexing="ij"), axis=-1)
    found = spline(at.reshape(-1, 2) / unit).reshape(nodes, nodes, 2)
    found = np.clip(found, offsets.min(axis=0) - 1, offsets.max(axis=0) + 1)  # beyond the windows a spline runs away
    return DisplacementField(0.0, 0.0, *steps, found.transpose(2, 0, 1).astype(np.float32))
