"""Area-adjusted accuracy: the published example, its equation 7, and what a sample cannot say; objects in strips."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semicdvl.metrics.area_adjusted import Z95, allocate_sample, estimate_area_accuracy
from semicdvl.metrics.objects import ObjectOverlaps, count_objects

# Olofsson et al. 2014, section 5: deforestation, forest gain, stable forest, stable non-forest; areas in pixels.
MAPPED = [200_000, 150_000, 3_200_000, 6_450_000]
SAMPLE = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])


def test_the_published_example() -> None:
    found = estimate_area_accuracy(SAMPLE, mapped=MAPPED)
    assert round(found.estimated_areas[0].value) == 235_086 and round(found.estimated_areas[0].half_width) == 68_418
    assert (round(found.overall_accuracy.value, 2), round(found.overall_accuracy.half_width, 2)) == (0.95, 0.02)
    users = [(round(each.value, 2), round(each.half_width, 2)) for each in found.users_accuracies]
    assert users == [(0.88, 0.07), (0.73, 0.10), (0.93, 0.04), (0.96, 0.02)]
    assert [round(each.value, 2) for each in found.producers_accuracies] == [0.75, 0.85, 0.93, 0.96]
    assert round(found.producers_accuracies[0].half_width, 2) == 0.21
    assert found.shares_KK.sum() == pytest.approx(1) and sum(
        area.value for area in found.estimated_areas
    ) == pytest.approx(1e7)


def test_producers_interval_is_equation_7() -> None:
    found = estimate_area_accuracy(SAMPLE, mapped=MAPPED)
    drawn = SAMPLE.sum(axis=1)
    for j in range(4):
        true_area, p = found.estimated_areas[j].value, found.producers_accuracies[j].value
        user = SAMPLE[j, j] / drawn[j]
        own = MAPPED[j] ** 2 * (1 - p) ** 2 * user * (1 - user) / (drawn[j] - 1)
        others = 0.0
        for i in range(4):
            if i != j:
                share = SAMPLE[i, j] / drawn[i]
                others += MAPPED[i] ** 2 * share * (1 - share) / (drawn[i] - 1)
        half = Z95 * math.sqrt((own + p**2 * others) / true_area**2)
        assert found.producers_accuracies[j].half_width == pytest.approx(half)


def test_a_census_finds_the_true_area_of_a_biased_map() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(40_000) < 0.1
    mapped = np.where(rng.random(40_000) < 0.2, ~truth, truth)  # a fifth of the map is wrong
    cells = np.bincount(2 * mapped + truth, minlength=4).reshape(2, 2)
    found = estimate_area_accuracy(cells, mapped=[(~mapped).sum(), mapped.sum()])
    assert found.estimated_areas[1].value == pytest.approx(truth.sum()) and mapped.sum() > 2 * truth.sum()


def test_intervals_contain_the_truth_as_often_as_stated() -> None:
    rng = np.random.default_rng(1)
    cells = np.array([[9000, 400], [200, 800]])
    inside = 0
    for _ in range(400):
        rows = [rng.multivariate_hypergeometric(row, 120) for row in cells]
        area = estimate_area_accuracy(np.array(rows), mapped=cells.sum(axis=1)).estimated_areas[1]
        inside += abs(area.value - 1200) <= area.half_width
    assert 0.88 <= inside / 400 <= 0.99


def test_estimates_that_the_sample_does_not_define_are_nan() -> None:
    none = estimate_area_accuracy([[0, 0], [3, 4]], mapped=[100, 20])
    assert math.isnan(none.overall_accuracy.value) and math.isnan(none.estimated_areas[1].value)
    nothing_mapped = estimate_area_accuracy([[45, 5], [0, 0]], mapped=[100, 0])
    assert nothing_mapped.overall_accuracy.value == pytest.approx(0.9) and math.isnan(
        nothing_mapped.users_accuracies[1].value
    )
    assert nothing_mapped.producers_accuracies[1].value == 0 and nothing_mapped.estimated_areas[
        1
    ].value == pytest.approx(10)
    with pytest.raises(ValueError, match="K x K"):
        estimate_area_accuracy([[1, 2, 3], [4, 5, 6]], mapped=[1, 2])


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=5), st.integers(0, 4000))
def test_allocation_keeps_its_bounds(sizes: list[int], total: int) -> None:
    drawn = allocate_sample(sizes, total, minimum=50)
    assert all(min(50, size) <= count <= size for size, count in zip(sizes, drawn, strict=True))
    assert sum(drawn) <= max(total, sum(min(50, size) for size in sizes))
    if max(sizes) >= total:
        assert sum(drawn) >= min(total, sum(sizes))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_objects_counted_in_strips_are_those_of_the_whole(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    pred, truth = (rng.random((11, 13)) < 0.35 for _ in range(2))
    from scipy.ndimage import label

    numbers = [label(mask, np.ones((3, 3)))[0] for mask in (pred, truth)]
    overlaps = ObjectOverlaps(*(int(each.max()) for each in numbers))
    for row in range(0, 11, rows):
        overlaps.add(*(each[row : row + rows] for each in numbers))
    match = overlaps.match(min_iou=0.3)
    assert match.counts == count_objects(pred, truth, min_iou=0.3)
    assert match.pred_matched.sum() == match.truth_matched.sum() == match.counts.matched
    assert (match.pred_touching >= match.pred_matched).all() and (match.truth_touched >= match.truth_matched).all()
