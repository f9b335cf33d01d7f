"""The residual rule: what one date shows and the other does not, without matching whole objects (beyond the paper).

The paper's rule asks whether an object has any common pixel with an object of the other date, so it loses a house that
was rebuilt on old ground, and a new house whose answer merges with a house that was there before. The residual rule
compares areas instead, with hysteresis. For each date:

    found     = foreground with a score >= `residual_score`,
    elsewhere = foreground of the other date with a score >= `residual_other_score`, grown by `residual_apart_m`,
    event     = found without elsewhere, opened by `residual_open_m`, of at least `residual_area_m2`,
    change    = event grown back by up to `residual_regrow_m` inside its own object.

Where the features of the dates are known, an event under which they differ too little is left out (`appearance`).

The object of an event is the part of `found` that is connected to it; growing follows 8-connected steps inside of it,
so an event never grows into a neighbour. Lengths are radii of discs in metres. Where the ground sampling distance is
unknown, `ASSUMED_GSD_M` is assumed. Pixels beyond the edge of the raster do not count against an event: opening treats
them as part of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from semicdvl.ceg.config import CEGSettings
from semicdvl.ceg.residual.appearance import (
    DISTANCE_STEPS,
    count_ground,
    find_least_distance,
    quantise_distance,
    sum_by_label,
)
from semicdvl.ceg.rules import find_foreground

ASSUMED_GSD_M = 0.5
"""Metres per pixel where the ground sampling distance is unknown: that of most very-high-resolution images."""

Mask = NDArray[np.uint8]
"""0 or 1 per pixel, as OpenCV's morphology takes it."""


@dataclass(frozen=True)
class ResidualSizes:
    """The lengths and the area of the rule in pixels.

    Attributes:
        apart_px: how far the other date's foreground is grown.
        open_px: radius of the opening.
        area_px: smallest area of an event.
        regrow_px: how far an event is grown back inside its own object.
    """

    apart_px: float
    open_px: float
    area_px: float
    regrow_px: float

    @property
    def event_reach_px(self) -> int:
        """How far away a pixel can be that decides whether a pixel belongs to an event."""
        return math.floor(self.apart_px) + 2 * math.floor(self.open_px)

    @property
    def regrow_reach_px(self) -> int:
        """How far an event can grow back."""
        return math.floor(self.regrow_px)


def convert_to_pixels(settings: CEGSettings) -> ResidualSizes:
    """Return the sizes of the rule in pixels, at `settings.gsd_m` or else `ASSUMED_GSD_M`.

    Example:
        >>> convert_to_pixels(CEGSettings(level="residual", gsd_m=1.0))
        ResidualSizes(apart_px=2.0, open_px=2.0, area_px=12.0, regrow_px=2.0)
    """
    gsd_m = settings.gsd_m or ASSUMED_GSD_M
    return ResidualSizes(
        round(settings.residual_apart_m / gsd_m, 6),
        round(settings.residual_open_m / gsd_m, 6),
        round(settings.residual_area_m2 / gsd_m**2, 6),
        round(settings.residual_regrow_m / gsd_m, 6),
    )


@dataclass(frozen=True)
class PairForeground:
    """The foreground of both dates, each at the higher and at the lower score.

    Attributes:
        found: per date, foreground from the higher score on.
        present: per date, foreground from the lower score on.
    """

    found: tuple[Mask, Mask]
    present: tuple[Mask, Mask]


