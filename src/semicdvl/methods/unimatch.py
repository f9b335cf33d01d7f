"""UniMatch for change detection: FixMatch with two strong views and with perturbed features.

    L = 1/2 [CE_x + 1/4 l_s1 + 1/4 l_s2 + 1/2 l_fp]

l is FixMatch's consistency to confident pseudo-labels of the weak view: of either strong view (each with a CutMix box
of its own), and of the weak view itself when half of its feature channels are dropped.
Source: Yang et al., Revisiting Weak-to-Strong Consistency (2023), and its public code for remote sensing.

Differs from the public code, unless made by `official()`: pseudo-labels come from one eval-mode pass over the weak view
(there from a train-mode pass for a pair's own pixels), and CutMix pastes from another pair (there from the same one,
unintended; its author saw no difference).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

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
from semicdvl.types import LabelledBatch, Outputs, TrainingProgress, UnlabelledBatch


@dataclass(frozen=True)
class ForwardPasses:
    """Hold the outputs of a step: of labelled pairs, of the weak view, and of each strong view."""

    labelled: Outputs
    weak: Outputs
    pseudo: PseudoLabelMaps
    strong: tuple[tuple[StrongView, Outputs], ...]


@dataclass(frozen=True)
class UniMatch(PseudoLabelTerm):
    """Train on labels and, by consistency, on confident pseudo-labels: two strong views and perturbed features."""

    strong_weight: float = 0.5  # of both strong views together
    perturbed_weight: float = 0.5  # of the perturbed features; 0: without, for networks that have no such head
    pseudo_from: Literal["teacher_eval", "official_train"] = "teacher_eval"  # the pass that predicts pseudo-labels

    @classmethod
    def official(cls, **changes: Any) -> UniMatch:
        """Return the public code's choices, for reruns of its numbers; `changes` are set on top."""
        return cls(**{"pseudo_from": "official_train", "cutmix_partner": "official_self"} | changes)

    @property
    def strong_views(self) -> Literal[1, 2]:
        """Number of strong views per unlabelled pair: 2."""
        return 2

    @property
    def heads(self) -> frozenset[str]:
        """Heads that the method reads of the network."""
        return self.semantic_heads | frozenset({"change", "perturbed"} if self.perturbed_weight else {"change"})

    @property
    def strong_heads(self) -> frozenset[str]:
        """Heads that the method reads of the strong views."""
        return frozenset({"change"})

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
        passes = self.forward_views(model, teacher, labelled, unlabelled)
        return self.compute_terms(passes, labelled, unlabelled, progress)

    def forward_views(
        self, model: nn.Module, teacher: nn.Module, labelled: LabelledBatch, unlabelled: UnlabelledBatch
    ) -> ForwardPasses:
        """Pass all views through the networks: weak in eval mode; labelled and weak; both strong views."""
        from_teacher = label_weak_view(teacher, unlabelled)
        out_x, out_w = forward_labelled_and_weak(model, labelled, unlabelled, heads=self.heads)
        own = from_teacher if self.pseudo_from == "teacher_eval" else PseudoLabelMaps.from_logits(out_w.change_BKHW)
        views = [
            cutmix_strong_view(view, own=own, pasted=from_teacher, partner=self.cutmix_partner)
            for view in (unlabelled, use_second_view(unlabelled))
        ]
        out_s = model(
            torch.cat([view.t1_BCHW for view in views]),
            torch.cat([view.t2_BCHW for view in views]),
            heads=self.strong_heads,
        )
        count_u = len(unlabelled.weak_t1_BCHW)
        halves = out_s.select_pairs(slice(count_u)), out_s.select_pairs(slice(count_u, None))
        return ForwardPasses(out_x, out_w, own, tuple(zip(views, halves, strict=True)))

    def compute_terms(
        self, passes: ForwardPasses, labelled: LabelledBatch, unlabelled: UnlabelledBatch, progress: TrainingProgress
    ) -> dict[str, Tensor]:
        """Return the weighted terms, and write the diagnostics of the pseudo-labels."""
        diagnostics = compute_pseudo_label_diagnostics(passes.pseudo, unlabelled, **self.confidence_bounds)
        progress.diagnostics.update(diagnostics)
        started = float(self.uses_pseudo_labels(progress))
        terms = {"supervised": self.supervised_term(passes.labelled.change_BKHW, labelled.label_BHW) / 2}
        losses_s = [self.consistency_term(out.change_BKHW, view.pseudo, view.valid_BHW) for view, out in passes.strong]
        terms["consistency"] = started * self.strong_weight * torch.stack(losses_s).mean() / 2
        if self.perturbed_weight:
            assert passes.weak.perturbed_change_BKHW is not None
            loss_fp = self.consistency_term(passes.weak.perturbed_change_BKHW, passes.pseudo, unlabelled.valid_BHW)
            terms["perturbed"] = started * self.perturbed_weight * loss_fp / 2
        return terms | self.semantic_terms(passes.labelled, labelled)


def use_second_view(unlabelled: UnlabelledBatch) -> UnlabelledBatch:
    """Return the batch with its second strong view in the first one's place."""
    t1_BCHW, t2_BCHW = unlabelled.second_strong_t1_BCHW, unlabelled.second_strong_t2_BCHW
    box_BHW = unlabelled.second_cutmix_box_BHW
    assert t1_BCHW is not None and t2_BCHW is not None and box_BHW is not None, "the loader reads strong_views"
    return replace(unlabelled, strong_t1_BCHW=t1_BCHW, strong_t2_BCHW=t2_BCHW, cutmix_box_BHW=box_BHW)
