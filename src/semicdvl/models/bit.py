"""BIT: both dates as a few tokens, related to each other by a transformer and decoded back to the pixels.

    t1, t2 ─ encoder, three stages ─ x2 ─ 3x3 32 ─┬─ 4 tokens per date (attention over pixels) ─ transformer over all 8
                                                  └─ pixels of a date attend to that date's tokens, 8 layers
    |difference| ─ to the input's size ─ 3x3 32 ─ 3x3 ─ change

The third stage keeps the second's stride. With resnet18: 3,495,778 parameters, every one of them used: the published
network's 12,402,506 include ResNet18's fourth stage and classifier, which its forward pass never reaches; they are not
built here. Eight channels per head in the decoder (`head_channels_decoder=8`, the released LEVIR-CD network):
3,037,026.
Source: Chen et al., Remote Sensing Image Change Detection with Transformers (2021), written from its description.

Differs from the public code: the backbone keeps its pretrained weights (there all weights are drawn anew from
N(0, 0.02) after they were loaded); the difference is resized to the input's size, whatever it is. The tokens' places in
time are learned, so that the network is not symmetric; they start from N(0, 0.02), which is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semicdvl.models.common.blocks import (
    ConvBNReLU,
    check_positive,
    map_to_tokens,
    resize_map,
    resolve_weights,
    tokens_to_map,
)
from semicdvl.models.common.heads import resolve_heads
from semicdvl.models.encoders.timm import Backbone, build_backbone
from semicdvl.types import Outputs

ATTENTION_HEADS = 8
BIT_MLP_RATIO = 2
"""Hidden channels of an MLP per channel."""


class TokenAttention(nn.Module):
    """Multi-head attention with residual and MLP; one layer norm serves queries and keys."""

    def __init__(self, channels: int, *, head_channels: int) -> None:
        """Make the layers; products are scaled by the tokens' channels, not by a head's, as published."""
        super().__init__()
        inner = ATTENTION_HEADS * head_channels
        self.scale = channels**-0.5
        self.norm = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, inner, bias=False)
        self.key = nn.Linear(channels, inner, bias=False)
        self.value = nn.Linear(channels, inner, bias=False)
        self.out = nn.Linear(inner, channels)
        self.mlp = nn.Sequential(
            nn.LayerNorm(channels),
            nn.Linear(channels, BIT_MLP_RATIO * channels),
            nn.GELU(),
            nn.Linear(BIT_MLP_RATIO * channels, channels),
        )

    def forward(self, query_BND: Tensor, context_BMD: Tensor) -> Tensor:
        """Return the query tokens, updated from the context tokens."""
        own_BND, other_BMD = self.norm(query_BND), self.norm(context_BMD)
        query, key, value = (
            _split_heads(layer(x))
            for layer, x in ((self.query, own_BND), (self.key, other_BMD), (self.value, other_BMD))
        )
        attended = F.scaled_dot_product_attention(query, key, value, scale=self.scale)
        updated_BND = query_BND + self.out(attended.transpose(1, 2).flatten(-2))
        result: Tensor = updated_BND + self.mlp(updated_BND)
        return result


class BITHead(nn.Module):
    """Decode both dates' maps to change logits of any size: everything behind the backbone."""

    def __init__(
        self, channels_in: int, *, channels: int, tokens: int, decoder_depth: int, head_channels: int, classes: int
    ) -> None:
        """Make the layers; the encoder's heads have 64 channels as published, the decoder's `head_channels`."""
        super().__init__()
        self.tokens = tokens
        self.reduce = nn.Conv2d(channels_in, channels, 3, padding=1)
        self.look = nn.Conv2d(channels, tokens, 1, bias=False)
        self.places = nn.Parameter(0.02 * torch.randn(1, 2 * tokens, channels))
        self.encode = TokenAttention(channels, head_channels=64)
        self.decode = nn.ModuleList(TokenAttention(channels, head_channels=head_channels) for _ in range(decoder_depth))
        self.classify = nn.Sequential(
            ConvBNReLU(channels, channels, kernel_px=3), nn.Conv2d(channels, classes, 3, padding=1)
        )

    def forward(self, map_t1_BDHW: Tensor, map_t2_BDHW: Tensor, *, size_px: Sequence[int]) -> Tensor:
        """Return logits."""
        maps = [self.reduce(F.interpolate(one, scale_factor=2, mode="nearest")) for one in (map_t1_BDHW, map_t2_BDHW)]
        tokens_BTD = torch.cat([self._extract_tokens(one) for one in maps], dim=1) + self.places
        tokens_BTD = self.encode(tokens_BTD, tokens_BTD)
        dates = zip(maps, tokens_BTD.split(self.tokens, dim=1), strict=True)
        one_BDHW, other_BDHW = (self._decode_pixels(map_BDHW, own_BTD) for map_BDHW, own_BTD in dates)
        difference_BDHW = resize_map((one_BDHW - other_BDHW).abs(), size_px=size_px)
        logits_BKHW: Tensor = self.classify(difference_BDHW)
        return logits_BKHW.float()

    def _extract_tokens(self, map_BDHW: Tensor) -> Tensor:
        """Return one date's tokens (BTD): means over its pixels, each with weights of its own."""
        weights_BTN: Tensor = self.look(map_BDHW).flatten(2).softmax(dim=-1)
        return weights_BTN @ map_to_tokens(map_BDHW)

    def _decode_pixels(self, map_BDHW: Tensor, tokens_BTD: Tensor) -> Tensor:
        """Update every pixel from its date's tokens."""
        pixels_BND = map_to_tokens(map_BDHW)
        for layer in self.decode:
            pixels_BND = layer(pixels_BND, tokens_BTD)
        return tokens_to_map(pixels_BND, map_BDHW.shape[-2:])


