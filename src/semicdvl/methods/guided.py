"""SemiCD-VL's guidance on stronger students: UniMatch and UniMatch V2 (ours; FixMatch with it is SemiCD-VL itself).

    L = UniMatch, or UniMatch V2, + the contrastive term + the VLM's terms (common/guidance.py)

The guidance reads the labelled pairs, the weak view and the mean over both strong views. Without `vlm_guidance` and
with `lambda_c = 0` each is the plain student. UniMatch V2 makes no pass with gradient over the weak view; here the
labelled pass takes it along.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from semicdvl.methods.common.guidance import GuidedViews, VLMGuidance
from semicdvl.methods.common.weak_to_strong import forward_labelled_and_weak, require_unlabelled
from semicdvl.methods.unimatch import UniMatch
from semicdvl.methods.unimatch_v2 import UniMatchV2
from semicdvl.types import LabelledBatch, TrainingProgress, UnlabelledBatch


@dataclass(frozen=True)
class UniMatchVL(VLMGuidance, UniMatch):
    """Train as UniMatch, guided by a VLM's labels."""

    @property
    def heads(self) -> frozenset[str]:
        """Heads that the method reads of the network."""
        return super().heads | self.guidance_heads

    @property
    def strong_heads(self) -> frozenset[str]:
        """Heads that the method reads of the strong views."""
        return self.guidance_heads

    def step(
        self,
        model: nn.Module,
        teacher: nn.Module,
        labelled: LabelledBatch,
        unlabelled: UnlabelledBatch | None,
        progress: TrainingProgress,
    ) -> dict[str, Tensor]:
        """Return UniMatch's terms and those of the guidance.

        Raises:
            DataError: there is no unlabelled batch, or it has no VLM labels.
        """
        unlabelled = require_unlabelled(unlabelled, method="unimatch_vl")
        passes = self.forward_views(model, teacher, labelled, unlabelled)
        terms = self.compute_terms(passes, labelled, unlabelled, progress)
        views = GuidedViews(labelled, unlabelled, passes.labelled, passes.weak, passes.strong)
        return terms | self.guidance_terms(views, progress, method="unimatch_vl")


@dataclass(frozen=True)
class UniMatchV2VL(VLMGuidance, UniMatchV2):
    """Train as UniMatch V2, guided by a VLM's labels."""

    @property
    def heads(self) -> frozenset[str]:
        """Heads that the method reads of the network."""
        return super().heads | self.guidance_heads

    def step(
        self,
        model: nn.Module,
        teacher: nn.Module,
        labelled: LabelledBatch,
        unlabelled: UnlabelledBatch | None,
        progress: TrainingProgress,
    ) -> dict[str, Tensor]:
        """Return UniMatch V2's terms and those of the guidance.

        Raises:
            DataError: there is no unlabelled batch, or it has no VLM labels.
        """
        unlabelled = require_unlabelled(unlabelled, method="unimatch_v2_vl")
        pseudo = self.predict_pseudo_labels(model, teacher, unlabelled, progress)
        heads = self.guidance_heads | self.semantic_heads
        out_x, out_w = forward_labelled_and_weak(model, labelled, unlabelled, heads=heads)
        strong = self.forward_strong_views(model, unlabelled, pseudo, heads=self.heads)
        terms = self.compute_terms(out_x, labelled, strong, progress)
        views = GuidedViews(labelled, unlabelled, out_x, out_w, strong)
        return terms | self.guidance_terms(views, progress, method="unimatch_v2_vl")
