"""A batch of the loader -> the same batch on the device, its images normalised."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from semicdvl.types import IMAGENET_MEAN, IMAGENET_STD, ClassTargets, LabelledBatch, UnlabelledBatch, VLMTargets

TrainingBatch = tuple[LabelledBatch, UnlabelledBatch | None]
BatchPartT = TypeVar("BatchPartT", LabelledBatch, UnlabelledBatch)


def move_to_device(batch: BatchPartT, device: torch.device) -> BatchPartT:
    """Move one part of a batch and turn its uint8 images into normalised float."""
    moved: dict[str, Any] = {}
    for name, value in vars(batch).items():
        if isinstance(value, VLMTargets | ClassTargets):
            moved[name] = type(value)(*(target.to(device, non_blocking=True) for target in vars(value).values()))
        elif isinstance(value, Tensor):
            on_device = value.to(device, non_blocking=True)
            moved[name] = normalise_images(on_device) if value.dtype == torch.uint8 and value.ndim == 4 else on_device
    return replace(batch, **moved)


def normalise_images(images_BCHW: Tensor) -> Tensor:
    """Return uint8 RGB images as float, normalised with ImageNet mean and standard deviation, channels last.

    Images of floating point are bands that were standardised when they were read: they stay as they are.
    """
    if images_BCHW.is_floating_point():
        return images_BCHW
    mean = images_BCHW.new_tensor(IMAGENET_MEAN, dtype=torch.float32).mul_(255).view(1, 3, 1, 1)
    std = images_BCHW.new_tensor(IMAGENET_STD, dtype=torch.float32).mul_(255).view(1, 3, 1, 1)
    return ((images_BCHW.float() - mean) / std).contiguous(memory_format=torch.channels_last)
