"""Change event generation over the strips of a raster: what each level calls changed, and what strips do not change."""

import numpy as np
import pytest
from scipy import ndimage
from tests.support.roof_scene import PROMPTS, Brightness, decide_whole, draw_roofs

from semicdvl.ceg.config import CEGSettings
from semicdvl.detection.detectors.vlm_ceg import VLMDetector
from semicdvl.types import IGNORE


def decided(level: str, *, valid: np.ndarray | None = None, **settings):
    detector = VLMDetector(Brightness(), PROMPTS, CEGSettings(level=level, **settings))  # type: ignore[arg-type]
    t1, t2 = draw_roofs()
    planes = detector.predict_scores(t1, t2)
    assert planes.shape == (detector.map_count, 40, 50) and planes.dtype == np.float32
    return decide_whole(detector, planes, np.ones((40, 50), bool) if valid is None else valid)


@pytest.mark.parametrize("level", ["pixel", "instance", "mixed"])
@pytest.mark.parametrize("options", [{}, {"shift_px": 2, "replaced_iou": 0.7, "replaced_class": True}])
def test_strips_make_no_difference(level, options):
    rng = np.random.default_rng(0)
    planes = np.stack([ndimage.gaussian_filter(one, 1.5) for one in rng.normal(size=(6, 41, 52))])
    planes = ((planes - planes.min()) / np.ptp(planes)).astype(np.float32)
    valid = rng.random((41, 52)) < 0.97
    settings = CEGSettings(
        level=level, instance_score=0.5, gamma=0.5, min_area_px=5, **({} if level == "pixel" else options)
    )
    detector = VLMDetector(Brightness(), PROMPTS, settings)
    one = decide_whole(detector, planes, valid, rows=41)
    assert 0.01 < (one.change_HW == 1).mean() < 0.6
    for rows in (1, 3, 8):
        other = decide_whole(detector, planes, valid, rows=rows)
        for name in ("change_HW", "score_HW", "t1_HW", "t2_HW"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_instance_level_marks_what_came_and_what_went():
    change = decided("instance")
    wanted = np.zeros((40, 50), np.uint8)
    wanted[20:28, 5:15] = wanted[25:35, 30:45] = 1
    assert (change.change_HW == wanted).all()
    assert change.classes == ("roof", "grass", "road") and change.foreground == (0,)
    assert change.t1_HW is not None and change.t1_HW[22, 7] == 0 and change.t1_HW[0, 0] == 1


def test_score_is_the_difference_in_belief():
    change = decided("instance")
    q1, q2 = 230 / 255, 30 / 255  # Brightness: foreground + background = 1
    assert change.score_HW[22, 7] == pytest.approx(q1 - q2, abs=1e-5)
    assert change.score_HW[0, 0] == pytest.approx(10 / 255, abs=1e-5)


def test_no_level_leaves_ignore_on_valid_ground():
    for level in ("pixel", "instance", "mixed"):
        change = decided(level, gamma=0.9)
        assert set(np.unique(change.change_HW)) <= {0, 1}
    # date 2's dark ground scores 1 - 30 / 255 = 0.88: what went is reliable at gamma 0.8 only, what came at 0.9, too
    strict, loose = decided("pixel", gamma=0.9).change_HW, decided("pixel", gamma=0.8).change_HW
    assert strict[22, 7] == 0 and strict[30, 40] == 1 and strict.sum() == 150
    assert loose[22, 7] == 1 and loose[30, 40] == 1


def test_pixel_level_also_marks_the_rim_of_what_moved_and_mixed_does_not():
    assert decided("pixel", gamma=0.7).change_HW[2, 5] == 1
    assert decided("mixed", gamma=0.7).change_HW[2, 5] == 0 and decided("mixed", gamma=0.7).change_HW[22, 7] == 1


def test_no_data_is_ignored_everywhere():
    valid = np.ones((40, 50), bool)
    valid[:, :10] = False
    change = decided("instance", valid=valid)
    assert change.t1_HW is not None
    for plane in (change.change_HW, change.t1_HW):
        assert (plane[:, :10] == IGNORE).all() and (plane[:, 10:] != IGNORE).all()
    assert np.isnan(change.score_HW[:, :10]).all() and not np.isnan(change.score_HW[:, 10:]).any()