def find_residual_events(
    scores_t1_CHW: NDArray[np.floating],
    scores_t2_CHW: NDArray[np.floating],
    *,
    foreground: tuple[int, ...],
    settings: CEGSettings,
    distance_HW: NDArray[np.floating] | None = None,
) -> NDArray[np.bool_]:
    """Return the pixels of the change events of both dates, HW.

    Args:
        scores_t1_CHW: one score map per prompt at date 1.
        scores_t2_CHW: the same at date 2.
        foreground: indices of the prompts that are searched for.
        settings: scores, lengths and area of the rule, and the ground sampling distance.
        distance_HW: distance of the features of the dates (`appearance.compute_distance_map`); None: not compared.

    Example:
        >>> import numpy as np
        >>> old, both = np.zeros((1, 30, 40), np.float32), np.zeros((1, 30, 40), np.float32)
        >>> old[0, 5:20, 2:12] = 0.9  # a house of 5 m x 7.5 m at 0.5 m per pixel
        >>> both[0, 5:20, 2:30] = 0.9  # another one was built against it
        >>> scores = [np.concatenate([1 - house, house]) for house in (old, both)]
        >>> changed_HW = find_residual_events(*scores, foreground=(1,), settings=CEGSettings(level="residual"))
        >>> bool(changed_HW[12, 20]), bool(changed_HW[12, 8])
        (True, False)
    """
    sizes = convert_to_pixels(settings)
    both = find_pair_foreground(scores_t1_CHW, scores_t2_CHW, foreground=foreground, settings=settings)
    opened = find_opened_residuals(both, sizes)
    steps_HW, least = None, 0.0
    if distance_HW is not None and settings.vetoes_by_distance:
        steps_HW = quantise_distance(distance_HW, np.ones(distance_HW.shape, bool))
        least = find_least_distance(count_ground(steps_HW, opened[0] | opened[1]), settings)
    events = [_drop_small_and_alike(event_HW, sizes.area_px, steps_HW, least) for event_HW in opened]
    grown = [grow_back(event_HW, object_HW, sizes) for event_HW, object_HW in zip(events, both.found, strict=True)]
    return (grown[0] | grown[1]).astype(bool)


def find_pair_foreground(
    scores_t1_CHW: NDArray[np.floating],
    scores_t2_CHW: NDArray[np.floating],
    *,
    foreground: tuple[int, ...],
    settings: CEGSettings,
) -> PairForeground:
    """Return where the foreground concept wins at each date, with either of the two scores."""
    found, present = [], []
    for scores_CHW in (scores_t1_CHW, scores_t2_CHW):
        wins_HW, best_HW = find_foreground(scores_CHW, foreground=foreground)
        high, low = (best_HW.dtype.type(score) for score in (settings.residual_score, settings.residual_other_score))
        found.append((wins_HW & (best_HW >= high)).astype(np.uint8))
        present.append((wins_HW & (best_HW >= low)).astype(np.uint8))
    return PairForeground((found[0], found[1]), (present[0], present[1]))


def find_opened_residuals(both: PairForeground, sizes: ResidualSizes) -> tuple[Mask, Mask]:
    """Return the residuals of both dates after the opening, of any area."""
    opened = []
    for date in (0, 1):
        residual_HW = both.found[date] & ~dilate(both.present[1 - date], sizes.apart_px)
        eroded_HW = cv2.erode(residual_HW, make_disc(sizes.open_px))
        opened.append(dilate(np.asarray(eroded_HW), sizes.open_px))
    return opened[0], opened[1]


def grow_back(event_HW: Mask, object_HW: Mask, sizes: ResidualSizes) -> Mask:
    """Grow events by up to `regrow_px` inside of their objects, along paths that do not leave them."""
    near_HW = dilate(event_HW, sizes.regrow_px) & object_HW
    grown_HW, neighbours = event_HW, np.ones((3, 3), np.uint8)
    for _ in range(sizes.regrow_reach_px):
        wider_HW: Mask = np.asarray(cv2.dilate(grown_HW, neighbours), np.uint8)
        grown_HW = event_HW | (wider_HW & near_HW)
    return grown_HW


def _drop_small_and_alike(event_HW: Mask, area_px: float, steps_HW: Mask | None, least: float) -> Mask:
    """Return the mask without its 8-connected components below an area or a mean distance of the features."""
    count, labels_HW, stats, _ = cv2.connectedComponentsWithStats(event_HW, connectivity=8)
    areas_L = stats[:, cv2.CC_STAT_AREA]
    keep = areas_L >= area_px
    if steps_HW is not None:
        keep &= sum_by_label(np.asarray(labels_HW, np.int32), steps_HW, count) >= least * DISTANCE_STEPS * areas_L
    keep[0] = False
    kept_HW: Mask = keep.astype(np.uint8)[labels_HW]
    return kept_HW


def dilate(mask_HW: Mask, radius_px: float) -> Mask:
    """Return the pixels within a distance of the mask."""
    return np.asarray(cv2.dilate(mask_HW, make_disc(radius_px))).astype(np.uint8, copy=False)


def make_disc(radius_px: float) -> Mask:
    """Return the disc of a radius as a structuring element; below one pixel it is the pixel alone."""
    reach = math.floor(radius_px)
    rows, cols = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    inside_HW: Mask = (rows**2 + cols**2 <= radius_px**2).astype(np.uint8)
    return inside_HW
