"""An image as it is on disk -> what networks and encoders expect."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semicdvl.types import IMAGENET_MEAN, IMAGENET_STD, InputBands


def normalise_image(
    image_HWC: NDArray[Any], *, device: torch.device | str = "cpu", bands: InputBands | None = None
) -> Tensor:
    """Return an image as a batch of one, float32 BCHW, channels-last.

    Args:
        image_HWC: uint8 RGB, which becomes RGB / 255 normalised with the ImageNet mean and deviation.
        device: where the batch goes.
        bands: those of a network that reads others than RGB: the image holds their physical values and is standardised.
    """
    if bands is not None:
        return torch.from_numpy(bands.standardise(image_HWC)).to(device).permute(2, 0, 1)[None]
    image_CHW = torch.from_numpy(np.ascontiguousarray(image_HWC)).to(device).permute(2, 0, 1).float() / 255
    mean_C11, std_C11 = (torch.tensor(values, device=device)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    normalised_BCHW: Tensor = ((image_CHW - mean_C11) / std_C11)[None]
    return normalised_BCHW.contiguous(memory_format=torch.channels_last)
