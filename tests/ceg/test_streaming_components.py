"""Change events of a raster seen strip by strip are those of the whole raster."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st
from scipy import ndimage

from semicdvl.ceg.config import SCORE_STEPS, CEGSettings
from semicdvl.ceg.instances import rule as instance_rule
from semicdvl.ceg.labels import find_component_events
from semicdvl.ceg.prompts import Prompts
from semicdvl.ceg.streaming_components import PairScoreStrip, find_streamed_component_events

PROMPTS = Prompts(("house", "hall"), ("road", "grass"))
OPTIONS = [
    {},
    {"delta": 0.3},
    {"shift_px": 1},
    {"shift_px": 3, "delta": 0.2},
    {"replaced_iou": 0.4},
    {"replaced_class": True},
    {"shift_px": 2, "replaced_iou": 0.6, "replaced_class": True},
]


def answers(rng: np.random.Generator, height: int, width: int, *, smooth: float) -> np.ndarray:
    """Score maps in the steps of the store, of blobs of a few pixels to half the raster."""
    noise = rng.normal(size=(4, height, width))
    blobs = np.stack([ndimage.gaussian_filter(one, smooth) for one in noise]) if smooth else noise
    ranks = blobs.argsort(axis=None).argsort().reshape(blobs.shape) / blobs.size
    return (np.round(ranks * SCORE_STEPS) / SCORE_STEPS).astype(np.float32)


def cut_up(t1: np.ndarray, t2: np.ndarray, valid: np.ndarray, heights: list[int]) -> list[PairScoreStrip]:
    edges = np.minimum(np.cumsum([0, *heights, *([heights[-1]] * valid.shape[0])]), valid.shape[0])
    return [PairScoreStrip(int(a), t1[:, a:b], t2[:, a:b], valid[a:b]) for a, b in itertools.pairwise(edges) if b > a]


def strip_events(strips: list[PairScoreStrip], *, settings: CEGSettings):
    judged = find_streamed_component_events(iter(strips), prompts=PROMPTS, settings=settings)
    return [judged.paint_strip(strip) for strip in strips]


def whole(t1: np.ndarray, t2: np.ndarray, valid: np.ndarray, settings: CEGSettings):
    """What `detect` did before there were strips."""
    labels = []
    for scores in (t1, t2):
        found = instance_rule.find_components(
            np.where(valid, scores, np.float32(0)), foreground=PROMPTS.foreground,
            threshold=settings.instance_score, min_area_px=settings.min_area_px,
        )  # fmt: skip
        labels.append(np.where(valid, found, 0).astype(np.int32))
    return find_component_events(*labels, t1, t2, prompts=PROMPTS, settings=settings)


@pytest.mark.parametrize("width", [1, 5, 9])
def test_a_shift_may_be_wider_than_the_raster(width):
    rng = np.random.default_rng(width)
    t1, t2 = (answers(rng, 30, width, smooth=1.5) for _ in range(2))
    valid, settings = np.ones((30, width), bool), CEGSettings(level="instance", min_area_px=1, shift_px=9, delta=0.3)
    found = strip_events(cut_up(t1, t2, valid, [4]), settings=settings)
    expected = whole(t1, t2, valid, settings)
    assert (np.concatenate([strip.unmatched_HW for strip in found]) == expected.unmatched_HW).all()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@given(
    seed=st.integers(0, 9999), shape=st.tuples(st.integers(1, 40), st.integers(1, 45)),
    smooth=st.sampled_from([0, 0.7, 2]), heights=st.lists(st.integers(1, 13), min_size=1, max_size=4),
    least=st.sampled_from([0, 1, 4, 16]), score=st.sampled_from([0.0, 0.5, 0.7]), hole=st.booleans(),
)  # fmt: skip
@runs(max_examples=15, deadline=None)
def test_strips_give_what_the_whole_gives(options, seed, shape, smooth, heights, least, score, hole):
    rng = np.random.default_rng(seed)
    t1, fresh = (answers(rng, *shape, smooth=smooth) for _ in range(2))
    t2 = np.where(rng.random(shape) < 0.5, t1, fresh)  # half of the ground stays
    valid = rng.random(shape) < 0.9 if hole else np.ones(shape, bool)
    settings = CEGSettings(level="instance", min_area_px=least, instance_score=score, **options)
    strips = cut_up(t1, t2, valid, heights)
    found = strip_events(strips, settings=settings)
    wanted = whole(t1, t2, valid, settings)
    assert (np.concatenate([each.unmatched_HW for each in found]) == wanted.unmatched_HW).all()
    assert (np.concatenate([each.replaced_HW for each in found]) == wanted.replaced_HW).all()


def test_an_object_over_many_strips_is_one():
    """A bar over all strips that meets something in one of them only is no event, in none of them."""
    t1, t2 = (np.zeros((4, 12, 9), np.float32) for _ in range(2))
    t1[2:], t2[2:] = 0.5, 0.5
    t1[0, :, 4], t1[0, 3:5, 0] = 1, 1
    t2[0, 11, 4] = 1
    settings = CEGSettings(level="instance", min_area_px=1)
    strips = cut_up(t1, t2, np.ones((12, 9), bool), [2, 3, 5])
    alone = np.concatenate([each.unmatched_HW for each in strip_events(strips, settings=settings)])
    assert alone[3:5, 0].all() and alone.sum() == 2


def test_small_objects_are_measured_whole():
    t1, t2 = (np.zeros((4, 8, 9), np.float32) for _ in range(2))
    t1[2:], t2[2:] = 0.5, 0.5
    t1[0, 1:7, 4] = 1  # 6 px in three strips of 2 px each
    strips = cut_up(t1, t2, np.ones((8, 9), bool), [3, 2, 3])
    for least, count in ((6, 6), (7, 0)):
        settings = CEGSettings(level="instance", min_area_px=least)
        assert sum(each.unmatched_HW.sum() for each in strip_events(strips, settings=settings)) == count
