"""The embedded model: asks an aerial image for any noun, offline, on a CPU; its weights ship with the package.

An open-vocabulary segmenter in the way of LSeg (`aerial_net`), trained on public-domain images only; see
`docs/models/aerial-vlm.md` for what it was trained on, how well it does and what it cannot do.

From cosines to scores. A softmax over the asked words (LSeg) makes a word's score depend on what else was asked, and
synonyms ("house", "building") share what should be theirs together. Here every word competes, by itself, with a fixed
set of concepts (road, tree, grass, water, car, ...), less those that mean the same as the word:

    score(word) = sigmoid(slope * (z_word - log sum_a w_a exp(z_a)) + bias)

with z the scaled cosines and w_a = 0 for concepts close to the word. So a word's score is the probability that the
pixel shows it and not something else, a word can be asked alone, and its score is the same whoever else is asked.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from semicdvl.atomic_files import hash_file
from semicdvl.errors import ConfigError, InputError
from semicdvl.raster.tiling import WeightedMean, plan_even_tiles
from semicdvl.types import Segments
from semicdvl.vlms.aerial.net import AerialNet, normalise_image, project_embeddings
from semicdvl.vlms.aerial.text import WordTable, load_word_table, normalise_word
from semicdvl.vlms.weights import pick_device

WEIGHTS_PATH = Path(__file__).with_name("aerial.safetensors")
NATIVE_GSD_M = 0.5
"""Metres per pixel of the training crops. An image of another `gsd_m` is resampled to this before the network sees it;
an image without one is taken as it is."""
RESAMPLING_RANGE = (0.1, 4.0)
"""Bounds of that resampling: an image of 10 m per pixel would otherwise grow 400-fold and show nothing new."""
TILE_PX, OVERLAP_PX, STRIDE_PX = 768, 96, 32
"""Larger images are seen in tiles of this size at native resolution, whose scores are blended over the overlap."""
COMPETITION_COSINE_RANGE = (0.15, 0.30)
"""A concept competes with an untrained word fully below the first, not at all above the second cosine."""


@dataclass(frozen=True)
class TestTimeView:
    """One way of looking at a tile: magnification and mirroring; the scores of all views are averaged."""

    magnification: float
    mirrored: bool


TEST_TIME_VIEWS = {
    1: (TestTimeView(1.0, False),),
    2: (TestTimeView(1.0, False), TestTimeView(1.25, True)),
    4: (TestTimeView(1.0, False), TestTimeView(1.0, True), TestTimeView(1.3, False), TestTimeView(0.8, True)),
}
"""Test-time views by their number."""


@dataclass(frozen=True)
class EncodedPrompts:
    """Words made ready for one call: their vectors, and how much each concept competes with each word."""

    words: tuple[str, ...]
    vectors_NE: Tensor
    competition_NK: Tensor


@dataclass(frozen=True)
class AerialVLM:
    """The model with its words; build it with `build`.

    Attributes:
        identity: name, hash of the weights and of the word table, number of views.
        net: the network, in evaluation mode.
        table: nouns that need no text encoder.
        mean_D: mean noun, subtracted before the projection.
        projection_DE: projection of sentence embeddings to the word space.
        concepts: trained words by concept.
        anchors_KE: one vector per concept, what a word competes with.
        slope: calibration of the log odds.
        bias: calibration of the log odds.
        test_time_views: test-time views.
        device: where the network runs.
        gamma: score from which answers are worth believing. The paper's 0.8 leaves a tenth to a fifth of the pixels
            with a label here, 0.5 about a third, as the paper has with its VLM at 0.8.
    """

    identity: str
    net: AerialNet
    table: WordTable
    mean_D: Tensor
    projection_DE: Tensor
    concepts: dict[str, tuple[str, ...]]
    anchors_KE: Tensor
    slope: float
    bias: float
    test_time_views: tuple[TestTimeView, ...]
    device: torch.device
    gamma: float = 0.5

    def segment(self, image_HWC: NDArray[np.uint8], prompts: Sequence[str], *, gsd_m: float | None = None) -> Segments:
        """Return one score map per prompt.

        Args:
            image_HWC: uint8 RGB of any size; memory beyond the score maps themselves stays bounded.
            prompts: words, in any case; each is answered by itself.
            gsd_m: metres per pixel. None: the image is taken as if it had the native 0.5 m.

        Returns:
            Scores of the image's size, in the order of `prompts`; no instances (CEG takes connected components).

        Raises:
            ConfigError: no prompts, an empty word, an image that isn't uint8 RGB, or a `gsd_m` that isn't positive.
            MissingExtraError: a word is neither in the shipped table nor is the text encoder installed.
        """
        _check_image(image_HWC)
        question = self.encode_prompts(prompts)
        factor = _resampling_factor(gsd_m)
        height, width = image_HWC.shape[:2]
        tiling = plan_even_tiles(height, width, tile_px=round(TILE_PX / factor), overlap_px=round(OVERLAP_PX / factor))
        mean = WeightedMean(tiling, map_count=len(question.words), ramp_px=OVERLAP_PX / factor)
        for tile in tiling:
            mean.add(tile, self._score_tile(image_HWC[tile.window], question, factor=factor))
        scores_CHW = mean.finish()
        return Segments(np.clip(scores_CHW, 0.0, 1.0, out=scores_CHW), tuple(prompts))

    def encode_prompts(self, prompts: Sequence[str]) -> EncodedPrompts:
        """Turn words into vectors and find which concepts compete with each."""
        if isinstance(prompts, str) or not prompts:
            raise ConfigError(
                f"prompts must be a list of words, got {prompts!r}; give for example ['building', 'road']."
            )
        words = tuple(normalise_word(word) for word in prompts)
        vectors_NE = project_embeddings(
            self.table.embed_words(words), mean_D=self.mean_D, projection_DE=self.projection_DE
        )
        return EncodedPrompts(
            words, vectors_NE.to(self.device), self._competition_weights(words, vectors_NE).to(self.device)
        )

    def _competition_weights(self, words: Sequence[str], vectors_NE: Tensor) -> Tensor:
        """Return the weight of each concept as a rival of each word: all but its own, or all but the near ones."""
        near, same = COMPETITION_COSINE_RANGE
        rivals_NK = ((same - vectors_NE @ self.anchors_KE.T) / (same - near)).clamp(0, 1)
        for row, word in enumerate(words):
            own = [index for index, trained in enumerate(self.concepts.values()) if word in trained]
            if own:
                rivals_NK[row] = 1.0
                rivals_NK[row, own] = 0.0
        return rivals_NK

    def _score_tile(
        self, tile_HWC: NDArray[np.uint8], question: EncodedPrompts, *, factor: float
    ) -> NDArray[np.float32]:
        """Return the scores of one tile at its own size, averaged over the views."""
        height, width = tile_HWC.shape[:2]
        total_CHW = np.zeros((len(question.words), height, width), np.float32)
        for view in self.test_time_views:
            scores_CHW = self._score_view(
                resample_tile(tile_HWC, factor * view.magnification, mirrored=view.mirrored), question
            )
            scores_HWC = cv2.resize(scores_CHW.transpose(1, 2, 0), (width, height), interpolation=cv2.INTER_LINEAR)
            scores_HWC = scores_HWC.reshape(height, width, -1)  # OpenCV drops an axis of length one
            total_CHW += (scores_HWC[:, ::-1] if view.mirrored else scores_HWC).transpose(2, 0, 1)
        total_CHW /= len(self.test_time_views)
        return total_CHW

    @torch.inference_mode()
    def _score_view(self, tile_HWC: NDArray[np.uint8], question: EncodedPrompts) -> NDArray[np.float32]:
        """Return the scores of a resampled tile, at its size."""
        height, width = tile_HWC.shape[:2]
        pad = [(0, max(-size % STRIDE_PX, 2 * STRIDE_PX - size)) for size in (height, width)]
        padded = np.pad(tile_HWC, (*pad, (0, 0)), mode="symmetric")
        image_BCHW = normalise_image(torch.from_numpy(padded).to(self.device).permute(2, 0, 1)[None])
        features_BEHW = self.net(image_BCHW.contiguous(memory_format=torch.channels_last))
        scores_BCHW = self._compute_scores(features_BEHW, question)
        full_BCHW = F.interpolate(scores_BCHW, size=padded.shape[:2], mode="bilinear", align_corners=False)
        scores_CHW: NDArray[np.float32] = full_BCHW[0, :, :height, :width].cpu().numpy()
        return scores_CHW

    def _compute_scores(self, features_BEHW: Tensor, question: EncodedPrompts) -> Tensor:
        """Return calibrated scores BCHW of every word, each against its own rivals."""
        word_BCHW = self.net.compute_logits(features_BEHW, question.vectors_NE)
        rival_BKHW = self.net.compute_logits(features_BEHW, self.anchors_KE)
        # Scaled cosines are bounded by 40: the sum of exponentials needs no shift, and becomes one matrix product.
        against_BCHW = torch.einsum("bkhw,nk->bnhw", rival_BKHW.exp(), question.competition_NK).clamp_min(1e-20).log()
        return torch.sigmoid(self.slope * (word_BCHW - against_BCHW) + self.bias)


def build_aerial(*, weights: Path | str | None = None, device: str = "cpu", views: int = 4) -> AerialVLM:
    """Load the embedded model.

    Args:
        weights: a `.safetensors` file written by `tools/train_aerial_vlm.py`; None for the shipped one.
        device: torch device; "auto" is the GPU where there is one.
        views: test-time views that are averaged: 1 (fastest), 2 or 4 (best).

    Raises:
        ConfigError: `views` is none of these, or there is no such device.
        InputError: the file is missing, unreadable, or holds something else.
    """
    if views not in TEST_TIME_VIEWS:
        raise ConfigError(
            f"the embedded model was asked for {views} views; choose one of {', '.join(map(str, TEST_TIME_VIEWS))}."
        )
    path = WEIGHTS_PATH if weights is None else Path(weights)
    tensors, facts = _read_weights_file(path)
    net = AerialNet(backbone=facts["backbone"])
    _load_net_weights(net, tensors, path)
    table = load_word_table()
    mean_D, projection_DE = tensors["words.mean_D"], tensors["words.projection_DE"]
    concepts = {name: tuple(words) for name, words in json.loads(facts["concepts"]).items()}
    anchors = [
        project_embeddings(table.embed_words(words), mean_D=mean_D, projection_DE=projection_DE).mean(0)
        for words in concepts.values()
    ]
    target = pick_device(device)
    return AerialVLM(
        identity=f"aerial-{hash_file(path)[:12]}-{views}",
        net=net.eval().to(memory_format=torch.channels_last).to(target),
        table=table,
        mean_D=mean_D,
        projection_DE=projection_DE,
        concepts=concepts,
        anchors_KE=F.normalize(torch.stack(anchors), dim=1).to(target),
        slope=float(facts["slope"]),
        bias=float(facts["bias"]),
        test_time_views=TEST_TIME_VIEWS[views],
        device=target,
    )


def _read_weights_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and metadata of a weights file."""
    remedy = "Give a file written by tools/train_aerial_vlm.py, or none for the shipped weights"
    if not path.is_file():
        raise InputError(path, "no such weights file", remedy)
    try:
        with safe_open(path, framework="pt") as file:
            facts: dict[str, str] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise InputError(path, f"is not a safetensors file ({error})", remedy) from error
    missing = {"backbone", "concepts", "slope", "bias"} - facts.keys()
    if missing or not {"words.mean_D", "words.projection_DE"} <= tensors.keys():
        raise InputError(path, "does not hold an aerial vision-language model", remedy)
    return tensors, facts


