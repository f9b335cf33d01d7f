"""The encoder of the embedded VLM: EfficientNet-Lite2 without its classifier, five feature maps at strides 2 to 32.

Source: Tan and Le, EfficientNet (2019), in the Lite form that Google published in 2020: without squeeze-and-excitation,
with ReLU6. Layers, names and numbers are those of `tf_efficientnet_lite2` of timm, and so are the maps, to the bit.
Own code, because no part of timm can be imported alone: `timm.models.efficientnet` and `timm.layers` alike bring all of
timm, torchvision and the compiler of torch (1,490 modules, which take longer than PyTorch itself). torchvision brings
the same compiler and has no Lite networks; a test holds this encoder against timm's, to the bit.
"""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

STEM_CHANNELS = 32
EXPANSION = 6
STAGES = (
    # kernel, stride, channels, blocks
    (3, 1, 16, 1),
    (3, 2, 24, 3),
    (5, 2, 48, 3),
    (3, 2, 88, 4),
    (5, 1, 120, 4),
    (5, 2, 208, 5),
    (3, 1, 352, 1),
)
"""Stages from the finest; the blocks of the first one do not expand, and the first block of each has its stride."""
MAP_STAGES = (0, 1, 2, 4, 6)
"""The stages whose output is a feature map: the last ones at strides 2, 4, 8, 16 and 32."""
NORM_EPS = 1e-3


class _Norm(nn.BatchNorm2d):
    """Batch norm, maybe with ReLU6."""

    def __init__(self, channels: int, *, active: bool = True) -> None:
        super().__init__(channels, eps=NORM_EPS)
        self.act: nn.Module = nn.ReLU6(inplace=True) if active else nn.Identity()

    def forward(self, x_BDHW: Tensor) -> Tensor:
        return cast(Tensor, self.act(super().forward(x_BDHW)))


class _Conv2dSame(nn.Conv2d):
    """Convolution with the padding of TensorFlow: outputs of size / stride, rounded up, and the odd pixel below."""

    def forward(self, x_BDHW: Tensor) -> Tensor:
        pads = []
        for size, kernel, stride in zip(x_BDHW.shape[:1:-1], self.kernel_size, self.stride, strict=True):
            whole = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [whole // 2, whole - whole // 2]
        return F.conv2d(F.pad(x_BDHW, pads), self.weight, self.bias, self.stride, groups=self.groups)


def _make_convolution(before: int, after: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    if stride == 1:
        return nn.Conv2d(before, after, kernel, padding=kernel // 2, groups=groups, bias=False)
    return _Conv2dSame(before, after, kernel, stride=stride, groups=groups, bias=False)


class SeparableBlock(nn.Module):
    """A depthwise and a pointwise convolution."""

    def __init__(self, before: int, after: int, kernel: int) -> None:
        """Build with random weights."""
        super().__init__()
        self.conv_dw = _make_convolution(before, before, kernel, groups=before)
        self.bn1: nn.Module = _Norm(before)
        self.conv_pw = nn.Conv2d(before, after, 1, bias=False)
        self.bn2: nn.Module = _Norm(after, active=False)

    def forward(self, x_BDHW: Tensor) -> Tensor:
        """Return the output."""
        return cast(Tensor, self.bn2(self.conv_pw(self.bn1(self.conv_dw(x_BDHW)))))


class InvertedResidual(nn.Module):
    """Expand, convolve each channel, project; added to the input where both are of one size."""

    def __init__(self, before: int, after: int, kernel: int, *, stride: int) -> None:
        """Build with random weights."""
        super().__init__()
        wide = before * EXPANSION
        self.conv_pw = nn.Conv2d(before, wide, 1, bias=False)
        self.bn1: nn.Module = _Norm(wide)
        self.conv_dw = _make_convolution(wide, wide, kernel, stride=stride, groups=wide)
        self.bn2: nn.Module = _Norm(wide)
        self.conv_pwl = nn.Conv2d(wide, after, 1, bias=False)
        self.bn3: nn.Module = _Norm(after, active=False)
        self.adds = stride == 1 and before == after

    def forward(self, x_BDHW: Tensor) -> Tensor:
        """Return the output."""
        y_BDHW = self.bn2(self.conv_dw(self.bn1(self.conv_pw(x_BDHW))))
        y_BDHW = self.bn3(self.conv_pwl(y_BDHW))
        return cast(Tensor, y_BDHW + x_BDHW if self.adds else y_BDHW)


class LiteEncoder(nn.Module):
    """Image BCHW -> five feature maps BDHW, from the finest."""

    name = "tf_efficientnet_lite2"
    channels = tuple(STAGES[stage][2] for stage in MAP_STAGES)

    def __init__(self) -> None:
        """Build with random weights; a caller loads trained ones."""
        super().__init__()
        self.conv_stem = _make_convolution(3, STEM_CHANNELS, 3, stride=2)
        self.bn1: nn.Module = _Norm(STEM_CHANNELS)
        stages, before = [], STEM_CHANNELS
        for number, (kernel, stride, after, count) in enumerate(STAGES):
            blocks: list[nn.Module] = []
            for at in range(count):
                blocks.append(
                    InvertedResidual(before, after, kernel, stride=1 if at else stride)
                    if number
                    else SeparableBlock(before, after, kernel)
                )
                before = after
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """Return the feature maps."""
        x_BDHW: Tensor = self.bn1(self.conv_stem(image_BCHW))
        maps = []
        for number, stage in enumerate(self.blocks):
            x_BDHW = stage(x_BDHW)
            if number in MAP_STAGES:
                maps.append(x_BDHW)
        return maps
