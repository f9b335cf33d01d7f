"""What the detector without labels knows about a pair, as maps: its decision as a logit, and what it decided from.

The residual rule (`ceg.residual.rule`) decides by thresholds, growing, opening and growing back. All of these commute
with thresholds on grey values, so the same operations on log odds instead of masks give how far a pixel is from being
decided otherwise: the margin. Ours alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from semicdvl.ceg.config import CEGSettings
from semicdvl.ceg.residual.rule import convert_to_pixels, find_residual_events, make_disc

Map = NDArray[np.float32]
"""Float32 HW."""

LEAST_SCORE = 1e-4
"""Scores are at least this, and at most 1 minus this, before they become log odds."""
EVENT_LOGIT, MARGIN_SHARE, MAX_MARGIN = 1.5, 0.25, 3.0
"""The logit without labels: +-1.5 by the decision, and a quarter of the margin, which is bounded by 3. So its sign is
the decision, and it is largest in the middle of what was found with high scores."""

CENTRE_AND_SCALE = {
    "event": (0.04, 0.2),
    "margin": (-7.1, 3.2),
    "margin, pixel by pixel": (-7.0, 3.2),
    "score where higher": (-6.1, 3.2),
    "other date's score, grown": (-7.3, 2.5),
    "feature distance": (0.5, 0.2),
    "feature distance above the ground's": (0.04, 0.35),
}
"""Input of a correction -> its mean and deviation over 72 crops of real images, by which it is standardised. Scores are
log odds. None of the inputs depends on the order of the dates."""
MAX_INPUT = 4.0
"""Bound of a standardised input."""


@dataclass(frozen=True)
class PriorMaps:
    """What the detector without labels says about a pair.

    Attributes:
        logit_HW: logit of change, float32; at least 0.75 from 0, and positive exactly on the detector's map.
        inputs_DHW: what a correction may depend on, in the order of `CENTRE_AND_SCALE`, float32.
    """

    logit_HW: Map
    inputs_DHW: NDArray[np.float32]


def compute_prior_maps(
    scores_t1_CHW: NDArray[np.floating],
    scores_t2_CHW: NDArray[np.floating],
    distance_HW: NDArray[np.floating],
    *,
    foreground: tuple[int, ...],
    settings: CEGSettings,
) -> PriorMaps:
    """Return what the detector says.

    Args:
        scores_t1_CHW: one score map per prompt at date 1, as the residual rule compares them.
        scores_t2_CHW: the same at date 2.
        distance_HW: distance of the features of the dates.
        foreground: indices of the prompts that are searched for; there are others, too.
        settings: of the residual rule, with the ground sampling distance.
    """
    event_HW = find_residual_events(
        scores_t1_CHW, scores_t2_CHW, foreground=foreground, settings=settings, distance_HW=distance_HW
    )
    dates = [_compare_words(scores_CHW, foreground, settings) for scores_CHW in (scores_t1_CHW, scores_t2_CHW)]
    margin_HW, residual_HW = measure_margins(dates[0], dates[1], settings)
    grown_HW = cv2.dilate(np.minimum(*dates), make_disc(convert_to_pixels(settings).apart_px))
    ground = float(np.median(distance_HW if event_HW.all() else distance_HW[~event_HW]))
    above_HW = (distance_HW - ground) / max(1 - ground, 0.1)
    found = (event_HW, margin_HW, residual_HW, np.maximum(*dates), grown_HW, distance_HW, above_HW)
    inputs_DHW = np.stack([np.asarray(one_HW, np.float32) for one_HW in found])
    centre_D, scale_D = np.array(list(CENTRE_AND_SCALE.values()), np.float32).T
    inputs_DHW = np.clip((inputs_DHW - centre_D[:, None, None]) / scale_D[:, None, None], -MAX_INPUT, MAX_INPUT)
    logit_HW = np.where(event_HW, EVENT_LOGIT, -EVENT_LOGIT)
    logit_HW += MARGIN_SHARE * np.clip(margin_HW, -MAX_MARGIN, MAX_MARGIN)
    return PriorMaps(logit_HW.astype(np.float32), inputs_DHW)


def measure_margins(t1_HW: Map, t2_HW: Map, settings: CEGSettings) -> tuple[Map, Map]:
    """Return by how much log odds lie above the residual rule's thresholds: after all of its steps, and pixel by pixel.

    Args:
        t1_HW: log odds of the foreground at date 1.
        t2_HW: the same at date 2.
        settings: of the residual rule.
    """
    sizes = convert_to_pixels(settings)
    apart, opening, regrow = (make_disc(size) for size in (sizes.apart_px, sizes.open_px, sizes.regrow_px))
    margins, residuals = [], []
    for own_HW, other_HW in ((t1_HW, t2_HW), (t2_HW, t1_HW)):
        found_HW = own_HW - _log_odds(settings.residual_score)
        elsewhere_HW = cv2.dilate(other_HW, apart) - _log_odds(settings.residual_other_score)
        residual_HW = np.minimum(found_HW, -elsewhere_HW)
        opened_HW = cv2.dilate(cv2.erode(residual_HW, opening), opening)
        near_HW, grown_HW = np.minimum(cv2.dilate(opened_HW, regrow), found_HW), opened_HW
        for _ in range(sizes.regrow_reach_px):
            wider_HW = cv2.dilate(grown_HW, np.ones((3, 3), np.uint8))
            grown_HW = np.maximum(opened_HW, np.minimum(wider_HW, near_HW))
        margins.append(np.asarray(grown_HW, np.float32))
        residuals.append(np.asarray(residual_HW, np.float32))
    return np.maximum(*margins), np.maximum(*residuals)


def _compare_words(scores_CHW: NDArray[np.floating], foreground: tuple[int, ...], settings: CEGSettings) -> Map:
    """Return the log odds of what is searched for; where another word wins they are below the rule's threshold."""
    others = [row for row in range(len(scores_CHW)) if row not in foreground]
    own_HW, other_HW = (_log_odds(scores_CHW[list(rows)].max(axis=0)) for rows in (foreground, others))
    return np.asarray(np.minimum(own_HW, own_HW - other_HW + _log_odds(settings.residual_score)), np.float32)


def _log_odds(score: NDArray[np.floating] | float) -> Map:
    """Return the log odds of scores."""
    bounded = np.clip(np.asarray(score, np.float32), LEAST_SCORE, 1 - LEAST_SCORE)
    return np.asarray(np.log(bounded / (1 - bounded)), np.float32)
