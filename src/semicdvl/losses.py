"""Losses: pure functions of maps, ignore-aware and free of NaN.

Every mean over pixels is `masked_mean`: pixels that do not count contribute nothing, not even a NaN, and a mean over
no pixel is 0. Label maps hold 0 (unchanged, background), 1 (changed, foreground) and `IGNORE`. Logits may be bfloat16
under autocast: each function computes in float32.
"""

from __future__ import annotations

from typing import Literal, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor

from semicdvl.types import IGNORE

ContrastiveForm = Literal["linear", "squared", "normalised"]
"""`linear`: d and max(0, m - d) (Eq. 14 of the paper). `squared`: their squares (public code, STANet).
`normalised`: squares of the distance of L2-normalised features, so that d <= sqrt(2) for features after a ReLU."""

DistanceAxis = Literal["channels", "official_columns"]
"""`channels` is Eq. 14. `official_columns` is what the public code computes: it sums over the image's *columns* and
reads the (channel, row) map as if it were an image; for reruns of its numbers only."""


def masked_mean(value_BHW: Tensor, counted_BHW: Tensor, *, over_BHW: Tensor | None = None) -> Tensor:
    """Return the sum of the counted values, divided by the number of pixels of `over`; 0 if that is none.

    Args:
        value_BHW: float map.
        counted_BHW: bool, the pixels whose values are summed.
        over_BHW: bool, the pixels in the denominator; None for those of `counted_BHW`.
    """
    total = value_BHW.float().where(counted_BHW, value_BHW.new_zeros((), dtype=torch.float32)).sum()
    pixels = (counted_BHW if over_BHW is None else over_BHW).sum()
    return total / pixels.clamp(min=1)


def _cross_entropy_map(logits_BKHW: Tensor, label_BHW: Tensor) -> Tensor:
    """Return the cross entropy of each pixel, 0 at IGNORE."""
    return F.cross_entropy(logits_BKHW.float(), label_BHW.long(), ignore_index=IGNORE, reduction="none")


# ------------------------------------------------------------------------------------------------ labels
def label_cross_entropy(logits_BKHW: Tensor, label_BHW: Tensor, *, change_weight: float = 1.0) -> Tensor:
    """Return the mean cross entropy over the labelled pixels.

    Args:
        logits_BKHW: class logits.
        label_BHW: 0, 1, IGNORE.
        change_weight: weight of the changed pixels against 1 for the others; the mean is the weighted one.
    """
    value_BHW, labelled_BHW = _cross_entropy_map(logits_BKHW, label_BHW), label_BHW != IGNORE
    if change_weight == 1.0:
        return masked_mean(value_BHW, labelled_BHW)
    weight_BHW = torch.where(label_BHW == 1, change_weight, 1.0)
    mean_weight = masked_mean(weight_BHW, labelled_BHW).clamp(min=1e-6)
    return masked_mean(weight_BHW * value_BHW, labelled_BHW) / mean_weight


def dice_loss(logits_BKHW: Tensor, label_BHW: Tensor) -> Tensor:
    """Return 1 - soft Dice of the changed class, pooled over the batch; 0 if no pixel is changed or predicted so.

    Pooling over the batch (not a mean over pairs) keeps pairs without change from dominating the value.
    """
    labelled_BHW = label_BHW != IGNORE
    found_BHW = logits_BKHW.float().softmax(dim=1)[:, 1] * labelled_BHW
    true_BHW = (label_BHW == 1).float()
    one = 1.0  # keeps the ratio defined where no pixel is changed
    overlap = 2 * (found_BHW * true_BHW).sum() + one
    return 1 - overlap / (found_BHW.sum() + true_BHW.sum() + one)


def hard_cross_entropy(logits_BKHW: Tensor, label_BHW: Tensor, *, hard_frac: float) -> Tensor:
    """Return the mean cross entropy over the hardest `hard_frac` of the labelled pixels (OHEM), at least one pixel."""
    value_N = _cross_entropy_map(logits_BKHW, label_BHW)[label_BHW != IGNORE]
    if value_N.numel() == 0:
        return value_N.sum()
    return value_N.topk(max(1, round(hard_frac * value_N.numel()))).values.mean()


