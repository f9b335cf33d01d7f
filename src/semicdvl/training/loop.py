"""The training loop, from top to bottom.

Everything random in a step is seeded by (seed, step), the loader's part included, so a run that was killed goes on from
its last state as if nothing had happened. With several processes each takes its part of every batch and the gradients
are averaged: the same as one process with the larger batch, as far as every process counts equally many pixels (each
loss is a mean over the pixels that count; padding and ignored pixels are dealt out by chance).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from semicdvl.errors import DivergedError
from semicdvl.training.checkpoint import FitResult, TrainingCheckpoint, find_last_checkpoint
from semicdvl.training.distributed import (
    ProcessGroup,
    average_by_name,
    has_batch_norm,
    join_process_group,
    synchronise_batch_norm,
)
from semicdvl.training.image_sheets import build_sheet, write_sheet
from semicdvl.training.log import LogSettings, TrainingLog
from semicdvl.training.optim import OptimSettings, build_discriminator_optimizer, build_optimizer, set_lr
from semicdvl.types import (
    HEADS_WITHOUT_WEIGHTS,
    IMAGENET_MEAN,
    IMAGENET_STD,
    AdversarialMethod,
    LabelledBatch,
    Method,
    TrainingProgress,
    UnlabelledBatch,
    VLMTargets,
)

if TYPE_CHECKING:
    from accelerate import Accelerator

TrainingBatch = tuple[LabelledBatch, UnlabelledBatch | None]
BatchPartT = TypeVar("BatchPartT", LabelledBatch, UnlabelledBatch)


@dataclass(frozen=True)
class Plan:
    """How long, how precisely and where.

    Attributes:
        steps: optimiser steps in all.
        eval_every: steps between validations, after which the state is saved.
        seed: of everything random.
        precision: `fp32`, or `bf16` by autocast.
        device: see `processes.join`.
        ema: decay of the moving-average teacher; 0: none.
        clip_norm: most that the gradient's norm may be; None: anything.
        accumulate: batches whose gradients make up one step.
        selected_on: which pairs `validate` looks at, for the names in the log; `last`: the last weights are kept,
            whatever their scores.
        tensorboard: also write TensorBoard's files.
        sheet_every: steps between picture sheets; 0: none.
        optim: optimiser and schedule.
    """

    steps: int
    eval_every: int
    seed: int = 0
    precision: str = "fp32"
    device: str = "auto"
    ema: float = 0.0
    clip_norm: float | None = None
    accumulate: int = 1
    selected_on: Literal["val", "test", "last"] = "val"
    tensorboard: bool = False
    sheet_every: int = 0
    optim: OptimSettings = field(default_factory=OptimSettings)


def run_training_loop(
    model: nn.Module,
    method: Method,
    *,
    plan: Plan,
    batches: Callable[[int], Iterator[TrainingBatch]],
    validate: Callable[[nn.Module, torch.device], Mapping[str, float]],
    run: Path,
    quiet: bool = False,
) -> FitResult:
    """Train `model` and leave the weights of the best validation IoU (or the last ones) in RUN/model.safetensors.

    Args:
        model: the network, with the heads that the method needs.
        method: turns a batch into loss terms.
        plan: length, precision, device, optimiser.
        batches: gives this process's batches from a step on, `plan.accumulate` for each step.
        validate: scores of a network in eval mode, the same in all processes; the key `iou` decides what is best
            (nothing does, and there need be no score, where the plan keeps the last weights).
        run: run directory; a state of an interrupted training there is taken up.
        quiet: show nothing.

    Raises:
        DivergedError: the loss is not a number; the last good state and the best weights are kept.
    """
    processes = join_process_group(plan.device)
    accelerator = _build_accelerator(plan, method, model)
    # Weights lie in memory as the images do: else every convolution copies its own, forward and backward.
    model = synchronise_batch_norm(model, processes).to(memory_format=torch.channels_last)
    critics = _build_discriminators(method, seed=plan.seed)
    optimizers = _build_optimizers(model, critics, method, plan.optim)
    state = TrainingCheckpoint(run, model, optimizers, ema=plan.ema, critics=critics, writes=processes.is_main)
    teacher: nn.Module = state.ema_model.to(accelerator.device) if state.ema_model is not None else model
    stepper, *optimizers = accelerator.prepare(_TrainingStep(model, method, teacher, critics), *optimizers)
    start = state.resume()
    stream = batches(start)

    with TrainingLog(run / "log.jsonl", _log_settings(run, plan, processes, quiet=quiet), start=start) as log:
        if processes.count > 1 and processes.device.type == "cpu" and has_batch_norm(model):
            log.log_warning(start, BATCH_NORM_WARNING)
        for step in range(start, plan.steps):
            torch.manual_seed(plan.seed * 1_000_003 + step + processes.rank * 2**40)
            model.train()
            for optimizer in optimizers:
                set_lr(optimizer, plan.optim.compute_lr_factor(step, plan.steps))
                optimizer.zero_grad(set_to_none=True)
            done = _accumulate_gradients(stepper, stream, step=step, plan=plan, accelerator=accelerator)
            terms = processes.average_numbers(done.terms)
            if not math.isfinite(sum(terms.values())):
                raise _build_divergence_error(run, step, terms)
            if plan.clip_norm is not None:
                accelerator.clip_grad_norm_(model.parameters(), plan.clip_norm)
            for optimizer in optimizers:  # the network's, and that of the critics it is played against
                optimizer.step()
            if state.ema_model is not None:
                state.ema_model.update_parameters(model)
            log.log_step(
                step + 1, terms=terms, health=processes.average_numbers(done.health), pairs=done.pairs * processes.count
            )

            if plan.sheet_every and (step + 1) % plan.sheet_every == 0 and processes.is_main:
                sheet = build_sheet(model, teacher, method, labelled=done.labelled, unlabelled=done.unlabelled)
                write_sheet(run / "sheets" / f"step-{step + 1:06d}.png", sheet, title=f"{run.name}, step {step + 1}")
            if (step + 1) % plan.eval_every == 0 or step + 1 == plan.steps:
                if not _are_weights_finite(model, critics):
                    raise _build_divergence_error(run, step, {"a weight after it": math.nan})
                processes.broadcast_buffers(state.evaluated_network)
                scores = dict(validate(state.evaluated_network.eval(), accelerator.device))
                best = state.keep_if_best(step + 1, scores, newest=plan.selected_on == "last")
                log.log_validation(step + 1, scores=scores, best=best)
                if state.has_just_become_unchanged():
                    log.log_warning(step + 1, NO_CHANGE_WARNING)
                log.flush()  # last of all the state: what a run goes on from has its events, whenever it is killed
                state.save(step + 1)
    return state.to_result()


NO_CHANGE_WARNING = (
    "the network says 'unchanged' everywhere, twice in a row. If this stays so: more labelled pairs that show change, "
    "a lower learning rate, a Dice term (method.dice_weight=1), or a lower threshold (method.confidence_min)."
)
BATCH_NORM_WARNING = (
    "several processes on CPUs: batch norm takes each process's own pairs (torch synchronises it on GPUs only), so "
    "this is not quite one process with the larger batch."
)


# ------------------------------------------------------------------------------------------------ parts of the loop
@dataclass(frozen=True)
class _StepResult:
    """What the batches of one step gave: means of the terms and health numbers, number of pairs, and the last batch."""

    terms: dict[str, float]
    health: dict[str, float]
    pairs: int
    labelled: LabelledBatch
    unlabelled: UnlabelledBatch | None


def _accumulate_gradients(
    stepper: nn.Module, stream: Iterator[TrainingBatch], *, step: int, plan: Plan, accelerator: Accelerator
) -> _StepResult:
    """Add up the gradients of a step's batches; processes exchange them once, with the last batch."""
    terms, health, pairs = [], [], 0
    for number in range(1, plan.accumulate + 1):
        labelled, unlabelled = next(stream)
        labelled = _move_to_device(labelled, accelerator.device)
        unlabelled = None if unlabelled is None else _move_to_device(unlabelled, accelerator.device)
        progress = TrainingProgress(step, plan.steps)
        with contextlib.nullcontext() if number == plan.accumulate else accelerator.no_sync(stepper):
            with accelerator.autocast():
                losses = stepper(labelled, unlabelled, progress)
            accelerator.backward(torch.stack(list(losses.values())).sum() / plan.accumulate)
        terms.append(_to_numbers(losses))
        health.append(progress.diagnostics)
        pairs += len(labelled.t1_BCHW) + (len(unlabelled.weak_t1_BCHW) if unlabelled is not None else 0)
    return _StepResult(average_by_name(terms), average_by_name(health), pairs, labelled, unlabelled)


