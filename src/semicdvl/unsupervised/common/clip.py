"""CLIP as a classifier of images by sentences, for `scm`; the model is passed in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

BATCH = 32


@dataclass(frozen=True)
class ClipClassifier:
    """A CLIP or SigLIP of transformers.

    Attributes:
        model: `CLIPModel` or `SiglipModel`, in evaluation mode.
        tokenizer: its tokenizer.
        normal: mean and deviation of its pixels, RGB in [0, 1].
        identity: name and hash of the weights.
    """

    model: Any
    tokenizer: Any
    normal: tuple[tuple[float, ...], tuple[float, ...]]
    identity: str = "clip"

    @torch.inference_mode()
    def classify(self, pictures: Sequence[NDArray[np.uint8]], sentences: Sequence[str]) -> NDArray[np.float32]:
        """Return for each picture (uint8 HWC, any size; one or more) a distribution over the sentences, NS."""
        length = self.model.config.text_config.max_position_embeddings
        asked = self.tokenizer(
            list(sentences), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        ).to(self.model.device)
        parts = []
        for at in range(0, len(pictures), BATCH):
            pixels_BCHW = torch.stack([self._pixels(picture) for picture in pictures[at : at + BATCH]])
            out = self.model(
                input_ids=asked["input_ids"],
                attention_mask=asked.get("attention_mask"),
                pixel_values=pixels_BCHW.to(self.model.device, self.model.dtype),
            )
            parts.append(out.logits_per_image.float().softmax(dim=1).cpu())
        chosen_NS: NDArray[np.float32] = (
            torch.cat(parts).numpy() if parts else np.zeros((0, len(sentences)), np.float32)
        )
        return chosen_NS

    def _pixels(self, picture_HWC: NDArray[np.uint8]) -> Tensor:
        """Return a picture as the network takes it, squeezed to its square."""
        side = self.model.config.vision_config.image_size
        picture_CHW = torch.from_numpy(np.ascontiguousarray(picture_HWC)).permute(2, 0, 1).float() / 255
        square_CHW = F.interpolate(
            picture_CHW[None], size=(side, side), mode="bicubic", antialias=True, align_corners=False
        )[0]
        mean_C11, std_C11 = (torch.tensor(values)[:, None, None] for values in self.normal)
        ready: Tensor = (square_CHW.clamp(0, 1) - mean_C11) / std_C11
        return ready
