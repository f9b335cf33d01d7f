"""The checkpoint that an interrupted training resumes from, and what a training ended with."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from semicdvl.atomic_files import write_folder_atomically, write_json
from semicdvl.checkpoint import load_weights, load_weights_into, save_weights
from semicdvl.errors import CheckpointError, InputError
from semicdvl.metrics.pair_sets import find_undefined_scores
from semicdvl.outputs.exchange import TEMPORARY_PREFIX, require_own_folder
from semicdvl.reading.json_files import read_model
from semicdvl.reading.tensor_files import read_header

STATE_FOLDER = "state"
"""Folder of a run that holds its checkpoints."""
ADAM_STATE, SGD_STATE = ("step", "exp_avg", "exp_avg_sq"), ("momentum_buffer",)
"""What the optimisers keep of each parameter."""


@dataclass(frozen=True)
class FitResult:
    """What training ended with: the selected step, its scores, and those of the last step.

    `earlier_seconds` is what the sessions before this one trained up to their last checkpoint, where it was resumed.
    """

    best_step: int
    best: dict[str, float]
    last: dict[str, float]
    earlier_seconds: float = field(default=0.0, compare=False)


def find_last_checkpoint(run: Path) -> Path | None:
    """Return the folder of a run's newest checkpoint, named after its step; None if none was saved."""
    return max((run / STATE_FOLDER).glob("[0-9]*"), default=None)


def make_moving_average(ema: float, *, ramp: bool = False) -> Callable[[Any, Any, Any], None]:
    """Return a moving average for `AveragedModel`: weights and running statistics are averaged, whole numbers copied.

    Whole numbers are counters and tables of places; torch averages them, too, and rounds the entries of a table down.
    With `ramp` the decay rises to `ema`: 1 - 1 / (updates + 1) before. A fixed decay of 0.996 keeps the random weights
    of a new head for hundreds of steps. Source of the ramp: UniMatch V2's code.
    """

    @torch.no_grad()
    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], updates: Tensor | int) -> None:
        if not averaged[0].is_floating_point():  # torch calls this once for each data type
            for own, newest in zip(averaged, current, strict=True):
                own.copy_(newest)
            return
        decay = min(1 - 1 / (float(updates) + 1), ema) if ramp else ema
        get_ema_multi_avg_fn(decay)(averaged, current, updates)  # type: ignore[no-untyped-call]

    return update


def check_last_checkpoint(run: Path) -> None:
    """Check the newest checkpoint of a run, if there is one, as far as its numbers and headers go.

    Raises:
        CheckpointError: it is damaged.
        OutputError: a link or a file stands in the place of the folder of checkpoints.
    """
    require_own_folder(run / STATE_FOLDER)
    newest = find_last_checkpoint(run)
    if newest is None:
        return
    _read_progress(newest)
    try:
        for path in sorted(newest.glob("*.safetensors")):
            read_header(path, remedy=f"Delete {newest} and start again")
    except InputError as error:
        raise CheckpointError(str(error)) from error


class TrainingCheckpoint:
    """The checkpoint that an interrupted training resumes from: RUN/state/<step>/; older ones are removed after it."""

    def __init__(
        self,
        run: Path,
        model: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        *,
        ema: float = 0.0,
        ema_ramp: bool = False,
        discriminators: nn.Module | None = None,
        is_writer: bool = True,
    ) -> None:
        """Take the parts; with a moving average, make the teacher. Of several processes only `is_writer` writes."""
        self.folder, self.run, self.is_writer = run / STATE_FOLDER, run, is_writer
        self.model, self.discriminators = model, discriminators
        self.optimizers = dict(zip(("optimizer", "critic_optimizer"), optimizers, strict=False))
        self.ema_model: AveragedModel | None = None
        if ema > 0:
            average_fn = make_moving_average(ema, ramp=ema_ramp)
            self.ema_model = AveragedModel(model, multi_avg_fn=average_fn, use_buffers=True)
            self.ema_model.requires_grad_(False)
        self.best_step, self.best, self.last = 0, dict[str, float](), dict[str, float]()
        self.unchanged_validations = 0  # validations in a row that found no change at all
        self.began, self.earlier_seconds = time.monotonic(), 0.0

    @property
    def evaluated_network(self) -> nn.Module:
        """The network that is validated and kept: the moving average where there is one."""
        if self.ema_model is None:
            return self.model
        averaged: nn.Module = self.ema_model.module
        return averaged

    def resume(self, *, total_steps: int) -> int:
        """Load the newest checkpoint, if there is one, and return the step to resume from.

        Raises:
            CheckpointError: the checkpoint is damaged, or of a longer training.
        """
        if self.is_writer:
            self._remove_unfinished()
        newest = find_last_checkpoint(self.run)
        if newest is None:
            return 0
        content = _read_progress(newest)
        if content.step > total_steps:
            raise CheckpointError(
                f"{newest}: is the checkpoint of step {content.step}, but this training ends with step {total_steps}. "
                f"Delete {newest} and start again."
            )
        load_weights_into(self.model, load_weights(newest / "model.safetensors"), source=newest)
        if self.ema_model is not None:
            load_weights_into(self.ema_model, load_weights(newest / "teacher.safetensors"), source=newest)
        if self.discriminators is not None:
            load_weights_into(self.discriminators, load_weights(newest / "critics.safetensors"), source=newest)
        for name, optimizer in self.optimizers.items():
            _load_optimizer(optimizer, load_weights(newest / f"{name}.safetensors"), source=newest)
        self.best_step, self.best, self.last = content.best_step, content.best, content.last
        self.unchanged_validations, self.earlier_seconds = content.silent, content.seconds
        self._remove_older()  # those that a process was removing when it was killed
        return content.step

    def _remove_unfinished(self) -> None:
        """Remove what a process was writing when it was killed."""
        for folder in (self.run, self.run / "sheets", self.folder):
            for left in folder.glob(f"{TEMPORARY_PREFIX}*"):
                if left.is_dir():
                    shutil.rmtree(left, ignore_errors=True)
                else:
                    left.unlink(missing_ok=True)

    def keep_if_best(self, step: int, scores: dict[str, float], *, newest: bool = False) -> bool:
        """Keep the weights if they are the best so far (or newer), and return whether they are; `save` comes after.

        Labels without any change tell no weights from others: then the newest are kept.
        """
        newest = newest or "iou" in find_undefined_scores(scores)
        better = newest or not self.best or scores["iou"] > self.best.get("iou", -1.0)
        if better:
            self.best_step, self.best = step, scores
        if better and self.is_writer:
            save_weights(
                self.run / "model.safetensors", self.evaluated_network.state_dict(), metadata={"step": str(step)}
            )
        self.last = scores
        self.unchanged_validations = self.unchanged_validations + 1 if scores.get("predicted_changed_frac") == 0 else 0
        return better

    def has_just_become_unchanged(self) -> bool:
        """Tell, once per series of them, that two validations in a row found no change at all."""
        return self.unchanged_validations == 2

    def to_result(self) -> FitResult:
        """Return the result so far."""
        return FitResult(self.best_step, self.best, self.last, self.earlier_seconds)

    def save(self, step: int) -> None:
        """Write a checkpoint, then remove the older ones; of several processes only one does."""
        if not self.is_writer:
            return
        with write_folder_atomically(self.folder / f"{step:08d}") as folder:
            save_weights(folder / "model.safetensors", self.model.state_dict())
            if self.ema_model is not None:
                save_weights(folder / "teacher.safetensors", self.ema_model.state_dict())
            if self.discriminators is not None:
                save_weights(folder / "critics.safetensors", self.discriminators.state_dict())
            for name, optimizer in self.optimizers.items():
                save_weights(folder / f"{name}.safetensors", _flatten_optimizer(optimizer))
            numbers = {"step": step, "best_step": self.best_step, "best": self.best, "last": self.last}
            numbers["silent"] = self.unchanged_validations
            numbers["seconds"] = self.earlier_seconds + time.monotonic() - self.began
            write_json(folder / "state.json", numbers)
        self._remove_older()

    def _remove_older(self) -> None:
        """Remove all checkpoints but the newest; of several processes only one does."""
        if self.is_writer:
            for old in sorted(self.folder.glob("[0-9]*"))[:-1]:
                shutil.rmtree(old, ignore_errors=True)


