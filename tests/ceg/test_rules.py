"""Change event generation against the reference cases and against the definition, written out slowly."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.support.paths import SHARED

from semicdvl.ceg import rules
from semicdvl.ceg.instances import rule as instance_rule
from semicdvl.errors import DataError

ORACLE = sorted((SHARED / "ceg_oracle").glob("*.npz"))
SHAPE = (9, 11)


@pytest.mark.skipif(not ORACLE, reason="no reference cases at ../shared/ceg_oracle")
@pytest.mark.parametrize("path", ORACLE, ids=lambda path: path.stem)
def test_equals_the_reference_to_the_bit(path: Path) -> None:
    case = np.load(path)
    prob_a, prob_b = case["prob_A"], case["prob_B"]
    shape = prob_a.shape[1:]
    instances = {
        date: [
            {"size": list(shape), "counts": bytes(counts)}
            for counts, category in zip(case[f"inst_{date}_rle"], case[f"inst_{date}_category"], strict=True)
            if category in (0, 1)
        ]
        for date in "AB"
    }
    masks = {
        date: [
            mask.astype(bool)
            for mask, category in zip(
                np.unpackbits(case[f"inst_{date}"], axis=-1, count=shape[1]),
                case[f"inst_{date}_category"],
                strict=True,
            )
            if category in (0, 1)
        ]
        for date in "AB"
    }
    instance = instance_rule.instance_level(instances["A"], instances["B"], shape_hw=shape)
    assert np.array_equal(instance * np.uint8(255), case["instance_change"])
    assert np.array_equal(instance_rule.instance_level(masks["A"], masks["B"], shape_hw=shape), instance)
    change, _ = rules.pixel_level(prob_a, prob_b, foreground=[0, 1], gamma=-1)
    assert np.array_equal(change, case["pixel_change_nogamma"])
    for gamma in (0.1, 0.5, 0.8):
        change, reliable = rules.pixel_level(prob_a, prob_b, foreground=[0, 1], gamma=gamma)
        assert np.array_equal(reliable, case[f"reliable_{gamma}"])
        assert np.array_equal(rules.mixed(change, reliable, np.ones(shape)), case[f"pixel_{gamma}"])
        assert np.array_equal(rules.mixed(change, reliable, instance), case[f"mixed_{gamma}"])
        together = rules.make_mixed_labels(
            prob_a, prob_b, instance, foreground=[0, 1], gamma=gamma, gamma_segmentation=gamma
        )
        for label, key in zip(together, ("mixed", "seg_A", "seg_B"), strict=True):
            assert label.dtype == np.uint8
            assert np.array_equal(label, case[f"{key}_{gamma}"])
        for date, prob in (("A", prob_a), ("B", prob_b)):
            label = rules.segmentation(prob, foreground=[0, 1], gamma=gamma)
            assert label.dtype == np.uint8
            assert np.array_equal(label, case[f"seg_{date}_{gamma}"])


def _by_definition(own: list[np.ndarray], others: list[np.ndarray], delta: float) -> np.ndarray:
    changed = np.zeros(SHAPE, bool)
    for mask in own:
        total = sum((mask & other).sum() / max((mask | other).sum(), 1) for other in others)
        if total <= delta:
            changed |= mask
    return changed


masks = st.lists(hnp.arrays(bool, SHAPE, elements=st.sampled_from([False, False, False, True])), max_size=4)


@settings(deadline=None)
@given(masks, masks, st.sampled_from([0.0, 0.01, 0.2, 1.0]))
def test_instance_level_is_its_definition(first: list[np.ndarray], second: list[np.ndarray], delta: float) -> None:
    wanted = _by_definition(first, second, delta) | _by_definition(second, first, delta)
    assert np.array_equal(instance_rule.instance_level(first, second, shape_hw=SHAPE, delta=delta), wanted)


label_images = hnp.arrays(np.int32, SHAPE, elements=st.integers(0, 4))


@settings(deadline=None)
@given(label_images, label_images, st.sampled_from([0.0, 0.01, 0.2]))
def test_label_images_give_the_same_as_masks(first: np.ndarray, second: np.ndarray, delta: float) -> None:
    split = [[labels == index for index in range(1, labels.max() + 1)] for labels in (first, second)]
    wanted = instance_rule.instance_level(split[0], split[1], shape_hw=SHAPE, delta=delta)
    assert np.array_equal(instance_rule.instance_level_from_label_images(first, second, delta=delta), wanted)


@given(hnp.arrays(np.float32, (3, *SHAPE), elements=st.sampled_from([0.0, 0.25, 0.5, np.float32(0.8), 1.0])))
def test_an_unchanged_place_has_no_change(scores: np.ndarray) -> None:
    change, reliable = rules.pixel_level(scores, scores, foreground=[1], gamma=0.8)
    assert not change.any()
    assert np.array_equal(reliable, scores.max(axis=0) >= np.float32(0.8))


def test_a_tie_is_foreground_and_gamma_itself_is_reliable() -> None:
    tie = np.full((2, *SHAPE), np.float32(0.8))
    assert (rules.segmentation(tie, foreground=[1], gamma=0.8) == 1).all()
    below = np.full((2, *SHAPE), np.nextafter(np.float32(0.8), np.float32(0)))
    assert (rules.segmentation(below, foreground=[1], gamma=0.8) == 255).all()


@given(
    hnp.arrays(np.float32, (2, 4, *SHAPE), elements=st.sampled_from([0.3, np.float32(0.8), 1.0, 1.2, 1.9])),
    st.sampled_from([0.5, 0.8, 1.0, 1.5]),
)
def test_sums_above_1_are_compared_as_they_are(scores: np.ndarray, gamma: float) -> None:
    """The public scripts append a map of gamma to the raw scores and take the argmax; the first of equals wins."""
    with_gamma = [np.concatenate([date, np.full((1, *SHAPE), gamma, np.float32)]).argmax(axis=0) for date in scores]
    wanted = [np.where(winner == 4, 255, winner < 2) for winner in with_gamma]
    for date, label in zip(scores, wanted, strict=True):
        assert np.array_equal(rules.segmentation(date, foreground=[0, 1], gamma=gamma), label)
    change, reliable = rules.pixel_level(*scores, foreground=[0, 1], gamma=gamma)
    assert np.array_equal(reliable, (wanted[0] != 255) & (wanted[1] != 255))
    assert np.array_equal(change & reliable, (wanted[0] != wanted[1]) & reliable)


@settings(deadline=None)
@given(
    hnp.arrays(np.float32, (2, 3, *SHAPE), elements=st.sampled_from([0.0, 0.25, 0.5, np.float32(0.8), 1.0])),
    hnp.arrays(bool, SHAPE),
    st.sampled_from([0.25, 0.5]),
)
def test_labels_together_are_the_labels_one_by_one(scores: np.ndarray, instance: np.ndarray, gamma: float) -> None:
    together = rules.make_mixed_labels(*scores, instance, foreground=[2], gamma=gamma, gamma_segmentation=0.8)
    pixel, reliable = rules.pixel_level(*scores, foreground=[2], gamma=gamma)
    assert np.array_equal(together[0], rules.mixed(pixel, reliable, instance))
    for label, date in zip(together[1:], scores, strict=True):
        assert np.array_equal(label, rules.segmentation(date, foreground=[2], gamma=0.8))


def test_one_empty_date_makes_all_of_the_other_change_and_none_makes_nothing() -> None:
    mask = np.zeros(SHAPE, bool)
    mask[2:4, 3:7] = True
    assert np.array_equal(instance_rule.instance_level([mask], [], shape_hw=SHAPE), mask)
    assert np.array_equal(instance_rule.instance_level([], [mask], shape_hw=SHAPE), mask)
    assert not instance_rule.instance_level([], [], shape_hw=SHAPE).any()


def test_components_join_diagonals_and_drop_the_small() -> None:
    scores = np.zeros((2, *SHAPE), np.float32)
    scores[1] = 0.3
    scores[0, 1, 1] = scores[0, 2, 2] = scores[0, 3, 3] = 0.9  # one diagonal object
    scores[0, 7, 8] = 0.9  # a single pixel
    scores[0, 5, 5] = 0.4  # wins, but below the threshold
    labels = instance_rule.find_components(scores, foreground=[0], threshold=0.5, min_area_px=2)
    assert labels.max() == 1
    assert np.argwhere(labels == 1).tolist() == [[1, 1], [2, 2], [3, 3]]
    assert instance_rule.find_components(scores, foreground=[0], threshold=0.95).max() == 0


@pytest.mark.parametrize("foreground", [[], [0, 0], [2], [-1]])
def test_foreground_that_does_not_fit_is_refused(foreground: list[int]) -> None:
    with pytest.raises(DataError, match="foreground"):
        rules.segmentation(np.zeros((2, *SHAPE), np.float32), foreground=foreground, gamma=0.5)


def test_masks_of_another_size_are_refused() -> None:
    with pytest.raises(DataError, match="instance mask"):
        instance_rule.instance_level([np.ones((3, 4), bool)], [], shape_hw=SHAPE)
    with pytest.raises(DataError, match="differ in shape"):
        rules.pixel_level(np.zeros((2, 3, 4)), np.zeros((2, 4, 3)), foreground=[0], gamma=0.5)


def test_the_examples_in_the_docstrings_run() -> None:
    import doctest

    found = doctest.testmod(rules)
    assert found.attempted >= 9 and found.failed == 0
