"""The residual rule: rebuilt on touched ground, clipped at objects, and the same for every division into strips."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st
from scipy import ndimage

from semicdvl.ceg.config import SCORE_STEPS, CEGSettings
from semicdvl.ceg.labels import make_labels
from semicdvl.ceg.prompts import Prompts
from semicdvl.ceg.residual.rule import find_residual_events
from semicdvl.ceg.residual.streaming import find_streamed_residual_events
from semicdvl.ceg.streaming_components import PairScoreStrip
from semicdvl.errors import ConfigError
from semicdvl.types import Segments

PROMPTS = Prompts(("house",), ("grass",))
SETTINGS = CEGSettings(level="residual", gsd_m=1.0)
"""At 1 m per pixel: grown by 2 px, opened by 2 px, at least 12 px, grown back by 2 px."""


def scores(shape_hw: tuple[int, int], *houses: tuple[slice, slice, float]) -> np.ndarray:
    """Score maps of house and grass: houses with their scores on certain grass."""
    house_HW = np.full(shape_hw, 0.1, np.float32)
    for rows, cols, score in houses:
        house_HW[rows, cols] = score
    return np.stack([house_HW, np.float32(0.9) - house_HW])


def found(t1_CHW: np.ndarray, t2_CHW: np.ndarray, settings: CEGSettings = SETTINGS) -> np.ndarray:
    return find_residual_events(t1_CHW, t2_CHW, foreground=(0,), settings=settings)


def box(shape_hw: tuple[int, int], rows: slice, cols: slice) -> np.ndarray:
    mask_HW = np.zeros(shape_hw, bool)
    mask_HW[rows, cols] = True
    return mask_HW


def test_a_house_built_against_another_is_found_up_to_the_wall():
    """The paper's rule matches both as one object. Column 10 is the first of the new part."""
    old, both = ((slice(4, 16), slice(2, stop), 0.9) for stop in (10, 26))
    changed_HW = found(scores((20, 30), old), scores((20, 30), both))
    expected_HW = box((20, 30), slice(4, 16), slice(10, 26))
    assert not (changed_HW & ~expected_HW).any()
    assert changed_HW[6:14, 10:26].all()
    assert (expected_HW & ~changed_HW).sum() == 6  # two corners at the wall, which the disc of the opening leaves out
    instance = make_labels(
        Segments(scores((20, 30), old), PROMPTS.words), Segments(scores((20, 30), both), PROMPTS.words),
        prompts=PROMPTS, settings=CEGSettings(level="instance"),
    )  # fmt: skip
    assert not instance.change_HW.any()


def test_a_house_alone_is_changed_whole_at_either_date():
    house = slice(5, 13), slice(6, 17)
    before, after = scores((20, 30), (*house, 0.9)), scores((20, 30))
    for dates in ((before, after), (after, before)):
        assert (found(*dates) == box((20, 30), *house)).all()


def test_scores_of_hysteresis_are_the_documented_ones():
    house = slice(5, 13), slice(6, 17)
    empty = scores((20, 30))
    assert found(empty, scores((20, 30), (*house, 0.6))).sum() == 88
    assert not found(empty, scores((20, 30), (*house, 0.595))).any()
    unsure = scores((20, 30), (*house, 0.45))
    assert not found(unsure, scores((20, 30), (*house, 0.9))).any()  # 0.45: there at the other date, too
    # what is less sure around a core is no part of its object: the core comes back
    core = slice(8, 14), slice(12, 18)
    changed_HW = found(empty, scores((20, 30), (slice(3, 18), slice(2, 28), 0.5), (*core, 0.9)))
    assert (changed_HW == box((20, 30), *core)).all()


@pytest.mark.parametrize(
    ("gsd_m", "side", "changed"), [(1.0, 3, False), (1.0, 5, True), (0.5, 5, False), (0.5, 10, True), (None, 5, False)]
)
def test_sizes_are_in_metres(gsd_m, side, changed):
    """A disc with a radius of 2 m does not fit into 3 m or 2.5 m, and fits into 5 m; unknown means 0.5 m per pixel."""
    house = slice(8, 8 + side), slice(9, 9 + side), 0.9
    settings = CEGSettings(level="residual").at_gsd(gsd_m)
    assert found(scores((30, 33)), scores((30, 33), house), settings).any() == changed


