"""A Siamese U-Net over any backbone: the plain, strong baseline.

    t1, t2 ─ encoder, four maps ─ |difference| of each, or both dates concatenated
    from the coarsest: enlarge, concatenate the next finer one, 2 x 3x3 ─ ... ─ 2 x 3x3 at half the size ─ 3x3 ─ change

With resnet34 and differences 24,411,394 parameters, with concatenation 26,365,186. `perturbed` decodes the maps with
half of their channels dropped.
Sources: Ronneberger et al., U-Net (2015); Daudt et al. (2018) for the two ways to fuse the dates. It has nothing
special: a network of a paper should be better.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from semicdvl.errors import ConfigError
from semicdvl.models.common.blocks import (
    ConvBNReLU,
    absolute_differences,
    check_positive,
    resize_map,
    resolve_weights,
)
from semicdvl.models.common.heads import declare_heads
from semicdvl.models.common.siamese import SiameseNetwork
from semicdvl.models.encoders.timm import Backbone, build_backbone
from semicdvl.registry import suggest_nearest

UNetFusion = Literal["difference", "concatenation"]
MIN_DECODER_CHANNELS = 8


class UpBlock(nn.Module):
    """Enlarge a coarse map to a finer one's size and fuse both."""

    def __init__(self, coarse: int, fine: int, channels: int) -> None:
        """Make the layers; `fine` is 0 where there is no finer map."""
        super().__init__()
        self.layers = nn.Sequential(
            ConvBNReLU(coarse + fine, channels, kernel_px=3), ConvBNReLU(channels, channels, kernel_px=3)
        )

    def forward(self, coarse_BDHW: Tensor, fine_BDHW: Tensor | None, *, size_px: Sequence[int]) -> Tensor:
        """Return a map of the requested size."""
        larger_BDHW = resize_map(coarse_BDHW, size_px=size_px)
        joined_BDHW = larger_BDHW if fine_BDHW is None else torch.cat([larger_BDHW, fine_BDHW], dim=1)
        result: Tensor = self.layers(joined_BDHW)
        return result


class SiamUNet(SiameseNetwork):
    """The network of this module's docstring; `build_siam_unet` makes it.

    Attributes:
        symmetric: True with differences, False with both dates concatenated.
    """

    heads = frozenset({"change", "perturbed", "complementary"})

    def __init__(self, encoder: Backbone, *, fusion: UNetFusion, channels: int, classes: int) -> None:
        """Put the decoder on a backbone; each finer level has half the channels."""
        super().__init__()
        self.encoder, self.fusion, self.symmetric = encoder, fusion, fusion == "difference"
        dates = 1 if self.symmetric else 2
        fine = [dates * count for count in reversed(encoder.channels[:-1])] + [0]
        widths = [max(MIN_DECODER_CHANNELS, channels // 2**level) for level in range(len(fine))]
        coarse = [dates * encoder.channels[-1], *widths[:-1]]
        self.ups = nn.ModuleList(UpBlock(*sizes) for sizes in zip(coarse, fine, widths, strict=True))
        self.classify = nn.Conv2d(widths[-1], classes, 3, padding=1)

    def compare(self, maps_t1: Sequence[Tensor], maps_t2: Sequence[Tensor]) -> list[Tensor]:
        """Return each stage's absolute difference, or both dates' maps concatenated."""
        if self.fusion == "difference":
            return absolute_differences(maps_t1, maps_t2)
        return [torch.cat(both, dim=1) for both in zip(maps_t1, maps_t2, strict=True)]

    def decode(self, maps: Sequence[Tensor], *, size_px: Sequence[int]) -> Tensor:
        """Return features at half of the input's size."""
        *fine, map_BDHW = maps
        half_px = [max(1, side // 2) for side in size_px]
        for up, fine_BDHW in zip(self.ups, [*reversed(fine), None], strict=True):
            own_px = half_px if fine_BDHW is None else fine_BDHW.shape[-2:]
            map_BDHW = up(map_BDHW, fine_BDHW, size_px=own_px)
        return map_BDHW


@declare_heads("perturbed", "complementary")
def build_siam_unet(
    *,
    backbone: str = "resnet34",
    pretrained: bool | str | Path = True,
    fusion: UNetFusion = "difference",
    output_stride: int = 32,
    decoder_channels: int = 256,
    classes: int = 2,
) -> SiamUNet:
    """Build the network.

    Args:
        backbone: any network of `encoders.timm.build_backbone`.
        pretrained: True or "imagenet", False or "none", or a file of weights for the backbone.
        fusion: difference (absolute) or concatenation.
        output_stride: stride of the backbone's last map, where the backbone can change it.
        decoder_channels: channels of the coarsest level.
        classes: unchanged and changed.

    Raises:
        ConfigError: a number or choice out of range; also, with MissingExtraError and InputError, as `build_backbone`.
    """
    check_positive(decoder_channels=decoder_channels, classes=classes)
    if fusion not in get_args(UNetFusion):
        known = get_args(UNetFusion)
        raise ConfigError(
            f"fusion has no choice '{fusion}'.{suggest_nearest(fusion, known)} Known: {', '.join(known)}."
        )
    encoder = build_backbone(backbone, weights=resolve_weights(pretrained), output_stride=output_stride)
    return SiamUNet(encoder, fusion=fusion, channels=decoder_channels, classes=classes)
