"""SemiCDNet: two critics, one on the change map and one on its entropy (re-implementation, constants ours).

    L = CE_x + Dice_x + 0.001 BCE(D_s(p(u)), true) + 0.001 BCE(D_e(I(u)), labelled)    I: each class's -p log2 p

Source: Peng et al., SemiCDNet (2020/21), of whose idea this is our form: no code of it is public and its constants were
not at hand, so weights, critics and schedule are ADVENT's. The published generator is a UNet++ of five levels
(`snunet` is the nearest network here); every row of other papers' tables under this name is a re-implementation, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from semicdvl.methods.discriminators import (
    PatchDiscriminator,
    adversarial_loss,
    discriminator_loss,
    forward_both,
    mask_pixels,
    one_hot_label,
    require_discriminators,
    self_information,
)
from semicdvl.methods.terms import SupervisedTerm
from semicdvl.methods.weak_to_strong import require_unlabelled
from semicdvl.types import IGNORE, LabelledBatch, TrainingProgress, UnlabelledBatch


@dataclass(frozen=True)
class SemiCDNet(SupervisedTerm):
    """Settings of the method; all defaults are ours.

    A truth of zeros and ones against a soft map is told apart by any critic, which then has nothing to teach. So the
    truth is smoothed.
    """

    dice_weight: float = 1.0  # weight of a supervised Dice term; 0: none
    map_weight: float = 1e-3  # of the term of the critic on maps
    entropy_weight: float = 1e-3  # of the term of the critic on entropy
    smoothing_frac: float = 0.1  # what the truth gives the wrong class
    critic_lr: float = 1e-4  # of Adam, betas .9 and .99
    critic_channels: int = 64  # width of the critics' first layer

    uses_unlabelled: ClassVar[bool] = True
    uses_vlm: ClassVar[bool] = False
    heads: ClassVar[frozenset[str]] = frozenset({"change"})

    def build_discriminators(self) -> nn.Module:
        """Return both critics."""
        return nn.ModuleDict({name: PatchDiscriminator(channels=self.critic_channels) for name in ("map", "entropy")})

    def step(
        self,
        model: nn.Module,
        teacher: nn.Module,
        labelled: LabelledBatch,
        unlabelled: UnlabelledBatch | None,
        progress: TrainingProgress,
        critics: nn.Module | None = None,
    ) -> dict[str, Tensor]:
        """Return {"supervised", "adversarial_map", "adversarial_entropy", "critic_map", "critic_entropy"}.

        Raises:
            DataError: there is no unlabelled batch.
        """
        unlabelled = require_unlabelled(unlabelled, method="semicdnet")
        both = require_discriminators(critics, method="semicdnet")
        out_x, out_u = forward_both(model, labelled, unlabelled, heads=self.heads)
        counted_BHW = labelled.label_BHW != IGNORE
        seen = {
            "map": (
                one_hot_label(labelled.label_BHW, smoothing=self.smoothing_frac),
                mask_pixels(out_u.change_BKHW.float().softmax(dim=1), unlabelled.valid_BHW),
            ),
            "entropy": (
                mask_pixels(self_information(out_x.change_BKHW), counted_BHW),
                mask_pixels(self_information(out_u.change_BKHW), unlabelled.valid_BHW),
            ),
        }
        terms = {"supervised": self.supervised_term(out_x.change_BKHW, labelled.label_BHW)}
        weights = {"map": self.map_weight, "entropy": self.entropy_weight}
        for name, (of_labelled_BKHW, of_unlabelled_BKHW) in seen.items():
            critic = both.get_submodule(name)
            terms[f"adversarial_{name}"] = weights[name] * adversarial_loss(critic, of_unlabelled_BKHW)
            terms[f"critic_{name}"], right = discriminator_loss(critic, of_labelled_BKHW, of_unlabelled_BKHW)
            progress.diagnostics[f"critic_{name}_right_frac"] = right
        return terms
