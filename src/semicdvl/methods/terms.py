"""The supervised term, the same in every method: cross entropy on labels, and what helps where change is rare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from semicdvl import losses
from semicdvl.methods.validation import check_method_options


@dataclass(frozen=True, kw_only=True)
class SupervisedTerm:
    """Settings of the supervised term; a method inherits them."""

    change_weight: float = 1.0  # weight of changed pixels in cross entropies to labels (and pseudo labels, if any)
    dice_weight: float = 0.0  # weight of a supervised Dice term; 0: none
    hard_frac: float = 1.0  # share of the pixels, the hardest, that the supervised cross entropy keeps; 1: all

    def __post_init__(self) -> None:
        """Check the settings."""
        check_method_options(self)

    def supervised_term(self, logits_BKHW: Tensor, label_BHW: Tensor) -> Tensor:
        """Return the loss against true labels."""
        return losses.supervised_loss(
            logits_BKHW,
            label_BHW,
            change_weight=self.change_weight,
            dice_weight=self.dice_weight,
            hard_frac=self.hard_frac,
        )


def resize_nearest(map_BHW: Tensor, size_px: Sequence[int]) -> Tensor:
    """Return labels, or a mask, at another size, by nearest neighbour."""
    if tuple(map_BHW.shape[-2:]) == tuple(size_px):
        return map_BHW
    resized: Tensor = F.interpolate(map_BHW[:, None].float(), size=tuple(size_px), mode="nearest")
    return resized[:, 0].to(map_BHW.dtype)