class _TrainingStep(nn.Module):
    """Network and method as one module.

    So one call is one step, however many passes over the network the method makes: what exchanges gradients between
    processes then sees the whole step, and sends running statistics around before it and not amid it.
    """

    def __init__(self, model: nn.Module, method: Method, teacher: nn.Module, critics: nn.Module | None = None) -> None:
        """Take the parts; the teacher is no part of the module, for it gets no gradients."""
        super().__init__()
        self.model, self.method, self.discriminators = model, method, critics
        self._teacher = (teacher,)

    def forward(
        self, labelled: LabelledBatch, unlabelled: UnlabelledBatch | None, progress: TrainingProgress
    ) -> dict[str, Tensor]:
        """Return the method's loss terms: of the network and, where it has critics, of these too."""
        extra = {} if self.discriminators is None else {"critics": self.discriminators}
        return self.method.step(self.model, self._teacher[0], labelled, unlabelled, progress, **extra)


def _build_discriminators(method: Method, *, seed: int) -> nn.Module | None:
    """Make the networks that an adversarial method plays the trained one against."""
    if not isinstance(method, AdversarialMethod):
        return None
    torch.manual_seed(seed)
    return method.build_discriminators()


def _build_optimizers(
    model: nn.Module, discriminators: nn.Module | None, method: Method, settings: OptimSettings
) -> list[torch.optim.Optimizer]:
    """Return the network's optimiser, and that of the critics where there are any."""
    optimizers = [build_optimizer(model, settings)]
    if discriminators is not None and isinstance(method, AdversarialMethod):
        optimizers.append(build_discriminator_optimizer(discriminators, lr=method.critic_lr))
    return optimizers


