"""Several processes are one process with a larger batch; so are several batches per step.

The network has no batch norm: torch synchronises it on GPUs only, and what is tested here is all the rest.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from tests.support.dataset_files import save
from tests.support.paths import ROOT
from torch import nn

from semicdvl.atomic_files import write_json
from semicdvl.ceg.prompts import Prompts
from semicdvl.checkpoint import load_weights
from semicdvl.config import TrainConfig, parse_recipe
from semicdvl.data.readers import folder
from semicdvl.errors import CheckpointError, ConfigError
from semicdvl.methods.semicd_vl import SemiCDVL
from semicdvl.methods.supervised import Supervised
from semicdvl.models import siam_light
from semicdvl.pseudo_labels.generate import CEGSettings, generate_labels
from semicdvl.training import loop
from semicdvl.training.distributed import (
    ProcessGroup,
    average_by_name,
    has_batch_norm,
    join_process_group,
    synchronise_batch_norm,
)
from semicdvl.training.run import train_recipe
from semicdvl.types import Segments

SCRIPT = ROOT / "tests" / "support" / "two_processes.py"
STEPS = 8


class Bands:
    """A VLM for tests: the green band is house, the blue one grass."""

    identity, gamma = "bands-1", 0.4

    def segment(self, image_HWC, prompts, *, gsd_m=None) -> Segments:
        bands = [1 if word == "house" else 2 for word in prompts]
        return Segments(
            np.ascontiguousarray(image_HWC[..., bands].transpose(2, 0, 1) / np.float32(255)), tuple(prompts)
        )


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Pairs large enough that no crop needs padding, and a store of their VLM labels."""
    root = tmp_path_factory.mktemp("processes")
    data, rng = root / "data", np.random.default_rng(0)
    for number in range(16):
        before_HWC = rng.integers(60, 120, (88, 96, 3), dtype=np.uint8)
        label_HW = np.zeros((88, 96), np.uint8)
        row, col = rng.integers(0, 40, 2)
        label_HW[row : row + 45, col : col + 50] = 255
        after_HWC = np.where(label_HW[..., None] > 0, before_HWC + 130, before_HWC).astype(np.uint8)
        for part, array in (("A", before_HWC), ("B", after_HWC), ("label", label_HW)):
            save(data / part / f"p{number:02d}.png", array)
    words, settings = Prompts(("house",), ("grass",)), CEGSettings(gamma=0.4, gamma_segmentation=0.4)
    list(
        generate_labels(
            folder.read_folder(data).pairs, vlm=Bands(), prompts=words, settings=settings, root=root / "store"
        )
    )
    return {"root": str(data), "store": str(root / "store")}


def _recipe(parts: dict[str, str], **train_options: Any) -> dict[str, Any]:
    method = {"name": "semicd_vl", "lambda_c": 0.0, "confidence_min": 0.55, "cutmix_partner": "official_self"}
    settings = {
        "steps": STEPS,
        "lr": 0.05,
        "head_lr_multiplier": 2.0,
        "eval_every": 2,
        "clip_norm": 1.0,
        "device": "cpu",
    }
    return {
        "data": {"root": parts["root"], "labelled": 0.5, "crop_px": 48, "val_frac": 0.3},
        "pseudo": {"store": parts["store"]},
        "model": {"name": "tests.support.plain_network:build"},
        "method": method | {"decoupled": False},  # its decoder gets no gradient, and nobody may wait for one
        "train": settings | train_options,
    }


def _events(run: Path, kind: str) -> list[dict[str, float]]:
    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [event for event in events if kind in event]


def _curve(run: Path) -> np.ndarray:
    names = ("supervised", "consistency", "vlm_change_weak", "vlm_change_strong", "vlm_change_labelled", "loss")
    return np.array([[event[name] for name in names] for event in _events(run, "loss")])


def _train(parts: dict[str, str], run: Path, **options: Any) -> np.ndarray:
    train_recipe(parse_recipe(_recipe(parts, **options), source="test"), run, quiet=True)
    return _curve(run)


