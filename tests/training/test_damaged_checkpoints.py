"""A checkpoint whose tensors cannot be those of its training is refused before a step is made."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.paths import ROOT
from torch import Tensor

import semicdvl as cd
from semicdvl.errors import CheckpointError
from semicdvl.training.checkpoint import TrainingCheckpoint

OLD = ROOT / "tests" / "data" / "made_by_0.1" / "interrupted"
STATE = Path("state") / "00000020"


def resume(run: Path) -> int:
    part = json.loads((run / "run.json").read_text())["recipe"]["model"]
    model = cd.create_model(part.pop("name"), **part)
    return TrainingCheckpoint(run, model, [torch.optim.AdamW(model.parameters())], ema=0.9).resume(total_steps=40)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    shutil.copytree(OLD, tmp_path / "run")
    assert resume(tmp_path / "run") == 20
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("name", "change", "why"),
    [
        ("exp_avg", torch.Tensor.flatten, "'0.exp_avg' does not fit its parameter"),
        ("exp_avg", lambda _: torch.tensor(0.0), "'0.exp_avg' does not fit its parameter"),
        ("exp_avg", torch.Tensor.long, "'0.exp_avg' does not fit its parameter"),
        ("exp_avg_sq", lambda value: value - 1, "'0.exp_avg_sq' does not fit its parameter"),
        ("step", lambda value: value - 1000, "'0.step' does not fit its parameter"),
        ("exp_avg", None, "the optimiser's parameter 0 lacks a part"),
        ("other", torch.Tensor.clone, "'0.other' is of no parameter"),
    ],
)
def test_states_that_no_optimiser_keeps(
    name: str, change: Callable[[Tensor], Tensor] | None, why: str, run: Path
) -> None:
    path = run / STATE / "optimizer.safetensors"
    tensors = load_file(path)
    assert tensors["0.exp_avg"].ndim > 1
    found = tensors.pop(f"0.{name}", tensors["0.exp_avg"])
    save_file(tensors if change is None else tensors | {f"0.{name}": change(found).contiguous()}, path)
    with pytest.raises(CheckpointError, match=rf"{STATE.name}: .*{why}"):
        resume(run)


def test_weights_of_whole_numbers(run: Path) -> None:
    path = run / STATE / "model.safetensors"
    save_file({name: value.int() for name, value in load_file(path).items()}, path)
    with pytest.raises(CheckpointError, match="holds weights of another model"):
        resume(run)
