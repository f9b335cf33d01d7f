"""A trained network predicts from plain images, is called as before, and detections keep what its heads know."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import torch
from rich.console import Console
from tests.support.synthetic_rasters import at, tif
from torch import Tensor, nn

import semicdvl as cd
from semicdvl.atomic_files import write_json
from semicdvl.checkpoint import RUN_FORMAT, save_weights
from semicdvl.detection.detectors.inference import SEGMENTATION, prepare_for_inference
from semicdvl.detection.detectors.network import NetworkDetector, build_network_detector
from semicdvl.detection.pipeline import detect_in_memory, write_detection
from semicdvl.models.siam_light import build_siam_light
from semicdvl.types import IMAGENET_MEAN, IMAGENET_STD, Outputs

MODEL = {"backbone": "test_resnet", "pretrained": False, "decoder_channels": 12}
QUIET = Console(quiet=True)


def make_run(folder: Path, **record: object) -> Path:
    torch.manual_seed(0)
    save_weights(folder / "model.safetensors", build_siam_light(**MODEL).state_dict())
    recipe = {"model": {"name": "siam_light", **MODEL}, "method": {"name": "semicd_vl"}}
    write_json(folder / "run.json", {"format": RUN_FORMAT, "recipe": recipe, **record})
    return folder


@pytest.fixture
def images() -> tuple[np.ndarray, np.ndarray]:
    t1_HWC, t2_HWC = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    return t1_HWC, t2_HWC


def normalise(image_HWC: np.ndarray) -> Tensor:
    scaled = (image_HWC / 255 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    return torch.from_numpy(scaled).permute(2, 0, 1)[None].float()


def test_predict_is_the_call_on_normalised_images(tmp_path: Path, images: tuple[np.ndarray, np.ndarray]) -> None:
    network = cd.load_model(make_run(tmp_path))
    assert isinstance(network, nn.Module) and type(network).__name__ == "SiamLight"
    with torch.no_grad():
        called = network(*map(normalise, images))
    predicted = network.predict(*images)
    wanted_HW = called.change_BKHW.softmax(dim=1)[0, 1].numpy()
    np.testing.assert_allclose(predicted.score_HW, wanted_HW, atol=1e-5)
    assert (predicted.change_HW == (predicted.score_HW >= 0.5)).all() and predicted.change_HW.dtype == np.uint8
    assert called.t2_BKHW is not None and predicted.t2_HW is not None
    np.testing.assert_array_equal(predicted.t2_HW, called.t2_BKHW.argmax(dim=1)[0].numpy())
    assert cd.load_model(tmp_path, train_heads=False).predict(*images).t1_HW is None


def test_predict_refuses_what_would_give_a_wrong_answer(tmp_path: Path, images: tuple[np.ndarray, np.ndarray]) -> None:
    network, (t1_HWC, t2_HWC) = cd.load_model(make_run(tmp_path)), images
    with pytest.raises(cd.ConfigError, match=r"t1 holds float32, but uint8 .* 0 to 255"):
        network.predict(t1_HWC.astype(np.float32) / 255, t2_HWC)
    with pytest.raises(cd.ConfigError, match="t2 holds uint16"):
        network.predict(t1_HWC, t2_HWC.astype(np.uint16))
    with pytest.raises(cd.ConfigError, match="t2 holds no value above 1"):
        network.predict(t1_HWC, t2_HWC // 255)
    with pytest.raises(cd.ConfigError, match=r"shape \(3, 64, 96\), but height x width x 3"):
        network.predict(t1_HWC.transpose(2, 0, 1), t2_HWC)
    with pytest.raises(cd.ConfigError, match="Give images of one size"):
        network.predict(t1_HWC, t2_HWC[:32])


def test_scores_that_are_no_numbers_are_no_map_without_change(tmp_path: Path, images) -> None:
    network = cd.load_model(make_run(tmp_path))
    with torch.no_grad():
        for weight in network.parameters():
            weight.fill_(3e38)
    with pytest.raises(cd.CheckpointError, match="predict: the network gives scores that are not numbers"):
        network.predict(*images)


def test_a_network_keeps_its_mode_and_can_be_copied(tmp_path: Path, images: tuple[np.ndarray, np.ndarray]) -> None:
    network = cd.load_model(make_run(tmp_path))
    wanted_HW = network.predict(*images).score_HW
    network.train()
    np.testing.assert_array_equal(network.predict(*images).score_HW, wanted_HW)
    assert network.training
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        np.testing.assert_array_equal(other.predict(*images).score_HW, wanted_HW)


# ------------------------------------------------------------------------------------------------ kinds of change
class Bright(nn.Module):
    """Foreground is what is bright; changed is where that differs, or where both are bright and the hue differs."""

    heads = frozenset({"change", "segmentation"})

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(20.0))

    def forward(self, t1_BCHW: Tensor, t2_BCHW: Tensor, *, heads: frozenset[str] | None = None) -> Outputs:
        sides = [self.slope * date_BCHW[:, :1] for date_BCHW in (t1_BCHW, t2_BCHW)]
        change_B1HW = self.slope * ((t1_BCHW - t2_BCHW).abs().amax(dim=1, keepdim=True) - 1)
        change_BKHW, t1_BKHW, t2_BKHW = (torch.cat([-one, one], dim=1) for one in (change_B1HW, *sides))
        if heads == frozenset({"change"}):
            return Outputs(change_BKHW)
        return Outputs(change_BKHW, t1_BKHW=t1_BKHW, t2_BKHW=t2_BKHW)


@pytest.fixture
def scene(tmp_path: Path) -> tuple[Path, Path]:
    """A roof that appears, one that goes, one of another hue, and a change of the ground."""
    before, after = np.full((3, 64, 96), 40, np.uint8), np.full((3, 64, 96), 40, np.uint8)
    after[:, 4:14, 4:14] = 230
    before[:, 4:14, 24:34] = 230
    before[:, 4:14, 44:54] = after[:, 4:14, 44:54] = 230
    after[1:, 4:14, 44:54] = 60
    after[1:, 24:44, 4:44] = 180  # the red channel stays dark
    return tif(tmp_path / "a.tif", before, at(0, 0)), tif(tmp_path / "b.tif", after, at(0, 0))


def test_a_detection_keeps_the_kinds_that_the_heads_know(tmp_path: Path, scene: tuple[Path, Path]) -> None:
    detector = NetworkDetector(prepare_for_inference(Bright(), heads=SEGMENTATION), name="bright")
    write_detection(*scene, tmp_path / "out", detector=detector, progress=QUIET)
    found = gpd.read_file(tmp_path / "out" / "changes.gpkg").sort_values("id")
    assert found["kind"].tolist() == ["appeared", "disappeared", "replaced", "changed"]
    assert found["from_class"].tolist() == ["background", "foreground", "foreground", "background"]
    assert found["to_class"].tolist() == ["foreground", "background", "foreground", "background"]
    assert found["area_m2"].tolist() == [25.0, 25.0, 25.0, 200.0]
    assert (tmp_path / "out" / "t1.tif").is_file()
    plain = NetworkDetector(prepare_for_inference(Bright()), name="bright")
    with detect_in_memory(*scene, detector=plain, progress=QUIET) as result:
        assert result.t1 is None and result.objects["kind"].unique().tolist() == ["changed"]
        assert result.summary.changed_px == 1100


def test_heads_that_were_not_trained_say_nothing(tmp_path: Path, images: tuple[np.ndarray, np.ndarray]) -> None:
    trained = build_network_detector(make_run(tmp_path / "a", heads=["change", "segmentation"]), device="cpu")
    untrained = build_network_detector(make_run(tmp_path / "b", heads=["change"]), device="cpu")
    assert (trained.map_count, untrained.map_count) == (3, 1)
    assert trained.identity != untrained.identity, "an interrupted run with fewer maps is not continued"
    scores_PHW = trained.predict_scores(*images)
    np.testing.assert_allclose(scores_PHW[:1], untrained.predict_scores(*images), atol=1e-5)
    network = cd.load_model(tmp_path / "a")
    predicted = network.predict(*images)
    assert predicted.t1_HW is not None
    np.testing.assert_array_equal(predicted.t1_HW, scores_PHW[1] >= 0.5)
