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

from semicdvl.models.common.blocks import ConvBNReLU, check_positive, resize_map, resolve_weights
from semicdvl.models.common.heads import declare_heads
from semicdvl.models.common.siamese import SiameseNetwork
from semicdvl.models.encoders.timm import Backbone, build_backbone

INFERENCE_HEADS = frozenset({"change"})
TRAINING_HEADS = frozenset({"change", "vlm_change", "segmentation", "features", "perturbed", "complementary"})

OFFICIAL_PREFIXES = {
    "encoder.net.": "backbone.",
    "change_decoder.classify_vlm.": "decode_head.conv_seg_for_vl.",
    "change_decoder.classify.": "decode_head.conv_seg.",
    "change_decoder.": "decode_head.",
    "segmentation_decoder.classify.": "auxiliary_seg_head.conv_seg.",
    "segmentation_decoder.": "auxiliary_seg_head.",
}
"""Our prefix -> prefix in a checkpoint of the public code, the first match counts; the rest of the name is the same."""


class HeInitConvBNReLU(ConvBNReLU):
    """1x1 convolution without bias, batch norm, ReLU; it starts from He's normal distribution over its outputs."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        """Make and initialise the layers."""
        super().__init__(channels_in, channels_out)
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


class SiamLight(SiameseNetwork):
    """The network of this module's docstring; `build_siam_light` makes it.

    Attributes:
        change_decoder: works on the absolute differences of the two dates' maps.
        segmentation_decoder: one decoder, run once per date; None without training heads.
    """

    def __init__(
        self, encoder: Backbone, *, decoder_channels: int, classes: int, segmentation_classes: int, train_heads: bool
    ) -> None:
        """Put decoders on a backbone."""
        super().__init__()
        self.encoder = encoder
        self.change_decoder = LightDecoder(encoder.channels, channels=decoder_channels, classes=classes)
        self.segmentation_decoder: LightDecoder | None = None
        self.heads = INFERENCE_HEADS
        if train_heads:
            self.change_decoder.classify_vlm = nn.Conv2d(decoder_channels, classes, kernel_size=1)
            self.segmentation_decoder = LightDecoder(
                encoder.channels, channels=decoder_channels, classes=segmentation_classes
            )
            self.heads = TRAINING_HEADS

    def drop_train_heads(self) -> SiamLight:
        """Remove what inference does not need (the `vl` classifier, the segmentation decoder); return the network."""
        self.change_decoder.classify_vlm = None
        self.segmentation_decoder = None
        self.heads = INFERENCE_HEADS
        return self

    def decode(self, maps: Sequence[Tensor], *, size_px: Sequence[int]) -> Tensor:
        """Return the fused features, at the first stage's stride."""
        features_BDHW: Tensor = self.change_decoder(maps)
        return features_BDHW

    def classify_features(self, features_BDHW: Tensor) -> Tensor:
        """Return change logits of the consistency-regularised classifier."""
        logits_BKHW: Tensor = self.change_decoder.classify(features_BDHW)
        return logits_BKHW

    def predict_further_heads(
        self,
        heads: frozenset[str],
        maps_t1: Sequence[Tensor],
        maps_t2: Sequence[Tensor],
        *,
        features_BDHW: Tensor,
        change_BKHW: Tensor,
    ) -> dict[str, Any]:
        """Return the VLM's change logits, and each date's class logits and features."""
        outputs: dict[str, Any] = {}
        size_px = change_BKHW.shape[-2:]
        if "vlm_change" in heads:
            assert self.change_decoder.classify_vlm is not None
            logits_BKHW = self.change_decoder.classify_vlm(features_BDHW)
            outputs["vlm_change_BKHW"] = self.resize_logits(logits_BKHW, size_px=size_px)
        if heads & {"segmentation", "features"}:
            assert self.segmentation_decoder is not None
            for date, maps in (("t1", maps_t1), ("t2", maps_t2)):
                date_BDHW = self.segmentation_decoder(maps)
                if "features" in heads:
                    outputs[f"features_{date}_BDHW"] = date_BDHW
                if "segmentation" in heads:
                    logits_BKHW = self.segmentation_decoder.classify(date_BDHW)
                    outputs[f"{date}_BKHW"] = self.resize_logits(logits_BKHW, size_px=size_px)
        return outputs


@declare_heads("vlm_change", "segmentation", "features", "perturbed", "complementary")
def build_siam_light(
    *,
    backbone: str = "resnet50s",
    pretrained: bool | str | Path = True,
    output_stride: int = 16,
    decoder_channels: int = 256,
    classes: int = 2,
    segmentation_classes: int = 2,
    train_heads: bool = True,
) -> SiamLight:
    """Build the network.

    Args:
        backbone: see `encoders.timm.build_backbone`; "resnet50s" is the paper's, "efficientnet_lite0" with 64 decoder
            channels is the one for two CPU cores.
        pretrained: True or "imagenet", False or "none", or a file of weights for the backbone.
        output_stride: stride of the backbone's last map, where the backbone can change it.
        decoder_channels: width of both decoders.
        classes: classes of the change heads: unchanged and changed.
        segmentation_classes: classes of the ground at each date, 2 for background and foreground.
        train_heads: False leaves out what only training needs.

    Raises:
        ConfigError: a number out of range; also, with MissingExtraError and InputError, as `build_backbone`.
    """
    check_positive(decoder_channels=decoder_channels, classes=classes, segmentation_classes=segmentation_classes)
    encoder = build_backbone(backbone, weights=resolve_weights(pretrained), output_stride=output_stride)
    return SiamLight(
        encoder,
        decoder_channels=decoder_channels,
        classes=classes,
        segmentation_classes=segmentation_classes,
        train_heads=train_heads,
    )
