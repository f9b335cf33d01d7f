import itertools
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from tests.support.score_strips import Strips
from torch import nn

from semicdvl.ceg.prompts import Prompts
from semicdvl.detection.detectors.network import NetworkDetector
from semicdvl.detection.detectors.vlm_ceg import VLMDetector, build_vlm_detector
from semicdvl.detection.fingerprint import identify_detector
from semicdvl.pseudo_labels.generate import CEGSettings
from semicdvl.types import IGNORE, IMAGENET_MEAN, IMAGENET_STD, Detector, Outputs, Segments

PROMPTS = Prompts(("roof",), ("grass", "road"))


@dataclass(frozen=True)
class Brightness:
    """A VLM whose score of the first word is the red channel and of the others half of what is left, and little."""

    identity: str = "brightness-1"
    gamma: float = 0.5

    def segment(self, image_HWC, prompts, *, gsd_m=None):
        red_HW = image_HWC[..., 0].astype(np.float32) / 255
        scores = [red_HW, (1 - red_HW), *([(1 - red_HW) / 4] * (len(prompts) - 2))]
        return Segments(np.stack(scores), tuple(prompts))


def images(height: int = 40, width: int = 50) -> tuple[np.ndarray, np.ndarray]:
    """A roof that stays (fainter at date 2), one that goes, one that comes, on dark ground."""
    t1, t2 = np.full((height, width, 3), 20, np.uint8), np.full((height, width, 3), 30, np.uint8)
    t1[2:12, 2:12], t2[3:13, 3:13] = 250, 200
    t1[20:28, 5:15] = 230
    t2[25:35, 30:45] = 240
    return t1, t2


def decided(level: str, *, valid: np.ndarray | None = None, **settings):
    detector = VLMDetector(Brightness(), PROMPTS, CEGSettings(level=level, **settings))  # type: ignore[arg-type]
    t1, t2 = images()
    planes = detector.predict_scores(t1, t2)
    assert planes.shape == (detector.map_count, 40, 50) and planes.dtype == np.float32
    return whole(detector, planes, np.ones((40, 50), bool) if valid is None else valid)


def whole(detector, scores_PHW, valid_HW, *, rows: int = 14):
    """Decide strip by strip, and put the answers together."""
    maps = list(detector.decide(Strips(scores_PHW, valid_HW, rows)))
    assert [len(part.change_HW) for part in maps] == [
        len(strip.valid_HW) for strip in Strips(scores_PHW, valid_HW, rows)
    ]
    assert len({(part.classes, part.foreground) for part in maps}) == 1
    names = [name for name in ("change_HW", "score_HW", "t1_HW", "t2_HW") if getattr(maps[0], name) is not None]
    return replace(maps[0], **{name: np.concatenate([getattr(part, name) for part in maps]) for name in names})


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
    one = whole(detector, planes, valid, rows=41)
    assert 0.01 < (one.change_HW == 1).mean() < 0.6
    for rows in (1, 3, 8):
        other = whole(detector, planes, valid, rows=rows)
        for name in ("change_HW", "score_HW", "t1_HW", "t2_HW"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_identity_tells_detectors_apart():
    """What makes other maps has another identity; thresholds come after the maps."""
    asked = VLMDetector(Brightness(), PROMPTS, CEGSettings(level="instance"))
    assert identify_detector(asked) == identify_detector(replace(asked, settings=CEGSettings(level="pixel", gamma=0.5)))
    others = [
        replace(asked, vlm=Brightness("brightness-2")),
        replace(asked, prompts=Prompts(("hall",), ("grass", "road"))),
    ]
    torch.manual_seed(0)
    networks = [NetworkDetector(Difference().eval(), name=name) for name in ("runs/x", "runs/y")]
    assert identify_detector(networks[0]) == identify_detector(networks[1]), "the same weights under another name"
    with torch.no_grad():
        networks[1].network.scale += 1
    found = [identify_detector(one) for one in (asked, *others, *networks)]
    assert all(a != b for a, b in itertools.combinations(found, 2))


def test_both_kinds_are_detectors():
    detector: Detector = build_vlm_detector(Brightness(), prompts=PROMPTS)
    assert detector.map_count == 6 and "instance" in detector.name and detector.description()
    assert detector.description()["Looked for"] == "roof"


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


class Difference(nn.Module):
    """Changed where the normalised red of date 2 is greater by more than one standard deviation."""

    heads = frozenset({"change"})

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, t1_BCHW, t2_BCHW, *, heads=None):
        assert heads == frozenset({"change"}) and not torch.is_grad_enabled()
        more_BHW = (t2_BCHW - t1_BCHW)[:, 0] * self.scale - 1
        return Outputs(torch.stack([torch.zeros_like(more_BHW), more_BHW], dim=1))


def test_network_gives_its_probability_of_change():
    detector = NetworkDetector(Difference().eval(), name="runs/x", threshold=0.5)
    t1, t2 = images()
    planes = detector.predict_scores(t1, t2)
    normal = [(image[..., 0] / 255 - IMAGENET_MEAN[0]) / IMAGENET_STD[0] for image in (t1, t2)]
    wanted = 1 / (1 + np.exp(-(normal[1] - normal[0] - 1)))
    assert planes.shape == (1, 40, 50) and planes[0] == pytest.approx(wanted, abs=1e-5)
    valid = np.ones((40, 50), bool)
    valid[0] = False
    change = whole(detector, planes, valid)
    assert (change.change_HW[0] == IGNORE).all() and change.t1_HW is None
    assert ((change.change_HW == 1) == ((wanted >= 0.5) & valid)).all()
    assert change.change_HW[30, 40] == 1 and change.change_HW[22, 7] == 0
