"""The base class of detectors: what a subclass need not write, and how a detector is identified."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from semicdvl.detection.fingerprint import identify_detector
from semicdvl.types import ChangeMap, Detector


@dataclass(frozen=True)
class Brighter(Detector):
    least: float = 0.5
    name: str = "brighter"
    map_count: int = 1

    def predict_scores(self, t1_HWC, t2_HWC, *, gsd_m=None):
        return np.full((1, *t1_HWC.shape[:2]), gsd_m or 0, np.float32)

    def decide(self, strips):
        for strip in strips:
            yield ChangeMap((strip.scores_PHW[0] > self.least).astype(np.uint8), strip.scores_PHW[0])


class Described(Brighter):
    stored_kind = "semicdvl.old.place.Described"

    @property
    def identity(self):
        return "weights 12ab"


def test_defaults_are_those_of_a_plain_detector():
    detector = Brighter()
    assert detector.prepare(iter([])) is detector
    assert detector.max_bands is None and detector.identity is None
    assert detector.description() == {} and detector.notes() == ()


def test_a_tile_is_predicted_from_its_scores():
    image_HWC, valid_HW = np.zeros((3, 4, 3), np.uint8), np.ones((2, 4), bool)
    tile = Brighter().predict_tile(image_HWC, image_HWC, valid_HW=valid_HW, gsd_m=0.5)
    assert tile.scores_PHW is not None and (tile.scores_PHW == 0.5).all() and tile.scores_PHW.shape == (1, 3, 4)
    assert tile.valid_HW is valid_HW and tile.instances is None and tile.features_2DHW is None
    skipped = Brighter().skip_tile(valid_HW)
    assert skipped.scores_PHW is None and skipped.valid_HW is valid_HW and skipped.instances is None


def test_a_detector_without_identity_is_identified_by_its_plain_fields():
    assert identify_detector(Brighter(0.25)) == {
        "kind": f"{Brighter.__module__}.Brighter",
        "name": "brighter",
        "planes": 1,
        "told": {},
        "own": {"least": 0.25, "name": "brighter", "map_count": 1},
    }
    assert identify_detector(Brighter(0.25)) != identify_detector(Brighter(0.5))


def test_the_stored_kind_stays_when_a_class_moves():
    assert identify_detector(Described()) == {"kind": "semicdvl.old.place.Described", "identity": "weights 12ab"}


def test_scores_and_decision_must_be_implemented():
    with pytest.raises(TypeError, match="abstract"):
        Detector()  # type: ignore[abstract]
