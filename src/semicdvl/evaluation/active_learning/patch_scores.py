"""Score every patch of a result of `detect`: how uncertain it is, and what it looks like.

Patches form a grid from the top left of the result, without overlap; only whole ones count. Rasters are read window by
window; memory grows with the number of patches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window

from semicdvl.ceg.features import FeatureExtractor
from semicdvl.data.images.files import open_image_raster
from semicdvl.errors import ConfigError, InputError
from semicdvl.evaluation.map_vs_truth import DetectedMap
from semicdvl.raster.io.pair_reader import RasterPair
from semicdvl.types import IGNORE

MAX_WINDOW_PX = 2**22
"""About the number of pixels that are read at a time."""
APPEARANCE_PX = 64
"""Longest side of a patch, decimated, for the description of its appearance."""


@dataclass(frozen=True)
class PatchScores:
    """The patches of a result with data at both dates, and their scores.

    Attributes:
        row_N: first row of each on the result.
        col_N: first column of each.
        side_px: side of a patch.
        valid_frac_N: share of the pixels with data in both dates.
        changed_frac_N: share of the pixels that are mapped as changed.
        uncertainty_N: expected share of wrong pixels, see `compute_uncertainty`.
    """

    row_N: NDArray[np.int64]
    col_N: NDArray[np.int64]
    side_px: int
    valid_frac_N: NDArray[np.float64]
    changed_frac_N: NDArray[np.float64]
    uncertainty_N: NDArray[np.float64]

    def __len__(self) -> int:
        """Return the number of patches."""
        return len(self.row_N)

    def select(self, chosen: NDArray[np.integer | np.bool_]) -> PatchScores:
        """Return some of the patches."""
        return PatchScores(
            self.row_N[chosen], self.col_N[chosen], self.side_px,
            self.valid_frac_N[chosen], self.changed_frac_N[chosen], self.uncertainty_N[chosen],
        )  # fmt: skip


def compute_uncertainty(change_HW: NDArray[np.uint8], score_HW: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return how likely each pixel is wrong, taking the score as the probability of change; 0 where there is no data.

    It is 1 - score where the map says changed, and the score where it says unchanged. Where map and score agree, it is
    0.5 at the decision boundary and 0 far from it; where they contradict each other (an object with a low score, a high
    score that a rule rejected), it is more than 0.5.
    """
    known_HW = (change_HW != IGNORE) & np.isfinite(score_HW)
    score_HW = np.clip(np.where(known_HW, score_HW, 0), 0, 1)
    found_HW: NDArray[np.float32] = np.where(known_HW, np.where(change_HW == 1, 1 - score_HW, score_HW), 0)
    return found_HW.astype(np.float32)


# ------------------------------------------------------------------------------------------------ doubt
def score_patches(result: DetectedMap, *, side_px: int) -> PatchScores:
    """Score every patch of a result.

    Raises:
        ConfigError: no whole patch fits.
        InputError: a raster of the result is missing or damaged, or their sizes differ.
    """
    height, width = result.grid.height, result.grid.width
    if min(height, width) < side_px:
        raise ConfigError(
            f"{result.out}: is {height} x {width} px, too small for a patch of {side_px} px. Give a smaller --patch-px."
        )
    parts = [_measure_window(*arrays, side_px=side_px) for arrays in _read_windows(result, side_px)]
    valid_N, changed_N, doubt_N = (np.concatenate([part[at].ravel() for part in parts]) for at in range(3))
    places = [
        (row, col)
        for row, cols in _list_windows(height, width, side_px)
        for col in range(cols.start, cols.stop, side_px)
    ]
    row_N, col_N = np.array(places, np.int64).T
    return PatchScores(row_N, col_N, side_px, valid_N, changed_N, doubt_N)


