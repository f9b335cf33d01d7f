"""PSPNet on two dates: UniMatch's other network, and the encoder side of SemiCD's.

    t1, t2 ─ encoder ─ |difference| of the last stage ─ means over 1, 4, 9 and 36 fields, each 512 ─ concatenate
           ─ 3x3 512 ─ dropout ─ 1x1 ─ to the input's size

With resnet50s at output stride 8: 46,706,626 parameters. `perturbed` decodes the difference with half of its channels
dropped. Sources: Zhao et al., Pyramid Scene Parsing Network (2017); Yang et al., UniMatch (2023), and its public code
for change detection.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semicdvl.errors import ConfigError
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
from semicdvl.models.encoders.timm import STAGES, Backbone, build_backbone

POOLING_BINS = (1, 2, 3, 6)
"""Fields per side over which means are taken."""


class PyramidPooling(nn.Module):
    """Concatenate to each pixel the means of the fields, of four sizes, that contain it."""

    def __init__(self, channels_in: int, channels: int) -> None:
        """Make one 1x1 layer per field size and the 3x3 layer that fuses map and means."""
        super().__init__()
        self.means = nn.ModuleList(ConvBNReLU(channels_in, channels) for _ in POOLING_BINS)
        for layer in self.means:
            layer.bn = PooledBatchNorm(channels)
        self.bottleneck = ConvBNReLU(channels_in + channels * len(POOLING_BINS), channels, kernel_px=3)

    def forward(self, map_BDHW: Tensor) -> Tensor:
        """Return a map of the same size."""
        size_px = map_BDHW.shape[-2:]
        means = [
            layer(F.adaptive_avg_pool2d(map_BDHW, bins)) for layer, bins in zip(self.means, POOLING_BINS, strict=True)
        ]
        pyramid = [map_BDHW] + [resize_map(mean, size_px=size_px, align_corners=True) for mean in means]
        result: Tensor = self.bottleneck(torch.cat(pyramid, dim=1))
        return result


class PSPNet(SiameseNetwork):
    """The network of this module's docstring; `build_psp` makes it."""

    heads = frozenset({"change", "perturbed", "complementary"})
    align_corners = True

    def __init__(self, encoder: Backbone, *, channels: int, classes: int) -> None:
        """Put the decoder on a backbone."""
        super().__init__()
        self.encoder = encoder
        self.pooling = PyramidPooling(encoder.channels[-1], channels)
        self.dropout = nn.Dropout(0.1)
        self.classify = nn.Conv2d(channels, classes, 1)

    def compare(self, maps_t1: Sequence[Tensor], maps_t2: Sequence[Tensor]) -> list[Tensor]:
        """Return the absolute difference of the last stage."""
        return absolute_differences(maps_t1[-1:], maps_t2[-1:])

    def decode(self, maps: Sequence[Tensor], *, size_px: Sequence[int]) -> Tensor:
        """Return the pooled features, at the last stage's stride."""
        features_BDHW: Tensor = self.dropout(self.pooling(maps[0]))
        return features_BDHW


@declare_heads("perturbed", "complementary")
def build_psp(
    *,
    backbone: str = "resnet50s",
    pretrained: bool | str | Path = True,
    output_stride: int = 8,
    stages: int = STAGES,
    decoder_channels: int = 512,
    classes: int = 2,
) -> PSPNet:
    """Build the network.

    Args:
        backbone: see `encoders.timm.build_backbone`; "resnet50s" is the published one.
        pretrained: True or "imagenet", False or "none", or a file of weights for the backbone.
        output_stride: stride of the backbone's last map, where the backbone can change it.
        stages: how many of the backbone's four stages there are, the last of which is read. Published: 4. Fewer keep
            smaller objects: the last stage of a small backbone localises poorly.
        decoder_channels: channels of each mean and of the map that is classified.
        classes: unchanged and changed.

    Raises:
        ConfigError: a number out of range; also, with MissingExtraError and InputError, as `build_backbone`.
    """
    check_positive(decoder_channels=decoder_channels, classes=classes, stages=stages)
    if stages > STAGES:
        raise ConfigError(f"stages must be at most {STAGES}, the stages of a backbone; got {stages}.")
    encoder = build_backbone(backbone, weights=resolve_weights(pretrained), output_stride=output_stride, stages=stages)
    return PSPNet(encoder, channels=decoder_channels, classes=classes)
