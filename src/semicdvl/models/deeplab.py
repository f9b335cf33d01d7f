"""DeepLabV3+ on two dates: the network of UniMatch's change detection and of the "Sup-only" rows beside it.

    t1 ─ encoder ─┬─ |c1 difference| ─ 1x1 48 ───────────────┐
    t2 ─ encoder ─┴─ |c4 difference| ─ ASPP 256 ─ to c1's size ─ concatenate ─ 2 x (3x3 256) ─ 1x1 ─ to the input's size

With resnet50s at output stride 16: 40,471,074 parameters. `perturbed` decodes the differences with half of their
channels dropped. With `auxiliary` (not published here) a second classifier reads the difference of the third stage,
as in ADVENT's DeepLab-v2: the sum of four 3x3 convolutions.
Sources: Chen et al., Encoder-Decoder with Atrous Separable Convolution (2018; here the convolutions are not separable);
Yang et al., UniMatch (2023), and its public code for change detection.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semicdvl.models.common.blocks import (
    ConvBNReLU,
    PooledBatchNorm,
    absolute_differences,
    check_positive,
    resize_map,
    resolve_weights,
)
from semicdvl.models.common.heads import declare_heads
from semicdvl.models.common.siamese import SiameseNetwork
from semicdvl.models.encoders.timm import Backbone, build_backbone

ATROUS_RATES = (6, 12, 18)
AUXILIARY_RATES = (6, 12, 18, 24)
LOW_CHANNELS = 48
"""Channels to which the finest map is reduced before it is fused with the others."""


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: 1x1, three dilated 3x3, and the mean of the map."""

    def __init__(self, channels_in: int, channels: int) -> None:
        """Make the branches, each of `channels`, and the layer that fuses them."""
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
        branches = [branch(map_BDHW) for branch in self.branches]
        mean_BD11 = self.pooled(F.adaptive_avg_pool2d(map_BDHW, 1))
        branches.append(mean_BD11.expand(-1, -1, *map_BDHW.shape[-2:]))
        result: Tensor = self.project(torch.cat(branches, dim=1))
        return result


class DilatedClassifier(nn.Module):
    """DeepLab-v2's classifier: the sum of 3x3 convolutions of growing dilation."""

    def __init__(self, channels_in: int, classes: int) -> None:
        """Make the convolutions."""
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(channels_in, classes, 3, padding=rate, dilation=rate) for rate in AUXILIARY_RATES
        )

    def forward(self, map_BDHW: Tensor) -> Tensor:
        """Return logits at the map's size."""
        return torch.stack([conv(map_BDHW) for conv in self.convs]).sum(dim=0)


class DeepLab(SiameseNetwork):
    """The network of this module's docstring; `build_deeplab` makes it.

    Attributes:
        heads: `change` and `perturbed`; `auxiliary` on request.
    """

    align_corners = True

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
        self.heads = frozenset({"change", "perturbed", "complementary"} | ({"auxiliary"} if auxiliary else set()))

    def drop_train_heads(self) -> DeepLab:
        """Remove the auxiliary classifier and return the network."""
        self.auxiliary = None
        self.heads = frozenset({"change"})
        return self

    def compare(self, maps_t1: Sequence[Tensor], maps_t2: Sequence[Tensor]) -> list[Tensor]:
        """Return the absolute differences of the first and the last stage."""
        return absolute_differences([maps_t1[0], maps_t1[-1]], [maps_t2[0], maps_t2[-1]])

    def decode(self, maps: Sequence[Tensor], *, size_px: Sequence[int]) -> Tensor:
        """Return the fused features, at the first stage's stride."""
        low_BDHW, deep_BDHW = maps
        deep_BDHW = resize_map(self.aspp(deep_BDHW), size_px=low_BDHW.shape[-2:], align_corners=True)
        features_BDHW: Tensor = self.fuse(torch.cat([deep_BDHW, self.low(low_BDHW)], dim=1))
        return features_BDHW

    def predict_further_heads(
        self,
        heads: frozenset[str],
        maps_t1: Sequence[Tensor],
        maps_t2: Sequence[Tensor],
        *,
        features_BDHW: Tensor,
        change_BKHW: Tensor,
    ) -> dict[str, Any]:
        """Return the auxiliary logits, from the difference of the third stage."""
        assert self.auxiliary is not None
        small_BKHW = self.auxiliary((maps_t1[2] - maps_t2[2]).abs())
        return {"auxiliary_BKHW": (self.resize_logits(small_BKHW, size_px=change_BKHW.shape[-2:]),)}


@declare_heads("perturbed", "complementary")
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
        backbone: see `encoders.timm.build_backbone`; "resnet50s" is the published one.
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
