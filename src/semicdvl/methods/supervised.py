"""Supervised training: the "Sup-only" rows of the literature's tables, and each supervised network's published loss.

cross entropy                                   all but STANet
+ Dice of both classes                          SNUNet: dice_weight = 1, dice_over = "both"
+ cross entropy of smaller auxiliary maps       ChangeFormer: auxiliary_weights = [0.5, 0.5, 0.5, 0.8]
batch-balanced contrastive on the distance      STANet: contrastive_weight = 1, cross_entropy_weight = 0

Sources of the options: SNUNet (Fang et al. 2021), ChangeFormer (Bandara and Patel 2022), STANet (Chen and Shi 2020).
Differs from STANet's public code, which counts ignored pixels as unchanged and, with today's torch, measures its
distance along image columns: here ignored pixels do not count, and the distance is the network's, over channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from semicdvl import losses
from semicdvl.errors import ConfigError
from semicdvl.methods.common.terms import SemanticTerm, resize_nearest
from semicdvl.types import IGNORE, LabelledBatch, Outputs, TrainingProgress, UnlabelledBatch


@dataclass(frozen=True)
class Supervised(SemanticTerm):
    """Train on labels alone: cross entropy, and the terms that published recipes add to it."""

    cross_entropy_weight: float = 1.0  # of the cross entropy of the main map
    dice_over: Literal["changed", "both"] = "changed"  # classes of the Dice term; both: their mean, as SNUNet
    auxiliary_weights: tuple[float, ...] = ()  # of the auxiliary maps' cross entropies, in the network's order
    contrastive_weight: float = 0.0  # of the batch-balanced contrastive term on the network's distance
    contrastive_margin: float = 2.0  # least distance of changed pixels; STANet decides at half of it

    def __post_init__(self) -> None:
        """Convert a list to a tuple, and check the settings."""
        if isinstance(self.auxiliary_weights, list):
            object.__setattr__(self, "auxiliary_weights", tuple(self.auxiliary_weights))
        super().__post_init__()
        if not (self.cross_entropy_weight or self.dice_weight or self.contrastive_weight):
            raise ConfigError(
                "method 'supervised' has no loss term: cross_entropy_weight, dice_weight and contrastive_weight are "
                "all 0. Set one of them above 0."
            )

    @property
    def heads(self) -> frozenset[str]:
        """Heads that the method reads of the network."""
        is_read = {"change": True, "auxiliary": bool(self.auxiliary_weights), "distance": self.contrastive_weight > 0}
        return self.semantic_heads | frozenset(head for head, read in is_read.items() if read)

    def step(
        self,
        model: nn.Module,
        teacher: nn.Module,
        labelled: LabelledBatch,
        unlabelled: UnlabelledBatch | None,
        progress: TrainingProgress,
    ) -> dict[str, Tensor]:
        """Return {"supervised"} and, if their weights are set, "auxiliary", "contrastive" and "semantic"."""
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
        return terms | self.semantic_terms(out, labelled)

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
                f"method option auxiliary_weights must have one number per auxiliary map of the network, which has "
                f"{len(maps)}; got {len(self.auxiliary_weights)}."
            )
        weighted = [
            weight * losses.label_cross_entropy(logits_BKHW, resize_nearest(label_BHW, logits_BKHW.shape[-2:]))
            for weight, logits_BKHW in zip(self.auxiliary_weights, maps, strict=True)
        ]
        return sum(weighted[1:], weighted[0])


def two_class_dice_loss(logits_BKHW: Tensor, label_BHW: Tensor) -> Tensor:
    """Return SNUNet's Dice loss: 1 - soft Dice, pooled over the batch, averaged over both classes.

    `losses.dice_loss` has the changed class alone.
    A tiny number in the denominator alone keeps it defined, so a class without a pixel gives 1, as there.
    """
    labelled_BHW = label_BHW != IGNORE
    probability_BKHW = logits_BKHW.float().softmax(dim=1) * labelled_BHW[:, None]
    class_losses = []
    for kind in (0, 1):
        true_BHW = (label_BHW == kind).float()
        overlap = 2 * (probability_BKHW[:, kind] * true_BHW).sum()
        class_losses.append(1 - overlap / (probability_BKHW[:, kind].sum() + true_BHW.sum() + 1e-6))
    return (class_losses[0] + class_losses[1]) / 2