def _build_accelerator(plan: Plan, method: Method, model: nn.Module) -> Accelerator:
    """Return accelerate's front for device, precision and processes."""
    from accelerate import Accelerator, DistributedDataParallelKwargs

    has: frozenset[str] = getattr(model, "heads", method.heads)
    # Looking for weights without a gradient costs a walk over the graph at each step: only where some head is not read.
    exchange = DistributedDataParallelKwargs(find_unused_parameters=bool(has - method.heads - HEADS_WITHOUT_WEIGHTS))
    return Accelerator(
        mixed_precision="bf16" if plan.precision == "bf16" else "no",
        cpu=plan.device == "cpu",
        kwargs_handlers=[exchange],
    )


def _log_settings(run: Path, plan: Plan, processes: ProcessGroup, *, quiet: bool) -> LogSettings:
    """Return what the log needs to know."""
    return LogSettings(
        title=run.name,
        total=plan.steps,
        selected_on=plan.selected_on,
        tensorboard=plan.tensorboard,
        main=processes.is_main,
        quiet=quiet,
    )


def _move_to_device(batch: BatchPartT, device: torch.device) -> BatchPartT:
    """Move a part of a batch and turn its uint8 images into normalised float."""
    moved: dict[str, Any] = {}
    for name, value in vars(batch).items():
        if isinstance(value, VLMTargets):
            moved[name] = VLMTargets(*(target.to(device, non_blocking=True) for target in vars(value).values()))
        elif isinstance(value, Tensor):
            on_device = value.to(device, non_blocking=True)
            moved[name] = normalise_images(on_device) if value.dtype == torch.uint8 and value.ndim == 4 else on_device
    return replace(batch, **moved)


def normalise_images(images_BCHW: Tensor) -> Tensor:
    """Return uint8 RGB images as float, normalised with ImageNet mean and standard deviation, channels last."""
    mean = images_BCHW.new_tensor(IMAGENET_MEAN, dtype=torch.float32).mul_(255).view(1, 3, 1, 1)
    std = images_BCHW.new_tensor(IMAGENET_STD, dtype=torch.float32).mul_(255).view(1, 3, 1, 1)
    return ((images_BCHW.float() - mean) / std).contiguous(memory_format=torch.channels_last)


def _to_numbers(terms: Mapping[str, Tensor]) -> dict[str, float]:
    """Return loss terms as numbers, by one transfer from the device."""
    values = torch.stack([term.detach().float() for term in terms.values()]).tolist()
    return dict(zip(terms, values, strict=True))


def _are_weights_finite(*networks: nn.Module | None) -> bool:
    """Tell whether all weights and running statistics are numbers: these can overflow where the loss did not."""
    tensors = [tensor for network in networks if network is not None for tensor in network.state_dict().values()]
    return bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all())


def _build_divergence_error(run: Path, step: int, terms: Mapping[str, float]) -> DivergedError:
    """Say which term broke at which step, and what is left."""
    broken = ", ".join(name for name, term in terms.items() if not math.isfinite(term)) or "their sum"
    good = find_last_checkpoint(run)
    kept = f"The last good state, of step {int(good.name)}, is kept" if good else "No state was saved before it"
    return DivergedError(
        f"{run}: the loss is not a number at step {step + 1} ({broken}). {kept}; try a lower "
        "train.lr or train.head_lr_multiplier, or train.clip_norm=1, in a new run directory."
    )
