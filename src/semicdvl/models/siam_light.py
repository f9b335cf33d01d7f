"""SemiCD-VL's network: a Siamese backbone and light all-MLP decoders.

    t1 ─ encoder ─ four maps f1 ─┬─ |f1 - f2| ─ change decoder ─ q ─┬─ classify      change, by consistency (cr)
    t2 ─ encoder ─ four maps f2 ─┤                                  └─ classify_vlm  change, from the VLM (vl)
                                 └─ f1, f2 one by one ─ segmentation decoder ─ classify   building or not, per date
                                                                   └─ its features: contrastive term

With resnet50s at output stride 16: 26,128,838 parameters in training, 24,880,066 for inference (no `vl` classifier, no
segmentation decoder). Source: Li et al., SemiCD-VL (first published as DiffMatch), and its public code.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semicdvl.errors import ConfigError
from semicdvl.models.backbones import Backbone, build_backbone
from semicdvl.types import HEADS, Outputs

PUBLIC_NAMES = {
    "encoder.net.": "backbone.",
    "change_decoder.classify_vlm.": "decode_head.conv_seg_for_vl.",
    "change_decoder.classify.": "decode_head.conv_seg.",
    "change_decoder.": "decode_head.",
    "segmentation_decoder.classify.": "auxiliary_seg_head.conv_seg.",
    "segmentation_decoder.": "auxiliary_seg_head.",
}
"""Our prefix -> prefix in a checkpoint of the public code, first match first; what follows the prefix is the same."""


class ConvBNReLU(nn.Sequential):
    """1x1 convolution without bias, batch norm, ReLU."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        """Make the layers; the convolution starts from He's normal distribution over its outputs."""
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel_size=1, bias=False)
        self.bn = nn.BatchNorm2d(channels_out)
        self.relu = nn.ReLU(inplace=True)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")


