"""What limits the scores of semantic change: finding the change, or naming the classes? For the runs of a suite.

    semicdvl benchmark recipes/suites/classes.toml -o runs/classes
    python benchmarks/class_naming.py runs/classes --every 3

Printed for each finished run, over its test pairs (every third one): the accuracy and the IoU of the classes over all
ground of both dates; SeK and F_scd of its maps; and both with the true change in place of the predicted one, so
that only the naming is left.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from semicdvl.checkpoint import load_network, read_run
from semicdvl.data.loaders import load_eval_batches
from semicdvl.data.split_file import read_split
from semicdvl.metrics.semantic import SemanticCounts
from semicdvl.training.batches import normalise_images
from semicdvl.types import PairFiles

HEADS = frozenset({"change", "segmentation"})


@dataclass
class NamingScores:
    """Counts over the pairs of a run: classes over all ground, and semantic change by predicted and by true change."""

    ground_KK: NDArray[np.int64]
    found: SemanticCounts
    given: SemanticCounts

    @property
    def accuracy(self) -> float:
        """Share of the ground of both dates whose class is right."""
        return float(np.trace(self.ground_KK) / self.ground_KK.sum())

    @property
    def iou_K(self) -> NDArray[np.float64]:
        """IoU of each class over all ground; NaN for a class that is nowhere."""
        right_K = np.diag(self.ground_KK)
        either_K = self.ground_KK.sum(axis=0) + self.ground_KK.sum(axis=1) - right_K
        return np.divide(right_K, either_K, out=np.full(len(right_K), np.nan), where=either_K > 0)


def score_naming(network: nn.Module, pairs: Sequence[PairFiles], *, classes: int) -> NamingScores:
    """Count what a network in eval mode makes of pairs with labels of both dates."""
    scores = NamingScores(
        np.zeros((classes, classes), np.int64), SemanticCounts.make_empty(classes), SemanticCounts.make_empty(classes)
    )
    for batch in load_eval_batches(pairs, batch=8, with_classes=True):
        assert batch.classes is not None, "the pairs have classes"
        with torch.inference_mode():
            out = network(normalise_images(batch.t1_BCHW), normalise_images(batch.t2_BCHW), heads=HEADS)
        change, *dates = (logits.argmax(dim=1).numpy() for logits in (out.change_BKHW, out.t1_BKHW, out.t2_BKHW))
        label, *truth = (each.numpy() for each in (batch.label_BHW, batch.classes.t1_BHW, batch.classes.t2_BHW))
        for date, true in zip(dates, truth, strict=True):
            known = true < classes
            codes = date[known] * classes + true[known]
            scores.ground_KK += np.bincount(codes, minlength=classes**2).reshape(classes, classes)
        known_labels = {"true_change_HW": label, "true_t1_HW": truth[0], "true_t2_HW": truth[1], "class_count": classes}
        scores.found += SemanticCounts.from_maps(change, *dates, **known_labels)
        scores.given += SemanticCounts.from_maps(label, *dates, **known_labels)
    return scores


def main() -> None:
    """Print a line per finished run of a suite."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", type=Path, help="folder that `semicdvl benchmark` wrote")
    parser.add_argument("--every", type=int, default=1, help="of the test pairs, take every so many")
    options = parser.parse_args()
    for path in sorted((options.suite / "jobs").glob("*.result.json")):
        outcome = json.loads(path.read_text(encoding="utf-8"))
        if outcome["status"] != "finished":
            continue
        run = Path(outcome["run"])
        names = read_run(run)["recipe"]["classes"]["names"]
        pairs = read_split(run / "split.json").test[:: options.every]
        scores = score_naming(load_network(run, train_heads=True), pairs, classes=len(names))
        found, given = scores.found.scores, scores.given.scores
        ious = ", ".join(f"{name} {iou:.2f}" for name, iou in zip(names, scores.iou_K, strict=True))
        print(
            f"{outcome['method']}, {outcome['labelled']:.0%} labels, seed {outcome['seed']}: accuracy"
            f" {scores.accuracy:.3f} ({ious}); SeK {found.sek:.3f}, F_scd {found.f_scd:.3f}; with the true change"
            f" SeK {given.sek:.3f}, F_scd {given.f_scd:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
