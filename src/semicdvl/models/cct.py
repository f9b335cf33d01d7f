"""SemiCD's network: a Siamese PSPNet whose auxiliary decoders see perturbed difference features.

    t1, t2 ─ encoder ─ |difference| of the last stage ─ pyramid pooling ─ z ─┬─ decoder ─ change
                                                                             └─ 26 x (perturb, decoder) ─ auxiliary

Every decoder: 3x3 512 -> 32 without bias, ReLU, 1x1, resized to the input. With resnet50s at output stride 8:
46,853,122 parameters at inference, 50,688,694 in training. Request `auxiliary` with unlabelled pairs alone: as
published the auxiliary decoders never see labelled ones. In eval mode nothing is perturbed.
Source: Bandara & Patel, Revisiting Consistency Regularization for Semi-supervised Change Detection (2022); it is
Cross-Consistency Training (Ouali et al., 2020) made Siamese.

Differs from the public code: the 1x1 layer comes before the resizing, which is the same function and saves 32 maps at
full size for each of 27 decoders; virtual adversarial training probes with a step that float32 can see
(`common.perturbations.VAT_PROBE`) and leaves no gradient in the decoder's weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from semicdvl.errors import ConfigError
from semicdvl.models.common.blocks import absolute_differences, check_positive, resolve_weights
from semicdvl.models.common.heads import declare_heads
from semicdvl.models.common.perturbations import AUXILIARY_DECODERS, PerturbationContext
from semicdvl.models.common.siamese import SiameseNetwork
from semicdvl.models.encoders.timm import STAGES, Backbone, build_backbone
from semicdvl.models.psp import PyramidPooling

DECODER_WIDTH = 32


class CCTDecoder(nn.Module):
    """Decode features to logits at their size."""

    def __init__(self, channels_in: int, classes: int) -> None:
        """Make the layers."""
        super().__init__()
        self.conv = nn.Conv2d(channels_in, DECODER_WIDTH, 3, padding=1, bias=False)
        self.classify = nn.Conv2d(DECODER_WIDTH, classes, 1)

    def forward(self, features_BDHW: Tensor) -> Tensor:
        """Return logits."""
        logits_BKHW: Tensor = self.classify(F.relu(self.conv(features_BDHW)))
        return logits_BKHW


class CCT(SiameseNetwork):
    """The network of this module's docstring; `build_cct` makes it.

    Attributes:
        auxiliary: decoders in the order of `common.perturbations.AUXILIARY_DECODERS`; None without training heads.
        heads: `change`, and `auxiliary` with training heads.
    """

    def __init__(self, encoder: Backbone, *, channels: int, classes: int, train_heads: bool) -> None:
        """Put pooling and decoders on a backbone."""
        super().__init__()
        self.encoder = encoder
        self.pooling = PyramidPooling(encoder.channels[-1], channels)
        self.decoder = CCTDecoder(channels, classes)
        self.auxiliary: nn.ModuleList | None = None
        self.heads = frozenset({"change"})
        if train_heads:
            self.auxiliary = nn.ModuleList(
                CCTDecoder(channels, classes) for _, count in AUXILIARY_DECODERS for _ in range(count)
            )
            self.heads = frozenset({"change", "auxiliary"})

    def drop_train_heads(self) -> CCT:
        """Remove the auxiliary decoders and return the network."""
        self.auxiliary = None
        self.heads = frozenset({"change"})
        return self

    def compare(self, maps_t1: Sequence[Tensor], maps_t2: Sequence[Tensor]) -> list[Tensor]:
        """Return the absolute difference of the last stage."""
        return absolute_differences(maps_t1[-1:], maps_t2[-1:])

    def decode(self, maps: Sequence[Tensor], *, size_px: Sequence[int]) -> Tensor:
        """Return the pooled features, at the last stage's stride."""
        features_BDHW: Tensor = self.pooling(maps[0])
        return features_BDHW

    def classify_features(self, features_BDHW: Tensor) -> Tensor:
        """Return the main decoder's logits."""
        logits_BKHW: Tensor = self.decoder(features_BDHW)
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
        """Return the auxiliary decoders' logits, each of features that are perturbed in training mode."""
        assert self.auxiliary is not None
        change_BHW = change_BKHW.detach().argmax(dim=1) > 0
        perturbations = [perturb for perturb, count in AUXILIARY_DECODERS for _ in range(count)]
        logits = []
        for perturb, decode in zip(perturbations, self.auxiliary, strict=True):
            context = PerturbationContext(change_BHW=change_BHW, decode=decode)
            logits.append(decode(perturb(features_BDHW, context) if self.training else features_BDHW))
        return {"auxiliary_BKHW": tuple(self.resize_logits(one, size_px=change_BKHW.shape[-2:]) for one in logits)}


@declare_heads("auxiliary")
def build_cct(
    *,
    backbone: str = "resnet50s",
    pretrained: bool | str | Path = True,
    output_stride: int = 8,
    stages: int = STAGES,
    decoder_channels: int = 512,
    classes: int = 2,
    train_heads: bool = True,
) -> CCT:
    """Build the network.

    Args:
        backbone: see `encoders.timm.build_backbone`; "resnet50s" is the published one.
        pretrained: True or "imagenet", False or "none", or a file of weights for the backbone.
        output_stride: stride of the backbone's last map, where the backbone can change it.
        stages: how many of the backbone's four stages there are, the last of which is read. Published: 4. Fewer keep
            smaller objects: the last stage of a small backbone localises poorly.
        decoder_channels: channels of each mean of the pyramid and of the map that the decoders read.
        classes: unchanged and changed.
        train_heads: False leaves out the auxiliary decoders.

    Raises:
        ConfigError: a number out of range; also, with MissingExtraError and InputError, as `build_backbone`.
    """
    check_positive(decoder_channels=decoder_channels, classes=classes, stages=stages)
    if stages > STAGES:
        raise ConfigError(f"stages must be at most {STAGES}, the stages of a backbone; got {stages}.")
    encoder = build_backbone(backbone, weights=resolve_weights(pretrained), output_stride=output_stride, stages=stages)
    return CCT(encoder, channels=decoder_channels, classes=classes, train_heads=train_heads)
