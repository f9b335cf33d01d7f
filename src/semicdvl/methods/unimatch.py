"""UniMatch for change detection: FixMatch with two strong views and with perturbed features.

    L = 1/2 [CE_x + 1/4 l_s1 + 1/4 l_s2 + 1/2 l_fp]

l is FixMatch's consistency to confident labels of the weak view: of either strong view (each with a CutMix box of its
own), and of the weak view itself when half of its feature channels are dropped.
Source: Yang et al., Revisiting Weak-to-Strong Consistency (2023), and its public code for remote sensing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from semicdvl import losses
from semicdvl.methods.terms import SupervisedTerm
from semicdvl.methods.weak_to_strong import (
    CutMixPartner,
    PseudoLabelMaps,
    StrongView,
    compute_pseudo_label_diagnostics,
    cutmix_strong_view,
    label_weak_view,
    require_unlabelled,
)
from semicdvl.types import LabelledBatch, Outputs, TrainingProgress, UnlabelledBatch


@dataclass(frozen=True)
class ForwardPasses:
    """All that the network said in a step: of labelled pairs, of the weak view, and of each strong view."""

    labelled: Outputs
    weak: Outputs
    pseudo: PseudoLabelMaps
    strong: tuple[tuple[StrongView, Outputs], ...]


@dataclass(frozen=True)
class UniMatch(SupervisedTerm):
    """Settings of the method.

    Differs from the public code, unless made by `official()`: pseudo labels come from one eval-mode pass over the weak
    view (there a train-mode pass for a pair's own pixels), and CutMix pastes from another pair (there from the same
    one, unintended; its author saw no difference).
    """

    confidence_min: float = 0.95  # tau: probability from which a pseudo label counts
    confidence_min_changed: float | None = None  # the same where it says "changed", which is rarer; None: no other
    pseudo_start_frac: float = 0.0  # share of training before which pseudo labels teach nothing; published: 0
    strong_weight: float = 0.5  # of both strong views together
    perturbed_weight: float = 0.5  # of the perturbed features; 0: without, for networks that cannot
    pseudo_from: Literal["teacher_eval", "official_train"] = "teacher_eval"  # which pass gives the pseudo labels
    cutmix_partner: CutMixPartner = "other"  # whom CutMix pastes from

    uses_unlabelled: ClassVar[bool] = True
    strong_views: ClassVar[int] = 2

    @classmethod
    def official(cls, **changes: Any) -> UniMatch:
        """Return the public code's choices, for reruns of its numbers; `changes` are set on top."""
        return cls(**{"pseudo_from": "official_train", "cutmix_partner": "official_self"} | changes)

    @property
    def uses_vlm(self) -> bool:
        """Whether batches must bring the VLM's labels: no."""
        return False

    @property
    def heads(self) -> frozenset[str]:
        """The outputs that the terms read."""
        return frozenset({"change", "perturbed"} if self.perturbed_weight else {"change"})

    def step(
        self,
        model: nn.Module,
        teacher: nn.Module,
        labelled: LabelledBatch,
        unlabelled: UnlabelledBatch | None,
        progress: TrainingProgress,
    ) -> dict[str, Tensor]:
        """Return {"supervised", "consistency", "perturbed"}.

        Raises:
            DataError: there is no unlabelled batch.
        """
        unlabelled = require_unlabelled(unlabelled, method="unimatch")
        return self._loss_terms(
            self._forward_views(model, teacher, labelled, unlabelled, progress), labelled, unlabelled, progress
        )

    def _forward_views(
        self,
        model: nn.Module,
        teacher: nn.Module,
        labelled: LabelledBatch,
        unlabelled: UnlabelledBatch,
        progress: TrainingProgress,
    ) -> ForwardPasses:
        """Send the pairs through the network: weak in eval mode; labelled and weak; both strong views."""
        count_x = len(labelled.label_BHW)
        from_teacher = label_weak_view(teacher, unlabelled)
        out = model(
            torch.cat([labelled.t1_BCHW, unlabelled.weak_t1_BCHW]),
            torch.cat([labelled.t2_BCHW, unlabelled.weak_t2_BCHW]),
            heads=self.heads,
        )
        out_x, out_w = out.select_pairs(slice(count_x)), out.select_pairs(slice(count_x, None))
        own = from_teacher if self.pseudo_from == "teacher_eval" else PseudoLabelMaps.from_logits(out_w.change_BKHW)
        progress.diagnostics.update(compute_pseudo_label_diagnostics(own, unlabelled, **self._confidence_bounds))

        views = [
            cutmix_strong_view(view, own=own, pasted=from_teacher, partner=self.cutmix_partner)
            for view in (unlabelled, use_second_view(unlabelled))
        ]
        out_s = model(
            torch.cat([view.t1_BCHW for view in views]),
            torch.cat([view.t2_BCHW for view in views]),
            heads=frozenset({"change"}),
        )
        count_u = len(unlabelled.weak_t1_BCHW)
        halves = out_s.select_pairs(slice(count_u)), out_s.select_pairs(slice(count_u, None))
        return ForwardPasses(out_x, out_w, own, tuple(zip(views, halves, strict=True)))

    def _loss_terms(
        self, passes: ForwardPasses, labelled: LabelledBatch, unlabelled: UnlabelledBatch, progress: TrainingProgress
    ) -> dict[str, Tensor]:
        """Return the weighted terms."""
        started = float(progress.frac >= self.pseudo_start_frac)
        terms = {"supervised": self.supervised_term(passes.labelled.change_BKHW, labelled.label_BHW) / 2}
        of_views = [self._consistency_term(out.change_BKHW, view.pseudo, view.valid_BHW) for view, out in passes.strong]
        terms["consistency"] = started * self.strong_weight * torch.stack(of_views).mean() / 2
        if self.perturbed_weight:
            assert passes.weak.perturbed_change_BKHW is not None
            loss_fp = self._consistency_term(passes.weak.perturbed_change_BKHW, passes.pseudo, unlabelled.valid_BHW)
            terms["perturbed"] = started * self.perturbed_weight * loss_fp / 2
        return terms

    def _consistency_term(self, logits_BKHW: Tensor, pseudo: PseudoLabelMaps, valid_BHW: Tensor) -> Tensor:
        """Return the consistency to confident pseudo labels."""
        return losses.consistency_loss(
            logits_BKHW,
            pseudo.label_BHW,
            pseudo.confidence_BHW,
            valid_BHW,
            **self._confidence_bounds,
            change_weight=self.change_weight,
        )

    @property
    def _confidence_bounds(self) -> losses.ConfidenceBounds:
        """From which confidence on a pseudo label counts."""
        return losses.ConfidenceBounds(
            confidence_min=self.confidence_min, confidence_min_changed=self.confidence_min_changed
        )


def use_second_view(unlabelled: UnlabelledBatch) -> UnlabelledBatch:
    """Return the batch with its second strong view in the first one's place."""
    second = unlabelled.second_strong_t1_BCHW, unlabelled.second_strong_t2_BCHW, unlabelled.second_cutmix_box_BHW
    assert second[0] is not None and second[1] is not None and second[2] is not None, "the loader knows strong_views"
    return replace(unlabelled, strong_t1_BCHW=second[0], strong_t2_BCHW=second[1], cutmix_box_BHW=second[2])
