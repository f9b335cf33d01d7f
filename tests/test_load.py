"""`from semicdvl import load`: light to import, every output in eval mode, and nothing run that isn't wanted."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from semicdvl import load, load_detector
from semicdvl.atomic_files import write_json
from semicdvl.checkpoint import RUN_FORMAT, save_weights
from semicdvl.detection.detectors.network import build_network_detector
from semicdvl.errors import CheckpointError, SemicdvlError
from semicdvl.models.siam_light import build_siam_light

MODEL = {"backbone": "test_resnet", "pretrained": False, "decoder_channels": 12}
TRAIN_ONLY = ("change_decoder.classify_vlm", "segmentation_decoder", "segmentation_decoder.classify")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory as training leaves it, with moved batch-norm statistics."""
    folder = tmp_path_factory.mktemp("load") / "run"
    torch.manual_seed(0)
    network = build_siam_light(**MODEL)
    network(*_pair())
    save_weights(folder / "model.safetensors", network.state_dict())
    part = {"name": "siam_light", **MODEL, "pretrained": "imagenet"}  # must not be fetched when the run is loaded
    write_json(folder / "run.json", {"format": RUN_FORMAT, "recipe": {"model": part, "method": {"name": "semicd_vl"}}})
    return folder


def _pair() -> tuple[torch.Tensor, torch.Tensor]:
    t1_BCHW, t2_BCHW = torch.randn(2, 2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    return t1_BCHW, t2_BCHW


def _watched(network: nn.Module) -> list[str]:
    """Return a list that fills with the parts for training as they are run."""
    ran: list[str] = []
    for name in TRAIN_ONLY:
        network.get_submodule(name).register_forward_hook(lambda *_, name=name: ran.append(name))
    return ran


def test_importing_the_package_is_light() -> None:
    code = "import sys; from semicdvl import load; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_three_lines_give_every_output(run: Path) -> None:
    net = load(run)
    with torch.no_grad():
        out = net(*_pair())
    assert not net.training
    for logits_BKHW in (out.change_BKHW, out.vlm_change_BKHW, out.t1_BKHW, out.t2_BKHW):
        assert logits_BKHW is not None and logits_BKHW.shape == (2, 2, 64, 96)
    assert out.features_t1_BDHW is not None and out.features_t2_BDHW is not None
    assert out.features_t1_BDHW.shape == out.features_t2_BDHW.shape and out.features_t1_BDHW.shape[:2] == (2, 12)


def test_without_the_training_heads_the_change_is_the_same_and_the_rest_is_gone(run: Path) -> None:
    whole, small = load(str(run)), load(run, train_heads=False)
    with torch.no_grad():
        out, alone = whole(*_pair()), small(*_pair())
    assert torch.equal(alone.change_BKHW, out.change_BKHW)
    assert {name for name, value in vars(alone).items() if value is not None} == {"change_BKHW"}
    lost = {name for name, _ in whole.named_parameters()} - {name for name, _ in small.named_parameters()}
    assert lost and all(name.startswith(TRAIN_ONLY) for name in lost)


def test_finding_change_runs_no_training_head(run: Path) -> None:
    whole = load(run)
    ran = _watched(whole)
    with torch.no_grad():
        whole(*_pair(), heads=frozenset({"change"}))
    assert ran == []
    whole(*_pair())
    assert set(ran) == set(TRAIN_ONLY)  # the watch works

    detector = build_network_detector(run, device="cpu")
    assert not any(name.startswith(TRAIN_ONLY) for name, _ in detector.network.network.named_parameters())
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    assert detector.predict_scores(*images).shape == (1, 64, 96)


def test_weights_of_another_model_are_refused(run: Path, tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", {"format": RUN_FORMAT, "recipe": {"model": {"name": "siam_light", **MODEL}}})
    other = build_siam_light(**{**MODEL, "decoder_channels": 8})
    save_weights(tmp_path / "model.safetensors", other.state_dict())
    with pytest.raises(CheckpointError, match=r"weights of another model: \d+ tensors don't fit"):
        load(tmp_path)
    with pytest.raises(CheckpointError, match=r"not a trained run \(it has no run\.json\)"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"status": "x"}, "status: Input should be 'started', 'finished' or 'imported'"),
        ({"heads": 5}, "heads: Input should be a valid list"),
        ({"split": 1.5}, "split: "),
        ({"split": {"val": "many"}}, "split.val: "),
        ({"recipe": {"classes": "x"}}, "recipe.classes: "),
        ({"recipe": {"classes": {"names": [1, 2]}}}, "recipe.classes.names.0: "),
        (
            {"recipe": {"classes": {"names": ["a", "b", "c"]}}},
            "recipe: Value error, names 3 classes, and the network tells 2 apart",
        ),
        (
            {"recipe": {"model": {"name": "siam_light", "segmentation_classes": "2"}}},
            "recipe: Value error, model.segmentation_classes is 2, which is no whole number",
        ),
        (
            {"bands": {"numbers": [1, 2, 3, 4], "mean": [0] * 4, "std": [1] * 4}},
            "the network reads 3 bands, and the record has the statistics of 4",
        ),
        (
            {"recipe": {"model": {"name": "siam_light", "bands": 5}}},
            "the network reads 5 bands, and the record has the statistics of 3",
        ),
        (
            {"stretch": {"low": [9, 9, 9], "high": [9, 5, 9]}},
            "stretch: Value error, the low limits must be below the high ones",
        ),
        (
            {"stretch": {"low": [-1e308] * 3, "high": [1e308] * 3}},
            "stretch: Value error, the low limits must be below the high ones",
        ),
        (
            {
                "bands": {"numbers": [1, 2, 3], "mean": [0] * 3, "std": [1] * 3},
                "stretch": {"low": [0] * 3, "high": [1] * 3},
            },
            "content: Value error, there are both statistics of bands and limits of grey values",
        ),
        (
            {"bands": {"numbers": [1, 2, 3], "mean": [1e300] * 3, "std": [1] * 3}},
            "bands: Value error, a mean or a standard deviation is beyond the numbers of 32 bits",
        ),
        (
            {"bands": {"numbers": [1, 2, 3], "mean": [0] * 3, "std": [1e-300] * 3}},
            "bands: Value error, a mean or a standard deviation is beyond the numbers of 32 bits",
        ),
        ({"recipe": {"model": {"name": "nope"}}}, "unknown model 'nope'"),
        ({"recipe": {"model": {"name": "siam_light", "decoder": 3}}}, "model 'siam_light' has no option 'decoder'"),
        ({"recipe": {"model": {"name": "siam_light", "backbone": "nope"}}}, "unknown backbone 'nope'"),
    ],
)
def test_an_edited_record_is_refused_by_its_file(change: dict[str, Any], why: str, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    record = json.loads((run / "run.json").read_text())
    record |= change | {"recipe": record["recipe"] | change.get("recipe", {})}
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    for read in (load, load_detector):
        with pytest.raises(SemicdvlError, match=f"run/run.json: {re.escape(why)}"):
            read(tmp_path / "run")


def test_a_record_without_a_method_is_read(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    record = json.loads((run / "run.json").read_text())
    record["recipe"]["method"] = None
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    assert load_detector(tmp_path / "run", device="cpu")


@pytest.mark.parametrize("value", [3e38, -1.0])
def test_weights_that_give_no_numbers_give_no_empty_map(value: float, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    tensors = load_file(run / "model.safetensors")
    odd = {name: torch.full_like(one, value) for name, one in tensors.items() if name.endswith("running_var") == (value < 0) and one.is_floating_point()}  # fmt: skip  # noqa: E501
    save_file(tensors | odd, tmp_path / "run" / "model.safetensors")
    image_HWC = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    with pytest.raises(CheckpointError, match="its network gives scores that are not numbers"):
        load_detector(tmp_path / "run", device="cpu").predict_scores(image_HWC, image_HWC[::-1])
