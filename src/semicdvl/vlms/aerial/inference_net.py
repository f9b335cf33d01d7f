"""Make the network of the embedded VLM fast at inference, and choose the number type that pays on this processor.

Batch norms are folded into the convolutions before them (both are linear in evaluation mode, so the answers are those
of the trained network up to rounding), and weights are channels-last. In bfloat16 the network takes half of the time
where the processor multiplies in it; elsewhere it would take longer (`docs/performance.md`).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from semicdvl.errors import ConfigError
from semicdvl.vlms.aerial.net import AerialNet

if TYPE_CHECKING:
    from semicdvl.vlms.aerial.int8_net import Int8Net

Dtype = Literal["float32", "bfloat16", "int8"]
FLOAT_DTYPES: dict[Dtype, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}
InferenceNet: TypeAlias = "AerialNet | Int8Net"
STRIDE_PX, MIN_PX = 32, 64
"""Sides of the network's input are multiples of the first, and at least the second."""


def choose_dtype(asked: str, device: torch.device) -> Dtype:
    """Return the number type of the network.

    Args:
        asked: "float32", "bfloat16", "int8", or "auto": bfloat16 on processors with AVX512-BF16 or AMX, else float32.
        device: where the network runs.

    Raises:
        ConfigError: an unknown type, or "int8" on another device than a CPU.
    """
    if asked == "auto":
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return "bfloat16" if device.type == "cpu" and fast else "float32"
    if asked == "int8" and device.type != "cpu":
        raise ConfigError(f"dtype 'int8' is for CPUs, and the device is '{device}'. Leave one of the two options out.")
    for known in get_args(Dtype):
        if asked == known:
            return cast(Dtype, known)
    raise ConfigError(f"dtype '{asked}' is unknown. Known: auto, {', '.join(get_args(Dtype))}.")


@torch.no_grad()
def prepare_net(net: AerialNet, *, dtype: Dtype, weights_hash: str) -> InferenceNet:
    """Return a copy of a trained network for inference: batch norms folded, channels-last, in a number type.

    Raises:
        ConfigError: this processor does not compute in 8 bits, or the weights of this hash were not prepared for it.
    """
    ready = copy.deepcopy(net).eval().requires_grad_(False)
    _fold_batch_norms(ready)
    if dtype == "int8":
        from semicdvl.vlms.aerial.int8_net import Int8Net, read_measured

        return Int8Net(ready, read_measured(weights_hash))
    return ready.to(dtype=FLOAT_DTYPES[dtype], memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _fold_batch_norms(module: nn.Module) -> None:
    """Fold every batch norm that follows a convolution among the children of one module, at any depth, in place."""
    before: nn.Module | None = None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and isinstance(before, nn.Conv2d):
            assert child.running_mean is not None and child.running_var is not None, "the norms keep statistics"
            before.weight, before.bias = fuse_conv_bn_weights(
                before.weight, before.bias, child.running_mean, child.running_var, child.eps, child.weight, child.bias
            )
            # The norms of timm include the activation.
            module.set_submodule(name, getattr(child, "act", None) or nn.Identity())
        else:
            _fold_batch_norms(child)
        before = child


def make_input(image_HWC: NDArray[np.uint8], *, like: InferenceNet) -> Tensor:
    """Return an image as the network's input BCHW: padded at the bottom and right by reflection, on its device."""
    pad = [(0, max(-size % STRIDE_PX, MIN_PX - size)) for size in image_HWC.shape[:2]]
    padded_HWC = np.pad(image_HWC, (*pad, (0, 0)), mode="symmetric")
    image_BHWC = torch.from_numpy(padded_HWC)[None].to(like.head.weight.device)  # channels-last once permuted
    return like.take_image(image_BHWC.permute(0, 3, 1, 2))


@dataclass(frozen=True)
class WordHead:
    """The last layer of the network and a set of words as one matrix product.

    The layer makes a vector of the features x of a pixel, v = A x + b, and a word w scores its cosine w v / |v|. Both
    w v = (w A) x + w b and |v| are had without v: with A = Q R, |v|^2 = |R x + Q' b|^2 + |b - Q Q' b|^2.

    Attributes:
        weight_DF: (w A)' of all words, then R'.
        bias_F: w b of all words, then Q' b.
        rest: |b - Q Q' b|^2.
        word_count: number of words.
    """

    weight_DF: Tensor
    bias_F: Tensor
    rest: float
    word_count: int

    def __call__(self, pixels_PD: Tensor) -> Tensor:
        """Return the cosines PW of pixels with the words."""
        product_PF = torch.addmm(self.bias_F, pixels_PD.float(), self.weight_DF)
        dots_PW, rotated_PD = product_PF.tensor_split([self.word_count], dim=1)
        return dots_PW * (rotated_PD.square().sum(dim=1, keepdim=True) + self.rest).clamp_min(1e-24).rsqrt()


def fold_words_into_head(head: nn.Conv2d, words_WE: Tensor) -> WordHead:
    """Return the network's last layer and unit vectors of words as one product."""
    assert head.bias is not None, "the head has a bias"
    weight_ED, bias_E = head.weight[:, :, 0, 0], head.bias
    basis_ED, triangle_DD = torch.linalg.qr(weight_ED)
    within_D = basis_ED.T @ bias_E
    rest = float((bias_E - basis_ED @ within_D).square().sum())
    weight_DF = torch.cat([weight_ED.T @ words_WE.T, triangle_DD.T], dim=1)
    return WordHead(weight_DF, torch.cat([words_WE @ bias_E, within_D]), rest, len(words_WE))
