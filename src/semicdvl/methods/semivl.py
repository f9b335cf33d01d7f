"""SemiVL for change detection (our stated form): UniMatch guided by a frozen VLM's dense predictions.

    L = UniMatch + lambda(t) [1/4 g_s1 + 1/4 g_s2 + 1/2 g_fp]           lambda from 0.1 to 0, linear

g is the cross entropy to the guidance over all pixels, of the same outputs as UniMatch's consistency.
Source: Hoyer et al., SemiVL: Semi-Supervised Semantic Segmentation with Vision-Language Guidance (2023). The form that
change-detection tables call by its name is not released, and its text head has no meaning for the word "change". So
this is our adaptation: the network is any with two classes and a perturbed head; the guidance is the VLM's change label
of the pseudo-label store. SemiVL's is where a frozen MaskCLIP has 0.9 or more at both dates, and the dates differ:
`semicdvl pseudo --vlm clip_dense --level pixel --gamma 0.9`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from semicdvl import losses
from semicdvl.errors import DataError
from semicdvl.methods.common.weak_to_strong import require_unlabelled
from semicdvl.methods.unimatch import ForwardPasses, UniMatch
from semicdvl.types import LabelledBatch, TrainingProgress, UnlabelledBatch, VLMTargets


@dataclass(frozen=True)
class SemiVL(UniMatch):
    """Add the VLM's guidance to UniMatch."""

    lambda_vl: float = 0.1  # weight of the guidance at the first step ...
    lambda_vl_end: float = 0.0  # ... and after the last one, linear in between

    @property
    def uses_vlm(self) -> bool:
        """Whether batches must contain the VLM's labels: yes."""
        return True

    def step(
        self,
        model: nn.Module,
        teacher: nn.Module,
        labelled: LabelledBatch,
        unlabelled: UnlabelledBatch | None,
        progress: TrainingProgress,
    ) -> dict[str, Tensor]:
        """Return {"supervised", "consistency", "perturbed", "guidance_strong", "guidance_perturbed"}.

        Raises:
            DataError: there is no unlabelled batch, or it has no VLM labels.
        """
        unlabelled = require_unlabelled(unlabelled, method="semivl")
        if unlabelled.vlm is None:
            raise DataError(
                "method 'semivl' learns from a VLM's labels, and the unlabelled pairs have none. Make them with "
                "`semicdvl pseudo` and name the store in the recipe (pseudo.store), or use method 'unimatch'."
            )
        passes = self.forward_views(model, teacher, labelled, unlabelled)
        terms = self.compute_terms(passes, labelled, unlabelled, progress)
        weight = self.lambda_vl + (self.lambda_vl_end - self.lambda_vl) * progress.frac
        return terms | self._guidance_terms(passes, unlabelled.vlm, weight=weight)

    def _guidance_terms(self, passes: ForwardPasses, weak: VLMTargets, *, weight: float) -> dict[str, Tensor]:
        """Return the terms of the VLM's labels, with UniMatch's weights of the views."""
        losses_s = [
            losses.vlm_cross_entropy(out.change_BKHW, view.vlm.change_BHW)
            for view, out in passes.strong
            if view.vlm is not None
        ]
        terms = {"guidance_strong": weight * self.strong_weight * torch.stack(losses_s).mean()}
        if passes.weak.perturbed_change_BKHW is not None and self.perturbed_weight:
            loss_fp = losses.vlm_cross_entropy(passes.weak.perturbed_change_BKHW, weak.change_BHW)
            terms["guidance_perturbed"] = weight * self.perturbed_weight * loss_fp
        return terms
