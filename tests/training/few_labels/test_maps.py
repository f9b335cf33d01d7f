"""The decision without labels as a logit: its sign is the residual rule's map, and margins are its grey-level form."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from semicdvl.ceg.config import CEGSettings
from semicdvl.ceg.residual.rule import find_residual_events
from semicdvl.training.few_labels.maps import CENTRE_AND_SCALE, compute_prior_maps, measure_margins

SETTINGS = CEGSettings(level="residual", gsd_m=1.0)
FOREGROUND = (0, 1)


def draw_scores(seed: int, shape_hw: tuple[int, int] = (60, 75)) -> list[NDArray[np.float32]]:
    """Draw smooth scores of three words at two dates: two that are searched for, one that is not."""
    rng = np.random.default_rng(seed)
    dates = []
    for _ in range(2):
        noise = ndimage.gaussian_filter(rng.normal(size=(3, *shape_hw)), (0, 4, 4)) * 14
        dates.append((1 / (1 + np.exp(-noise))).astype(np.float32))
    return dates


@pytest.mark.parametrize("seed", range(4))
def test_the_sign_is_the_map_of_the_rule(seed: int) -> None:
    scores, distance_HW = draw_scores(seed), np.full((60, 75), 0.9, np.float32)
    distance_HW[:, 40:] = 0.1  # events of the right half look alike at both dates
    maps = compute_prior_maps(*scores, distance_HW, foreground=FOREGROUND, settings=SETTINGS)
    event_HW = find_residual_events(*scores, foreground=FOREGROUND, settings=SETTINGS, distance_HW=distance_HW)
    assert event_HW.any() and not event_HW.all()
    np.testing.assert_array_equal(maps.logit_HW > 0, event_HW)
    assert np.abs(maps.logit_HW).min() >= 0.75 and np.abs(maps.logit_HW).max() <= 2.25
    assert maps.inputs_DHW.shape == (len(CENTRE_AND_SCALE), 60, 75) and np.abs(maps.inputs_DHW).max() <= 4


@pytest.mark.parametrize("seed", range(4))
def test_margins_are_positive_where_the_rule_without_area_and_features_finds_change(seed: int) -> None:
    rng = np.random.default_rng(seed)
    t1_HW, t2_HW = (ndimage.gaussian_filter(rng.normal(size=(50, 64)), 4).astype(np.float32) * 30 for _ in range(2))
    settings = CEGSettings(level="residual", gsd_m=1.0, residual_area_m2=0.0, residual_distance=0.0)
    margin_HW, residual_HW = measure_margins(t1_HW, t2_HW, settings)
    scores = [(1 / (1 + np.exp(-odds_HW)))[None].astype(np.float64) for odds_HW in (t1_HW, t2_HW)]
    with_ground = [np.concatenate([score, np.zeros_like(score)]) for score in scores]
    event_HW = find_residual_events(*with_ground, foreground=(0,), settings=settings)
    assert event_HW.any()
    np.testing.assert_array_equal(margin_HW > 0, event_HW)
    assert (residual_HW[~event_HW] <= 0).mean() > 0.9


def test_nothing_depends_on_the_order_of_the_dates() -> None:
    (t1_CHW, t2_CHW), distance_HW = draw_scores(7), np.full((60, 75), 0.4, np.float32)
    one = compute_prior_maps(t1_CHW, t2_CHW, distance_HW, foreground=FOREGROUND, settings=SETTINGS)
    other = compute_prior_maps(t2_CHW, t1_CHW, distance_HW, foreground=FOREGROUND, settings=SETTINGS)
    np.testing.assert_array_equal(one.logit_HW, other.logit_HW)
    np.testing.assert_array_equal(one.inputs_DHW, other.inputs_DHW)


def test_ground_that_changed_everywhere_has_a_distance_of_its_own() -> None:
    house_CHW, lawn_CHW = (np.full((2, 20, 20), score, np.float32) for score in (0.9, 0.1))
    house_CHW[1], lawn_CHW[1] = 0.1, 0.9
    maps = compute_prior_maps(
        lawn_CHW, house_CHW, np.full((20, 20), 0.8, np.float32), foreground=(0,), settings=SETTINGS
    )
    assert (maps.logit_HW > 0).all() and np.isfinite(maps.inputs_DHW).all()
