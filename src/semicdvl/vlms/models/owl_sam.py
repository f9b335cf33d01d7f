"""OWLv2 detects boxes by words, SAM 2 segments them: small and many objects, each prompt by itself.

`Owlv2ForObjectDetection` and `Sam2Model` of transformers. OWLv2 pads an image to a square below and to the right, so
its boxes are shares of the longer side. Every word's score is a logistic one and does not depend on the other words.

Gamma is 0.2: OWLv2's scores are low by design (0.1 to 0.3 is where its authors cut), and have not been tuned on aerial
images. As with `grounded_sam`, pixels without a box are unreliable: use the instance level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from semicdvl.types import Instance
from semicdvl.vlms import weights as vlms_weights
from semicdvl.vlms.devices import pick_device, pick_dtype
from semicdvl.vlms.huggingface import HuggingFaceVLM, build_identity, to_pil_images
from semicdvl.vlms.model_cards import ModelCard
from semicdvl.vlms.models import sam2_boxes
from semicdvl.vlms.models.sam2_boxes import BoxSegmenter, ScoredBoxes
from semicdvl.vlms.validation import check_template

CARD = ModelCard(
    description="small and many objects; no ground cover",
    licence="Apache-2.0",
    size="0.38 B, 1.5 GB",
    needs="extra vlm, GPU",
    gamma=0.2,
)
WEIGHTS_SPEC = vlms_weights.WeightsSpec("owl_sam", "google/owlv2-base-patch16-ensemble", ("owlv2",))
NMS_IOU = 0.5
"""Boxes of one prompt from this IoU on are one object: every patch predicts by itself, so boxes repeat."""


@dataclass(frozen=True)
class OwlSam:
    """Run OWLv2 and SAM 2.

    Attributes:
        model: `Owlv2ForObjectDetection`.
        processor: `Owlv2Processor`.
        box_segmenter: SAM 2.
        threshold: least score of a box.
        template: sentence that each prompt is inserted into.
    """

    model: Any
    processor: Any
    box_segmenter: BoxSegmenter
    threshold: float
    template: str

    def encode_prompts(self, words: tuple[str, ...]) -> Tensor:
        """Return unit text vectors, one row per prompt."""
        length = self.model.config.text_config.max_position_embeddings
        sentences = [self.template.format(word) for word in words]
        tokens = self.processor.tokenizer(
            sentences, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        ).to(self.model.device)
        owl = self.model.owlv2
        text = owl.text_model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
        return F.normalize(owl.text_projection(text.pooler_output), dim=-1)

    def encode_images(self, images: Sequence[NDArray[np.uint8]]) -> list[Any]:
        """Return the detector's feature map and SAM 2's embeddings of each image."""
        pixels = self.processor.image_processor(images=to_pil_images(images), return_tensors="pt")["pixel_values"]
        features_BHWD = self.model.image_embedder(pixels.to(self.model.device, self.model.dtype))[0]
        return list(zip(features_BHWD.chunk(len(images)), self.box_segmenter.encode_images(images), strict=True))

    def predict(self, features: Any, prompts: Tensor, *, shape_hw: tuple[int, int]) -> tuple[Tensor, list[Instance]]:
        """Return scores and instances of every prompt."""
        features_BHWD, embeddings = features
        features_BND = features_BHWD.flatten(1, 2)
        logits_BNP = self.model.class_predictor(features_BND, prompts[None])[0]
        centre_size_N4 = self.model.box_predictor(features_BND, features_BHWD)[0]
        scale = (max(shape_hw), max(shape_hw))
        scores_NP = logits_BNP[0].float().sigmoid()
        boxes = ScoredBoxes.from_centre_and_size(centre_size_N4, scale_xy=scale, scores_NP=scores_NP, vlm="owl_sam")
        best = boxes.select_best(threshold=self.threshold, same_iou=NMS_IOU, shape_hw=shape_hw)
        return self.box_segmenter.segment_boxes(embeddings, best, shape_hw=shape_hw)


def build_owl_sam(
    *,
    weights: Path | str | None = None,
    sam: Path | str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    threshold: float = 0.1,
    template: str = "a satellite photo of a {}",
    tile_px: int = 960,
) -> HuggingFaceVLM:
    """Load OWLv2 and SAM 2.

    Args:
        weights: OWLv2, a folder or a name on the model hub; None: google/owlv2-base-patch16-ensemble.
        sam: SAM 2, a folder or a name; None: facebook/sam2.1-hiera-large.
        device: torch device; "auto" is the GPU if there is one.
        dtype: "float32", "bfloat16", "float16"; "auto" is bfloat16 on a GPU and float32 elsewhere.
        threshold: least score of a box.
        template: sentence that each prompt is inserted into, at `{}`.
        tile_px: longest side of a tile; resized to 960 x 960 for the detector and to 1024 x 1024 for SAM 2.

    Raises:
        ConfigError: an option out of range.
        InputError: the weights are missing, damaged or another model's.
        MissingExtraError: `transformers` is not installed.
    """
    check_template(template)
    where = pick_device(device)
    kind = pick_dtype(dtype, where)
    found = vlms_weights.find_weights(weights, WEIGHTS_SPEC)
    masks, sam_hash = sam2_boxes.load_box_segmenter(sam, vlm="owl_sam", device=where, dtype=kind)
    from transformers import Owlv2ForObjectDetection, Owlv2Processor

    model = vlms_weights.load_transformers_model(Owlv2ForObjectDetection, found, device=where, dtype=kind)
    adapter = OwlSam(model, vlms_weights.load_processor(Owlv2Processor, found), masks, threshold, template)
    settings = {"sam": sam_hash, "dtype": str(kind), "threshold": threshold, "template": template, "tile_px": tile_px}
    return HuggingFaceVLM(
        build_identity("owl_sam", found.compute_fingerprint(), **settings), CARD.gamma, adapter, tile_px
    )
