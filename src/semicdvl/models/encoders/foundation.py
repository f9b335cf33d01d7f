"""BAN's foundation model: a frozen vision transformer of timm or of transformers, read at three of its blocks.

The first three quarters of the blocks are kept and read at each quarter: blocks 3, 6 and 9 of 12, or 6, 12 and 18 of
24, as BAN does with CLIP. What comes out are the blocks' outputs themselves, without a final layer norm.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from semicdvl.errors import ConfigError, MissingExtraError
from semicdvl.models.common.blocks import resize_map, tokens_to_map
from semicdvl.models.encoders.timm import Backbone, TransformerBackbone, build_backbone

KEPT_QUARTERS = 3
"""Quarters of the blocks that are kept."""


class TransformersBackbone(Backbone):
    """A vision transformer of the transformers library: hidden states of its blocks as maps."""

    def __init__(self, net: nn.Module, *, blocks: list[int], mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        """Wrap a model that gives `hidden_states` of all its blocks, the embedding's first."""
        super().__init__(net, mean=mean, std=std)
        config: Any = net.config
        self.blocks, self.patch_px = blocks, int(config.patch_size)
        self.channels = (int(config.hidden_size),) * len(blocks)
        self.strides = (self.patch_px,) * len(blocks)

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """Return the blocks' maps (BDHW); tokens before those of the patches (class, registers) are left out."""
        states = self.net(pixel_values=self.convert_normalisation(image_BCHW), output_hidden_states=True).hidden_states
        height, width = (side // self.patch_px for side in image_BCHW.shape[-2:])
        patches = [states[block + 1][:, -height * width :] for block in self.blocks]
        return [tokens_to_map(one, (height, width)) for one in patches]


class FoundationEncoder(nn.Module):
    """A frozen backbone behind a resizing to the size that it was trained with.

    Attributes:
        channels: channels of its maps.
        size_px: side of the square that images are resized to.
    """

    def __init__(self, backbone: Backbone, *, size_px: int) -> None:
        """Freeze a backbone."""
        super().__init__()
        self.backbone, self.size_px = backbone.requires_grad_(False), size_px
        self.channels = backbone.channels

    @torch.no_grad()
    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """Return three maps (BDHW), shallow to deep; no gradient flows through."""
        maps: list[Tensor] = self.backbone(resize_map(image_BCHW, size_px=(self.size_px, self.size_px)))
        return maps


def build_foundation(name: str, *, weights: str | Path, size_px: int | None) -> FoundationEncoder:
    """Build a foundation model.

    Args:
        name: a plain vision transformer of timm ("vit_base_patch16_clip_quickgelu_224.openai"), or a folder or hub name
            ("openai/clip-vit-large-patch14-336") for the transformers library: what has a "/" in it.
        weights: "published", "none", or (for timm) a file.
        size_px: side of the square that images are resized to; None: as in its training.

    Raises:
        ConfigError: no such network, no plain transformer, or weights that cannot be had.
        MissingExtraError: transformers is not installed.
        InputError: a weights file that is missing or does not fit.
    """
    if "/" in name:
        backbone, own_px = _load_from_transformers(name, weights=weights)
        if size_px not in (None, own_px):
            raise ConfigError(f"foundation '{name}' takes {own_px} px; leave foundation_px out.")
        return FoundationEncoder(backbone, size_px=own_px)
    timm_weights = "imagenet" if weights == "published" else weights
    backbone = build_backbone(name, weights=timm_weights, stages=KEPT_QUARTERS)
    if not isinstance(backbone, TransformerBackbone):
        raise ConfigError(
            f"foundation '{name}' is no plain vision transformer; take one, such as vit_base_patch16_224."
        )
    backbone.net.norm = nn.Identity()
    own_px = int(backbone.net.patch_embed.img_size[0])  # type: ignore[union-attr, index]
    return FoundationEncoder(backbone, size_px=size_px or own_px)


def _load_from_transformers(name: str, *, weights: str | Path) -> tuple[Backbone, int]:
    """Load the vision part of a model of the transformers library, cut after the last block that is read."""
    try:
        import transformers
        from transformers.utils.hub import cached_file
    except ImportError:
        raise MissingExtraError(f"foundation '{name}' needs transformers; install semicdvl[vlm].") from None
    if weights not in ("published", "none"):
        raise ConfigError(f"foundation '{name}' has weights of its own. Leave foundation_weights out.")
    try:
        whole = transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)
        config = getattr(whole, "vision_config", whole)
        depth = int(config.num_hidden_layers)
        blocks = [depth * (quarter + 1) // (KEPT_QUARTERS + 1) - 1 for quarter in range(KEPT_QUARTERS)]
        config.num_hidden_layers = blocks[-1] + 1
        kind: Any = transformers.MODEL_MAPPING[type(config)]
        net = kind(config) if weights == "none" else kind.from_pretrained(name, config=config, use_safetensors=True)
        facts = json.loads(Path(str(cached_file(name, "preprocessor_config.json"))).read_text(encoding="utf-8"))
        mean, std = tuple(facts["image_mean"]), tuple(facts["image_std"])
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"foundation '{name}' cannot be loaded as a vision transformer ({reason}); give a folder with config.json, "
            "preprocessor_config.json and model.safetensors, or the name of a timm network."
        ) from error
    return TransformersBackbone(net, blocks=blocks, mean=mean, std=std), int(config.image_size)
