"""The training loop, from top to bottom.

Everything random in a step is seeded by (seed, step), the loader's part included, so a run that was killed goes on from
its last state as if nothing had happened.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from semicdvl.checkpoint import load_into, load_weights, save_weights
from semicdvl.errors import DivergedError
from semicdvl.files import read_json, whole_folder, write_json
from semicdvl.train.log import Log
from semicdvl.train.optim import OptimSettings, build_optimizer, set_lr
from semicdvl.types import IMAGENET_MEAN, IMAGENET_STD, Labelled, Method, Progress, Unlabelled, VLMTargets

if TYPE_CHECKING:
    from accelerate import Accelerator

Batch = tuple[Labelled, Unlabelled | None]
Part = TypeVar("Part", Labelled, Unlabelled)


@dataclass(frozen=True)
class Plan:
    """How long, how precisely and where."""

    steps: int
    eval_every: int
    seed: int = 0
    precision: str = "fp32"
    device: str = "auto"
    ema: float = 0.0
    clip_norm: float | None = None
    optim: OptimSettings = field(default_factory=OptimSettings)


@dataclass(frozen=True)
class Fitted:
    """What training ended with: the selected step, its scores, and those of the last step."""

    best_step: int
    best: dict[str, float]
    last: dict[str, float]


def fit(
    model: nn.Module,
    method: Method,
    *,
    plan: Plan,
    batches: Callable[[int], Iterator[Batch]],
    validate: Callable[[nn.Module, torch.device], Mapping[str, float]],
    run: Path,
    quiet: bool = False,
) -> Fitted:
    """Train `model` and leave the weights of the best validation IoU in RUN/model.safetensors.

    Args:
        model: the network, with the heads that the method needs.
        method: turns a batch into loss terms.
        plan: length, precision, device, optimiser.
        batches: gives the batches from a step on.
        validate: scores of a network in eval mode; the key `iou` decides what is best.
        run: run directory; a state of an interrupted training there is taken up.
        quiet: show nothing.

    Raises:
        DivergedError: the loss is not a number; the last good state and the best weights are kept.
    """
    accelerator = _accelerator(plan)
    optimizer = build_optimizer(model, plan.optim)
    state = _State(run, model, optimizer, plan)
    model, optimizer = accelerator.prepare(model, optimizer)
    teacher: nn.Module = state.average.to(accelerator.device) if state.average is not None else model
    start = state.take_up()
    stream = batches(start)

    with Log(run / "log.jsonl", title=run.name, total=plan.steps, start=start, quiet=quiet) as log:
        for step in range(start, plan.steps):
            labelled, unlabelled = next(stream)
            labelled = _on_device(labelled, accelerator.device)
            unlabelled = None if unlabelled is None else _on_device(unlabelled, accelerator.device)
            torch.manual_seed(plan.seed * 1_000_003 + step)
            set_lr(optimizer, plan.optim.factor(step, plan.steps))
            progress = Progress(step, plan.steps)

            model.train()
            with accelerator.autocast():
                terms = method.step(model, teacher, labelled, unlabelled, progress)
            loss = torch.stack(list(terms.values())).sum()
            if not torch.isfinite(loss):
                raise _diverged(run, step, terms)
            optimizer.zero_grad(set_to_none=True)
            accelerator.backward(loss)
            if plan.clip_norm is not None:
                accelerator.clip_grad_norm_(model.parameters(), plan.clip_norm)
            optimizer.step()
            if state.average is not None:
                state.average.update_parameters(accelerator.unwrap_model(model))

            pairs = len(labelled.t1_BCHW) + (len(unlabelled.weak_t1_BCHW) if unlabelled is not None else 0)
            values = {name: term.item() for name, term in terms.items()}
            log.step(step + 1, terms=values, health=progress.health, pairs=pairs)

            if (step + 1) % plan.eval_every == 0 or step + 1 == plan.steps:
                student = state.average.module if state.average is not None else accelerator.unwrap_model(model)
                scores = dict(validate(student.eval(), accelerator.device))
                best = state.note(step + 1, scores, student)
                log.validation(step + 1, scores=scores, best=best)
                if state.just_went_silent():
                    log.warn(step + 1, UNCHANGED_EVERYWHERE)
    return state.fitted()


UNCHANGED_EVERYWHERE = (
    "the network says 'unchanged' everywhere, twice in a row. If this stays so: more labelled pairs that show change, "
    "a lower learning rate, a Dice term (method.dice_weight=1), or a lower threshold (method.confidence_min)."
)


# ------------------------------------------------------------------------------------------------ parts of the loop
def _accelerator(plan: Plan) -> Accelerator:
    """Return accelerate's front for device, precision and processes."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState

    AcceleratorState._reset_state(reset_partial_state=PartialState._shared_state == {})
    return Accelerator(mixed_precision="bf16" if plan.precision == "bf16" else "no", cpu=plan.device == "cpu")


