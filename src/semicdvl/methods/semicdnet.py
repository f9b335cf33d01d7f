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
    PatchCritic,
    blanked,
    both_parts,
    fooling,
    need_critics,
    self_information,
    telling,
    truth_map,
)
from semicdvl.methods.terms import OnLabels
from semicdvl.methods.weak_to_strong import need_unlabelled
from semicdvl.types import IGNORE, Labelled, Progress, Unlabelled


@dataclass(frozen=True)
class SemiCDNet(OnLabels):
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

    def critics(self) -> nn.Module:
        """Return both critics."""
        return nn.ModuleDict({name: PatchCritic(channels=self.critic_channels) for name in ("map", "entropy")})

    def step(
        self,
        model: nn.Module,
        teacher: nn.Module,
        labelled: Labelled,
        unlabelled: Unlabelled | None,
        progress: Progress,
        critics: nn.Module | None = None,
    ) -> dict[str, Tensor]:
        """Return {"supervised", "adversarial_map", "adversarial_entropy", "critic_map", "critic_entropy"}.

        Raises:
            DataError: there is no unlabelled batch.
        """
        unlabelled = need_unlabelled(unlabelled, method="semicdnet")
        both = need_critics(critics, method="semicdnet")
        out_x, out_u = both_parts(model, labelled, unlabelled, heads=self.heads)
        counted_BHW = labelled.label_BHW != IGNORE
        seen = {
            "map": (
                truth_map(labelled.label_BHW, smoothing=self.smoothing_frac),
                blanked(out_u.change_BKHW.float().softmax(dim=1), unlabelled.valid_BHW),
            ),
            "entropy": (
                blanked(self_information(out_x.change_BKHW), counted_BHW),
                blanked(self_information(out_u.change_BKHW), unlabelled.valid_BHW),
            ),
        }
        terms = {"supervised": self.on_labels(out_x.change_BKHW, labelled.label_BHW)}
        weights = {"map": self.map_weight, "entropy": self.entropy_weight}
        for name, (of_labelled_BKHW, of_unlabelled_BKHW) in seen.items():
            critic = both.get_submodule(name)
            terms[f"adversarial_{name}"] = weights[name] * fooling(critic, of_unlabelled_BKHW)
            terms[f"critic_{name}"], right = telling(critic, of_labelled_BKHW, of_unlabelled_BKHW)
            progress.health[f"critic_{name}_right_frac"] = right
        return terms
