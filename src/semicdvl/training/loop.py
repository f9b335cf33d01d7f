"""The training loop, from top to bottom.

Everything random in a step is seeded by (seed, step), the loader's part included, so a run that was killed resumes from
its last checkpoint exactly as if it had never stopped. With several processes each takes its part of every batch and
the gradients are averaged: the same as one process with the larger batch, as far as every process counts equally many
pixels (each loss is a mean over the pixels that count; padding and ignored pixels are distributed by chance).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from semicdvl.config import Recipe, TrainConfig
from semicdvl.errors import DivergedError
from semicdvl.models.common.heads import read_heads
from semicdvl.training.batches import TrainingBatch
from semicdvl.training.checkpoint import FitResult, TrainingCheckpoint, find_last_checkpoint
from semicdvl.training.distributed import has_batch_norm, join_process_group, synchronise_batch_norm
from semicdvl.training.image_sheets import build_sheet, write_sheet
from semicdvl.training.length import TrainingLength
from semicdvl.training.log import TrainingLog
from semicdvl.training.optim import build_discriminator_optimizer, build_optimizer, compute_lr_factor, set_lr
from semicdvl.training.step import TrainingStep, accumulate_gradients
from semicdvl.types import HEADS_WITHOUT_WEIGHTS, AdversarialMethod, Method

if TYPE_CHECKING:
    from accelerate import Accelerator

NO_CHANGE_WARNING = (
    "the network predicts 'unchanged' everywhere, in two validations in a row. If it continues to: more labelled pairs "
    "that show change, a lower learning rate, a Dice term (method.dice_weight=1), or a lower confidence threshold "
    "(method.confidence_min)."
)
BATCH_NORM_WARNING = (
    "several processes on CPUs: batch norm takes each process's own pairs (torch synchronises it on GPUs only), so "
    "this is not quite one process with the larger batch."
)


def run_training_loop(
    model: nn.Module,
    method: Method,
    recipe: Recipe,
    *,
    length: TrainingLength,
    batches: Callable[[int], Iterator[TrainingBatch]],
    validate: Callable[[nn.Module, torch.device], Mapping[str, float]],
    run: Path,
    quiet: bool = False,
) -> FitResult:
    """Train `model` and leave the weights of the best validation IoU (or the last ones) in RUN/model.safetensors.

    Args:
        model: the network, with the heads that the method needs.
        method: turns a batch into loss terms.
        recipe: its section `train` sets optimiser, schedule, precision and device; its seed that of everything random.
        length: steps in all and between validations.
        batches: gives this process's batches from a step on, `train.accumulate` for each step.
        validate: scores of a network in eval mode, the same in all processes; the key `iou` decides what is best
            (nothing does, and there need be no score, with `train.select` = "last").
        run: run directory; the checkpoint of an interrupted training in it is resumed.
        quiet: show nothing.

    Raises:
        DivergedError: the loss is not a number; the last good checkpoint and the best weights are kept.
    """
    config, seed = recipe.train, recipe.seed
    processes = join_process_group(config.device)
    accelerator = _build_accelerator(config, method, model)
    # Weights in the memory layout of the images: else every convolution copies its own, forward and backward.
    model = synchronise_batch_norm(model, processes).to(memory_format=torch.channels_last)
    discriminators = _build_discriminators(method, seed=seed)
    optimizers = _build_optimizers(model, discriminators, method, config)
    checkpoint = TrainingCheckpoint(
        run,
        model,
        optimizers,
        ema=config.ema,
        ema_ramp=config.ema_ramp,
        discriminators=discriminators,
        is_writer=processes.is_main,
    )
    teacher = model if checkpoint.ema_model is None else checkpoint.ema_model.to(accelerator.device)
    step_module, *optimizers = accelerator.prepare(TrainingStep(model, method, teacher, discriminators), *optimizers)
    start = checkpoint.resume(total_steps=length.steps)
    stream = batches(start)

    with TrainingLog(
        run, config, total_steps=length.steps, start_step=start, is_main=processes.is_main, quiet=quiet
    ) as log:
        if processes.count > 1 and processes.device.type == "cpu" and has_batch_norm(model):
            log.log_warning(start, BATCH_NORM_WARNING)
        for step in range(start, length.steps):
            torch.manual_seed(seed * 1_000_003 + step + processes.rank * 2**40)
            model.train()
            for optimizer in optimizers:
                set_lr(optimizer, compute_lr_factor(config, step, length.steps))
                optimizer.zero_grad(set_to_none=True)
            result = accumulate_gradients(
                step_module, stream, count=config.accumulate, progress=(step, length.steps), accelerator=accelerator
            )
            terms = processes.average_numbers(result.terms)
            if not math.isfinite(sum(terms.values())):
                raise _build_divergence_error(run, step, terms)
            if config.clip_norm is not None:
                accelerator.clip_grad_norm_(model.parameters(), config.clip_norm)
            for optimizer in optimizers:  # the network's, and the discriminators' of an adversarial method
                optimizer.step()
            if checkpoint.ema_model is not None:
                checkpoint.ema_model.update_parameters(model)
            diagnostics = processes.average_numbers(result.diagnostics)
            log.log_step(step + 1, terms=terms, diagnostics=diagnostics, pairs=result.pairs * processes.count)

            if config.sheet_every and (step + 1) % config.sheet_every == 0 and processes.is_main:
                sheet = build_sheet(model, teacher, method, labelled=result.labelled, unlabelled=result.unlabelled)
                write_sheet(run / "sheets" / f"step-{step + 1:06d}.png", sheet, title=f"{run.name}, step {step + 1}")
            if (step + 1) % length.eval_every == 0 or step + 1 == length.steps:
                if not _are_weights_finite(model, discriminators):
                    raise _build_divergence_error(run, step, {"a weight after it": math.nan})
                processes.broadcast_buffers(checkpoint.evaluated_network)
                scores = dict(validate(checkpoint.evaluated_network.eval(), accelerator.device))
                best = checkpoint.keep_if_best(step + 1, scores, newest=config.select == "last")
                log.log_validation(step + 1, scores=scores, best=best)
                if checkpoint.has_just_become_unchanged():
                    log.log_warning(step + 1, NO_CHANGE_WARNING)
                log.flush()  # the checkpoint comes last: what a run resumes from has its events, whenever it is killed
                checkpoint.save(step + 1)
    return checkpoint.to_result()


# ------------------------------------------------------------------------------------------------ parts of the loop
def _build_accelerator(config: TrainConfig, method: Method, model: nn.Module) -> Accelerator:
    """Return accelerate's front for device, precision and processes."""
    from accelerate import Accelerator, DistributedDataParallelKwargs

    has = read_heads(model)
    # Looking for weights without a gradient costs a walk over the graph at each step: only where some head is not read.
    exchange = DistributedDataParallelKwargs(find_unused_parameters=bool(has - method.heads - HEADS_WITHOUT_WEIGHTS))
    return Accelerator(
        mixed_precision="bf16" if config.precision == "bf16" else "no",
        cpu=config.device == "cpu",
        kwargs_handlers=[exchange],
    )


