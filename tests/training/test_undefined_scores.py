"""Scores that nothing defines are null in a run's record, and not 0."""

import math
from pathlib import Path

import pytest
import torch

from semicdvl.config import TrainConfig
from semicdvl.metrics.change import ConfusionCounts
from semicdvl.metrics.objects import ObjectCounts
from semicdvl.metrics.pair_sets import PairSetCounts, compute_pixel_scores
from semicdvl.training.checkpoint import TrainingCheckpoint
from semicdvl.training.log import TrainingLog
from semicdvl.training.run_record import TrainedRun, _load_scores, _store_scores


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


def test_without_a_labelled_pixel_nothing_is_known():
    scores = PairSetCounts(ConfusionCounts(), ObjectCounts()).list_meaningful_scores()
    assert all(value is None for value in _store_scores(scores).values())


@pytest.mark.parametrize(
    ("counts", "undefined"),
    [
        (ConfusionCounts(tn=7, fp=3), {"iou", "f1", "recall", "kappa"}),
        (ConfusionCounts(tn=10), {"iou", "f1", "recall", "kappa", "precision"}),
        (ConfusionCounts(tn=10**9, fp=12345), {"iou", "f1", "recall", "kappa"}),
        (ConfusionCounts(tn=10**9, fp=12345, fn=1), set()),
        (ConfusionCounts(tn=7, fn=3), {"precision"}),
        (ConfusionCounts(tn=6, fp=1, fn=2, tp=2), set()),
    ],
)
def test_validation_scores_of_labels_without_change_are_stored_as_null(counts, undefined):
    stored = _store_scores(compute_pixel_scores(counts))
    assert {name for name, value in stored.items() if value is None} == undefined


NO_CHANGE = compute_pixel_scores(ConfusionCounts(tn=7, fp=3))


def test_the_log_says_undefined_where_the_table_does(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    with TrainingLog(tmp_path, TrainConfig(select="val"), total_steps=4) as log:
        log.log_validation(2, scores=NO_CHANGE, best=True)
        log.log_validation(4, scores=compute_pixel_scores(ConfusionCounts(tn=6, fn=4)), best=True)
    first, second = capsys.readouterr().err.splitlines()
    assert "validation iou undefined  f1 undefined  (no change in the labels: newest kept)" in first
    assert "(best)" not in first and second.endswith("validation iou 0.000  f1 0.000  (best)")


def test_the_newest_weights_are_kept_where_labels_tell_none_from_others(tmp_path):
    model = torch.nn.Linear(2, 2)
    checkpoint = TrainingCheckpoint(tmp_path, model, [torch.optim.SGD(model.parameters())])
    kept = [checkpoint.keep_if_best(step, dict(NO_CHANGE)) for step in (1, 2, 3)]
    assert kept == [True, True, True] and checkpoint.best_step == 3


def test_the_first_of_equally_good_weights_is_kept_where_the_labels_show_change(tmp_path):
    model = torch.nn.Linear(2, 2)
    checkpoint = TrainingCheckpoint(tmp_path, model, [torch.optim.SGD(model.parameters())])
    missed = compute_pixel_scores(ConfusionCounts(tn=6, fn=4))
    assert [checkpoint.keep_if_best(step, dict(missed)) for step in (1, 2)] == [True, False]


def test_no_advice_is_given_by_a_score_that_is_not_known():
    run = TrainedRun(Path("run"), None, {"iou": math.nan}, {}, 1.0, vlm_scores={"iou": 0.0})
    assert run.give_advice() is None
