"""Mean teacher: the student, on a strong view, shall say what its moving average says of the weak view.

    L = CE_x + w(t) MSE(softmax(student(strong)), softmax(teacher(weak)))

Source: Tarvainen and Valpola, Mean teachers are better role models (2017); CutMix as in French et al. (2020). Neither
is about change detection: re-implementation, constants ours but the ramp's form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from semicdvl.methods.soft_targets import probability_mse, sigmoid_ramp_up
from semicdvl.methods.terms import SupervisedTerm
from semicdvl.methods.weak_to_strong import CutMixPartner, cutmix, eval_mode, require_unlabelled
from semicdvl.types import LabelledBatch, TrainingProgress, UnlabelledBatch


@dataclass(frozen=True)
class MeanTeacher(SupervisedTerm):
    """Settings of the method; the decay of the average is `train.ema`.

    The teacher answers in eval mode (there: in train mode with noise of its own). Both kinds of pairs pass the student
    in one batch, as there.
    """

    consistency_weight: float = 10.0  # w at its top
    ramp_frac: float = 0.2  # share of training in which w gets there
    cut_and_mix: bool = False  # CutMix images and answers alike
    cutmix_partner: CutMixPartner = "other"  # whom CutMix pastes from

    uses_unlabelled: ClassVar[bool] = True
    uses_vlm: ClassVar[bool] = False
    needs_average: ClassVar[bool] = True
    heads: ClassVar[frozenset[str]] = frozenset({"change"})

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
