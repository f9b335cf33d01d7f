"""A detector from outside the package: one file, found by `module:builder`, with a default network of its own."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from tests.support.command import command

from semicdvl.detection.detectors.unsupervised import build_unsupervised_detector
from semicdvl.errors import ConfigError
from semicdvl.registry import list_options
from semicdvl.types import Detector
from semicdvl.unsupervised import UNSUPERVISED
from semicdvl.unsupervised.common.networks import DEFAULT_NETWORKS, read_default_networks

MODULE = '''
"""Feature distance: the distance of the finest features of two dates."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from semicdvl.unsupervised.common.detector import ThresholdDetector
from semicdvl.unsupervised.common.features import extract_feature_maps, resize_to_image
from semicdvl.unsupervised.common.networks import default_networks
from semicdvl.unsupervised.common.thresholds import ThresholdRule


@dataclass(frozen=True)
class FeatureDistance(ThresholdDetector):
    name, map_count = "feature_distance", 1

    features: Any
    layer: int = 0
    rule: ThresholdRule = field(default_factory=ThresholdRule)

    def predict_scores(self, t1_HWC, t2_HWC, *, gsd_m=None):
        (t1_DHW,), (t2_DHW,) = (
            extract_feature_maps(self.features, image, layers=[self.layer]) for image in (t1_HWC, t2_HWC)
        )
        distance_HW = np.sqrt(np.square(t1_DHW - t2_DHW).sum(axis=0))
        return resize_to_image(distance_HW, t1_HWC.shape[:2])[None]


@default_networks(features="test_resnet.r160_in1k")
def build(features, *, layer: int = 0, threshold: float | str = "otsu") -> FeatureDistance:
    return FeatureDistance(features, layer, ThresholdRule(threshold, guard=False))


def build_nothing():
    return "no detector"
'''


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "feature_distance_plugin.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("feature_distance_plugin")
    sys.modules.pop("feature_distance_plugin", None)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


def test_its_options_and_its_default_network_are_known(module):
    assert list_options("method", "feature_distance_plugin:build", UNSUPERVISED) == ("features", "layer", "threshold")
    assert read_default_networks(module.build) == {**DEFAULT_NETWORKS, "features": "test_resnet.r160_in1k"}
    assert "feature_distance" not in UNSUPERVISED


def test_it_is_configured_like_a_built_in_one(module, weights):
    options = {"weights": str(weights), "layer": 1, "threshold": 2.5}
    detector = build_unsupervised_detector("feature_distance_plugin:build", options)
    assert isinstance(detector, Detector) and detector.layer == 1
    assert detector.features.identity.startswith("test_resnet.r160_in1k-"), "the network that the plug-in declares"
    assert "layer=1, rule=(threshold=2.5" in detector.identity and "name='feature_distance'" in detector.identity
    with pytest.raises(ConfigError, match=r"has no option 'layr'. Did you mean 'layer'\?"):
        build_unsupervised_detector("feature_distance_plugin:build", {"layr": 1})
    with pytest.raises(ConfigError, match="returned a str, not a detector"):
        build_unsupervised_detector("feature_distance_plugin:build_nothing")


def test_the_command_runs_it(module, weights, tmp_path, capsys):
    t1_HWC = np.random.default_rng(0).integers(60, 80, (96, 128, 3)).astype(np.uint8)
    t2_HWC = t1_HWC.copy()
    t2_HWC[32:64, 48:96] = 230
    paths = tmp_path / "before.png", tmp_path / "after.png"
    for path, image_HWC in zip(paths, (t1_HWC, t2_HWC), strict=True):
        Image.fromarray(image_HWC).save(path)
    arguments = ["--method", "feature_distance_plugin:build", "--method-set", f"weights={weights}"]
    code, printed, told = command(
        capsys, "detect", *paths, "-o", tmp_path / "out", *arguments, "--method-set", "layer=1"
    )
    assert code == 0, told
    assert "changed object" in printed
    changed_HW = np.asarray(Image.open(tmp_path / "out" / "change.tif")) == 1
    assert changed_HW[40:56, 56:88].mean() > 0.9 and changed_HW[:16, :32].mean() == 0
