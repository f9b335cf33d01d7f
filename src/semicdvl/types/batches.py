"""Batches of the data loader: labelled and unlabelled pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class VLMTargets:
    """`VLMLabels` of a batch: int64 BHW maps of classes and IGNORE, augmented like their images."""

    change_BHW: Tensor
    t1_BHW: Tensor
    t2_BHW: Tensor


@dataclass(frozen=True)
class ClassTargets:
    """True classes of a batch at both dates: int64 BHW maps of 0 .. K-1 and IGNORE, augmented like their images."""

    t1_BHW: Tensor
    t2_BHW: Tensor


@dataclass(frozen=True)
class LabelledBatch:
    """A batch of labelled pairs, weakly augmented; empty (B = 0) in a training without labels.

    Images are uint8 RGB from the loader, and normalised float after `train` has moved them to the device.

    Attributes:
        t1_BCHW: images of date 1.
        t2_BCHW: images of date 2.
        label_BHW: int64 of 0, 1, IGNORE (padding).
        vlm: pseudo-labels of the same pairs, or None.
        classes: true classes of both dates, or None; IGNORE throughout for a pair that has none.
    """

    t1_BCHW: Tensor
    t2_BCHW: Tensor
    label_BHW: Tensor
    vlm: VLMTargets | None = None
    classes: ClassTargets | None = None


@dataclass(frozen=True)
class UnlabelledBatch:
    """A batch of unlabelled pairs in two views of equal geometry; the strong one differs in colour, blur and CutMix.

    Attributes:
        weak_t1_BCHW, weak_t2_BCHW: weakly augmented images (as in `LabelledBatch`).
        strong_t1_BCHW, strong_t2_BCHW: the same crops with colour jitter and blur, drawn separately for each date.
            CutMix is *not* applied yet: the method applies it, with `cutmix_box_BHW`, on images and labels alike.
        valid_BHW: bool, False on padding.
        cutmix_box_BHW: bool, the pixels that CutMix takes from the partner (pair b takes from pair b-1; all False: no
            CutMix).
        vlm: pseudo-labels of the weak view, or None.
        truth_BHW: true labels where the data set has them, for diagnostics only; never part of a loss.
        second_strong_t1_BCHW, second_strong_t2_BCHW: a second strong view of the same crops, for methods that say
            `strong_views = 2`.
        second_cutmix_box_BHW: its CutMix box.
    """

    weak_t1_BCHW: Tensor
    weak_t2_BCHW: Tensor
    strong_t1_BCHW: Tensor
    strong_t2_BCHW: Tensor
    valid_BHW: Tensor
    cutmix_box_BHW: Tensor
    vlm: VLMTargets | None = None
    truth_BHW: Tensor | None = None
    second_strong_t1_BCHW: Tensor | None = None
    second_strong_t2_BCHW: Tensor | None = None
    second_cutmix_box_BHW: Tensor | None = None
