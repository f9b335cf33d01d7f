"""SemiCD-VL (first published as DiffMatch): FixMatch guided by a vision-language model.

    L = 1/2 (CE_x + l_s)                                   labels; strong view against confident pseudo-labels
      + lambda_c / 2 (BCL_x + BCL_s)                       features of the two dates: alike where unchanged
      + lambda_vl(t) / 6 (change: x + w + s, segmentation: x + w + s)      the VLM's labels
                                                           x labelled, w weak, s strong

The VLM's change labels train a head of their own (`vl`), so that their errors reach the head that is used (`cr`) only
through the shared features. Its single-date labels train a segmentation decoder that both dates share.
Source: Li et al., SemiCD-VL: Visual-Language Model Guidance Makes Better Semi-supervised Change Detector, and its
public code. Where the two disagree a field states our choice; `SemiCDVL.official()` makes the public code's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from semicdvl import losses
from semicdvl.errors import DataError
from semicdvl.methods.common.terms import PseudoLabelTerm
from semicdvl.methods.common.weak_to_strong import (
    PseudoLabelMaps,
    StrongView,
    compute_pseudo_label_diagnostics,
    cutmix_strong_view,
    forward_labelled_and_weak,
    label_weak_view,
    require_unlabelled,
)
from semicdvl.types import IGNORE, LabelledBatch, Outputs, TrainingProgress, UnlabelledBatch, VLMTargets

VLMDenominator = Literal["all", "valid", "official"]
"""`all` pixels; the `valid` ones, which have a VLM label; `official`: labelled pairs by valid, unlabelled by all (a
batch without a valid pixel gives 0 here and NaN there)."""

ContrastiveBalance = Literal["both", "official_labelled"]
"""`both`: labelled pairs and the strong view; `official_labelled`: labelled pairs alone, the strong view by pixel."""

PseudoLabelSource = Literal["teacher_eval", "official_train"]
"""`teacher_eval`: an eval-mode pass of the teacher; `official_train`: the student's train-mode pass for a pair's own
pixels, the eval-mode pass for pasted ones."""

PSEUDO_TERMS = ("consistency", "contrastive_unlabelled")
"""The terms that learn from the network's own pseudo-labels."""
VLM_TERMS = 6
"""The paper's mean is over six terms; switching one off leaves the others' weights as they are."""


