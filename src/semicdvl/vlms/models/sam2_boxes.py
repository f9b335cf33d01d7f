"""Masks from boxes by SAM 2: the second half of `grounded_sam` and `owl_sam`.

`Sam2Model` of transformers, one mask per box. A pixel's score for a prompt is the best, over boxes, of the detector's
score times the mask's probability there.
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
from torchvision.ops import batched_nms  # type: ignore[import-untyped]

from semicdvl.types import Instance
from semicdvl.vlms import weights
from semicdvl.vlms.huggingface import masks_to_instances, resize_maps, to_pil_images
from semicdvl.vlms.validation import check_scores

DEFAULT_WEIGHTS = "facebook/sam2.1-hiera-large"
MODEL_TYPES = ("sam2", "sam2_video")


@dataclass(frozen=True)
class ScoredBoxes:
    """Hold the boxes that a detector predicted in an image.

    Attributes:
        corners_N4: x from, y from, x to, y to in pixels of the image.
        scores_NP: score of each box for each prompt.
    """

    corners_N4: Tensor
    scores_NP: Tensor

    @staticmethod
    def from_centre_and_size(
        centre_size_N4: Tensor, *, scale_xy: tuple[float, float], scores_NP: Tensor, vlm: str
    ) -> ScoredBoxes:
        """Return boxes from the detectors' own form: centre x, y and width, height as shares of `scale_xy` pixels.

        Raises:
            InputError: a box or score is not a number, which would otherwise pass for no detection.
        """
        for part in (centre_size_N4, scores_NP):
            check_scores(part.float().cpu().numpy(), vlm=vlm)
        centre_N2, size_N2 = centre_size_N4.float().chunk(2, dim=1)
        corners_N4 = torch.cat([centre_N2 - size_N2 / 2, centre_N2 + size_N2 / 2], dim=1)
        return ScoredBoxes(corners_N4 * corners_N4.new_tensor(scale_xy * 2), scores_NP.float())

    def select_best(self, *, threshold: float, same_iou: float, shape_hw: tuple[int, int]) -> ScoredBoxes:
        """Return the boxes with a score from `threshold` on, inside the image, each object once per prompt."""
        height, width = shape_hw
        limit_4 = self.corners_N4.new_tensor([width, height, width, height])
        corners_N4 = torch.minimum(self.corners_N4.clamp_min(0), limit_4)
        best_N, prompt_N = self.scores_NP.max(dim=1)
        real_N = (corners_N4[:, 2:] - corners_N4[:, :2] >= 1).all(dim=1) & (best_N >= threshold)
        index = torch.nonzero(real_N)[:, 0]
        kept = index[batched_nms(corners_N4[index], best_N[index], prompt_N[index], same_iou)]
        return ScoredBoxes(corners_N4[kept], self.scores_NP[kept])


@dataclass(frozen=True)
class BoxSegmenter:
    """Run SAM 2 with boxes as prompts.

    Attributes:
        model: `Sam2Model`.
        processor: `Sam2Processor`.
        batch: boxes per pass of the mask decoder.
    """

    model: Any
    processor: Any
    batch: int = 32

    def encode_images(self, images: Sequence[NDArray[np.uint8]]) -> list[list[Tensor]]:
        """Return the image embeddings of each image, finest first."""
        pixels = self.processor.image_processor(images=to_pil_images(images), return_tensors="pt")["pixel_values"]
        levels = self.model.get_image_embeddings(pixels.to(self.model.device, self.model.dtype))
        return [[level[at : at + 1] for level in levels] for at in range(len(images))]

    def segment_boxes(
        self, features: list[Tensor], boxes: ScoredBoxes, *, shape_hw: tuple[int, int]
    ) -> tuple[Tensor, list[Instance]]:
        """Return score maps of every prompt, and one instance per box, for its best prompt."""
        prompts = boxes.scores_NP.shape[1]
        if not len(boxes.corners_N4):
            return torch.zeros(prompts, *shape_hw), []
        maps_PHW: Tensor | None = None
        found: list[Instance] = []
        for at in range(0, len(boxes.corners_N4), self.batch):
            logits_NHW = self._mask_logits(features, boxes.corners_N4[at : at + self.batch], shape_hw)
            masks_NHW = logits_NHW.sigmoid()
            scores_NP = boxes.scores_NP[at : at + self.batch].to(masks_NHW.device)
            more_PHW = torch.stack(
                [(masks_NHW * scores_N[:, None, None]).amax(0) for scores_N in scores_NP.unbind(dim=1)]
            )
            maps_PHW = more_PHW if maps_PHW is None else torch.maximum(maps_PHW, more_PHW)
            score_N, prompt_N = scores_NP.max(dim=1)
            found += masks_to_instances(
                logits_NHW, above=0.0, prompts=prompt_N.tolist(), scores=score_N.tolist(), shape_hw=shape_hw
            )
        assert maps_PHW is not None
        return resize_maps(maps_PHW, shape_hw), found

    def _mask_logits(self, features: list[Tensor], corners_N4: Tensor, shape_hw: tuple[int, int]) -> Tensor:
        """Return the log odds of each box's object on the decoder's grid."""
        encoded = self.processor(
            original_sizes=[list(shape_hw)], input_boxes=[corners_N4.float().cpu().tolist()], return_tensors="pt"
        )["input_boxes"]
        out = self.model(
            image_embeddings=features,
            input_boxes=encoded.to(self.model.device, self.model.dtype),
            multimask_output=False,
        )
        logits_NHW: Tensor = out.pred_masks[0, :, 0].float()
        return logits_NHW


def load_box_segmenter(
    source: Path | str | None, *, vlm: str, device: torch.device, dtype: torch.dtype
) -> tuple[BoxSegmenter, str]:
    """Load SAM 2 for another VLM; return it and the hash of its weights.

    Raises:
        InputError: the weights are missing, damaged or another model's.
    """
    found = weights.find_weights(
        source, weights.WeightsSpec(vlm, DEFAULT_WEIGHTS, MODEL_TYPES, option="--vlm-set sam=")
    )
    from transformers import Sam2Model, Sam2Processor

    model = weights.load_transformers_model(Sam2Model, found, device=device, dtype=dtype)
    return BoxSegmenter(model, weights.load_processor(Sam2Processor, found)), found.compute_fingerprint()
