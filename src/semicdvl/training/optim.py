"""Optimiser with two groups, encoder and everything else, and the learning-rate schedule."""

from __future__ import annotations

import torch
from torch import nn

from semicdvl.config import TrainConfig
from semicdvl.models.common.contract import get_encoder


def compute_lr_factor(config: TrainConfig, step: int, total: int) -> float:
    """Return what the base learning rates are multiplied with at `step`: linear warm-up, then polynomial decay.

    The public code applies the decayed rate one step late; here step t uses (1 - t / total) ** power. With `hold_frac`
    the decay begins later (STANet: power 1 from the half on); with `halve_frac` the rate is also halved again and again
    (SNUNet: power 0, halved after every 8 of 100 epochs).
    """
    warmup = min(1.0, (step + 1) / (config.warmup_steps + 1))
    if config.hold_frac:
        held = config.hold_frac * total
        decay: float = (1 - max(0.0, step - held) / (total - held)) ** config.power
    else:
        decay = (1 - step / total) ** config.power
    if config.halve_frac:
        decay *= 0.5 ** int(step / (config.halve_frac * total) + 1e-9)
    return warmup * decay


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Return the optimiser; each group remembers its base learning rate as `base_lr`.

    A network names its pretrained part `encoder`; one without has a single group, at the rate of the heads.
    """
    encoder = get_encoder(model)
    first = [] if encoder is None else list(encoder.parameters())
    known = {id(parameter) for parameter in first}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in known]
    rates = ((first, config.lr), (rest, config.lr * config.head_lr_multiplier))
    groups = [
        {"params": [parameter for parameter in parameters if parameter.requires_grad], "lr": lr, "base_lr": lr}
        for parameters, lr in rates
        if parameters
    ]
    # Fused: one pass over weights, gradients and momentum in place of one per operation; the same update.
    if config.optimizer == "adamw":
        betas = (config.momentum, 0.999)
        return torch.optim.AdamW(groups, betas=betas, weight_decay=config.weight_decay, fused=True)
    if config.optimizer == "adam":
        betas = (config.momentum, 0.999)
        return torch.optim.Adam(groups, betas=betas, weight_decay=config.weight_decay, fused=True)
    return torch.optim.SGD(groups, momentum=config.momentum, weight_decay=config.weight_decay, fused=True)


def build_discriminator_optimizer(discriminators: nn.Module, *, lr: float) -> torch.optim.Optimizer:
    """Return the optimiser of an adversarial method's discriminators: Adam with the betas of ADVENT and s4GAN."""
    group = {"params": list(discriminators.parameters()), "lr": lr, "base_lr": lr}
    return torch.optim.Adam([group], betas=(0.9, 0.99), fused=True)


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's learning rate to its base rate times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
