"""SCM (segment change model): distance of SAM's feature maps, kept where CLIP finds the foreground concept.

Source: Tan et al., "Segment change model (SCM) for unsupervised change detection in VHR remote sensing images", IGARSS
2024. Its public code is for non-commercial use and its mask proposer is AGPL; this is written from the description. Two
parts. *Recalibrated feature fusion*: every level of the network's feature maps is multiplied by its own channel means,
brought to equally many channels, coarse levels are added to finer ones, all are joined, and both dates are compared by
the cosine. *Piecewise semantic attention*: every object's crop, on white, is shown to CLIP with prompts for the
foreground and for the background; where a building is unlikely, the distance is reduced.

Differences from the source: SAM 2 proposes masks and gives the levels, instead of FastSAM; channel means are those of
the whole raster, not of the tile; levels are joined on the finest one's grid, then the distance is enlarged; the
prompts are ours, and all foreground prompts count (the public code drops the last). The threshold is Otsu's over all
distances that are not 0, as in the source, but of one raster; the no-change guard of `thresholds` applies to the
distance before it is reduced.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from semicdvl.errors import ConfigError
from semicdvl.types import ChangeMap, Detector, PairTiles, ScoreStrip, ScoreStrips
from semicdvl.unsupervised.common.detector import UnsupervisedDetector
from semicdvl.unsupervised.common.sam import SamEmbedding, SamInstances, SamMaskGenerator
from semicdvl.unsupervised.common.statistics import Moments, count_valid_pixels, measure_moments
from semicdvl.unsupervised.common.thresholds import (
    Histogram,
    ThresholdRule,
    build_histogram,
    compute_guard,
    make_change_map,
    normalise_by_threshold,
)

FIND = ("building", "house", "roof", "apartment block", "warehouse", "shed", "factory")
BACKGROUND = ("road", "parking lot", "bare land", "grass", "tree", "field", "water", "car", "sports field", "shadow")
"""Ours; the source asks seven words for buildings and ten for the rest, too."""
SENTENCE = "satellite image of {}"
SURE_PROBABILITY = 0.5
"""From this probability on, the distance is kept; below, it is reduced in proportion."""
MIN_DISTANCE = 1e-6
"""Smallest distance of unit vectors: below, it is rounding."""
WHITE = 255


class ImageTextClassifier(Protocol):
    """A CLIP: images and sentences in, probabilities out."""

    @property
    def identity(self) -> str:
        """Name and hash of the weights, for the report."""
        ...

    def classify(self, pictures: Sequence[NDArray[np.uint8]], sentences: Sequence[str]) -> NDArray[np.float32]:
        """Return for each picture (uint8 HWC) a distribution over the sentences, NS."""
        ...


@dataclass(frozen=True)
class SCM(UnsupervisedDetector):
    """SCM; see the module.

    Attributes:
        sam: the mask generator, which also gives the feature levels.
        clip: the classifier of objects.
        find: prompts of the foreground.
        rest: prompts of the background.
        rule: how the threshold is found; distances lie between 0 and 1.
        channel_means: channel means of each date's levels, known after `prepare`.
    """

    name, map_count = "scm", 2
    stored_kind = "semicdvl.classic.scm.SCM"

    sam: SamMaskGenerator
    clip: ImageTextClassifier
    find: tuple[str, ...] = FIND
    rest: tuple[str, ...] = BACKGROUND
    rule: ThresholdRule = field(default_factory=ThresholdRule)
    channel_means: tuple[tuple[Tensor, ...], tuple[Tensor, ...]] | None = None

    def description(self) -> dict[str, str]:
        """Return what the detector does, and its networks."""
        return {
            "Detector": "distance of SAM's features, weighted by CLIP (after SCM), no labels, no training",
            "Networks": f"{self.sam.identity}, {self.clip.identity}",
            "Looked for": ", ".join(self.find),
            "Threshold": str(self.rule),
        }

    def prepare(self, tiles: PairTiles) -> Detector:
        """Measure the channel means of every level over the whole raster.

        Raises:
            DataError: no data, one colour, or fewer than three bands.
        """
        rule = self.rule.for_pair(measure_moments(tiles, method=self.name, bands=3))
        sums: dict[tuple[int, int], Moments] = {}
        for tile in tiles:
            for date, image_HWC in enumerate((tile.t1_HWC, tile.t2_HWC)):
                for level, map_DHW in enumerate(self.sam.embedding_levels(self.sam.embed_image(image_HWC))):
                    total = sums.setdefault((date, level), Moments(len(map_DHW)))
                    weight_N = count_valid_pixels(tile.valid_HW, (map_DHW.shape[1], map_DHW.shape[2]))
                    total.add(map_DHW.flatten(1).T.numpy(), weight_N)
        count = len(sums) // 2
        t1, t2 = (
            tuple(torch.from_numpy(sums[date, level].mean_V).float() for level in range(count)) for date in (0, 1)
        )
        return replace(self, channel_means=(t1, t2), rule=rule)

    def predict_scores(
        self, t1_HWC: NDArray[np.uint8], t2_HWC: NDArray[np.uint8], *, gsd_m: float | None = None
    ) -> NDArray[np.float32]:
        """Return the distance of the dates, first reduced outside of foreground objects, then unchanged, 2HW."""
        assert self.channel_means is not None, "prepare() comes first"
        images = (t1_HWC, t2_HWC)
        seen = [self.sam.embed_image(image_HWC) for image_HWC in images]
        joined = [
            fuse_levels(self.sam.embedding_levels(one), means)
            for one, means in zip(seen, self.channel_means, strict=True)
        ]
        distance_HW = (1 - F.cosine_similarity(joined[0], joined[1], dim=0)).clamp(0, 1).numpy()
        distance_HW[distance_HW < MIN_DISTANCE] = 0
        shape_hw = t1_HWC.shape[0], t1_HWC.shape[1]
        full_HW = cv2.resize(distance_HW, shape_hw[::-1], interpolation=cv2.INTER_LINEAR)
        wanted_HW = np.maximum(
            *(self._foreground_probability(image, one) for image, one in zip(images, seen, strict=True))
        )
        return np.stack([full_HW * np.minimum(wanted_HW / SURE_PROBABILITY, 1), full_HW]).astype(np.float32)

    def _foreground_probability(self, image_HWC: NDArray[np.uint8], seen: SamEmbedding) -> NDArray[np.float32]:
        """Return the probability that a pixel belongs to a foreground object; 0 where there is no object."""
        masks = self.sam.generate_masks(seen)
        shape_hw = image_HWC.shape[0], image_HWC.shape[1]
        if not len(masks):
            return np.zeros(shape_hw, np.float32)
        sentences = [SENTENCE.format(word) for word in (*self.find, *self.rest)]
        chosen_NS = self.clip.classify(list(crop_objects(image_HWC, masks)), sentences)
        return masks.paint_maximum(torch.from_numpy(chosen_NS[:, : len(self.find)].sum(axis=1)), shape_hw)

    def decide(self, strips: ScoreStrips) -> Iterator[ChangeMap]:
        """Yield the change maps: changed where the reduced distance passes the rule and the distance the guard."""
        weighted = build_histogram(strip.scores_PHW[0][_covered_pixels(strip)] for strip in strips)
        border = replace(self.rule, guard=False).find_threshold(weighted)
        least = self._guard_chord(strips, border) if self.rule.uses_guard and np.isfinite(border) else 0.0
        for strip in strips:
            score_HW = normalise_by_threshold(strip.scores_PHW[0], border)
            if least > 0:
                score_HW = np.minimum(score_HW, normalise_by_threshold(_chord_length(strip.scores_PHW[1]), least))
            yield make_change_map(score_HW, strip.valid_HW)

    def _guard_chord(self, strips: ScoreStrips, border: float) -> float:
        """Return the guard: the smallest chord length of a changed pixel."""
        every, same, other = Histogram(), Histogram(), Histogram()
        for strip in strips:
            chord_HW, above_HW = _chord_length(strip.scores_PHW[1]), strip.scores_PHW[0] > border
            every.add(chord_HW[strip.valid_HW])
            same.add(chord_HW[strip.valid_HW & ~above_HW])
            other.add(chord_HW[strip.valid_HW & above_HW])
        if not same.total or not other.total:
            return 0.0
        return compute_guard(every, same, mean_changed=other.mean_above(-1.0))


def _covered_pixels(strip: ScoreStrip) -> NDArray[np.bool_]:
    """Return where objects were found: elsewhere the reduced distance is 0 and has no meaning."""
    seen_HW: NDArray[np.bool_] = strip.valid_HW & (strip.scores_PHW[0] > 0)
    return seen_HW


def _chord_length(distance_HW: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the length between unit vectors of this cosine distance, in which noise has no long tail."""
    chord_HW: NDArray[np.float32] = np.sqrt(2 * np.maximum(distance_HW, 0))
    return chord_HW


