"""Outlines that cross themselves all over are told from those that a repair mends."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from semicdvl.raster.vector import tangles
from semicdvl.raster.vector.tangles import MAX_CROSSINGS, is_tangled


def draw_star(corners: int) -> Any:
    """Return a star with an odd number of corners, of which every side crosses nearly every other one."""
    angles_N = 2 * np.pi * np.arange(corners) * (corners // 2) / corners
    return shapely.Polygon(np.stack([np.cos(angles_N), np.sin(angles_N)], axis=1) * 40 + 50)


def draw_wave(corners: int) -> Any:
    """Return an outline of many corners that crosses itself once."""
    across_N = np.linspace(0, 100, corners)
    top = np.stack([across_N, 60 + 5 * np.sin(across_N)], axis=1)
    points_N2 = np.concatenate([top, [(0, 20), (100, 20)]])  # the ends are the wrong way round
    return shapely.Polygon(points_N2)


def test_a_star_is_tangled_from_the_limit_on() -> None:
    for corners in range(31, 65, 2):
        sides = [shapely.LineString(pair) for pair in pairwise(draw_star(corners).exterior.coords)]
        tree = shapely.STRtree(sides)
        crossings = tree.query(sides, predicate="crosses").shape[1] // 2
        assert is_tangled(draw_star(corners)) == (crossings > MAX_CROSSINGS), corners
        assert is_tangled(draw_star(corners).exterior) == (crossings > MAX_CROSSINGS), corners


@pytest.mark.parametrize("corners", [2_001, 20_001])
def test_a_large_star_is_found_at_once(corners: int) -> None:
    star, began = draw_star(corners), time.process_time()
    for shape in (star, shapely.GeometryCollection([shapely.Point(0, 0), shapely.MultiPolygon([star])])):
        assert is_tangled(shape)
    assert time.process_time() - began < 5


def test_everyday_outlines_are_not_tangled() -> None:
    wave = draw_wave(50_000)
    assert not shapely.is_valid(wave) and not is_tangled(wave)
    assert not any(map(is_tangled, (shapely.Point(1, 1), shapely.Polygon(), shapely.box(0, 0, 1, 1).buffer(1, 500))))


@given(seed=st.integers(0, 2**32), count=st.integers(4, 40))
def test_all_sides_are_looked_at_where_they_are_few(seed: int, count: int) -> None:
    points_N2 = np.random.default_rng(seed).random((count, 2))
    sides = shapely.linestrings(np.stack([points_N2[:-1], points_N2[1:]], axis=1))
    crossings = shapely.STRtree(sides).query(sides, predicate="crosses").shape[1] // 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tangles, "MAX_CROSSINGS", 20)
        assert is_tangled(shapely.LineString(points_N2)) == (crossings > 20)


def test_sides_that_are_near_too_many_others_count_as_tangled() -> None:
    """Long sides that lie side by side: each is near all others, and none crosses another."""
    hatch = shapely.LineString([(at * 1e-3 + 1_000 * (at % 2), 1_000 * (at % 2)) for at in range(6_001)])
    began = time.process_time()
    assert is_tangled(hatch) and time.process_time() - began < 20
