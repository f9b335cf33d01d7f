"""BAN: a frozen foundation model whose features are injected into a small change network, stage by stage.

    image ─ resized ─ foundation model, frozen ─ three maps ─────────┐
    image ─ side network: stage ─ bridge ─ stage ─ bridge ─ ... ─ maps of the date ─ both dates ─ head ─ change
    bridge: x + attention of x to the map, + MLP, + the map, enlarged

Two side networks: a ResNet (any convolutional backbone) whose first three stages are bridged, with BIT's head behind
the third; or `mit_b0`, stages 2 to 4 bridged, with an MLP head. The default is what the SemiCD-VL paper compares with,
as far as it states: CLIP ViT-L/14 at 336 px, deep-stem ResNet50, BIT's head. Trainable 16,979,814 parameters, frozen
227,928,064. Source: Li et al., A New Learning Paradigm for Foundation Model-based Remote Sensing Change Detection
(2024), and its public code.

Differs from the public code: each branch gets the normalisation that it was trained with (there both get CLIP's); the
ResNet50 form was never released, its bridges' sizes follow from the released ResNet18 form; CLIP's position
embedding is frozen like the rest. The MLP in a bridge has 4 hidden channels (not 4 times the channels), as there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from semicdvl.errors import ConfigError
from semicdvl.models.bit import BITHead, remove_dilation
from semicdvl.models.common.blocks import (
    ConvBNReLU,
    check_positive,
    map_to_tokens,
    resize_map,
    resolve_weights,
    tokens_to_map,
)
from semicdvl.models.common.heads import resolve_heads
from semicdvl.models.encoders.foundation import FoundationEncoder, build_foundation
from semicdvl.models.encoders.mit import MIT_B0_CONFIG, MiT, MixMLP
from semicdvl.models.encoders.timm import PyramidBackbone, build_backbone, load_weights_file
from semicdvl.types import Outputs

MIT_B0 = "mit_b0"
BRIDGE_HIDDEN_CHANNELS = 4
RESNET_ATTENTION_HEADS = (1, 2, 4)
"""Heads of attention in the bridges behind a ResNet's stages."""
MLP_HEAD_CHANNELS = 128


class Bridge(nn.Module):
    """Update a stage's map from the foundation model's map by cross-attention."""

    def __init__(self, foundation: int, channels: int, *, heads: int) -> None:
        """Make the layers."""
        super().__init__()
        self.foundation_norm, self.reduce = nn.LayerNorm(foundation), nn.Linear(foundation, channels)
        self.norm_1, self.norm_2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attention = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.mlp = MixMLP(channels, hidden=BRIDGE_HIDDEN_CHANNELS)

    def forward(self, own_BDHW: Tensor, foundation_BDHW: Tensor) -> Tensor:
        """Return the updated map of the stage."""
        size = (own_BDHW.shape[-2], own_BDHW.shape[-1])
        own_BND = map_to_tokens(own_BDHW)
        other_BMD = self.reduce(self.foundation_norm(map_to_tokens(foundation_BDHW)))
        own_BND = own_BND + self.attention(self.norm_1(own_BND), other_BMD, other_BMD, need_weights=False)[0]
        own_BND = own_BND + self.mlp(self.norm_2(own_BND), size=size)
        other_BDHW = tokens_to_map(other_BMD, foundation_BDHW.shape[-2:])
        return tokens_to_map(own_BND, size) + resize_map(other_BDHW, size_px=size)


class MLPHead(nn.Module):
    """Fuse four maps of each date at the finest one's size, then both dates."""

    def __init__(self, channels_in: Sequence[int], *, classes: int) -> None:
        """Make the layers."""
        super().__init__()
        self.stages = nn.ModuleList(ConvBNReLU(count, MLP_HEAD_CHANNELS) for count in channels_in)
        self.fuse = ConvBNReLU(MLP_HEAD_CHANNELS * len(self.stages), MLP_HEAD_CHANNELS)
        self.compare = MixMLP(2 * MLP_HEAD_CHANNELS, hidden=2 * MLP_HEAD_CHANNELS)
        self.classify = nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(2 * MLP_HEAD_CHANNELS, classes, 1))

    def forward(self, maps_t1: Sequence[Tensor], maps_t2: Sequence[Tensor], *, size_px: Sequence[int]) -> Tensor:
        """Return logits."""
        both_BDHW = torch.cat([self._fuse_date(maps_t1), self._fuse_date(maps_t2)], dim=1)
        size = (both_BDHW.shape[-2], both_BDHW.shape[-1])
        compared_BDHW = both_BDHW + tokens_to_map(self.compare(map_to_tokens(both_BDHW), size=size), size)
        return resize_map(self.classify(compared_BDHW).float(), size_px=size_px)

    def _fuse_date(self, maps: Sequence[Tensor]) -> Tensor:
        """Return one date's map."""
        reduced = [stage(one) for stage, one in zip(self.stages, maps, strict=True)]
        result: Tensor = self.fuse(
            torch.cat([resize_map(one, size_px=reduced[0].shape[-2:]) for one in reduced], dim=1)
        )
        return result


