"""ChangeFormer (V6): a hierarchical transformer for both dates and a convolutional decoder with deep supervision.

    t1, t2 ─ encoder, four maps ─ each linear 256 ─ both dates 512 ─ difference layers 256 (+ the coarser one, enlarged)
    four differences, at 1/4 ─ 1x1 256 ─ twice: enlarge x2, residual layers ─ 3x3 ─ change
    each difference ─ two 3x3 ─ auxiliary, coarse to fine at 1/32, 1/16, 1/8, 1/4

41,026,674 parameters (encoder 28,937,408), the auxiliary predictions' 18,608 among them. The difference is learned from
both dates' concatenated maps: the network is not symmetric in time. Its encoder is a MiT with patches of 7 px at all
stages, so that SegFormer's weights don't fit its later stages; any timm backbone can take its place.
Source: Bandara & Patel, A Transformer-Based Siamese Network for Change Detection (2022), and its public code, the
version called V6.

Differs from the public code: images of any size (sides are filled up to multiples of 32 by repeating the last row and
column); auxiliary maps are cut to the part that lies over the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from semicdvl.errors import ConfigError
from semicdvl.models.common.blocks import check_positive, pad_to_multiple, resize_map, resolve_weights
from semicdvl.models.common.heads import declare_heads, resolve_heads
from semicdvl.models.encoders.mit import MiT, MiTConfig
from semicdvl.models.encoders.timm import Backbone, build_backbone, load_weights_file
from semicdvl.types import Outputs

OWN_ENCODER = "changeformer_v6"
MULTIPLE_PX = 32
RESIDUAL_SCALE = 0.1
"""Factor of a residual layer's output before its input is added."""


class DifferenceLayer(nn.Module):
    """Learn the difference of two dates' concatenated maps."""

    def __init__(self, channels: int) -> None:
        """Make the layers; convolution, ReLU, batch norm in this order, as published."""
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2 * channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.BatchNorm2d(channels),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
        )

    def forward(self, one_BDHW: Tensor, other_BDHW: Tensor, *, coarser_BDHW: Tensor | None) -> Tensor:
        """Return the difference."""
        found_BDHW: Tensor = self.layers(torch.cat([one_BDHW, other_BDHW], dim=1))
        if coarser_BDHW is not None:
            found_BDHW = found_BDHW + resize_map(coarser_BDHW, size_px=found_BDHW.shape[-2:])
        return found_BDHW


class ResidualLayer(nn.Module):
    """Two 3x3 convolutions with a residual."""

    def __init__(self, channels: int) -> None:
        """Make the layers."""
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)
        )

    def forward(self, map_BDHW: Tensor) -> Tensor:
        """Return a map of the same size."""
        result: Tensor = map_BDHW + RESIDUAL_SCALE * self.layers(map_BDHW)
        return result


