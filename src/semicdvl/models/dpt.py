"""UniMatch V2's network: a vision transformer (DINOv2) on both dates, and a DPT head on their differences.

    t1 ─ ViT ─ four maps f1 ─┬─ |f1 - f2| ─ DPT decoder ─ q ─┬─ classify       change, by consistency
    t2 ─ ViT ─ four maps f2 ─┤                               └─ classify_vlm   change, from the VLM   (training heads)
                             └─ f1, f2 one by one ─ segmentation decoder (DPT) ─ classify   class of each date

The training heads are SemiCD-VL's, put on this network by us; the published one has `change` alone. Without them, with
two classes, it has 24,794,018 parameters on DINOv2-S and 97,525,570 on B (DINOv2's unused `mask_token` is not there).
Sides that are no multiples of the patch: the image is resized to the nearest multiple and the logits are resized back,
as the published evaluation does.
Sources: Yang et al., UniMatch V2 (2024), and its public code for change detection; Ranftl et al., Vision Transformers
for Dense Prediction (2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from semicdvl.errors import ConfigError
from semicdvl.models.common.blocks import check_positive, resize_map, resolve_weights
from semicdvl.models.common.heads import declare_heads
from semicdvl.models.common.siamese import SiameseNetwork
from semicdvl.models.encoders.dinov2 import DinoV2Backbone, is_dinov2
from semicdvl.models.encoders.timm import Backbone, TransformerBackbone, build_backbone
from semicdvl.registry import suggest_nearest

PUBLISHED_HEADS = frozenset({"change", "perturbed", "complementary"})
TRAINING_HEADS = PUBLISHED_HEADS | {"vlm_change", "segmentation", "features"}


@dataclass(frozen=True)
class DPTWidths:
    """Channels of a DPT decoder.

    Attributes:
        features: of all fused maps.
        projected: of the four maps after their first 1x1 convolution, shallow to deep.
    """

    features: int
    projected: tuple[int, int, int, int]


PUBLISHED_WIDTHS = {
    384: DPTWidths(64, (48, 96, 192, 384)),
    768: DPTWidths(128, (96, 192, 384, 768)),
    1024: DPTWidths(256, (256, 512, 1024, 1024)),
    1536: DPTWidths(384, (1536, 1536, 1536, 1536)),
}
"""Channels of the transformer -> widths of the decoder."""

PUBLISHED_BLOCKS = {"vit_large_patch14_dinov2": [4, 11, 17, 23]}
"""Transformers whose published blocks are not those at each quarter of the depth."""

PUBLIC_PREFIXES = {
    "encoder.net.": "backbone.",
    "classify.": "head.scratch.output_conv.",
    **{f"decoder.project.{at}.": f"head.projects.{at}." for at in range(4)},
    **{f"decoder.resize.{at}.": f"head.resize_layers.{at}." for at in range(4)},
    **{f"decoder.reduce.{at}.": f"head.scratch.layer{at + 1}_rn." for at in range(4)},
    **{f"decoder.fuse.{at}.skip_unit.": f"head.scratch.refinenet{at + 1}.resConfUnit1." for at in range(4)},
    **{f"decoder.fuse.{at}.unit.": f"head.scratch.refinenet{at + 1}.resConfUnit2." for at in range(4)},
    **{f"decoder.fuse.{at}.out_conv.": f"head.scratch.refinenet{at + 1}.out_conv." for at in range(4)},
}
"""Our prefix -> prefix in a checkpoint of the public code; the rest of the name is the same."""


class ResidualUnit(nn.Module):
    """x + two 3x3 convolutions, each after a ReLU; no batch norm."""

    def __init__(self, channels: int) -> None:
        """Make the layers."""
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, map_BDHW: Tensor) -> Tensor:
        """Return a map of the same size."""
        result: Tensor = map_BDHW + self.conv2(self.conv1(map_BDHW.relu()).relu())
        return result


class FusionBlock(nn.Module):
    """Add a finer map to a coarse path, refine the sum, enlarge it."""

    def __init__(self, channels: int) -> None:
        """Make the layers."""
        super().__init__()
        self.skip_unit, self.unit = ResidualUnit(channels), ResidualUnit(channels)
        self.out_conv = nn.Conv2d(channels, channels, 1)

    def forward(self, path_BDHW: Tensor, skip_BDHW: Tensor | None, *, size_px: Sequence[int]) -> Tensor:
        """Return the path at `size_px`."""
        if skip_BDHW is not None:
            path_BDHW = path_BDHW + self.skip_unit(skip_BDHW)
        enlarged_BDHW = resize_map(self.unit(path_BDHW), size_px=size_px, align_corners=True)
        result: Tensor = self.out_conv(enlarged_BDHW)
        return result


class DPTDecoder(nn.Module):
    """Four maps of one size to one fused map, eight times as fine as the transformer's grid."""

    def __init__(self, channels_in: Sequence[int], *, widths: DPTWidths) -> None:
        """Make the layers."""
        super().__init__()
        one, two, three, four = widths.projected
        self.project = nn.ModuleList(
            nn.Conv2d(count, out, 1) for count, out in zip(channels_in, widths.projected, strict=True)
        )
        self.resize = nn.ModuleList(
            [
                nn.ConvTranspose2d(one, one, 4, stride=4),
                nn.ConvTranspose2d(two, two, 2, stride=2),
                nn.Identity(),
                nn.Conv2d(four, four, 3, stride=2, padding=1),
            ]
        )
        self.reduce = nn.ModuleList(
            nn.Conv2d(count, widths.features, 3, padding=1, bias=False) for count in (one, two, three, four)
        )
        self.fuse = nn.ModuleList(FusionBlock(widths.features) for _ in range(4))
        self.fuse[3].skip_unit.requires_grad_(False)  # never used, but published checkpoints contain it

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the fused map (BDHW)."""
        layers = zip(self.project, self.resize, self.reduce, maps, strict=True)
        levels = [reduce(resize(project(one))) for project, resize, reduce, one in layers]
        path_BDHW = levels[3]
        for at in (3, 2, 1, 0):
            finest = levels[0].shape[-2:]
            size_px = levels[at - 1].shape[-2:] if at else (2 * finest[0], 2 * finest[1])
            path_BDHW = self.fuse[at](path_BDHW, None if at == 3 else levels[at], size_px=size_px)
        result: Tensor = path_BDHW
        return result


class DPT(SiameseNetwork):
    """The network of this module's docstring; `build_dpt` makes it.

    Attributes:
        decoder: works on the absolute differences of the two dates' maps.
        segmentation_decoder: one decoder, run once per date; None without training heads.
        patch_px: side of the transformer's patch; no image may be smaller.
    """

    align_corners = True

    def __init__(
        self,
        encoder: Backbone,
        *,
        patch_px: int,
        widths: DPTWidths,
        classes: int,
        segmentation_classes: int,
        train_heads: bool,
    ) -> None:
        """Put decoders on a transformer."""
        super().__init__()
        self.encoder, self.patch_px = encoder, patch_px
        self.decoder = DPTDecoder(encoder.channels, widths=widths)
        self.classify = _make_classifier(widths.features, classes)
        self.classify_vlm: nn.Module | None = None
        self.segmentation_decoder: DPTDecoder | None = None
        self.classify_segmentation: nn.Module | None = None
        self.heads = PUBLISHED_HEADS
        if train_heads:
            self.classify_vlm = _make_classifier(widths.features, classes)
            self.segmentation_decoder = DPTDecoder(encoder.channels, widths=widths)
            self.classify_segmentation = _make_classifier(widths.features, segmentation_classes)
            self.heads = TRAINING_HEADS

    def drop_train_heads(self) -> DPT:
        """Remove what inference does not need (the VLM's classifier, the segmentation decoder); return the network."""
        self.classify_vlm = self.segmentation_decoder = self.classify_segmentation = None
        self.heads = frozenset({"change"})
        return self

    def encode(self, image_BCHW: Tensor) -> Sequence[Tensor]:
        """Return the transformer's maps of the image at the nearest multiple of the patch.

        Raises:
            ConfigError: the image is smaller than one patch.
        """
        height_px, width_px = image_BCHW.shape[-2:]
        if min(height_px, width_px) < self.patch_px:
            raise ConfigError(
                f"an image of {width_px} x {height_px} px is smaller than one patch of the network's transformer "
                f"({self.patch_px} px). Use larger crops or tiles, or a network with a convolutional backbone."
            )
        fitted_BCHW = resize_map(image_BCHW, size_px=self._fit_size((height_px, width_px)), align_corners=True)
        maps: Sequence[Tensor] = self.encoder(fitted_BCHW)
        return maps

    def decode(self, maps: Sequence[Tensor], *, size_px: Sequence[int]) -> Tensor:
        """Return the fused features, at eight times the transformer's grid."""
        features_BDHW: Tensor = self.decoder(maps)
        return features_BDHW

    def resize_logits(self, logits_BKHW: Tensor, *, size_px: Sequence[int]) -> Tensor:
        """Resize logits to what the transformer saw, then to the input's size."""
        fitted_BKHW = super().resize_logits(logits_BKHW, size_px=self._fit_size(size_px))
        return super().resize_logits(fitted_BKHW, size_px=size_px)

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
            assert self.classify_vlm is not None
            outputs["vlm_change_BKHW"] = self.resize_logits(self.classify_vlm(features_BDHW), size_px=size_px)
        if heads & {"segmentation", "features"}:
            assert self.segmentation_decoder is not None and self.classify_segmentation is not None
            for date, maps in (("t1", maps_t1), ("t2", maps_t2)):
                date_BDHW = self.segmentation_decoder(maps)
                if "features" in heads:
                    outputs[f"features_{date}_BDHW"] = date_BDHW
                if "segmentation" in heads:
                    logits_BKHW = self.classify_segmentation(date_BDHW)
                    outputs[f"{date}_BKHW"] = self.resize_logits(logits_BKHW, size_px=size_px)
        return outputs

    def _fit_size(self, size_px: Sequence[int]) -> tuple[int, int]:
        """Return the nearest sides that are multiples of the patch."""
        height_px, width_px = (max(1, round(side / self.patch_px)) * self.patch_px for side in size_px)
        return height_px, width_px


def _make_classifier(channels: int, classes: int) -> nn.Sequential:
    """Make DPT's classifier: 3x3 convolution, ReLU, 1x1 convolution."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(channels, classes, 1)
    )


@declare_heads("vlm_change", "segmentation", "features", "perturbed", "complementary")
def build_dpt(
    *,
    backbone: str = "vit_base_patch14_dinov2",
    pretrained: bool | str | Path = True,
    decoder_channels: int | None = None,
    classes: int = 2,
    segmentation_classes: int = 2,
    train_heads: bool = True,
) -> DPT:
    """Build the network.

    Args:
        backbone: a plain vision transformer of timm: "vit_base_patch14_dinov2" is the published one (small, large and
            giant likewise); DINOv3, SAM's encoder and others work too.
        pretrained: True or "imagenet" (the transformer's own published weights, from timm's model hub), False or
            "none", or a file of weights for the transformer with timm's names.
        decoder_channels: width of the fused maps; None: the published one for the transformer's width.
        classes: classes of the change heads: unchanged and changed.
        segmentation_classes: classes of the ground at each date, 2 for background and foreground.
        train_heads: False leaves out what only training with a VLM's guidance needs.

    Raises:
        ConfigError: a backbone that is no plain vision transformer, or a number out of range; also, with
            MissingExtraError and InputError, as `build_backbone`.
    """
    check_positive(classes=classes, segmentation_classes=segmentation_classes)
    plain = build_backbone(backbone, weights=resolve_weights(pretrained))
    if not isinstance(plain, TransformerBackbone):
        known = ("vit_small_patch14_dinov2", "vit_base_patch14_dinov2", "vit_large_patch14_dinov2")
        raise ConfigError(
            f"backbone '{backbone}' is no plain vision transformer, which model 'dpt' needs."
            f"{suggest_nearest(backbone, known)} Take vit_small_patch14_dinov2 or another one of timm, or keep the "
            "backbone and take model siam_light."
        )
    plain.blocks = PUBLISHED_BLOCKS.get(backbone, plain.blocks)
    encoder = DinoV2Backbone(plain) if is_dinov2(backbone) else plain
    widths = _choose_widths(encoder.channels[-1], features=decoder_channels)
    return DPT(
        encoder,
        patch_px=plain.patch_px[0],
        widths=widths,
        classes=classes,
        segmentation_classes=segmentation_classes,
        train_heads=train_heads,
    )


def _choose_widths(channels: int, *, features: int | None) -> DPTWidths:
    """Return the published widths for a transformer, or widths in the same proportions."""
    widths = PUBLISHED_WIDTHS.get(channels)
    if widths is None:
        eighth = max(channels // 8, 1)
        widths = DPTWidths(max(channels // 6, 1), (eighth, 2 * eighth, 4 * eighth, channels))
    if features is None:
        return widths
    check_positive(decoder_channels=features)
    return DPTWidths(features, widths.projected)
