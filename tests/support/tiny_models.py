"""Every network at a size that steps in a fraction of a second, with random weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from semicdvl.models import MODELS
from semicdvl.registry import resolve_builder

RESNET = {"backbone": "test_resnet", "pretrained": False}
"""timm's smallest residual network with four stages."""

TINY: dict[str, dict[str, Any]] = {
    "siam_light": {**RESNET, "decoder_channels": 8},
    "deeplab": {**RESNET, "decoder_channels": 8},
    "psp": {**RESNET, "decoder_channels": 8},
    "cct": {**RESNET, "decoder_channels": 8},
    "fc_ef": {"width": 4},
    "fc_siam_diff": {"width": 4},
    "fc_siam_conc": {"width": 4},
    "stanet": {**RESNET, "decoder_channels": 8},
    "snunet": {"width": 8},
    "bit": {**RESNET, "decoder_depth": 2},
    "changeformer": {"widths": (8, 16, 24, 32), "decoder_channels": 8},
    "ban": {"foundation": "test_vit", "foundation_px": 64, "backbone": "test_resnet", "pretrained": False},
    "siam_unet": {**RESNET, "decoder_channels": 32},
    "dpt": {"backbone": "test_vit", "pretrained": False, "decoder_channels": 8},
}
"""Name -> settings of its builder."""


def tiny(name: str, *, seed: int = 0, **settings: Any) -> nn.Module:
    """Build a network of the table, small; the same seed gives the same weights."""
    torch.manual_seed(seed)
    network: nn.Module = resolve_builder("model", name, MODELS)(**{**TINY[name], **settings})
    return network
