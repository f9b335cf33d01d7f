"""From a VLM's raw scores to the probability that an object changed, without labels.

An object that change event generation calls an event may be three things: a real object that came or went (at its own
date it looks like the objects that stay, at the other date like the ground); a flicker, something that just reached the
least score at one date; or an object that stands at both dates and was overlooked at one. The pair itself shows what
each looks like: the objects that are found at both dates did not change, the ground around did not either, and a
flicker is by its nature a small object just above the threshold. So the events are taken as a mixture of three normal
distributions, over

    the logit of the mean foreground score at the object's own date, and the logarithm of its area (correlated),
    the logit of the mean foreground score over the same pixels at the other date,

whose priors are these populations. Expectation maximisation (maximum a posteriori: a prior counts as
`PRIOR_WEIGHT_OBJECTS`
objects) fits it to the events and the objects that stay, together; the posterior of the first kind is the probability
of change, and 0.5 the threshold of least error (Bayes). Estimating the shares of transitions from the pair alone goes
back to Bruzzone and Serpico 1997 ("An iterative technique for the detection of land-cover transitions in multitemporal
remote-sensing images", IEEE TGRS 35). There the classes are those of pixels, with densities from labels of one date;
here they are kinds of objects, and there are no labels at all.

A pair with few objects, or none that stay, shows too little. So every population counts beside a prior, and the prior
of the objects that stay is what they look like as a rule (`TYPICAL_OBJECT`). The constants were chosen on four made-up
cities
(seeds 20-23), whole and cut into tiles of 256 px.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semicdvl.errors import DataError

PRIOR_WEIGHT_OBJECTS = 40.0
"""What a prior weighs, in objects: it holds a kind in its place where a pair shows few of it."""
MIN_PERSISTENT_OBJECTS = 10
"""With fewer objects that stay a reader is told that the probabilities rest on what is usual."""
TYPICAL_OBJECT = (1.9, 0.4, 4.0, 1.2)
"""An object as a rule: mean and deviation of the logit of its score, then of the logarithm of area / least area."""
TYPICAL_OTHER_DATE = (1.55, 0.62**2)
"""The same object's score at the other date: mean and variance of the logit."""
TYPICAL_WEIGHT_OBJECTS = 20.0
"""What this weighs against the objects that stay."""
OUTLIER_FRAC = 0.05
"""Share of the objects that are none of the three kinds: probabilities stay between this and 1 - this."""
MIN_SCORE = 0.0025
"""Scores below are as good as none (half a step of the scores that are kept)."""
NEW_OBJECT_VARIANCE_FACTOR = 2.0
"""New objects vary more than those that stay: variances of these, times this, are the prior of what came or went."""
MIN_VARIANCE = 0.05
"""Added to every variance: no population of a pair is a point."""
MAX_ITERATIONS, TOLERANCE = 500, 1e-7


@dataclass(frozen=True)
class ObjectEvidence:
    """What is known of N objects.

    Attributes:
        own_N: mean foreground score over its pixels at the date at which it was found, in [0, 1].
        other_N: the same at the other date.
        area_px_N: its pixels.
    """

    own_N: NDArray[np.float64]
    other_N: NDArray[np.float64]
    area_px_N: NDArray[np.float64]

    def __len__(self) -> int:
        """Return the number of objects."""
        return len(self.own_N)


@dataclass(frozen=True)
class BackgroundScores:
    """What foreground scores are where there is no object: mean and variance of their logits."""

    mean: float
    variance: float


@dataclass(frozen=True)
class CalibrationResult:
    """Probabilities of change of the events.

    Attributes:
        probability_N: of each, in [0, 1].
        summary: how they came about, for a reader.
    """

    probability_N: NDArray[np.float64]
    summary: str


