"""A stored run, store, job or result names shipped parts, or plug-ins of modules that the user trusts; never any code.

Each test puts a name into a file as somebody might who sends it, and looks for the trace that the code would leave.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support.command import command
from tests.support.dataset_files import folder_of_pairs
from tests.support.synthetic_rasters import at, tif
from torch import nn

import semicdvl as cd
from semicdvl.atomic_files import write_json
from semicdvl.checkpoint import RUN_FORMAT, save_weights
from semicdvl.errors import ConfigError
from semicdvl.methods import METHODS
from semicdvl.models import MODELS
from semicdvl.models.siam_light import build_siam_light
from semicdvl.registry import Origin, build_part, resolve_builder

MODULE = '''"""A module that leaves a trace when it is imported."""

import os
from pathlib import Path
from subprocess import run

from torch import nn

from semicdvl.types import Outputs

Path(__file__).with_name("trace").touch()


class Network(nn.Module):
    symmetric, heads = True, frozenset({"change"})

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 2, 1)

    def forward(self, t1_BCHW, t2_BCHW, *, heads=None):
        return Outputs(self.layer(t1_BCHW - t2_BCHW))


def build():
    return Network()


def marked():
    return Network()


def build_nothing():
    return "not a network"


def helper(path="."):
    raise AssertionError("called")


class Helper:
    def __init__(self, path="."):
        raise AssertionError("called")


system = os.system
marked.semicdvl_plugin = True
'''
MODEL = {"name": "siam_light", "backbone": "test_resnet", "pretrained": "none", "decoder_channels": 12}
FOREIGN = "sent_by_somebody"


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that the foreign module leaves when it is imported."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / f"{FOREIGN}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(__import__("sys").modules, FOREIGN, raising=False)
    return folder / "trace"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of a shipped network."""
    torch.manual_seed(0)
    network = build_siam_light(**{key: value for key, value in MODEL.items() if key != "name"})
    return _write_run(tmp_path / "run", network, MODEL)


def _write_run(folder: Path, network: nn.Module, model: dict[str, Any]) -> Path:
    recipe = {"model": model, "method": {"name": "supervised"}}
    write_json(folder / "run.json", {"format": RUN_FORMAT, "status": "finished", "recipe": recipe})
    save_weights(folder / "model.safetensors", network.state_dict())
    return folder


def _edit(path: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def _pair(tmp_path: Path) -> list[Path]:
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 48, 80), dtype=np.uint8)
    return [tif(tmp_path / f"{date}.tif", image_CHW, at(5e5, 4e6)) for date, image_CHW in enumerate(images)]


def _uses(tmp_path: Path, run: Path) -> dict[str, tuple[object, ...]]:
    """Return the commands that build the network of a run."""
    data = folder_of_pairs(tmp_path / "data", ["a", "b"])
    return {
        "detect": ("detect", *_pair(tmp_path), "-o", tmp_path / "out", "--model", run, "--device", "cpu"),
        "evaluate": ("evaluate", run, data, "--split", "all"),
        "export": ("export", run, "-o", tmp_path / "net.onnx"),
    }


API: dict[str, Callable[[Path], Any]] = {
    "load": cd.load,
    "load_model": cd.load_model,
    "load_detector": lambda run: cd.load_detector(run, device="cpu"),
    "detect": lambda run: cd.detect(*np.zeros((2, 64, 64, 3), np.uint8), model=run),
}


