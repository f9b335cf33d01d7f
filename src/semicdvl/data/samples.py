"""Pairs with their randomness -> the tensors of one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semicdvl.data.augment import Crop, CutMix, Strong, Weak, draw_box, draw_crop, draw_look
from semicdvl.data.images import ImageCache
from semicdvl.data.pairs import PairArrays, read_pair
from semicdvl.errors import StoreError
from semicdvl.types import IGNORE, Labelled, LabelSource, PairFiles, Unlabelled, VLMTargets

Bytes = NDArray[np.uint8]
Drawn = Sequence[tuple[PairFiles, np.random.Generator]]
"""Pairs of a batch, each with the generator that its augmentation draws from."""


@dataclass(frozen=True)
class Options:
    """What rarely differs between runs.

    Attributes:
        weak: geometry; strong: colour and blur; cutmix: boxes.
        label_values: as in `images.read_mask`.
        unlabelled_includes_labelled: labelled pairs take part without their label as well (published lists: no).
        vlm_for_labelled: ask the VLM's labels of labelled pairs, too.
        truth: hand on the labels of unlabelled pairs that have them, for health numbers.
        cache_bytes: memory for decoded images, over all workers.
        check: look at all headers and labelled masks before the first batch.
        rank: number of this process among `ranks`; batch sizes are per process.
        accumulate: batches per step; batch sizes are of one of these batches.
        strong_views: 2 for a second strong view of the unlabelled pairs; the first one stays what it is with 1.
    """

    weak: Weak = field(default_factory=Weak)
    strong: Strong = field(default_factory=Strong)
    cutmix: CutMix = field(default_factory=CutMix)
    label_values: Mapping[int, int] | None = None
    unlabelled_includes_labelled: bool = False
    vlm_for_labelled: bool = True
    truth: bool = True
    cache_bytes: int = 2**30
    check: bool = True
    rank: int = 0
    ranks: int = 1
    accumulate: int = 1
    strong_views: Literal[1, 2] = 1


@dataclass(frozen=True)
class Samples:
    """Pairs with their generators -> tensors."""

    crop_px: int
    seed: int
    vlm: LabelSource | None
    options: Options
    cache: ImageCache

    def labelled(self, drawn: Drawn) -> Labelled:
        """Augment and stack labelled pairs."""
        with_vlm = self.vlm is not None and self.options.vlm_for_labelled
        t1, t2, maps = [], [], []
        for pair, rng in drawn:
            arrays = read_pair(pair, cache=self.cache)
            assert arrays.label_HW is not None  # `train_batches` has seen to it
            crop = self._crop(arrays, rng)
            t1.append(crop.image(arrays.t1_HWC))
            t2.append(crop.image(arrays.t2_HWC))
            maps.append(crop.masks(np.dstack([arrays.label_HW, self._vlm_maps(pair, arrays, wanted=with_vlm)])))
        label_BHW, *vlm = _class_maps(maps)
        return Labelled(images_BCHW(t1), images_BCHW(t2), label_BHW, VLMTargets(*vlm) if vlm else None)

    def no_labelled(self) -> Labelled:
        """Return a batch of no labelled pairs."""
        side = self.crop_px
        none_BCHW, none_BHW = torch.zeros((0, 3, side, side), dtype=torch.uint8), torch.zeros((0, side, side)).long()
        return Labelled(none_BCHW, none_BCHW, none_BHW)

    def unlabelled(self, drawn: Drawn, *, with_truth: bool) -> Unlabelled:
        """Augment unlabelled pairs in all views and stack them."""
        views, valid, boxes, maps = zip(*(self._views(*one, with_truth=with_truth) for one in drawn), strict=True)
        weak_t1, weak_t2, strong_t1, strong_t2, *second = (images_BCHW(alike) for alike in zip(*views, strict=True))
        box_BHW, *second_box = (torch.from_numpy(np.stack(alike)) for alike in zip(*boxes, strict=True))
        truth_BHW, *vlm = _class_maps(maps)
        return Unlabelled(
            weak_t1,
            weak_t2,
            strong_t1,
            strong_t2,
            valid_BHW=torch.from_numpy(np.stack(valid)),
            box_BHW=box_BHW,
            vlm=VLMTargets(*vlm) if vlm else None,
            truth_BHW=truth_BHW if with_truth else None,
            second_t1_BCHW=second[0] if second else None,
            second_t2_BCHW=second[1] if second else None,
            second_box_BHW=second_box[0] if second_box else None,
        )

    def _views(
        self, pair: PairFiles, rng: np.random.Generator, *, with_truth: bool
    ) -> tuple[list[Bytes], NDArray[np.bool_], list[NDArray[np.bool_]], Bytes]:
        """Return one pair's images (weak, then each strong view), valid pixels, boxes and class maps (truth, VLM's)."""
        arrays = read_pair(pair, cache=self.cache, with_label=with_truth)
        crop = self._crop(arrays, rng)
        weak = [crop.image(arrays.t1_HWC), crop.image(arrays.t2_HWC)]
        images, boxes = list(weak), []
        for _ in range(self.options.strong_views):  # one after the other: a second view leaves the first as it is
            images += self._strong(weak, rng)
            boxes.append(draw_box(self.options.cutmix, crop_px=self.crop_px, rng=rng))
        truth_HW = arrays.label_HW
        if truth_HW is None:
            truth_HW = np.full(arrays.t1_HWC.shape[:2], IGNORE, np.uint8)
        maps_HWC = np.dstack([truth_HW, self._vlm_maps(pair, arrays, wanted=self.vlm is not None)])
        return images, crop.valid(), boxes, crop.masks(maps_HWC)

    def _strong(self, weak: Sequence[Bytes], rng: np.random.Generator) -> list[Bytes]:
        """Return a strong view of both dates."""
        looks = [draw_look(self.options.strong, rng=rng) for _ in weak]
        if self.options.strong.paired:
            looks[1] = looks[0]
        return [look.image(image) for look, image in zip(looks, weak, strict=True)]

    def _crop(self, arrays: PairArrays, rng: np.random.Generator) -> Crop:
        """Draw a pair's geometry."""
        height, width = arrays.t1_HWC.shape[:2]
        return draw_crop((height, width), self.options.weak, crop_px=self.crop_px, rng=rng)

    def _vlm_maps(self, pair: PairFiles, arrays: PairArrays, *, wanted: bool) -> Bytes:
        """Return the VLM's three maps of a pair as HWC (change, date 1, date 2), or none of them."""
        height, width = arrays.t1_HWC.shape[:2]
        if not wanted or self.vlm is None:
            return np.empty((height, width, 0), np.uint8)
        maps_HWC = self.cache.held(("vlm", pair.before, pair.after, pair.window_px), lambda: self._asked(pair))
        if maps_HWC.shape[:2] != (height, width):
            raise StoreError(
                f"{pair.name}: the VLM's labels are {maps_HWC.shape[0]} x {maps_HWC.shape[1]} px, the images {height} x"
                f" {width} px. They were made for other images: run `semicdvl pseudo` on these."
            )
        return maps_HWC

    def _asked(self, pair: PairFiles) -> Bytes:
        """Ask the source for a pair's maps and stack them."""
        assert self.vlm is not None
        labels = self.vlm.labels(pair)
        return np.stack([labels.change_HW, labels.t1_HW, labels.t2_HW], -1)


def images_BCHW(images: Sequence[Bytes]) -> Tensor:
    """Stack images to uint8 BCHW, laid out channels last (as they are decoded, and as convolutions like them)."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def _class_maps(maps: Sequence[Bytes]) -> list[Tensor]:
    """Turn HWC stacks of class maps, one per pair, into int64 BHW tensors, one per class map."""
    return [torch.from_numpy(plane_BHW.astype(np.int64)) for plane_BHW in np.moveaxis(np.stack(maps), -1, 0)]
