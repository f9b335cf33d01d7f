"""DeepLabV3+ on two dates: the network of UniMatch's change detection and of the "Sup-only" rows beside it.

    t1 ─ encoder ─┬─ |c1 difference| ─ 1x1 48 ───────────────┐
    t2 ─ encoder ─┴─ |c4 difference| ─ ASPP 256 ─ to c1's size ─ concatenate ─ 2 x (3x3 256) ─ 1x1 ─ to the input's size

With resnet50s at output stride 16: 40,471,074 parameters. `perturbed` decodes the differences with half of their
channels dropped. With `auxiliary` (not published here) a second classifier looks at the difference of the third stage,
as ADVENT's DeepLab-v2 has it: the sum of four 3x3 convolutions.
Sources: Chen et al., Encoder-Decoder with Atrous Separable Convolution (2018; here the convolutions are not separable);
Yang et al., UniMatch (2023), and its public code for change detection.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semicdvl.models.blocks import (
    ConvBNReLU,
    PooledBatchNorm,
    absolute_differences,
    append_channel_dropout,
    check_positive,
    resize_map,
    resolve_weights,
)
from semicdvl.models.encoders.timm import Backbone, build_backbone
from semicdvl.models.heads import declare_heads, resolve_heads
from semicdvl.types import Outputs

ATROUS_RATES = (6, 12, 18)
AUXILIARY_RATES = (6, 12, 18, 24)
LOW_CHANNELS = 48
"""Channels to which the finest map is brought before it joins the others."""


class ASPP(nn.Module):
    """Looks at a map at several distances at once: 1x1, three dilated 3x3, and the mean of all of it."""

    def __init__(self, channels_in: int, channels: int) -> None:
        """Make the branches, each of `channels`, and what brings them together."""
        super().__init__()
        self.branches = nn.ModuleList(
            [ConvBNReLU(channels_in, channels)]
            + [ConvBNReLU(channels_in, channels, kernel_px=3, dilation=rate) for rate in ATROUS_RATES]
        )
        self.pooled = ConvBNReLU(channels_in, channels)
        self.pooled.bn = PooledBatchNorm(channels)
        self.project = ConvBNReLU(channels * (len(self.branches) + 1), channels)

    def forward(self, map_BDHW: Tensor) -> Tensor:
        """Return a map of the same size."""
        seen = [branch(map_BDHW) for branch in self.branches]
        mean_BD11 = self.pooled(F.adaptive_avg_pool2d(map_BDHW, 1))
        seen.append(mean_BD11.expand(-1, -1, *map_BDHW.shape[-2:]))
        result: Tensor = self.project(torch.cat(seen, dim=1))
        return result


class DilatedClassifier(nn.Module):
    """DeepLab-v2's classifier: the sum of 3x3 convolutions that look further and further."""

    def __init__(self, channels_in: int, classes: int) -> None:
        """Make the convolutions."""
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(channels_in, classes, 3, padding=rate, dilation=rate) for rate in AUXILIARY_RATES
        )

    def forward(self, map_BDHW: Tensor) -> Tensor:
        """Return logits at the map's size."""
        return torch.stack([conv(map_BDHW) for conv in self.convs]).sum(dim=0)


class DeepLab(nn.Module):
    """The network of this module's docstring; make it with `build`.

    Attributes:
        encoder: the backbone, shared by both dates.
        heads: `change` and `perturbed`; `auxiliary` where it was asked for.
    """

    symmetric = True

    def __init__(self, encoder: Backbone, *, channels: int, classes: int, auxiliary: bool) -> None:
        """Put the decoder on a backbone."""
        super().__init__()
        self.encoder = encoder
        self.aspp = ASPP(encoder.channels[-1], channels)
        self.low = ConvBNReLU(encoder.channels[0], LOW_CHANNELS)
        self.fuse = nn.Sequential(
            ConvBNReLU(channels + LOW_CHANNELS, channels, kernel_px=3), ConvBNReLU(channels, channels, kernel_px=3)
        )
        self.classify = nn.Conv2d(channels, classes, 1)
        self.auxiliary = DilatedClassifier(encoder.channels[2], classes) if auxiliary else None
        self.heads = frozenset({"change", "perturbed"} | ({"auxiliary"} if auxiliary else set()))

    def drop_train_heads(self) -> DeepLab:
        """Remove the auxiliary classifier and return the network."""
        self.auxiliary = None
        self.heads = frozenset({"change"})
        return self

    def forward(self, t1_BCHW: Tensor, t2_BCHW: Tensor, *, heads: frozenset[str] | None = None) -> Outputs:
        """Return the outputs that are wanted, at the size of the input.

        Args:
            t1_BCHW: date 1, RGB / 255 normalised with the ImageNet mean and deviation.
            t2_BCHW: date 2.
            heads: names of `types.HEADS`; `change` always comes. None: all that the network has.

        Raises:
            ConfigError: a head that this network doesn't have.
        """
        heads = resolve_heads(heads, has=self.heads)
        low_BDHW, _, third_BDHW, deep_BDHW = absolute_differences(self.encoder(t1_BCHW), self.encoder(t2_BCHW))
        maps, count, size_px = [low_BDHW, deep_BDHW], t1_BCHW.shape[0], t1_BCHW.shape[-2:]
        if self.training and "perturbed" in heads:
            maps = append_channel_dropout(maps)
        logits_BKHW = self._decode(maps, size_px=size_px)
        auxiliary = None
        if self.auxiliary is not None and "auxiliary" in heads:
            auxiliary = (resize_map(self.auxiliary(third_BDHW).float(), size_px=size_px, align_corners=True),)
        return Outputs(
            change_BKHW=logits_BKHW[:count],
            perturbed_change_BKHW=logits_BKHW[-count:] if "perturbed" in heads else None,
            auxiliary_BKHW=auxiliary,
        )

    def _decode(self, maps: Sequence[Tensor], *, size_px: Sequence[int]) -> Tensor:
        """Return logits from the differences of the finest and the deepest stage."""
        low_BDHW, deep_BDHW = maps
        deep_BDHW = resize_map(self.aspp(deep_BDHW), size_px=low_BDHW.shape[-2:], align_corners=True)
        fused_BDHW = self.fuse(torch.cat([deep_BDHW, self.low(low_BDHW)], dim=1))
        return resize_map(self.classify(fused_BDHW).float(), size_px=size_px, align_corners=True)


@declare_heads("perturbed")
def build_deeplab(
    *,
    backbone: str = "resnet50s",
    pretrained: bool | str | Path = True,
    output_stride: int = 16,
    decoder_channels: int = 256,
    classes: int = 2,
    auxiliary: bool = False,
) -> DeepLab:
    """Build the network.

    Args:
        backbone: see `backbones.build_backbone`; "resnet50s" is the published one.
        pretrained: True or "imagenet", False or "none", or a file of weights for the backbone.
        output_stride: stride of the backbone's last map, where the backbone can change it.
        decoder_channels: width of ASPP and decoder.
        classes: unchanged and changed.
        auxiliary: add the second classifier that ADVENT trains.

    Raises:
        ConfigError: a number out of range; also, with MissingExtraError and InputError, as `build_backbone`.
    """
    check_positive(decoder_channels=decoder_channels, classes=classes)
    encoder = build_backbone(backbone, weights=resolve_weights(pretrained), output_stride=output_stride)
    return DeepLab(encoder, channels=decoder_channels, classes=classes, auxiliary=auxiliary)
