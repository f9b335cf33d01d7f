"""PSPNet on two dates: UniMatch's other network, and the encoder side of SemiCD's.

    t1, t2 ─ encoder ─ |difference| of the last stage ─ means over 1, 4, 9 and 36 fields, each 512 ─ concatenate
           ─ 3x3 512 ─ dropout ─ 1x1 ─ to the input's size

With resnet50s at output stride 8: 46,706,626 parameters. `perturbed` decodes the difference with half of its channels
dropped. Sources: Zhao et al., Pyramid Scene Parsing Network (2017); Yang et al., UniMatch (2023), and its public code
for change detection.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semicdvl.errors import ConfigError
from semicdvl.models.blocks import (
    ConvBNReLU,
    PooledBatchNorm,
    append_channel_dropout,
    check_positive,
    resize_map,
    resolve_weights,
)
from semicdvl.models.encoders.timm import STAGES, Backbone, build_backbone
from semicdvl.models.heads import declare_heads, resolve_heads
from semicdvl.types import Outputs

POOLING_BINS = (1, 2, 3, 6)
"""Fields per side over which means are taken."""


class PyramidPooling(nn.Module):
    """Adds to each pixel the means of the fields, of four sizes, that it lies in."""

    def __init__(self, channels_in: int, channels: int) -> None:
        """Make one 1x1 layer per field size and the 3x3 layer that brings map and means together."""
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
        seen = [map_BDHW] + [resize_map(mean, size_px=size_px, align_corners=True) for mean in means]
        result: Tensor = self.bottleneck(torch.cat(seen, dim=1))
        return result


class PSPNet(nn.Module):
    """The network of this module's docstring; make it with `build`.

    Attributes:
        encoder: the backbone, shared by both dates.
        heads: `change` and `perturbed`.
    """

    symmetric = True
    heads = frozenset({"change", "perturbed"})

    def __init__(self, encoder: Backbone, *, channels: int, classes: int) -> None:
        """Put the decoder on a backbone."""
        super().__init__()
        self.encoder = encoder
        self.pooling = PyramidPooling(encoder.channels[-1], channels)
        self.dropout = nn.Dropout(0.1)
        self.classify = nn.Conv2d(channels, classes, 1)

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
        map_BDHW, count = (self.encoder(t1_BCHW)[-1] - self.encoder(t2_BCHW)[-1]).abs(), t1_BCHW.shape[0]
        if self.training and "perturbed" in heads:
            (map_BDHW,) = append_channel_dropout([map_BDHW])
        small_BKHW = self.classify(self.dropout(self.pooling(map_BDHW)))
        logits_BKHW = resize_map(small_BKHW.float(), size_px=t1_BCHW.shape[-2:], align_corners=True)
        perturbed_BKHW = logits_BKHW[-count:] if "perturbed" in heads else None
        return Outputs(change_BKHW=logits_BKHW[:count], perturbed_change_BKHW=perturbed_BKHW)


@declare_heads("perturbed")
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
        backbone: see `backbones.build_backbone`; "resnet50s" is the published one.
        pretrained: True or "imagenet", False or "none", or a file of weights for the backbone.
        output_stride: stride of the backbone's last map, where the backbone can change it.
        stages: how many of the backbone's four stages there are, the last of which is read. Published: 4. Fewer see
            smaller objects: the last stage of a small backbone knows what is there better than where.
        decoder_channels: channels of each mean and of the map that is classified.
        classes: unchanged and changed.

    Raises:
        ConfigError: a number out of range; also, with MissingExtraError and InputError, as `build_backbone`.
    """
    check_positive(decoder_channels=decoder_channels, classes=classes, stages=stages)
    if stages > STAGES:
        raise ConfigError(f"stages = {stages}: a backbone has {STAGES}.")
    encoder = build_backbone(backbone, weights=resolve_weights(pretrained), output_stride=output_stride, stages=stages)
    return PSPNet(encoder, channels=decoder_channels, classes=classes)
