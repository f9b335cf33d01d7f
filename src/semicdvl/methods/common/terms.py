"""The loss terms that several methods share, each with its settings: on labels, on classes, and on pseudo-labels.

The semantic term teaches the segmentation head the classes of each date from true labels of each date:

    semantic_weight / 2 (CE(t1, classes of date 1) + CE(t2, classes of date 2))      pixels with a known class alone

Source: Sohn et al., FixMatch (2020), for the confidence threshold; the options for rare change are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from semicdvl import losses
from semicdvl.methods.common.validation import check_method_options
from semicdvl.methods.common.weak_to_strong import PseudoLabelMaps
from semicdvl.types import CutMixPartner, LabelledBatch, Method, Outputs, TrainingProgress


@dataclass(frozen=True, kw_only=True)
class SupervisedTerm(Method):
    """Hold the settings of the supervised term; a method inherits them."""

    change_weight: float = 1.0  # weight of changed pixels in cross entropies to labels and, if any, to pseudo-labels
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


@dataclass(frozen=True, kw_only=True)
class SemanticTerm(SupervisedTerm):
    """Hold the weight of the semantic term; a method inherits it and adds `semantic_terms` to its own."""

    semantic_weight: float = 0.0  # weight of the term on true classes of each date; 0: none, and no head for it

    @property
    def semantic_heads(self) -> frozenset[str]:
        """Heads that the term reads of the network."""
        return frozenset({"segmentation"} if self.semantic_weight else ())

    @property
    def heads(self) -> frozenset[str]:
        """Heads that the method reads of the network."""
        return super().heads | self.semantic_heads

    def semantic_terms(self, out: Outputs, labelled: LabelledBatch) -> dict[str, Tensor]:
        """Return {"semantic"}, already weighted; nothing without weight or without labels of the dates.

        Args:
            out: outputs of the labelled pairs.
            labelled: the pairs; 0 is returned where none of their pixels has a known class.
        """
        if not self.semantic_weight or labelled.classes is None:
            return {}
        assert out.t1_BKHW is not None and out.t2_BKHW is not None
        loss = losses.label_cross_entropy(out.t1_BKHW, labelled.classes.t1_BHW)
        loss = loss + losses.label_cross_entropy(out.t2_BKHW, labelled.classes.t2_BHW)
        return {"semantic": self.semantic_weight * loss / 2}


@dataclass(frozen=True, kw_only=True)
class PseudoLabelTerm(SemanticTerm):
    """Hold the settings of the consistency to confident pseudo-labels; a method inherits them."""

    confidence_min: float = 0.95  # tau: probability from which a pseudo-label counts
    confidence_min_changed: float | None = None  # tau of pixels labelled as changed, which are rarer; None: the same
    pseudo_start_frac: float = 0.0  # share of training before which pseudo-labels are not used; published: 0
    cutmix_partner: CutMixPartner = "other"  # the pair that CutMix pastes from

    @property
    def uses_unlabelled(self) -> bool:
        """Whether `step` needs unlabelled pairs: yes."""
        return True

    @property
    def confidence_bounds(self) -> losses.ConfidenceBounds:
        """The confidence thresholds of pseudo-labels, as arguments of the losses."""
        return losses.ConfidenceBounds(
            confidence_min=self.confidence_min, confidence_min_changed=self.confidence_min_changed
        )

    def consistency_term(self, logits_BKHW: Tensor, pseudo: PseudoLabelMaps, valid_BHW: Tensor) -> Tensor:
        """Return the cross entropy to confident pseudo-labels."""
        return losses.consistency_loss(
            logits_BKHW,
            pseudo.label_BHW,
            pseudo.confidence_BHW,
            valid_BHW,
            **self.confidence_bounds,
            change_weight=self.change_weight,
        )

    def uses_pseudo_labels(self, progress: TrainingProgress) -> bool:
        """Tell whether training has reached the step from which pseudo-labels are used."""
        return progress.frac >= self.pseudo_start_frac


def resize_nearest(map_BHW: Tensor, size_px: Sequence[int]) -> Tensor:
    """Resize labels, or a mask, by nearest neighbour."""
    if tuple(map_BHW.shape[-2:]) == tuple(size_px):
        return map_BHW
    resized: Tensor = F.interpolate(map_BHW[:, None].float(), size=tuple(size_px), mode="nearest")
    return resized[:, 0].to(map_BHW.dtype)
