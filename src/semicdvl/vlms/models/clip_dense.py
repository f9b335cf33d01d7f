"""Dense CLIP in the manner of MaskCLIP: any CLIP or SigLIP predicts per patch, without training; coarse and noisy.

Source: MaskCLIP (Zhou et al., ECCV 2022), and its public code. CLIP pools an image by attention; here the last block's
attention is replaced by the identity, so that every patch keeps its own value (value projection, output projection),
then goes on through the block's residual, feed-forward, final norm and projection as it would. A patch is compared with
the mean vector of each word over several sentences; a softmax over the words at the model's own temperature (100 for
CLIP) gives the scores. **Words compete**: one alone scores 1 everywhere, so at least two are needed, and synonyms take
from each other; give one prompt per concept. Gamma is 0.5: more likely than all others together.

Optional, off as in the source: *prompt denoising* drops words whose best score in the tile stays below a bound; *key
smoothing* replaces uncertain patches by the mean over patches with similar keys.

Differs from the source: SigLIP has no such block, its pooling head gets single patches instead, which is the same
thing (attention over one token is its value). Key smoothing takes the cosine of the keys themselves (the source puts
them through the output projection first and normalises over the wrong axis), clamped at 0, with weights that sum to 1,
so that scores stay in [0, 1]. Smoothing and denoising see one tile, not the whole image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from semicdvl.errors import ConfigError
from semicdvl.vlms import weights as vlms_weights
from semicdvl.vlms.devices import pick_device, pick_dtype
from semicdvl.vlms.huggingface import HuggingFaceVLM, build_identity, resize_maps
from semicdvl.vlms.model_cards import ModelCard
from semicdvl.vlms.models import clip_file
from semicdvl.vlms.validation import check_template

CARD = ModelCard(
    description="ground cover, coarsely; remote-sensing CLIPs",
    licence="MIT",
    size="0.15 B, 0.6 GB",
    needs="extra vlm",
    gamma=0.5,
)
AERIAL_TEMPLATES = (
    "a satellite photo of a {}.",
    "a satellite photo of the {}.",
    "an aerial photo of a {}.",
    "an aerial image of {}.",
    "a photo of a {} from above.",
    "a bird's eye view of a {}.",
)
"""Sentences for images from above: ours, in the manner of CLIP's own lists."""


@dataclass(frozen=True)
class PatchFeatures:
    """What was features of one image, on the grid of patches.

    Attributes:
        values_NE: unit vectors in the space of words.
        keys_ND: unit keys, for smoothing.
        grid_hw: rows and columns of patches.
    """

    values_NE: Tensor
    keys_ND: Tensor
    grid_hw: tuple[int, int]