def supervised_loss(
    logits_BKHW: Tensor,
    label_BHW: Tensor,
    *,
    change_weight: float = 1.0,
    dice_weight: float = 0.0,
    hard_frac: float = 1.0,
) -> Tensor:
    """Return the loss against true labels: cross entropy and, on request, options for rare change.

    Args:
        logits_BKHW: change logits.
        label_BHW: 0, 1, IGNORE.
        change_weight: weight of changed pixels in the cross entropy (1: as the paper).
        dice_weight: weight of a Dice term that is added (0: none).
        hard_frac: share of the pixels, the hardest, that the cross entropy keeps (1: all); below 1 `change_weight` has
            no effect.
    """
    if hard_frac < 1:
        loss = hard_cross_entropy(logits_BKHW, label_BHW, hard_frac=hard_frac)
    else:
        loss = label_cross_entropy(logits_BKHW, label_BHW, change_weight=change_weight)
    return loss + dice_weight * dice_loss(logits_BKHW, label_BHW) if dice_weight else loss


# ------------------------------------------------------------------------------------------------ pseudo-labels
class ConfidenceBounds(TypedDict):
    """Hold the confidence thresholds of pseudo-labels: the arguments of `is_confident`."""

    confidence_min: float
    confidence_min_changed: float | None


def is_confident(
    pseudo_BHW: Tensor, confidence_BHW: Tensor, *, confidence_min: float, confidence_min_changed: float | None = None
) -> Tensor:
    """Return where a pseudo-label is confident: bool, from `confidence_min` on.

    `confidence_min_changed` is the threshold of pixels labelled as changed; None: the same. Change is rare and its
    outlines are uncertain, so one threshold for both accepts "unchanged" almost everywhere and "changed" almost
    nowhere.
    """
    if confidence_min_changed is None:
        return confidence_BHW >= confidence_min
    return confidence_BHW >= torch.where(pseudo_BHW == 1, confidence_min_changed, confidence_min)


def consistency_loss(
    logits_BKHW: Tensor,
    pseudo_BHW: Tensor,
    confidence_BHW: Tensor,
    valid_BHW: Tensor,
    *,
    confidence_min: float,
    confidence_min_changed: float | None = None,
    change_weight: float = 1.0,
) -> Tensor:
    """Return the cross entropy to the confident pseudo-labels, divided by the number of all valid pixels.

    Unconfident pixels stay in the denominator, so the term is small while the network is uncertain (public code; Eq. 3
    of the paper divides pair by pair instead).

    Args:
        logits_BKHW: logits of the strong view.
        pseudo_BHW: pseudo-label of the weak view, 0 or 1.
        confidence_BHW: its probability.
        valid_BHW: bool, False on padding.
        confidence_min: tau; a pixel with at least this confidence counts.
        confidence_min_changed: tau of pixels labelled as changed; None: the same.
        change_weight: weight of pixels labelled as changed against 1 for the others, in the sum and in the denominator,
            as in `label_cross_entropy`.
    """
    bounds = ConfidenceBounds(confidence_min=confidence_min, confidence_min_changed=confidence_min_changed)
    confident_BHW = valid_BHW & is_confident(pseudo_BHW, confidence_BHW, **bounds)
    value_BHW = _cross_entropy_map(logits_BKHW, pseudo_BHW)
    if change_weight == 1.0:
        return masked_mean(value_BHW, confident_BHW, over_BHW=valid_BHW)
    weight_BHW = torch.where(pseudo_BHW == 1, change_weight, 1.0)
    mean_weight = masked_mean(weight_BHW, valid_BHW).clamp(min=1e-6)
    return masked_mean(weight_BHW * value_BHW, confident_BHW, over_BHW=valid_BHW) / mean_weight


def vlm_cross_entropy(logits_BKHW: Tensor, target_BHW: Tensor, *, over: Literal["all", "valid"] = "all") -> Tensor:
    """Return the cross entropy to a VLM's labels.

    Args:
        logits_BKHW: class logits.
        target_BHW: 0, 1, IGNORE where the VLM is uncertain.
        over: denominator. `all`: every pixel, so that a pair on which the VLM is mostly uncertain has little weight.
            `valid`: the pixels with a VLM label (about a third at gamma 0.8: three times the weight); 0 if there is
            none, where the public code's mean is NaN.
    """
    value_BHW, certain_BHW = _cross_entropy_map(logits_BKHW, target_BHW), target_BHW != IGNORE
    return masked_mean(value_BHW, certain_BHW, over_BHW=torch.ones_like(certain_BHW) if over == "all" else None)


