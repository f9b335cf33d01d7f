"""The building blocks that three or more networks share: layers, resizing, padding, channel dropout, option checks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semicdvl.errors import ConfigError

CHANNEL_DROPOUT = 0.5
"""Share of the channels that feature perturbation drops (UniMatch)."""


def resolve_weights(pretrained: bool | str | Path) -> str | Path:
    """Return the weights of `build_backbone` that a builder's `pretrained` means."""
    return {True: "imagenet", False: "none"}[pretrained] if isinstance(pretrained, bool) else pretrained


def check_positive(**counts: int) -> None:
    """Refuse a width or a number of classes below 1.

    Raises:
        ConfigError: a number is below 1; the error names the first of them.
    """
    for name, count in counts.items():
        if count < 1:
            raise ConfigError(f"{name} must be 1 or more, got {count}.")


def resize_map(map_BDHW: Tensor, *, size_px: Sequence[int], align_corners: bool = False) -> Tensor:
    """Resize bilinearly; a map that already has the size is returned as it is."""
    if map_BDHW.shape[-2:] == tuple(size_px):
        return map_BDHW
    return F.interpolate(map_BDHW, size=tuple(size_px), mode="bilinear", align_corners=align_corners)


def pad_to_multiple(image_BCHW: Tensor, *, multiple_px: int) -> Tensor:
    """Repeat the last row and column until both sides are multiples; the image stays at the top left."""
    height_px, width_px = image_BCHW.shape[-2:]
    below_px, right_px = -height_px % multiple_px, -width_px % multiple_px
    if not below_px and not right_px:
        return image_BCHW
    return F.pad(image_BCHW, (0, right_px, 0, below_px), mode="replicate")


def absolute_differences(maps_t1: Sequence[Tensor], maps_t2: Sequence[Tensor]) -> list[Tensor]:
    """Return the absolute differences of the two dates' maps."""
    return [(one - other).abs() for one, other in zip(maps_t1, maps_t2, strict=True)]


def append_channel_dropout(maps: Sequence[Tensor]) -> list[Tensor]:
    """Append to each map, along the batch, the map with half of its channels dropped (UniMatch).

    The public code decodes one batch of both, too: its batch norm sees whole and dropped features together.
    """
    return [torch.cat([one, F.dropout2d(one, p=CHANNEL_DROPOUT)]) for one in maps]


def drop_complementary_channels(maps: Sequence[Tensor]) -> list[Tensor]:
    """Drop channels of two views of the same pairs so that each view keeps what the other drops (UniMatch V2).

    Each channel of a pair is dropped from either the first or the second view, by a fair coin, and doubled in the
    other; a random half of the pairs is left whole in both. Maps of equal width share their mask, as published for
    four maps of one width.

    Args:
        maps: BDHW maps whose batch is the first views of all pairs, then their second views.
    """
    count = len(maps[0]) // 2
    whole_B = torch.randperm(count, device=maps[0].device)[: count // 2]
    masks: dict[int, Tensor] = {}
    for width in dict.fromkeys(one.shape[1] for one in maps):
        kept_BD = torch.bernoulli(maps[0].new_full((count, width), CHANNEL_DROPOUT, dtype=torch.float32))
        scaled_BD = kept_BD / CHANNEL_DROPOUT
        both_2BD = torch.stack([scaled_BD, 1 / CHANNEL_DROPOUT - scaled_BD])
        both_2BD[:, whole_B] = 1.0
        masks[width] = both_2BD.flatten(0, 1)[:, :, None, None]
    return [one * masks[one.shape[1]].to(one.dtype) for one in maps]


def map_to_tokens(map_BDHW: Tensor) -> Tensor:
    """Flatten a map to tokens (B, H * W, D)."""
    return map_BDHW.flatten(2).transpose(1, 2)


def tokens_to_map(tokens_BND: Tensor, size: Sequence[int]) -> Tensor:
    """Reshape tokens to a map: the inverse of `map_to_tokens`."""
    batch, _, depth = tokens_BND.shape
    return tokens_BND.transpose(1, 2).reshape(batch, depth, *size)


class ConvBNReLU(nn.Sequential):
    """Convolution without bias that keeps the size, batch norm, ReLU."""

    def __init__(self, channels_in: int, channels_out: int, *, kernel_px: int = 1, dilation: int = 1) -> None:
        """Make the layers."""
        super().__init__()
        padding_px = dilation * (kernel_px // 2)
        self.conv = nn.Conv2d(channels_in, channels_out, kernel_px, padding=padding_px, dilation=dilation, bias=False)
        self.bn = nn.BatchNorm2d(channels_out)
        self.relu = nn.ReLU(inplace=True)


class PooledBatchNorm(nn.BatchNorm2d):
    """Batch norm of a map that was pooled to one or a few pixels.

    A batch of one has no variance there: where ordinary batch norm raises an error, this one uses its running
    statistics and does not update them.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise."""
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(input)
