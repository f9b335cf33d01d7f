"""The seven perturbations of difference features in SemiCD, each with auxiliary decoders of its own.

Source: Ouali et al., Cross-Consistency Training (2020), in the setting of Bandara & Patel, SemiCD (2022). Constants are
the published ones unless a docstring says otherwise. Random numbers come from torch's global generators, which the
training loop seeds at every step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

VAT_RADIUS = 2.0
VAT_PROBE = 0.1
"""Length of the probing step (over a whole pair's features) by which the worst direction is found. The published 1e-6
is below what float32 can add to features of size 1: the two predictions are then equal and the direction is rounding
noise. A step of 0.1 finds the direction that 1e-6 finds in float64."""
SPATIAL_DROPOUT = 0.5
CUTOUT_FRAC = 0.4
"""Part of each side of a changed region's box that is erased."""
MIN_CONTOUR_POINTS = 50
"""Regions with no more points than that on their outline are not cut."""
FEATURE_DROPOUT_RANGE = (0.7, 0.9)
NOISE_RANGE = 0.3


@dataclass(frozen=True)
class PerturbationContext:
    """Hold what a perturbation may use besides the features.

    Attributes:
        change_BHW: bool, the main decoder's predicted change at the input's size.
        decode: the auxiliary decoder itself: difference features to logits at their size.
    """

    change_BHW: Tensor
    decode: nn.Module


Perturbation = Callable[[Tensor, PerturbationContext], Tensor]


def virtual_adversarial(features_BDHW: Tensor, context: PerturbationContext) -> Tensor:
    """Move the features where the decoder's prediction changes most (virtual adversarial training, one power step)."""
    constant_BDHW = features_BDHW.detach().float()
    with torch.enable_grad(), torch.autocast(constant_BDHW.device.type, enabled=False):
        probabilities_BKHW = context.decode(constant_BDHW).detach().softmax(dim=1)
        direction_BDHW = _scale_to_unit_length(torch.rand_like(constant_BDHW) - 0.5).requires_grad_()
        moved_BKHW = context.decode(constant_BDHW + VAT_PROBE * direction_BDHW).log_softmax(dim=1)
        divergence = F.kl_div(moved_BKHW, probabilities_BKHW, reduction="batchmean")
        (gradient_BDHW,) = torch.autograd.grad(
            divergence, direction_BDHW
        )  # of the direction alone: no weight gets a gradient
    return features_BDHW + (VAT_RADIUS * _scale_to_unit_length(gradient_BDHW)).to(features_BDHW.dtype)


def _scale_to_unit_length(direction_BDHW: Tensor) -> Tensor:
    """Scale each pair's tensor to length 1; zeros stay zeros."""
    lengths: Tensor = direction_BDHW.flatten(1).norm(dim=1)[:, None, None, None]
    return direction_BDHW / lengths.clamp(min=torch.finfo(direction_BDHW.dtype).tiny)


def spatial_dropout(features_BDHW: Tensor, context: PerturbationContext) -> Tensor:
    """Drop half of the channels."""
    return F.dropout2d(features_BDHW, p=SPATIAL_DROPOUT)


def guided_cutout(features_BDHW: Tensor, context: PerturbationContext) -> Tensor:
    """Erase, at a random place in the box of every large enough region of predicted change, 0.4 x 0.4 of the box."""
    kept_BHW = torch.ones_like(context.change_BHW, dtype=torch.float32, device="cpu")
    for pair, change_HW in enumerate(context.change_BHW.to("cpu", torch.uint8).numpy()):
        for row, col, height_px, width_px in _find_change_boxes(change_HW):
            cut_h, cut_w = int(height_px * CUTOUT_FRAC), int(width_px * CUTOUT_FRAC)
            top = row + int(torch.randint(height_px - cut_h + 1, ()))
            left = col + int(torch.randint(width_px - cut_w + 1, ()))
            kept_BHW[pair, top : top + cut_h, left : left + cut_w] = 0
    return features_BDHW * _resize_mask(kept_BHW.to(features_BDHW), features_BDHW)


def _find_change_boxes(change_HW: np.ndarray[tuple[int, int], np.dtype[np.uint8]]) -> list[tuple[int, int, int, int]]:
    """Return (row, col, height, width) of the regions whose outline has enough points, every outline pixel counted."""
    outlines, _ = cv2.findContours(change_HW, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    boxes = [cv2.boundingRect(outline) for outline in outlines if len(outline) > MIN_CONTOUR_POINTS]
    return [(top, left, height, width) for left, top, width, height in boxes]


def keep_predicted_change(features_BDHW: Tensor, context: PerturbationContext) -> Tensor:
    """Keep the features where change is predicted ("context masking" of the public code)."""
    return features_BDHW * _resize_mask(context.change_BHW.to(features_BDHW), features_BDHW)


def drop_predicted_change(features_BDHW: Tensor, context: PerturbationContext) -> Tensor:
    """Drop the features where change is predicted ("object masking" of the public code)."""
    return features_BDHW * _resize_mask((~context.change_BHW).to(features_BDHW), features_BDHW)


def _resize_mask(mask_BHW: Tensor, features_BDHW: Tensor) -> Tensor:
    """Bring a mask to the features' size by nearest neighbour, with an axis for the channels."""
    return F.interpolate(mask_BHW[:, None], size=features_BDHW.shape[-2:], mode="nearest")


def drop_strongest(features_BDHW: Tensor, context: PerturbationContext) -> Tensor:
    """Zero the pixels whose mean over the channels is at least a random 0.7 to 0.9 of the pair's largest."""
    mean_B1HW = features_BDHW.mean(dim=1, keepdim=True)
    low, high = FEATURE_DROPOUT_RANGE
    share = low + (high - low) * torch.rand((), device=features_BDHW.device)
    limit_B111 = share * mean_B1HW.amax(dim=(2, 3), keepdim=True)
    return features_BDHW * (mean_B1HW < limit_B111)


def multiplicative_noise(features_BDHW: Tensor, context: PerturbationContext) -> Tensor:
    """Scale every feature by a random 0.7 to 1.3, the same for all pairs of the batch."""
    noise_DHW = (2 * torch.rand_like(features_BDHW[0]) - 1) * NOISE_RANGE
    return features_BDHW * (1 + noise_DHW)


AUXILIARY_DECODERS: tuple[tuple[Perturbation, int], ...] = (
    (virtual_adversarial, 2),
    (spatial_dropout, 5),
    (guided_cutout, 5),
    (keep_predicted_change, 2),
    (drop_predicted_change, 2),
    (drop_strongest, 5),
    (multiplicative_noise, 5),
)
"""Perturbation and how many auxiliary decoders see it: 26 in all."""
