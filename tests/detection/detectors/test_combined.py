"""The map without labels keeps its objects, and gets wider outlines and further objects from a trained network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rich.console import Console
from tests.support.score_strips import Strips
from tests.support.synthetic_rasters import at, tif

from semicdvl.ceg.config import CEGSettings
from semicdvl.ceg.prompts import Prompts
from semicdvl.detection.config import DetectionConfig
from semicdvl.detection.detectors.calibrated import add_calibration
from semicdvl.detection.detectors.combined import CombinedDetector, combine_detectors
from semicdvl.detection.detectors.network import NetworkDetector
from semicdvl.detection.detectors.vlm_ceg import VLMDetector
from semicdvl.detection.fingerprint import identify_detector
from semicdvl.detection.pipeline import write_detection
from semicdvl.errors import ConfigError
from semicdvl.types import IGNORE, Segments
from semicdvl.types.bands import InputBands

DISC = np.array([[0, 0, 1, 0, 0], [0, 1, 1, 1, 0], [1, 1, 1, 1, 1], [0, 1, 1, 1, 0], [0, 0, 1, 0, 0]], np.uint8)
QUIET = Console(quiet=True)
PROMPTS = Prompts(("roof",), ("grass", "road"))
KNOWN, LARGER, SURE, UNSURE = (
    (slice(5, 25), slice(5, 30)),
    (slice(3, 29), slice(10, 34)),
    (slice(40, 62), slice(40, 66)),
    (slice(70, 90), slice(5, 30)),
)
"""Places: a new roof that the VLM sees; what the network finds of it and around it; a roof that the network alone finds
and is sure of; one that it is not sure of."""


@dataclass(frozen=True)
class Red:
    """A VLM whose score of the first word is the red channel."""

    identity: str = "red-1"
    gamma: float = 0.5

    def segment(self, image_HWC: NDArray[np.uint8], prompts: Any, *, gsd_m: float | None = None) -> Segments:
        red_HW = image_HWC[..., 0].astype(np.float32) / 255
        return Segments(np.stack([red_HW, *([(1 - red_HW) / 2] * (len(prompts) - 1))]), tuple(prompts))


@dataclass(frozen=True)
class Green(NetworkDetector):
    """A network whose probability of change is the green channel of date 2."""

    network: Any = None
    identity = "green-1"

    @property
    def date_classes(self) -> None:
        """None."""
        return

    def predict_scores(
        self, t1_HWC: NDArray[Any], t2_HWC: NDArray[Any], *, gsd_m: float | None = None
    ) -> NDArray[np.float32]:
        return (t2_HWC[..., 1].astype(np.float32) / 255)[None]


def scene() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    t1_HWC = np.full((100, 80, 3), 5, np.uint8)
    t2_HWC = t1_HWC.copy()
    t2_HWC[(*KNOWN, 0)] = 240
    t2_HWC[(*SURE, 1)], t2_HWC[(*UNSURE, 1)] = 230, 160
    t2_HWC[(*LARGER, 1)] = 250
    return t1_HWC, t2_HWC


def build(combination: str = "both") -> CombinedDetector:
    base = VLMDetector(Red(), PROMPTS, CEGSettings(level="instance"))
    return replace(combine_detectors(base, Green(), combination=combination), gsd_m=0.25)


def expected(combination: str = "both") -> NDArray[np.uint8]:
    change_HW = np.zeros((100, 80), np.uint8)
    change_HW[KNOWN] = 1
    if combination != "objects":  # 0.5 m are two pixels: of the network's larger object, what is that near
        near_HW = cv2.dilate(change_HW, DISC)
        change_HW[LARGER] |= near_HW[LARGER]
    if combination != "outlines":
        change_HW[SURE] = 1
    return change_HW


@pytest.mark.parametrize("rows", [100, 33, 7, 1])
@pytest.mark.parametrize("combination", ["both", "outlines", "objects"])
def test_known_objects_stay_and_get_what_the_network_knows_however_the_raster_is_cut(
    rows: int, combination: str
) -> None:
    detector, (t1_HWC, t2_HWC) = build(combination), scene()
    valid_HW = np.ones((100, 80), bool)
    valid_HW[:, 78:] = False
    scores_PHW = detector.predict_scores(t1_HWC, t2_HWC)
    assert len(scores_PHW) == detector.map_count == 7
    parts = list(detector.decide(Strips(scores_PHW, valid_HW, rows)))
    change_HW = np.concatenate([part.change_HW for part in parts])
    score_HW = np.concatenate([part.score_HW for part in parts])
    np.testing.assert_array_equal(change_HW, np.where(valid_HW, expected(combination), IGNORE))
    base_HW = np.concatenate([part.score_HW for part in detector.base.decide(Strips(scores_PHW[:-1], valid_HW, rows))])
    new_HW = (expected(combination) > 0) & (base_HW < 0.5)
    assert (score_HW[new_HW] >= np.float32(230 / 255)).all() and np.isnan(score_HW[:, 78:]).all()
    np.testing.assert_array_equal(score_HW[~new_HW & valid_HW], base_HW[~new_HW & valid_HW])


def test_the_written_map_is_the_same(tmp_path: Path) -> None:
    images = [
        tif(tmp_path / f"{date}.tif", image_HWC.transpose(2, 0, 1), at(5e5, 4e6))
        for date, image_HWC in enumerate(scene())
    ]
    config = DetectionConfig(gsd_m=0.25, min_area_m2=0)
    write_detection(*images, tmp_path / "out", detector=replace(build(), gsd_m=None), config=config, progress=QUIET)
    with rasterio.open(tmp_path / "out" / "change.tif") as source:
        np.testing.assert_array_equal(source.read(1), expected())
    assert "Taken from it" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_identity_names_both_parts() -> None:
    other = combine_detectors(VLMDetector(Red("red-2"), PROMPTS, CEGSettings(level="instance")), Green())
    assert identify_detector(build()) != identify_detector(other)
    assert "green-1" in build().identity


def test_what_cannot_be_combined_is_refused() -> None:
    base = build().base
    with pytest.raises(ConfigError, match="no trained network"):
        combine_detectors(base, base)
    with pytest.raises(ConfigError, match="no detector with a VLM"):
        combine_detectors(Green(), Green())
    with pytest.raises(ConfigError, match="Known: both, outlines, objects"):
        combine_detectors(base, Green(), combination="shapes")
    with pytest.raises(ConfigError, match="Leave out --calibrate, or --combine"):
        combine_detectors(add_calibration(base), Green())
    bands = InputBands((1, 2, 3, 4), (0.1,) * 4, (0.1,) * 4)
    with pytest.raises(ConfigError, match="the VLM sees red"):
        combine_detectors(base, Green(input_bands=bands))
    with pytest.raises(ConfigError, match="Leave out --decide, or --combine"):
        combine_detectors(base, Green(deciding="both"))
