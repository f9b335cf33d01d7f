"""SemiCDNet: one discriminator on the change map and one on its entropy (re-implementation, constants ours).

    L = CE_x + Dice_x + 0.001 BCE(D_s(p(u)), true) + 0.001 BCE(D_e(I(u)), labelled)    I: each class's -p log2 p

Source: Peng et al., SemiCDNet (2020/21), of whose idea this is our form: no code of it is public and its constants were
not at hand, so weights, discriminators and schedule are ADVENT's. The published generator is a UNet++ of five levels
(`snunet` is the nearest network here); every row of other papers' tables under this name is a re-implementation, too.
Any discriminator separates a truth of zeros and ones from a map of probabilities, and then gives no useful gradient: so
the truth is smoothed.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from semicdvl.methods.common.discriminators import (
    PatchDiscriminator,
    adversarial_loss,
    discriminator_loss,
    mask_pixels,
    one_hot_label,
    require_discriminators,
    self_information,
)
from semicdvl.methods.common.terms import SupervisedTerm
from semicdvl.methods.common.weak_to_strong import forward_labelled_and_weak, require_unlabelled
from semicdvl.types import IGNORE, AdversarialMethod, LabelledBatch, TrainingProgress, UnlabelledBatch


@dataclass(frozen=True)
class SemiCDNet(SupervisedTerm, AdversarialMethod):
    """Train on labels, and against a discriminator of change maps and one of their entropy; all defaults are ours."""

    dice_weight: float = 1.0  # weight of a supervised Dice term; 0: none
    map_weight: float = 1e-3  # of the adversarial term of the change map
    entropy_weight: float = 1e-3  # of the adversarial term of its entropy
    smoothing_frac: float = 0.1  # probability that the smoothed truth gives the wrong class
    critic_lr: float = 1e-4  # learning rate of the discriminators: Adam, betas .9 and .99
    critic_channels: int = 64  # width of a discriminator's first layer

    @property
    def uses_unlabelled(self) -> bool:
        """Whether `step` needs unlabelled pairs: yes."""
        return True

    def build_discriminators(self) -> nn.Module:
        """Return both discriminators."""
        return nn.ModuleDict({name: PatchDiscriminator(channels=self.critic_channels) for name in ("map", "entropy")})

    def step(
        self,
        model: nn.Module,
        teacher: nn.Module,
        labelled: LabelledBatch,
        unlabelled: UnlabelledBatch | None,
        progress: TrainingProgress,
        discriminators: nn.Module | None = None,
    ) -> dict[str, Tensor]:
        """Return {"supervised", "adversarial_map", "adversarial_entropy", "critic_map", "critic_entropy"}.

        Raises:
            DataError: there is no unlabelled batch.
        """
        unlabelled = require_unlabelled(unlabelled, method="semicdnet")
        discriminators = require_discriminators(discriminators, method="semicdnet")
        out_x, out_u = forward_labelled_and_weak(model, labelled, unlabelled, heads=self.heads)
        counted_BHW = labelled.label_BHW != IGNORE
        labelled_and_unlabelled = {
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
        for name, (labelled_BKHW, unlabelled_BKHW) in labelled_and_unlabelled.items():
            discriminator = discriminators.get_submodule(name)
            terms[f"adversarial_{name}"] = weights[name] * adversarial_loss(discriminator, unlabelled_BKHW)
            terms[f"critic_{name}"], accuracy = discriminator_loss(discriminator, labelled_BKHW, unlabelled_BKHW)
            progress.diagnostics[f"critic_{name}_right_frac"] = accuracy
        return terms
