"""A small network with all heads and without batch norm, for what must not depend on how a batch is dealt out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semicdvl.types import LabelledBatch, Method, Outputs, TrainingProgress, UnlabelledBatch


class PlainNetwork(nn.Module):
    """Two strided layers, the difference of the dates, one 1x1 layer per head."""

    heads = frozenset({"change", "vlm_change", "segmentation", "features"})

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.GELU(), nn.Conv2d(6, 8, 3, padding=1))
        self.change, self.vlm_change = nn.Conv2d(8, 2, 1), nn.Conv2d(8, 2, 1)
        self.segmentation = nn.Conv2d(8, 2, 1)

    def forward(self, t1_BCHW: Tensor, t2_BCHW: Tensor, *, heads: frozenset[str] | None = None) -> Outputs:
        heads = self.heads if heads is None else heads
        f1, f2 = self.encoder(t1_BCHW), self.encoder(t2_BCHW)
        size = t1_BCHW.shape[-2:]
        difference = (f1 - f2).abs()
        found = {"change_BKHW": _resized(self.change(difference), size)}
        if "vlm_change" in heads:
            found["vlm_change_BKHW"] = _resized(self.vlm_change(difference), size)
        if "segmentation" in heads:
            found |= {f"t{n}_BKHW": _resized(self.segmentation(f), size) for n, f in ((1, f1), (2, f2))}
        if "features" in heads:
            found |= {"features_t1_BDHW": f1, "features_t2_BDHW": f2}
        return Outputs(**found)


def _resized(map_BDHW: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(map_BDHW, size=tuple(size), mode="bilinear", align_corners=False)


def build() -> PlainNetwork:
    return PlainNetwork()


@dataclass(frozen=True)
class BreaksAt(Method):
    """Supervised training whose loss is no number at one step (counted from 1)."""

    step_number: int = 1

    def step(
        self,
        model: nn.Module,
        teacher: nn.Module,
        labelled: LabelledBatch,
        unlabelled: UnlabelledBatch | None,
        progress: TrainingProgress,
    ) -> dict[str, Tensor]:
        logits_BKHW = model(labelled.t1_BCHW, labelled.t2_BCHW).change_BKHW
        factor = float("nan") if progress.step + 1 == self.step_number else 1.0
        whole = F.cross_entropy(logits_BKHW, labelled.label_BHW, ignore_index=255)
        return {"whole": whole, "broken": factor * logits_BKHW.square().mean()}
