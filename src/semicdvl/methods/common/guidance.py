"""SemiCD-VL's guidance by a vision-language model, as a part that any weak-to-strong method can have.

      lambda_c / 2 (BCL_x + BCL_s)                       features of the two dates: alike where unchanged
    + lambda_vl(t) / 6 (change: x + w + s, segmentation: x + w + s)      the VLM's labels
                                                         x labelled, w weak, s strong

A method with two strong views takes the mean over them as its s. The terms' names and weights are the same on every
method, so the switches of the paper's Tables 7 and 9 are, too.
Source: Li et al., SemiCD-VL: Visual-Language Model Guidance Makes Better Semi-supervised Change Detector, and its
public code, where it guides FixMatch. On UniMatch and UniMatch V2 nobody has published it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from torch import Tensor

from semicdvl import losses
from semicdvl.errors import DataError
from semicdvl.methods.common.terms import PseudoLabelTerm
from semicdvl.methods.common.weak_to_strong import StrongView
from semicdvl.types import IGNORE, LabelledBatch, Outputs, TrainingProgress, UnlabelledBatch, VLMTargets

VLMDenominator = Literal["all", "valid", "official"]
"""`all` pixels; the `valid` ones, which have a VLM label; `official`: labelled pairs by valid, unlabelled by all (a
batch without a valid pixel gives 0 here and NaN there)."""

ContrastiveBalance = Literal["both", "official_labelled"]
"""`both`: labelled pairs and the strong view; `official_labelled`: labelled pairs alone, the strong view by pixel."""

PSEUDO_TERM = "contrastive_unlabelled"
"""The term of guidance that learns from the network's own pseudo-labels."""
VLM_TERMS = 6
"""The paper's mean is over six terms; switching one off leaves the others' weights as they are."""


@dataclass(frozen=True)
class GuidedViews:
    """What guidance reads of a step: the batches, and the outputs of labelled pairs, weak view and strong views."""

    labelled: LabelledBatch
    unlabelled: UnlabelledBatch
    out_labelled: Outputs
    out_weak: Outputs
    strong: Sequence[tuple[StrongView, Outputs]]