def test_an_event_does_not_grow_into_a_neighbour():
    """Two houses 1 px apart, one of them there before: the new one grows back to its own wall."""
    stays, comes = (slice(4, 16), slice(2, 12), 0.9), (slice(4, 16), slice(13, 26), 0.9)
    changed_HW = found(scores((20, 30), stays), scores((20, 30), stays, comes))
    assert not changed_HW[:, :13].any() and changed_HW[5:15, 13:26].all()


def test_small_events_are_left_out():
    settings = CEGSettings(level="residual", gsd_m=1.0, residual_open_m=0.0)
    assert found(scores((20, 30)), scores((20, 30), (slice(5, 8), slice(6, 10), 0.9)), settings).sum() == 12
    assert not found(scores((20, 30)), scores((20, 30), (slice(5, 6), slice(6, 17), 0.9)), settings).any()


def test_labels_have_a_class_everywhere():
    house = slice(5, 13), slice(6, 17), 0.9
    t1, t2 = (Segments(scores((20, 30), *houses), PROMPTS.words) for houses in ((), (house,)))
    labels = make_labels(t1, t2, prompts=PROMPTS, settings=SETTINGS)
    assert (labels.change_HW == box((20, 30), *house[:2])).all()


# ------------------------------------------------------------------------------------------------ strip by strip
def answers(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    blobs = np.stack([ndimage.gaussian_filter(rng.normal(size=(height, width)), 2) for _ in range(2)])
    ranks = blobs.argsort(axis=None).argsort().reshape(blobs.shape) / blobs.size
    return (np.round(ranks * SCORE_STEPS) / SCORE_STEPS).astype(np.float32)


@given(
    seed=st.integers(0, 9999), shape=st.tuples(st.integers(1, 60), st.integers(1, 45)),
    heights=st.lists(st.integers(1, 13), min_size=1, max_size=4),
    open_m=st.sampled_from([0.0, 1.0, 2.0]), regrow_m=st.sampled_from([0.0, 2.0, 5.5]),
    area_m2=st.sampled_from([0.0, 12.0, 60.0]), hole=st.booleans(),
)  # fmt: skip
@runs(max_examples=60, deadline=None)
def test_strips_give_what_the_whole_gives(seed, shape, heights, open_m, regrow_m, area_m2, hole):
    rng = np.random.default_rng(seed)
    t1, fresh = (answers(rng, *shape) for _ in range(2))
    t2 = np.where(ndimage.gaussian_filter(rng.normal(size=shape), 3) < 0, t1, fresh)
    valid = rng.random(shape) < 0.97 if hole else np.ones(shape, bool)
    settings = CEGSettings(
        level="residual", gsd_m=1.0, residual_score=0.55, residual_open_m=open_m, residual_regrow_m=regrow_m,
        residual_area_m2=area_m2,
    )  # fmt: skip
    edges = np.minimum(np.cumsum([0, *heights, *([heights[-1]] * shape[0])]), shape[0])
    strips = [PairScoreStrip(int(a), t1[:, a:b], t2[:, a:b], valid[a:b]) for a, b in itertools.pairwise(edges) if b > a]
    painted = list(find_streamed_residual_events(strips, prompts=PROMPTS, settings=settings).paint(strips))
    assert [len(each) for each in painted] == [len(strip.valid_HW) for strip in strips]
    whole_HW = found(np.where(valid, t1, np.float32(0)) * valid, np.where(valid, t2, np.float32(0)) * valid, settings)
    assert (np.concatenate(painted) == whole_HW).all()
    assert not (np.concatenate(painted) & ~valid).any()


def test_a_path_of_growth_needs_events_that_are_twice_as_far_away():
    """An event grows by 4 m along a diagonal to row 5; of the diagonal, row 4 is near to the event of row 0 alone."""
    object_HW, event_HW = np.zeros((2, 12, 14), bool)
    event_HW[[0, 1, 5], [3, 0, 8]] = True
    path = [1, 2, 3, 4, 5], [0, 1, 2, 3, 4]
    object_HW[event_HW] = object_HW[path] = True
    settings = replace(SETTINGS, residual_apart_m=0, residual_open_m=0, residual_area_m2=0, residual_regrow_m=4)
    house_HW = np.float32([np.where(object_HW & ~event_HW, 0.5, 0.1), np.where(object_HW, 0.9, 0.1)])
    t1, t2 = (np.stack([one_HW, np.float32(0.95) - one_HW]) for one_HW in house_HW)
    whole_HW = found(t1, t2, settings)
    assert whole_HW[path].all()
    valid_HW = np.ones((12, 14), bool)
    for height in range(1, 12):
        cuts = [slice(row, row + height) for row in range(0, 12, height)]
        strips = [PairScoreStrip(rows.start, t1[:, rows], t2[:, rows], valid_HW[rows]) for rows in cuts]
        painted = find_streamed_residual_events(strips, prompts=PROMPTS, settings=settings).paint(strips)
        assert (np.concatenate(list(painted)) == whole_HW).all(), height


def test_few_strips_are_held_at_a_time():
    """Of a raster of 400 strips no more than what reaches into the current one is read ahead."""
    shape_hw, read, ahead = (4, 30), 0, []

    def strips():
        nonlocal read
        for at in range(400):
            read += 1
            maps = scores(shape_hw, (slice(0, 4), slice(5, 20), 0.9 if at % 10 < 7 else 0.1))
            yield PairScoreStrip(4 * at, scores(shape_hw), maps, np.ones(shape_hw, bool))

    events = find_streamed_residual_events(strips(), prompts=PROMPTS, settings=SETTINGS)
    read, changed_px = 0, 0
    for at, changed_HW in enumerate(events.paint(strips())):
        ahead.append(read - at)
        changed_px += int(changed_HW.sum())
    assert max(ahead) <= 5  # 6 rows around the event and 2 for growing back: 2 strips and 1, and those in hand
    assert changed_px == 40 * 28 * 15


# ------------------------------------------------------------------------------------------------ settings
def test_settings_of_the_level_are_stored_with_it_alone():
    assert "residual_score" not in CEGSettings().to_plain_dict() and "gsd_m" not in CEGSettings().to_plain_dict()
    plain = SETTINGS.to_plain_dict()
    assert plain["residual_apart_m"] == 2.0 and plain["gsd_m"] == 1.0 and "shift_px" not in plain


def test_only_the_residual_level_takes_a_ground_sampling_distance():
    assert CEGSettings().at_gsd(0.3) == CEGSettings()
    assert CEGSettings(level="residual").at_gsd(0.3).gsd_m == 0.3
    assert SETTINGS.at_gsd(0.3).gsd_m == 1.0


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"shift_px": 2}, "the residual level has none"),
        ({"residual_other_score": 0.8}, "residual_other_score = 0.8"),
        ({"residual_open_m": -1.0}, "residual_open_m"),
        ({"residual_area_m2": float("nan")}, "residual_area_m2"),
        ({"residual_score": 0.601}, "multiple of 0.005"),
        ({"gsd_m": 0.0}, "gsd_m = 0.0"),
        ({"residual_score": 60.0}, "residual_score = 60.0: give a number from 0 to 1"),
        ({"gamma": 80.0}, "gamma = 80.0: give a number from 0 to 1"),
        ({"gamma_segmentation": -0.5}, "gamma_segmentation = -0.5"),
        ({"instance_score": 1.5}, "instance_score = 1.5"),
        ({"min_area_px": -1}, "min_area_px = -1"),
        ({"gsd_m": 0.001}, "gsd_m = 0.001: give metres per pixel, from 0.01 to 1,000,000"),
        ({"gsd_m": 1e300}, "gsd_m = 1e\\+300: give metres per pixel"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong, reason):
    with pytest.raises(ConfigError, match=reason):
        CEGSettings(level="residual", **wrong)