class BAN(nn.Module):
    """The network of this module's docstring; its builder makes it.

    Attributes:
        foundation: frozen; its weights are part of the state, so that a trained run needs no hub.
        encoder: the side network, shared by both dates.
        heads: `change`.
    """

    symmetric = False
    heads = frozenset({"change"})

    def __init__(self, foundation: FoundationEncoder, encoder: MiT | PyramidBackbone, head: MLPHead | BITHead) -> None:
        """Put bridges between a foundation model and the stages of a side network."""
        super().__init__()
        self.foundation, self.encoder, self.head = foundation, encoder, head
        heads = MIT_B0_CONFIG.heads[1:] if isinstance(encoder, MiT) else RESNET_ATTENTION_HEADS
        channels = encoder.channels[-len(heads) :]  # the stages that are bridged
        self.bridges = nn.ModuleList(
            Bridge(*sizes, heads=count) for *sizes, count in zip(foundation.channels, channels, heads, strict=True)
        )

    def forward(self, t1_BCHW: Tensor, t2_BCHW: Tensor, *, heads: frozenset[str] | None = None) -> Outputs:
        """Return change logits at the size of the input.

        Args:
            t1_BCHW: date 1, RGB / 255 normalised with the ImageNet mean and deviation, of any size.
            t2_BCHW: date 2.
            heads: `change`, or None.

        Raises:
            ConfigError: a head that this network does not have.
        """
        resolve_heads(heads, has=self.heads)
        maps_t1, maps_t2 = self._encode_date(t1_BCHW), self._encode_date(t2_BCHW)
        size_px = t1_BCHW.shape[-2:]
        if isinstance(self.head, BITHead):
            return Outputs(change_BKHW=self.head(maps_t1[-1], maps_t2[-1], size_px=size_px))
        return Outputs(change_BKHW=self.head(maps_t1, maps_t2, size_px=size_px))

    def _encode_date(self, image_BCHW: Tensor) -> list[Tensor]:
        """Return the side network's maps of one date."""
        foundation_maps, maps = self.foundation(image_BCHW), list[Tensor]()
        stages, map_BDHW = _split_stages(self.encoder), image_BCHW
        if isinstance(self.encoder, PyramidBackbone):
            map_BDHW = self.encoder.convert_normalisation(image_BCHW)
        for index, stage in enumerate(stages, start=len(self.bridges) - len(stages)):
            for module in stage:
                map_BDHW = module(map_BDHW)
            if index >= 0:
                map_BDHW = self.bridges[index](map_BDHW, foundation_maps[index])
            maps.append(map_BDHW)
        return maps


def _split_stages(encoder: MiT | PyramidBackbone) -> list[list[nn.Module]]:
    """Return the modules of each stage; modules before timm's first stage belong to it."""
    if isinstance(encoder, MiT):
        return [[stage] for stage in encoder.stages]
    net: Any = encoder.net
    stages: list[list[nn.Module]] = [[]]
    for name, module in net.items():
        stages[-1].append(module)
        if name in net.return_layers:
            stages.append([])
    return stages[:-1]


def build_ban(
    *,
    foundation: str = "vit_large_patch14_clip_quickgelu_336.openai",
    foundation_weights: str | Path = "published",
    foundation_px: int | None = None,
    backbone: str = "resnet50s",
    pretrained: bool | str | Path = True,
    classes: int = 2,
) -> BAN:
    """Build the network.

    Args:
        foundation: see `encoders.foundation.build_foundation`: a vision transformer of timm, or a folder or hub name
            for transformers. BAN's own: CLIP's ViT-B/16 at 224 px and ViT-L/14 at 336 px.
        foundation_weights: "published", or (for timm) a file. With pretrained = false nothing is loaded here either.
        foundation_px: side of the square that images are resized to for the foundation model; None: as in its training.
        backbone: of the side network: "mit_b0", or a convolutional one of `encoders.timm.build_backbone`.
        pretrained: True or "imagenet", False or "none", or a file of weights for the side network. There are no
            ImageNet weights of mit_b0 here: name a file, or take "scratch", which leaves the foundation its own.
        classes: unchanged and changed.

    Raises:
        ConfigError: a part that is not known, or that has no such weights; also as `build_foundation` and
            `build_backbone`.
    """
    check_positive(classes=classes)
    weights = resolve_weights(pretrained)
    loads = foundation_weights if weights != "none" else "none"
    frozen = build_foundation(foundation, weights=loads, size_px=foundation_px)
    side_weights = "none" if weights == "scratch" else weights
    if backbone == MIT_B0:
        mit = _build_mit(side_weights)
        return BAN(frozen, mit, MLPHead(mit.channels, classes=classes))
    encoder = build_backbone(backbone, weights=side_weights, output_stride=8, stages=len(RESNET_ATTENTION_HEADS))
    stepwise = isinstance(encoder, PyramidBackbone) and hasattr(encoder.net, "return_layers")
    if not isinstance(encoder, PyramidBackbone) or not stepwise or encoder.channels_last:
        raise ConfigError(f"backbone '{backbone}' cannot be bridged stage by stage; take mit_b0, or a ResNet.")
    remove_dilation(encoder)
    head = BITHead(encoder.channels[-1], channels=32, tokens=4, decoder_depth=8, head_channels=64, classes=classes)
    return BAN(frozen, encoder, head)


def _build_mit(weights: str | Path) -> MiT:
    """Make the transformer side network."""
    if weights == "imagenet":
        raise ConfigError(
            f"there are no ImageNet weights of '{MIT_B0}' here; take pretrained = \"scratch\", a file of weights, or a "
            "ResNet as the side network."
        )
    mit = MiT(MIT_B0_CONFIG)
    if weights != "none":
        load_weights_file(mit, Path(weights))
    return mit
