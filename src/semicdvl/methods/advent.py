"""ADVENT for change detection ("AdvNet" in the tables): adversarial entropy minimisation on unlabelled pairs.

    L = CE_x + 0.001 BCE(D(I(u)), labelled)                 I: each class's -p log2 p, D: the discriminator
    L_D = 1/2 BCE(D(I(x)), labelled) + 1/2 BCE(D(I(u)), unlabelled)

Source: Vu et al., ADVENT: Adversarial Entropy Minimization (2019); its constants. It was made for domain adaptation;
here labelled pairs are its source domain and unlabelled ones its target.

Differs from the published network, DeepLab-v2 on a ResNet101 whose batch norm is frozen (its batch is one pair), with a
second classifier on the last but one stage: here any network does, its batch norm learns (the batch is 8 + 8), both
kinds of pairs pass it together, padding is masked, and the second classifier is the last of the network's auxiliary
maps, if `auxiliary` is set and the network has some.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from semicdvl.losses import masked_mean
from semicdvl.methods.common.discriminators import (
    PatchDiscriminator,
    adversarial_loss,
    discriminator_loss,
    mask_pixels,
    require_discriminators,
    self_information,
)
from semicdvl.methods.common.terms import SupervisedTerm, resize_nearest
from semicdvl.methods.common.weak_to_strong import forward_labelled_and_weak, require_unlabelled
from semicdvl.types import IGNORE, AdversarialMethod, LabelledBatch, Outputs, TrainingProgress, UnlabelledBatch


@dataclass(frozen=True)
class MapTerms:
    """Select a map of the network, and the weights and names of its terms."""

    discriminator: str
    suffix: str
    supervised_weight: float
    adversarial_weight: float

    def select_map(self, out: Outputs) -> Tensor:
        """Return the main map, or the last auxiliary one."""
        if self.discriminator == "main":
            return out.change_BKHW
        assert out.auxiliary_BKHW
        return out.auxiliary_BKHW[-1]


@dataclass(frozen=True)
class Advent(SupervisedTerm, AdversarialMethod):
    """Train on labels, and make predictions on unlabelled pairs as certain as those on labelled ones."""

    form: Literal["adversarial", "min_entropy"] = "adversarial"  # min_entropy: the mean entropy, no discriminator
    adversarial_weight: float = 0.001  # of the main map's term
    auxiliary: bool = False  # train the network's last auxiliary map as well: published with DeepLab-v2
    auxiliary_weight: float = 0.1  # of its cross entropy
    auxiliary_adversarial_weight: float = 0.0002  # of its adversarial term
    critic_lr: float = 1e-4  # learning rate of the discriminators: Adam, betas .9 and .99
    critic_channels: int = 64  # width of a discriminator's first layer

    @property
    def uses_unlabelled(self) -> bool:
        """Whether `step` needs unlabelled pairs: yes."""
        return True

    @property
    def heads(self) -> frozenset[str]:
        """Heads that the method reads of the network."""
        return frozenset({"change", "auxiliary"} if self.auxiliary else {"change"})

    def build_discriminators(self) -> nn.Module | None:
        """Return a discriminator for each map that has an adversarial term."""
        if self.form == "min_entropy":
            return None
        names = [terms.discriminator for terms in self._maps]
        return nn.ModuleDict({name: PatchDiscriminator(channels=self.critic_channels) for name in names})

    def step(
        self,
        model: nn.Module,
        teacher: nn.Module,
        labelled: LabelledBatch,
        unlabelled: UnlabelledBatch | None,
        progress: TrainingProgress,
        discriminators: nn.Module | None = None,
    ) -> dict[str, Tensor]:
        """Return {"supervised", "adversarial" or "entropy", "critic"}; with auxiliary maps also those of these.

        Raises:
            DataError: there is no unlabelled batch.
        """
        unlabelled = require_unlabelled(unlabelled, method="advent")
        out_x, out_u = forward_labelled_and_weak(model, labelled, unlabelled, heads=self.heads)
        terms: dict[str, Tensor] = {}
        for which in self._maps:
            logits_x_BKHW, logits_u_BKHW = which.select_map(out_x), which.select_map(out_u)
            label_BHW = resize_nearest(labelled.label_BHW, logits_x_BKHW.shape[-2:])
            valid_BHW = resize_nearest(unlabelled.valid_BHW, logits_u_BKHW.shape[-2:])
            loss_x = self.supervised_term(logits_x_BKHW, label_BHW)
            terms[f"supervised{which.suffix}"] = which.supervised_weight * loss_x
            if self.form == "min_entropy":
                entropy_BHW = self_information(logits_u_BKHW).sum(dim=1)
                terms[f"entropy{which.suffix}"] = which.adversarial_weight * masked_mean(entropy_BHW, valid_BHW)
                continue
            discriminator = require_discriminators(discriminators, method="advent").get_submodule(which.discriminator)
            information_u_BKHW = mask_pixels(self_information(logits_u_BKHW), valid_BHW)
            information_x_BKHW = mask_pixels(self_information(logits_x_BKHW), label_BHW != IGNORE)
            loss_u = adversarial_loss(discriminator, information_u_BKHW)
            loss_d, accuracy = discriminator_loss(discriminator, information_x_BKHW, information_u_BKHW)
            terms[f"adversarial{which.suffix}"] = which.adversarial_weight * loss_u
            terms[f"critic{which.suffix}"] = loss_d
            progress.diagnostics[f"critic_right_frac{which.suffix}"] = accuracy
        return terms

    @property
    def _maps(self) -> list[MapTerms]:
        """The maps that are trained."""
        maps = [MapTerms("main", "", 1.0, self.adversarial_weight)]
        if self.auxiliary:
            maps.append(MapTerms("auxiliary", "_auxiliary", self.auxiliary_weight, self.auxiliary_adversarial_weight))
        return maps