@dataclass(frozen=True)
class SemiCDVL(PseudoLabelTerm):
    """Train as FixMatch, guided by a VLM's labels; the ablations of the paper's Tables 7 and 9 are single fields."""

    vlm_guidance: bool = True  # learn from the VLM's labels at all; False leaves FixMatch (and the contrastive term)
    lambda_vl: float = 0.1  # weight of the VLM terms at the first step ...
    lambda_vl_end: float = 0.0  # ... and after the last one, linear in between
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
    pseudo_from: PseudoLabelSource = "teacher_eval"  # the pass that predicts pseudo-labels

    @classmethod
    def official(cls, **changes: Any) -> SemiCDVL:
        """Return the public code's choices, for reruns of its numbers; `changes` are set on top."""
        choices: dict[str, Any] = {
            "vlm_over": "official",
            "contrastive_form": "squared",
            "contrastive_axis": "official_columns",
            "contrastive_balance": "official_labelled",
            "pseudo_from": "official_train",
            "cutmix_partner": "official_self",
        }
        return cls(**choices | changes)

    @property
    def uses_vlm(self) -> bool:
        """Whether batches must contain the VLM's labels."""
        return self.vlm_guidance

    @property
    def learns_without_labels(self) -> bool:
        """Whether the VLM trains the head that is used: beside a head of its own, that one needs true labels."""
        return self.vlm_guidance and not self.dual_head

    @property
    def heads(self) -> frozenset[str]:
        """Heads that the method reads of the network; no other is computed."""
        is_read = {
            "change": True,
            "vlm_change": self.vlm_guidance and self.dual_head,
            "segmentation": self.vlm_guidance and self.decoupled,
            "features": self.lambda_c > 0,
        }
        return frozenset(head for head, read in is_read.items() if read)

    def step(
        self,
        model: nn.Module,
        teacher: nn.Module,
        labelled: LabelledBatch,
        unlabelled: UnlabelledBatch | None,
        progress: TrainingProgress,
    ) -> dict[str, Tensor]:
        """Return the terms by name: supervised, consistency, contrastive_*, vlm_change_*, vlm_segmentation_*.

        Labelled pairs without VLM labels leave their VLM terms out.

        Raises:
            DataError: there is no unlabelled batch, or it has no VLM labels.
        """
        unlabelled = require_unlabelled(unlabelled, method="semicd_vl")
        from_teacher = label_weak_view(teacher, unlabelled)
        out_x, out_w = forward_labelled_and_weak(model, labelled, unlabelled, heads=self.heads)
        own = from_teacher if self.pseudo_from == "teacher_eval" else PseudoLabelMaps.from_logits(out_w.change_BKHW)
        diagnostics = compute_pseudo_label_diagnostics(own, unlabelled, **self.confidence_bounds)
        progress.diagnostics.update(diagnostics)

        strong = cutmix_strong_view(unlabelled, own=own, pasted=from_teacher, partner=self.cutmix_partner)
        out_s = model(strong.t1_BCHW, strong.t2_BCHW, heads=self.heads)

        terms = self._fixmatch_terms(out_x, labelled, out_s, strong)
        if self.lambda_c > 0:
            terms |= self._contrastive_terms(out_x, labelled, out_s, strong)
        if not self.uses_pseudo_labels(progress):
            terms |= {name: 0.0 * terms[name] for name in PSEUDO_TERMS if name in terms}
        if self.vlm_guidance:
            if unlabelled.vlm is None or strong.vlm is None:
                raise DataError(
                    "method 'semicd_vl' learns from a VLM's labels, and the unlabelled pairs have none. Make them with "
                    "`semicdvl pseudo` and name the store in the recipe (pseudo.store), or set vlm_guidance = false."
                )
            weight = self._compute_lambda_vl(progress) / VLM_TERMS
            terms |= self._vlm_terms("labelled", out_x, labelled.vlm, weight=weight)
            terms |= self._vlm_terms("weak", out_w, unlabelled.vlm, weight=weight)
            terms |= self._vlm_terms("strong", out_s, strong.vlm, weight=weight)
        return terms

    def _compute_lambda_vl(self, progress: TrainingProgress) -> float:
        """Return the weight of the VLM terms at this step."""
        return self.lambda_vl + (self.lambda_vl_end - self.lambda_vl) * progress.frac

    def _fixmatch_terms(
        self, out_x: Outputs, labelled: LabelledBatch, out_s: Outputs, strong: StrongView
    ) -> dict[str, Tensor]:
        """Return 1/2 CE_x and 1/2 l_s."""
        loss_x = self.supervised_term(out_x.change_BKHW, labelled.label_BHW)
        loss_s = self.consistency_term(out_s.change_BKHW, strong.pseudo, strong.valid_BHW)
        return {"supervised": loss_x / 2, "consistency": loss_s / 2}

    def _contrastive_terms(
        self, out_x: Outputs, labelled: LabelledBatch, out_s: Outputs, strong: StrongView
    ) -> dict[str, Tensor]:
        """Return the term of labelled pairs (true labels) and that of the strong view (confident pseudo-labels)."""
        form, margin = self.contrastive_form, self.contrastive_margin
        margin = margin if margin is not None else (1.0 if form == "normalised" else 2.0)
        label_BHW, confidence_BHW = strong.pseudo.label_BHW, strong.pseudo.confidence_BHW
        counted_BHW = strong.valid_BHW & losses.is_confident(label_BHW, confidence_BHW, **self.confidence_bounds)
        distance_x_BHW, distance_s_BHW = self._feature_distance(out_x), self._feature_distance(out_s)
        loss_x = losses.balanced_contrastive_loss(distance_x_BHW, labelled.label_BHW, margin=margin, form=form)
        if self.contrastive_balance == "both":
            loss_s = losses.balanced_contrastive_loss(
                distance_s_BHW, label_BHW, margin=margin, form=form, counted_BHW=counted_BHW
            )
        else:
            loss_s = losses.pixel_contrastive_loss(
                distance_s_BHW, label_BHW, margin=margin, form=form, counted_BHW=counted_BHW, over_BHW=strong.valid_BHW
            )
        weight = self.lambda_c / 2
        return {"contrastive_labelled": weight * loss_x, "contrastive_unlabelled": weight * loss_s}

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
