"""Mean teacher: consistency of the student on a strong view with its moving average on the weak view.

    L = CE_x + w(t) MSE(softmax(student(strong)), softmax(teacher(weak)))

Source: Tarvainen and Valpola, Mean teachers are better role models (2017); CutMix as in French et al. (2020). Neither
is about change detection: this is a re-implementation, with the published form of the ramp-up and constants of ours.

Differs from the source: the teacher predicts in eval mode (there in train mode with noise of its own). Both kinds of
pairs pass the student in one batch, as there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from semicdvl.methods.common.soft_targets import probability_mse, sigmoid_ramp_up
from semicdvl.methods.common.terms import SupervisedTerm
from semicdvl.methods.common.weak_to_strong import cutmix, eval_mode, require_unlabelled
from semicdvl.types import CutMixPartner, LabelledBatch, TrainingProgress, UnlabelledBatch


@dataclass(frozen=True)
class MeanTeacher(SupervisedTerm):
    """Train on labels, and on the probabilities that the moving average predicts; its decay is `train.ema`."""

    consistency_weight: float = 10.0  # w after its ramp-up
    ramp_frac: float = 0.2  # share of training in which w is ramped up
    cut_and_mix: bool = False  # apply CutMix to images and predictions alike
    cutmix_partner: CutMixPartner = "other"  # the pair that CutMix pastes from

    @property
    def uses_unlabelled(self) -> bool:
        """Whether `step` needs unlabelled pairs: yes."""
        return True

    @property
    def needs_average(self) -> bool:
        """Whether the teacher must be a moving average of the network: yes."""
        return True

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
        unlabelled = require_unlabelled(unlabelled, method="mean_teacher")
        with torch.no_grad(), eval_mode(teacher):
            out_t = teacher(unlabelled.weak_t1_BCHW, unlabelled.weak_t2_BCHW, heads=self.heads)
        target_BKHW, valid_BHW = out_t.change_BKHW.float().softmax(dim=1), unlabelled.valid_BHW
        strong_t1_BCHW, strong_t2_BCHW = unlabelled.strong_t1_BCHW, unlabelled.strong_t2_BCHW
        if self.cut_and_mix:
            strong_t1_BCHW, strong_t2_BCHW, target_BKHW, valid_BHW = (
                cutmix(own, own, unlabelled.cutmix_box_BHW, partner=self.cutmix_partner)
                for own in (strong_t1_BCHW, strong_t2_BCHW, target_BKHW, valid_BHW)
            )
        out = model(
            torch.cat([labelled.t1_BCHW, strong_t1_BCHW]),
            torch.cat([labelled.t2_BCHW, strong_t2_BCHW]),
            heads=self.heads,
        )
        count = len(labelled.label_BHW)
        weight = self.consistency_weight * sigmoid_ramp_up(progress.frac, until_frac=self.ramp_frac)
        return {
            "supervised": self.supervised_term(out.change_BKHW[:count], labelled.label_BHW),
            "consistency": weight * probability_mse(out.change_BKHW[count:], target_BKHW, valid_BHW),
        }
