"""The public codes whose checkpoints can be imported: how each holds its tensors, and which network they belong to.

SemiCD-VL's network has 396 tensors, each of which has a counterpart in `siam_light`; UniMatch V2's (237 with DINOv2-S)
have counterparts in `dpt`, but for the unused `mask_token`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from semicdvl.models.dpt import PUBLIC_PREFIXES
from semicdvl.models.siam_light import OFFICIAL_PREFIXES

PublicCodeName = Literal["semicd_vl", "unimatch_v2"]
"""A public code whose checkpoints can be imported."""

WRAPPERS = ("model", "state_dict")
"""Keys under which a checkpoint may hold its tensors, beside an optimiser and the like."""

BACKBONE_BY_BLOCKS = {6: "resnet50s", 23: "resnet101s"}
"""Number of blocks of the third stage -> encoder."""

DINOV2_BY_WIDTH = {384: "small", 768: "base", 1024: "large", 1536: "giant"}
"""Channels of the transformer -> name of its size."""


@dataclass(frozen=True)
class PublicCode:
    """A public code: how its checkpoints hold their tensors, and which network and method here they belong to.

    Attributes:
        title: what messages call it.
        method: name of its method here.
        wrappers: keys under which a checkpoint may hold its tensors; the first that is there is read.
        infer_model: returns the `model` section of a recipe from the tensors.
        to_public_name: returns the public name of a tensor of our network.
        unused: public tensors that the network holds but never uses.
    """

    title: str
    method: PublicCodeName
    wrappers: tuple[str, ...]
    infer_model: Callable[[Mapping[str, Tensor]], dict[str, Any]]
    to_public_name: Callable[[str], str]
    unused: frozenset[str] = frozenset()

    @property
    def remedy(self) -> str:
        """What a message advises for a file that is no such checkpoint."""
        others = " or ".join(f"--from {name}" for name, code in PUBLIC_CODES.items() if code is not self)
        return f"Give a .pth file of the public {self.title} code, such as its best.pth, or say {others} for the other"


def infer_model_section(theirs: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the `model` section of a recipe that builds the network of these tensors, as far as they show it.

    Encoder, decoder width and number of classes follow from the tensors; the output stride is the public code's 16,
    which no tensor shows.
    """
    blocks = {name.split(".")[2] for name in theirs if name.startswith("backbone.layer3.")}
    fusing, classify = (
        tensor if tensor is not None and tensor.ndim else None  # a single number says nothing of the network
        for tensor in (theirs.get(f"decode_head.{name}.weight") for name in ("fusion_conv.conv", "conv_seg"))
    )
    return {
        "name": "siam_light",
        "backbone": BACKBONE_BY_BLOCKS.get(len(blocks), "resnet50s"),
        "pretrained": "none",
        "output_stride": 16,
        "decoder_channels": 256 if fusing is None else len(fusing),
        "classes": 2 if classify is None else len(classify),
    }


def to_public_name(name: str) -> str:
    """Return the public SemiCD-VL code's name of a tensor of `siam_light`."""
    ours, theirs = next((ours, theirs) for ours, theirs in OFFICIAL_PREFIXES.items() if name.startswith(ours))
    return theirs + name.removeprefix(ours)


def infer_unimatch_v2_section(theirs: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the `model` section of a recipe that builds UniMatch V2's network of these tensors."""
    class_token, reduce, classify = (
        theirs.get(name)
        for name in (
            "backbone.cls_token",
            "head.scratch.layer1_rn.weight",
            "head.scratch.output_conv.2.weight",
        )
    )
    width = 0 if class_token is None or not class_token.ndim else class_token.shape[-1]
    return {
        "name": "dpt",
        "backbone": f"vit_{DINOV2_BY_WIDTH.get(width, 'small')}_patch14_dinov2",
        "pretrained": "none",
        "decoder_channels": 64 if reduce is None or not reduce.ndim else len(reduce),
        "classes": 2 if classify is None or not classify.ndim else len(classify),
        "train_heads": False,
    }


def to_unimatch_v2_name(name: str) -> str:
    """Return the public UniMatch V2 code's name of a tensor of `dpt`."""
    ours, theirs = next((ours, theirs) for ours, theirs in PUBLIC_PREFIXES.items() if name.startswith(ours))
    return theirs + name.removeprefix(ours)


def to_unimatch_v2_giant_name(name: str) -> str:
    """Return the public name of a tensor of `dpt` on the giant transformer, whose MLP is a SwiGLU."""
    public = to_unimatch_v2_name(name)
    return public.replace(".mlp.fc1.", ".mlp.w12.").replace(".mlp.fc2.", ".mlp.w3.")


PUBLIC_CODES: dict[str, PublicCode] = {
    "semicd_vl": PublicCode("SemiCD-VL", "semicd_vl", WRAPPERS, infer_model_section, to_public_name),
    "unimatch_v2": PublicCode(
        "UniMatch V2",
        "unimatch_v2",
        ("model_ema", *WRAPPERS),
        infer_unimatch_v2_section,
        to_unimatch_v2_name,
        unused=frozenset({"backbone.mask_token"}),
    ),
}
"""Name -> public code whose checkpoints can be imported."""
