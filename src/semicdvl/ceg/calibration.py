"""From a VLM's raw scores to the probability that an object changed, without labels.

An object that change event generation reports can be one of three kinds: a real object that appeared or disappeared
(at its own date it looks like the persistent objects, at the other date like the background); spurious, when a score
just reached the threshold at one date; or a persistent object that was missed at one date. The pair itself shows what
each kind looks like: objects found at both dates did not change, neither did the background, and a spurious object is
by its nature small and just above the threshold. So the change events are modelled as a mixture of three normal
distributions, over

    the logit of the mean foreground score at the object's own date, and the logarithm of its area (correlated),
    the logit of the mean foreground score over the same pixels at the other date,

whose priors are these populations. Expectation maximisation (maximum a posteriori: a prior counts as
`PRIOR_WEIGHT_OBJECTS` objects) fits it to the events and the persistent objects together; the posterior of the first
kind is the probability of change, and 0.5 is the threshold of least error (Bayes). Estimating the shares of transitions
from the pair alone goes back to Bruzzone and Serpico 1997 ("An iterative technique for the detection of land-cover
transitions in multitemporal remote-sensing images", IEEE TGRS 35). There the classes are those of pixels, with
densities from labels of one date; here they are kinds of objects, and there are no labels at all.

A pair with few objects, or without persistent ones, holds too little information. So every population is combined with
a prior, and the prior of the persistent objects is a typical object (`TYPICAL_OBJECT`). The constants were chosen on
four synthetic cities (seeds 20-23), whole and cut into tiles of 256 px.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semicdvl.errors import DataError

PRIOR_WEIGHT_OBJECTS = 40.0
"""Weight of a prior, in objects: it determines a kind of which a pair holds few."""
MIN_PERSISTENT_OBJECTS = 10
"""With fewer persistent objects, the summary says that the probabilities rest on typical objects."""
TYPICAL_OBJECT = (1.9, 0.4, 4.0, 1.2)
"""Mean and standard deviation of the logit of the score, then of the logarithm of area / smallest area."""
TYPICAL_OTHER_DATE = (1.55, 0.62**2)
"""Mean and variance of the logit of the same object's score at the other date."""
TYPICAL_WEIGHT_OBJECTS = 20.0
"""Weight of the typical object, in objects, against the persistent ones."""
OUTLIER_FRAC = 0.05
"""Share of objects that are none of the three kinds: probabilities missed between this and 1 - this."""
MIN_SCORE = 0.0025
"""Scores below count as this (half a step of the stored scores)."""
NEW_OBJECT_VARIANCE_FACTOR = 2.0
"""New objects vary more than persistent ones: their prior has the variances of these, times this factor."""
MIN_VARIANCE = 0.05
"""Added to every variance, so that no distribution degenerates to a point."""
MAX_ITERATIONS, TOLERANCE = 500, 1e-7


@dataclass(frozen=True)
class ObjectEvidence:
    """Scores and areas of N objects.

    Attributes:
        own_N: mean foreground score over the pixels at the date at which the object was found, in [0, 1].
        other_N: the same at the other date.
        area_px_N: number of pixels.
    """

    own_N: NDArray[np.float64]
    other_N: NDArray[np.float64]
    area_px_N: NDArray[np.float64]

    def __len__(self) -> int:
        """Return the number of objects."""
        return len(self.own_N)


@dataclass(frozen=True)
class BackgroundScores:
    """Foreground scores of the background: mean and variance of their logits."""

    mean: float
    variance: float


@dataclass(frozen=True)
class CalibrationResult:
    """Probabilities of change of the change events.

    Attributes:
        probability_N: probability of each event, in [0, 1].
        summary: how they were estimated, in words.
    """

    probability_N: NDArray[np.float64]
    summary: str


