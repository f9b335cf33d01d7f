"""Labels only: the "Sup-only" rows of the literature's tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from semicdvl import losses
from semicdvl.methods.settings import check
from semicdvl.types import Labelled, Progress, Unlabelled


@dataclass(frozen=True)
class Supervised:
    """Cross entropy against the labels."""

    change_weight: float = 1.0  # weight of changed pixels in the cross entropy; raise it where change is rare
    dice_weight: float = 0.0  # weight of an added Dice term, which doesn't mind rare change; 0: none
    hard_frac: float = 1.0  # share of the pixels, the hardest, that the cross entropy keeps (OHEM); 1: all

    uses_unlabelled: ClassVar[bool] = False
    uses_vlm: ClassVar[bool] = False
    heads: ClassVar[frozenset[str]] = frozenset({"change"})

    def __post_init__(self) -> None:
        """Check the settings."""
        check(self)

    def step(
        self,
        model: nn.Module,
        teacher: nn.Module,
        labelled: Labelled,
        unlabelled: Unlabelled | None,
        progress: Progress,
    ) -> dict[str, Tensor]:
        """Return {"supervised": loss}; `teacher` and `unlabelled` are not looked at."""
        out = model(labelled.t1_BCHW, labelled.t2_BCHW, heads=self.heads)
        loss = losses.supervised(
            out.change_BKHW,
            labelled.label_BHW,
            change_weight=self.change_weight,
            dice_weight=self.dice_weight,
            hard_frac=self.hard_frac,
        )
        return {"supervised": loss}
