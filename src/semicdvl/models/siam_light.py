"""SemiCD-VL's network: a Siamese backbone and light all-MLP decoders.

    t1 ─ encoder ─ four maps f1 ─┬─ |f1 - f2| ─ change decoder ─ q ─┬─ classify      change, by consistency (cr)
    t2 ─ encoder ─ four maps f2 ─┤             (again with half of  └─ classify_vlm  change, from the VLM (vl)
                                 │              |f1 - f2| dropped: `perturbed`, no weights of its own)
                                 └─ f1, f2 one by one ─ segmentation decoder ─ classify   building or not, per date
                                                                   └─ its features: contrastive term

With resnet50s at output stride 16: 26,128,838 parameters in training, 24,880,066 for inference (no `vl` classifier, no
segmentation decoder). Source: Li et al., SemiCD-VL (first published as DiffMatch), and its public code.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semicdvl.models.blocks import (
    absolute_differences,
    append_channel_dropout,
    check_positive,
    resize_map,
    resolve_weights,
)
from semicdvl.models.encoders.timm import Backbone, build_backbone
from semicdvl.models.heads import declare_heads, resolve_heads
from semicdvl.types import Outputs

INFERENCE_HEADS = frozenset({"change"})
TRAINING_HEADS = frozenset({"change", "vlm_change", "segmentation", "features", "perturbed"})

OFFICIAL_PREFIXES = {
    "encoder.net.": "backbone.",
    "change_decoder.classify_vlm.": "decode_head.conv_seg_for_vl.",
    "change_decoder.classify.": "decode_head.conv_seg.",
    "change_decoder.": "decode_head.",
    "segmentation_decoder.classify.": "auxiliary_seg_head.conv_seg.",
    "segmentation_decoder.": "auxiliary_seg_head.",
}
"""Our prefix -> prefix in a checkpoint of the public code, first match first; what follows the prefix is the same."""


class HeInitConvBNReLU(nn.Sequential):
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
        self.convs = nn.ModuleList(HeInitConvBNReLU(count, channels) for count in channels_in)
        self.fusion_conv = HeInitConvBNReLU(channels * len(channels_in), channels)
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
        fused_BDHW = reduce(torch.add, (resize_map(part_BDHW, size_px=finest_px) for part_BDHW in sums.values()))
        result: Tensor = self.fusion_conv.relu(self.fusion_conv.bn(fused_BDHW))
        return result


class SiamLight(nn.Module):
    """The network of this module's docstring; make it with `build`.

    Attributes:
        encoder: the backbone, shared by both dates.
        change_decoder: works on the absolute difference of the two dates' maps.
        segmentation_decoder: one decoder, run once per date; None without training heads.
        heads: which of `types.HEADS` it has.
    """

    symmetric = True

    def __init__(self, encoder: Backbone, *, decoder_channels: int, classes: int, train_heads: bool) -> None:
        """Put decoders on a backbone."""
        super().__init__()
        self.encoder = encoder
        self.change_decoder = LightDecoder(encoder.channels, channels=decoder_channels, classes=classes)
        self.segmentation_decoder: LightDecoder | None = None
        self.heads = INFERENCE_HEADS
        if train_heads:
            self.change_decoder.classify_vlm = nn.Conv2d(decoder_channels, classes, kernel_size=1)
            self.segmentation_decoder = LightDecoder(encoder.channels, channels=decoder_channels, classes=classes)
            self.heads = TRAINING_HEADS

    def drop_train_heads(self) -> SiamLight:
        """Remove what inference doesn't need (the `vl` classifier, the segmentation decoder) and return the network."""
        self.change_decoder.classify_vlm = None
        self.segmentation_decoder = None
        self.heads = INFERENCE_HEADS
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
        heads = resolve_heads(heads, has=self.heads)
        # Date by date, as the public code does: one batch of both dates would share its batch-norm statistics.
        maps_t1, maps_t2 = self.encoder(t1_BCHW), self.encoder(t2_BCHW)
        maps, count, size_px = absolute_differences(maps_t1, maps_t2), t1_BCHW.shape[0], t1_BCHW.shape[-2:]
        drops = self.training and "perturbed" in heads
        fused_BDHW = self.change_decoder(append_channel_dropout(maps) if drops else maps)
        logits_BKHW = self._classify(self.change_decoder.classify, fused_BDHW, size_px=size_px)
        fused_BDHW = fused_BDHW[:count]
        found: dict[str, Any] = {"change_BKHW": logits_BKHW[:count]}
        if "perturbed" in heads:
            found["perturbed_change_BKHW"] = logits_BKHW[-count:]  # in eval mode nothing is dropped: the same
        if "vlm_change" in heads:
            found["vlm_change_BKHW"] = self._classify(self.change_decoder.classify_vlm, fused_BDHW, size_px=size_px)
        if self.segmentation_decoder is not None and heads & {"segmentation", "features"}:
            for date, maps in (("t1", maps_t1), ("t2", maps_t2)):
                date_BDHW = self.segmentation_decoder(maps)
                if "features" in heads:
                    found[f"features_{date}_BDHW"] = date_BDHW
                if "segmentation" in heads:
                    classify = self.segmentation_decoder.classify
                    found[f"{date}_BKHW"] = self._classify(classify, date_BDHW, size_px=size_px)
        return Outputs(**found)

    @staticmethod
    def _classify(classify: nn.Module | None, fused_BDHW: Tensor, *, size_px: Sequence[int]) -> Tensor:
        """Classify and resize; in float32, so that a confidence of 0.95 is not rounded to bfloat16's 8 bits."""
        assert classify is not None
        logits_BKHW: Tensor = classify(fused_BDHW)
        return resize_map(logits_BKHW.float(), size_px=size_px)


@declare_heads("vlm_change", "segmentation", "features", "perturbed")
def build_siam_light(
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
    check_positive(decoder_channels=decoder_channels, classes=classes)
    encoder = build_backbone(backbone, weights=resolve_weights(pretrained), output_stride=output_stride)
    return SiamLight(encoder, decoder_channels=decoder_channels, classes=classes, train_heads=train_heads)
