"""Score a set of pairs: by pixel, by object and by class, as dictionaries of numbers by name.

A report says NaN for a score that is not defined. Those of a validation are numbers, 0 where one is not defined, so
that they can be compared; `find_undefined_scores` tells these 0 from others, and what is written to disk says null.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from semicdvl.metrics.change import SCORE_NAMES, ConfusionCounts, divide_counts
from semicdvl.metrics.objects import ObjectCounts
from semicdvl.metrics.semantic import SemanticCounts
from semicdvl.metrics.transition_objects import TransitionObjectCounts

HEADLINE_SCORES = ("sek", "f_scd", "miou")
"""Scores of semantic change that are logged at every validation."""
SCORES_OF_CHANGE = frozenset({"iou", "f1", "recall", "kappa"})
"""Scores that say how well change is found, so labels without any change do not define them."""


@dataclass(frozen=True)
class ClassEvaluation:
    """What a network with classes of each date made of pairs.

    Attributes:
        names: of the classes.
        counts: pixels of its maps against the truth, over all pairs with a label of both dates.
        objects: truly changed objects of these pairs.
    """

    names: tuple[str, ...]
    counts: SemanticCounts
    objects: TransitionObjectCounts = field(default_factory=TransitionObjectCounts)

    def compute_scores(self) -> dict[str, float]:
        """Return the numbers by name: scores of semantic change, IoU by class and date, consistency of the heads."""
        counts = self.counts
        scores = {f"semantic_{name}": value for name, value in counts.scores.list_scores().items()}
        for date, of_classes in zip(("before", "after"), counts.class_iou_by_date, strict=True):
            scores |= {f"iou_{date}_{name}": value for name, value in zip(self.names, of_classes, strict=True)}
        changed, unchanged = int(counts.t1_KK[1:].sum()), int(counts.t1_KK[0].sum())
        right = divide_counts(counts.right_transitions, int(counts.true_transitions_KK.sum()))
        return scores | {
            "right_transitions_frac": float(right),
            "object_right_transitions_frac": float(self.objects.right_frac),
            "changed_same_class_frac": float(divide_counts(counts.changed_same_class, changed)),
            "unchanged_other_class_frac": float(divide_counts(counts.unchanged_other_class, unchanged)),
        }

    def compute_headline_scores(self) -> dict[str, float]:
        """Return the scores that a validation logs; undefined ones are 0."""
        scores = self.counts.scores
        return {f"semantic_{name}": _replace_nan(getattr(scores, name)) for name in HEADLINE_SCORES}


class RunScores(dict[str, float]):
    """The scores of a run by name.

    Attributes:
        classes: what a run with classes made of the pairs; None for one without, or pairs without labels of the dates.
        pair_count: number of pairs that were scored.
        trained_count: how many of them the run was trained on, which makes its scores too high.
    """

    classes: ClassEvaluation | None = None
    pair_count: int = 0
    trained_count: int = 0


def describe_trained_pairs(scores: RunScores) -> str:
    """Return the sentence that says that pairs of the training were scored."""
    pairs = "1 pair is" if scores.trained_count == 1 else f"{scores.trained_count:,} pairs are"
    return (
        f"Of the {scores.pair_count:,} pairs that were scored {pairs} from the training of this run: these scores are "
        "too high. Its test pairs (--split test) were not."
    )


@dataclass(frozen=True)
class PairSetCounts:
    """Counts over a set of pairs, by pixel and by object, and of the classes of both dates."""

    pixels: ConfusionCounts
    objects: ObjectCounts
    classes: ClassEvaluation | None = None

    def list_meaningful_scores(self) -> dict[str, float]:
        """Return the numbers by name, for a report.

        What needs change in the labels is NaN where there is none, precision where nothing was detected, and everything
        where no pixel has a label.
        """
        pixels, objects = self.pixels, self.objects.list_meaningful_scores()
        scores = pixels.list_meaningful_scores()
        scores["predicted_changed_frac"] = divide_counts(pixels.tp + pixels.fp, pixels.total)
        scores |= {f"object_{name}": objects[name] for name in ("precision", "recall", "f1")}
        return scores if self.classes is None else scores | self.classes.compute_scores()


def compute_pixel_scores(counts: ConfusionCounts) -> dict[str, float]:
    """Return the usual scores of the changed class; undefined ones (nothing detected, for example) are 0."""
    scores = {name: _replace_nan(getattr(counts, name)) for name in SCORE_NAMES}
    return scores | {"predicted_changed_frac": (counts.tp + counts.fp) / max(counts.total, 1)}


def find_undefined_scores(scores: Mapping[str, float]) -> set[str]:
    """Return the names of the scores that the labels do not define, or that lack a detection.

    Args:
        scores: from `compute_pixel_scores`, or those of a report.
    """
    undefined = {"precision", "object_precision"} if scores.get("predicted_changed_frac") == 0 else set()
    return undefined | SCORES_OF_CHANGE if _lack_change(scores) else undefined


def _lack_change(scores: Mapping[str, float]) -> bool:
    """Tell whether scores, in which what is undefined is 0, are of labels without any change.

    Then every pixel is either right or a false alarm. With missed change the two shares add up to less.
    """
    right, detected = (float(scores.get(name, math.nan)) for name in ("accuracy", "predicted_changed_frac"))
    return scores.get("iou") == 0 and math.isclose(right + detected, 1.0, rel_tol=0, abs_tol=1e-12)


def _replace_nan(value: float) -> float:
    """Return a score, 0 where it is not a number, so that scores can be compared and stored as JSON."""
    return 0.0 if math.isnan(value) else float(value)