@dataclass(frozen=True)
class _ObjectKind:
    """One normal distribution: own score and area together, the other date's score by itself."""

    mean_2: NDArray[np.float64]
    covariance_22: NDArray[np.float64]
    other_mean: float
    other_variance: float

    def log_density(self, own_N2: NDArray[np.float64], other_N: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the logarithm of the density of each object."""
        off_N2 = own_N2 - self.mean_2
        far_N = np.einsum("ni,ij,nj->n", off_N2, np.linalg.inv(self.covariance_22), off_N2)
        far_N = far_N + (other_N - self.other_mean) ** 2 / self.other_variance
        volume = np.linalg.slogdet(self.covariance_22)[1] + np.log(self.other_variance)
        density_N: NDArray[np.float64] = -0.5 * (far_N + volume + 3 * np.log(2 * np.pi))
        return density_N

    def fit(
        self,
        own_N2: NDArray[np.float64],
        other_N: NDArray[np.float64],
        weight_N: NDArray[np.float64],
        *,
        prior: float = PRIOR_WEIGHT_OBJECTS,
    ) -> _ObjectKind:
        """Return the most probable distribution of weighted objects, with this one as a prior of so many objects."""
        total = float(weight_N.sum()) + prior
        mean_2 = (weight_N @ own_N2 + prior * self.mean_2) / total
        off_N2, moved_2 = own_N2 - mean_2, self.mean_2 - mean_2
        scatter_22 = (weight_N[:, None] * off_N2).T @ off_N2
        scatter_22 += prior * (self.covariance_22 + np.outer(moved_2, moved_2))
        other = float(weight_N @ other_N + prior * self.other_mean) / total
        spread = float(weight_N @ (other_N - other) ** 2)
        spread += prior * (self.other_variance + (self.other_mean - other) ** 2)
        return _ObjectKind(mean_2, scatter_22 / total, other, spread / total)


def logit(score: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return log(score / (1 - score)), scores kept off 0 and 1 by `MIN_SCORE`."""
    kept = np.clip(np.asarray(score, np.float64), MIN_SCORE, 1 - MIN_SCORE)
    found: NDArray[np.float64] = np.log(kept / (1 - kept))
    return found


def calibrate(
    events: ObjectEvidence,
    persistent: ObjectEvidence,
    background: BackgroundScores,
    *,
    least_score: float,
    least_area_px: float,
) -> CalibrationResult:
    """Return the probability that each event is a change.

    Args:
        events: what change event generation found: objects that met nothing at the other date.
        persistent: objects that are found at both dates.
        background: where there is no object.
        least_score: foreground score from which a pixel belongs to an object.
        least_area_px: pixels of the smallest object.

    Raises:
        DataError: scores that are no numbers, or objects without pixels.
    """
    for known in (events, persistent):
        if not all(np.isfinite(each).all() for each in (known.own_N, known.other_N)) or (known.area_px_N <= 0).any():
            raise DataError("calibration wants scores that are numbers and objects of at least one pixel.")
    if not len(events):
        return CalibrationResult(np.zeros(0), "there was no event to judge")
    kinds = _build_priors(persistent, background, least_score=least_score, least_area_px=least_area_px)
    share_NK = _fit_mixture(events, persistent, kinds)
    probability_N = OUTLIER_FRAC + (1 - 2 * OUTLIER_FRAC) * share_NK[: len(events), 0]
    kept = int((probability_N >= 0.5).sum())
    words = (
        f"learned from {len(events)} events and {len(persistent)} objects that stay; {kept} events are probably changes"
    )
    if len(persistent) < MIN_PERSISTENT_OBJECTS:
        words += "; so few that stay say little, so the probabilities rest on what is usual"
    return CalibrationResult(probability_N, words)


def _build_priors(
    stays: ObjectEvidence, ground: BackgroundScores, *, least_score: float, least_area_px: float
) -> tuple[_ObjectKind, _ObjectKind, _ObjectKind]:
    """Return what the kinds look like before the events are seen: came or went, flicker, overlooked."""
    smallest = np.log(max(least_area_px, 1.0))
    usual = _ObjectKind(
        np.array([TYPICAL_OBJECT[0], smallest + TYPICAL_OBJECT[2]]),
        np.diag([TYPICAL_OBJECT[1] ** 2, TYPICAL_OBJECT[3] ** 2]),
        *TYPICAL_OTHER_DATE,
    )
    seen = usual.fit(*_measure_objects(stays), np.ones(len(stays)), prior=TYPICAL_WEIGHT_OBJECTS)
    floor_22 = np.eye(2) * MIN_VARIANCE
    came = _ObjectKind(
        seen.mean_2,
        NEW_OBJECT_VARIANCE_FACTOR * seen.covariance_22 + floor_22,
        ground.mean,
        ground.variance + MIN_VARIANCE,
    )
    # something that just exists: half a logit above the least score, twice the smallest area, and anything but sure
    # to be absent at the other date
    bare_2 = np.array([float(logit(np.array(least_score))) + 0.5, smallest + np.log(2)])
    flicker = _ObjectKind(bare_2, np.diag([0.3**2, 0.6**2]), (2 * ground.mean + bare_2[0]) / 3, 1.5**2)
    stay = _ObjectKind(
        seen.mean_2, seen.covariance_22 + floor_22, seen.other_mean, seen.other_variance + 2 * MIN_VARIANCE
    )
    return came, flicker, stay


def _measure_objects(known: ObjectEvidence) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the logit of the own score and the logarithm of the area, N2, and the logit of the other score."""
    own_N2 = np.stack([logit(known.own_N), np.log(np.asarray(known.area_px_N, np.float64))], axis=1)
    return own_N2, logit(known.other_N)


def _fit_mixture(events: ObjectEvidence, stays: ObjectEvidence, priors: tuple[_ObjectKind, ...]) -> NDArray[np.float64]:
    """Return how probable each kind is for each object, NK, events first: expectation maximisation."""
    parts = [_measure_objects(events), _measure_objects(stays)]
    own_N2, other_N = (np.concatenate([part[at] for part in parts]) for at in range(2))
    share_K, kinds = np.full(len(priors), 1 / len(priors)), priors
    share_NK = np.zeros((len(own_N2), len(priors)))
    for _ in range(MAX_ITERATIONS):
        log_NK = np.stack([kind.log_density(own_N2, other_N) for kind in kinds], axis=1) + np.log(share_K)
        new_NK = np.exp(log_NK - log_NK.max(axis=1, keepdims=True))
        new_NK /= new_NK.sum(axis=1, keepdims=True)
        done, share_NK = bool(np.abs(new_NK - share_NK).max() < TOLERANCE), new_NK
        if done:
            break
        share_K = (share_NK.sum(axis=0) + 1) / (len(own_N2) + len(priors))
        kinds = tuple(prior.fit(own_N2, other_N, share_NK[:, at]) for at, prior in enumerate(priors))
    return share_NK
