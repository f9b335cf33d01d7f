"""Thresholds and statistics of a whole raster: the histogram, the guard, moments and samples, however it is cut."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.filters import threshold_multiotsu, threshold_otsu
from tests.support.pairs_in_memory import Strips, pair

from semicdvl.errors import ConfigError
from semicdvl.types import IGNORE, PairTile
from semicdvl.unsupervised.common.statistics import (
    HashedSample,
    Moments,
    PlacedTile,
    _neighbour_steps,
    count_independent_bands,
    draw_by_hash,
    locate_tiles,
    measure_moments,
    number_pixels,
)
from semicdvl.unsupervised.common.thresholds import (
    Histogram,
    ThresholdRule,
    apply_guard,
    build_histogram,
    decide_by_threshold,
    normalise_by_threshold,
    pool_threshold,
)

RNG = np.random.default_rng(7)
TWO_GROUPS = np.abs(np.concatenate([RNG.normal(1, 0.3, 5000), RNG.normal(6, 0.5, 700)])).astype(np.float32)


# ------------------------------------------------------------------------------------------------ histogram
def test_the_histogram_is_the_same_however_the_values_come():
    whole, parts = build_histogram([TWO_GROUPS]), build_histogram(np.array_split(TWO_GROUPS[::-1], 17))
    assert np.array_equal(whole.counts_N, parts.counts_N) and whole.total == len(TWO_GROUPS)


def test_quantile_deviation_and_otsu_are_those_of_the_values():
    histogram = build_histogram([TWO_GROUPS])
    median = float(np.median(TWO_GROUPS))
    assert histogram.quantile(0.5) == pytest.approx(median, rel=1e-3)
    assert histogram.deviation(median) == pytest.approx(1.4826 * np.median(np.abs(TWO_GROUPS - median)), rel=5e-3)
    split = histogram.otsu()
    theirs = threshold_otsu(TWO_GROUPS, nbins=4096)
    assert np.mean((TWO_GROUPS > split) != (TWO_GROUPS > theirs)) < 1e-3
    assert histogram.mean_above(split) == pytest.approx(TWO_GROUPS[TWO_GROUPS > split].mean(), rel=1e-3)


def test_three_groups_are_those_of_scikit_image():
    values = np.concatenate([TWO_GROUPS, RNG.normal(15, 0.5, 900).astype(np.float32)])
    assert build_histogram([values]).otsu_three_classes() == pytest.approx(
        threshold_multiotsu(values, classes=3), abs=0.3
    )


@pytest.mark.parametrize("unchanged", [0.0, 0.0173, 0.0303, 1.0, 1.0001, 1.9999])
def test_equal_scores_of_unchanged_ground_are_not_above_the_threshold(unchanged):
    values = np.repeat(np.array([unchanged, unchanged + 3], np.float32), [9000, 1000])
    assert (normalise_by_threshold(values, build_histogram([values]).otsu()) > 0.5).sum() == 1000
    assert not (normalise_by_threshold(values[:9000], build_histogram([values[:9000]]).otsu()) > 0.5).any()


@pytest.mark.parametrize(("values", "changed"), [([0.7], 0), ([0.7, 1.9], 1), ([0.0, 1e-6, 1.9], 1)])
def test_fewer_than_three_groups_have_no_uncertain_one(values, changed):
    scores = np.repeat(np.array(values, np.float32), [90, *[20] * (len(values) - 1)])
    low, high = build_histogram([scores]).otsu_three_classes()
    assert low == high and (scores > high).sum() == 20 * changed


@given(st.lists(st.floats(0, 1e6, width=32), min_size=1, max_size=50))
def test_every_bin_stands_for_its_values(values):
    values = np.array(values, np.float32)
    counts_N, centres_N = build_histogram([values]).nonempty_bins()
    assert np.allclose(np.repeat(centres_N, counts_N), np.sort(values), rtol=2**-11, atol=1e-37)


def test_nan_is_never_looked_at_where_there_is_no_data():
    values_PHW = np.full((1, 8, 5), 3.0, np.float32)
    valid_HW = np.zeros((8, 5), bool)
    (found,) = decide_by_threshold(Strips(values_PHW, valid_HW), ThresholdRule())
    assert (found.change_HW == IGNORE).all() and np.isnan(found.score_HW).all()


# ------------------------------------------------------------------------------------------------ guard
@pytest.mark.parametrize(
    ("noise", "most_frac"),
    [
        (RNG.normal(10, 1, 40_000), 1e-3),
        (np.abs(RNG.normal(0, 1, 40_000)), 4e-3),
        (np.sqrt(RNG.chisquare(3, 40_000)), 1e-3),
    ],
)
def test_one_population_is_not_split(noise, most_frac):
    histogram = build_histogram([noise])
    split = histogram.otsu()
    assert (noise > split).mean() > 0.2  # what Otsu alone would call changed
    assert (noise > apply_guard(histogram, split)).mean() < most_frac


def test_a_second_population_is_split_as_otsu_says():
    histogram = build_histogram([TWO_GROUPS])
    assert apply_guard(histogram, histogram.otsu()) == histogram.otsu()


def test_the_guard_has_a_say_where_the_dates_differ_like_noise_only():
    noise = build_histogram([np.abs(RNG.normal(0, 1, 40_000))])
    otsu = noise.otsu()
    assert ThresholdRule().find_threshold(noise) > 2 * otsu
    for rule in (ThresholdRule(shapeless=False), ThresholdRule(guard=False)):
        assert rule.find_threshold(noise) == otsu
    assert (
        ThresholdRule(3.0).find_threshold(noise) == 3
        and "given" in str(ThresholdRule(3.0))
        and "shape" in str(ThresholdRule(shapeless=False))
    )


def test_a_change_that_is_too_small_to_be_a_group_is_found_as_outlier():
    values = np.append(np.abs(RNG.normal(0, 1, 40_000)), np.full(20, 9.0))
    histogram = build_histogram([values])
    border = apply_guard(histogram, histogram.otsu())
    assert (values[-20:] > border).all() and (values[:-20] > border).mean() < 4e-3


@pytest.mark.parametrize("threshold", ["mean", -1, True, float("nan")])
def test_a_rule_that_is_none_is_refused(threshold):
    with pytest.raises(ConfigError, match="threshold"):
        ThresholdRule(threshold)


def test_the_score_is_a_half_on_the_border_and_zero_where_nothing_can_change():
    values_HW = np.array([[0, 1, 3, 9]], np.float32)
    assert normalise_by_threshold(values_HW, 3.0).tolist() == [[0, 0.25, 0.5, 0.75]]
    assert (
        not normalise_by_threshold(values_HW, np.inf).any()
        and not normalise_by_threshold(np.zeros((1, 2), np.float32), 0.0).any()
    )


def test_several_rasters_share_one_threshold():
    rasters = [Strips(part.reshape(1, -1, 50), np.ones((57, 50), bool)) for part in np.split(TWO_GROUPS, 2)]
    assert pool_threshold(rasters, ThresholdRule(guard=False)) == build_histogram([TWO_GROUPS]).otsu()


# ------------------------------------------------------------------------------------------------ moments and samples
def _images(bands=4):
    t1_HWC = RNG.integers(0, 256, (70, 45, bands)).astype(np.uint8)
    t2_HWC = np.clip(t1_HWC * 0.7 + RNG.normal(20, 9, t1_HWC.shape), 0, 255).astype(np.uint8)
    return t1_HWC, t2_HWC, RNG.random((70, 45)) > 0.2


def test_moments_by_tiles_are_those_in_memory():
    t1_HWC, t2_HWC, valid_HW = _images()
    both_NV = np.hstack([t1_HWC[valid_HW], t2_HWC[valid_HW]]).astype(float)
    for tile_px in (16, 33, 100):
        found = measure_moments(pair(t1_HWC, t2_HWC, valid_HW, tile_px=tile_px), method="it")
        assert found.count == valid_HW.sum() and found.bands == 4
        np.testing.assert_allclose(found.mean_V, both_NV.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(found.cov_VV, np.cov(both_NV.T, bias=True), rtol=1e-9)


@pytest.mark.parametrize("tile_px", [16, 32, 100])
def test_noise_has_no_shape_and_change_has(tile_px):
    scene_HWC = np.repeat(np.repeat(RNG.integers(40, 200, (6, 8, 3)), 12, axis=0), 12, axis=1)
    looks = [np.clip(scene_HWC + RNG.normal(0, 5, scene_HWC.shape), 0, 255).astype(np.uint8) for _ in range(2)]
    darker_HWC = (looks[1] * 0.6 + 30).astype(np.uint8)
    changed_HWC = looks[1].copy()
    changed_HWC[12:36, 24:60] += 50
    found = [
        measure_moments(pair(looks[0], x, tile_px=tile_px), method="it") for x in (looks[1], darker_HWC, changed_HWC)
    ]
    assert [moments.is_noise() for moments in found] == [True, True, False]
    steps_NV = np.hstack([np.diff(x.astype(float), axis=1)[:, ::2].reshape(-1, 3) for x in looks])
    np.testing.assert_allclose(found[0].step_VV, steps_NV.T @ steps_NV / len(steps_NV), rtol=1e-9)


def test_steps_start_at_even_columns_of_the_raster():
    t1_HWC, t2_HWC, valid_HW = _images(bands=1)
    steps_NV = _neighbour_steps(PlacedTile(4, 7, PairTile(t1_HWC, t2_HWC, valid_HW)))
    whole_HW = valid_HW[:, 1::2] & valid_HW[:, 2::2]
    wanted_N = (t1_HWC[:, 2::2, 0].astype(int) - t1_HWC[:, 1::2, 0])[whole_HW]
    assert np.array_equal(steps_NV[:, 0], wanted_N)


def test_weighted_moments_are_those_of_numpy():
    values_NV, weight_N = RNG.normal(5, 2, (200, 3)), RNG.random(200)
    moments = Moments(3)
    for part in np.array_split(np.arange(200), 7):
        moments.add(values_NV[part], weight_N[part])
    np.testing.assert_allclose(moments.mean_V, np.average(values_NV, axis=0, weights=weight_N), rtol=1e-9)
    np.testing.assert_allclose(moments.cov_VV, np.cov(values_NV.T, aweights=weight_N, bias=True), rtol=1e-9)


def test_a_sample_does_not_depend_on_the_tiles():
    t1_HWC, t2_HWC, valid_HW = _images()
    found = []
    for tile_px in (16, 33, 100):
        sample = HashedSample(share=0.1, seed=3)
        for at in locate_tiles(pair(t1_HWC, t2_HWC, valid_HW, tile_px=tile_px)):
            sample.add(number_pixels(at, raster_width=45)[at.tile.valid_HW], at.tile.t1_HWC[at.tile.valid_HW])
        found.append(sample.values_NV)
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])
    assert 0.06 < len(found[0]) / valid_HW.sum() < 0.14


def test_draws_are_even_and_other_seeds_draw_others():
    numbers = np.arange(100_000)
    first, second = (draw_by_hash(numbers, share=0.1, seed=seed) for seed in (0, 1))
    assert abs(first.mean() - 0.1) < 0.005 and abs((first & second).mean() - 0.01) < 0.002
    assert abs(first[::2].mean() - first[1::2].mean()) < 0.01


def test_bands_that_say_nothing_of_their_own_are_not_counted():
    bands_NC = RNG.normal(size=(500, 3))
    mixed_NC = np.column_stack([bands_NC, bands_NC[:, 0] + 2 * bands_NC[:, 1], np.ones(500)])
    assert count_independent_bands(np.cov(mixed_NC.T, bias=True)) == 3
    assert count_independent_bands(np.cov(np.repeat(bands_NC[:, :1], 3, axis=1).T, bias=True)) == 1


def test_an_empty_histogram_has_no_border():
    assert ThresholdRule().find_threshold(Histogram()) == np.inf
