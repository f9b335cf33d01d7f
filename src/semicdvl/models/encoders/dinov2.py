"""DINOv2 as its published users run it: the position embedding is resized as DINOv2's own code does.

timm resizes a position embedding bicubically with antialiasing to the exact size. DINOv2's code resizes bicubically
without antialiasing by the factor (patches + 0.1) / 37, which samples slightly elsewhere. Weights that were fine-tuned
with the one give other features with the other, so networks that load such weights read DINOv2 through this backbone.

Source: Oquab et al., DINOv2 (2023), and its public code (`interpolate_pos_encoding`, interpolate_offset = 0.1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from semicdvl.models.common.blocks import tokens_to_map
from semicdvl.models.encoders.timm import Backbone, TransformerBackbone
from semicdvl.types import IMAGENET_MEAN, IMAGENET_STD

POSITION_OFFSET = 0.1
"""What DINOv2's code adds to the number of patches, against rounding down; it shifts where positions are sampled."""


def is_dinov2(name: str) -> bool:
    """Tell whether a timm network is DINOv2 in its first form (the one with registers resizes as timm does)."""
    return name.endswith("_dinov2") and "_reg" not in name


class DinoV2Backbone(Backbone):
    """A DINOv2 transformer of timm: four blocks' outputs with the last norm applied, the class token left out.

    The sides of an image must be multiples of the patch.
    """

    def __init__(self, plain: TransformerBackbone) -> None:
        """Take the network of a plain backbone; tensors keep their names."""
        super().__init__(plain.net, mean=IMAGENET_MEAN, std=IMAGENET_STD)
        self.patch_px, self.blocks = plain.patch_px, plain.blocks
        self.channels, self.strides = plain.channels, plain.strides

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """Return four maps (BDHW), shallow to deep, all at the patch's stride."""
        net: Any = self.net
        patches_BHWD = net.patch_embed(image_BCHW)
        size = tuple(patches_BHWD.shape[1:3])
        class_B1D = net.cls_token.expand(len(image_BCHW), -1, -1)
        tokens_BND = torch.cat([class_B1D, patches_BHWD.flatten(1, 2)], dim=1)
        tokens_BND = tokens_BND + resize_positions(net.pos_embed, size)
        maps = []
        for index, block in enumerate(net.blocks):
            tokens_BND = block(tokens_BND)
            if index in self.blocks:
                maps.append(tokens_to_map(net.norm(tokens_BND)[:, 1:], size))
        return maps


def resize_positions(positions_1ND: Tensor, size: Sequence[int]) -> Tensor:
    """Resize a position embedding (class token first, then a square of patches) to a grid of patches.

    Args:
        positions_1ND: the embedding as it was trained.
        size: rows and columns of the new grid.
    """
    class_11D, patches_1ND = positions_1ND[:, :1], positions_1ND[:, 1:]
    side = math.isqrt(patches_1ND.shape[1])
    if tuple(size) == (side, side):
        return positions_1ND
    patches_1DHW = tokens_to_map(patches_1ND.float(), (side, side))
    factors = [(count + POSITION_OFFSET) / side for count in size]
    resized_1DHW = F.interpolate(patches_1DHW, scale_factor=factors, mode="bicubic", antialias=False)
    assert tuple(resized_1DHW.shape[-2:]) == tuple(size), f"{resized_1DHW.shape} is not {size}"
    resized_1ND = resized_1DHW.flatten(2).transpose(1, 2).to(positions_1ND.dtype)
    return torch.cat([class_11D, resized_1ND], dim=1)
