"""One gain and offset per band for the whole pair, which what changed does not pull."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.synthetic_rasters import at, city, tif

from semicdvl.errors import ConfigError
from semicdvl.raster.io.open_pair import open_pair
from semicdvl.raster.radiometric_normalisation import MIN_BLOCKS, fit_radiometric_match
from semicdvl.raster.stored_values import OverviewSample
from semicdvl.types import ReadingSettings


def sample(data_CHW: np.ndarray, valid_HW: np.ndarray | None = None) -> OverviewSample:
    no_HW = np.zeros(data_CHW.shape[1:], bool)
    return OverviewSample(data_CHW, ~no_HW if valid_HW is None else valid_HW, no_HW)


@given(
    gain=st.floats(0.4, 2.5), offset=st.floats(-60, 60), share=st.floats(0, 0.33), bright=st.floats(0, 255),
    noise=st.floats(0, 6),
)  # fmt: skip
@settings(max_examples=15, deadline=None)
def test_gain_and_offset_are_fitted_although_a_third_changed(gain, offset, share, bright, noise):
    before = city(160, 200).astype(np.float64)
    after = (before - offset) / gain + np.random.default_rng(1).normal(0, noise, before.shape)
    after[:, : round(160 * share)] = bright
    match = fit_radiometric_match(sample(before), sample(after))
    assert match is not None
    assert match.gain_C == pytest.approx(np.full(3, gain), rel=0.1)
    matched = match.gain_C[:, None, None] * after + match.offset_C[:, None, None]
    assert np.abs(matched - before)[:, 64:].mean() < 1 + gain * noise


def test_invalid_pixels_do_not_count_and_too_few_give_none():
    before = city(80, 100).astype(np.float64)
    after, valid_HW = before * 0.5 + 20, np.ones((80, 100), bool)
    after[:, :60], valid_HW[:60] = 0, False
    match = fit_radiometric_match(sample(before), sample(after, valid_HW))
    assert match is not None and match.gain_C == pytest.approx(np.full(3, 2.0), rel=1e-6)
    valid_HW[:] = False
    valid_HW[: 4 * (MIN_BLOCKS // 25), :] = True
    assert fit_radiometric_match(sample(before), sample(after, valid_HW)) is None


def test_uncorrelated_or_flat_images_are_not_matched():
    first, other = city(160, 200).astype(np.float64), city(160, 200, seed=5).astype(np.float64)
    assert fit_radiometric_match(sample(first), sample(255 - first)) is None
    assert fit_radiometric_match(sample(first), sample(other * 0 + 9)) is None


@pytest.mark.parametrize("deep", [False, True])
def test_pair_is_matched_once_for_all_windows(tmp_path, deep):
    before = np.clip(city(120, 150), 60, 200)
    after = np.rint(before * 0.6 + 30).astype(np.uint8)
    after[:, :40, :40] = 250
    kind = np.uint16 if deep else np.uint8
    files = [
        tif(tmp_path / name, image.astype(kind) * kind(50 if deep else 1), at(0, 90))
        for name, image in (("a.tif", before), ("b.tif", after))
    ]
    with open_pair(*files) as plain, open_pair(*files, ReadingSettings(normalise="match")) as pair:
        window, untouched = pair.read(0, 0, 120, 150), plain.read(0, 0, 120, 150)
        assert (window.t1_HWC == untouched.t1_HWC).all() and plain.radiometric_match is None
        assert deep or (untouched.t2_HWC == after.transpose(1, 2, 0)).all()
        apart = [np.abs(w.t1_HWC.astype(int) - w.t2_HWC)[:, 45:].mean() for w in (window, untouched)]
        assert apart[0] < 1.5 < 5 < apart[1]
        assert (pair.read(30, 40, 50, 60).t2_HWC == window.t2_HWC[30:80, 40:100]).all()
        assert pair.radiometric_match is not None and "radiometry of the after image was matched" in pair.notes[-1]
        assert deep or pair.radiometric_match.gain_C == pytest.approx(np.full(3, 1 / 0.6), rel=0.02)
        assert not deep or "was stretched to 8 bits" in pair.notes[0]
        assert deep or not any("stretched" in note for note in pair.notes)


def test_uncorrelated_pair_is_noted_and_unchanged(tmp_path):
    first = city(120, 150)
    files = tif(tmp_path / "a.tif", first, at(0, 90)), tif(tmp_path / "b.tif", 255 - first, at(0, 90))
    with open_pair(*files, ReadingSettings(normalise="match")) as pair:
        assert pair.radiometric_match is None and "could not be matched" in pair.notes[-1]
        assert (pair.read(0, 0, 120, 150).t2_HWC == (255 - first).transpose(1, 2, 0)).all()


def test_unknown_normalisation(tmp_path):
    with pytest.raises(ConfigError, match="none, match"):
        open_pair("a.tif", "b.tif", ReadingSettings(normalise="magic"))
