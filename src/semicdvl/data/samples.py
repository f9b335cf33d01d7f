"""Pairs with their randomness -> the tensors of one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semicdvl.data.augment import (
    CropTransform,
    CutMixSettings,
    StrongAugmentation,
    WeakAugmentation,
    draw_crop,
    draw_cutmix_box,
    draw_photometric,
)
from semicdvl.data.images import ImageCache
from semicdvl.data.pairs import PairArrays, read_pair
from semicdvl.errors import StoreError
from semicdvl.types import IGNORE, LabelledBatch, PairFiles, UnlabelledBatch, VLMLabelSource, VLMTargets

UInt8Array = NDArray[np.uint8]
DrawnPairs = Sequence[tuple[PairFiles, np.random.Generator]]
"""Pairs of a batch, each with the generator that its augmentation draws from."""


@dataclass(frozen=True)
class LoaderOptions:
    """What rarely differs between runs.

    Attributes:
        weak: geometry; strong: colour and blur; cutmix: boxes.
        label_values: as in `images.read_mask`.
        unlabelled_includes_labelled: labelled pairs take part without their label as well (published lists: no).
        vlm_for_labelled: ask the VLM's labels of labelled pairs, too.
        with_truth: hand on the labels of unlabelled pairs that have them, for health numbers.
        cache_bytes: memory for decoded images, over all workers.
        check_files: look at all headers and labelled masks before the first batch.
        rank: number of this process among `world_size`; batch sizes are per process.
        accumulate: batches per step; batch sizes are of one of these batches.
        strong_views: 2 for a second strong view of the unlabelled pairs; the first one stays what it is with 1.
    """

    weak: WeakAugmentation = field(default_factory=WeakAugmentation)
    strong: StrongAugmentation = field(default_factory=StrongAugmentation)
    cutmix: CutMixSettings = field(default_factory=CutMixSettings)
    label_values: Mapping[int, int] | None = None
    unlabelled_includes_labelled: bool = False
    vlm_for_labelled: bool = True
    with_truth: bool = True
    cache_bytes: int = 2**30
    check_files: bool = True
    rank: int = 0
    world_size: int = 1
    accumulate: int = 1
    strong_views: Literal[1, 2] = 1


@dataclass(frozen=True)
class BatchBuilder:
    """Pairs with their generators -> tensors."""

    crop_px: int
    seed: int
    vlm: VLMLabelSource | None
    options: LoaderOptions
    cache: ImageCache

    def build_labelled(self, drawn: DrawnPairs) -> LabelledBatch:
        """Augment and stack labelled pairs."""
        with_vlm = self.vlm is not None and self.options.vlm_for_labelled
        t1, t2, maps = [], [], []
        for pair, rng in drawn:
            arrays = read_pair(pair, cache=self.cache)
            assert arrays.label_HW is not None  # `load_train_batches` has seen to it
            crop = self._draw_crop(arrays, rng)
            t1.append(crop.apply_to_image(arrays.t1_HWC))
            t2.append(crop.apply_to_image(arrays.t2_HWC))
            maps.append(
                crop.apply_to_masks(np.dstack([arrays.label_HW, self._read_vlm_maps(pair, arrays, wanted=with_vlm)]))
            )
        label_BHW, *vlm = _stack_class_maps(maps)
        return LabelledBatch(stack_images(t1), stack_images(t2), label_BHW, VLMTargets(*vlm) if vlm else None)

    def build_empty_labelled(self) -> LabelledBatch:
        """Return a batch of no labelled pairs."""
        side = self.crop_px
        none_BCHW, none_BHW = torch.zeros((0, 3, side, side), dtype=torch.uint8), torch.zeros((0, side, side)).long()
        return LabelledBatch(none_BCHW, none_BCHW, none_BHW)

    def build_unlabelled(self, drawn: DrawnPairs, *, with_truth: bool) -> UnlabelledBatch:
        """Augment unlabelled pairs in all views and stack them."""
        views, valid, boxes, maps = zip(*(self._draw_views(*one, with_truth=with_truth) for one in drawn), strict=True)
        weak_t1, weak_t2, strong_t1, strong_t2, *second = (stack_images(alike) for alike in zip(*views, strict=True))
        box_BHW, *second_box = (torch.from_numpy(np.stack(alike)) for alike in zip(*boxes, strict=True))
        truth_BHW, *vlm = _stack_class_maps(maps)
        return UnlabelledBatch(
            weak_t1,
            weak_t2,
            strong_t1,
            strong_t2,
            valid_BHW=torch.from_numpy(np.stack(valid)),
            cutmix_box_BHW=box_BHW,
            vlm=VLMTargets(*vlm) if vlm else None,
            truth_BHW=truth_BHW if with_truth else None,
            second_strong_t1_BCHW=second[0] if second else None,
            second_strong_t2_BCHW=second[1] if second else None,
            second_cutmix_box_BHW=second_box[0] if second_box else None,
        )

    def _draw_views(
        self, pair: PairFiles, rng: np.random.Generator, *, with_truth: bool
    ) -> tuple[list[UInt8Array], NDArray[np.bool_], list[NDArray[np.bool_]], UInt8Array]:
        """Return one pair's images (weak, then each strong view), valid pixels, boxes and class maps (truth, VLM's)."""
        arrays = read_pair(pair, cache=self.cache, with_label=with_truth)
        crop = self._draw_crop(arrays, rng)
        weak = [crop.apply_to_image(arrays.t1_HWC), crop.apply_to_image(arrays.t2_HWC)]
        images, boxes = list(weak), []
        for _ in range(self.options.strong_views):  # one after the other: a second view leaves the first as it is
            images += self._draw_strong_view(weak, rng)
            boxes.append(draw_cutmix_box(self.options.cutmix, crop_px=self.crop_px, rng=rng))
        truth_HW = arrays.label_HW
        if truth_HW is None:
            truth_HW = np.full(arrays.t1_HWC.shape[:2], IGNORE, np.uint8)
        maps_HWC = np.dstack([truth_HW, self._read_vlm_maps(pair, arrays, wanted=self.vlm is not None)])
        return images, crop.make_valid_mask(), boxes, crop.apply_to_masks(maps_HWC)

    def _draw_strong_view(self, weak: Sequence[UInt8Array], rng: np.random.Generator) -> list[UInt8Array]:
        """Return a strong view of both dates."""
        looks = [draw_photometric(self.options.strong, rng=rng) for _ in weak]
        if self.options.strong.paired:
            looks[1] = looks[0]
        return [look.apply(image) for look, image in zip(looks, weak, strict=True)]

    def _draw_crop(self, arrays: PairArrays, rng: np.random.Generator) -> CropTransform:
        """Draw a pair's geometry."""
        height, width = arrays.t1_HWC.shape[:2]
        return draw_crop((height, width), self.options.weak, crop_px=self.crop_px, rng=rng)

    def _read_vlm_maps(self, pair: PairFiles, arrays: PairArrays, *, wanted: bool) -> UInt8Array:
        """Return the VLM's three maps of a pair as HWC (change, date 1, date 2), or none of them."""
        height, width = arrays.t1_HWC.shape[:2]
        if not wanted or self.vlm is None:
            return np.empty((height, width, 0), np.uint8)
        maps_HWC = self.cache.get_or_read(
            ("vlm", pair.before, pair.after, pair.window_px), lambda: self._stack_vlm_maps(pair)
        )
        if maps_HWC.shape[:2] != (height, width):
            raise StoreError(
                f"{pair.name}: the VLM's labels are {maps_HWC.shape[0]} x {maps_HWC.shape[1]} px, the images {height} x"
                f" {width} px. They were made for other images: run `semicdvl pseudo` on these."
            )
        return maps_HWC

    def _stack_vlm_maps(self, pair: PairFiles) -> UInt8Array:
        """Ask the source for a pair's maps and stack them."""
        assert self.vlm is not None
        labels = self.vlm.read_labels(pair)
        return np.stack([labels.change_HW, labels.t1_HW, labels.t2_HW], -1)


def stack_images(images: Sequence[UInt8Array]) -> Tensor:
    """Stack images to uint8 BCHW, laid out channels last (as they are decoded, and as convolutions like them)."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def _stack_class_maps(maps: Sequence[UInt8Array]) -> list[Tensor]:
    """Turn HWC stacks of class maps, one per pair, into int64 BHW tensors, one per class map."""
    return [torch.from_numpy(plane_BHW.astype(np.int64)) for plane_BHW in np.moveaxis(np.stack(maps), -1, 0)]
