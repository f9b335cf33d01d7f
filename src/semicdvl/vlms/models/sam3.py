"""SAM 3: prompts in, masks of all objects that they name out; the strongest open VLM here, under Meta's own licence.

`Sam3Model` of transformers. Each prompt is predicted by itself. Scores follow SegEarth-OV3 (arXiv 2512.08730), which
tried the model's three heads on aerial images:

    score = presence * max(semantic map, max over objects of (object's score * its soft mask))

with presence the probability that the word occurs in the tile at all. An instance's score is presence * its own, and
instances from `threshold` on are kept (0.5, Meta's own; transformers' default is 0.3). Gamma is 0.5: the heads are
trained with a logistic loss, so that is "more likely than not"; it has not been tuned on aerial images.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from semicdvl.errors import ConfigError
from semicdvl.types import Instance
from semicdvl.vlms import weights as vlms_weights
from semicdvl.vlms.devices import pick_device, pick_dtype
from semicdvl.vlms.huggingface import HuggingFaceVLM, build_identity, masks_to_instances, resize_maps, to_pil_images
from semicdvl.vlms.model_cards import ModelCard

CARD = ModelCard(
    description="objects and ground cover, outlines, instances",
    licence="SAM License",
    size="0.85 B, 3.4 GB",
    needs="extra vlm, GPU",
    gamma=0.5,
)
WEIGHTS_SPEC = vlms_weights.WeightsSpec("sam3", "facebook/sam3", ("sam3", "sam3_video"), gated=True)
MAP_SOURCES = ("fused", "semantic", "instances")


@dataclass(frozen=True)
class Sam3:
    """Run SAM 3, and turn its heads into scores.

    Attributes:
        model: `Sam3Model`.
        processor: `Sam3Processor`.
        threshold: least score of an instance.
        maps: "fused" (both heads), "semantic" or "instances" (one of them); always times presence.
        batch: prompts per forward pass.
    """

    model: Any
    processor: Any
    threshold: float
    maps: str
    batch: int

    def encode_prompts(self, words: tuple[str, ...]) -> dict[str, Tensor]:
        """Return token ids of all words, padded to the length that the model was trained with."""
        length = self.model.config.text_config.max_position_embeddings
        tokens = self.processor.tokenizer(list(words), padding="max_length", max_length=length, return_tensors=None)
        long = [word for word, ids in zip(words, tokens["input_ids"], strict=True) if len(ids) > length]
        if long:
            raise ConfigError(f"SAM 3 reads {length} tokens per prompt. Shorten: {', '.join(long)}.")
        return {key: torch.tensor(tokens[key], device=self.model.device) for key in ("input_ids", "attention_mask")}

    def encode_images(self, images: Sequence[NDArray[np.uint8]]) -> list[Any]:
        """Return the vision encoder's output of each image."""
        pixels = self.processor.image_processor(images=to_pil_images(images), return_tensors="pt")["pixel_values"]
        features = self.model.get_vision_features(pixels.to(self.model.device, self.model.dtype))
        levels = ("fpn_hidden_states", "fpn_position_encoding")
        return [
            {name: [level[at : at + 1] for level in features[name]] for name in levels} for at in range(len(images))
        ]

    def predict(self, features: Any, prompts: Any, *, shape_hw: tuple[int, int]) -> tuple[Tensor, list[Instance]]:
        """Return scores and instances of every prompt."""
        maps, found = [], list[Instance]()
        count = len(prompts["input_ids"])
        for start in range(0, count, self.batch):
            words = slice(start, min(start + self.batch, count))
            out = self.model(
                vision_embeds=_repeat_features(features, words.stop - start),
                **{key: ids[words] for key, ids in prompts.items()},
            )
            for at in range(words.stop - start):
                map_HW, objects = self._predict_prompt(out, at, prompt=start + at, shape_hw=shape_hw)
                maps.append(map_HW)
                found += objects
        return resize_maps(torch.stack(maps), shape_hw), found

    def _predict_prompt(
        self, out: Any, at: int, *, prompt: int, shape_hw: tuple[int, int]
    ) -> tuple[Tensor, list[Instance]]:
        """Return one prompt's scores on the model's own grid, and its instances at the image's size."""
        presence = out.presence_logits[at].float().sigmoid()
        scores_Q = presence * out.pred_logits[at].float().sigmoid()
        masks_QHW = out.pred_masks[at].float().sigmoid()
        semantic_HW = presence * out.semantic_seg[at, 0].float().sigmoid()
        objects_HW = (scores_Q[:, None, None] * masks_QHW).amax(0)
        map_HW = {
            "fused": torch.maximum(semantic_HW, objects_HW),
            "semantic": semantic_HW,
            "instances": objects_HW,
        }[self.maps]
        keep = scores_Q >= self.threshold
        kept = scores_Q[keep].tolist()
        return map_HW, masks_to_instances(
            masks_QHW[keep], above=0.5, prompts=[prompt] * len(kept), scores=kept, shape_hw=shape_hw
        )


def _repeat_features(features: dict[str, list[Tensor]], count: int) -> Any:
    """Repeat an image's features for each prompt, without copying them."""
    from transformers.models.sam3.modeling_sam3 import Sam3VisionEncoderOutput

    many: dict[str, Any] = {
        name: tuple(level.expand(count, -1, -1, -1) for level in levels) for name, levels in features.items()
    }
    return Sam3VisionEncoderOutput(**many)


@functools.cache
def _print_licence_notice() -> None:
    """Print the licence of SAM 3, once per process."""
    Console(stderr=True).print(
        "SAM 3 is licensed under Meta's SAM License: commercial use is allowed, some uses are not, and whoever passes "
        "it or its derivatives on must pass on the licence. Read it where you got the weights.",
        highlight=False,
    )


def build_sam3(
    *,
    weights: Path | str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    threshold: float = 0.5,
    maps: str = "fused",
    tile_px: int = 1008,
    batch: int = 4,
) -> HuggingFaceVLM:
    """Load SAM 3.

    Args:
        weights: a folder, or a name on the model hub (its licence must have been accepted there); None: facebook/sam3.
        device: torch device; "auto" is the GPU if there is one.
        dtype: "float32", "bfloat16", "float16"; "auto" is bfloat16 on a GPU and float32 elsewhere.
        threshold: least score of an instance.
        maps: which heads the score maps come from: "fused", "semantic" or "instances".
        tile_px: longest side of a tile; the model resizes every tile to 1008 x 1008.
        batch: prompts per forward pass; fewer need less memory.

    Raises:
        ConfigError: an option out of range.
        InputError: the weights are missing, damaged or another model's.
        MissingExtraError: `transformers` is not installed.
    """
    if maps not in MAP_SOURCES:
        raise ConfigError(f"SAM 3 has no maps '{maps}'. Known: {', '.join(MAP_SOURCES)}.")
    where = pick_device(device)
    kind = pick_dtype(dtype, where)
    found = vlms_weights.find_weights(weights, WEIGHTS_SPEC)
    from transformers import Sam3Model, Sam3Processor

    model = vlms_weights.load_transformers_model(Sam3Model, found, device=where, dtype=kind)
    adapter = Sam3(model, vlms_weights.load_processor(Sam3Processor, found), threshold, maps, batch)
    _print_licence_notice()
    settings = {"dtype": str(kind), "threshold": threshold, "maps": maps, "tile_px": tile_px}
    return HuggingFaceVLM(build_identity("sam3", found.compute_fingerprint(), **settings), CARD.gamma, adapter, tile_px)
