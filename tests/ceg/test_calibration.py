"""Probabilities of change from made-up populations whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semicdvl.ceg.calibration import (
    MIN_PERSISTENT_OBJECTS,
    OUTLIER_FRAC,
    BackgroundScores,
    ObjectEvidence,
    calibrate,
    logit,
)
from semicdvl.errors import DataError

GROUND = BackgroundScores(-5.5, 1.5)
BOUNDS = {"least_score": 0.5, "least_area_px": 16}


def score(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def drawn(
    rng: np.random.Generator, many: int, *, own: float, other: float, area: float, vary: float = 1.0
) -> ObjectEvidence:
    """Objects around a score (as a logit) at either date and an area (as a logarithm)."""
    return ObjectEvidence(
        score(rng.normal(own, 0.4 * vary, many)),
        score(rng.normal(other, 0.6 * vary, many)),
        np.maximum(np.exp(rng.normal(area, 0.7 * vary, many)), 16),
    )


def together(*parts: ObjectEvidence) -> ObjectEvidence:
    return ObjectEvidence(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ObjectEvidence.__annotations__)
    )


def stays(rng: np.random.Generator, many: int = 80) -> ObjectEvidence:
    return drawn(rng, many, own=1.9, other=1.6, area=6.8)


def came(rng: np.random.Generator, many: int) -> ObjectEvidence:
    return drawn(rng, many, own=1.7, other=-5.5, area=6.4)


def flickers(rng: np.random.Generator, many: int) -> ObjectEvidence:
    return drawn(rng, many, own=0.5, other=-3.0, area=3.6)


@pytest.mark.parametrize(("real", "false"), [(40, 40), (8, 60), (60, 8), (0, 50), (50, 0), (1, 2)])
def test_objects_are_told_apart_whatever_their_shares(real: int, false: int):
    rng = np.random.default_rng(real)
    found = calibrate(together(came(rng, real), flickers(rng, false)), stays(rng), GROUND, **BOUNDS)
    changed_N = found.probability_N >= 0.5
    assert changed_N[:real].mean() > 0.9 if real else True
    assert changed_N[real:].mean() < 0.1 if false else True


def test_probabilities_are_shares():
    """Among objects of a probability p, about the share p is real: kinds that overlap, many pairs."""
    probability, truth = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        real = drawn(rng, 30, own=1.5, other=-5.0, area=5.8)
        false = drawn(rng, 40, own=0.55, other=-4.0, area=3.9, vary=1.2)
        found = calibrate(together(real, false), stays(rng), GROUND, **BOUNDS)
        probability.append(found.probability_N)
        truth.append(np.arange(70) < 30)
    p_N, true_N = np.concatenate(probability), np.concatenate(truth)
    low, middle, high = p_N < 0.3, (p_N >= 0.3) & (p_N < 0.7), p_N >= 0.7
    assert true_N[low].mean() < 0.1 and true_N[high].mean() > 0.8
    assert true_N[low].mean() < true_N[middle].mean() < true_N[high].mean()
    assert abs(p_N.mean() - true_N.mean()) < 0.05
    bins = np.minimum((p_N * 10).astype(int), 9)
    gaps = [abs((p_N - true_N)[bins == each].sum()) for each in range(10)]
    assert sum(gaps) / len(p_N) < 0.1, "expected calibration error"


def test_an_object_that_was_overlooked_did_not_change():
    """As large and sure as those that stay, and at the other date just below the least score."""
    rng = np.random.default_rng(3)
    overlooked = ObjectEvidence(np.array([0.87]), np.array([0.45]), np.array([900.0]))
    events = together(came(rng, 30), flickers(rng, 30), overlooked)
    assert calibrate(events, stays(rng), GROUND, **BOUNDS).probability_N[-1] < 0.5


@given(st.integers(0, 2**31), st.integers(1, 40), st.integers(0, 40))
def test_any_objects_have_probabilities(seed: int, events: int, standing: int):
    rng = np.random.default_rng(seed)
    groups = [
        ObjectEvidence(rng.random(many), rng.random(many), rng.integers(1, 5000, many).astype(float))
        for many in (events, standing)
    ]
    found = calibrate(*groups, GROUND, **BOUNDS)
    assert found.probability_N.shape == (events,)
    assert (found.probability_N >= OUTLIER_FRAC - 1e-9).all() and (found.probability_N <= 1 - OUTLIER_FRAC + 1e-9).all()
    order = rng.permutation(events)
    shuffled = ObjectEvidence(*(getattr(groups[0], name)[order] for name in ObjectEvidence.__annotations__))
    again = calibrate(shuffled, groups[1], GROUND, **BOUNDS)
    np.testing.assert_allclose(again.probability_N, found.probability_N[order], atol=1e-4)


def test_objects_that_are_all_alike_are_no_obstacle():
    alike = ObjectEvidence(np.full(30, 0.9), np.full(30, 0.9), np.full(30, 400.0))
    events = ObjectEvidence(np.array([0.9, 0.52]), np.array([0.0, 0.02]), np.array([400.0, 17.0]))
    found = calibrate(events, alike, BackgroundScores(-6.0, 0.0), **BOUNDS)
    assert found.probability_N[0] > 0.5 > found.probability_N[1]


@pytest.mark.parametrize("standing", [0, MIN_PERSISTENT_OBJECTS - 1])
def test_without_objects_that_stay_what_is_usual_decides(standing: int):
    rng = np.random.default_rng(standing)
    found = calibrate(together(came(rng, 12), flickers(rng, 12)), stays(rng, standing), GROUND, **BOUNDS)
    assert (found.probability_N[:12] >= 0.5).mean() > 0.8 and (found.probability_N[12:] >= 0.5).mean() < 0.2
    assert f"{standing} persistent object" in found.summary and "rest on typical objects" in found.summary
    assert "usual" not in calibrate(came(rng, 3), stays(rng), GROUND, **BOUNDS).summary


def test_no_event_at_all():
    none = ObjectEvidence(np.zeros(0), np.zeros(0), np.zeros(0))
    for standing in (none, stays(np.random.default_rng(0))):
        assert calibrate(none, standing, GROUND, **BOUNDS).probability_N.shape == (0,)


def test_scores_that_are_no_numbers_are_refused():
    wrong = ObjectEvidence(np.array([np.nan]), np.array([0.0]), np.array([20.0]))
    with pytest.raises(DataError, match="finite"):
        calibrate(wrong, stays(np.random.default_rng(0)), GROUND, **BOUNDS)


def test_logit_of_nothing_is_finite():
    assert np.isfinite(logit(np.array([0.0, 1.0]))).all() and logit(np.array([0.5]))[0] == 0
