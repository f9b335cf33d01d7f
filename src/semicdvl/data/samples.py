"""Turn pairs, each with its own random generator, into the tensors of one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

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
from semicdvl.data.images.cache import ImageCache
from semicdvl.data.images.files import UInt8Array
from semicdvl.data.pairs import PairArrays, ignore_transparent, read_class_maps, read_pair, read_pair_opaque
from semicdvl.errors import StoreError
from semicdvl.raster.stored_values import Stretch
from semicdvl.types import (
    IGNORE,
    ClassTargets,
    InputBands,
    LabelledBatch,
    PairFiles,
    UnlabelledBatch,
    VLMLabelSource,
    VLMTargets,
)

DrawnPairs = Sequence[tuple[PairFiles, np.random.Generator]]
"""Pairs of a batch, each with the random generator of its augmentation."""


@dataclass(frozen=True)
class LoaderOptions:
    """How batches are loaded and augmented, with defaults that rarely change.

    Attributes:
        weak: geometry of both views.
        strong: colour jitter and blur of the strong view.
        cutmix: boxes of the strong view.
        label_values: as in `labels.files.read_mask`.
        stretch: as in `images.reading.read_rgb`.
        bands: that are read in place of RGB; None: RGB.
        unlabelled_includes_labelled: labelled pairs are also used as unlabelled ones (published lists: no).
        vlm_for_labelled: labelled batches have the VLM's labels, too.
        with_classes: labelled batches have the true classes of both dates.
        with_truth: unlabelled batches have the true labels of pairs that have a label file, to monitor training.
        cache_bytes: memory for decoded images, over all workers.
        check_files: check all headers and labelled masks before the first batch.
        rank: number of this process, from 0; batch sizes are per process.
        world_size: number of processes.
        accumulate: batches per optimiser step; batch sizes are of one of these batches.
        strong_views: 2 for a second strong view of the unlabelled pairs; the first is the same as with 1.
    """

    weak: WeakAugmentation = field(default_factory=WeakAugmentation)
    strong: StrongAugmentation = field(default_factory=StrongAugmentation)
    cutmix: CutMixSettings = field(default_factory=CutMixSettings)
    label_values: Mapping[int, int] | None = None
    stretch: Stretch | None = None
    bands: InputBands | None = None
    unlabelled_includes_labelled: bool = False
    vlm_for_labelled: bool = True
    with_classes: bool = False
    with_truth: bool = True
    cache_bytes: int = 2**30
    check_files: bool = True
    rank: int = 0
    world_size: int = 1
    accumulate: int = 1
    strong_views: Literal[1, 2] = 1


@dataclass(frozen=True)
class _PairViews:
    """One unlabelled pair in all views: images HWC (weak, then each strong view, both dates of each) and boxes."""

    images: list[NDArray[Any]]
    valid_HW: NDArray[np.bool_]
    boxes: list[NDArray[np.bool_]]
    maps_HWC: UInt8Array  # the true label, then the VLM's labels where there are some


@dataclass(frozen=True)
class BatchBuilder:
    """Builds the tensors of a batch from pairs and their random generators.

    Attributes:
        crop_px: side of the square crops.
        seed: of everything random.
        vlm: source of the VLM's labels, or None.
        options: how pairs are augmented.
        cache: decoded files.
    """

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
            assert arrays.label_HW is not None  # checked by `load_train_batches`
            crop = self._draw_crop(arrays, rng)
            t1.append(self._crop_image(crop, arrays.t1_HWC))
            t2.append(self._crop_image(crop, arrays.t2_HWC))
            classes = read_class_maps(pair, cache=self.cache) if self.options.with_classes else ()
            vlm_HWC = ignore_transparent(pair, self._read_vlm_maps(pair, arrays, with_vlm=with_vlm))
            layers = [arrays.label_HW, vlm_HWC, *classes]
            maps.append(crop.apply_to_masks(np.dstack(layers)))
        label_BHW, *others = _stack_class_maps(maps)
        vlm, truth = (others[:3], others[3:]) if with_vlm else ([], others)
        return LabelledBatch(
            stack_images(t1, self.cache.bands),
            stack_images(t2, self.cache.bands),
            label_BHW,
            VLMTargets(*vlm) if vlm else None,
            ClassTargets(*truth) if truth else None,
        )

    def build_empty_labelled(self) -> LabelledBatch:
        """Return a batch of no labelled pairs."""
        size_px = (self.crop_px, self.crop_px)
        bands, kind = (3, torch.uint8) if self.cache.bands is None else (self.cache.bands.count, torch.float32)
        no_image_BCHW = torch.zeros((0, bands, *size_px), dtype=kind)
        return LabelledBatch(no_image_BCHW, no_image_BCHW, torch.zeros((0, *size_px), dtype=torch.int64))

    def build_unlabelled(self, drawn: DrawnPairs, *, with_truth: bool) -> UnlabelledBatch:
        """Augment unlabelled pairs in all views and stack them."""
        views = [self._draw_views(pair, rng, with_truth=with_truth) for pair, rng in drawn]
        images = [
            stack_images(same_view, self.cache.bands)
            for same_view in zip(*(each.images for each in views), strict=True)
        ]
        weak_t1, weak_t2, strong_t1, strong_t2, *second = images
        boxes = zip(*(each.boxes for each in views), strict=True)
        box_BHW, *second_box = (torch.from_numpy(np.stack(same_view)) for same_view in boxes)
        truth_BHW, *vlm = _stack_class_maps([each.maps_HWC for each in views])
        return UnlabelledBatch(
            weak_t1,
            weak_t2,
            strong_t1,
            strong_t2,
            valid_BHW=torch.from_numpy(np.stack([each.valid_HW for each in views])),
            cutmix_box_BHW=box_BHW,
            vlm=VLMTargets(*vlm) if vlm else None,
            truth_BHW=truth_BHW if with_truth else None,
            second_strong_t1_BCHW=second[0] if second else None,
            second_strong_t2_BCHW=second[1] if second else None,
            second_cutmix_box_BHW=second_box[0] if second_box else None,
        )

    def _draw_views(self, pair: PairFiles, rng: np.random.Generator, *, with_truth: bool) -> _PairViews:
        """Augment one pair in all views."""
        arrays = read_pair(pair, cache=self.cache, with_label=with_truth)
        crop = self._draw_crop(arrays, rng)
        weak = [self._crop_image(crop, arrays.t1_HWC), self._crop_image(crop, arrays.t2_HWC)]
        images, boxes = list(weak), []
        for _ in range(
            self.options.strong_views
        ):  # drawn one after the other, so that a second view does not change the first
            images += self._draw_strong_view(weak, rng)
            boxes.append(draw_cutmix_box(self.options.cutmix, crop_px=self.crop_px, rng=rng))
        truth_HW = arrays.label_HW
        if truth_HW is None:
            truth_HW = np.full(arrays.t1_HWC.shape[:2], IGNORE, np.uint8)
        maps_HWC = np.dstack([truth_HW, self._read_vlm_maps(pair, arrays, with_vlm=self.vlm is not None)])
        valid_HW, opaque_HW = crop.make_valid_mask(), read_pair_opaque(pair)
        if opaque_HW is not None:  # nothing is to be learned from ground that an image does not show
            maps_HWC = np.where(opaque_HW[..., None], maps_HWC, np.uint8(IGNORE))
            valid_HW = valid_HW & (crop.apply_to_masks(opaque_HW.astype(np.uint8)[..., None])[..., 0] == 1)
        return _PairViews(images, valid_HW, boxes, crop.apply_to_masks(maps_HWC))

    def _crop_image(self, crop: CropTransform, image_HWC: NDArray[Any]) -> NDArray[Any]:
        """Return the crop of an image; bands other than RGB become float32, so that they are augmented unrounded."""
        cropped_HWC = crop.apply_to_image(image_HWC)
        return cropped_HWC if self.cache.bands is None else cropped_HWC.astype(np.float32)

    def _draw_strong_view(self, weak: Sequence[NDArray[Any]], rng: np.random.Generator) -> list[NDArray[Any]]:
        """Return a strong view of both dates."""
        transforms = [draw_photometric(self.options.strong, rng=rng) for _ in weak]
        if self.options.strong.paired:
            transforms[1] = transforms[0]
        return [transform.apply(image) for transform, image in zip(transforms, weak, strict=True)]

    def _draw_crop(self, arrays: PairArrays, rng: np.random.Generator) -> CropTransform:
        """Draw the geometry of a pair."""
        height, width = arrays.t1_HWC.shape[:2]
        return draw_crop((height, width), self.options.weak, crop_px=self.crop_px, rng=rng)

    def _read_vlm_maps(self, pair: PairFiles, arrays: PairArrays, *, with_vlm: bool) -> UInt8Array:
        """Return the VLM's three maps of a pair as HWC (change, date 1, date 2), or none of them."""
        height, width = arrays.t1_HWC.shape[:2]
        if not with_vlm or self.vlm is None:
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
        """Read the VLM's labels of a pair and stack them, HWC."""
        assert self.vlm is not None
        labels = self.vlm.read_labels(pair)
        return np.stack([labels.change_HW, labels.t1_HW, labels.t2_HW], -1)


def stack_images(images: Sequence[NDArray[Any]], bands: InputBands | None = None) -> Tensor:
    """Stack images to uint8 BCHW, in channels-last memory format (as they are decoded, and fastest to convolve).

    Values of `bands` are standardised, and float32.
    """
    if bands is not None:
        images = [bands.standardise(image_HWC) for image_HWC in images]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def _stack_class_maps(maps: Sequence[UInt8Array]) -> list[Tensor]:
    """Turn HWC stacks of class maps, one per pair, into int64 BHW tensors, one per class map."""
    return [torch.from_numpy(map_BHW.astype(np.int64)) for map_BHW in np.moveaxis(np.stack(maps), -1, 0)]