# ------------------------------------------------------------------------------------------------ feature distance
def feature_distance(
    features_t1_BDHW: Tensor,
    features_t2_BDHW: Tensor,
    *,
    size_px: tuple[int, int],
    normalise: bool = False,
    axis: DistanceAxis = "channels",
) -> Tensor:
    """Return the L2 distance of the two dates' features at each pixel, BHW of `size_px`.

    The distance is taken at the features' own stride and the *distance map* is then resized (bilinear, corners not
    aligned), as in the public code; labels are never resized.

    Args:
        features_t1_BDHW: features of date 1.
        features_t2_BDHW: features of date 2.
        size_px: (height, width) of the labels.
        normalise: scale each pixel's feature vector to length 1 before.
        axis: what the distance sums over.
    """
    t1_BDHW, t2_BDHW = features_t1_BDHW.float(), features_t2_BDHW.float()
    if normalise:
        t1_BDHW, t2_BDHW = F.normalize(t1_BDHW, dim=1), F.normalize(t2_BDHW, dim=1)
    # vector_norm has gradient 0 where the features are equal (a plain square root would give NaN there).
    distance = torch.linalg.vector_norm(t1_BDHW - t2_BDHW, dim=1 if axis == "channels" else 3)
    return F.interpolate(distance[:, None], size=size_px, mode="bilinear", align_corners=False)[:, 0]


def _contrastive_parts(distance_BHW: Tensor, *, form: ContrastiveForm, margin: float) -> tuple[Tensor, Tensor]:
    """Return each pixel's loss if it is unchanged (the distance) and if it is changed (its shortfall to the margin)."""
    pull_BHW, push_BHW = distance_BHW, (margin - distance_BHW).clamp(min=0)
    return (pull_BHW, push_BHW) if form == "linear" else (pull_BHW.square(), push_BHW.square())


def balanced_contrastive_loss(
    distance_BHW: Tensor,
    label_BHW: Tensor,
    *,
    margin: float,
    form: ContrastiveForm = "linear",
    counted_BHW: Tensor | None = None,
) -> Tensor:
    """Return mean over unchanged of d + mean over changed of max(0, margin - d): both classes have equal weight.

    Args:
        distance_BHW: distance of the two dates (`feature_distance`).
        label_BHW: 0, 1, IGNORE.
        margin: least distance of changed pixels.
        form: power of both terms.
        counted_BHW: bool, further restriction (confident, not padding); it also restricts the class counts.

    Differs from the public code: a class without pixels adds exactly 0 (there: counts + 1e-4).
    """
    pull_BHW, push_BHW = _contrastive_parts(distance_BHW.float(), form=form, margin=margin)
    counted_BHW = torch.ones_like(label_BHW, dtype=torch.bool) if counted_BHW is None else counted_BHW
    unchanged_BHW, changed_BHW = counted_BHW & (label_BHW == 0), counted_BHW & (label_BHW == 1)
    return masked_mean(pull_BHW, unchanged_BHW) + masked_mean(push_BHW, changed_BHW)


def pixel_contrastive_loss(
    distance_BHW: Tensor,
    label_BHW: Tensor,
    *,
    margin: float,
    counted_BHW: Tensor,
    over_BHW: Tensor,
    form: ContrastiveForm = "linear",
) -> Tensor:
    """Return the contrastive loss without class balance: sum over `counted` / number of `over`.

    The public code uses it on unlabelled pairs; arguments as `balanced_contrastive_loss`.
    """
    pull_BHW, push_BHW = _contrastive_parts(distance_BHW.float(), form=form, margin=margin)
    value_BHW = torch.where(label_BHW == 1, push_BHW, pull_BHW)
    return masked_mean(value_BHW, counted_BHW & (label_BHW != IGNORE), over_BHW=over_BHW)