class LightDecoder(nn.Module):
    """Four maps to one: each through its own 1x1 layer, resized to the finest, concatenated, fused by a 1x1 layer.

    The fusing convolution is applied to each map at the map's own size and the results are resized and added: resizing
    and a 1x1 convolution commute, so this is the same function (up to rounding) as concatenating first, and it saves
    the full-size concatenation. Batch norm comes after the sum in both.
    """

    def __init__(self, channels_in: Sequence[int], *, channels: int, classes: int) -> None:
        """Make the layers and the classifier, which starts from N(0, 0.01) with zero bias."""
        super().__init__()
        self.convs = nn.ModuleList(ConvBNReLU(count, channels) for count in channels_in)
        self.fusion_conv = ConvBNReLU(channels * len(channels_in), channels)
        self.classify = nn.Conv2d(channels, classes, kernel_size=1)
        self.classify_vlm: nn.Conv2d | None = None
        nn.init.normal_(self.classify.weight, std=0.01)
        nn.init.zeros_(self.classify.bias)  # type: ignore[arg-type]

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the fused features (BDHW) at the size of the first map."""
        weights = self.fusion_conv.conv.weight.chunk(len(maps), dim=1)
        sums: dict[tuple[int, ...], Tensor] = {}  # by size: maps of one size are added before they are resized
        for conv, map_BDHW, weight in zip(self.convs, maps, weights, strict=True):
            part_BDHW = F.conv2d(conv(map_BDHW), weight)
            size_px = tuple(part_BDHW.shape[-2:])
            sums[size_px] = sums[size_px] + part_BDHW if size_px in sums else part_BDHW
        finest_px = next(iter(sums))
        fused_BDHW = reduce(torch.add, (_resize(part_BDHW, size_px=finest_px) for part_BDHW in sums.values()))
        result: Tensor = self.fusion_conv.relu(self.fusion_conv.bn(fused_BDHW))
        return result


def _resize(map_BDHW: Tensor, *, size_px: Sequence[int]) -> Tensor:
    """Resize bilinearly, corners not aligned."""
    if map_BDHW.shape[-2:] == tuple(size_px):
        return map_BDHW
    return F.interpolate(map_BDHW, size=tuple(size_px), mode="bilinear", align_corners=False)


class SiamLight(nn.Module):
    """The network of this module's docstring; make it with `build`.

    Attributes:
        encoder: the backbone, shared by both dates.
        change_decoder: works on the absolute difference of the two dates' maps.
        segmentation_decoder: one decoder, run once per date; None without training heads.
        heads: which of `types.HEADS` it has.
    """

    def __init__(self, encoder: Backbone, *, decoder_channels: int, classes: int, train_heads: bool) -> None:
        """Put decoders on a backbone."""
        super().__init__()
        self.encoder = encoder
        self.change_decoder = LightDecoder(encoder.channels, channels=decoder_channels, classes=classes)
        self.segmentation_decoder: LightDecoder | None = None
        self.heads: frozenset[str] = frozenset({"change"})
        if train_heads:
            self.change_decoder.classify_vlm = nn.Conv2d(decoder_channels, classes, kernel_size=1)
            self.segmentation_decoder = LightDecoder(encoder.channels, channels=decoder_channels, classes=classes)
            self.heads = frozenset(HEADS)

    def drop_train_heads(self) -> SiamLight:
        """Remove what inference doesn't need (the `vl` classifier, the segmentation decoder) and return the network."""
        self.change_decoder.classify_vlm = None
        self.segmentation_decoder = None
        self.heads = frozenset({"change"})
        return self

    def forward(self, t1_BCHW: Tensor, t2_BCHW: Tensor, *, heads: frozenset[str] | None = None) -> Outputs:
        """Return the outputs that are wanted, logits at the size of the input.

        Args:
            t1_BCHW: date 1, RGB / 255 normalised with the ImageNet mean and deviation.
            t2_BCHW: date 2.
            heads: names of `types.HEADS`; `change` always comes. None: all that the network has.

        Raises:
            ConfigError: a head that this network doesn't have.
        """
        heads = self.heads if heads is None else heads
        if not heads <= self.heads:
            raise ConfigError(
                f"the network has no head {sorted(heads - self.heads)}, only {sorted(self.heads)}; build it with "
                "train_heads=True or take a method that does without."
            )
        # Date by date, as the public code does: one batch of both dates would share its batch-norm statistics.
        maps_t1, maps_t2 = self.encoder(t1_BCHW), self.encoder(t2_BCHW)
        fused_BDHW = self.change_decoder([(one - other).abs() for one, other in zip(maps_t1, maps_t2, strict=True)])
        size_px = t1_BCHW.shape[-2:]
        found = {"change_BKHW": self._logits(self.change_decoder.classify, fused_BDHW, size_px=size_px)}
        if "vlm_change" in heads:
            found["vlm_change_BKHW"] = self._logits(self.change_decoder.classify_vlm, fused_BDHW, size_px=size_px)
        if self.segmentation_decoder is not None and heads & {"segmentation", "features"}:
            for date, maps in (("t1", maps_t1), ("t2", maps_t2)):
                date_BDHW = self.segmentation_decoder(maps)
                if "features" in heads:
                    found[f"features_{date}_BDHW"] = date_BDHW
                if "segmentation" in heads:
                    classify = self.segmentation_decoder.classify
                    found[f"{date}_BKHW"] = self._logits(classify, date_BDHW, size_px=size_px)
        return Outputs(**found)

    @staticmethod
    def _logits(classify: nn.Module | None, fused_BDHW: Tensor, *, size_px: Sequence[int]) -> Tensor:
        """Classify and resize; in float32, so that a confidence of 0.95 is not rounded to bfloat16's 8 bits."""
        assert classify is not None
        logits_BKHW: Tensor = classify(fused_BDHW)
        return _resize(logits_BKHW.float(), size_px=size_px)


def build(
    *,
    backbone: str = "resnet50s",
    pretrained: bool | str | Path = True,
    output_stride: int = 16,
    decoder_channels: int = 256,
    classes: int = 2,
    train_heads: bool = True,
) -> SiamLight:
    """Build the network.

    Args:
        backbone: see `backbones.build_backbone`; "resnet50s" is the paper's, "efficientnet_lite0" with 64 decoder
            channels is the one for two CPU cores.
        pretrained: True or "imagenet", False or "none", or a file of weights for the backbone.
        output_stride: stride of the backbone's last map, where the backbone can change it.
        decoder_channels: width of both decoders.
        classes: classes of every head: unchanged and changed, background and foreground.
        train_heads: False leaves out what only training needs.

    Raises:
        ConfigError: a number out of range; also, with MissingExtraError and InputError, as `build_backbone`.
    """
    for name, count in (("decoder_channels", decoder_channels), ("classes", classes)):
        if count < 1:
            raise ConfigError(f"{name} = {count}: 1 or more is wanted.")
    weights = {True: "imagenet", False: "none"}[pretrained] if isinstance(pretrained, bool) else pretrained
    encoder = build_backbone(backbone, weights=weights, output_stride=output_stride)
    return SiamLight(encoder, decoder_channels=decoder_channels, classes=classes, train_heads=train_heads)
