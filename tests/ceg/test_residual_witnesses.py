"""The residual rule's two witnesses beside the scores: outlines of the image, and features of the dates."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from semicdvl.ceg.config import CEGSettings, choose_detection_level
from semicdvl.ceg.instances.feature_similarity import PairFeatures
from semicdvl.ceg.labels import find_instance_events
from semicdvl.ceg.prompts import Prompts, build_class_prompts
from semicdvl.ceg.residual.appearance import compute_distance_map, find_least_distance
from semicdvl.ceg.residual.outlines import (
    average_over_segments,
    cut_into_segments,
    find_candidate_windows,
    prepare_residual_answers,
    prepare_residual_scores,
)
from semicdvl.ceg.residual.rule import find_residual_events
from semicdvl.ceg.residual.streaming import find_streamed_residual_events
from semicdvl.ceg.streaming_components import PairScoreStrip
from semicdvl.errors import ConfigError, DataError
from semicdvl.types import Instance, Segments

PROMPTS = Prompts(("house",), ("grass",))
SETTINGS = CEGSettings(level="residual", gsd_m=1.0, residual_regrow_m=0.0, residual_open_m=0.0)
TWO_HOUSES = (slice(4, 14), slice(4, 14)), (slice(4, 14), slice(24, 34))


def scores(*houses: tuple[slice, slice]) -> np.ndarray:
    """Score maps of house and grass on 20 x 40 m."""
    house_HW = np.full((20, 40), 0.1, np.float32)
    for place in houses:
        house_HW[place] = 0.9
    return np.stack([house_HW, np.float32(0.95) - house_HW])


def test_the_distance_is_one_minus_the_cosine_between_cells():
    t1_DHW = np.zeros((2, 1, 3), np.float32)
    t1_DHW[0, 0, :2] = 2.0
    t2_DHW = np.zeros((2, 1, 3), np.float32)
    t2_DHW[0, 0, 0], t2_DHW[1, 0, 1] = 5.0, 1.0
    distance_HW = compute_distance_map(PairFeatures(t1_DHW, t2_DHW), shape_hw=(2, 3))
    assert distance_HW.tolist() == [[0, 1, 0], [0, 1, 0]]  # alike, at right angles, without features
    with pytest.raises(DataError, match="NaN or infinity"):
        compute_distance_map(PairFeatures(t1_DHW, t2_DHW * np.nan), shape_hw=(2, 3))


def test_an_event_on_ground_that_looks_the_same_is_left_out():
    """Unchanged ground differs by 0.2, so an event needs 0.2 + 0.25 * 0.8 = 0.4; without features both are kept."""
    distance_HW = np.full((20, 40), 0.2, np.float32)
    distance_HW[TWO_HOUSES[0]], distance_HW[TWO_HOUSES[1]] = 0.39, 0.41

    def find(**given):
        return find_residual_events(scores(), scores(*TWO_HOUSES), foreground=(0,), **given)

    changed_HW = find(settings=SETTINGS, distance_HW=distance_HW)
    assert not changed_HW[TWO_HOUSES[0]].any() and changed_HW[TWO_HOUSES[1]].all() and changed_HW.sum() == 100
    assert find(settings=SETTINGS).sum() == 200
    assert find(settings=replace(SETTINGS, residual_distance=0.0), distance_HW=distance_HW).sum() == 200
    assert find(settings=replace(SETTINGS, residual_distance_most=0.35), distance_HW=distance_HW).sum() == 200


def test_the_least_distance_follows_the_pairs_own_ground_up_to_a_cap():
    def least(*ground: float) -> float:
        counts_S = np.bincount([round(200 * each) for each in ground], minlength=201)
        return find_least_distance(counts_S, CEGSettings(level="residual"))

    assert least(0.1, 0.2, 0.9) == pytest.approx(0.4)
    assert least(0.7, 0.8, 0.9) == 0.6  # the ground changed everywhere: the cap
    assert least() == 0.0


@pytest.mark.parametrize("heights", [(1,), (3, 5), (40,)])
def test_strips_leave_out_what_the_whole_leaves_out(heights):
    rng = np.random.default_rng(7)
    t1, t2, distance_HW = (
        (ndimage.gaussian_filter(rng.normal(size=(40, 50)), sigma).argsort(axis=None).argsort() / 2000).reshape(40, 50)
        for sigma in (2, 2, 4)
    )
    first, second = (np.float32(np.round(np.stack([part, 0.5 - 0 * part]) * 200) / 200) for part in (t1, t2))
    settings = replace(SETTINGS, residual_distance=0.02, residual_distance_most=0.9)
    whole_HW = find_residual_events(first, second, foreground=(0,), settings=settings, distance_HW=distance_HW)
    plain_HW = find_residual_events(first, second, foreground=(0,), settings=settings)
    assert whole_HW.any() and (plain_HW & ~whole_HW).any()
    edges = np.minimum(np.cumsum([0, *heights, *([heights[-1]] * 40)]), 40)
    strips = [
        PairScoreStrip(int(a), first[:, a:b], second[:, a:b], np.ones((b - a, 50), bool), np.float32(distance_HW[a:b]))
        for a, b in itertools.pairwise(edges)
        if b > a
    ]
    events = find_streamed_residual_events(strips, prompts=PROMPTS, settings=settings)
    assert (np.concatenate(list(events.paint(strips))) == whole_HW).all()


def test_scores_follow_the_segments_by_their_weight():
    """A roof of 4 x 4 px is seen on its left half, and a pixel beyond the eaves."""
    roof_HW = np.zeros((6, 8), np.int32)
    roof_HW[1:5, 2:6] = 1
    seen_HW = np.full((6, 8), 0.1, np.float32)
    seen_HW[1:5, 1:4] = 0.9
    (house_HW,) = average_over_segments(seen_HW[None], roof_HW, weight=0.75)
    assert house_HW[2, 2] == pytest.approx(0.25 * 0.9 + 0.75 * 0.5)  # half of the roof: the mean is 0.5
    assert house_HW[2, 5] == pytest.approx(0.25 * 0.1 + 0.75 * 0.5)
    yard = (4 * 0.9 + 28 * 0.1) / 32
    assert house_HW[2, 1] == pytest.approx(0.25 * 0.9 + 0.75 * yard)


@pytest.mark.parametrize(("gsd_m", "side_px"), [(0.25, 80), (0.5, 40), (1.0, 20)])
def test_a_roof_is_one_segment_at_any_resolution(gsd_m, side_px):
    image_HWC = np.full((2 * side_px, 3 * side_px, 3), 60, np.uint8)
    image_HWC[side_px // 2 : -side_px // 2, side_px:-side_px] = 200
    segments_HW = cut_into_segments(image_HWC, settings=CEGSettings(level="residual", gsd_m=gsd_m))
    assert segments_HW.shape == (2 * side_px, 3 * side_px)
    inner_HW = segments_HW[side_px // 2 + 12 : -side_px // 2 - 12, side_px + 12 : -side_px - 12]
    inner_HW = inner_HW if inner_HW.size else segments_HW[side_px : side_px + 1, side_px + 9 : -side_px - 9]
    assert (inner_HW == segments_HW[side_px, side_px + side_px // 2]).all() and inner_HW.flat[0] != segments_HW[0, 0]


def test_outlines_are_those_of_the_image_unless_they_are_off():
    image_HWC = np.full((20, 40, 3), 60, np.uint8)
    answer = Segments(scores(TWO_HOUSES[0]), PROMPTS.words)
    refined = prepare_residual_scores(answer, image_HWC, prompts=PROMPTS, settings=SETTINGS)
    mean = (100 * 0.9 + 700 * 0.1) / 800  # the image is one segment
    weight = SETTINGS.residual_outlines
    assert refined.scores_CHW[0, 5, 5] == pytest.approx((1 - weight) * 0.9 + weight * mean)
    off = replace(SETTINGS, residual_outlines=0.0)
    assert prepare_residual_scores(answer, image_HWC, prompts=PROMPTS, settings=off) is answer


def test_only_ground_where_the_dates_may_differ_is_cut_into_segments():
    """A house of both dates far to the left, and one of a single date: the block of the second alone is a candidate."""
    rng = np.random.default_rng(0)
    images_HWC = [rng.integers(0, 255, (60, 160, 3), dtype=np.uint8) for _ in range(2)]
    old_HW, new_HW = (np.full((60, 160), 0.1, np.float32) for _ in range(2))
    old_HW[10:20, 4:14] = new_HW[10:20, 4:14] = 0.9
    new_HW[20:30, 120:130] = 0.9
    answers = tuple(Segments(np.stack([house_HW, 1 - house_HW]), PROMPTS.words) for house_HW in (old_HW, new_HW))
    (window,) = find_candidate_windows(answers, concepts=[PROMPTS], settings=SETTINGS)
    # Blocks of 8 m at 1 m per pixel: the house lies in rows 2 and 3, columns 15 and 16; and one block around it.
    assert window.rows_cols == (slice(8, 40), slice(112, 144)) and window.inside_HW.all()
    for before, after, image_HWC in zip(
        answers, prepare_residual_answers(answers, images_HWC, prompts=PROMPTS, settings=SETTINGS), images_HWC,
        strict=True,
    ):  # fmt: skip
        at = (slice(None), *window.rows_cols)
        whole = prepare_residual_scores(
            replace(before, scores_CHW=before.scores_CHW[at]), image_HWC[window.rows_cols], prompts=PROMPTS,
            settings=SETTINGS,
        )  # fmt: skip
        np.testing.assert_array_equal(after.scores_CHW[at], whole.scores_CHW)
        assert (after.scores_CHW[:, :, :112] == before.scores_CHW[:, :, :112]).all()
        assert before.scores_CHW.max() == np.float32(0.9), "the VLM's answer is not changed"


def test_ground_that_goes_from_one_class_to_another_is_cut_into_segments_too():
    """Of house and lake together it has an equal score at both dates."""
    classes = build_class_prompts(("grass", "house", "lake"), {name: [name] for name in ("grass", "house", "lake")})
    t1, t2 = np.full((2, 3, 60, 160), 0.1, np.float32)
    order = classes.prompts.words
    t1[order.index("house"), 20:30, 120:130] = t2[order.index("lake"), 20:30, 120:130] = 0.9
    answers = Segments(t1, order), Segments(t2, order)
    (window,) = find_candidate_windows(answers, concepts=classes.concepts, settings=SETTINGS)
    assert window.rows_cols == (slice(8, 40), slice(112, 144))
    images_HWC = np.zeros((2, 60, 160, 3), np.uint8)
    prepared = prepare_residual_answers(
        answers, (images_HWC[0], images_HWC[1]), prompts=classes.searched, concepts=classes.concepts, settings=SETTINGS
    )
    assert all((after.scores_CHW != before.scores_CHW).any() for after, before in zip(prepared, answers, strict=True))


@pytest.mark.parametrize("differs", [False, True])
def test_an_image_is_cut_as_a_whole_or_not_at_all(differs):
    house_HW = np.full((50, 70), 0.9, np.float32)
    answers = [
        Segments(np.stack([one_HW, 1 - one_HW]), PROMPTS.words) for one_HW in (house_HW, house_HW * (1 - differs))
    ]
    windows = find_candidate_windows(tuple(answers), concepts=[PROMPTS], settings=SETTINGS)
    assert [window.rows_cols for window in windows] == ([(slice(0, 50), slice(0, 70))] if differs else [])


def test_instances_of_the_vlm_are_found_whatever_their_score():
    mask_HW = np.zeros((20, 40), bool)
    mask_HW[TWO_HOUSES[0]] = True
    weak = np.full((2, 20, 40), 0.3, np.float32)
    image_HWC = np.zeros((20, 40, 3), np.uint8)
    answers = [
        prepare_residual_scores(Segments(weak, PROMPTS.words, instances), image_HWC, prompts=PROMPTS, settings=SETTINGS)
        for instances in ((), (Instance(mask_HW, 0, 0.3), Instance(~mask_HW, 1, 0.9)))
    ]
    assert (find_instance_events(*answers, PROMPTS, SETTINGS).unmatched_HW == mask_HW).all()


def test_options_of_whole_objects_choose_the_instance_level():
    assert choose_detection_level(()) == choose_detection_level(("gamma", "residual_score")) == "residual"
    for name in ("delta", "instance_score", "min_area_px", "shift_px", "replaced_iou", "replaced_class", "min_cosine"):
        assert choose_detection_level((name,)) == "instance"
    assert choose_detection_level((), calibrate=True) == "instance"


@pytest.mark.parametrize("name", ["residual_distance", "residual_distance_most", "residual_outlines"])
def test_weights_beyond_one_are_refused(name):
    with pytest.raises(ConfigError, match=f"{name} = 1.5: give a number from 0 to 1"):
        CEGSettings(level="residual", **{name: 1.5})