def _build_discriminators(method: Method, *, seed: int) -> nn.Module | None:
    """Build the discriminators of an adversarial method; None for others."""
    if not isinstance(method, AdversarialMethod):
        return None
    torch.manual_seed(seed)
    return method.build_discriminators()


def _build_optimizers(
    model: nn.Module, discriminators: nn.Module | None, method: Method, config: TrainConfig
) -> list[torch.optim.Optimizer]:
    """Return the network's optimiser, and that of the discriminators where there are any."""
    optimizers = [build_optimizer(model, config)]
    if discriminators is not None and isinstance(method, AdversarialMethod):
        optimizers.append(build_discriminator_optimizer(discriminators, lr=method.critic_lr))
    return optimizers


def _are_weights_finite(*networks: nn.Module | None) -> bool:
    """Tell whether all weights and running statistics are numbers: these can overflow where the loss did not."""
    tensors = [tensor for network in networks if network is not None for tensor in network.state_dict().values()]
    return bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all())


def _build_divergence_error(run: Path, step: int, terms: Mapping[str, float]) -> DivergedError:
    """Return the error that names the term that diverged, the step, and what is kept."""
    broken = ", ".join(name for name, term in terms.items() if not math.isfinite(term)) or "their sum"
    good = find_last_checkpoint(run)
    kept = f"The last good checkpoint, of step {int(good.name)}, is kept" if good else "No checkpoint was saved before"
    return DivergedError(
        f"{run}: the loss is not a number at step {step + 1} ({broken}). {kept}; try a lower "
        "train.lr or train.head_lr_multiplier, or train.clip_norm=1, in a new run directory."
    )
