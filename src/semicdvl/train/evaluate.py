"""A network's scores on labelled pairs: pixels pooled over the whole set, never a mean over pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from semicdvl.data.images import ImageCache
from semicdvl.data.pairs import read_pair
from semicdvl.metrics import Confusion, ObjectScores, object_scores
from semicdvl.train.trainer import normalised
from semicdvl.types import IGNORE, PairFiles

CHANGE = frozenset({"change"})


@torch.no_grad()
def change_probability(
    model: nn.Module, t1_HWC: NDArray[np.uint8], t2_HWC: NDArray[np.uint8], *, device: torch.device
) -> NDArray[np.float32]:
    """Return the probability of change (HW) of one pair of any size; `model` is in eval mode."""
    batch = [
        normalised(torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].to(device))
        for image in (t1_HWC, t2_HWC)
    ]
    probability_HW: NDArray[np.float32] = model(*batch, heads=CHANGE).change_BKHW.float().softmax(1)[0, 1].cpu().numpy()
    return probability_HW


@dataclass(frozen=True)
class Evaluation:
    """Counts over a set of pairs, by pixel and by object."""

    pixels: Confusion
    objects: ObjectScores

    def scores(self) -> dict[str, float]:
        """Return the numbers by name."""
        return pixel_scores(self.pixels) | {
            f"object_{name}": _defined(getattr(self.objects, name)) for name in ("precision", "recall", "f1")
        }


def _defined(value: float) -> float:
    """Return a score, 0 where it is not a number: a best one can be chosen, and JSON can say it."""
    return 0.0 if math.isnan(value) else float(value)


def pixel_scores(counts: Confusion) -> dict[str, float]:
    """Return the usual scores of the changed class; one that is undefined (nothing found, say) is 0 here."""
    names = ("iou", "f1", "precision", "recall", "kappa", "accuracy")
    scores = {name: _defined(getattr(counts, name)) for name in names}
    total = counts.tp + counts.fp + counts.fn + counts.tn
    return scores | {"predicted_changed_frac": (counts.tp + counts.fp) / max(total, 1)}


def evaluate(
    model: nn.Module, pairs: Iterable[PairFiles], *, device: torch.device, threshold: float = 0.5
) -> Evaluation:
    """Compare a network in eval mode with the labels of pairs, each at its full size."""
    pixels, objects = Confusion(), ObjectScores()
    for pair in pairs:
        content = read_pair(pair)
        assert content.label_HW is not None
        found_HW = change_probability(model, content.t1_HWC, content.t2_HWC, device=device) > threshold
        predicted_HW = found_HW.astype(np.uint8)
        pixels += Confusion.from_maps(predicted_HW, content.label_HW)
        objects += object_scores(predicted_HW, np.where(content.label_HW == IGNORE, 0, content.label_HW))
    return Evaluation(pixels, objects)


def validator(pairs: Sequence[PairFiles]) -> Callable[[nn.Module, torch.device], dict[str, float]]:
    """Return the function that the training loop validates with; images are decoded once."""
    cache = ImageCache(512 * 2**20)

    def validate(model: nn.Module, device: torch.device) -> dict[str, float]:
        """Return the pixel scores of a network in eval mode."""
        counts = Confusion()
        for pair in pairs:
            content = read_pair(pair, cache=cache)
            assert content.label_HW is not None
            found_HW = change_probability(model, content.t1_HWC, content.t2_HWC, device=device) > 0.5
            counts += Confusion.from_maps(found_HW.astype(np.uint8), content.label_HW)
        return pixel_scores(counts)

    return validate