# ------------------------------------------------------------------------------------------------ a run's network
@pytest.mark.parametrize("use", ["detect", "evaluate", "export"])
def test_a_command_runs_no_code_that_a_run_names(
    use: str, tmp_path: Path, run: Path, trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _edit(run / "run.json", lambda record: record["recipe"].update(model={"name": f"{FOREIGN}:helper"}))
    code, _, complaint = command(capsys, *_uses(tmp_path, run)[use])
    assert code == 2 and not trace.exists()
    assert complaint.startswith(f"error: {run / 'run.json'}: names the model '{FOREIGN}:helper'")
    assert f"give --trust {FOREIGN}" in complaint
    assert not (tmp_path / "out").exists() and not (tmp_path / "net.onnx").exists()


@pytest.mark.parametrize("use", API)
def test_python_runs_no_code_that_a_run_names(use: str, run: Path, trace: Path) -> None:
    _edit(run / "run.json", lambda record: record["recipe"].update(model={"name": f"{FOREIGN}:helper"}))
    with pytest.raises(ConfigError, match=rf"trust=\('{FOREIGN}',\)"):
        API[use](run)
    assert not trace.exists()


@pytest.mark.parametrize("name", ["os:system", "posix:system", "subprocess:run", "builtins:exec", "importlib:reload"])
def test_functions_of_python_are_refused_even_with_consent(name: str, run: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    model = {"name": name, "command": f"touch {made}"}
    _edit(run / "run.json", lambda record: record["recipe"].update(model=model))
    for trust in ((), (name.partition(":")[0],)):
        with pytest.raises(ConfigError, match="belongs to Python itself"):
            cd.load_model(run, trust=trust)
    assert not made.exists()


@pytest.mark.parametrize("name", ["semicdvl.demo:run_demo", "semicdvl.atomic_files:write_json"])
def test_functions_of_this_package_that_are_no_networks_are_refused(name: str, run: Path) -> None:
    _edit(run / "run.json", lambda record: record["recipe"].update(model={"name": name}))
    with pytest.raises(ConfigError, match="does not offer as a model"):
        cd.load_model(run, trust=("semicdvl",))


@pytest.mark.parametrize("use", ["detect", "evaluate", "export"])
def test_a_run_names_a_plug_in_of_a_trusted_module(
    use: str, tmp_path: Path, trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = _write_run(tmp_path / "run", nn.ModuleDict({"layer": nn.Conv2d(3, 2, 1)}), {"name": f"{FOREIGN}:build"})
    if use == "export":
        pytest.importorskip("onnxruntime")
    words = _uses(tmp_path, run)[use]
    code, _, complaint = command(capsys, *words, "--trust", "another", "--trust", FOREIGN)
    assert code == 0 and trace.exists(), complaint


def test_python_takes_one_module_as_a_text(tmp_path: Path, trace: Path) -> None:
    run = _write_run(tmp_path / "run", nn.ModuleDict({"layer": nn.Conv2d(3, 2, 1)}), {"name": f"{FOREIGN}:marked"})
    assert type(cd.load_model(run, trust=FOREIGN)).__name__ == "Network"
    assert trace.exists()


@pytest.mark.parametrize("trust", ["sent", "sent_by_somebody.else", "sent_by_somebodyx", "", "*", "."])
def test_consent_is_for_exactly_the_named_module(trust: str, run: Path, trace: Path) -> None:
    _edit(run / "run.json", lambda record: record["recipe"].update(model={"name": f"{FOREIGN}:build"}))
    with pytest.raises(ConfigError, match="is not part of semicdvl"):
        cd.load_model(run, trust=(trust,))
    assert not trace.exists()


@pytest.mark.parametrize("builder", ["helper", "Helper", "run", "system", "os", "missing"])
def test_what_is_no_plug_in_of_a_trusted_module_is_not_called(builder: str, run: Path, trace: Path) -> None:
    _edit(run / "run.json", lambda record: record["recipe"].update(model={"name": f"{FOREIGN}:{builder}"}))
    with pytest.raises(ConfigError, match="is not a plug-in"):
        cd.load_model(run, trust=(FOREIGN,))


def test_a_plug_in_that_builds_no_network_is_refused(run: Path, trace: Path) -> None:
    _edit(run / "run.json", lambda record: record["recipe"].update(model={"name": f"{FOREIGN}:build_nothing"}))
    with pytest.raises(ConfigError, match="is not a network"):
        cd.load_model(run, trust=(FOREIGN,))


def test_names_that_the_user_types_need_no_consent(trace: Path) -> None:
    assert type(cd.create_model(f"{FOREIGN}:build")).__name__ == "Network"
    assert build_part("model", f"{FOREIGN}:build_nothing", MODELS, {}) == "not a network"


def test_a_registered_builder_needs_no_consent(tmp_path: Path, trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = _write_run(tmp_path / "run", nn.ModuleDict({"layer": nn.Conv2d(3, 2, 1)}), {"name": f"{FOREIGN}:build"})
    monkeypatch.setitem(MODELS, "ours", f"{FOREIGN}:build")
    assert type(cd.load_model(run)).__name__ == "Network"


# ------------------------------------------------------------------------------------------------ every kind of name
KINDS = {
    "model": lambda recipe, name: recipe.update(model={"name": name}),
    "method": lambda recipe, name: recipe.update(method={"name": name}),
    "data set": lambda recipe, name: recipe.update(data={"root": ".", "dataset": name}),
    "VLM": lambda recipe, name: recipe.update(vlm=name),
    "detector": lambda recipe, name: recipe.update(detector=name),
    "backbone": lambda recipe, name: recipe["model"].update(backbone=name),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("use", ["detect", "evaluate", "export"])
def test_no_kind_of_name_in_a_run_is_imported(
    kind: str, use: str, tmp_path: Path, run: Path, trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _edit(run / "run.json", lambda record: KINDS[kind](record["recipe"], f"{FOREIGN}:build"))
    code, _, complaint = command(capsys, *_uses(tmp_path, run)[use])
    assert not trace.exists()
    assert code == (2 if kind in ("model", "backbone") else 0), complaint


@pytest.mark.parametrize("kind", ["model", "method", "VLM", "data set", "detector"])
def test_the_registry_refuses_stored_names_of_every_kind(kind: str, trace: Path) -> None:
    origin = Origin(Path("manifest.json"))
    with pytest.raises(ConfigError, match=rf"manifest\.json: names the {kind} '{FOREIGN}:build'"):
        resolve_builder(kind, f"{FOREIGN}:build", METHODS, origin=origin)
    assert not trace.exists()


# ------------------------------------------------------------------------------------------------ resumed folders
TRAIN = """
[data]
root = "{data}"
crop_px = 32
[model]
name = "fc_siam_diff"
width = 4
[method]
name = "supervised"
[train]
steps = 2
labelled_batch = 2
device = "cpu"
"""


def test_a_resumed_training_builds_what_the_recipe_of_the_user_names(
    tmp_path: Path, trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, recipe, run = folder_of_pairs(tmp_path / "data", list("abcdefghij")), tmp_path / "r.toml", tmp_path / "run"
    recipe.write_text(TRAIN.format(data=data.as_posix()))
    for part in ("model", "method"):
        write_json(
            run / "run.json",
            {
                "format": RUN_FORMAT,
                "status": "started",
                "recipe": cd.load_recipe(recipe).model_dump(mode="json") | {part: {"name": f"{FOREIGN}:build"}},
            },
        )
        code, _, complaint = command(capsys, "train", recipe, "-o", run)
        assert code == 2 and "holds a run of another recipe" in complaint
    assert not trace.exists()


def test_a_store_names_no_code(tmp_path: Path, trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, store = folder_of_pairs(tmp_path / "data", ["a", "b", "c"]), tmp_path / "store"
    words = ("pseudo", data, "-o", store, "--vlm", "fake", "--find", "roof", "--background", "ground")
    assert command(capsys, *words)[0] == 0
    _edit(store / "manifest.json", lambda manifest: manifest.update(vlm=f"{FOREIGN}:build"))
    assert command(capsys, *words)[0] == 0
    assert not trace.exists()


# ------------------------------------------------------------------------------------------------ places
@pytest.mark.parametrize(
    "option",
    [
        {"backbone": "hf-hub:timm/resnet18.a1_in1k"},
        {"backbone": "hf_hub:timm/resnet18.a1_in1k"},
        {"backbone": "local-dir:/tmp/net"},
        {"backbone": "https://example.org/net"},
        {"name": "semicdvl.adapt.network:build", "backbone": "hf-hub:timm/resnet18.a1_in1k"},
        {"name": "ban", "foundation": "openai/clip-vit-base-patch16"},
        {"name": "ban", "foundation": "../clip"},
    ],
)
def test_a_run_leads_to_no_other_place(option: dict[str, str], run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("reached for the network")

    monkeypatch.setattr("socket.socket.connect", refuse)
    model = option if "name" in option else MODEL | option
    _edit(run / "run.json", lambda record: record["recipe"].update(model=model))
    with pytest.raises(ConfigError, match=r"leads outside the run: .* give --trust"):
        cd.load_model(run)


def test_weights_that_the_recipe_began_with_are_not_read(run: Path, tmp_path: Path) -> None:
    """A run has its own weights, so the path that its recipe names is neither refused nor opened."""
    _edit(run / "run.json", lambda record: record["recipe"]["model"].update(pretrained="/dev/zero"))
    assert cd.load_model(run).training is False


@pytest.mark.parametrize("name", ["hf-hub:timm/resnet18.a1_in1k", "local-dir:/tmp", "no_such_network"])
def test_the_embedded_network_is_built_from_networks_of_timm_alone(name: str) -> None:
    from semicdvl.vlms.aerial.net import AerialNet

    with pytest.raises(ConfigError, match="is not a network of timm"):
        AerialNet(backbone=name)
