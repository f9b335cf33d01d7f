"""The embedded VLM: segment an aerial image by any noun, offline, on a CPU; its weights ship with the package.

An open-vocabulary segmenter in the manner of LSeg (`aerial.net`), trained on public-domain images only; see
`docs/models/aerial-vlm.md` for its training data, its measured quality and its limits.

From cosines to scores: a softmax over the prompts (LSeg) makes a word's score depend on the other prompts, and synonyms
("house", "building") share one score. Here every word competes, by itself, with a fixed set of concepts (road, tree,
grass, water, car, ...), without those that mean the same as the word:

    score(word) = sigmoid(slope * (z_word - log sum_a w_a exp(z_a)) + bias)

with z the scaled cosines and w_a = 0 for concepts close to the word. So a word's score is the probability that the
pixel shows it and not something else, a single prompt is enough, and its score does not depend on the others.
Several views of an image are averaged as log odds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semicdvl.errors import ConfigError
from semicdvl.raster.tiling import WeightedMean, fit_features_to_image, plan_even_tiles
from semicdvl.types import DescribedVLM, MeasuredRange, Segments
from semicdvl.vlms.aerial.inference_net import (
    InferenceNet,
    WordHead,
    fold_words_into_head,
    make_input,
)
from semicdvl.vlms.aerial.net import FEATURE_STRIDE_PX, AerialNet, project_embeddings
from semicdvl.vlms.aerial.text import WordTable
from semicdvl.vlms.validation import check_image, check_prompts
from semicdvl.vlms.words import normalise_word, to_singular

NATIVE_GSD_M = 0.5
"""Metres per pixel of the training crops. An image of another `gsd_m` is resampled to this before the network;
an image without one is taken as it is."""
RESAMPLING_RANGE = (0.1, 4.0)
"""Bounds of that resampling: an image of 10 m per pixel would otherwise grow 400-fold and show nothing new."""
TILE_PX, OVERLAP_PX = 1152, 96
"""Larger images are segmented in tiles of this size at native resolution, whose scores are blended over the overlap. A
tile of `detect` is at most this large at native resolution, so that it is not cut once more."""
MAX_FEATURE_ENLARGEMENT = 2.0
"""Images coarser than 1 m per pixel are enlarged by this at most for features: memory grows with its square."""
COMPETITION_COSINE_RANGE = (0.15, 0.30)
"""A concept competes with an untrained word fully below the first, not at all above the second cosine."""
PIXELS_AT_ONCE = 2**13
"""Pixels of a map, at half of the image's size, that become log odds at once."""
MAX_LOG_ODDS = 9.2
"""Bound of the log odds of one view (a score of 0.9999): no single view may decide alone."""


@dataclass(frozen=True)
class TestTimeView:
    """Hold the magnification and mirroring of a test-time view; the log odds of all views are averaged."""

    magnification: float
    mirrored: bool


PLAIN_VIEW = TestTimeView(1.0, False)
TEST_TIME_VIEWS = {
    1: (PLAIN_VIEW,),
    2: (PLAIN_VIEW, TestTimeView(1.25, True)),
    3: (PLAIN_VIEW, TestTimeView(1.3, False), TestTimeView(0.8, True)),
    4: (PLAIN_VIEW, TestTimeView(1.0, True), TestTimeView(1.3, False), TestTimeView(0.8, True)),
}
"""Test-time views by their number."""


@dataclass(frozen=True)
class EncodedPrompts:
    """Hold the prompts of a call.

    Attributes:
        words: the words.
        head: turns the features of pixels into cosines with the words, then with the concepts that compete with them.
        competition_NK: the weight with which each concept competes with each word.
    """

    words: tuple[str, ...]
    head: WordHead
    competition_NK: Tensor


