"""The measured shift between the images of a pair: overall, at single places, and what co-registers them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from semicdvl.raster.grid import Grid
from semicdvl.raster.io.pair_reader import RasterPair
from semicdvl.raster.warp import Alignment, DisplacementField

MAX_CORRECTABLE_SHIFT_PX = 100.0
"""Images that lie farther apart show different places, or are georeferenced wrongly."""
MIN_SHIFT_PX = 0.25
"""A smaller shift is not corrected: resampling would blur more than it would improve."""
MIN_PEAK_SIGMAS = 10.0
"""The correlation peak must stand out this far: unrelated real pairs reach 9.2 at most (`benchmarks/shift.py`)."""
MIN_PEAK_RATIO = 1.3
"""The peak must be this much higher than the next one: along furrows or a straight road many shifts fit as well."""
MIN_AGREE_FRAC = 0.5
"""Where fewer windows agree, a shift may be off by as much as `MAX_UNSURE_ERROR_PX`."""
MAX_UNSURE_ERROR_PX, MIN_UNSURE_SHIFT_PX = 1.0, 3.0
"""Where few windows agree, only a shift from this length on is surely one."""
NEIGHBOUR_COUNT = 6
"""Windows that count as the neighbourhood of a window."""
FIELD_NODES = 17
"""Nodes of a displacement field along each axis."""


@dataclass(frozen=True)
class LocalShift:
    """The shift at one window.

    Attributes:
        row, col: centre of the window in pixels of the overlap.
        row_px, col_px: the shift there.
        height: height of the correlation peak.
        agrees: whether it agrees with the common shift or with the neighbouring windows.
    """

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
        spread_px: median distance of the agreeing windows' shifts from it.
        agree_frac: share of the windows with texture that agree.
        sigmas: height of the summed correlation peak in standard deviations.
        ratio: height of the summed peak over that of the next best one.
        local: the shifts of the single windows.
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
        """Whether the correlation peak is significant and unambiguous."""
        return self.sigmas >= MIN_PEAK_SIGMAS and self.ratio >= MIN_PEAK_RATIO

    @property
    def is_certain(self) -> bool:
        """Whether the shift may be called one: most windows agree on it, or it is larger than its error can be.

        On synthetic pairs with noise the error is mostly below 0.4 px where half of the windows agree (0.65 px was seen
        at 58 %), and up to 1 px below.
        """
        return self.is_known and (self.agree_frac >= MIN_AGREE_FRAC or self.length_px >= MIN_UNSURE_SHIFT_PX)

    @property
    def error_px(self) -> float:
        """Twice the standard error of the median of the windows that agree; `MAX_UNSURE_ERROR_PX` where few do."""
        count = sum(window.agrees for window in self.local)
        if self.agree_frac < MIN_AGREE_FRAC or not count:
            return MAX_UNSURE_ERROR_PX
        return 2 * 1.25 * 1.48 * self.spread_px / math.sqrt(count)

    @property
    def confidence(self) -> float:
        """0 where the shift is not known, otherwise 0.25 to 1, increasing with the share of windows that agree."""
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
    def is_excessive(self) -> bool:
        """Whether most windows agree on a shift that is too large to be corrected."""
        return self.is_known and self.length_px > MAX_CORRECTABLE_SHIFT_PX and self.agree_frac >= MIN_AGREE_FRAC

    def format_length(self) -> str:
        """Return the length in words, such as "3.2 px (1.6 m)"."""
        return f"{self.length_px:.1f} px" + ("" if self.length_m is None else f" ({self.length_m:.1f} m)")

    def format_misregistration(self) -> str:
        """Return the beginning of a sentence about the shift."""
        return f"The images are misregistered by about {self.format_length()}"

    def format_doubt(self) -> str:
        """Return the end of such a sentence: how many windows agree, where that is few."""
        return f"; {self.agree_frac:.0%} of the windows agree" if self.agree_frac < MIN_AGREE_FRAC else ""

    @property
    def spread_m(self) -> float | None:
        """The spread in metres, scaled as in the direction of the shift; None without a CRS or for a shift of 0."""
        return None if self.length_m is None or not self.length_px else self.spread_px * self.length_m / self.length_px

    @cached_property
    def varies(self) -> bool:
        """Whether the shift varies smoothly over the overlap.

        It does if the neighbours predict the shift of a window much better than the median of all windows.
        """
        agreeing = [window for window in self.local if window.agrees]
        if not self.is_known or len(agreeing) < 2 * NEIGHBOUR_COUNT:
            return False
        points_N2 = np.array([(window.row, window.col) for window in agreeing])
        shifts_N2 = np.array([(window.row_px, window.col_px) for window in agreeing])
        neighbours_NK = find_neighbours(points_N2)
        from_neighbours = np.median(np.hypot(*(shifts_N2 - shifts_N2[neighbours_NK].mean(axis=1)).T))
        from_median = np.median(np.hypot(*(shifts_N2 - np.median(shifts_N2, axis=0)).T))
        return bool(from_median > 0.5 and from_neighbours < 0.6 * from_median)

    def to_alignment(self, pair: RasterPair) -> Alignment | None:
        """Return the alignment that co-registers the pair; None if the shift is not known or not worth correcting."""
        if not self.is_known or self.length_px > MAX_CORRECTABLE_SHIFT_PX:
            return None
        if self.varies:
            row_px, col_px = round(self.row_px), round(self.col_px)
            field = _fit_displacement_field(self, pair.grid, row_px=row_px, col_px=col_px)
            return Alignment(row_px, col_px, field.relative_to(-pair.row, -pair.col))
        return Alignment(self.row_px, self.col_px) if self.length_px >= MIN_SHIFT_PX else None


def find_neighbours(points_N2: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return the `NEIGHBOUR_COUNT` nearest other points of each point, the first of equally near ones.

    There are few windows: all distances take less time than the import of SciPy's trees.
    """
    distances_NN = np.hypot(*(points_N2[:, None] - points_N2).T)
    np.fill_diagonal(distances_NN, np.inf)
    return np.argsort(distances_NN, axis=1, kind="stable")[:, :NEIGHBOUR_COUNT]


def _fit_displacement_field(shift: Shift, grid: Grid, *, row_px: int, col_px: int) -> DisplacementField:
    """Fit a smooth field through the shifts of the agreeing windows, minus a translation."""
    from scipy.interpolate import RBFInterpolator

    agreeing = [window for window in shift.local if window.agrees]
    unit = max(grid.height, grid.width)
    points_N2 = np.array([(window.row, window.col) for window in agreeing]) / unit
    offsets_N2 = np.array([(window.row_px - row_px, window.col_px - col_px) for window in agreeing])
    spline = RBFInterpolator(points_N2, offsets_N2, kernel="thin_plate_spline", smoothing=1e-3)
    steps = grid.height / (FIELD_NODES - 1), grid.width / (FIELD_NODES - 1)
    axes = np.arange(FIELD_NODES) * steps[0], np.arange(FIELD_NODES) * steps[1]
    nodes = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    field = spline(nodes.reshape(-1, 2) / unit).reshape(FIELD_NODES, FIELD_NODES, 2)
    # Beyond the outermost windows a spline extrapolates without bounds.
    field = np.clip(field, offsets_N2.min(axis=0) - 1, offsets_N2.max(axis=0) + 1)
    return DisplacementField(0.0, 0.0, *steps, field.transpose(2, 0, 1).astype(np.float32))
