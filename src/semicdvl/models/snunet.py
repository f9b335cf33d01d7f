"""SNUNet-CD: a Siamese UNet++ with dense skips of both dates and ensemble channel attention; trained from scratch.

    column 0: encoder maps of both dates (A, B) ─ column c, row r: all columns before it in its row, both dates' maps,
    and the map below it, enlarged ─ the four maps of row 0 ─ channel attention ─ 1x1

With 32 channels: 12,034,978 parameters. What comes from below into column 1 is date B's map alone and A's deepest level
is never computed, as published: the network is not symmetric in time.
Source: Fang et al., SNUNet-CD (2021), and its public code.

Differs from the public code: images come normalised (there they are raw 0 to 255), logits are given at the input's size
for any size (sides are filled up to multiples of 16 by repeating the last row and column).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semicdvl.models.common.blocks import check_positive, pad_to_multiple
from semicdvl.models.common.heads import resolve_heads
from semicdvl.types import Outputs

DEPTH = 5
"""Rows: the input's size and four halvings."""
ALL_RATIO, SUM_RATIO = 16, 4
"""Reduction of the channel attention over all four maps, and over their sum."""


class NestedBlock(nn.Module):
    """Two 3x3 convolutions; the first one's output is added back before the last ReLU."""

    def __init__(self, channels_in: int, channels: int) -> None:
        """Make the layers."""
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels, 3, padding=1)
        self.first_norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.second_norm = nn.BatchNorm2d(channels)

    def forward(self, map_BDHW: Tensor) -> Tensor:
        """Return a map of the same size."""
        kept_BDHW = self.first(map_BDHW)
        deeper_BDHW = self.second(F.relu(self.first_norm(kept_BDHW)))
        return F.relu(self.second_norm(deeper_BDHW) + kept_BDHW)


class ChannelAttention(nn.Module):
    """A weight in (0, 1) per channel, from its mean and its largest value."""

    def __init__(self, channels: int, *, ratio: int) -> None:
        """Make the two layers, which mean and largest value share."""
        super().__init__()
        hidden = max(1, channels // ratio)
        self.layers = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False), nn.ReLU(), nn.Conv2d(hidden, channels, 1, bias=False)
        )

    def forward(self, map_BDHW: Tensor) -> Tensor:
        """Return the weights (BD11)."""
        return torch.sigmoid(
            self.layers(F.adaptive_avg_pool2d(map_BDHW, 1)) + self.layers(F.adaptive_max_pool2d(map_BDHW, 1))
        )


class SNUNet(nn.Module):
    """The network of this module's docstring; its builder makes it.

    It has no attribute `encoder`: nothing starts from pretrained weights.

    Attributes:
        heads: `change`.
    """

    symmetric = False
    heads = frozenset({"change"})

    def __init__(self, *, width: int, classes: int) -> None:
        """Make the levels; convolutions start from He's normal distribution over their outputs."""
        super().__init__()
        widths = [width * 2**row for row in range(DEPTH)]
        self.levels = nn.ModuleList(NestedBlock(a, b) for a, b in zip([3, *widths[:-1]], widths, strict=True))
        self.nodes, self.ups = nn.ModuleDict(), nn.ModuleDict()
        for column in range(1, DEPTH):
            for row in range(DEPTH - column):
                name = f"{row}_{column}"
                self.ups[name] = nn.ConvTranspose2d(widths[row + 1], widths[row + 1], 2, stride=2)
                self.nodes[name] = NestedBlock(widths[row] * (column + 1) + widths[row + 1], widths[row])
        maps = DEPTH - 1
        self.attend_all = ChannelAttention(width * maps, ratio=ALL_RATIO)
        self.attend_sum = ChannelAttention(width, ratio=SUM_RATIO)
        self.classify = nn.Conv2d(width * maps, classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

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
        height_px, width_px = t1_BCHW.shape[-2:]
        multiple_px = 2 ** (DEPTH - 1)
        maps_t1 = self._encode(pad_to_multiple(t1_BCHW, multiple_px=multiple_px), rows=DEPTH - 1)
        maps_t2 = self._encode(pad_to_multiple(t2_BCHW, multiple_px=multiple_px), rows=DEPTH)
        finest = self._decode_nested(maps_t1, maps_t2)
        all_BDHW = torch.cat(finest, dim=1)
        total_BDHW = torch.stack(finest).sum(dim=0)
        by_sum_BD11 = self.attend_sum(total_BDHW).repeat(1, len(finest), 1, 1)
        attended_BDHW = self.attend_all(all_BDHW) * (all_BDHW + by_sum_BD11)
        return Outputs(change_BKHW=self.classify(attended_BDHW).float()[..., :height_px, :width_px])

    def _encode(self, image_BCHW: Tensor, *, rows: int) -> list[Tensor]:
        """Return one date's maps of the first rows."""
        maps = [self.levels[0](image_BCHW)]
        for level in list(self.levels)[1:rows]:
            maps.append(level(F.max_pool2d(maps[-1], 2)))
        return maps

    def _decode_nested(self, maps_t1: list[Tensor], maps_t2: list[Tensor]) -> list[Tensor]:
        """Return row 0 of columns 1 to 4."""
        below = maps_t2  # the column before: what is enlarged into the next one
        before: list[list[Tensor]] = [[one, other] for one, other in zip(maps_t1, maps_t2[:-1], strict=True)]
        for column in range(1, DEPTH):
            nodes = []
            for row in range(DEPTH - column):
                name = f"{row}_{column}"
                larger_BDHW = self.ups[name](below[row + 1])
                nodes.append(self.nodes[name](torch.cat([*before[row], larger_BDHW], dim=1)))
            for row, one in enumerate(nodes):
                before[row].append(one)
            below = nodes
        return before[0][2:]


def build_snunet(*, width: int = 32, classes: int = 2) -> SNUNet:
    """Build the network.

    Args:
        width: channels of the finest row; each further one has twice as many.
        classes: unchanged and changed.

    Raises:
        ConfigError: a number out of range.
    """
    check_positive(width=width, classes=classes)
    return SNUNet(width=width, classes=classes)
