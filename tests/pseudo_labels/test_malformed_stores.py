"""Change event generation against a slow, obvious restatement: ties, ulps, overlaps, RLE, single pixels, all mixed."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as rle

from semicdvl.ceg import rules
from semicdvl.ceg.instances import rule as instance_rule

DTYPES = (np.float16, np.float32, np.float64)


# ------------------------------------------------------------------------------------------------ pixels
def _slow_pixel(scores: np.ndarray, foreground: list[int], gamma: float) -> tuple[np.ndarray, np.ndarray]:
    """The public way: pixel by pixel, the foreground prompts first so that they win ties."""
    order = foreground + [index for index in range(len(scores)) if index not in foreground]
    threshold = scores.dtype.type(gamma)
    found, reliable = np.zeros(scores.shape[1:], bool), np.zeros(scores.shape[1:], bool)
    for row, col in np.ndindex(*scores.shape[1:]):
        values = [scores[index, row, col] for index in order]
        found[row, col] = values.index(max(values)) < len(foreground)
        reliable[row, col] = max(values) >= threshold
    return found, reliable


@st.composite
def scored_pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, list[int], float]:
    """Two dates of scores with many ties and many values on, and one ulp beside, the threshold."""
    count, height, width = draw(st.integers(1, 4)), draw(st.integers(1, 5)), draw(st.integers(1, 6))
    dtype = draw(st.sampled_from(DTYPES))
    gamma = draw(st.sampled_from([0.1, 0.5, 0.65, 0.8, 1.0]))
    near = dtype(gamma)
    values = [dtype(0), near, np.nextafter(near, dtype(0)), np.nextafter(near, dtype(2)), dtype(0.3), dtype(1)]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dates = [rng.choice(np.array(values, dtype), (count, height, width)) for _ in range(2)]
    foreground = draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=count, unique=True))
    return dates[0], dates[1], foreground, gamma


@settings(deadline=None, max_examples=200)
@given(scored_pairs())
def test_pixels_are_the_restatement(case: tuple[np.ndarray, np.ndarray, list[int], float]) -> None:
    first, second, foreground, gamma = case
    slow = [_slow_pixel(date, foreground, gamma) for date in (first, second)]
    change, reliable = rules.pixel_level(first, second, foreground=foreground, gamma=gamma)
    assert change.dtype == reliable.dtype == bool
    assert np.array_equal(change, slow[0][0] != slow[1][0])
    assert np.array_equal(reliable, slow[0][1] & slow[1][1])
    for date, (found, sure) in zip((first, second), slow, strict=True):
        label = rules.segmentation(date, foreground=foreground, gamma=gamma)
        assert label.dtype == np.uint8
        assert np.array_equal(label, np.where(sure, found, 255))


@settings(deadline=None)
@given(scored_pairs(), st.integers(0, 2**32 - 1))
def test_mixed_is_the_restatement_for_any_numbers_that_mean_yes(case: Any, seed: int) -> None:
    shape = case[0].shape[1:]
    rng = np.random.default_rng(seed)
    pixel, reliable, instance = (rng.integers(0, 2, shape) for _ in range(3))
    wanted = np.array(
        [
            [(255, p & i)[r] for p, r, i in zip(*rows, strict=True)]
            for rows in zip(pixel, reliable, instance, strict=True)
        ]
    )
    for one, yes in ((bool, 1), (np.uint8, 255), (np.int64, 1), (np.float32, 1)):
        given_maps = ((each * yes).astype(one) for each in (pixel, reliable, instance))
        label = rules.mixed(*given_maps)
        assert label.dtype == np.uint8
        assert np.array_equal(label, wanted)


# ------------------------------------------------------------------------------------------------ instances
def _slow_instances(
    first: list[np.ndarray], second: list[np.ndarray], shape: tuple[int, int], delta: float
) -> np.ndarray:
    changed = np.zeros(shape, bool)
    for own, others in ((first, second), (second, first)):
        for mask in own:
            total = 0.0
            for other in others:
                common, union = np.count_nonzero(mask & other), np.count_nonzero(mask | other)
                total += common / union if union else 0.0
            if not others or total <= delta:
                changed |= mask
    return changed


def _as_given(mask: np.ndarray, form: int) -> Any:
    """Return a mask in one of the forms in which instances come."""
    compressed = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
    if form == 4:  # run lengths as numbers, columns first, the first run being zeros
        flat = mask.ravel(order="F")
        edges = np.flatnonzero(np.diff(flat.astype(int))) + 1
        runs = np.diff([0, *edges, flat.size]).tolist()
        return {"size": list(mask.shape), "counts": ([0] if flat[0] else []) + runs}
    forms = [mask, mask.astype(np.uint8) * 255, np.asfortranarray(mask), compressed, None]
    forms.append({"size": list(mask.shape), "counts": compressed["counts"].decode()})
    return forms[form]


@st.composite
def instance_pairs(draw: st.DrawFn) -> tuple[list[np.ndarray], list[np.ndarray], tuple[int, int]]:
    """Boxes that overlap within a date, touch, are one pixel or none at all; the image need not be square."""
    shape = draw(st.integers(1, 13)), draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dates: list[list[np.ndarray]] = []
    for count in (draw(st.integers(0, 6)), draw(st.integers(0, 6))):
        dates.append([_blob(rng, shape) for _ in range(count)])
    return dates[0], dates[1], shape


def _blob(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    kind = rng.integers(0, 5)
    if kind == 0:
        return mask  # empty
    row, col = rng.integers(0, shape[0]), rng.integers(0, shape[1])
    height, width = (1, 1) if kind == 1 else rng.integers(1, 5, 2)
    mask[row : row + height, col : col + width] = True
    if kind == 2:
        mask &= rng.random(shape) < 0.6
    return mask


@settings(deadline=None, max_examples=250)
@given(instance_pairs(), st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0, 2.5]), st.integers(0, 2**32 - 1))
def test_instances_are_the_restatement_in_every_form(case: Any, delta: float, seed: int) -> None:
    first, second, shape = case
    rng = np.random.default_rng(seed)
    forms = [[_as_given(mask, int(rng.integers(0, 6))) for mask in date] for date in (first, second)]
    found = instance_rule.instance_level(forms[0], forms[1], shape_hw=shape, delta=delta)
    assert found.dtype == bool and found.shape == shape
    assert np.array_equal(found, _slow_instances(first, second, shape, delta))


def test_many_instances_are_compared_in_rows_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    dates = [[_blob(rng, (31, 23)) for _ in range(count)] for count in (17, 29)]
    wanted = instance_rule.instance_level(*dates, shape_hw=(31, 23))
    monkeypatch.setattr(instance_rule, "MAX_PAIRS_AT_ONCE", 40)
    assert np.array_equal(instance_rule.instance_level(*dates, shape_hw=(31, 23)), wanted)
    assert np.array_equal(wanted, _slow_instances(*dates, (31, 23), 0.0))
    assert wanted.any() and not np.array_equal(wanted, np.any([*dates[0], *dates[1]], axis=0))
