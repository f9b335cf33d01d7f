"""STANet: features of both dates, related by attention over space and time; change is where they are distant.

    t1 ─ encoder, four maps ─ each 1x1 96, to 1/4, concatenate ─ 3x3 256 ─ 1x1 64 ─┐ attention over both dates ─ f1, f2
    t2 ─ the same                                                                 ─┘ distance |f1 - f2|, change if > 1

Attention is PAM (over the whole pair, its 2 x 2, 4 x 4 and 8 x 8 parts; 16,929,152 parameters with resnet18) or BAM
(over the whole, added to its input; 16,897,040: a `gamma` that the public code makes and never uses is left out).
Source: Chen & Shi, A Spatial-Temporal Attention-Based Method (2020), and its public code.

The encoder's last stage has a third residual block there, and the second and third look 2 and 4 pixels far; here those
two facts are added behind and inside a plain timm ResNet, so that its ImageNet weights fit.

Differs from the public code: the distance is taken over channels (there by `F.pairwise_distance`, which since torch 1.9
sums over image columns); both dates pass the encoder as there one by one; change comes as logits too (-s, s) with
s = 2 (distance - 1), so that every loss and method can read it: the decision is the published one, the steepness ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from timm.models.resnet import BasicBlock
from torch import Tensor, nn

from semicdvl.errors import ConfigError
from semicdvl.models.common.blocks import (
    ConvBNReLU,
    check_positive,
    pad_to_multiple,
    resize_map,
    resolve_weights,
)
from semicdvl.models.common.heads import declare_heads, resolve_heads
from semicdvl.models.encoders.timm import Backbone, build_backbone
from semicdvl.registry import suggest_nearest
from semicdvl.types import Outputs

AttentionKind = Literal["pam", "bam"]
STAGE_CHANNELS, FUSED_CHANNELS = 96, 256
PYRAMID_SCALES = (1, 2, 4, 8)
"""Regions per side within which PAM attends."""
KEY_REDUCTION = 8
"""Feature channels per channel of keys and queries."""
CHANGE_DISTANCE = 1.0
"""Distance from which a pixel is changed: half of the margin of 2 that the contrastive loss trains for."""
LOGITS_PER_DISTANCE = 2.0
"""Logits per unit of distance: an unchanged pixel (0) gets probability 0.02 of change, a changed one (2) gets 0.98."""


class RegionAttention(nn.Module):
    """Attention of every pixel of both dates to all pixels of both dates in the same region of the image."""

    def __init__(self, channels: int, *, parts: int, norm: bool) -> None:
        """Make the layers; `norm` puts batch norm behind keys and queries."""
        super().__init__()
        keys = max(1, channels // KEY_REDUCTION)
        self.parts, self.scale = parts, keys**-0.5
        self.key = nn.Sequential(nn.Conv2d(channels, keys, 1), *([nn.BatchNorm2d(keys)] if norm else []))
        self.query = nn.Sequential(nn.Conv2d(channels, keys, 1), *([nn.BatchNorm2d(keys)] if norm else []))
        self.value = nn.Conv2d(channels, channels, 1)

    def forward(self, pair_BDHW: Tensor) -> Tensor:
        """Return a map like the input: the two dates concatenated along W, sides divisible by the number of regions."""
        query, key, value = (self._split_regions(layer(pair_BDHW)) for layer in (self.query, self.key, self.value))
        # Keys as wide as values, filled with zeros, give the same products and let torch take its fused kernels.
        missing = value.shape[-1] - key.shape[-1]
        attended = F.scaled_dot_product_attention(
            F.pad(query, (0, missing)), F.pad(key, (0, missing)), value, scale=self.scale
        )
        return self._merge_regions(attended, like_BDHW=pair_BDHW)

    def _split_regions(self, map_BDHW: Tensor) -> Tensor:
        """Return (B * parts², pixels of both dates in the part, D), with an axis of one head."""
        batch, depth, height, width = map_BDHW.shape
        sizes = (batch, depth, self.parts, height // self.parts, 2, self.parts, width // 2 // self.parts)
        parts = map_BDHW.reshape(sizes).permute(0, 2, 5, 4, 3, 6, 1)  # B, part, part, date, row, column, D
        return parts.reshape(batch * self.parts**2, 1, -1, depth)

    def _merge_regions(self, attended: Tensor, *, like_BDHW: Tensor) -> Tensor:
        """Reassemble the regions to a map."""
        batch, depth, height, width = like_BDHW.shape
        rows, columns = height // self.parts, width // 2 // self.parts
        parts = attended.reshape(batch, self.parts, self.parts, 2, rows, columns, depth)
        return parts.permute(0, 6, 1, 4, 3, 2, 5).reshape(batch, depth, height, width)


class PAM(nn.Module):
    """Pyramid attention: within regions of four sizes, fused by a 1x1 layer, without a residual."""

    def __init__(self, channels: int) -> None:
        """Make the layers."""
        super().__init__()
        self.scales = nn.ModuleList(RegionAttention(channels, parts=parts, norm=True) for parts in PYRAMID_SCALES)
        self.fuse = nn.Conv2d(channels * len(PYRAMID_SCALES), channels, 1, bias=False)

    def forward(self, pair_BDHW: Tensor) -> Tensor:
        """Return a map like the input."""
        result: Tensor = self.fuse(torch.cat([scale(pair_BDHW) for scale in self.scales], dim=1))
        return result


class BAM(nn.Module):
    """Basic attention over the whole pair, with a residual."""

    def __init__(self, channels: int) -> None:
        """Make the layers."""
        super().__init__()
        self.attention = RegionAttention(channels, parts=1, norm=False)

    def forward(self, pair_BDHW: Tensor) -> Tensor:
        """Return a map like the input."""
        result: Tensor = pair_BDHW + self.attention(pair_BDHW)
        return result


class STANet(nn.Module):
    """The network of this module's docstring; its builder makes it.

    Attributes:
        encoder: the backbone, shared by both dates; the third block of its last stage is `last_block`.
        heads: `change` and `distance`.
    """

    symmetric = True
    heads = frozenset({"change", "distance"})

    def __init__(self, encoder: Backbone, *, attention: AttentionKind, channels: int) -> None:
        """Put the decoder on a backbone."""
        super().__init__()
        self.encoder = encoder
        self.last_block = BasicBlock(encoder.channels[-1], encoder.channels[-1], first_dilation=4)
        self.stages = nn.ModuleList(ConvBNReLU(count, STAGE_CHANNELS) for count in encoder.channels)
        self.fuse = nn.Sequential(
            ConvBNReLU(STAGE_CHANNELS * len(self.stages), FUSED_CHANNELS, kernel_px=3),
            nn.Dropout(0.5),
            ConvBNReLU(FUSED_CHANNELS, channels),
        )
        self.attention = PAM(channels) if attention == "pam" else BAM(channels)
        self.initialise_attention()

    def initialise_attention(self) -> None:
        """Draw the attention's weights from N(0, 0.02) and its batch norms' from N(1, 0.02), as published."""
        for module in self.attention.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.02)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, mean=1, std=0.02)

    def forward(self, t1_BCHW: Tensor, t2_BCHW: Tensor, *, heads: frozenset[str] | None = None) -> Outputs:
        """Return the requested outputs, at the size of the input.

        Args:
            t1_BCHW: date 1, RGB / 255 normalised with the ImageNet mean and deviation, of any size (sides are filled up
                to multiples of 32 by repeating the last row and column).
            t2_BCHW: date 2.
            heads: names of `types.HEADS`; `change` is always returned. None: all that the network has.

        Raises:
            ConfigError: a head that this network does not have.
        """
        heads = resolve_heads(heads, has=self.heads)
        height_px, width_px = t1_BCHW.shape[-2:]
        dates = [pad_to_multiple(image_BCHW, multiple_px=4 * PYRAMID_SCALES[-1]) for image_BCHW in (t1_BCHW, t2_BCHW)]
        pair_BDHW = self.attention(torch.cat([self.extract_features(image_BCHW) for image_BCHW in dates], dim=-1))
        features_t1_BDHW, features_t2_BDHW = pair_BDHW.float().chunk(2, dim=-1)
        small_BHW = (features_t1_BDHW - features_t2_BDHW).norm(dim=1)
        whole_BHW = resize_map(small_BHW[:, None], size_px=dates[0].shape[-2:], align_corners=True)[:, 0]
        distance_BHW = whole_BHW[:, :height_px, :width_px]
        excess_BHW = LOGITS_PER_DISTANCE * (distance_BHW - CHANGE_DISTANCE)
        return Outputs(
            change_BKHW=torch.stack([-excess_BHW, excess_BHW], dim=1),
            distance_BHW=distance_BHW if "distance" in heads else None,
        )

    def extract_features(self, image_BCHW: Tensor) -> Tensor:
        """Return one date's features (BDHW) at a quarter of the input's size, before attention."""
        *maps, deep_BDHW = self.encoder(image_BCHW)
        maps = [stage(one) for stage, one in zip(self.stages, [*maps, self.last_block(deep_BDHW)], strict=True)]
        size_px = [side // 4 for side in image_BCHW.shape[-2:]]
        fused_BDHW: Tensor = self.fuse(
            torch.cat([resize_map(one, size_px=size_px, align_corners=True) for one in maps], dim=1)
        )
        return fused_BDHW


@declare_heads("distance")
def build_stanet(
    *,
    backbone: str = "resnet18",
    pretrained: bool | str | Path = True,
    attention: AttentionKind = "pam",
    output_stride: int = 32,
    decoder_channels: int = 64,
) -> STANet:
    """Build the network.

    Args:
        backbone: see `encoders.timm.build_backbone`; "resnet18" is the published one.
        pretrained: True or "imagenet", False or "none", or a file of weights for the backbone.
        attention: pam (pyramid) or bam (basic).
        output_stride: stride of the backbone's last map, where the backbone can change it.
        decoder_channels: channels of the features whose distance is taken.

    Raises:
        ConfigError: a number or choice out of range; also, with MissingExtraError and InputError, as `build_backbone`.
    """
    check_positive(decoder_channels=decoder_channels)
    if attention not in get_args(AttentionKind):
        known = get_args(AttentionKind)
        raise ConfigError(
            f"attention has no choice '{attention}'.{suggest_nearest(attention, known)} Known: {', '.join(known)}."
        )
    encoder = build_backbone(backbone, weights=resolve_weights(pretrained), output_stride=output_stride)
    _dilate_last_block(encoder)
    return STANet(encoder, attention=attention, channels=decoder_channels)


def _dilate_last_block(encoder: Backbone) -> None:
    """Dilate the first convolution of the last stage's second block, as published; other networks stay as they are."""
    stage = getattr(encoder.net, "layer4", None)
    if stage is not None and len(stage) == 2 and isinstance(stage[1], BasicBlock):
        stage[1].conv1.dilation = stage[1].conv1.padding = (2, 2)
