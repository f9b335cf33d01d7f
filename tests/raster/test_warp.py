"""Displacement fields, and images warped by them."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.synthetic_rasters import at, tif

from semicdvl.raster.io.open_pair import open_pair
from semicdvl.raster.warp import Alignment, DisplacementField


@given(row=st.integers(0, 30), col=st.integers(0, 40))
@settings(max_examples=12, deadline=None)
def test_a_pixel_is_displaced_alike_in_every_window(tmp_path_factory, row, col):
    folder = tmp_path_factory.mktemp("field")
    rng = np.random.default_rng(0)
    image = rng.integers(20, 250, (90, 110, 3), dtype=np.uint8)
    offsets = rng.normal(0, 1.5, (2, 4, 5)).astype(np.float32)
    file = tif(folder / "a.tif", image.transpose(2, 0, 1), at(366676, 4104256))
    alignment = Alignment(0, 0, DisplacementField(0.0, 0.0, 30.0, 27.5, offsets))
    with open_pair(file, file, alignment=alignment) as pair:
        whole, part = pair.read(0, 0, 90, 110), pair.read(row, col, 50, 60)
        inside = np.s_[row : row + 50, col : col + 60]
        assert (whole.valid_HW[inside] == part.valid_HW).all() and (whole.t2_HWC[inside] == part.t2_HWC).all()
        assert (whole.t2_HWC != whole.t1_HWC).any()


@given(row=st.integers(-40, 40), col=st.integers(-40, 40))
@settings(max_examples=25, deadline=None)
def test_a_field_is_linear_between_its_nodes_and_the_same_in_any_window(row, col):
    ramp = np.stack(np.meshgrid(np.arange(4.0), np.arange(6.0), indexing="ij")).astype(np.float32)
    offsets = DisplacementField(0.0, 0.0, 10.0, 8.0, ramp)
    rows, cols = np.arange(0, 31), np.arange(0, 41)
    found = offsets.interpolate(rows, cols)
    assert np.abs(found[0] - (rows / 10)[:, None]).max() <= 1 / 64 and np.abs(found[1] - (cols / 8)).max() <= 1 / 64
    assert (offsets.relative_to(row, col).interpolate(rows - row, cols - col) == found).all()
    assert (
        offsets.interpolate(np.array([-99, 999]), cols)[0] == np.array([[0.0], [3.0]])
    ).all() and offsets.max_offset_px == 5
