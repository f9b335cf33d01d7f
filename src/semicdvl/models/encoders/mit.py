"""The hierarchical transformer encoder of SegFormer (MiT), as ChangeFormer and BAN take it.

One image in, four maps out. Each of four stages: overlapping patches by a strided convolution, blocks of attention
(keys and values from a map that is reduced by a strided convolution) and of an MLP with a depth-wise 3x3 convolution, a
layer norm. Source: Xie et al., SegFormer (2021).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timm.layers.drop import DropPath
from torch import Tensor, nn

from semicdvl.models.common.blocks import map_to_tokens, tokens_to_map

NORM_EPS = 1e-6


@dataclass(frozen=True)
class MiTConfig:
    """Hold the sizes of the encoder, one number per stage.

    Attributes:
        widths: channels.
        depths: blocks.
        heads: heads of attention.
        reductions: stride of the convolution before keys and values.
        patch_px: kernel of the convolution that makes the patches; the strides are 4, 2, 2, 2.
        drop, attention_drop: dropout in MLPs and projections, and of attention weights.
        drop_path: share of pairs for which the last block is left out; it grows linearly from 0 at the first.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    reductions: tuple[int, ...] = (8, 4, 2, 1)
    patch_px: tuple[int, ...] = (7, 3, 3, 3)
    drop: float = 0.0
    attention_drop: float = 0.0
    drop_path: float = 0.1


MIT_B0_CONFIG = MiTConfig(widths=(32, 64, 160, 256), depths=(2, 2, 2, 2), heads=(1, 2, 5, 8))
PATCH_STRIDES = (4, 2, 2, 2)
MIT_MLP_RATIO = 4


class ReducedAttention(nn.Module):
    """Multi-head attention whose keys and values come from a reduced map."""

    def __init__(self, width: int, *, heads: int, reduction: int, drop: float, attention_drop: float) -> None:
        """Make the layers."""
        super().__init__()
        self.heads, self.attention_drop = heads, attention_drop
        self.query, self.keys_values = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out, self.drop = nn.Linear(width, width), nn.Dropout(drop)
        self.reduce: nn.Conv2d | None = None
        if reduction > 1:
            self.reduce = nn.Conv2d(width, width, reduction, stride=reduction)
            self.norm = nn.LayerNorm(width)

    def forward(self, tokens_BND: Tensor, *, size: tuple[int, int]) -> Tensor:
        """Return tokens; `size` is the map's height and width, whose product is N."""
        seen_BMD = tokens_BND
        if self.reduce is not None:
            smaller = self.reduce(_pad_to_size(tokens_to_map(tokens_BND, size), self.reduce.stride[0]))
            seen_BMD = self.norm(map_to_tokens(smaller))
        query = self._split_heads(self.query(tokens_BND))
        key, value = (self._split_heads(half) for half in self.keys_values(seen_BMD).chunk(2, dim=-1))
        drop = self.attention_drop if self.training else 0.0
        found = F.scaled_dot_product_attention(query, key, value, dropout_p=drop)
        result: Tensor = self.drop(self.out(found.transpose(1, 2).flatten(2)))
        return result

    def _split_heads(self, tokens_BND: Tensor) -> Tensor:
        """Split channels into heads: (B, heads, N, D / heads)."""
        batch, count, depth = tokens_BND.shape
        return tokens_BND.reshape(batch, count, self.heads, depth // self.heads).transpose(1, 2)


class MixMLP(nn.Module):
    """An MLP with a depth-wise 3x3 convolution over a pixel's neighbours."""

    def __init__(self, width: int, *, hidden: int, drop: float = 0.0) -> None:
        """Make the layers."""
        super().__init__()
        self.first, self.second = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.drop = nn.Dropout(drop)

    def forward(self, tokens_BND: Tensor, *, size: tuple[int, int]) -> Tensor:
        """Return tokens; `size` is the map's height and width."""
        hidden_BNE = map_to_tokens(self.depthwise(tokens_to_map(self.first(tokens_BND), size)))
        result: Tensor = self.drop(self.second(self.drop(F.gelu(hidden_BNE))))
        return result


class TransformerBlock(nn.Module):
    """Attention and MLP, each behind a layer norm and beside a residual."""

    def __init__(self, width: int, settings: MiTConfig, *, stage: int, drop_path: float) -> None:
        """Make the layers."""
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(width, eps=NORM_EPS), nn.LayerNorm(width, eps=NORM_EPS)
        self.attention = ReducedAttention(
            width,
            heads=settings.heads[stage],
            reduction=settings.reductions[stage],
            drop=settings.drop,
            attention_drop=settings.attention_drop,
        )
        self.mlp = MixMLP(width, hidden=MIT_MLP_RATIO * width, drop=settings.drop)
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens_BND: Tensor, *, size: tuple[int, int]) -> Tensor:
        """Return tokens."""
        tokens_BND = tokens_BND + self.drop_path(self.attention(self.norm_1(tokens_BND), size=size))
        result: Tensor = tokens_BND + self.drop_path(self.mlp(self.norm_2(tokens_BND), size=size))
        return result


class TransformerStage(nn.Module):
    """Patches, blocks, layer norm: reduce a map to a smaller one."""

    def __init__(self, before: int, settings: MiTConfig, *, stage: int, drop_paths: Iterator[float]) -> None:
        """Make the layers."""
        super().__init__()
        width, kernel_px = settings.widths[stage], settings.patch_px[stage]
        self.patches = nn.Conv2d(before, width, kernel_px, stride=PATCH_STRIDES[stage], padding=kernel_px // 2)
        self.patches_norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(
            TransformerBlock(width, settings, stage=stage, drop_path=next(drop_paths))
            for _ in range(settings.depths[stage])
        )
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)

    def forward(self, map_BDHW: Tensor) -> Tensor:
        """Return a map."""
        patches_BDHW = self.patches(map_BDHW)
        size = (patches_BDHW.shape[-2], patches_BDHW.shape[-1])
        tokens_BND = self.patches_norm(map_to_tokens(patches_BDHW))
        for block in self.blocks:
            tokens_BND = block(tokens_BND, size=size)
        return tokens_to_map(self.norm(tokens_BND), size)


class MiT(nn.Module):
    """The encoder.

    Attributes:
        channels: channels of the four maps.
        strides: pixels of the input per pixel of each map.
        stages: one after the other they are the encoder; BAN inserts its bridges between them.
    """

    strides = (4, 8, 16, 32)

    def __init__(self, settings: MiTConfig) -> None:
        """Make the stages; linear layers start from N(0, 0.02), convolutions from He's normal over their outputs."""
        super().__init__()
        self.channels = settings.widths
        drop_paths = iter(torch.linspace(0, settings.drop_path, sum(settings.depths), device="cpu").tolist())
        widths = zip((3, *settings.widths[:-1]), range(len(settings.widths)), strict=True)
        self.stages = nn.ModuleList(
            TransformerStage(before, settings, stage=stage, drop_paths=drop_paths) for before, stage in widths
        )
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
                nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """Return four maps (BDHW), fine to coarse."""
        maps: list[Tensor] = []
        for stage in self.stages:
            maps.append(stage(maps[-1] if maps else image_BCHW))
        return maps


def _pad_to_size(map_BDHW: Tensor, side: int) -> Tensor:
    """Repeat the last row and column of a map that is smaller than the convolution's kernel."""
    below, right = max(0, side - map_BDHW.shape[-2]), max(0, side - map_BDHW.shape[-1])
    return F.pad(map_BDHW, (0, right, 0, below), mode="replicate") if below or right else map_BDHW
