"""SAM or SAM 2 as an automatic mask generator and image encoder, for `any_change` and `scm`.

Source: the automatic mask generator of Segment Anything (Kirillov et al., ICCV 2023): a grid of points, three masks
each, of which those remain that the network rates well, that do not depend on the exact threshold (stability), and that
do not duplicate a better one (box suppression). Differences from the source: no zoomed-in crops, no hole filling;
stability and boxes are measured on the decoder's grid (a quarter of its input) instead of the image's.

The model is one of `transformers` and is passed in; no weights are loaded here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.ops import masks_to_boxes, nms  # type: ignore[import-untyped]

STABILITY_OFFSET = 1.0
"""Log odds by which the threshold is moved either way to measure a mask's stability."""
MASKS_AT_ONCE = 16


@dataclass(frozen=True)
class SamEmbedding:
    """The embeddings of one image.

    Attributes:
        levels: embeddings as the decoder takes them, 1DHW each, finest first.
        extent_hw: fraction of the network's square input that the image fills (SAM pads, SAM 2 stretches).
        embedding_DHW: the deepest level, cropped to the image; for SAM without scale and shift of the last norm.
    """

    levels: list[Tensor]
    extent_hw: tuple[float, float]
    embedding_DHW: Tensor


@dataclass(frozen=True)
class SamInstances:
    """Masks of the objects of one image.

    Attributes:
        logits_NHW: log odds of each mask, on a coarse grid that covers the image.
        rating_N: the network's own rating of each mask.
    """

    logits_NHW: Tensor
    rating_N: Tensor

    def __len__(self) -> int:
        """Return the number of masks."""
        return len(self.rating_N)

    @property
    def area_frac_N(self) -> Tensor:
        """The share of the image that each mask covers."""
        return (self.logits_NHW > 0).float().mean(dim=(1, 2))

    def select(self, kept_N: Tensor) -> SamInstances:
        """Return some of the masks."""
        return SamInstances(self.logits_NHW[kept_N], self.rating_N[kept_N])

    def concatenate(self, others: SamInstances) -> SamInstances:
        """Return these and other masks of images of the same size."""
        logits_NHW = torch.cat([self.logits_NHW, others.logits_NHW])
        return SamInstances(logits_NHW, torch.cat([self.rating_N, others.rating_N]))

    def paint_maximum(self, value_N: Tensor, shape_hw: tuple[int, int]) -> NDArray[np.float32]:
        """Return a map of the greatest value of the masks that cover each pixel; 0 where there is none."""
        map_HW = torch.zeros(shape_hw)
        for at in range(0, len(self), MASKS_AT_ONCE):
            full_NHW = _upsample(self.logits_NHW[at : at + MASKS_AT_ONCE], shape_hw) > 0
            values_NHW = full_NHW * value_N[at : at + MASKS_AT_ONCE, None, None].cpu()
            map_HW = torch.maximum(map_HW, values_NHW.amax(dim=0))
        painted_HW: NDArray[np.float32] = map_HW.numpy()
        return painted_HW

    def mean_embeddings(self, embedding_DHW: Tensor) -> Tensor:
        """Return the mean embedding under each mask, ND; masks smaller than a cell count by their share of it."""
        _, rows, cols = embedding_DHW.shape
        share_NHW = F.adaptive_avg_pool2d((self.logits_NHW > 0).float(), (rows, cols))
        total_N = share_NHW.sum(dim=(1, 2)).clamp_min(1e-12)
        return torch.einsum("nhw,dhw->nd", share_NHW, embedding_DHW.float()) / total_N[:, None]


def _upsample(logits_NHW: Tensor, shape_hw: tuple[int, int]) -> Tensor:
    return F.interpolate(logits_NHW[:, None].float().cpu(), size=shape_hw, mode="bilinear", align_corners=False)[:, 0]


