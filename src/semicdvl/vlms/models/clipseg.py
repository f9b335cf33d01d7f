"""CLIPSeg: one soft map per prompt from a small model; coarse, fast, any prompt.

`CLIPSegForImageSegmentation` of transformers. Each prompt is predicted by itself; the score is the sigmoid of the
logit, as in the source. It resizes every tile to 352 x 352 and predicts in blocks of 16 pixels, so tiles are small.
Gamma is 0.5, "more likely than not" by its logistic loss; not tuned on aerial images. It gives maps only: change event
generation takes connected components.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semicdvl.vlms import weights as vlms_weights
from semicdvl.vlms.devices import pick_device, pick_dtype
from semicdvl.vlms.huggingface import HuggingFaceVLM, build_identity, resize_maps, to_pil_images
from semicdvl.vlms.model_cards import ModelCard
from semicdvl.vlms.validation import check_template

CARD = ModelCard(
    description="anything, coarsely; quick, also on a CPU",
    licence="Apache-2.0",
    size="0.15 B, 0.6 GB",
    needs="extra vlm",
    gamma=0.5,
)
WEIGHTS_SPEC = vlms_weights.WeightsSpec("clipseg", "CIDAS/clipseg-rd64-refined", ("clipseg",))


@dataclass(frozen=True)
class ClipSeg:
    """Run CLIPSeg.

    Attributes:
        model: `CLIPSegForImageSegmentation`.
        processor: `CLIPSegProcessor`.
        template: sentence that each prompt is inserted into.
        batch: prompts per pass of the decoder.
    """

    model: Any
    processor: Any
    template: str
    batch: int

    def encode_prompts(self, words: tuple[str, ...]) -> Tensor:
        """Return one text vector per prompt."""
        length = self.model.config.text_config.max_position_embeddings
        sentences = [self.template.format(word) for word in words]
        tokens = self.processor.tokenizer(
            sentences, padding=True, truncation=True, max_length=length, return_tensors="pt"
        ).to(self.model.device)
        clip = self.model.clip
        text = clip.text_model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
        vectors_PD: Tensor = clip.text_projection(text.pooler_output)
        return vectors_PD

    def encode_images(self, images: Sequence[NDArray[np.uint8]]) -> list[list[Tensor]]:
        """Return the activations of each image that the decoder reads."""
        pixels = self.processor.image_processor(images=to_pil_images(images), return_tensors="pt")["pixel_values"]
        features = self.model.clip.vision_model(
            pixels.to(self.model.device, self.model.dtype), output_hidden_states=True, interpolate_pos_encoding=True
        )
        levels = [features.hidden_states[layer + 1] for layer in self.model.extract_layers]  # 0 is the embedding
        return [[level[at : at + 1] for level in levels] for at in range(len(images))]

    def predict(self, features: list[Tensor], prompts: Tensor, *, shape_hw: tuple[int, int]) -> tuple[Tensor, None]:
        """Return scores of every prompt."""
        maps = []
        for start in range(0, len(prompts), self.batch):
            vectors_PD = prompts[start : start + self.batch]
            levels = [level.expand(len(vectors_PD), -1, -1) for level in features]
            maps.append(self.model.decoder(levels, vectors_PD).logits.float().sigmoid())
        return resize_maps(torch.cat(maps), shape_hw), None


def build_clipseg(
    *,
    weights: Path | str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    template: str = "{}",
    tile_px: int = 352,
    batch: int = 8,
) -> HuggingFaceVLM:
    """Load CLIPSeg.

    Args:
        weights: a folder, or a name on the model hub; None: CIDAS/clipseg-rd64-refined.
        device: torch device; "auto" is the GPU if there is one.
        dtype: "float32", "bfloat16", "float16"; "auto" is bfloat16 on a GPU and float32 elsewhere.
        template: sentence that each prompt is inserted into, at `{}`.
        tile_px: longest side of a tile; the model resizes every tile to 352 x 352.
        batch: prompts, and tiles, per forward pass.

    Raises:
        ConfigError: an option out of range.
        InputError: the weights are missing, damaged or another model's.
        MissingExtraError: `transformers` is not installed.
    """
    check_template(template)
    where = pick_device(device)
    kind = pick_dtype(dtype, where)
    found = vlms_weights.find_weights(weights, WEIGHTS_SPEC)
    from transformers import CLIPSegForImageSegmentation, CLIPSegProcessor

    model = vlms_weights.load_transformers_model(CLIPSegForImageSegmentation, found, device=where, dtype=kind)
    adapter = ClipSeg(model, vlms_weights.load_processor(CLIPSegProcessor, found), template, batch)
    settings = {"dtype": str(kind), "template": template, "tile_px": tile_px}
    return HuggingFaceVLM(
        build_identity("clipseg", found.compute_fingerprint(), **settings), CARD.gamma, adapter, tile_px, batch
    )
