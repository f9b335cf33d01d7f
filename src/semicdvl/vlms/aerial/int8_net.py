"""The network of the embedded VLM in 8-bit integers, which processors with VNNI multiply four times as fast as floats.

Static quantisation after training. A convolution takes a map in steps of 8 bits and adds up whole numbers; its weights
have 255 steps in every output channel. What it gives is in 8 bits again, rounded once, after a block's input was added
to it. Of an activated map the steps go from 0 to 6, so that ReLU6 costs nothing; of the others from the smallest to the
largest value that was measured. The image itself is exact: it has 256 values. Rounded weights shift the mean of a
channel, which its bias takes back (bias correction: Nagel et al., Data-Free Quantization, 2019); without that real
pairs lose 0.02 of IoU. Ranges and shifts were measured once, by `tools/aerial_int8.py`, and ship beside the weights.
The pyramid is enlarged and added up in float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import cv2
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semicdvl.errors import ConfigError
from semicdvl.reading.tensor_files import read_tensors
from semicdvl.vlms.aerial.encoder import MAP_STAGES, InvertedResidual, LiteEncoder, SeparableBlock
from semicdvl.vlms.aerial.net import FEATURE_STAGE, INPUT_MEAN, INPUT_STD, AerialNet

MEASURED_PATH = Path(__file__).with_name("aerial_int8.safetensors")
MAP_STEPS, WEIGHT_STEPS = 255, 127
RANGE, SHIFT = "range.", "shift."
"""Of tensors of that file: smallest and largest value of the map that a module of `AerialNet` gives (`smooth.N.in`:
takes), and by how much a convolution's bias corrects the channels of its output."""


class Steps(NamedTuple):
    """Size of a step of a map of 8 bits, and the step that means 0."""

    size: float
    zero: int

    @classmethod
    def over(cls, values: Sequence[float]) -> Steps:
        """Return the steps from a smallest to a largest value, of which one is 0."""
        low, high = min(values[0], 0.0), max(values[1], 1e-6)
        size = (high - low) / MAP_STEPS
        return cls(size, round(-low / size))

    def quantise_sum(self, x_BDHW: Tensor, y_BDHW: Tensor) -> Tensor:
        """Return the sum of two maps of one image in these steps; OpenCV makes one pass of what torch makes five of."""
        x_HWD, y_HWD = (map_BDHW[0].permute(1, 2, 0).numpy() for map_BDHW in (x_BDHW, y_BDHW))
        steps_HWD = cv2.addWeighted(x_HWD, 1 / self.size, y_HWD, 1 / self.size, self.zero, dtype=cv2.CV_8U)
        return torch.from_numpy(steps_HWD).permute(2, 0, 1)[None]

    def dequantise(self, steps_BDHW: Tensor) -> Tensor:
        """Return the values of a map."""
        return steps_BDHW.float().sub_(self.zero).mul_(self.size)


UNIT_STEPS = Steps(1.0, 0)
"""Of a map in float32."""
IMAGE_STEPS = Steps(1 / INPUT_STD, round(INPUT_MEAN))
RELU6_STEPS = Steps.over((0, 6))


def read_measured(weights_hash: str) -> dict[str, Tensor]:
    """Return what was measured for the weights of a hash.

    Raises:
        ConfigError: nothing was measured for these weights, or this processor does not compute in 8 bits.
    """
    if not (torch.cpu._is_vnni_supported() and hasattr(torch.ops.onednn, "qconv2d_pointwise")):
        raise ConfigError("dtype 'int8' needs a processor with AVX512-VNNI, and this is none. Leave the option out.")
    measured, facts = read_tensors(MEASURED_PATH, remedy="Install the package again")
    if facts["weights"] != weights_hash:
        raise ConfigError("dtype 'int8' is known for the shipped weights only. Leave out the option or the weights.")
    return measured