def fuse_levels(levels: Sequence[Tensor], means: Sequence[Tensor]) -> Tensor:
    """Return the levels (DHW, finest first) joined on the finest one's grid: recalibrated feature fusion."""
    channels = min(len(level) for level in levels)
    above: Tensor | None = None
    parts = []
    for level_DHW, mean_D in zip(reversed(levels), reversed(means), strict=True):
        some = torch.linspace(0, len(level_DHW) - 1, channels).round().long()
        scaled_DHW = (level_DHW * mean_D[:, None, None])[some]
        if above is not None:
            scaled_DHW = scaled_DHW + _resize_like(above, scaled_DHW)
        above = scaled_DHW
        parts.append(scaled_DHW)
    return torch.cat([_resize_like(part_DHW, levels[0]) for part_DHW in parts])


def _resize_like(maps_DHW: Tensor, like_DHW: Tensor) -> Tensor:
    """Return maps on another's grid (bilinear)."""
    return F.interpolate(maps_DHW[None], size=like_DHW.shape[1:], mode="bilinear", align_corners=False)[0]


def crop_objects(image_HWC: NDArray[np.uint8], masks: SamInstances) -> Iterator[NDArray[np.uint8]]:
    """Yield each object cropped to its box, on white."""
    height, width = image_HWC.shape[:2]
    for logits_HW in masks.logits_NHW.numpy():
        mask_HW = cv2.resize(logits_HW, (width, height), interpolation=cv2.INTER_LINEAR) > 0
        row, col = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
        if not len(row):  # smaller than a pixel of the image
            yield np.full((1, 1, 3), WHITE, np.uint8)
            continue
        box = slice(row[0], row[-1] + 1), slice(col[0], col[-1] + 1)
        yield np.where(mask_HW[box][..., None], image_HWC[box][..., :3], np.uint8(WHITE))


def build_scm(
    sam: SamMaskGenerator,
    clip: ImageTextClassifier,
    *,
    find: Sequence[str] | str = FIND,
    rest: Sequence[str] | str = BACKGROUND,
    threshold: float | str = "otsu",
    guard: bool = True,
) -> SCM:
    """Return SCM.

    Args:
        sam: the mask generator, which also gives the feature levels.
        clip: the classifier of objects.
        find: prompts of the foreground.
        rest: prompts of the background.
        threshold: "otsu", or a distance between 0 and 1.
        guard: whether the no-change guard is applied to Otsu's threshold.

    Raises:
        ConfigError: no prompts, or not a valid threshold.
    """
    words = [(part,) if isinstance(part, str) else tuple(part) for part in (find, rest)]
    if not all(words):
        raise ConfigError("find and rest must both hold prompts, such as find = ['building'], rest = ['road', 'tree'].")
    return SCM(sam, clip, words[0], words[1], ThresholdRule(threshold, guard))
