"""SemiCD-VL (first published as DiffMatch): FixMatch guided by a vision-language model.

    L = 1/2 (CE_x + l_s)                                   labels; strong view against confident pseudo-labels
      + lambda_c / 2 (BCL_x + BCL_s)                       features of the two dates: alike where unchanged
      + lambda_vl(t) / 6 (change: x + w + s, segmentation: x + w + s)      the VLM's labels
                                                           x labelled, w weak, s strong

The VLM's change labels train a head of their own (`vl`), so that their errors reach the head that is used (`cr`) only
through the shared features. Its single-date labels train a segmentation decoder that both dates share. The guidance is
`common.guidance`, which guides UniMatch and UniMatch V2 as well (guided.py).
Source: Li et al., SemiCD-VL: Visual-Language Model Guidance Makes Better Semi-supervised Change Detector, and its
public code. Where the two disagree a field states our choice; `SemiCDVL.official()` makes the public code's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from semicdvl.methods.common.guidance import GuidedViews, VLMGuidance
from semicdvl.methods.common.weak_to_strong import (
    PseudoLabelMaps,
    StrongView,
    compute_pseudo_label_diagnostics,
    cutmix_strong_view,
    forward_labelled_and_weak,
    label_weak_view,
    require_unlabelled,
)
from semicdvl.types import LabelledBatch, Outputs, TrainingProgress, UnlabelledBatch

PseudoLabelSource = Literal["teacher_eval", "official_train"]
"""`teacher_eval`: an eval-mode pass of the teacher; `official_train`: the student's train-mode pass for a pair's own
pixels, the eval-mode pass for pasted ones."""


@dataclass(frozen=True)
class SemiCDVL(VLMGuidance):
    """Train as FixMatch, guided by a VLM's labels; the ablations of the paper's Tables 7 and 9 are single fields."""

    pseudo_from: PseudoLabelSource = "teacher_eval"  # the pass that predicts pseudo-labels
    strong_view: bool = True  # learn from the strong view; False: labels, and the VLM's labels of the weak view, alone

    @property
    def compares_views(self) -> bool:
        """As the base class says."""
        return self.strong_view

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
    def learns_without_labels(self) -> bool:
        """Whether the VLM trains the head that is used: beside a head of its own, that one needs true labels."""
        return self.vlm_guidance and not self.dual_head

    @property
    def heads(self) -> frozenset[str]:
        """Heads that the method reads of the network."""
        return self.guidance_heads | self.semantic_heads

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
        if not self.strong_view:
            return self._learn_without_strong_view(model, labelled, unlabelled, progress)
        from_teacher = label_weak_view(teacher, unlabelled)
        out_x, out_w = forward_labelled_and_weak(model, labelled, unlabelled, heads=self.heads)
        own = from_teacher if self.pseudo_from == "teacher_eval" else PseudoLabelMaps.from_logits(out_w.change_BKHW)
        diagnostics = compute_pseudo_label_diagnostics(own, unlabelled, **self.confidence_bounds)
        progress.diagnostics.update(diagnostics)

        strong = cutmix_strong_view(unlabelled, own=own, pasted=from_teacher, partner=self.cutmix_partner)
        out_s = model(strong.t1_BCHW, strong.t2_BCHW, heads=self.guidance_heads)

        terms = self._fixmatch_terms(out_x, labelled, out_s, strong)
        if not self.uses_pseudo_labels(progress):
            terms["consistency"] = 0.0 * terms["consistency"]
        terms |= self.semantic_terms(out_x, labelled)
        views = GuidedViews(labelled, unlabelled, out_x, out_w, ((strong, out_s),))
        return terms | self.guidance_terms(views, progress, method="semicd_vl")

    def _learn_without_strong_view(
        self, model: nn.Module, labelled: LabelledBatch, unlabelled: UnlabelledBatch, progress: TrainingProgress
    ) -> dict[str, Tensor]:
        """Return the terms of labelled pairs and weak views: nothing is a consistency between views."""
        out_x, out_w = forward_labelled_and_weak(model, labelled, unlabelled, heads=self.heads)
        terms = {"supervised": self.supervised_term(out_x.change_BKHW, labelled.label_BHW) / 2}
        terms |= self.semantic_terms(out_x, labelled)
        views = GuidedViews(labelled, unlabelled, out_x, out_w, ())
        return terms | self.guidance_terms(views, progress, method="semicd_vl")

    def _fixmatch_terms(
        self, out_x: Outputs, labelled: LabelledBatch, out_s: Outputs, strong: StrongView
    ) -> dict[str, Tensor]:
        """Return 1/2 CE_x and 1/2 l_s."""
        loss_x = self.supervised_term(out_x.change_BKHW, labelled.label_BHW)
        loss_s = self.consistency_term(out_s.change_BKHW, strong.pseudo, strong.valid_BHW)
        return {"supervised": loss_x / 2, "consistency": loss_s / 2}
