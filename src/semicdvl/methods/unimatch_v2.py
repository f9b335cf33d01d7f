"""UniMatch V2 for change detection: two strong views that share out the channels of the difference features.

    L = 1/2 [CE_x + 1/2 (l_s1 + l_s2)]

l is FixMatch's consistency to confident pseudo-labels of the weak view. Both strong views, each with a colour jitter,
blur and CutMix box of its own, are one batch; of the difference features the one view keeps the channels that the other
drops (`complementary` of `types.HEADS`), for half of the pairs. Feature perturbation and strong views are one stream,
where UniMatch has three.
Source: Yang et al., UniMatch V2: Pushing the Limit of Semi-Supervised Semantic Segmentation (2024), and its public code
for change detection.

Differs from the public code, unless made by `official()`: pseudo-labels come from the moving average, as the paper says
(there from the network itself, without gradient), and CutMix pastes from the previous pair of the batch (there from the
pair at the same place from the end).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from semicdvl.methods.common.terms import PseudoLabelTerm
from semicdvl.methods.common.weak_to_strong import (
    PseudoLabelMaps,
    StrongView,
    compute_pseudo_label_diagnostics,
    cutmix_strong_view,
    label_weak_view,
    require_unlabelled,
)
from semicdvl.methods.unimatch import use_second_view
from semicdvl.types import LabelledBatch, Outputs, TrainingProgress, UnlabelledBatch


@dataclass(frozen=True)
class UniMatchV2(PseudoLabelTerm):
    """Train on labels and, by consistency of two complementary strong views, on confident pseudo-labels."""

    complementary_dropout: bool = True  # share out the difference features' channels; False: both views keep all
    pseudo_from: Literal["teacher_eval", "official_student"] = "teacher_eval"  # the pass that predicts pseudo-labels

    @classmethod
    def official(cls, **changes: Any) -> UniMatchV2:
        """Return the released script's choices, for reruns of its numbers; `changes` are set on top."""
        return cls(**{"pseudo_from": "official_student", "cutmix_partner": "official_reversed"} | changes)

    @property
    def strong_views(self) -> Literal[1, 2]:
        """Number of strong views per unlabelled pair: 2."""
        return 2

    @property
    def needs_average(self) -> bool:
        """Whether the teacher must be a moving average of the network: where it predicts the pseudo-labels."""
        return self.pseudo_from == "teacher_eval"

    @property
    def heads(self) -> frozenset[str]:
        """Heads that the method reads of the network."""
        return self.semantic_heads | frozenset(
            {"change", "complementary"} if self.complementary_dropout else {"change"}
        )

    def step(
        self,
        model: nn.Module,
        teacher: nn.Module,
        labelled: LabelledBatch,
        unlabelled: UnlabelledBatch | None,
        progress: TrainingProgress,
    ) -> dict[str, Tensor]:
        """Return {"supervised", "consistency"}.

        Raises:
            DataError: there is no unlabelled batch.
        """
        unlabelled = require_unlabelled(unlabelled, method="unimatch_v2")
        pseudo = self.predict_pseudo_labels(model, teacher, unlabelled, progress)
        out_x = model(labelled.t1_BCHW, labelled.t2_BCHW, heads=self.heads - {"complementary"})
        strong = self.forward_strong_views(model, unlabelled, pseudo, heads=self.heads - self.semantic_heads)
        return self.compute_terms(out_x, labelled, strong, progress)

    def predict_pseudo_labels(
        self, model: nn.Module, teacher: nn.Module, unlabelled: UnlabelledBatch, progress: TrainingProgress
    ) -> PseudoLabelMaps:
        """Return the pseudo-labels of the weak view, and write their diagnostics."""
        if self.pseudo_from == "teacher_eval":
            pseudo = label_weak_view(teacher, unlabelled)
        else:
            with torch.no_grad():
                out = model(unlabelled.weak_t1_BCHW, unlabelled.weak_t2_BCHW, heads=frozenset({"change"}))
            pseudo = PseudoLabelMaps.from_logits(out.change_BKHW)
        progress.diagnostics.update(compute_pseudo_label_diagnostics(pseudo, unlabelled, **self.confidence_bounds))
        return pseudo

    def forward_strong_views(
        self, model: nn.Module, unlabelled: UnlabelledBatch, pseudo: PseudoLabelMaps, *, heads: frozenset[str]
    ) -> tuple[tuple[StrongView, Outputs], ...]:
        """Pass both strong views through the network as one batch; return each with its outputs."""
        views = [
            cutmix_strong_view(view, own=pseudo, pasted=pseudo, partner=self.cutmix_partner)
            for view in (unlabelled, use_second_view(unlabelled))
        ]
        out_s = model(
            torch.cat([view.t1_BCHW for view in views]), torch.cat([view.t2_BCHW for view in views]), heads=heads
        )
        count_u = len(unlabelled.weak_t1_BCHW)
        halves = out_s.select_pairs(slice(count_u)), out_s.select_pairs(slice(count_u, None))
        return tuple(zip(views, halves, strict=True))

    def compute_terms(
        self,
        out_x: Outputs,
        labelled: LabelledBatch,
        strong: tuple[tuple[StrongView, Outputs], ...],
        progress: TrainingProgress,
    ) -> dict[str, Tensor]:
        """Return the weighted terms of labels and of both strong views."""
        loss_x = self.supervised_term(out_x.change_BKHW, labelled.label_BHW)
        losses_s = [self.consistency_term(out.change_BKHW, view.pseudo, view.valid_BHW) for view, out in strong]
        started = float(self.uses_pseudo_labels(progress))
        terms = {"supervised": loss_x / 2, "consistency": started * torch.stack(losses_s).mean() / 2}
        return terms | self.semantic_terms(out_x, labelled)
