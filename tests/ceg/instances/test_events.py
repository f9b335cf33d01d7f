"""The options beyond the paper, against their definition written out slowly; and from -> to of the changed objects."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as rle

from semicdvl.ceg.config import CEGSettings
from semicdvl.ceg.instances import events, feature_similarity
from semicdvl.ceg.instances.masks import crop_instances
from semicdvl.ceg.instances.rule import instance_level
from semicdvl.ceg.labels import make_labels
from semicdvl.ceg.prompts import Prompts
from semicdvl.ceg.transitions import list_change_objects
from semicdvl.errors import ConfigError, DataError
from semicdvl.types import Instance, Segments, VLMLabels

SHAPE = (13, 17)


def _box(row: int, col: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[max(row, 0) : row + height, max(col, 0) : col + width] = True
    return mask


def _moved(mask: np.ndarray, down: int, right: int) -> set[tuple[int, int]]:
    return {(row + down, col + right) for row, col in np.argwhere(mask).tolist()}


def _slow(first: list[np.ndarray], second: list[np.ndarray], chosen: CEGSettings) -> tuple[np.ndarray, np.ndarray]:
    """Every instance under every shift against every other, as sets of pixels."""
    alone, replaced, reach = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool), range(-chosen.shift_px, chosen.shift_px + 1)
    shifts = [(y, x) for y in reach for x in reach if np.hypot(y, x) <= chosen.shift_px]
    for own, others in ((first, second), (second, first)):
        for mask in own:
            best_sum = best = 0.0
            for shift in shifts:
                mine = _moved(mask, *shift)
                ious = [len(mine & _moved(each, 0, 0)) / max(len(mine | _moved(each, 0, 0)), 1) for each in others]
                best_sum, best = max(best_sum, sum(ious)), max([best, *ious])
            if best_sum <= chosen.delta:
                alone |= mask
            elif chosen.replaced_iou is not None and best < chosen.replaced_iou:
                replaced |= mask
    return alone, replaced


@st.composite
def boxes(draw: st.DrawFn) -> list[np.ndarray]:
    sides = st.tuples(st.integers(-1, 14), st.integers(-1, 18), st.integers(0, 5), st.integers(1, 6))
    return [_box(*each) for each in draw(st.lists(sides, max_size=4))]


@settings(deadline=None, max_examples=80)
@given(
    boxes(), boxes(), st.integers(0, 3), st.sampled_from([0.0, 0.05]), st.sampled_from([None, 0.3, 1.0]), st.booleans()
)
def test_shift_and_replaced_are_their_definition(
    first: list[np.ndarray], second: list[np.ndarray], shift_px: int, delta: float, least: float | None, as_rle: bool
) -> None:
    chosen = CEGSettings(delta=delta, shift_px=shift_px, replaced_iou=least)
    forms: list[list[Any]] = [first, second]
    if as_rle:
        forms = [[rle.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in date] for date in forms]
    found = events.find_change_events_of_instances(forms[0], forms[1], shape_hw=SHAPE, settings=chosen)
    wanted = _slow(first, second, chosen)
    assert np.array_equal(found.unmatched_HW, wanted[0])
    assert np.array_equal(found.replaced_HW, wanted[1])


@settings(deadline=None, max_examples=60)
@given(boxes(), boxes(), st.sampled_from([0.0, 0.01, 0.4]))
def test_without_options_it_is_the_paper(first: list[np.ndarray], second: list[np.ndarray], delta: float) -> None:
    found = events.find_change_events_of_instances(first, second, shape_hw=SHAPE, settings=CEGSettings(delta=delta))
    assert np.array_equal(found.unmatched_HW, instance_level(first, second, shape_hw=SHAPE, delta=delta))
    assert not found.replaced_HW.any()


def test_a_shift_as_long_as_the_gap_meets_and_one_shorter_does_not() -> None:
    first, second = [_box(2, 2, 3, 3)], [_box(2, 7, 3, 3)]  # columns 2..4 and 7..9: three steps apart
    at = {
        d: events.find_change_events_of_instances(first, second, shape_hw=SHAPE, settings=CEGSettings(shift_px=d))
        for d in (2, 3)
    }
    assert np.array_equal(at[2].unmatched_HW, first[0] | second[0])
    assert not at[3].unmatched_HW.any()


# ------------------------------------------------------------------------------------------------ class and looks
def test_a_partner_of_another_class_replaces_and_the_best_partner_decides() -> None:
    old, shed = _box(2, 2, 6, 6), _box(7, 7, 2, 2)  # the shed touches the old house's corner
    new = _box(2, 2, 6, 5)
    classes = {"t1": [0], "t2": [1, 0]}
    only = CEGSettings(replaced_class=True)
    found = events.find_change_events_of_instances([old], [new, shed], shape_hw=SHAPE, settings=only, classes=classes)
    assert np.array_equal(found.replaced_HW, old | new)  # the shed's only partner is of its own class
    same = events.find_change_events_of_instances(
        [old], [new, shed], shape_hw=SHAPE, settings=only, classes={"t1": [0], "t2": [0, 1]}
    )
    assert np.array_equal(same.replaced_HW, shed)
    with pytest.raises(DataError, match="1 classes for 2 instances"):
        events.find_change_events_of_instances(
            [old], [new, shed], shape_hw=SHAPE, settings=only, classes={"t1": [0], "t2": [1]}
        )


def test_objects_of_other_looks_are_replaced_however_coarse_the_features() -> None:
    house, other = _box(0, 0, 6, 8), _box(7, 9, 5, 7)
    t1_DHW, t2_DHW = np.zeros((3, 2, 2), np.float32), np.zeros((3, 2, 2), np.float32)
    t1_DHW[0], t2_DHW[0] = 1, 1
    t2_DHW[:, 0, 0] = (0, 1, 0)  # the upper left quarter looks different now
    looks = feature_similarity.PairFeatures(t1_DHW, t2_DHW)
    pieces = crop_instances([house, other], shape_hw=SHAPE)
    assert feature_similarity.compute_feature_similarity(pieces, looks, shape_hw=SHAPE) == pytest.approx([0.0, 1.0])
    only = CEGSettings(min_cosine=0.5)
    found = events.find_change_events_of_instances(
        [house, other], [house, other], shape_hw=SHAPE, settings=only, features=looks
    )
    assert np.array_equal(found.replaced_HW, house)
    assert not found.unmatched_HW.any()
    assert feature_similarity.compute_feature_similarity(
        pieces, feature_similarity.PairFeatures(t1_DHW, 0 * t2_DHW), shape_hw=SHAPE
    ).tolist() == [
        1.0,
        1.0,
    ]
    with pytest.raises(DataError, match="there are none"):
        events.find_change_events_of_instances([house], [house], shape_hw=SHAPE, settings=only)
    with pytest.raises(DataError, match=r"\(D, H, W\) alike"):
        feature_similarity.compute_feature_similarity(
            pieces, feature_similarity.PairFeatures(t1_DHW, t2_DHW[:2]), shape_hw=SHAPE
        )
    with pytest.raises(DataError, match="NaN"):
        feature_similarity.compute_feature_similarity(
            pieces, feature_similarity.PairFeatures(t1_DHW * np.nan, t2_DHW), shape_hw=SHAPE
        )


# ------------------------------------------------------------------------------------------------ settings
def test_settings_that_are_off_leave_no_trace_and_wrong_ones_are_refused() -> None:
    assert set(CEGSettings().to_plain_dict()) == {
        "level",
        "gamma",
        "gamma_segmentation",
        "delta",
        "instance_score",
        "min_area_px",
    }
    assert CEGSettings(shift_px=2).to_plain_dict()["shift_px"] == 2
    assert CEGSettings(replaced_iou=0.0).active_options == ("replaced_iou",)
    for wrong in ({"shift_px": -1}, {"shift_px": 99}, {"replaced_iou": 1.2}, {"min_cosine": -2.0}, {"delta": -0.1}):
        with pytest.raises(ConfigError, match=f"{next(iter(wrong))} = .*give a number from"):
            CEGSettings(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="pixel level has none"):
        CEGSettings(level="pixel", shift_px=1)
    with pytest.raises(ConfigError, match="gamma = nan"):
        CEGSettings(gamma=float("nan"))


# ------------------------------------------------------------------------------------------------ labels
WORDS = Prompts(("house", "pool"), ("tree", "road"))


def _answer(boxes_of: dict[int, list[np.ndarray]], *, own: bool, sure: float = 0.9) -> Segments:
    """Trees everywhere, and objects of some prompts."""
    scores = np.full((4, *SHAPE), 0.1, np.float32)
    scores[2] = 0.85
    for prompt, masks in boxes_of.items():
        for mask in masks:
            scores[:, mask] = 0.1
            scores[prompt, mask] = sure
    found = tuple(Instance(mask, prompt, sure) for prompt, masks in boxes_of.items() for mask in masks)
    return Segments(scores, WORDS.words, found if own else None)


@pytest.mark.parametrize("own", [True, False], ids=["instances", "components"])
@pytest.mark.parametrize("level", ["mixed", "instance"])
def test_a_rebuilt_house_is_found_with_the_option_only(own: bool, level: Any) -> None:
    before, after = _box(1, 1, 8, 8), _box(6, 6, 5, 9)
    t1, t2 = _answer({0: [before]}, own=own), _answer({0: [after]}, own=own)
    plain = CEGSettings(level=level, min_area_px=1)
    assert not (make_labels(t1, t2, prompts=WORDS, settings=plain).change_HW == 1).any()
    option = replace(plain, replaced_iou=0.3)
    assert np.array_equal(make_labels(t1, t2, prompts=WORDS, settings=option).change_HW == 1, before | after)


@pytest.mark.parametrize("own", [True, False], ids=["instances", "components"])
def test_a_house_that_became_a_pool_is_replaced_by_class_but_not_where_unsure(own: bool) -> None:
    place = _box(3, 4, 5, 6)
    t1, t2 = _answer({0: [place]}, own=own), _answer({1: [place]}, own=own)
    option = CEGSettings(replaced_class=True, min_area_px=1)
    assert np.array_equal(make_labels(t1, t2, prompts=WORDS, settings=option).change_HW == 1, place)
    unsure = _answer({1: [place]}, own=own, sure=0.6)
    label = make_labels(t1, unsure, prompts=WORDS, settings=option)
    assert np.array_equal(label.change_HW == 255, place) and not (label.change_HW == 1).any()


def test_one_date_with_and_one_without_instances_is_refused() -> None:
    t1, t2 = _answer({0: [_box(1, 1, 3, 3)]}, own=True), _answer({0: [_box(1, 1, 3, 3)]}, own=False)
    with pytest.raises(ConfigError, match="one date has instances"):
        make_labels(t1, t2, prompts=WORDS, settings=CEGSettings())


# ------------------------------------------------------------------------------------------------ from -> to
def test_every_object_says_what_it_was_and_is() -> None:
    gone, new, swapped = _box(0, 0, 3, 4), _box(8, 1, 4, 5), _box(2, 10, 6, 5)
    t1 = _answer({0: [gone, swapped]}, own=False)
    t2 = _answer({0: [new], 1: [swapped]}, own=False)
    t2.scores_CHW[:, gone] = np.array([0.1, 0.2, 0.3, 0.8])[:, None]  # a road where the house was
    change = (gone | new | swapped).astype(np.uint8)
    change[12, 16] = 255
    labels = VLMLabels(change, change, change)
    found = list_change_objects(labels, t1, t2, prompts=WORDS)
    assert [(one.number, one.kind, one.transition, one.area_px, one.box_px) for one in found] == [
        (1, "disappeared", "house -> road", 12, (0, 0, 3, 4)),
        (2, "replaced", "house -> pool", 30, (2, 10, 6, 5)),
        (3, "appeared", "tree -> house", 20, (8, 1, 4, 5)),
    ]
    assert found[0].score == pytest.approx(0.9 / 1.0 - 0.2 / 1.0, abs=1e-4)
    assert found[1].score == pytest.approx(0.0, abs=1e-4)  # foreground before and after
    assert [one.number for one in list_change_objects(labels, t1, t2, prompts=WORDS, min_area_px=20)] == [1, 2]
    with pytest.raises(DataError, match="one map per prompt"):
        list_change_objects(labels, t1, Segments(t2.scores_CHW[:3], WORDS.words[:3]), prompts=WORDS)
    nothing = VLMLabels(np.zeros(SHAPE, np.uint8), change, change)
    assert list_change_objects(nothing, t1, t2, prompts=WORDS) == []
