"""FC-EF, FC-Siam-diff and FC-Siam-conc: small U-Nets for change, trained from scratch.

    fc_ef         both dates as one image of six bands                                    1,350,578 parameters
    fc_siam_diff  one encoder for both dates; the decoder gets |difference| of the skips  1,350,146
    fc_siam_conc  one encoder for both dates; the decoder gets both dates' skips          1,545,986

Four levels of 16, 32, 64 and 128 channels with 2, 2, 3 and 3 convolutions. In both Siamese ones the bottleneck is date
2's, as published: they are not symmetric in time. Source: Daudt et al., Fully Convolutional Siamese Networks for Change
Detection (2018).

Differs from the public code: dropout erases the same channels at both dates (there each date draws its own, so that a
pair without any change differs during training); logits where it gives log probabilities (the same to a cross entropy).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semicdvl.errors import ConfigError
from semicdvl.models.common.blocks import check_positive
from semicdvl.models.common.heads import resolve_heads
from semicdvl.types import Outputs

CONVS_PER_LEVEL = (2, 2, 3, 3)
FCFusion = Literal["early", "difference", "concatenation"]


class SharedDropoutConv(nn.Module):
    """3x3 convolution (transposed in the decoder), batch norm, ReLU, dropout of channels; for one map or one per date.

    Every map is normalised by its own statistics; the same channels of all of them are dropped.
    """

    def __init__(self, channels_in: int, channels_out: int, *, transposed: bool, dropout: float) -> None:
        """Make the layers."""
        super().__init__()
        kind = nn.ConvTranspose2d if transposed else nn.Conv2d
        self.conv = kind(channels_in, channels_out, 3, padding=1)
        self.bn = nn.BatchNorm2d(channels_out)
        self.dropout = dropout

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return one map per input map."""
        found = [F.relu(self.bn(self.conv(one))) for one in maps]
        if not self.training or not self.dropout:
            return found
        kept_BD11 = F.dropout(torch.ones_like(found[0][..., :1, :1]), p=self.dropout)
        return [one * kept_BD11 for one in found]


class FCSiam(nn.Module):
    """The networks of this module's docstring; their builders make them.

    They have no attribute `encoder`: nothing starts from pretrained weights.

    Attributes:
        heads: `change`.
    """

    symmetric = False
    heads = frozenset({"change"})

    def __init__(self, fusion: FCFusion, *, width: int, dropout: float, classes: int) -> None:
        """Make the levels."""
        super().__init__()
        self.fusion = fusion
        widths = [width * 2**level for level in range(len(CONVS_PER_LEVEL))]
        images = 2 if fusion == "early" else 1
        skips = 2 if fusion == "concatenation" else 1

        def chain(widths: Sequence[int], *, transposed: bool) -> nn.Sequential:
            pairs = pairwise(widths)
            return nn.Sequential(*(SharedDropoutConv(a, b, transposed=transposed, dropout=dropout) for a, b in pairs))

        self.levels = nn.ModuleList(
            chain([before, *[own] * count], transposed=False)
            for before, own, count in zip([3 * images, *widths[:-1]], widths, CONVS_PER_LEVEL, strict=True)
        )
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(own, own, 3, stride=2, padding=1, output_padding=1) for own in widths
        )
        self.back = nn.ModuleList(
            chain([own * (1 + skips), *[own] * (count - 1), after], transposed=True)
            for own, after, count in zip(widths[1:], widths[:-1], CONVS_PER_LEVEL[1:], strict=True)
        )
        self.last = chain([width * (1 + skips), width], transposed=True)
        self.classify = nn.ConvTranspose2d(width, classes, 3, padding=1)

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
        maps = [torch.cat([t1_BCHW, t2_BCHW], dim=1)] if self.fusion == "early" else [t1_BCHW, t2_BCHW]
        skips = []
        for level in self.levels:
            maps = level(maps)
            skips.append(self._fuse_skip(maps))
            # a side of one pixel stays one: images of any size can be halved four times
            maps = [F.max_pool2d(one, 2, ceil_mode=1 in one.shape[-2:]) for one in maps]
        map_BDHW = maps[-1]  # of date 2, as published
        for up, back, skip_BDHW in zip(
            reversed(self.ups), [*reversed(self.back), self.last], reversed(skips), strict=True
        ):
            joined_BDHW = torch.cat([_fit_size(up(map_BDHW), skip_BDHW), skip_BDHW], dim=1)
            (map_BDHW,) = back([joined_BDHW])
        return Outputs(change_BKHW=self.classify(map_BDHW).float())

    def _fuse_skip(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the decoder's skip map of a level."""
        if self.fusion == "difference":
            return (maps[0] - maps[1]).abs()
        return torch.cat(list(maps), dim=1)


def _fit_size(map_BDHW: Tensor, like_BDHW: Tensor) -> Tensor:
    """Repeat the last row and column, or cut, to another map's size (pooling rounded an odd side down)."""
    height, width = like_BDHW.shape[-2:]
    below, right = max(0, height - map_BDHW.shape[-2]), max(0, width - map_BDHW.shape[-1])
    padded = F.pad(map_BDHW, (0, right, 0, below), mode="replicate") if below or right else map_BDHW
    return padded[..., :height, :width]


def _build_fc_siam(fusion: FCFusion, *, width: int, dropout: float, classes: int) -> FCSiam:
    """Check the settings and make the network."""
    check_positive(width=width, classes=classes)
    if not 0 <= dropout < 1:
        raise ConfigError(f"dropout must be at least 0 and below 1, got {dropout}.")
    return FCSiam(fusion, width=width, dropout=dropout, classes=classes)


def build_fc_ef(*, width: int = 16, dropout: float = 0.2, classes: int = 2) -> FCSiam:
    """Build FC-EF.

    Args:
        width: channels of the finest level; each further one has twice as many.
        dropout: share of channels that each layer drops in training.
        classes: unchanged and changed.

    Raises:
        ConfigError: a number out of range.
    """
    return _build_fc_siam("early", width=width, dropout=dropout, classes=classes)


def build_fc_siam_diff(*, width: int = 16, dropout: float = 0.2, classes: int = 2) -> FCSiam:
    """Build FC-Siam-diff; arguments as `build_fc_ef`."""
    return _build_fc_siam("difference", width=width, dropout=dropout, classes=classes)


def build_fc_siam_conc(*, width: int = 16, dropout: float = 0.2, classes: int = 2) -> FCSiam:
    """Build FC-Siam-conc; arguments as `build_fc_ef`."""
    return _build_fc_siam("concatenation", width=width, dropout=dropout, classes=classes)
