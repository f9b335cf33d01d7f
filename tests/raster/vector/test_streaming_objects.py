"""Objects of a map that comes in strips are those of the whole map."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from semicdvl.raster.connected_components import find_objects
from semicdvl.raster.grid import Grid
from semicdvl.raster.vector import polygonise
from semicdvl.raster.vector.object_table import build_object_frame
from semicdvl.raster.vector.streaming_objects import ObjectCollector
from semicdvl.types import ChangeMap

CLASSES, FOREGROUND = ("house", "building", "road", "grass"), (0, 1)
PLACE = Affine(0.5, 0, 366676.3, 0, -0.5, 4104256.7)


def make_map(seed: int, height: int, width: int, *, smooth: float, classes: bool) -> ChangeMap:
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(height, width))
    noise = ndimage.gaussian_filter(noise, smooth) if smooth else noise
    change = (noise > np.quantile(noise, rng.uniform(0.3, 0.9))).astype(np.uint8)
    change[rng.random((height, width)) < 0.03] = 255
    score = (rng.integers(0, 1025, (height, width)) / 1024).astype(np.float32)
    score[change == 255] = np.nan
    dates = rng.integers(0, 5, (2, height, width)).astype(np.uint8) if classes else (None, None)
    if classes:
        dates[dates == 4] = 255
    names = {"classes": CLASSES, "foreground": FOREGROUND} if classes else {}
    return ChangeMap(change, score, t1_HW=dates[0], t2_HW=dates[1], **names)


def extract_streaming(whole: ChangeMap, heights: list[int], *, grid: Grid, least_px: float):
    """Return the objects and the map without the small ones, as it would be written."""
    stream = ObjectCollector(grid, min_area_px=least_px)
    rows = [0, *itertools.accumulate(itertools.islice(itertools.cycle(heights), grid.height))]
    written = np.full((grid.height, grid.width), 9, np.uint8)
    for a, b in itertools.pairwise(min(row, grid.height) for row in rows):
        if a == b:
            break
        t1_HW, t2_HW = (None if date is None else date[a:b] for date in (whole.t1_HW, whole.t2_HW))
        rows_HW = whole.change_HW[a:b].copy()
        strip = replace(whole, change_HW=rows_HW, score_HW=whole.score_HW[a:b], t1_HW=t1_HW, t2_HW=t2_HW)
        small = stream.add_strip(strip)
        written[a:b] = strip.change_HW
        for patch in small:
            place = np.s_[patch.row : patch.row + patch.shape_hw[0], patch.col : patch.col + patch.shape_hw[1]]
            assert (written[place][patch.mask_HW] == 1).all(), "what is cleared had been written"
            written[place][patch.mask_HW] = 0
    return stream.build_layer(), written


@given(
    seed=st.integers(0, 9999), shape=st.tuples(st.integers(1, 40), st.integers(1, 50)),
    smooth=st.sampled_from([0, 0.7, 2]), heights=st.lists(st.integers(1, 17), min_size=1, max_size=5),
    least=st.sampled_from([0, 2, 7, 60]), classes=st.booleans(),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_strips_give_the_objects_of_the_whole_map(seed, shape, smooth, heights, least, classes):
    whole = make_map(seed, *shape, smooth=smooth, classes=classes)
    grid = Grid(rasterio.CRS.from_epsg(32615), PLACE, *shape)
    table, written = extract_streaming(whole, heights, grid=grid, least_px=least)
    objects = find_objects(whole.change_HW, min_area_px=least)
    names = {"classes": CLASSES, "foreground": FOREGROUND} if classes else {}
    wanted = build_object_frame(
        objects, grid=grid, score_HW=whole.score_HW, t1_HW=whole.t1_HW, t2_HW=whole.t2_HW, **names
    )  # fmt: skip
    pd.testing.assert_frame_equal(
        pd.DataFrame(table.frame.drop(columns="geometry")), pd.DataFrame(wanted.drop(columns="geometry"))
    )
    assert shapely.equals_exact(table.frame.geometry.values, wanted.geometry.values, tolerance=0).all()
    assert table.area_px == (objects.labels_HW > 0).sum()
    assert (written == np.where((whole.change_HW == 1) & (objects.labels_HW == 0), 0, whole.change_HW)).all()
    boxes = [table.read_box(rank) for rank in np.argsort(table.number_N)]
    for box, place in zip(boxes, ndimage.find_objects(objects.labels_HW), strict=True):
        assert box.tolist() == [place[0].start, place[1].start, place[0].stop, place[1].stop]


@pytest.mark.parametrize("heights", [[1], [2], [3, 4]])
def test_a_comb_and_a_ring_are_one_object_each(heights):
    """Arms that meet only further down, and a hole that is closed only further down."""
    change = np.zeros((9, 12), np.uint8)
    change[1:7, [0, 2, 4]] = change[7, 0:5] = 1
    change[2:7, 6:11] = 1
    change[3:6, 7:10] = 0
    whole = ChangeMap(change, change.astype(np.float32))
    grid = Grid(None, Affine.identity(), 9, 12)
    table, _ = extract_streaming(whole, heights, grid=grid, least_px=0)
    assert table.frame["area_px"].tolist() == [23, 16]
    assert [len(shape.geoms) for shape in table.frame.geometry] == [1, 1]
    assert len(table.frame.geometry.iloc[1].geoms[0].interiors) == 1
    assert len(shapely.get_coordinates(table.frame.geometry.iloc[1])) == 10, "no corner where strips meet"


def test_very_large_objects_are_traced_from_a_file(monkeypatch):
    rng = np.random.default_rng(3)
    change = (ndimage.gaussian_filter(rng.normal(size=(60, 75)), 1) > -0.02).astype(np.uint8)
    whole = ChangeMap(change, change.astype(np.float32))
    grid = Grid(rasterio.CRS.from_epsg(32615), PLACE, 60, 75)
    wanted, _ = extract_streaming(whole, [7], grid=grid, least_px=0)
    assert max(len(one.interiors) for shape in wanted.frame.geometry for one in shape.geoms) > 3
    monkeypatch.setattr(polygonise, "MAX_IN_MEMORY_PX", 50)
    found, _ = extract_streaming(whole, [7], grid=grid, least_px=0)
    assert shapely.equals_exact(found.frame.geometry.values, wanted.frame.geometry.values, tolerance=0).all()
