"""The VLM around a model of `transformers`: tiles, batches, cached image features, and masks turned into instances.

An adapter (`sam3`, `clipseg`, ...) is a `PromptableModel`: it encodes prompts and images, and predicts from one of
each. Encoding images is the expensive part; the features of the last few tiles are cached, so that other prompts for
the same image cost little.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from semicdvl.atomic_files import hash_values
from semicdvl.types import DescribedVLM, Instance, Segments
from semicdvl.vlms.instance_stitching import encode_mask
from semicdvl.vlms.pixel_hash import hash_pixels
from semicdvl.vlms.tiled_inference import segment_in_tiles
from semicdvl.vlms.validation import check_image, check_scores, normalise_prompts

CACHED_IMAGES = 2
"""Images whose features are cached: the two dates of a pair. SAM 3 needs about 0.2 GB for each in float32."""


class PromptableModel(Protocol):
    """Describe a vision-language model in two halves, so that an image is encoded once for any number of prompts."""

    def encode_prompts(self, words: tuple[str, ...]) -> Any:
        """Return the encoded prompts."""
        ...

    def encode_images(self, images: Sequence[NDArray[np.uint8]]) -> Sequence[Any]:
        """Return features of each image (HWC, all of one size), computed together."""
        ...

    def predict(
        self, features: Any, prompts: Any, *, shape_hw: tuple[int, int]
    ) -> tuple[Tensor, list[Instance] | None]:
        """Return scores CHW in [0, 1] of the image's size, and instances if the model predicts them."""
        ...


@dataclass(frozen=True)
class HuggingFaceVLM(DescribedVLM):
    """Run a `PromptableModel` as a VLM; the builders of the adapters make it.

    Attributes:
        identity: name, hash of weights and vocabulary, hash of every setting that changes predictions.
        gamma: score from which predictions are reliable; each adapter states what its scores mean.
        model: the model.
        tile_px: longest side of a tile.
        batch: tiles encoded together.
    """

    identity: str
    gamma: float
    model: PromptableModel
    tile_px: int
    batch: int = 1
    _image_features: OrderedDict[str, Any] = field(default_factory=OrderedDict, repr=False)
    _encoded_prompts: dict[tuple[str, ...], Any] = field(default_factory=dict, repr=False)

    @property
    def overlap_px(self) -> int:
        """Least overlap of neighbouring tiles: an eighth of the side."""
        return self.tile_px // 8

    def segment(self, image_HWC: NDArray[np.uint8], prompts: Sequence[str], *, gsd_m: float | None = None) -> Segments:
        """Return one score map per prompt, and instances if the model predicts them; `gsd_m` changes nothing.

        Args:
            image_HWC: uint8 RGB of any size; beyond `tile_px` it is segmented in overlapping tiles.
            prompts: words, in any case.
            gsd_m: not used: these models were trained on photographs without a scale.

        Raises:
            ConfigError: the image is not uint8 RGB, there is no prompt, or one is longer than the model reads.
            InputError: the model returned NaN.
        """
        name = self.identity.partition("-")[0]
        check_image(image_HWC, vlm=name)
        words = normalise_prompts(prompts)
        with torch.inference_mode():
            segments = segment_in_tiles(
                image_HWC,
                words,
                lambda tiles: self._segment_tiles(tiles, words),
                tile_px=self.tile_px,
                overlap_px=self.overlap_px,
                batch=self.batch,
            )
        check_scores(segments.scores_CHW, vlm=name)
        return Segments(segments.scores_CHW, tuple(prompts), segments.instances)

    def _segment_tiles(self, tiles: Sequence[NDArray[np.uint8]], words: tuple[str, ...]) -> list[Segments]:
        """Segment tiles of one size."""
        if words not in self._encoded_prompts:
            self._encoded_prompts.clear()
            self._encoded_prompts[words] = self.model.encode_prompts(words)
        predictions = []
        for tile_HWC, features in zip(tiles, self._encode_tiles(tiles), strict=True):
            height, width = tile_HWC.shape[:2]
            scores_CHW, found = self.model.predict(features, self._encoded_prompts[words], shape_hw=(height, width))
            maps_CHW = scores_CHW.float().clamp(0, 1).cpu().numpy()
            predictions.append(Segments(maps_CHW, words, None if found is None else tuple(found)))
        return predictions

    def _encode_tiles(self, tiles: Sequence[NDArray[np.uint8]]) -> list[Any]:
        """Return features of tiles; those of the last few are cached by their pixels."""
        keys = [hash_pixels(tile_HWC) for tile_HWC in tiles]
        cached = {key: self._image_features[key] for key in keys if key in self._image_features}
        new = {key: tile_HWC for key, tile_HWC in zip(keys, tiles, strict=True) if key not in cached}
        if new:
            cached |= zip(new, self.model.encode_images(list(new.values())), strict=True)
        for key in keys:
            self._image_features[key] = cached[key]
            self._image_features.move_to_end(key)
        while len(self._image_features) > CACHED_IMAGES:
            self._image_features.popitem(last=False)
        return [cached[key] for key in keys]


def build_identity(name: str, weights: str, **settings: Any) -> str:
    """Return the identity of a VLM, by which stores know it: name, hash of the weights, hash of the settings."""
    return f"{name}-{weights}-{hash_values(settings)[:8]}"


# ------------------------------------------------------------------------------------------------ images and masks
def to_pil_images(images: Sequence[NDArray[np.uint8]]) -> list[Image.Image]:
    """Convert images to Pillow's, whose axes the processors need not guess."""
    return [Image.fromarray(image_HWC) for image_HWC in images]


def resize_maps(maps_QHW: Tensor, shape_hw: tuple[int, int]) -> Tensor:
    """Resize maps to the image's size, bilinear, float32."""
    full_BQHW = F.interpolate(maps_QHW.float()[None], size=shape_hw, mode="bilinear", align_corners=False)
    return full_BQHW[0]


def masks_to_instances(
    masks_QHW: Tensor,
    *,
    above: float,
    prompts: Sequence[int],
    scores: Sequence[float],
    shape_hw: tuple[int, int],
) -> list[Instance]:
    """Convert masks on a coarse grid to instances at the image's size: pixels greater than `above`, if there are any.

    It resizes a few at a time, so that two hundred objects of a large tile do not fill the memory at full size.
    """
    found = []
    for at in range(0, len(masks_QHW), 16):
        full_QHW = (resize_maps(masks_QHW[at : at + 16], shape_hw) > above).cpu().numpy()
        for offset, mask_HW in enumerate(full_QHW):
            if mask_HW.any():
                code = encode_mask(mask_HW, top=0, left=0, shape_hw=shape_hw)
                found.append(Instance(code, prompts[at + offset], float(scores[at + offset])))
    return found
