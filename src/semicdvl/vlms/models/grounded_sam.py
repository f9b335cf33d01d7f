"""Grounding DINO detects boxes by words, SAM 2 segments them: good outlines, objects rather than ground cover.

`GroundingDinoForObjectDetection` and `Sam2Model` of transformers. All words go into one text ("house. road."); a box's
score for a word is the best over that word's tokens, read from the tokens' positions. (The class's own post-processing
turns tokens back into text, which loses which prompt was meant when two share a word.) Since the text is fused with the
image, a score depends a little on the other prompts.

Gamma is 0.35, the box threshold of the authors' own demonstration: the detector's scores are low. A pixel that no box
covers scores 0 for every word, also for the background words, and so counts as unreliable: use the instance level.
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

from semicdvl.errors import ConfigError
from semicdvl.types import Instance
from semicdvl.vlms import weights as vlms_weights
from semicdvl.vlms.devices import pick_device, pick_dtype
from semicdvl.vlms.huggingface import HuggingFaceVLM, build_identity, to_pil_images
from semicdvl.vlms.model_cards import ModelCard
from semicdvl.vlms.models import sam2_boxes
from semicdvl.vlms.models.sam2_boxes import BoxSegmenter, ScoredBoxes

CARD = ModelCard(
    description="objects with outlines; no ground cover",
    licence="Apache-2.0",
    size="0.46 B, 1.8 GB",
    needs="extra vlm, GPU",
    gamma=0.35,
)
WEIGHTS_SPEC = vlms_weights.WeightsSpec("grounded_sam", "IDEA-Research/grounding-dino-base", ("grounding-dino",))
NMS_IOU = 0.8
"""Boxes of one prompt from this IoU on are one object; the detector itself was trained to detect each object once."""


@dataclass(frozen=True)
class TokenizedPrompts:
    """Hold the prompts as one text.

    Attributes:
        tokens: inputs of the model, one row.
        token_positions: for each prompt the positions of its tokens.
    """

    tokens: dict[str, Tensor]
    token_positions: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class GroundedSam:
    """Run Grounding DINO and SAM 2.

    Attributes:
        model: `GroundingDinoForObjectDetection`.
        processor: `GroundingDinoProcessor`.
        box_segmenter: SAM 2.
        threshold: least score of a box.
    """

    model: Any
    processor: Any
    box_segmenter: BoxSegmenter
    threshold: float

    def encode_prompts(self, words: tuple[str, ...]) -> TokenizedPrompts:
        """Tokenize the prompts as one text, with the positions of each prompt's tokens."""
        tokens = self.processor.tokenizer(". ".join(words) + ".", return_token_type_ids=True, return_tensors="pt").to(
            self.model.device
        )
        ids = tokens["input_ids"][0].tolist()
        most = self.model.config.max_text_len
        if len(ids) > most:
            raise ConfigError(
                f"Grounding DINO reads {most} tokens, the {len(words)} prompts have {len(ids)}. Give fewer prompts."
            )
        stop, places, here = self.processor.tokenizer.convert_tokens_to_ids("."), [], list[int]()
        for at, token in enumerate(ids[1:-1], start=1):
            if token == stop:
                places.append(tuple(here))
                here = []
            else:
                here.append(at)
        if len(places) != len(words) or not all(places):
            raise ConfigError(f"Grounding DINO's tokenizer cannot separate the prompts {list(words)}. Use plain words.")
        names = ("input_ids", "token_type_ids", "attention_mask")
        return TokenizedPrompts({name: tokens[name] for name in names}, tuple(places))

    def encode_images(self, images: Sequence[NDArray[np.uint8]]) -> list[Any]:
        """Return pixels for the detector, which fuses text and image early, and SAM 2's embeddings."""
        ready = []
        for image, embeddings in zip(to_pil_images(images), self.box_segmenter.encode_images(images), strict=True):
            inputs = self.processor.image_processor(images=[image], return_tensors="pt")
            pixels = inputs["pixel_values"].to(self.model.device, self.model.dtype)
            ready.append((pixels, inputs["pixel_mask"].to(self.model.device), embeddings))
        return ready

    def predict(
        self, features: Any, prompts: TokenizedPrompts, *, shape_hw: tuple[int, int]
    ) -> tuple[Tensor, list[Instance]]:
        """Return scores and instances of every prompt."""
        pixels, pixel_mask, embeddings = features
        out = self.model(pixel_values=pixels, pixel_mask=pixel_mask, **prompts.tokens)
        tokens_NT = out.logits[0].float().sigmoid()
        scores_NP = torch.stack([tokens_NT[:, list(place)].amax(dim=1) for place in prompts.token_positions], dim=1)
        height, width = shape_hw
        scale = (width, height)
        boxes = ScoredBoxes.from_centre_and_size(
            out.pred_boxes[0], scale_xy=scale, scores_NP=scores_NP, vlm="grounded_sam"
        )
        best = boxes.select_best(threshold=self.threshold, same_iou=NMS_IOU, shape_hw=shape_hw)
        return self.box_segmenter.segment_boxes(embeddings, best, shape_hw=shape_hw)


def build_grounded_sam(
    *,
    weights: Path | str | None = None,
    sam: Path | str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    threshold: float = 0.25,
    tile_px: int = 1024,
) -> HuggingFaceVLM:
    """Load Grounding DINO and SAM 2.

    Args:
        weights: Grounding DINO, a folder or a name on the model hub; None: IDEA-Research/grounding-dino-base.
        sam: SAM 2, a folder or a name; None: facebook/sam2.1-hiera-large.
        device: torch device; "auto" is the GPU if there is one.
        dtype: "float32", "bfloat16", "float16"; "auto" is bfloat16 on a GPU and float32 elsewhere.
        threshold: least score of a box.
        tile_px: longest side of a tile; resized to a short side of 800 for the detector and to 1024 x 1024 for SAM 2.

    Raises:
        ConfigError: an option out of range.
        InputError: the weights are missing, damaged or another model's.
        MissingExtraError: `transformers` is not installed.
    """
    where = pick_device(device)
    kind = pick_dtype(dtype, where)
    found = vlms_weights.find_weights(weights, WEIGHTS_SPEC)
    masks, sam_hash = sam2_boxes.load_box_segmenter(sam, vlm="grounded_sam", device=where, dtype=kind)
    from transformers import GroundingDinoForObjectDetection, GroundingDinoProcessor

    model = vlms_weights.load_transformers_model(GroundingDinoForObjectDetection, found, device=where, dtype=kind)
    adapter = GroundedSam(model, vlms_weights.load_processor(GroundingDinoProcessor, found), masks, threshold)
    settings = {"sam": sam_hash, "dtype": str(kind), "threshold": threshold, "tile_px": tile_px}
    return HuggingFaceVLM(
        build_identity("grounded_sam", found.compute_fingerprint(), **settings), CARD.gamma, adapter, tile_px
    )
