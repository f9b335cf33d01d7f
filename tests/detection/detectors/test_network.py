"""The detector of a trained network that torch runs: its identity, and its probability of change."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.support.roof_scene import PROMPTS, Brightness, decide_whole, draw_roofs
from torch import nn

from semicdvl.ceg.config import CEGSettings
from semicdvl.ceg.prompts import Prompts
from semicdvl.detection.detectors.network import NetworkDetector
from semicdvl.detection.detectors.vlm_ceg import VLMDetector, build_vlm_detector
from semicdvl.detection.fingerprint import identify_detector
from semicdvl.types import IGNORE, IMAGENET_MEAN, IMAGENET_STD, Detector, Outputs


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
    t1, t2 = draw_roofs()
    planes = detector.predict_scores(t1, t2)
    normal = [(image[..., 0] / 255 - IMAGENET_MEAN[0]) / IMAGENET_STD[0] for image in (t1, t2)]
    wanted = 1 / (1 + np.exp(-(normal[1] - normal[0] - 1)))
    assert planes.shape == (1, 40, 50) and planes[0] == pytest.approx(wanted, abs=1e-5)
    valid = np.ones((40, 50), bool)
    valid[0] = False
    change = decide_whole(detector, planes, valid)
    assert (change.change_HW[0] == IGNORE).all() and change.t1_HW is None
    assert ((change.change_HW == 1) == ((wanted >= 0.5) & valid)).all()
    assert change.change_HW[30, 40] == 1 and change.change_HW[22, 7] == 0
