"""Features lie where the ground is that they describe, whatever the size of the image."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semicdvl.raster.tiling import fit_features_to_image
from semicdvl.vlms.aerial.build import build_aerial_features

STRIDE_PX = 16


@given(st.tuples(st.integers(1, 200), st.integers(1, 200)))
def test_a_feature_that_grows_with_the_position_does_so_after_fitting(shape_hw: tuple[int, int]) -> None:
    padded_hw = tuple(-(-size // 32) * 32 for size in shape_hw)
    rows, cols = (np.arange(size // STRIDE_PX) * STRIDE_PX + STRIDE_PX / 2 for size in padded_hw)
    ramps_DHW = np.stack(np.broadcast_arrays(rows[:, None], cols[None])).astype(np.float32)  # centre of each cell in px
    fitted_DHW = fit_features_to_image(ramps_DHW, stride_px=STRIDE_PX, shape_hw=shape_hw)
    assert fitted_DHW.shape[1:] == tuple(-(-size // STRIDE_PX) for size in shape_hw)
    for axis, size in enumerate(shape_hw):
        count = fitted_DHW.shape[1 + axis]
        centres = np.clip((np.arange(count) + 0.5) * size / count, STRIDE_PX / 2, None)
        found = fitted_DHW[axis].take(0, axis=1 - axis)
        np.testing.assert_allclose(found, centres, rtol=1e-5)


def test_whole_cells_are_kept_as_they_are() -> None:
    features_DHW = np.random.default_rng(0).normal(size=(3, 4, 4)).astype(np.float32)
    fitted_DHW = fit_features_to_image(features_DHW, stride_px=STRIDE_PX, shape_hw=(48, 32))
    np.testing.assert_array_equal(fitted_DHW, features_DHW[:, :3, :2])


@pytest.mark.parametrize(("size", "gsd_m"), [(256, None), (257, None), (420, 0.2)])
def test_a_spot_near_the_end_is_found_where_it_is(size: int, gsd_m: float | None) -> None:
    """The features of two dates differ around what changed, up to the reach of a few cells."""
    t1_HWC = np.full((size, size, 3), 110, np.uint8)
    t2_HWC, width = t1_HWC.copy(), 30 if gsd_m is None else 75
    at = size - 2 * width
    t2_HWC[at : at + width, at : at + width] = (230, 225, 220)
    extractor = build_aerial_features().at_gsd(gsd_m)
    t1_DHW, t2_DHW = extractor.extract_features(t1_HWC), extractor.extract_features(t2_HWC)
    distance_HW = cv2.resize(np.linalg.norm(t1_DHW - t2_DHW, axis=0), (size, size))
    weights = np.where(distance_HW > distance_HW.max() / 2, distance_HW, 0)
    centre = (np.indices(weights.shape) * weights).sum(axis=(1, 2)) / weights.sum()
    assert np.abs(centre - (at + width / 2)).max() < 0.2 * width  # 6 px of 0.5 m