def quantise_weight(weight_EDHW: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weights of a convolution as whole steps of 8 bits, and the size of a step in every output channel."""
    scales_E = weight_EDHW.abs().amax(dim=(1, 2, 3)).clamp_min(1e-12) / WEIGHT_STEPS
    return (weight_EDHW / scales_E[:, None, None, None]).round().to(torch.int8), scales_E


class Int8Net:
    """What the VLM needs of `AerialNet` at inference, in 8 bits; the last layer is that network's own."""

    def __init__(self, net: AerialNet, measured: Mapping[str, Tensor]) -> None:
        """Quantise a network in float32 with folded batch norms; the biases of its convolutions are corrected."""
        for name, module in net.named_modules():
            if isinstance(module, nn.Conv2d) and module is not net.head:
                cast(Tensor, module.bias).add_(measured[SHIFT + name])
        ranges = {name.removeprefix(RANGE): values.tolist() for name, values in measured.items() if RANGE in name}
        encoder = cast(LiteEncoder, net.encoder)
        self.head, self._map_steps = net.head, list[Steps]()
        self._stem = _Int8Conv(encoder.conv_stem, IMAGE_STEPS, RELU6_STEPS)
        self._stages, taken = list[list[_Int8Block]](), RELU6_STEPS
        for number, stage in enumerate(encoder.blocks):
            self._stages.append([])
            for at, block in enumerate(cast(nn.Sequential, stage)):
                given = Steps.over(ranges[f"encoder.blocks.{number}.{at}"])
                self._stages[-1].append(_Int8Block(cast(SeparableBlock | InvertedResidual, block), taken, given))
                taken = given
            if number in MAP_STAGES:
                self._map_steps.append(taken)
        self._quantise_pyramid(net, ranges)

    def _quantise_pyramid(self, net: AerialNet, ranges: Mapping[str, Sequence[float]]) -> None:
        self._sum_steps = [Steps.over(ranges[f"smooth.{level}.in"]) for level in range(len(net.smooth))]
        laterals = cast(Sequence[nn.Conv2d], net.lateral)
        self._lateral = [_Int8Conv(conv, steps) for conv, steps in zip(laterals, self._map_steps, strict=True)]
        narrowed = Steps.over(ranges["smooth.1"])  # the others are enlarged next, in float32
        self._smooth = [
            _Int8Conv(cast(Sequence[nn.Conv2d], smooth)[0], steps, narrowed if level == 1 else None)
            for level, (smooth, steps) in enumerate(zip(net.smooth, self._sum_steps, strict=True))
        ]
        self._narrow = _Int8Conv(net.narrow, narrowed)

    def take_image(self, image_BCHW: Tensor) -> Tensor:
        """Return what the encoder takes, of a uint8 image: itself."""
        return image_BCHW

    def encoder(self, image_BCHW: Tensor) -> list[Tensor]:
        """Return the five feature maps, in 8 bits, of an image of 8 bits."""
        x_BDHW, maps = self._stem(image_BCHW), []
        for number, stage in enumerate(self._stages):
            for block in stage:
                x_BDHW = block(x_BDHW)
            if number in MAP_STAGES:
                maps.append(x_BDHW)
        return maps

    def take_features(self, stages: Sequence[Tensor]) -> Tensor:
        """Return the map by which dates are compared, in float32."""
        return self._map_steps[FEATURE_STAGE].dequantise(stages[FEATURE_STAGE])

    def fuse_pyramid(self, stages: Sequence[Tensor]) -> Tensor:
        """Return the features BDHW that the vectors are made of, in float32."""
        x_BDHW = self._lateral[-1](stages[-1])
        for level in range(len(stages) - 2, -1, -1):
            if level == 0:
                x_BDHW = self._narrow(x_BDHW)
            up_BDHW = F.interpolate(x_BDHW, size=stages[level].shape[2:], mode="bilinear", align_corners=False)
            sum_BDHW = self._sum_steps[level].quantise_sum(self._lateral[level](stages[level]), up_BDHW)
            x_BDHW = self._smooth[level](sum_BDHW).relu_()
        return x_BDHW


class _Int8Block:
    """A block of the encoder."""

    def __init__(self, block: SeparableBlock | InvertedResidual, taken: Steps, given: Steps) -> None:
        if isinstance(block, SeparableBlock):
            self.inner, last = [_Int8Conv(block.conv_dw, taken, RELU6_STEPS)], block.conv_pw
        else:
            wide = _Int8Conv(block.conv_pw, taken, RELU6_STEPS)
            self.inner, last = [wide, _Int8Conv(block.conv_dw, RELU6_STEPS, RELU6_STEPS)], block.conv_pwl
        self.last, self.taken = _Int8Conv(last, RELU6_STEPS, given), taken
        self.adds = isinstance(block, InvertedResidual) and block.adds

    def __call__(self, x_BDHW: Tensor) -> Tensor:
        """Return the output; where the input is added, it is overwritten."""
        y_BDHW = x_BDHW
        for convolve in self.inner:
            y_BDHW = convolve(y_BDHW)
        return self.last(y_BDHW, add_to=x_BDHW, added=self.taken) if self.adds else self.last(y_BDHW)


class _Int8Conv:
    """A convolution from a map of 8 bits to one of 8 bits, or in float32 where no steps are given."""

    def __init__(self, conv: nn.Conv2d, taken: Steps, given: Steps | None = None) -> None:
        weight_EDHW, pads = conv.weight.detach(), [size // 2 for size in conv.kernel_size]
        if conv.stride != (1, 1):
            # "Same" padding has a pixel more below and to the right: with a row and column of zeros it is even.
            weight_EDHW = F.pad(weight_EDHW, (1, 0, 1, 0))
        self.taken, self.given, self.bias = taken, given, conv.bias
        self.options = [*conv.stride], pads, [*conv.dilation], conv.groups
        steps_EDHW, self.scales_E = quantise_weight(weight_EDHW)
        self.zeros_E = torch.zeros(len(self.scales_E), dtype=torch.long)
        self.packed = torch.ops.onednn.qconv_prepack(steps_EDHW, self.scales_E, *taken, *self.options)

    def __call__(self, x_BDHW: Tensor, *, add_to: Tensor | None = None, added: Steps = UNIT_STEPS) -> Tensor:
        """Return the output, or the sum of it and of a map in the steps `added`, which is overwritten."""
        arguments = x_BDHW, *self.taken, self.packed, self.scales_E, self.zeros_E
        given = (*UNIT_STEPS, torch.float32) if self.given is None else (*self.given, torch.uint8)
        plain: tuple[Any, ...] = self.bias, *self.options, *given
        if add_to is None:
            return cast(Tensor, torch.ops.onednn.qconv2d_pointwise(*arguments, *plain, "none", [], ""))
        summed = *plain, *added, "sum", 1.0, "none", [], ""
        return cast(Tensor, torch.ops.onednn.qconv2d_pointwise.binary(*arguments, add_to, *summed))
