"""ADVENT for change detection ("AdvNet" in the tables): unlabelled pairs shall be as certain as labelled ones.

    L = CE_x + 0.001 BCE(D(I(u)), labelled)                      I: each class's -p log2 p, D: the critic
    L_D = 1/2 BCE(D(I(x)), labelled) + 1/2 BCE(D(I(u)), unlabelled)

Source: Vu et al., ADVENT: Adversarial Entropy Minimization (2019); its constants. It was made for domain adaptation;
here labelled pairs are its source domain and unlabelled ones its target.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from semicdvl.losses import masked_mean
from semicdvl.methods.discriminators import (
    PatchDiscriminator,
    adversarial_loss,
    discriminator_loss,
    forward_both,
    mask_pixels,
    require_discriminators,
    self_information,
)
from semicdvl.methods.terms import SupervisedTerm, resize_nearest
from semicdvl.methods.weak_to_strong import require_unlabelled
from semicdvl.types import IGNORE, LabelledBatch, Outputs, TrainingProgress, UnlabelledBatch


@dataclass(frozen=True)
class Advent(SupervisedTerm):
    """Settings of the method.

    The published network is DeepLab-v2 on a ResNet101 whose batch norm is frozen (its batch is one pair), with a second
    classifier on the last but one stage. Here any network does, its batch norm learns (the batch is 8 + 8), both kinds
    of pairs pass it together, padding is blanked, and the second classifier is the last of the network's auxiliary
    maps, if `auxiliary` is set and it has some.
    """

    form: Literal["adversarial", "min_entropy"] = "adversarial"  # min_entropy: the mean entropy in place of the critic
    adversarial_weight: float = 0.001  # of the main map's term
    auxiliary: bool = False  # teach the network's last auxiliary map as well: published with DeepLab-v2
    auxiliary_weight: float = 0.1  # of its cross entropy
    auxiliary_adversarial_weight: float = 0.0002  # of its adversarial term
    critic_lr: float = 1e-4  # of Adam, betas .9 and .99
    critic_channels: int = 64  # width of the critic's first layer

    uses_unlabelled: ClassVar[bool] = True
    uses_vlm: ClassVar[bool] = False

    @property
    def heads(self) -> frozenset[str]:
        """The outputs that the terms read."""
        return frozenset({"change", "auxiliary"} if self.auxiliary else {"change"})

    def build_discriminators(self) -> nn.Module | None:
        """Return a critic for each map that is judged."""
        if self.form == "min_entropy":
            return None
        names = ("main", "auxiliary") if self.auxiliary else ("main",)
        return nn.ModuleDict({name: PatchDiscriminator(channels=self.critic_channels) for name in names})

    def step(
        self,
        model: nn.Module,
        teacher: nn.Module,
        labelled: LabelledBatch,
        unlabelled: UnlabelledBatch | None,
        progress: TrainingProgress,
        critics: nn.Module | None = None,
    ) -> dict[str, Tensor]:
        """Return {"supervised", "adversarial" or "entropy", "critic"}, with auxiliary maps also those of these.

        Raises:
            DataError: there is no unlabelled batch.
        """
        unlabelled = require_unlabelled(unlabelled, method="advent")
        out_x, out_u = forward_both(model, labelled, unlabelled, heads=self.heads)
        terms = self._map_terms("main", labelled, out_x, unlabelled, out_u, progress, critics)
        if self.auxiliary:
            terms |= self._map_terms("auxiliary", labelled, out_x, unlabelled, out_u, progress, critics)
        return terms

    def _map_terms(
        self,
        which: str,
        labelled: LabelledBatch,
        out_x: Outputs,
        unlabelled: UnlabelledBatch,
        out_u: Outputs,
        progress: TrainingProgress,
        critics: nn.Module | None,
    ) -> dict[str, Tensor]:
        """Return the terms of the main or of the auxiliary map."""
        main = which == "main"
        of_labels, of_game = (1.0, self.adversarial_weight) if main else self._auxiliary_weights
        ending = "" if main else "_auxiliary"
        logits_x_BKHW, logits_u_BKHW = _select_map(out_x, main=main), _select_map(out_u, main=main)
        label_BHW = resize_nearest(labelled.label_BHW, logits_x_BKHW.shape[-2:])
        valid_BHW = resize_nearest(unlabelled.valid_BHW, logits_u_BKHW.shape[-2:])
        terms = {f"supervised{ending}": of_labels * self.supervised_term(logits_x_BKHW, label_BHW)}
        info_u_BKHW = self_information(logits_u_BKHW)
        if self.form == "min_entropy":
            return terms | {f"entropy{ending}": of_game * masked_mean(info_u_BKHW.sum(dim=1), valid_BHW)}
        critic = require_discriminators(critics, method="advent").get_submodule(which)
        info_u_BKHW = mask_pixels(info_u_BKHW, valid_BHW)
        info_x_BKHW = mask_pixels(self_information(logits_x_BKHW), label_BHW != IGNORE)
        terms[f"adversarial{ending}"] = of_game * adversarial_loss(critic, info_u_BKHW)
        terms[f"critic{ending}"], right = discriminator_loss(critic, info_x_BKHW, info_u_BKHW)
        progress.diagnostics[f"critic_right_frac{ending}"] = right
        return terms

    @property
    def _auxiliary_weights(self) -> tuple[float, float]:
        """Weights of the auxiliary map: cross entropy, adversarial term."""
        return self.auxiliary_weight, self.auxiliary_adversarial_weight


def _select_map(out: Outputs, *, main: bool) -> Tensor:
    """Return the main map, or the last auxiliary one."""
    if main:
        return out.change_BKHW
    assert out.auxiliary_BKHW
    return out.auxiliary_BKHW[-1]
