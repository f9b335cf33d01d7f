"""Soft targets: the mean squared error of probabilities, and the ramp-up of its weight.

Mean teacher and SemiCD, whose targets are probabilities and not classes, share them.

Source: Laine and Aila, Temporal Ensembling (2017), for both.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from semicdvl.losses import masked_mean


def sigmoid_ramp_up(frac: float, *, until_frac: float) -> float:
    """Return exp(-5 (1 - t)^2), t going from 0 to 1 while training goes from 0 to `until_frac`; 1 from there on."""
    if frac >= until_frac:
        return 1.0
    return math.exp(-5.0 * (1.0 - frac / until_frac) ** 2)


def probability_mse(logits_BKHW: Tensor, target_BKHW: Tensor, valid_BHW: Tensor) -> Tensor:
    """Return the mean squared error of probabilities, over classes and valid pixels.

    Args:
        logits_BKHW: predictions of the student; resized to the target where their sizes differ.
        target_BKHW: probabilities; no gradient flows to them.
        valid_BHW: bool, False on padding.
    """
    size_px = tuple(target_BKHW.shape[-2:])
    logits_BKHW = logits_BKHW.float()
    if logits_BKHW.shape[-2:] != size_px:
        logits_BKHW = F.interpolate(logits_BKHW, size=size_px, mode="bilinear", align_corners=False)
    difference_BHW = (logits_BKHW.softmax(dim=1) - target_BKHW.detach()).square().mean(dim=1)
    return masked_mean(difference_BHW, valid_BHW)