@dataclass(frozen=True, kw_only=True)
class VLMGuidance(PseudoLabelTerm):
    """Hold the settings of the guidance; a method inherits them and adds `guidance_terms` to its own."""

    vlm_guidance: bool = True  # learn from the VLM's labels at all; False leaves FixMatch (and the contrastive term)
    lambda_vl: float = 0.1  # weight of the VLM terms at the first step ...
    lambda_vl_end: float = 0.0  # ... and after the last one, linear in between
    full_guidance_labels: int | None = None  # with more labelled pairs than this the VLM terms weigh less: as 1 / pairs
    dual_head: bool = True  # a change head of its own for the VLM's labels; False: they train the head that is used
    decoupled: bool = True  # the VLM's single-date labels train a segmentation decoder
    vlm_on_labelled: bool = True  # VLM change term on labelled pairs too (official); False: only the true label there
    vlm_over: VLMDenominator = "all"  # pixels that the VLM terms are divided by
    vlm_change_weight: float = 1.0  # weight of changed pixels in the VLM's change term; published: 1
    vlm_dice_weight: float = 0.0  # weight of a Dice term beside the VLM's change term; published: 0
    lambda_c: float = 0.1  # weight of the contrastive term; 0: off
    contrastive_form: losses.ContrastiveForm = "linear"  # linear (Eq. 14) | squared (official) | normalised
    contrastive_margin: float | None = None  # least distance of changed pixels; None: 2, for normalised 1
    contrastive_axis: losses.DistanceAxis = "channels"  # axis that the distance sums over
    contrastive_balance: ContrastiveBalance = "both"  # pairs in which changed and unchanged pixels have equal weight

    @property
    def uses_vlm(self) -> bool:
        """Whether batches must contain the VLM's labels."""
        return self.vlm_guidance

    @property
    def learns_vlm_classes(self) -> bool:
        """Whether the VLM's labels of each date train the segmentation heads."""
        return self.vlm_guidance and self.decoupled

    def weigh_by_labels(self, labelled: int) -> Self:
        """Return the method with the VLM terms weighted for this number of labelled pairs; only on request.

        With `full_guidance_labels` = 4 the VLM counts as much as four labelled pairs, however many there are.
        """
        if self.full_guidance_labels is None or labelled <= self.full_guidance_labels:
            return self
        share = self.full_guidance_labels / labelled
        return replace(self, lambda_vl=share * self.lambda_vl, lambda_vl_end=share * self.lambda_vl_end)

    @property
    def guidance_heads(self) -> frozenset[str]:
        """Heads that the guidance reads of the network; no other is computed."""
        is_read = {
            "change": True,
            "vlm_change": self.vlm_guidance and self.dual_head,
            "segmentation": self.learns_vlm_classes,
            "features": self.lambda_c > 0,
        }
        return frozenset(head for head, read in is_read.items() if read)

    def guidance_terms(self, views: GuidedViews, progress: TrainingProgress, *, method: str) -> dict[str, Tensor]:
        """Return the terms by name: contrastive_*, vlm_change_*, vlm_segmentation_*.

        Labelled pairs without VLM labels leave their VLM terms out.

        Args:
            views: the batches and their outputs.
            progress: where training stands.
            method: the method's name, for the error message.

        Raises:
            DataError: the unlabelled batch has no VLM labels.
        """
        terms: dict[str, Tensor] = {}
        if self.lambda_c > 0:
            terms |= self._contrastive_terms(views)
            if views.strong and not self.uses_pseudo_labels(progress):
                terms[PSEUDO_TERM] = 0.0 * terms[PSEUDO_TERM]
        if self.vlm_guidance:
            vlm = require_vlm_labels(views.unlabelled, method=method)
            weight = self._compute_lambda_vl(progress) / VLM_TERMS
            terms |= self._vlm_terms("labelled", views.out_labelled, views.labelled.vlm, weight=weight)
            terms |= self._vlm_terms("weak", views.out_weak, vlm, weight=weight)
            of_views = [self._vlm_terms("strong", out, view.vlm, weight=weight) for view, out in views.strong]
            terms |= _average_terms(of_views) if of_views else {}
        return terms

    def _compute_lambda_vl(self, progress: TrainingProgress) -> float:
        """Return the weight of the VLM terms at this step."""
        return self.lambda_vl + (self.lambda_vl_end - self.lambda_vl) * progress.frac

    def _contrastive_terms(self, views: GuidedViews) -> dict[str, Tensor]:
        """Return the term of labelled pairs (true labels) and that of the strong views (confident pseudo-labels)."""
        form, margin = self.contrastive_form, self.contrastive_margin
        margin = margin if margin is not None else (1.0 if form == "normalised" else 2.0)
        distance_x_BHW = self._feature_distance(views.out_labelled)
        loss_x = losses.balanced_contrastive_loss(distance_x_BHW, views.labelled.label_BHW, margin=margin, form=form)
        losses_s = [self._contrastive_of_view(view, out, margin=margin) for view, out in views.strong]
        weight = self.lambda_c / 2
        terms = {"contrastive_labelled": weight * loss_x}
        return terms | ({PSEUDO_TERM: weight * _average(losses_s)} if losses_s else {})

    def _contrastive_of_view(self, view: StrongView, out: Outputs, *, margin: float) -> Tensor:
        """Return the contrastive loss of a strong view against confident pseudo-labels."""
        label_BHW, confidence_BHW = view.pseudo.label_BHW, view.pseudo.confidence_BHW
        counted_BHW = view.valid_BHW & losses.is_confident(label_BHW, confidence_BHW, **self.confidence_bounds)
        distance_BHW, form = self._feature_distance(out), self.contrastive_form
        if self.contrastive_balance == "both":
            return losses.balanced_contrastive_loss(
                distance_BHW, label_BHW, margin=margin, form=form, counted_BHW=counted_BHW
            )
        return losses.pixel_contrastive_loss(
            distance_BHW, label_BHW, margin=margin, form=form, counted_BHW=counted_BHW, over_BHW=view.valid_BHW
        )

    def _feature_distance(self, out: Outputs) -> Tensor:
        """Return the distance of the two dates' features at the size of the labels."""
        assert out.features_t1_BDHW is not None and out.features_t2_BDHW is not None
        height_px, width_px = out.change_BKHW.shape[-2:]
        return losses.feature_distance(
            out.features_t1_BDHW,
            out.features_t2_BDHW,
            size_px=(height_px, width_px),
            normalise=self.contrastive_form == "normalised",
            axis=self.contrastive_axis,
        )

    def _vlm_terms(self, view: str, out: Outputs, vlm: VLMTargets | None, *, weight: float) -> dict[str, Tensor]:
        """Return the change term and the segmentation term of a view, already weighted."""
        if vlm is None:
            return {}
        over: Literal["all", "valid"] = "valid" if self.vlm_over == "valid" else "all"
        if self.vlm_over == "official" and view == "labelled":
            over = "valid"
        terms: dict[str, Tensor] = {}
        if view != "labelled" or self.vlm_on_labelled:
            logits_BKHW = out.vlm_change_BKHW if self.dual_head else out.change_BKHW
            assert logits_BKHW is not None
            terms[f"vlm_change_{view}"] = weight * self._vlm_change_loss(logits_BKHW, vlm.change_BHW, over=over)
        if self.decoupled:
            assert out.t1_BKHW is not None and out.t2_BKHW is not None
            both = losses.vlm_cross_entropy(out.t1_BKHW, vlm.t1_BHW, over=over)
            both = both + losses.vlm_cross_entropy(out.t2_BKHW, vlm.t2_BHW, over=over)
            terms[f"vlm_segmentation_{view}"] = weight * both / 2
        return terms

    def _vlm_change_loss(self, logits_BKHW: Tensor, target_BHW: Tensor, *, over: Literal["all", "valid"]) -> Tensor:
        """Return the loss against the VLM's change labels; over all pixels it is scaled by the share they cover."""
        if self.vlm_change_weight == 1.0 and not self.vlm_dice_weight:
            return losses.vlm_cross_entropy(logits_BKHW, target_BHW, over=over)
        options = {"change_weight": self.vlm_change_weight, "dice_weight": self.vlm_dice_weight}
        loss = losses.supervised_loss(logits_BKHW, target_BHW, **options)
        return loss if over == "valid" else loss * (target_BHW != IGNORE).float().mean()


def require_vlm_labels(unlabelled: UnlabelledBatch, *, method: str) -> VLMTargets:
    """Return the VLM's labels of the unlabelled pairs.

    Raises:
        DataError: there are none.
    """
    if unlabelled.vlm is None:
        raise DataError(
            f"method '{method}' learns from a VLM's labels, and the unlabelled pairs have none. Make them with "
            "`semicdvl pseudo` and name the store in the recipe (pseudo.store), or set vlm_guidance = false."
        )
    return unlabelled.vlm


def _average(values: Sequence[Tensor]) -> Tensor:
    """Return the mean of scalars; of one scalar itself."""
    return values[0] if len(values) == 1 else torch.stack(list(values)).mean()


def _average_terms(of_views: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the mean over views of terms of the same names."""
    return {name: _average([terms[name] for terms in of_views]) for name in of_views[0]}
