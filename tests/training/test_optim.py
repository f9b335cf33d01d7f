"""Optimiser groups and the schedules of published trainings."""

import pytest
import torch
from tests.support.plain_network import PlainNetwork

from semicdvl.config import TrainConfig
from semicdvl.training.optim import build_optimizer, compute_lr_factor, set_lr


def test_groups_and_schedule() -> None:
    model = PlainNetwork()
    settings = TrainConfig(lr=0.02, head_lr_multiplier=10, power=0.9)
    optimizer = build_optimizer(model, settings)
    assert [group["lr"] for group in optimizer.param_groups] == [0.02, 0.2]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))
    set_lr(optimizer, compute_lr_factor(settings, 5, 10))
    assert optimizer.param_groups[1]["lr"] == pytest.approx(0.2 * 0.5**0.9)
    assert compute_lr_factor(settings, 0, 10) == 1
    assert compute_lr_factor(TrainConfig(warmup_steps=3), 0, 10) == 0.25


def test_published_schedules() -> None:
    """STANet: 100 epochs at the full rate, 100 linearly to 0. SNUNet: halved after every 8 of 100 epochs."""
    stanet = TrainConfig(power=1.0, hold_frac=0.5)
    assert [compute_lr_factor(stanet, step, 200) for step in (0, 100, 150, 199)] == pytest.approx([1, 1, 0.5, 0.01])
    snunet = TrainConfig(power=0.0, halve_frac=0.08)
    assert [compute_lr_factor(snunet, step, 100) for step in (0, 7, 8, 15, 16, 99)] == [1, 1, 0.5, 0.5, 0.25, 0.5**12]


def test_adam_is_adam_and_momentum_its_first_beta() -> None:
    optimizer = build_optimizer(PlainNetwork(), TrainConfig(optimizer="adam", momentum=0.5))
    assert type(optimizer) is torch.optim.Adam and optimizer.param_groups[0]["betas"] == (0.5, 0.999)
    assert build_optimizer(PlainNetwork(), TrainConfig(optimizer="adamw")).param_groups[0]["betas"] == (0.9, 0.999)
