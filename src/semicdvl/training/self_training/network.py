"""The network that is adapted: the embedded vision-language model's own, applied to two dates.

    t1, t2 ─ encoder and pyramid of `vlms.aerial.net`, to half of the input's size ─┬─ |t1 - t2| ─ 2 x 3x3 ─ change
                                                                                    └─ each date by itself ─ building

It starts where the embedded model ends: it knows roofs, roads and trees in fine outlines and needs hundreds of steps,
not tens of thousands, to learn what change is. The text layer is not used, so the network has fixed classes.
A recipe names it "semicdvl.adapt.network:build", as runs on disk do; the weights ship with this package. Ours alone.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from semicdvl.errors import ConfigError
from semicdvl.models.common.blocks import ConvBNReLU, resize_map
from semicdvl.models.common.heads import resolve_heads
from semicdvl.types import IMAGENET_MEAN, IMAGENET_STD, Outputs
from semicdvl.vlms.aerial.build import load_trained_net
from semicdvl.vlms.aerial.net import INPUT_MEAN, INPUT_STD, AerialNet


class SiamAerial(nn.Module):
    """The network of this module's docstring; make it with `build_siam_aerial`.

    Attributes:
        encoder: the embedded model's encoder and pyramid, shared by both dates.
        change: what turns the absolute difference of the dates into change logits.
        segmentation: class logits of one date; None without training heads.
        heads: which of `types.HEADS` it has.
    """

    symmetric = True
    scale_C11: Tensor
    shift_C11: Tensor

    def __init__(self, encoder: AerialNet, *, train_heads: bool) -> None:
        """Put the heads on the embedded model's network."""
        super().__init__()
        self.encoder, width = encoder, encoder.narrow.out_channels
        self.change = nn.Sequential(
            ConvBNReLU(width, width, kernel_px=3), ConvBNReLU(width, width, kernel_px=3), nn.Conv2d(width, 2, 1)
        )
        self.segmentation: nn.Conv2d | None = nn.Conv2d(width, 2, 1) if train_heads else None
        self.heads = frozenset({"change", "segmentation"}) if train_heads else frozenset({"change"})
        scale_C, shift_C = torch.tensor(IMAGENET_STD) * 255 / INPUT_STD, torch.tensor(IMAGENET_MEAN) * 255 - INPUT_MEAN
        self.register_buffer("scale_C11", scale_C[:, None, None], persistent=False)
        self.register_buffer("shift_C11", shift_C[:, None, None] / INPUT_STD, persistent=False)

    def drop_train_heads(self) -> SiamAerial:
        """Remove what inference doesn't need and return the network."""
        self.segmentation, self.heads = None, frozenset({"change"})
        return self

    def forward(self, t1_BCHW: Tensor, t2_BCHW: Tensor, *, heads: frozenset[str] | None = None) -> Outputs:
        """Return the requested outputs, logits at the size of the input.

        Args:
            t1_BCHW: date 1, RGB / 255 normalised with the ImageNet mean and deviation, of any size.
            t2_BCHW: date 2.
            heads: names of `types.HEADS`; `change` always comes. None: all that the network has.

        Raises:
            ConfigError: a head that this network doesn't have.
        """
        heads, size_px = resolve_heads(heads, has=self.heads), t1_BCHW.shape[-2:]
        t1_BDHW, t2_BDHW = self._extract_features(t1_BCHW), self._extract_features(t2_BCHW)
        change_BKHW = resize_map(self.change((t1_BDHW - t2_BDHW).abs()).float(), size_px=size_px)
        if self.segmentation is None or "segmentation" not in heads:
            return Outputs(change_BKHW)
        dates = [resize_map(self.segmentation(map_BDHW).float(), size_px=size_px) for map_BDHW in (t1_BDHW, t2_BDHW)]
        return Outputs(change_BKHW, t1_BKHW=dates[0], t2_BKHW=dates[1])

    def _extract_features(self, image_BCHW: Tensor) -> Tensor:
        """Return the finest map of one date's pyramid."""
        map_BDHW: Tensor = self.encoder.fuse_pyramid(self.encoder.encoder(image_BCHW * self.scale_C11 + self.shift_C11))
        return map_BDHW


def build_siam_aerial(
    *, pretrained: bool | str | Path = True, backbone: str = "tf_efficientnet_lite2", train_heads: bool = True
) -> SiamAerial:
    """Build the network.

    Args:
        pretrained: True or "aerial" (the shipped weights), False or "none", or a file of weights of the embedded model.
        backbone: timm network of the encoder, where nothing is loaded; weights bring their own.
        train_heads: False leaves out what only training needs.

    Raises:
        ConfigError: timm has no such network.
        InputError: the weights are missing, or of something else.
    """
    if pretrained in (False, "none"):
        try:
            encoder = AerialNet(backbone=backbone)
        except RuntimeError as error:
            raise ConfigError(
                f"backbone '{backbone}' cannot be built ({error}). Give the name of a timm network."
            ) from error
    else:
        encoder = load_trained_net(None if pretrained in (True, "aerial") else Path(str(pretrained)))
    for layer in (*encoder.head.parameters(), encoder.log_scale):
        layer.requires_grad_(False)  # the layer of words, which nothing here asks
    return SiamAerial(encoder.train(), train_heads=train_heads)
