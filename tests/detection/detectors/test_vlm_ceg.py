"""The detector without labels at the residual level: metres from the pair, and the same map for every strip height."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from tests.support.score_strips import Strips

from semicdvl.ceg.config import CEGSettings
from semicdvl.ceg.features import scale_extractor
from semicdvl.ceg.labels import make_labels
from semicdvl.ceg.prompts import Prompts
from semicdvl.detection.config import DetectionConfig
from semicdvl.detection.detectors.vlm_ceg import VLMDetector, build_default_detector
from semicdvl.detection.pipeline import write_detection
from semicdvl.errors import ConfigError
from semicdvl.types import IGNORE, Instance, Segments

PROMPTS = Prompts(("roof",), ("grass",))


@dataclass(frozen=True)
class Brightness:
    """A VLM whose score of the first word is the red channel."""

    identity: str = "brightness-1"
    gamma: float = 0.5

    def segment(self, image_HWC, prompts, *, gsd_m=None):
        red_HW = image_HWC[..., 0].astype(np.float32) / 255
        return Segments(np.stack([red_HW, *([(1 - red_HW) / 2] * (len(prompts) - 1))]), tuple(prompts))


def hall_and_extension() -> tuple[np.ndarray, np.ndarray]:
    """Return a hall of 30 x 20 px, and the same with an extension of 30 x 25 px against it."""
    before = np.full((70, 90, 3), 10, np.uint8)
    before[20:50, 10:30] = 230
    after = before.copy()
    after[20:50, 30:55] = 230
    return before, after


def test_detect_finds_the_extension_and_says_what_it_assumed(tmp_path: Path):
    for name, image in zip("ab", hall_and_extension(), strict=True):
        Image.fromarray(image).save(tmp_path / f"{name}.png")

    def run(out: str, *, level: str, gsd_m: float | None, tile_px: int = 64):
        saved = write_detection(
            tmp_path / "a.png", tmp_path / "b.png", tmp_path / out,
            detector=VLMDetector(
                Brightness(), PROMPTS, CEGSettings(level=level, residual_outlines=0.0)  # type: ignore[arg-type]
            ),
            config=DetectionConfig(tile_px=tile_px, overlap_px=32, gsd_m=gsd_m, collar="none"),
            progress=Console(quiet=True),
        )  # fmt: skip
        return saved, np.asarray(Image.open(tmp_path / out / "change.tif")) == 1

    assert not run("instance", level="instance", gsd_m=1.0)[1].any()
    known, changed_HW = run("known", level="residual", gsd_m=1.0)
    expected_HW = np.zeros((70, 90), bool)
    expected_HW[20:50, 30:55] = True
    assert not (changed_HW & ~expected_HW).any() and (expected_HW & ~changed_HW).sum() == 6
    assert not any("assumed 0.5 m" in line for line in known.warnings)
    unknown, assumed_HW = run("unknown", level="residual", gsd_m=None)
    assert any("assumed 0.5 m per pixel" in line for line in unknown.warnings)
    assert (assumed_HW == run("half", level="residual", gsd_m=0.5, tile_px=96)[1]).all()
    assert not (assumed_HW == changed_HW).all()  # discs of 4 px leave out more of the corners than those of 2 px
    assert "opened by 2 m, at least 12 m" in (tmp_path / "known" / "report.html").read_text()


@pytest.mark.parametrize("rows", [1, 7, 33])
def test_strips_make_no_difference_and_the_map_is_the_label(rows):
    rng = np.random.default_rng(4)
    images = [
        (image * 0.7).astype(np.uint8) + rng.integers(0, 75, image.shape, np.uint8) for image in hall_and_extension()
    ]
    valid_HW = np.ones((70, 90), bool)
    valid_HW[:9, 60:] = False
    settings = CEGSettings(level="residual", gsd_m=1.3, residual_score=0.65)
    detector = VLMDetector(Brightness(), PROMPTS, settings)
    scores_PHW = detector.predict_scores(*images)
    changed_HW = np.concatenate([part.change_HW for part in detector.decide(Strips(scores_PHW, valid_HW, rows))])
    t1, t2 = (Segments(np.where(valid_HW, part, 0), PROMPTS.words) for part in np.split(scores_PHW, 2))
    label_HW = make_labels(t1, t2, prompts=PROMPTS, settings=settings).change_HW
    assert (changed_HW[~valid_HW] == IGNORE).all() and (changed_HW == 1).any()
    assert (changed_HW[valid_HW] == label_HW[valid_HW]).all()


@pytest.mark.parametrize(
    "changed", [{"residual_score": 0.5}, {"residual_other_score": 0.3}, {"residual_open_m": 3.0}, {"gsd_m": 0.3}]
)
def test_what_decides_which_ground_is_cut_into_segments_is_part_of_the_identity(changed):
    """The score maps follow the segments around candidates: an interrupted run is not resumed with other ones."""
    plain, other = (
        VLMDetector(Brightness(), PROMPTS, CEGSettings(level="residual", residual_distance=0, **given))
        for given in ({}, changed)
    )
    assert plain.identity.endswith(" around candidates") and plain.identity != other.identity
    without = [
        VLMDetector(Brightness(), PROMPTS, replace(each.settings, residual_outlines=0.0)) for each in (plain, other)
    ]
    assert without[0].identity == without[1].identity


@dataclass(frozen=True)
class Halls(Brightness):
    """A VLM with an instance where the red channel is bright."""

    def segment(self, image_HWC, prompts, *, gsd_m=None):
        answer = super().segment(image_HWC, prompts, gsd_m=gsd_m)
        return replace(answer, instances=(Instance(image_HWC[..., 0] > 200, 0, 0.9),))


def test_instances_that_are_painted_into_the_maps_are_part_of_the_identity():
    """Without segments of the image, too: an interrupted run of another level has other maps."""
    plain, residual = (
        VLMDetector(Halls(), PROMPTS, CEGSettings(level=level, residual_outlines=0, residual_distance=0))  # type: ignore[arg-type]
        for level in ("instance", "residual")
    )
    maps = [each.predict_scores(*hall_and_extension(), gsd_m=0.5) for each in (plain, residual)]
    assert not np.array_equal(*maps)
    assert plain.identity != residual.identity


@pytest.mark.parametrize(
    ("given", "gsd_m", "asked", "least_m2"),
    [
        ({}, 0.5, 30.0, 30.0),
        ({}, None, 30.0, 7.5),  # 30 px, since the size of a pixel is not known
        ({"residual_area_m2": 100.0}, 0.5, 0.0, 100.0),
    ],
)
def test_the_least_area_of_objects_is_that_of_events_unless_these_have_their_own(given, gsd_m, asked, least_m2):
    settings = CEGSettings(level="residual", gsd_m=gsd_m, **given)
    detector = VLMDetector(Brightness(), PROMPTS, settings).set_least_area(asked)
    assert isinstance(detector, VLMDetector) and detector.settings.residual_area_m2 == least_m2


@dataclass(frozen=True)
class Colours:
    """Features that are the colours of the image."""

    identity: str = "colours"

    def extract_features(self, image_HWC):
        return image_HWC.transpose(2, 0, 1).astype(np.float32) + 1


def test_features_are_one_more_map_and_leave_out_what_looks_the_same(tmp_path: Path):
    """The VLM sees an extension in the red band alone; the other bands say how much it differs."""
    before, after = hall_and_extension()
    for name, image in zip("ab", (before, after), strict=True):
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    settings = CEGSettings(level="residual", gsd_m=1.0, residual_outlines=0.0)
    detector = VLMDetector(Brightness(), PROMPTS, settings, Colours())
    assert detector.map_count == 5 and detector.predict_scores(before, after).shape == (5, 70, 90)
    assert detector.identity.endswith("; distance colours")

    def run(out: str, tile_px: int) -> np.ndarray:
        write_detection(
            tmp_path / "a.png", tmp_path / "b.png", tmp_path / out, detector=detector,
            config=DetectionConfig(tile_px=tile_px, overlap_px=32), progress=Console(quiet=True),
        )  # fmt: skip
        return np.asarray(Image.open(tmp_path / out / "change.tif")) == 1

    assert not run("grey", 64).any()  # a brighter grey has the same direction: the cosine is 1
    after[20:50, 30:55, 1:] = 10
    Image.fromarray(after).save(tmp_path / "b.png")
    red_HW = run("red", 64)
    assert red_HW[22:48, 32:53].all() and (red_HW == run("one tile", 128)).all()


def test_the_default_compares_by_the_encoder_that_ships():
    detector = build_default_detector(Brightness(), prompts=PROMPTS)
    assert detector.settings.level == "residual" and detector.map_count == 5
    assert detector.features is not None and detector.features.identity.endswith("-encoder")
    image_HWC = np.random.default_rng(0).integers(0, 255, (70, 90, 3), np.uint8)
    coarse, fine = (scale_extractor(detector.features, gsd_m).extract_features(image_HWC) for gsd_m in (0.5, 1.0))
    assert coarse.shape[1:] == (5, 6) and fine.shape[1:] == (9, 12)
    off = CEGSettings(level="residual", residual_distance=0.0)
    assert build_default_detector(Brightness(), prompts=PROMPTS, settings=off).features is None
    with pytest.raises(ConfigError, match="min_cosine and features belong together"):
        VLMDetector(Brightness(), PROMPTS, off, Colours())