class ChangeFormer(nn.Module):
    """The network of this module's docstring; its builder makes it.

    Attributes:
        encoder: shared by both dates.
        heads: `change`, and `auxiliary` until training heads are dropped.
    """

    symmetric = False

    def __init__(self, encoder: MiT | Backbone, *, channels: int, classes: int, train_heads: bool) -> None:
        """Put the decoder on an encoder."""
        super().__init__()
        self.encoder = encoder
        self.linears = nn.ModuleList(nn.Conv2d(count, channels, 1) for count in encoder.channels)
        self.differences = nn.ModuleList(DifferenceLayer(channels) for _ in encoder.channels)
        self.fuse = nn.Sequential(nn.Conv2d(channels * len(self.linears), channels, 1), nn.BatchNorm2d(channels))
        self.enlarge = nn.Sequential(
            *(
                layer
                for _ in range(2)
                for layer in (nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1), ResidualLayer(channels))
            )
        )
        self.classify = nn.Conv2d(channels, classes, 3, padding=1)
        self.predict: nn.ModuleList | None = None
        self.heads = frozenset({"change"})
        if train_heads:
            self.predict = nn.ModuleList(_make_prediction_head(channels, classes) for _ in encoder.channels)
            self.heads = frozenset({"change", "auxiliary"})

    def drop_train_heads(self) -> ChangeFormer:
        """Remove the auxiliary predictions and return the network."""
        self.predict = None
        self.heads = frozenset({"change"})
        return self

    def forward(self, t1_BCHW: Tensor, t2_BCHW: Tensor, *, heads: frozenset[str] | None = None) -> Outputs:
        """Return the requested outputs, `change` at the size of the input.

        Args:
            t1_BCHW: date 1, RGB / 255 normalised with the ImageNet mean and deviation, of any size.
            t2_BCHW: date 2.
            heads: names of `types.HEADS`; `change` is always returned. None: all that the network has.

        Raises:
            ConfigError: a head that this network does not have.
        """
        heads = resolve_heads(heads, has=self.heads)
        height_px, width_px = t1_BCHW.shape[-2:]
        dates = [pad_to_multiple(image_BCHW, multiple_px=MULTIPLE_PX) for image_BCHW in (t1_BCHW, t2_BCHW)]
        found = self._compute_differences(*(self.encoder(image_BCHW) for image_BCHW in dates))
        finest_px = found[-1].shape[-2:]
        fused_BDHW = self.fuse(torch.cat([resize_map(one, size_px=finest_px) for one in found], dim=1))
        logits_BKHW = self.classify(self.enlarge(fused_BDHW)).float()
        logits_BKHW = resize_map(logits_BKHW, size_px=dates[0].shape[-2:])  # where the finest map is not at 1/4
        auxiliary = None
        if self.predict is not None and "auxiliary" in heads:
            strides_px = [dates[0].shape[-2] // one.shape[-2] for one in found]
            auxiliary = tuple(
                predict(one).float()[..., : -(-height_px // stride_px), : -(-width_px // stride_px)]
                for predict, one, stride_px in zip(self.predict, found, strides_px, strict=True)
            )
        return Outputs(change_BKHW=logits_BKHW[..., :height_px, :width_px], auxiliary_BKHW=auxiliary)

    def _compute_differences(self, maps_t1: Sequence[Tensor], maps_t2: Sequence[Tensor]) -> list[Tensor]:
        """Return the stages' differences, coarse to fine."""
        found: list[Tensor] = []
        stages = zip(self.linears, self.differences, maps_t1, maps_t2, strict=True)
        for linear, difference, one, other in reversed(list(stages)):
            found.append(difference(linear(one), linear(other), coarser_BDHW=found[-1] if found else None))
        return found


def _make_prediction_head(channels: int, classes: int) -> nn.Module:
    """Make the layers that predict change from one stage's difference; the first ones are the coarsest's."""
    return nn.Sequential(
        nn.Conv2d(channels, classes, 3, padding=1),
        nn.ReLU(),
        nn.BatchNorm2d(classes),
        nn.Conv2d(classes, classes, 3, padding=1),
    )


@declare_heads("auxiliary")
def build_changeformer(
    *,
    backbone: str = OWN_ENCODER,
    pretrained: bool | str | Path = False,
    widths: tuple[int, ...] = (64, 128, 320, 512),
    decoder_channels: int = 256,
    classes: int = 2,
    train_heads: bool = True,
) -> ChangeFormer:
    """Build the network.

    Args:
        backbone: "changeformer_v6", the published encoder, or any network of `encoders.timm.build_backbone`.
        pretrained: weights of the encoder. For the published one False or "none", or a file with this encoder's tensor
            names (no ImageNet weights of it exist); for others also True or "imagenet".
        widths: channels of the published encoder's four stages, multiples of 1, 2, 4 and 8; without effect on others.
        decoder_channels: width of the decoder.
        classes: unchanged and changed.
        train_heads: False leaves out the auxiliary predictions.

    Raises:
        ConfigError: a number out of range, or ImageNet weights of an encoder that has none; also, with
            MissingExtraError and InputError, as `build_backbone`.
    """
    check_positive(decoder_channels=decoder_channels, classes=classes)
    weights = resolve_weights(pretrained)
    encoder: MiT | Backbone
    if backbone == OWN_ENCODER:
        encoder = _build_own_encoder(tuple(widths))
        if weights == "imagenet":
            raise ConfigError(
                f"there are no ImageNet weights of '{OWN_ENCODER}'; take pretrained = false, a file, or another "
                "backbone such as pvt_v2_b2."
            )
        if weights != "none":
            load_weights_file(encoder, Path(weights))
    else:
        encoder = build_backbone(backbone, weights=weights, output_stride=32)
    return ChangeFormer(encoder, channels=decoder_channels, classes=classes, train_heads=train_heads)


def _build_own_encoder(widths: tuple[int, ...]) -> MiT:
    """Make the published encoder."""
    heads = (1, 2, 4, 8)
    fits = len(widths) == len(heads) and all(w > 0 and w % h == 0 for w, h in zip(widths, heads, strict=True))
    if not fits:
        raise ConfigError(f"widths must be four multiples of {heads}, one per stage; got {widths}.")
    settings = MiTConfig(
        widths=widths, depths=(3, 3, 4, 3), heads=heads, patch_px=(7, 7, 7, 7), drop=0.1, attention_drop=0.1
    )
    return MiT(settings)