@pytest.fixture(scope="module")
def one(parts: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process, four and four pairs in one batch."""
    run = tmp_path_factory.mktemp("one") / "run"
    curve = _train(parts, run, labelled_batch=4, unlabelled_batch=4)
    assert len(curve) == STEPS and (curve > 0).all() and curve[-1, 0] < curve[0, 0]
    return run


def test_two_processes_train_as_one_with_the_larger_batch_even_when_interrupted(
    parts: dict[str, str], one: Path, tmp_path: Path
) -> None:
    """Two processes, two batches a step, one and one pair in each: the same eight pairs a step."""
    write_json(tmp_path / "recipe.json", recipe := _recipe(parts, labelled_batch=1, unlabelled_batch=1, accumulate=2))
    (tmp_path / "recipe.toml").write_text(_toml(recipe))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    command = [*launch, str(SCRIPT), str(tmp_path / "recipe.toml"), str(tmp_path / "run")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("interrupted") == 2

    run = tmp_path / "run"
    np.testing.assert_allclose(_curve(run), _curve(one), rtol=2e-4, atol=1e-4)
    ours, theirs = ([[*event["validation"].values()] for event in _events(path, "validation")] for path in (run, one))
    assert theirs[-1][0] > 0.5  # some change is found, so that it matters who counts which pair
    np.testing.assert_allclose(ours, theirs, atol=2e-3)
    first, second = (load_weights(path / "state" / f"{STEPS:08d}" / "model.safetensors") for path in (run, one))
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=1e-3, atol=1e-5)
    records = [json.loads((path / "run.json").read_text()) for path in (run, one)]
    assert [record["processes"] for record in records] == [2, 1]
    assert records[0]["test"]["iou"] == pytest.approx(records[1]["test"]["iou"], abs=2e-3)
    assert records[0]["split"]["sha256"] == records[1]["split"]["sha256"]


def _toml(recipe: dict[str, Any]) -> str:
    sections = [
        f"[{section}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in content.items())
        for section, content in recipe.items()
    ]
    return "\n".join(sections)


def test_batches_of_a_step_add_up_to_the_larger_batch(parts: dict[str, str], one: Path, tmp_path: Path) -> None:
    curve = _train(parts, tmp_path / "run", labelled_batch=2, unlabelled_batch=2, accumulate=2)
    np.testing.assert_allclose(curve, _curve(one), rtol=2e-4, atol=1e-4)
    half = _train(parts, tmp_path / "half", labelled_batch=2, unlabelled_batch=2)
    assert np.abs(half - _curve(one)).max() > 0.01  # curves that merely look alike would not do


def test_a_run_is_resumed_by_as_many_processes(parts: dict[str, str], tmp_path: Path) -> None:
    _train(parts, tmp_path / "run", steps=2)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    write_json(tmp_path / "run" / "run.json", record | {"status": "started", "processes": 4})
    with pytest.raises(CheckpointError, match=r"was started by 4 processes, and is now resumed by 1 process"):
        _train(parts, tmp_path / "run", steps=2)


# ------------------------------------------------------------------------------------------------ parts
def test_one_process_exchanges_nothing() -> None:
    alone = join_process_group("cpu")
    assert (alone.rank, alone.count, alone.device.type, alone.is_main) == (0, 1, "cpu", True)
    assert list(alone.take_share("abc")) == ["a", "b", "c"] and alone.sum_counts([3, 4]) == [3, 4]
    alone.wait_for_all()
    with pytest.raises(ConfigError, match=r"train\.device = 'warp'.*Give auto or cpu"):
        join_process_group("warp")


def test_shares_are_disjoint_and_complete() -> None:
    shares = [ProcessGroup(rank, 3, torch.device("cpu")).take_share(range(8)) for rank in range(3)]
    assert sorted(item for share in shares for item in share) == list(range(8))
    assert [len(share) for share in shares] == [3, 3, 2]


def test_a_mean_is_over_the_parts_that_have_the_number() -> None:
    assert average_by_name([{"a": 1.0, "b": 4.0}, {"a": 3.0}]) == {"a": 2.0, "b": 4.0}


def test_weights_without_gradients_are_looked_for_only_where_a_head_with_weights_is_not_read() -> None:
    """The walk over the graph costs time at each step, and torch complains where it finds none."""
    network = siam_light.build_siam_light(backbone="resnet18", pretrained=False, decoder_channels=8)
    for method, looks in ((SemiCDVL(), False), (Supervised(), True)):
        handler = loop._build_accelerator(TrainConfig(device="cpu"), method, network).ddp_handler
        assert handler is not None and handler.find_unused_parameters is looks


def test_batch_norm_is_synchronised_on_gpus_and_keeps_its_names_and_activation() -> None:
    net = timm.create_model("tf_efficientnet_lite0", pretrained=False)  # its batch norm has the activation inside
    names = list(net.state_dict())
    assert synchronise_batch_norm(net, ProcessGroup(0, 2, torch.device("cpu"))) is net and has_batch_norm(net)
    converted = synchronise_batch_norm(net, ProcessGroup(0, 2, torch.device("cuda")))
    norms = [module for module in converted.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert norms and all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
    assert sum(isinstance(getattr(norm, "act", None), nn.ReLU6) for norm in norms) > 20
    assert list(converted.state_dict()) == names