def _load_net_weights(net: AerialNet, tensors: dict[str, Tensor], path: Path) -> None:
    """Load fp16 weights into the float32 network."""
    own = {name.removeprefix("net."): value.float() for name, value in tensors.items() if name.startswith("net.")}
    expected = {name for name in net.state_dict() if not name.endswith("num_batches_tracked")}
    try:
        if own.keys() != expected:
            raise RuntimeError(f"{len(own.keys() ^ expected)} tensors are missing or too many")
        net.load_state_dict(own, strict=False)
    except RuntimeError as error:
        raise InputError(
            path, f"its tensors don't fit {net.backbone} ({error})", "Give weights of this network"
        ) from error


def _check_image(image_HWC: NDArray[Any]) -> None:
    if image_HWC.ndim != 3 or image_HWC.shape[2] != 3 or image_HWC.dtype != np.uint8 or 0 in image_HWC.shape:
        raise ConfigError(
            f"the embedded model takes uint8 RGB images (height, width, 3), got {image_HWC.dtype} "
            f"{image_HWC.shape}; choose three bands and stretch them to 0..255 first."
        )


def resample_tile(tile_HWC: NDArray[np.uint8], factor: float, *, mirrored: bool = False) -> NDArray[np.uint8]:
    """Resample a tile by a factor (cubic where it grows, averaged where it shrinks) and mirror it if asked."""
    size = max(1, round(tile_HWC.shape[1] * factor)), max(1, round(tile_HWC.shape[0] * factor))
    if size != tile_HWC.shape[1::-1]:
        interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
        tile_HWC = np.asarray(cv2.resize(tile_HWC, size, interpolation=interpolation), np.uint8)
    return np.ascontiguousarray(tile_HWC[:, ::-1] if mirrored else tile_HWC)


def _resampling_factor(gsd_m: float | None) -> float:
    """Return the magnification that brings an image to the native resolution."""
    if gsd_m is None:
        return 1.0
    if not (np.isfinite(gsd_m) and gsd_m > 0):
        raise ConfigError(f"gsd_m is {gsd_m}; wanted metres per pixel, greater than 0, or None if unknown.")
    return float(np.clip(gsd_m / NATIVE_GSD_M, *RESAMPLING_RANGE))
