"""One optimiser step: the method's loss terms of each batch, and their gradients."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from semicdvl.training.batches import TrainingBatch, move_to_device
from semicdvl.training.distributed import average_by_name
from semicdvl.types import AdversarialMethod, LabelledBatch, Method, TrainingProgress, UnlabelledBatch

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class StepResult:
    """What the batches of one step gave: means of the terms and diagnostics, number of pairs, and the last batch."""

    terms: dict[str, float]
    diagnostics: dict[str, float]
    pairs: int
    labelled: LabelledBatch
    unlabelled: UnlabelledBatch | None


class TrainingStep(nn.Module):
    """Network and method as one module.

    So one call is one step, however many passes over the network the method makes: what exchanges gradients between
    processes then sees the whole step, and broadcasts running statistics before the step, not in the middle of it.
    """

    def __init__(
        self, model: nn.Module, method: Method, teacher: nn.Module, discriminators: nn.Module | None = None
    ) -> None:
        """Take the parts; the teacher is no part of the module, since it gets no gradients."""
        super().__init__()
        self.model, self.method, self.discriminators = model, method, discriminators
        self._teacher = (teacher,)

    def forward(
        self, labelled: LabelledBatch, unlabelled: UnlabelledBatch | None, progress: TrainingProgress
    ) -> dict[str, Tensor]:
        """Return the method's loss terms: of the network and, in an adversarial method, of the discriminators."""
        inputs = (self.model, self._teacher[0], labelled, unlabelled, progress)
        if isinstance(self.method, AdversarialMethod):
            return self.method.step(*inputs, discriminators=self.discriminators)
        return self.method.step(*inputs)


def accumulate_gradients(
    training_step: nn.Module,
    batches: Iterator[TrainingBatch],
    *,
    count: int,
    progress: tuple[int, int],
    accelerator: Accelerator,
) -> StepResult:
    """Add up the gradients of a step's batches; processes exchange them once, with the last batch.

    Args:
        training_step: a `TrainingStep`, as accelerate has wrapped it.
        batches: of this process.
        count: how many of them make up the step.
        progress: index of the step, and steps in all.
        accelerator: knows device, precision and processes.
    """
    terms, diagnostics, pairs = [], [], 0
    for number in range(1, count + 1):
        labelled, unlabelled = next(batches)
        labelled = move_to_device(labelled, accelerator.device)
        unlabelled = None if unlabelled is None else move_to_device(unlabelled, accelerator.device)
        now = TrainingProgress(*progress)
        with contextlib.nullcontext() if number == count else accelerator.no_sync(training_step):
            with accelerator.autocast():
                losses = training_step(labelled, unlabelled, now)
            accelerator.backward(torch.stack(list(losses.values())).sum() / count)
        terms.append(_to_numbers(losses))
        diagnostics.append(now.diagnostics)
        pairs += len(labelled.t1_BCHW) + (len(unlabelled.weak_t1_BCHW) if unlabelled is not None else 0)
    return StepResult(average_by_name(terms), average_by_name(diagnostics), pairs, labelled, unlabelled)


def _to_numbers(terms: Mapping[str, Tensor]) -> dict[str, float]:
    """Return loss terms as numbers, by one transfer from the device."""
    values = torch.stack([term.detach().float() for term in terms.values()]).tolist()
    return dict(zip(terms, values, strict=True))