@dataclass(frozen=True)
class AerialVLM(DescribedVLM):
    """Segment aerial images by words; `build.build_aerial` makes it.

    Attributes:
        identity: name, hash of the weights, number of views, and the number type unless it is float32.
        net: the network as it was trained, in evaluation mode, not to be trained further.
        inference_net: the same, made fast at inference (`inference_net.prepare_net`).
        table: nouns that need no text encoder.
        mean_D: mean noun, subtracted before the projection.
        projection_DE: projection of sentence embeddings to the word space.
        concepts: trained words by concept.
        anchors_KE: one vector per concept that words compete with.
        slope: calibration of the log odds.
        bias: calibration of the log odds.
        test_time_views: views whose log odds are averaged.
        device: where the network runs.
        features_identity: name of the features that `segment_with_features` gives.
        gamma: score from which predictions are reliable. The paper's 0.8 leaves a tenth to a fifth of the pixels with a
            label here, 0.5 about a third, as the paper has with its VLM at 0.8.
        measured: words and pixel sizes on which its quality was measured.
        class_score: mean score from which the class of a changed object is named.
        class_reliability: how often the classes that are named then are right.
    """

    identity: str
    net: AerialNet
    inference_net: InferenceNet
    table: WordTable
    mean_D: Tensor
    projection_DE: Tensor
    concepts: dict[str, tuple[str, ...]]
    anchors_KE: Tensor
    slope: float
    bias: float
    test_time_views: tuple[TestTimeView, ...]
    device: torch.device
    features_identity: str
    gamma: float
    measured: MeasuredRange
    class_score: float | None
    class_reliability: str
    words_are_independent = True

    def check_words(self, words: Sequence[str]) -> None:
        """Refuse words that are neither in the shipped table nor close in meaning to one that is.

        Raises:
            ConfigError: there is such a word.
            MissingExtraError: a word is not in the table, and the text encoder is not installed.
        """
        self.table.check_words([normalise_word(word) for word in words])

    def segment(self, image_HWC: NDArray[np.uint8], prompts: Sequence[str], *, gsd_m: float | None = None) -> Segments:
        """Return one score map per prompt.

        Args:
            image_HWC: uint8 RGB of any size; memory beyond the score maps themselves stays bounded.
            prompts: words, in any case; their scores do not depend on each other.
            gsd_m: metres per pixel; None: the native 0.5 m is assumed.

        Returns:
            Scores of the image's size, in the order of `prompts`; no instances (CEG takes connected components).

        Raises:
            ConfigError: no prompts, an empty one, an image that is not uint8 RGB, or a `gsd_m` that is not positive.
            MissingExtraError: a word is neither in the shipped table nor is the text encoder installed.
        """
        return self.segment_with_features(image_HWC, prompts, gsd_m=gsd_m)[0]

    def segment_with_features(
        self, image_HWC: NDArray[np.uint8], prompts: Sequence[str], *, gsd_m: float | None = None
    ) -> tuple[Segments, NDArray[np.float32] | None]:
        """Return what `segment` returns, and the encoder's features of the image from the same pass.

        The features are those of `features.AerialFeatureExtractor`; None where the image is not one tile, or would be
        enlarged more than that does.

        Raises:
            ConfigError, MissingExtraError: see `segment`.
        """
        check_image(image_HWC, vlm="aerial")
        encoded = self.encode_prompts(prompts)
        factor = compute_resampling_factor(gsd_m)
        height, width = image_HWC.shape[:2]
        tiling = plan_even_tiles(height, width, tile_px=round(TILE_PX / factor), overlap_px=round(OVERLAP_PX / factor))
        mean = WeightedMean(tiling, map_count=len(encoded.words), ramp_px=OVERLAP_PX / factor)
        features_DHW = None
        for tile in tiling:
            scores_CHW, features_DHW = self._score_tile(image_HWC[tile.window], encoded, factor=factor)
            mean.add(tile, scores_CHW)
        scores_CHW = mean.finish()
        shared = len(tiling) == 1 and factor <= MAX_FEATURE_ENLARGEMENT
        segments = Segments(np.clip(scores_CHW, 0.0, 1.0, out=scores_CHW), tuple(prompts))
        return segments, features_DHW if shared else None

    def encode_prompts(self, prompts: Sequence[str]) -> EncodedPrompts:
        """Embed words, and weight the concepts that compete with each."""
        check_prompts(prompts)
        words = tuple(normalise_word(word) for word in prompts)
        vectors_NE = project_embeddings(
            self.table.embed_words(words), mean_D=self.mean_D, projection_DE=self.projection_DE
        )
        near, same = COMPETITION_COSINE_RANGE
        competition_NK = ((same - vectors_NE @ self.anchors_KE.T) / (same - near)).clamp(0, 1)
        for row, word in enumerate(words):
            own = [at for at, trained in enumerate(self.concepts.values()) if {word, to_singular(word)} & {*trained}]
            if own:  # a trained word: all concepts but its own compete, however similar they are
                competition_NK[row] = 1.0
                competition_NK[row, own] = 0.0
        with torch.inference_mode():
            head = fold_words_into_head(self.net.head, torch.cat([vectors_NE.to(self.device), self.anchors_KE]))
        return EncodedPrompts(words, head, competition_NK.to(self.device))

    def _score_tile(
        self, tile_HWC: NDArray[np.uint8], encoded: EncodedPrompts, *, factor: float
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Return the scores of one tile at its own size (the sigmoid of the mean log odds of the views), and features.

        The mean of the odds' logarithms, not of the scores: one view that is sure does not outvote three that see
        nothing, and a faint score of the background keeps its weight against a faint one of the foreground.
        """
        height, width = tile_HWC.shape[:2]
        total_CHW = np.zeros((len(encoded.words), height, width), np.float32)
        features_DHW = None
        for view in self.test_time_views:
            shown_HWC = resample_tile(tile_HWC, factor * view.magnification, mirrored=view.mirrored)
            odds_HWN, of_view_DHW = self._weigh_view(shown_HWC, encoded)
            if view == PLAIN_VIEW:
                features_DHW = of_view_DHW
            odds_HWN = _enlarge(odds_HWN, shown_hw=shown_HWC.shape[:2], shape_hw=(height, width))
            total_CHW += (odds_HWN[:, ::-1] if view.mirrored else odds_HWN).transpose(2, 0, 1)
        total_CHW /= -len(self.test_time_views)
        np.exp(total_CHW, out=total_CHW)
        total_CHW += 1
        return np.divide(1, total_CHW, out=total_CHW), features_DHW

    @torch.inference_mode()
    def _weigh_view(
        self, tile_HWC: NDArray[np.uint8], encoded: EncodedPrompts
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the log odds HWN of a resampled tile, at half of its size, and the encoder's features DHW."""
        shape_hw = tile_HWC.shape[0], tile_HWC.shape[1]
        stages = self.inference_net.encoder(make_input(tile_HWC, like=self.inference_net))
        pyramid_BDHW = self.inference_net.fuse_pyramid(stages)
        rows, cols = (-(-size // 2) for size in shape_hw)
        pixels_PD = pyramid_BDHW[0, :, :rows, :cols].permute(1, 2, 0).reshape(-1, pyramid_BDHW.shape[1])
        # Part by part: the vectors of a large tile would take more memory than all of the network.
        odds_PN = torch.cat(
            [
                self._compute_log_odds(encoded.head(part_PD), encoded)
                for part_PD in torch.split(pixels_PD, PIXELS_AT_ONCE)
            ]
        )
        odds_HWN: NDArray[np.float32] = odds_PN.reshape(rows, cols, -1).cpu().numpy()
        features_DHW = self.inference_net.take_features(stages)[0].cpu().numpy()
        return odds_HWN, fit_features_to_image(features_DHW, stride_px=FEATURE_STRIDE_PX, shape_hw=shape_hw)

    def _compute_log_odds(self, cosines_PW: Tensor, encoded: EncodedPrompts) -> Tensor:
        """Return calibrated log odds PN of every word, each against the concepts that compete with it.

        Args:
            cosines_PW: cosines of every pixel with the words, then with the concepts.
            encoded: the words.
        """
        word_PN, concept_PK = (cosines_PW * self.net.scale).tensor_split([len(encoded.words)], dim=1)
        # Scaled cosines are bounded by 40: the sum of exponentials needs no shift, and becomes one matrix product.
        competition_PN = (concept_PK.exp() @ encoded.competition_NK.T).clamp_min(1e-20).log()
        odds_PN = self.slope * (word_PN - competition_PN) + self.bias
        return odds_PN.clamp(-MAX_LOG_ODDS, MAX_LOG_ODDS)


def _enlarge(
    odds_HWN: NDArray[np.float32], *, shown_hw: tuple[int, ...], shape_hw: tuple[int, int]
) -> NDArray[np.float32]:
    """Interpolate log odds at half of the size of a view to the size of the tile.

    Where a side of the view is odd, the half reaches one pixel of the view beyond it, which is cut off.
    """
    height, width = (
        round(size * 2 * cells / shown) for size, cells, shown in zip(shape_hw, odds_HWN.shape, shown_hw, strict=False)
    )
    full_HWN = cv2.resize(odds_HWN, (width, height), interpolation=cv2.INTER_LINEAR)
    full_HWN = np.asarray(full_HWN, np.float32).reshape(height, width, -1)  # OpenCV drops an axis of length one
    return full_HWN[: shape_hw[0], : shape_hw[1]]


def resample_tile(tile_HWC: NDArray[np.uint8], factor: float, *, mirrored: bool = False) -> NDArray[np.uint8]:
    """Resample a tile by a factor (cubic where it grows, averaged where it shrinks) and mirror it on request."""
    size = max(1, round(tile_HWC.shape[1] * factor)), max(1, round(tile_HWC.shape[0] * factor))
    if size != tile_HWC.shape[1::-1]:
        interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
        tile_HWC = np.asarray(cv2.resize(tile_HWC, size, interpolation=interpolation), np.uint8)
    return np.ascontiguousarray(tile_HWC[:, ::-1] if mirrored else tile_HWC)


def compute_resampling_factor(gsd_m: float | None, *, most: float = RESAMPLING_RANGE[1]) -> float:
    """Return the factor that resamples an image to the native resolution.

    Args:
        gsd_m: metres per pixel of the image; None: the native 0.5 m is assumed.
        most: largest factor.

    Raises:
        ConfigError: `gsd_m` is not positive.
    """
    if gsd_m is None:
        return 1.0
    if not (np.isfinite(gsd_m) and gsd_m > 0):
        raise ConfigError(f"gsd_m must be metres per pixel, greater than 0, or None if unknown; got {gsd_m}.")
    return float(np.clip(gsd_m / NATIVE_GSD_M, RESAMPLING_RANGE[0], most))
