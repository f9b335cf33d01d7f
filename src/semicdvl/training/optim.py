"""Optimiser with two groups, encoder and everything else, and the learning-rate schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn


@dataclass(frozen=True)
class OptimSettings:
    """How weights are updated. Public recipe: SGD .02, heads tenfold, momentum .9, decay 1e-4, power .9, no warm-up."""

    optimizer: Literal["sgd", "adamw", "adam"] = "sgd"
    lr: float = 0.02
    head_lr_multiplier: float = 10.0
    momentum: float = 0.9
    weight_decay: float = 1e-4
    power: float = 0.9
    warmup_steps: int = 0
    hold_frac: float = 0.0
    halve_frac: float = 0.0

    def compute_lr_factor(self, step: int, total: int) -> float:
        """Return what the base learning rates are multiplied with at `step`: linear warm-up, then polynomial decay.

        The public code applies the decayed rate one step late; here step t uses (1 - t / total) ** power. With
        `hold_frac` the decay begins later (STANet: power 1 from the half on); with `halve_frac` the rate is also halved
        again and again (SNUNet: power 0, halved after every 8 of 100 epochs).
        """
        warmup = min(1.0, (step + 1) / (self.warmup_steps + 1))
        if self.hold_frac:
            held = self.hold_frac * total
            decay: float = (1 - max(0.0, step - held) / (total - held)) ** self.power
        else:
            decay = (1 - step / total) ** self.power
        if self.halve_frac:
            decay *= 0.5 ** int(step / (self.halve_frac * total) + 1e-9)
        return warmup * decay


def build_optimizer(model: nn.Module, settings: OptimSettings) -> torch.optim.Optimizer:
    """Return the optimiser; each group remembers its base learning rate as `base_lr`.

    A network names its pretrained part `encoder`; one without has a single group, at the rate of the heads.
    """
    encoder = getattr(model, "encoder", None)
    first = list(encoder.parameters()) if isinstance(encoder, nn.Module) else []
    known = {id(parameter) for parameter in first}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in known]
    rates = ((first, settings.lr), (rest, settings.lr * settings.head_lr_multiplier))
    groups = [
        {"params": [parameter for parameter in parameters if parameter.requires_grad], "lr": lr, "base_lr": lr}
        for parameters, lr in rates
        if parameters
    ]
    # Fused: one pass over weights, gradients and momentum in place of one per operation; the same update.
    if settings.optimizer == "adamw":
        betas = (settings.momentum, 0.999)
        return torch.optim.AdamW(groups, betas=betas, weight_decay=settings.weight_decay, fused=True)
    if settings.optimizer == "adam":
        betas = (settings.momentum, 0.999)
        return torch.optim.Adam(groups, betas=betas, weight_decay=settings.weight_decay, fused=True)
    return torch.optim.SGD(groups, momentum=settings.momentum, weight_decay=settings.weight_decay, fused=True)


def build_discriminator_optimizer(critics: nn.Module, *, lr: float) -> torch.optim.Optimizer:
    """Return the optimiser of an adversarial method's critics: Adam with the betas of ADVENT and s4GAN."""
    group = {"params": list(critics.parameters()), "lr": lr, "base_lr": lr}
    return torch.optim.Adam([group], betas=(0.9, 0.99), fused=True)


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's learning rate to its base rate times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
