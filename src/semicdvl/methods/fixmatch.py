"""FixMatch for change detection: the baseline that SemiCD-VL's paper builds on.

Source: Sohn et al., FixMatch (2020), in the form that the SemiCD-VL paper compares with: its public code without the
VLM terms, the second head and the contrastive term.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from semicdvl import losses
from semicdvl.methods.validation import check_method_options
from semicdvl.methods.weak_to_strong import (
    CutMixPartner,
    compute_pseudo_label_diagnostics,
    cutmix_strong_view,
    label_weak_view,
    require_unlabelled,
)
from semicdvl.types import LabelledBatch, TrainingProgress, UnlabelledBatch


@dataclass(frozen=True)
class FixMatch:
    """1/2 (cross entropy on labels + cross entropy of the strong view to confident labels of the weak view).

    Differs from the public code: pseudo labels come from one eval-mode pass of `teacher` over the whole weak view
    (there a train-mode pass for a pair's own pixels), and CutMix pastes from another pair (there from the same one).
    The public code's own FixMatch is `SemiCDVL.official(vlm_guidance=False, lambda_c=0)`.
    """

    confidence_min: float = 0.95  # tau: probability from which a pseudo label counts
    confidence_min_changed: float | None = None  # the same where it says "changed", which is rarer; None: no other
    pseudo_start_frac: float = 0.0  # share of training before which pseudo labels teach nothing; published: 0
    weak_in_batch: bool = True  # weak views enter the labelled pairs' batch norm, as published; False: faster
    cutmix_partner: CutMixPartner = "other"  # whom CutMix pastes from
    change_weight: float = 1.0  # weight of changed pixels in the cross entropies to labels and pseudo labels
    dice_weight: float = 0.0  # weight of a supervised Dice term; 0: none
    hard_frac: float = 1.0  # share of the pixels, the hardest, that the supervised cross entropy keeps; 1: all

    uses_unlabelled: ClassVar[bool] = True
    uses_vlm: ClassVar[bool] = False
    heads: ClassVar[frozenset[str]] = frozenset({"change"})

    def __post_init__(self) -> None:
        """Check the settings."""
        check_method_options(self)

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
        unlabelled = require_unlabelled(unlabelled, method="fixmatch")
        bounds = losses.ConfidenceBounds(
            confidence_min=self.confidence_min, confidence_min_changed=self.confidence_min_changed
        )
        pseudo = label_weak_view(teacher, unlabelled)
        strong = cutmix_strong_view(unlabelled, own=pseudo, pasted=pseudo, partner=self.cutmix_partner)
        progress.diagnostics.update(compute_pseudo_label_diagnostics(pseudo, unlabelled, **bounds))

        t1_BCHW, t2_BCHW = labelled.t1_BCHW, labelled.t2_BCHW
        if self.weak_in_batch:
            t1_BCHW = torch.cat([t1_BCHW, unlabelled.weak_t1_BCHW])
            t2_BCHW = torch.cat([t2_BCHW, unlabelled.weak_t2_BCHW])
        out_x = model(t1_BCHW, t2_BCHW, heads=self.heads).select_pairs(slice(len(labelled.label_BHW)))
        out_s = model(strong.t1_BCHW, strong.t2_BCHW, heads=self.heads)

        loss_x = losses.supervised_loss(
            out_x.change_BKHW,
            labelled.label_BHW,
            change_weight=self.change_weight,
            dice_weight=self.dice_weight,
            hard_frac=self.hard_frac,
        )
        loss_s = losses.consistency_loss(
            out_s.change_BKHW,
            strong.pseudo.label_BHW,
            strong.pseudo.confidence_BHW,
            strong.valid_BHW,
            **bounds,
            change_weight=self.change_weight,
        )
        started = float(progress.frac >= self.pseudo_start_frac)
        return {"supervised": loss_x / 2, "consistency": started * loss_s / 2}