@dataclass(frozen=True)
class _ObjectKind:
    """A normal distribution of own score and area jointly, and an independent one of the other date's score."""

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
        """Return the most probable distribution of weighted objects, with this one as a prior worth `prior` objects."""
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
    """Return log(score / (1 - score)), with scores clipped to `MIN_SCORE` ... 1 - `MIN_SCORE`."""
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
        events: change events: objects without a match at the other date.
        persistent: objects that were found at both dates.
        background: scores where there is no object.
        least_score: foreground score from which a pixel belongs to an object.
        least_area_px: area of the smallest object in pixels.

    Raises:
        DataError: scores that are not finite, or objects without pixels.
    """
    for known in (events, persistent):
        if not all(np.isfinite(each).all() for each in (known.own_N, known.other_N)) or (known.area_px_N <= 0).any():
            raise DataError("calibration needs finite scores and objects of at least one pixel.")
    if not len(events):
        return CalibrationResult(np.zeros(0), "there was no change event to calibrate")
    kinds = _build_priors(persistent, background, least_score=least_score, least_area_px=least_area_px)
    share_NK = _fit_mixture(events, persistent, kinds)
    probability_N = OUTLIER_FRAC + (1 - 2 * OUTLIER_FRAC) * share_NK[: len(events), 0]
    kept = int((probability_N >= 0.5).sum())
    summary = (
        f"estimated from {_count(len(events), 'change event')} and {_count(len(persistent), 'persistent object')}; "
        f"{kept} of the events are probably changes"
    )
    if len(persistent) < MIN_PERSISTENT_OBJECTS:
        summary += "; with so few persistent objects the probabilities rest on typical objects"
    return CalibrationResult(probability_N, summary)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _build_priors(
    persistent: ObjectEvidence, background: BackgroundScores, *, least_score: float, least_area_px: float
) -> tuple[_ObjectKind, _ObjectKind, _ObjectKind]:
    """Return the priors of the three kinds: changed, spurious, missed at one date."""
    smallest = np.log(max(least_area_px, 1.0))
    typical = _ObjectKind(
        np.array([TYPICAL_OBJECT[0], smallest + TYPICAL_OBJECT[2]]),
        np.diag([TYPICAL_OBJECT[1] ** 2, TYPICAL_OBJECT[3] ** 2]),
        *TYPICAL_OTHER_DATE,
    )
    observed = typical.fit(*_measure_objects(persistent), np.ones(len(persistent)), prior=TYPICAL_WEIGHT_OBJECTS)
    floor_22 = np.eye(2) * MIN_VARIANCE
    changed = _ObjectKind(
        observed.mean_2,
        NEW_OBJECT_VARIANCE_FACTOR * observed.covariance_22 + floor_22,
        background.mean,
        background.variance + MIN_VARIANCE,
    )
    # an object that just exists: half a logit above the lowest score, twice the smallest area, and by no means certain
    # to be absent at the other date
    smallest_object_2 = np.array([float(logit(np.array(least_score))) + 0.5, smallest + np.log(2)])
    spurious = _ObjectKind(
        smallest_object_2, np.diag([0.3**2, 0.6**2]), (2 * background.mean + smallest_object_2[0]) / 3, 1.5**2
    )
    missed = _ObjectKind(
        observed.mean_2,
        observed.covariance_22 + floor_22,
        observed.other_mean,
        observed.other_variance + 2 * MIN_VARIANCE,
    )
    return changed, spurious, missed


def _measure_objects(known: ObjectEvidence) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the logit of the own score and the logarithm of the area, N2, and the logit of the other score, N."""
    own_N2 = np.stack([logit(known.own_N), np.log(np.asarray(known.area_px_N, np.float64))], axis=1)
    return own_N2, logit(known.other_N)


def _fit_mixture(
    events: ObjectEvidence, persistent: ObjectEvidence, priors: tuple[_ObjectKind, ...]
) -> NDArray[np.float64]:
    """Return the posterior of each kind for each object, NK, events first: expectation maximisation."""
    parts = [_measure_objects(events), _measure_objects(persistent)]
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
