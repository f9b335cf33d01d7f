"""Scores of a trained run that its labels don't define."""

from __future__ import annotations

import math

from semicdvl.cli.tables import build_metrics_table
from semicdvl.metrics.change import ConfusionCounts
from semicdvl.metrics.objects import ObjectCounts
from semicdvl.metrics.pair_sets import PairSetCounts


def test_scores_without_change_in_the_labels_are_undefined() -> None:
    scores = PairSetCounts(ConfusionCounts(tn=90, fp=10), ObjectCounts(predicted=2)).list_meaningful_scores()
    undefined = {name for name, value in scores.items() if math.isnan(value)}
    assert undefined == {"iou", "f1", "recall", "kappa", "object_recall", "object_f1"}
    assert scores["precision"] == 0 and scores["accuracy"] == 0.9
    column = list(build_metrics_table("t", {"test": scores}).columns[1].cells)
    assert column[list(scores).index("iou")] == "undefined" and column[list(scores).index("accuracy")] == "0.9000"


def test_precision_is_undefined_where_nothing_is_detected() -> None:
    scores = PairSetCounts(ConfusionCounts(tn=90, fn=10), ObjectCounts(actual=2)).list_meaningful_scores()
    assert {name for name, value in scores.items() if math.isnan(value)} == {"precision", "object_precision"}
    assert scores["iou"] == scores["recall"] == scores["object_recall"] == 0.0 and scores["accuracy"] == 0.9
    column = list(build_metrics_table("t", {"test": scores}).columns[1].cells)
    assert column[list(scores).index("precision")] == "undefined"
