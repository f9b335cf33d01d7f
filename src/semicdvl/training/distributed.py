"""Several processes that train one network: their ranks, and the exchange of numbers between them.

`accelerate launch -m semicdvl train ...` and `torchrun --nproc-per-node N -m semicdvl train ...` start the processes;
each works on its own part of every batch, gradients are averaged (DistributedDataParallel), and the first one writes.
"""

from __future__ import annotations

import atexit
import gc
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import distributed, nn

from semicdvl.errors import ConfigError

ItemT = TypeVar("ItemT")


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that train together, and the rank of this one among them.

    Attributes:
        rank: its number, from 0.
        count: how many there are.
        device: what it computes on.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and shows progress."""
        return self.rank == 0

    def wait_for_all(self) -> None:
        """Block until all processes have reached this point."""
        if self.count > 1:
            distributed.barrier()

    def take_share(self, items: Sequence[ItemT]) -> Sequence[ItemT]:
        """Return this process's items: together the processes have each item once."""
        return items[self.rank :: self.count]

    def sum_counts(self, counts: Sequence[int]) -> list[int]:
        """Return each count, added up over all processes."""
        if self.count == 1:
            return list(counts)
        summed = torch.tensor(counts, dtype=torch.int64, device=self.device)
        distributed.all_reduce(summed)
        return [int(count) for count in summed.tolist()]

    def average_numbers(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """Return each number's mean over the processes that have it."""
        if self.count == 1:
            return dict(numbers)
        gathered: list[dict[str, float]] = [{} for _ in range(self.count)]
        distributed.all_gather_object(gathered, dict(numbers))
        return average_by_name(gathered)

    def broadcast_buffers(self, model: nn.Module) -> None:
        """Give all processes the first one's buffers: running statistics of batch norm that isn't synchronised."""
        if self.count > 1:
            for buffer in model.buffers():
                distributed.broadcast(buffer, src=0)


def average_by_name(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return each number's mean over the parts that have it (one over no pixels is left out somewhere)."""
    names = dict.fromkeys(name for part in parts for name in part)
    found = {name: [part[name] for part in parts if name in part] for name in names}
    return {name: sum(values) / len(values) for name, values in found.items()}


def join_process_group(device: str) -> ProcessGroup:
    """Join the processes that were launched together, or be the only one.

    Args:
        device: `auto` (a GPU where there is one, each process its own), `cpu`, or a kind of device such as `cuda`.

    Raises:
        ConfigError: there is no such device.
    """
    from accelerate import PartialState
    from accelerate.state import AcceleratorState

    here = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if device not in ("auto", "cpu") and (here is None or here.type != device):
        raise ConfigError(
            f"train.device = '{device}': this machine has {here.type if here else 'no GPU'}. Give auto or cpu"
            f"{f', or {here.type}' if here else ''}; CUDA_VISIBLE_DEVICES chooses the GPUs."
        )
    # Successive trainings of one process may differ in precision and device; a launched group stays as it is.
    AcceleratorState._reset_state(reset_partial_state=not distributed.is_initialized())
    if not distributed.is_initialized() and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        atexit.register(_leave_process_group)
    state = PartialState(cpu=device == "cpu" or here is None)
    return ProcessGroup(state.process_index, state.num_processes, state.device)


def _leave_process_group() -> None:
    """Leave the process group in order.

    What refers to the group is collected first: threads of a group that still exists when Python shuts down are cut
    off, which sometimes ends the process by SIGABRT after all work was done.
    """
    if distributed.is_initialized():
        gc.collect()
        distributed.destroy_process_group()
        gc.collect()


def synchronise_batch_norm(model: nn.Module, processes: ProcessGroup) -> nn.Module:
    """Return the network with batch norm over all processes' pairs, as one process with the larger batch would have it.

    torch can do that on GPUs only; on CPUs each process has batch statistics of its own.
    """
    if processes.count == 1 or processes.device.type == "cpu":
        return model
    # torch's own function would drop the activation of timm's fused layers
    from timm.layers.norm_act import convert_sync_batchnorm

    converted: nn.Module = convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    return converted


def has_batch_norm(model: nn.Module) -> bool:
    """Tell whether a network has batch norm."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
