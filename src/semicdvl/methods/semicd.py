"""SemiCD: auxiliary decoders that see perturbed features shall say what the main one says (cross-consistency).

    L = CE_x + w(t) mean over auxiliary decoders k of MSE(softmax(aux_k(u)), softmax(main(u)))

w ramps up to 30 within a tenth of training. There is no confidence threshold, and auxiliary decoders never see a label.
Source: Bandara and Patel, Revisiting Consistency Regularization for Semi-supervised Change Detection (2022), which is
Ouali et al., CCT (2020), made Siamese. The perturbations belong to the network (`cct` has the published 26).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from semicdvl.methods.soft_targets import probability_mse, sigmoid_ramp_up
from semicdvl.methods.terms import SupervisedTerm
from semicdvl.methods.weak_to_strong import require_unlabelled
from semicdvl.types import LabelledBatch, TrainingProgress, UnlabelledBatch


@dataclass(frozen=True)
class SemiCD(SupervisedTerm):
    """Settings of the method.

    Padding takes part in neither term (there it counts as unchanged); a network whose auxiliary maps are smaller than
    the image, such as stages of deep supervision, has them resized.
    """

    consistency_weight: float = 30.0  # w at its top
    ramp_frac: float = 0.1  # share of training in which w gets there: 8 of 80 epochs

    uses_unlabelled: ClassVar[bool] = True
    uses_vlm: ClassVar[bool] = False
    heads: ClassVar[frozenset[str]] = frozenset({"change", "auxiliary"})

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
        apart = [probability_mse(logits, target_BKHW, unlabelled.valid_BHW) for logits in out_u.auxiliary_BKHW]
        weight = self.consistency_weight * sigmoid_ramp_up(progress.frac, until_frac=self.ramp_frac)
        return {
            "supervised": self.supervised_term(out_x.change_BKHW, labelled.label_BHW),
            "consistency": weight * torch.stack(apart).mean(),
        }