def _on_device(batch: Part, device: torch.device) -> Part:
    """Move a batch and turn its uint8 images into normalised float."""
    moved: dict[str, Any] = {}
    for name, value in vars(batch).items():
        if isinstance(value, VLMTargets):
            moved[name] = VLMTargets(*(target.to(device, non_blocking=True) for target in vars(value).values()))
        elif isinstance(value, Tensor):
            on_device = value.to(device, non_blocking=True)
            moved[name] = normalised(on_device) if value.dtype == torch.uint8 and value.ndim == 4 else on_device
    return replace(batch, **moved)


def normalised(images_BCHW: Tensor) -> Tensor:
    """Return uint8 RGB images as float, normalised with ImageNet mean and standard deviation, channels last."""
    mean = images_BCHW.new_tensor(IMAGENET_MEAN, dtype=torch.float32).mul_(255).view(1, 3, 1, 1)
    std = images_BCHW.new_tensor(IMAGENET_STD, dtype=torch.float32).mul_(255).view(1, 3, 1, 1)
    return ((images_BCHW.float() - mean) / std).contiguous(memory_format=torch.channels_last)


def _diverged(run: Path, step: int, terms: Mapping[str, Tensor]) -> DivergedError:
    """Say which term broke at which step, and what is left."""
    broken = ", ".join(name for name, term in terms.items() if not torch.isfinite(term)) or "their sum"
    return DivergedError(
        f"{run}: the loss is not a number at step {step + 1} ({broken}). The last good state is kept; try a lower "
        "train.lr or train.head_lr_multiplier, or train.clip_norm=1, in a new run directory."
    )


class _State:
    """What an interrupted training goes on from: RUN/state/<step>/, written whole, the older ones removed after it."""

    def __init__(self, run: Path, model: nn.Module, optimizer: torch.optim.Optimizer, plan: Plan) -> None:
        """Remember the parts; with a moving average, make the teacher."""
        self.folder, self.run = run / "state", run
        self.model, self.optimizer = model, optimizer
        self.average: AveragedModel | None = None
        if plan.ema > 0:
            average_fn = get_ema_multi_avg_fn(plan.ema)  # type: ignore[no-untyped-call]
            self.average = AveragedModel(model, multi_avg_fn=average_fn, use_buffers=True)
            self.average.requires_grad_(False)
        self.best_step, self.best, self.last = 0, dict[str, float](), dict[str, float]()
        self.silent = 0  # validations in a row that found no change at all

    def take_up(self) -> int:
        """Load the newest state, if there is one, and return the step to go on from."""
        found = sorted(self.folder.glob("[0-9]*"))
        if not found:
            return 0
        newest = found[-1]
        content = read_json(newest / "state.json", remedy=f"Delete {newest} and start again")
        load_into(self.model, load_weights(newest / "model.safetensors"), source=newest)
        if self.average is not None:
            load_into(self.average, load_weights(newest / "teacher.safetensors"), source=newest)
        self._load_optimizer(load_weights(newest / "optimizer.safetensors"))
        self.best_step, self.best, self.last = content["best_step"], content["best"], content["last"]
        self.silent = content["silent"]
        return int(content["step"])

    def note(self, step: int, scores: dict[str, float], student: nn.Module) -> bool:
        """Keep the weights if they are the best so far, then the state; return whether they are."""
        better = not self.best or scores["iou"] > self.best["iou"]
        if better:
            self.best_step, self.best = step, scores
            save_weights(self.run / "model.safetensors", student.state_dict(), metadata={"step": str(step)})
        self.last = scores
        self.silent = self.silent + 1 if scores.get("predicted_changed_frac") == 0 else 0
        self._save(step)
        return better

    def just_went_silent(self) -> bool:
        """Tell, once per spell, that two validations in a row found no change at all."""
        return self.silent == 2

    def fitted(self) -> Fitted:
        """Return the result so far."""
        return Fitted(self.best_step, self.best, self.last)

    def _save(self, step: int) -> None:
        """Write the state, then remove the older ones."""
        with whole_folder(self.folder / f"{step:08d}") as folder:
            save_weights(folder / "model.safetensors", self.model.state_dict())
            if self.average is not None:
                save_weights(folder / "teacher.safetensors", self.average.state_dict())
            states = self.optimizer.state_dict()["state"]
            flat = {f"{index}.{name}": value for index, part in states.items() for name, value in part.items()}
            save_weights(
                folder / "optimizer.safetensors", {k: torch.as_tensor(v) for k, v in flat.items() if v is not None}
            )
            numbers = {"step": step, "best_step": self.best_step, "best": self.best, "last": self.last}
            numbers["silent"] = self.silent
            write_json(folder / "state.json", numbers)
        for old in sorted(self.folder.glob("[0-9]*"))[:-1]:
            shutil.rmtree(old, ignore_errors=True)

    def _load_optimizer(self, flat: Mapping[str, Tensor]) -> None:
        """Put the optimiser's tensors back, by parameter index."""
        content = self.optimizer.state_dict()
        states: dict[int, dict[str, Tensor]] = {}
        for key, value in flat.items():
            index, _, name = key.partition(".")
            states.setdefault(int(index), {})[name] = value
        content["state"] = states
        self.optimizer.load_state_dict(content)