@dataclass(frozen=True)
class SamMaskGenerator:
    """A SAM or SAM 2; see the module.

    Attributes:
        model: `SamModel` or `Sam2Model` of transformers, in evaluation mode.
        processor: `SamProcessor` or `Sam2Processor`.
        identity: name and hash of the weights.
        grid: number of points per side.
        rating: smallest rating of a mask by the network.
        stability: smallest stability of a mask.
        same_iou: of masks whose boxes have a greater IoU, the better one is kept.
        most_frac: masks that cover a greater fraction of the image are dropped.
        most: greatest number of masks of an image.
        batch: number of points that are decoded at once.
    """

    model: Any
    processor: Any
    identity: str = "sam"
    grid: int = 32
    rating: float = 0.5
    stability: float = 0.95
    same_iou: float = 0.7
    most_frac: float = 0.8
    most: int = 1000
    batch: int = 64

    @property
    def is_sam2(self) -> bool:
        """Whether it is a SAM 2, whose embeddings come in several levels and without a norm."""
        return str(self.model.config.model_type).startswith("sam2")

    # -------------------------------------------------------------------------------------------- embeddings
    @torch.inference_mode()
    def embed_image(self, image_HWC: NDArray[np.uint8]) -> SamEmbedding:
        """Return the embeddings of one image, of its first three bands."""
        picture = Image.fromarray(np.ascontiguousarray(image_HWC[..., :3]))
        pixels = self.processor.image_processor(images=[picture], return_tensors="pt")["pixel_values"]
        found = self.model.get_image_embeddings(pixels.to(self.model.device, self.model.dtype))
        if self.is_sam2:
            return SamEmbedding(list(found), (1.0, 1.0), found[-1][0].float().cpu())
        height, width = image_HWC.shape[:2]
        extent_hw = height / max(height, width), width / max(height, width)
        return SamEmbedding([found], extent_hw, _crop_to_image(self._without_affine(found[0].float()), extent_hw).cpu())

    def embedding_levels(self, seen: SamEmbedding) -> list[Tensor]:
        """Return all levels DHW, cropped to the image, finest first."""
        return [_crop_to_image(level[0].float(), seen.extent_hw).cpu() for level in seen.levels]

    def _without_affine(self, embedding_DHW: Tensor) -> Tensor:
        """Return SAM's embedding before scale and shift of its last norm, where angles mean something."""
        norm = self.model.vision_encoder.neck.layer_norm2
        scale_D, shift_D = norm.weight.float(), norm.bias.float()
        bare_DHW: Tensor = (embedding_DHW - shift_D[:, None, None]) / scale_D[:, None, None]
        return bare_DHW

    # -------------------------------------------------------------------------------------------- masks
    @torch.inference_mode()
    def generate_masks(self, seen: SamEmbedding) -> SamInstances:
        """Return the masks of all objects of an image, best rated first."""
        steps = (torch.arange(self.grid) + 0.5) / self.grid
        points_N2 = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1).reshape(-1, 2)
        asked = (points_N2[at : at + self.batch] for at in range(0, len(points_N2), self.batch))
        parts = [self._select_good(*self._decode_points(seen, some_N2)) for some_N2 in asked]
        found = SamInstances(
            torch.cat([part.logits_NHW for part in parts]), torch.cat([part.rating_N for part in parts])
        )
        boxes_N4 = masks_to_boxes(found.logits_NHW > 0) if len(found) else torch.zeros(0, 4)
        kept = nms(boxes_N4 + boxes_N4.new_tensor([0, 0, 1, 1]), found.rating_N, self.same_iou)[: self.most]
        return SamInstances(found.logits_NHW[kept], found.rating_N[kept])

    @torch.inference_mode()
    def mask_at_point(self, seen: SamEmbedding, *, x_frac: float, y_frac: float) -> SamInstances:
        """Return the best rated mask at one point, given as fractions of the image's width and height."""
        logits_NHW, rating_N = self._decode_points(seen, torch.tensor([[x_frac, y_frac]]))
        best = rating_N.argmax()[None]
        return SamInstances(logits_NHW[best], rating_N[best])

    def _decode_points(self, seen: SamEmbedding, points_N2: Tensor) -> tuple[Tensor, Tensor]:
        """Return log odds (cropped to the image) and rating of the three masks of each point (x, y as fractions)."""
        side = self.model.config.vision_config
        side_px = side.image_size if not self.is_sam2 else side.backbone_config.image_size[0]
        extent = torch.tensor(seen.extent_hw[::-1])
        asked = (points_N2 * extent * side_px)[None, :, None].to(self.model.device, self.model.dtype)
        out = self.model(
            image_embeddings=seen.levels if self.is_sam2 else seen.levels[0],
            input_points=asked,
            input_labels=torch.ones(asked.shape[:3], dtype=torch.long, device=asked.device),
            multimask_output=True,
        )
        logits_NHW = out.pred_masks[0].flatten(0, 1).float()
        return _crop_to_image(logits_NHW, seen.extent_hw).cpu(), out.iou_scores[0].flatten().float().cpu()

    def _select_good(self, logits_NHW: Tensor, rating_N: Tensor) -> SamInstances:
        """Return the masks that are rated well, stable, and neither empty nor of nearly the whole image."""
        sure_N = (logits_NHW > STABILITY_OFFSET).sum(dim=(1, 2))
        wide_N = (logits_NHW > -STABILITY_OFFSET).sum(dim=(1, 2))
        frac_N = (logits_NHW > 0).float().mean(dim=(1, 2))
        good_N = (rating_N > self.rating) & (sure_N >= self.stability * wide_N.clamp_min(1))
        good_N &= (frac_N > 0) & (frac_N <= self.most_frac)
        return SamInstances(logits_NHW[good_N], rating_N[good_N])


def _crop_to_image(maps_DHW: Tensor, extent_hw: tuple[float, float]) -> Tensor:
    """Return the part of maps over the network's input that shows the image."""
    rows, cols = (max(1, round(size * frac)) for size, frac in zip(maps_DHW.shape[-2:], extent_hw, strict=True))
    return maps_DHW[..., :rows, :cols]