class _Progress(BaseModel):
    """Content of state.json; the names are stored."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    step: int = Field(ge=1)
    best_step: int = Field(ge=0)
    best: dict[str, float]
    last: dict[str, float]
    silent: int = Field(ge=0)
    seconds: float = Field(0.0, ge=0)


def _read_progress(folder: Path) -> _Progress:
    """Read the numbers of a checkpoint, which must be of the step that its folder is named after.

    Raises:
        CheckpointError: the file is missing or not JSON, a number is missing, out of its range, or of another step.
    """
    path, remedy = folder / "state.json", f"Delete {folder} and start again"
    try:
        progress = read_model(path, _Progress, remedy=remedy)
    except InputError as error:
        raise CheckpointError(str(error)) from error
    if not folder.name.isdecimal() or progress.step != int(folder.name) or progress.best_step > progress.step:
        raise CheckpointError(
            f"{path}: names the steps {progress.step} and {progress.best_step}, which do not fit its folder. {remedy}."
        )
    return progress


def _flatten_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return an optimiser's tensors as `parameter index.name`."""
    states = optimizer.state_dict()["state"]
    flat = {f"{index}.{name}": value for index, part in states.items() for name, value in part.items()}
    return {key: torch.as_tensor(value) for key, value in flat.items() if value is not None}


def _fits(name: str, value: Tensor, like: Tensor) -> bool:
    """Tell whether a tensor can be what an optimiser keeps under a name for a parameter."""
    if not value.is_floating_point() or (name in ("step", "exp_avg_sq") and bool((value < 0).any())):
        return False
    return value.numel() == 1 if name == "step" else value.shape == like.shape


def _load_optimizer(optimizer: torch.optim.Optimizer, flat: Mapping[str, Tensor], *, source: Path) -> None:
    """Put an optimiser's tensors back, by parameter index, each in its parameter's memory layout.

    Files hold them row by row, and a fused optimiser walks over parameter and state in the order of memory.

    Raises:
        CheckpointError: a tensor is of no parameter, none of this optimiser, or of another shape.
    """
    content, names = optimizer.state_dict(), SGD_STATE if isinstance(optimizer, torch.optim.SGD) else ADAM_STATE
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    states: dict[int, dict[str, Tensor]] = {}
    for key, value in flat.items():
        index, _, name = key.partition(".")
        if not index.isdecimal() or int(index) >= len(parameters) or name not in names:
            raise CheckpointError(
                f"{source}: the optimiser's '{key}' is of no parameter. Delete {source} and start again."
            )
        like = parameters[int(index)]
        if not _fits(name, value, like):
            raise CheckpointError(
                f"{source}: the optimiser's '{key}' does not fit its parameter. Delete {source} and start again."
            )
        if name != "step":
            value = torch.empty_like(like, dtype=value.dtype, device=value.device).copy_(value)
        states.setdefault(int(index), {})[name] = value
    short = next((index for index, state in states.items() if len(state) < len(names)), None)
    if short is not None:
        raise CheckpointError(
            f"{source}: the optimiser's parameter {short} lacks a part. Delete {source} and start again."
        )
    content["state"] = states
    optimizer.load_state_dict(content)