@dataclass(frozen=True)
class ClipDense:
    """Predict with a CLIP or SigLIP patch by patch.

    Attributes:
        model: `CLIPModel` or `SiglipModel`.
        tokenizer: its tokenizer.
        normalisation: mean and deviation of its pixels, RGB in [0, 1].
        templates: sentences whose vectors are averaged.
        side_px: longest side of the network's input.
        smooth_below: best score below which a patch is smoothed; 0: none.
        drop_below: best score in a tile below which a word is dropped; 0: none.
    """

    model: Any
    tokenizer: Any
    normalisation: tuple[tuple[float, ...], tuple[float, ...]]
    templates: tuple[str, ...]
    side_px: int
    smooth_below: float
    drop_below: float

    @property
    def is_clip(self) -> bool:
        """Whether the model is a CLIP; else it is a SigLIP, which pools by a head of its own."""
        return hasattr(self.model, "visual_projection")

    def encode_prompts(self, words: tuple[str, ...]) -> Tensor:
        """Return one unit vector per word: the mean over the templates."""
        if len(words) < 2:
            raise ConfigError("clip_dense compares prompts with each other. Give two or more, background included.")
        length = self.model.config.text_config.max_position_embeddings
        sentences = [template.format(word) for word in words for template in self.templates]
        tokens = self.tokenizer(
            sentences, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        ).to(self.model.device)
        mask = tokens["attention_mask"] if self.is_clip else None  # SigLIP was trained to read its padding
        text_ND = self.model.text_model(input_ids=tokens["input_ids"], attention_mask=mask).pooler_output
        if self.is_clip:
            text_ND = self.model.text_projection(text_ND)
        text_PTE = F.normalize(text_ND.float(), dim=-1).view(len(words), len(self.templates), -1)
        return F.normalize(text_PTE.mean(dim=1), dim=-1)

    def encode_images(self, images: Sequence[NDArray[np.uint8]]) -> list[PatchFeatures]:
        """Return values and keys of every patch; images keep their shape, and need not be square."""
        pixels_BCHW = self._preprocess_images(images)
        patch = self.model.config.vision_config.patch_size
        grid_hw = (pixels_BCHW.shape[2] // patch, pixels_BCHW.shape[3] // patch)
        vision = self.model.vision_model
        hidden_BND = vision.embeddings(pixels_BCHW, interpolate_pos_encoding=True)
        values_BNE, keys_BND = (self._encode_with_clip if self.is_clip else self._encode_with_siglip)(
            vision, hidden_BND
        )
        values_BNE, keys_BND = (F.normalize(part.float(), dim=-1) for part in (values_BNE, keys_BND))
        return [PatchFeatures(values, keys, grid_hw) for values, keys in zip(values_BNE, keys_BND, strict=True)]

    def predict(self, features: PatchFeatures, prompts: Tensor, *, shape_hw: tuple[int, int]) -> tuple[Tensor, None]:
        """Return scores of every prompt."""
        logits_NP = self.model.logit_scale.float().exp() * features.values_NE @ prompts.T
        scores_NP = logits_NP.softmax(dim=1)
        if self.drop_below > 0:
            keep_P = scores_NP.amax(dim=0) >= self.drop_below
            if keep_P.any():  # with none left there would be nothing to choose from
                scores_NP = logits_NP.masked_fill(~keep_P, -torch.inf).softmax(dim=1)
        if self.smooth_below > 0:
            weight_NN = (features.keys_ND @ features.keys_ND.T).clamp_min(0)
            mean_NP = (weight_NN / weight_NN.sum(dim=1, keepdim=True)) @ scores_NP
            scores_NP = torch.where(scores_NP.amax(dim=1, keepdim=True) < self.smooth_below, mean_NP, scores_NP)
        return resize_maps(scores_NP.T.reshape(-1, *features.grid_hw), shape_hw), None

    def _preprocess_images(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Return images of whole patches, the longest side near `side_px`."""
        patch = self.model.config.vision_config.patch_size
        factor = self.side_px / max(images[0].shape[:2])
        size = [max(1, round(side * factor / patch)) * patch for side in images[0].shape[:2]]
        batch_BHWC = torch.from_numpy(np.stack(images)).to(self.model.device)
        pixels_BCHW = F.interpolate(
            batch_BHWC.permute(0, 3, 1, 2).float() / 255, size=size, mode="bicubic", antialias=True, align_corners=False
        )
        mean, deviation = (pixels_BCHW.new_tensor(values)[:, None, None] for values in self.normalisation)
        ready: Tensor = ((pixels_BCHW.clamp(0, 1) - mean) / deviation).to(self.model.dtype)
        return ready

    @staticmethod
    def _apply_layers(layers: Sequence[Any], hidden_BND: Tensor) -> Tensor:
        """Run encoder layers."""
        for layer in layers:
            out = layer(hidden_BND, attention_mask=None)
            hidden_BND = out[0] if isinstance(out, tuple) else out
        return hidden_BND

    def _encode_with_clip(self, vision: Any, hidden_BND: Tensor) -> tuple[Tensor, Tensor]:
        """Return values and keys of the last block's attention, the values as CLIP would project them."""
        *layers, last = vision.encoder.layers
        hidden_BND = self._apply_layers(layers, vision.pre_layrnorm(hidden_BND))[:, 1:]  # without the class token
        inner_BND, attention = last.layer_norm1(hidden_BND), last.self_attn
        value_BND = hidden_BND + attention.out_proj(attention.v_proj(inner_BND))
        value_BND = value_BND + last.mlp(last.layer_norm2(value_BND))
        return self.model.visual_projection(vision.post_layernorm(value_BND)), attention.k_proj(inner_BND)

    def _encode_with_siglip(self, vision: Any, hidden_BND: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the pooling head makes of each patch alone, and the head's keys."""
        hidden_BND = vision.post_layernorm(self._apply_layers(vision.encoder.layers, hidden_BND))
        batch, width = len(hidden_BND), hidden_BND.shape[-1]
        value_ND = vision.head(hidden_BND.reshape(-1, 1, width))
        attention = vision.head.attention
        key_BND = F.linear(
            hidden_BND, attention.in_proj_weight[width : 2 * width], attention.in_proj_bias[width : 2 * width]
        )
        return value_ND.view(batch, -1, width), key_BND


def build_clip_dense(
    *,
    weights: Path | str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    templates: Sequence[str] = AERIAL_TEMPLATES,
    key_smoothing: float = 0.0,
    prompt_denoising: float = 0.0,
    tile_px: int = 448,
    batch: int = 4,
) -> HuggingFaceVLM:
    """Load a CLIP or SigLIP for dense prediction.

    Args:
        weights: a folder or a name on the model hub of a CLIP or SigLIP (SigLIP 2 of fixed size included); or a file in
            OpenCLIP's form, as RemoteCLIP and GeoRSCLIP come (see `clip_file`). None: openai/clip-vit-base-patch16.
        device: torch device; "auto" is the GPU if there is one.
        dtype: "float32", "bfloat16", "float16"; "auto" is bfloat16 on a GPU and float32 elsewhere.
        templates: sentences that each prompt is inserted into, at `{}`.
        key_smoothing: patches whose best score is below this are smoothed; 0: none.
        prompt_denoising: words whose best score in a tile is below this are dropped; 0: none.
        tile_px: longest side of a tile, and of the network's input: smaller images are enlarged to it.
        batch: tiles per forward pass.

    Raises:
        ConfigError: an option out of range.
        InputError: the weights are missing, damaged or another model's.
        MissingExtraError: `transformers` is not installed.
    """
    templates = (templates,) if isinstance(templates, str) else tuple(templates)
    for template in templates:
        check_template(template)
    where = pick_device(device)
    kind = pick_dtype(dtype, where)
    vlms_weights.require_transformers("clip_dense")
    parts = clip_file.load_clip(weights, device=where, dtype=kind)
    adapter = ClipDense(
        parts.model, parts.tokenizer, parts.normalisation, templates, tile_px, key_smoothing, prompt_denoising
    )
    settings = {
        "dtype": str(kind),
        "templates": templates,
        "smoothing": key_smoothing,
        "denoising": prompt_denoising,
        "tile_px": tile_px,
    }
    return HuggingFaceVLM(
        build_identity("clip_dense", parts.fingerprint, **settings), CARD.gamma, adapter, tile_px, batch
    )