def _split_heads(tokens_BNE: Tensor) -> Tensor:
    """Split channels into heads: (B, heads, N, E / heads)."""
    batch, count, inner = tokens_BNE.shape
    return tokens_BNE.reshape(batch, count, ATTENTION_HEADS, inner // ATTENTION_HEADS).transpose(1, 2)


class BIT(nn.Module):
    """The network of this module's docstring; its builder makes it.

    Attributes:
        encoder: the backbone's first three stages, shared by both dates.
        heads: `change`.
    """

    symmetric = False
    heads = frozenset({"change"})

    def __init__(self, encoder: Backbone, head: BITHead) -> None:
        """Put a head on a backbone."""
        super().__init__()
        self.encoder, self.head = encoder, head

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
        maps = [self.encoder(image_BCHW)[-1] for image_BCHW in (t1_BCHW, t2_BCHW)]
        return Outputs(change_BKHW=self.head(*maps, size_px=t1_BCHW.shape[-2:]))


def build_bit(
    *,
    backbone: str = "resnet18",
    pretrained: bool | str | Path = True,
    tokens: int = 4,
    token_channels: int = 32,
    decoder_depth: int = 8,
    head_channels_decoder: int = 64,
    classes: int = 2,
) -> BIT:
    """Build the network.

    Args:
        backbone: see `encoders.timm.build_backbone`; its first three stages are taken. "resnet18" is the published one.
        pretrained: True or "imagenet", False or "none", or a file of weights for the backbone.
        tokens: tokens per date.
        token_channels: channels of tokens and of the map that is classified.
        decoder_depth: layers that update pixels from tokens.
        head_channels_decoder: channels of each of the 8 heads of these layers.
        classes: unchanged and changed.

    Raises:
        ConfigError: a number out of range; also, with MissingExtraError and InputError, as `build_backbone`.
    """
    check_positive(
        tokens=tokens,
        token_channels=token_channels,
        decoder_depth=decoder_depth,
        head_channels_decoder=head_channels_decoder,
        classes=classes,
    )
    encoder = build_backbone(backbone, weights=resolve_weights(pretrained), output_stride=8, stages=3)
    remove_dilation(encoder)
    head = BITHead(
        encoder.channels[-1],
        channels=token_channels,
        tokens=tokens,
        decoder_depth=decoder_depth,
        head_channels=head_channels_decoder,
        classes=classes,
    )
    return BIT(encoder, head)


def remove_dilation(encoder: Backbone) -> None:
    """Remove the dilation that the third stage's stride brings: the published BasicBlock has none."""
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d) and module.dilation != (1, 1):
            module.padding = tuple(side // 2 for side in module.kernel_size)
            module.dilation = (1, 1)
