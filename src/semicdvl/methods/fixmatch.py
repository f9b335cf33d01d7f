"""FixMatch for change detection: the baseline that SemiCD-VL's paper builds on.

    L = 1/2 (cross entropy on labels + cross entropy of the strong view to confident pseudo-labels of the weak view)

Source: Sohn et al., FixMatch (2020), in the form that the SemiCD-VL paper compares with: its public code without the
VLM terms, the second head and the contrastive term.

Differs from the public code: pseudo-labels come from one eval-mode pass of the teacher over the whole weak view (there
from a train-mode pass for a pair's own pixels), and CutMix pastes from another pair (there from the same one). The
public code's own FixMatch is `SemiCDVL.official(vlm_guidance=False, lambda_c=0)`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from semicdvl.methods.common.terms import PseudoLabelTerm
from semicdvl.methods.common.weak_to_strong import (
    compute_pseudo_label_diagnostics,
    cutmix_strong_view,
    label_weak_view,
    require_unlabelled,
)
from semicdvl.types import LabelledBatch, TrainingProgress, UnlabelledBatch


@dataclass(frozen=True)
class FixMatch(PseudoLabelTerm):
    """Train on labels and, by consistency, on confident pseudo-labels of the weak view."""

    weak_in_batch: bool = True  # weak views enter the labelled pairs' batch norm, as published; False: faster

    def step(
        self,
        model: nn.Module,
        teacher: nn.Module,
        labelled: LabelledBatch,
        unlabelled: UnlabelledBatch | None,
        progress: TrainingProgress,
    ) -> dict[str, Tensor]:
        """Return {"supervised", "consistency"}, and "semantic" if its weight is set.

        Raises:
            DataError: there is no unlabelled batch.
        """
        unlabelled = require_unlabelled(unlabelled, method="fixmatch")
        pseudo = label_weak_view(teacher, unlabelled)
        diagnostics = compute_pseudo_label_diagnostics(pseudo, unlabelled, **self.confidence_bounds)
        progress.diagnostics.update(diagnostics)
        strong = cutmix_strong_view(unlabelled, own=pseudo, pasted=pseudo, partner=self.cutmix_partner)

        t1_BCHW, t2_BCHW = labelled.t1_BCHW, labelled.t2_BCHW
        if self.weak_in_batch:
            t1_BCHW = torch.cat([t1_BCHW, unlabelled.weak_t1_BCHW])
            t2_BCHW = torch.cat([t2_BCHW, unlabelled.weak_t2_BCHW])
        out_x = model(t1_BCHW, t2_BCHW, heads=self.heads).select_pairs(slice(len(labelled.label_BHW)))
        out_s = model(strong.t1_BCHW, strong.t2_BCHW, heads=self.heads - self.semantic_heads)

        loss_x = self.supervised_term(out_x.change_BKHW, labelled.label_BHW)
        loss_s = self.consistency_term(out_s.change_BKHW, strong.pseudo, strong.valid_BHW)
        started = float(self.uses_pseudo_labels(progress))
        terms = {"supervised": loss_x / 2, "consistency": started * loss_s / 2}
        return terms | self.semantic_terms(out_x, labelled)
