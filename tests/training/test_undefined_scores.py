"""Scores that nothing defines are null in a run's record, and not 0."""

import math

from semicdvl.metrics.change import ConfusionCounts
from semicdvl.metrics.objects import ObjectCounts
from semicdvl.training.evaluate import PairSetCounts
from semicdvl.training.run_record import _load_scores, _store_scores


def test_scores_without_change_in_the_labels_are_stored_as_null():
    scores = PairSetCounts(ConfusionCounts(tn=90, fp=10), ObjectCounts(predicted=3)).list_meaningful_scores()
    stored = _store_scores(scores)
    undefined = {name for name, value in stored.items() if value is None}
    assert undefined == {"iou", "f1", "recall", "kappa", "object_recall", "object_f1"}
    assert stored["precision"] == 0.0 and stored["accuracy"] == 0.9 and stored["predicted_changed_frac"] == 0.1
    assert {name for name, value in _load_scores(stored).items() if math.isnan(value)} == undefined


def test_precision_is_undefined_where_nothing_was_detected():
    scores = PairSetCounts(ConfusionCounts(tn=90, fn=10), ObjectCounts(actual=2)).list_meaningful_scores()
    stored = _store_scores(scores)
    assert {name for name, value in stored.items() if value is None} == {"precision", "object_precision"}
    assert stored["iou"] == stored["recall"] == stored["f1"] == 0.0
