"""Labels only: the "Sup-only" rows of the literature's tables, and each supervised network's own published loss.

cross entropy                                   all but STANet
+ Dice of both classes                          SNUNet: dice_weight = 1, dice_over = "both"
+ cross entropy of smaller auxiliary maps       ChangeFormer: auxiliary_weights = [0.5, 0.5, 0.5, 0.8]
batch-balanced contrastive on the distance      STANet: contrastive_weight = 1, cross_entropy_weight = 0
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from semicdvl import losses
from semicdvl.errors import ConfigError
from semicdvl.methods.terms import SupervisedTerm, resize_nearest
from semicdvl.types import IGNORE, LabelledBatch, Outputs, TrainingProgress, UnlabelledBatch


@dataclass(frozen=True)
class Supervised(SupervisedTerm):
    """Cross entropy against the labels, and what published recipes add to it.

    Sources of the options: SNUNet (Fang et al. 2021), ChangeFormer (Bandara and Patel 2022), STANet (Chen and Shi
    2020). STANet's public code counts ignored pixels as unchanged and, with today's torch, measures its distance along
    image columns; here ignored pixels don't count and the distance is the network's, over channels.
    """

    cross_entropy_weight: float = 1.0  # of the cross entropy of the main map
    dice_over: Literal["changed", "both"] = "changed"  # classes of the Dice term; both: their mean, as SNUNet
    auxiliary_weights: tuple[float, ...] = ()  # of the auxiliary maps' cross entropies, in the network's order
    contrastive_weight: float = 0.0  # of the batch-balanced contrastive term on the network's distance
    contrastive_margin: float = 2.0  # distance wanted of changed pixels; STANet decides at half of it

    uses_unlabelled: ClassVar[bool] = False
    uses_vlm: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Take a list as a tuple, and check the settings."""
        if isinstance(self.auxiliary_weights, list):
            object.__setattr__(self, "auxiliary_weights", tuple(self.auxiliary_weights))
        super().__post_init__()
        if not (self.cross_entropy_weight or self.dice_weight or self.contrastive_weight):
            raise ConfigError("method 'supervised' has no term left: give one of its weights a value above 0.")

    @property
    def heads(self) -> frozenset[str]:
        """The outputs that the terms read."""
        wanted = {"change": True, "auxiliary": bool(self.auxiliary_weights), "distance": self.contrastive_weight > 0}
        return frozenset(head for head, is_read in wanted.items() if is_read)

    def step(
        self,
        model: nn.Module,
        teacher: nn.Module,
        labelled: LabelledBatch,
        unlabelled: UnlabelledBatch | None,
        progress: TrainingProgress,
    ) -> dict[str, Tensor]:
        """Return {"supervised"} and, where asked for, "auxiliary" and "contrastive"; only `labelled` is looked at."""
        out: Outputs = model(labelled.t1_BCHW, labelled.t2_BCHW, heads=self.heads)
        terms: dict[str, Tensor] = {}
        if self.cross_entropy_weight or self.dice_weight:
            terms["supervised"] = self._main_loss(out.change_BKHW, labelled.label_BHW)
        if self.auxiliary_weights:
            terms["auxiliary"] = self._auxiliary_loss(out, labelled.label_BHW)
        if self.contrastive_weight:
            assert out.distance_BHW is not None
            terms["contrastive"] = self.contrastive_weight * losses.balanced_contrastive_loss(
                out.distance_BHW, labelled.label_BHW, margin=self.contrastive_margin, form="squared"
            )
        return terms

    def _main_loss(self, logits_BKHW: Tensor, label_BHW: Tensor) -> Tensor:
        """Return cross entropy and Dice of the main map."""
        if self.dice_over == "changed" and self.cross_entropy_weight == 1:
            return self.supervised_term(logits_BKHW, label_BHW)
        entropy = losses.supervised_loss(
            logits_BKHW, label_BHW, change_weight=self.change_weight, hard_frac=self.hard_frac
        )
        dice = losses.dice_loss if self.dice_over == "changed" else two_class_dice_loss
        return self.cross_entropy_weight * entropy + self.dice_weight * dice(logits_BKHW, label_BHW)

    def _auxiliary_loss(self, out: Outputs, label_BHW: Tensor) -> Tensor:
        """Return the weighted cross entropies of the auxiliary maps, each against the label at its own size."""
        maps = out.auxiliary_BKHW or ()
        if len(maps) != len(self.auxiliary_weights):
            raise ConfigError(
                f"method option auxiliary_weights has {len(self.auxiliary_weights)} numbers, the network has "
                f"{len(maps)} auxiliary maps; give one number for each."
            )
        weighted = [
            weight * losses.label_cross_entropy(logits_BKHW, resize_nearest(label_BHW, logits_BKHW.shape[-2:]))
            for weight, logits_BKHW in zip(self.auxiliary_weights, maps, strict=True)
        ]
        return sum(weighted[1:], weighted[0])


def two_class_dice_loss(logits_BKHW: Tensor, label_BHW: Tensor) -> Tensor:
    """Return 1 - soft Dice, pooled over the batch, averaged over both classes (SNUNet's; `losses.dice_loss` has one
    class).

    A tiny number in the denominator alone keeps it defined, so a class that does not occur gives 1, as there.
    """
    labelled_BHW = label_BHW != IGNORE
    probability_BKHW = logits_BKHW.float().softmax(dim=1) * labelled_BHW[:, None]
    losses_of_classes = []
    for kind in (0, 1):
        true_BHW = (label_BHW == kind).float()
        overlap = 2 * (probability_BKHW[:, kind] * true_BHW).sum()
        losses_of_classes.append(1 - overlap / (probability_BKHW[:, kind].sum() + true_BHW.sum() + 1e-6))
    return (losses_of_classes[0] + losses_of_classes[1]) / 2
