"""SemiCD: consistency of auxiliary decoders, which see perturbed features, with the main one (cross-consistency).

    L = CE_x + w(t) mean over auxiliary decoders k of MSE(softmax(aux_k(u)), softmax(main(u)))

w is ramped up to 30 within a tenth of training. There is no confidence threshold, and auxiliary decoders are never
trained on labels.

Source: Bandara and Patel, Revisiting Consistency Regularization for Semi-supervised Change Detection (2022), which is
Ouali et al., CCT (2020), made Siamese. The perturbations belong to the network (`cct` has the published 26).
Differs from the source: padding takes part in neither term (there it counts as unchanged); auxiliary maps smaller than
the image, such as stages of deep supervision, are resized.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from semicdvl.methods.common.soft_targets import probability_mse, sigmoid_ramp_up
from semicdvl.methods.common.terms import SupervisedTerm
from semicdvl.methods.common.weak_to_strong import require_unlabelled
from semicdvl.types import LabelledBatch, TrainingProgress, UnlabelledBatch


@dataclass(frozen=True)
class SemiCD(SupervisedTerm):
    """Train the main decoder on labels, and the auxiliary ones on the main one's probabilities."""

    consistency_weight: float = 30.0  # w after its ramp-up
    ramp_frac: float = 0.1  # share of training in which w is ramped up: 8 of 80 epochs

    @property
    def uses_unlabelled(self) -> bool:
        """Whether `step` needs unlabelled pairs: yes."""
        return True

    @property
    def heads(self) -> frozenset[str]:
        """Heads that the method reads of the network."""
        return frozenset({"change", "auxiliary"})

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
        unlabelled = require_unlabelled(unlabelled, method="semicd")
        out_x = model(labelled.t1_BCHW, labelled.t2_BCHW, heads=frozenset({"change"}))
        out_u = model(unlabelled.weak_t1_BCHW, unlabelled.weak_t2_BCHW, heads=self.heads)
        assert out_u.auxiliary_BKHW
        target_BKHW = out_u.change_BKHW.detach().float().softmax(dim=1)
        differences = [probability_mse(logits, target_BKHW, unlabelled.valid_BHW) for logits in out_u.auxiliary_BKHW]
        weight = self.consistency_weight * sigmoid_ramp_up(progress.frac, until_frac=self.ramp_frac)
        return {
            "supervised": self.supervised_term(out_x.change_BKHW, labelled.label_BHW),
            "consistency": weight * torch.stack(differences).mean(),
        }