def _list_windows(height: int, width: int, side_px: int) -> Iterator[tuple[int, slice]]:
    """Yield the first row and the columns of every window: whole patches of one row of patches."""
    per_row = width // side_px
    many = max(1, MAX_WINDOW_PX // side_px**2)
    for row in range(0, height - side_px + 1, side_px):
        for first in range(0, per_row, many):
            yield row, slice(first * side_px, min(first + many, per_row) * side_px)


def _read_windows(result: DetectedMap, side_px: int) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
    """Yield change and score of every window."""
    path = result.out / "score.tif"
    with open_image_raster(result.out / "change.tif") as change, open_image_raster(path) as score:
        if (score.height, score.width) != (result.grid.height, result.grid.width):
            raise InputError(path, "has another size than change.tif", "Run `semicdvl detect` again")
        for row, cols in _list_windows(result.grid.height, result.grid.width, side_px):
            window = Window(cols.start, row, cols.stop - cols.start, side_px)
            try:
                yield change.read(1, window=window), score.read(1, window=window)
            except RasterioError as error:
                raise InputError(
                    result.out, f"pixels cannot be read ({error})", "Run `semicdvl detect` again"
                ) from error


def _measure_window(
    change_HW: NDArray[np.uint8], score_HW: NDArray[np.float32], *, side_px: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the shares of valid and of changed pixels and the mean uncertainty of every patch of a window."""
    maps = (change_HW != IGNORE, change_HW == 1, compute_uncertainty(change_HW, score_HW))
    many = change_HW.shape[1] // side_px
    means = [each.reshape(side_px, many, side_px).mean(axis=(0, 2), dtype=np.float64) for each in maps]
    return means[0], means[1], means[2]


# ------------------------------------------------------------------------------------------------ looks
def describe_patches(
    pair: RasterPair,
    patches: PatchScores,
    *,
    source: FeatureExtractor | None = None,
    shown: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> NDArray[np.float64]:
    """Return a description of the appearance of every patch, ND, each column standardised over the patches.

    Without a `source` it consists of means and standard deviations of the colours, the edges and the differences of the
    dates, which is coarse and cheap; with one, of the means of its features over the patch.

    Args:
        pair: the images, on the grid of the result.
        patches: the patches of the result.
        source: extracts features of an image; None: colours and edges.
        shown: wraps the loop to show progress.

    Raises:
        InputError: an image is damaged.
    """
    places = list(zip(patches.row_N.tolist(), patches.col_N.tolist(), strict=True))
    looks_ND = np.stack(
        [_describe_patch(pair, *places[at], patches.side_px, source) for at in shown(range(len(places)))]
    )
    standard_ND: NDArray[np.float64] = (looks_ND - looks_ND.mean(axis=0)) / np.maximum(looks_ND.std(axis=0), 1e-6)
    return standard_ND


def _describe_patch(
    pair: RasterPair, row: int, col: int, side_px: int, source: FeatureExtractor | None
) -> NDArray[np.float64]:
    """Return the description of one patch."""
    if source is not None:
        window = pair.read(row, col, side_px, side_px)
        dates = [
            source.extract_features(image_HWC).mean(axis=(1, 2), dtype=np.float64)
            for image_HWC in (window.t1_HWC, window.t2_HWC)
        ]
        return np.concatenate([dates[0] + dates[1], np.abs(dates[0] - dates[1])])
    window = pair.read(row, col, side_px, side_px, max_px=APPEARANCE_PX)
    t1_HWC, t2_HWC = (image_HWC.astype(np.float64) for image_HWC in (window.t1_HWC, window.t2_HWC))
    parts = []
    for image_HWC in (t1_HWC, t2_HWC, np.abs(t1_HWC - t2_HWC)):
        edges = [np.abs(np.diff(image_HWC, axis=axis)).mean(axis=(0, 1)) for axis in (0, 1)]
        parts += [image_HWC.mean(axis=(0, 1)), image_HWC.std(axis=(0, 1)), *edges]
    return np.concatenate(parts)


def read_patch(result: DetectedMap, name: str, row: int, col: int, side_px: int) -> NDArray[np.float32]:
    """Read a patch of a raster of the result."""
    with open_image_raster(result.out / f"{name}.tif") as raster:
        window = Window(col, row, side_px, side_px)
        values_HW: NDArray[np.float32] = raster.read(1, window=window)
    return values_HW
