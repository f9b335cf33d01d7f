"""Outlines and masks of objects."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.features import rasterize
from scipy import ndimage
from tests.support.object_scenes import UTM, make_noise

from semicdvl.raster.connected_components import find_objects
from semicdvl.raster.vector.object_table import build_object_frame
from semicdvl.raster.vector.polygonise import PackedMask, hold_as_arrays


@given(st.integers(0, 10_000), st.integers(2, 30), st.integers(2, 40))
@settings(max_examples=40, deadline=None)
def test_polygons_burn_back_to_the_mask(seed, height, width):
    change = (ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(height, width)), 1) > 0.1).astype(
        np.uint8
    )
    grid = UTM.window(0, 0, height, width)
    objects = find_objects(change)
    frame = build_object_frame(objects, grid=grid, score_HW=make_noise(grid))
    labels, count = ndimage.label(change, np.ones((3, 3)))
    assert len(frame) == count and frame.is_valid.all()
    assert frame["area_m2"].sum() == pytest.approx(change.sum() * 0.25)
    if count:
        shapes = zip(frame.geometry, frame["id"], strict=True)
        burnt = rasterize(shapes, out_shape=change.shape, transform=grid.transform, dtype="int32")
        assert (burnt == objects.labels_HW).all() and ((labels > 0) == (burnt > 0)).all()
        shapes = zip(map(hold_as_arrays, frame.geometry), frame["id"], strict=True)
        assert (rasterize(shapes, out_shape=change.shape, transform=grid.transform, dtype="int32") == burnt).all()


def test_packed_mask_keeps_its_pixels():
    mask = np.random.default_rng(0).random((7, 13)) < 0.5
    packed = PackedMask.pack(mask, row=3, col=5)
    assert (packed.mask_HW == mask).all() and (packed.row, packed.col, packed.shape_hw) == (3, 5, (7, 13))
