"""`detect --calibrate`: flickers go, what came and went stays, and every object says how probable it is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from tests.support.command import command
from tests.support.score_strips import Strips

from semicdvl.ceg.config import CEGSettings
from semicdvl.ceg.prompts import Prompts
from semicdvl.detection.config import DetectionConfig
from semicdvl.detection.detectors.calibrated import add_calibration
from semicdvl.detection.detectors.vlm_ceg import VLMDetector
from semicdvl.detection.fingerprint import identify_detector
from semicdvl.detection.pipeline import write_detection
from semicdvl.errors import ConfigError
from semicdvl.types import IGNORE, Segments

PROMPTS = Prompts(("roof",), ("grass", "road"))
HEIGHT, WIDTH = 150, 170
STEP = 24
"""Roofs stand on a raster of this many pixels."""


@dataclass(frozen=True)
class Brightness:
    """A VLM whose score of the first word is the red channel."""

    identity: str = "brightness-1"
    gamma: float = 0.5

    def segment(self, image_HWC, prompts, *, gsd_m=None):
        red_HW = image_HWC[..., 0].astype(np.float32) / 255
        return Segments(np.stack([red_HW, *([(1 - red_HW) / 2] * (len(prompts) - 1))]), tuple(prompts))


def town(*, roofs: int = 24, flickers: int = 6) -> tuple[np.ndarray, np.ndarray, dict[str, list[tuple[slice, slice]]]]:
    """Two dates: roofs that stay but for the first (goes) and the second (comes), and small things that flicker."""
    rng = np.random.default_rng(0)
    dates = [np.full((HEIGHT, WIDTH, 3), 4, np.uint8) for _ in range(2)]
    places: dict[str, list[tuple[slice, slice]]] = {"went": [], "came": [], "stays": [], "flicker": []}
    for number in range(roofs):
        row, col = divmod(number, WIDTH // STEP)
        height, width = rng.integers(9, 15, 2)
        place = slice(row * STEP + 2, row * STEP + 2 + height), slice(col * STEP + 2, col * STEP + 2 + width)
        kind = {0: "went", 1: "came"}.get(number, "stays")
        places[kind].append(place)
        for at, date in enumerate(dates):
            if kind == "stays" or kind == ("went", "came")[at]:
                date[place] = rng.integers(205, 240)
    for number in range(flickers):
        row = HEIGHT - 8 - 12 * (number % 2)
        place = slice(row, row + 4), slice(6 + 20 * number, 6 + 20 * number + 4 + number % 3)
        places["flicker"].append(place)
        dates[number % 2][place] = 132 + number
        dates[1 - number % 2][place] = 40
    return dates[0], dates[1], places


def decided(detector, t1_HWC, t2_HWC, *, rows: int = 150, valid_HW=None):
    scores_PHW = detector.predict_scores(t1_HWC, t2_HWC)
    valid_HW = np.ones(t1_HWC.shape[:2], bool) if valid_HW is None else valid_HW
    maps = list(detector.decide(Strips(scores_PHW, valid_HW, rows)))
    names = ("change_HW", "score_HW", "t1_HW", "t2_HW", "probability_HW")
    return replace(maps[0], **{name: np.concatenate([getattr(part, name) for part in maps]) for name in names})


def engine(**settings) -> VLMDetector:
    return VLMDetector(Brightness(), PROMPTS, CEGSettings(level="instance", **settings))


def test_flickers_go_and_changes_stay():
    t1_HWC, t2_HWC, places = town()
    raw = next(engine().decide(Strips(engine().predict_scores(t1_HWC, t2_HWC), np.ones((HEIGHT, WIDTH), bool), 150)))
    assert all((raw.change_HW[place] == 1).all() for kind in ("went", "came", "flicker") for place in places[kind])
    detector = add_calibration(engine())
    found = decided(detector, t1_HWC, t2_HWC)
    for kind, value in (("went", 1), ("came", 1), ("flicker", 0), ("stays", 0)):
        assert all((found.change_HW[place] == value).all() for place in places[kind]), kind
    for place in places["went"] + places["came"]:
        inside_HW = found.probability_HW[place]
        assert inside_HW.min() == inside_HW.max() > 0.8
    assert np.isnan(found.probability_HW[found.change_HW == 0]).all()
    np.testing.assert_array_equal(found.score_HW, raw.score_HW)
    assert "6 of 8 objects are probably unchanged" in detector.notes()[0]


def test_strips_make_no_difference():
    t1_HWC, t2_HWC, _ = town()
    valid_HW = np.random.default_rng(1).random((HEIGHT, WIDTH)) < 0.99
    one = decided(add_calibration(engine()), t1_HWC, t2_HWC, valid_HW=valid_HW)
    assert (one.change_HW == 1).any() and (one.change_HW[~valid_HW] == IGNORE).all()
    for rows in (2, 7, 40):
        other = decided(add_calibration(engine()), t1_HWC, t2_HWC, valid_HW=valid_HW, rows=rows)
        np.testing.assert_array_equal(one.change_HW, other.change_HW)
        np.testing.assert_allclose(one.probability_HW, other.probability_HW, atol=1e-6)


def test_replaced_objects_are_kept_without_a_probability():
    t1_HWC, t2_HWC, places = town()
    place = places["stays"][5]
    t2_HWC[place] = 4
    smaller = slice(place[0].start, place[0].start + 3), place[1]
    t2_HWC[smaller] = 220
    found = decided(add_calibration(engine(replaced_iou=0.5)), t1_HWC, t2_HWC)
    assert (found.change_HW[smaller] == 1).all() and np.isnan(found.probability_HW[smaller]).all()
    assert (found.change_HW[places["flicker"][0]] == 0).all()


def test_a_replaced_object_that_hardly_overlaps_its_match_is_kept_too():
    """A roof gives way to one that shares a tenth of its columns: the scores of both together say nothing of change."""
    t1_HWC, t2_HWC, places = town()
    rows, cols = places["stays"][5]
    t2_HWC[rows, cols] = 4
    moved = slice(rows.start, rows.stop), slice(cols.stop - 1, cols.stop + 8)
    t2_HWC[moved] = 220
    found = decided(add_calibration(engine(replaced_iou=0.5)), t1_HWC, t2_HWC)
    for place in ((rows, cols), moved):
        assert (found.change_HW[place] == 1).all() and np.isnan(found.probability_HW[place]).all()
    assert (found.change_HW[places["flicker"][0]] == 0).all()


def test_too_few_objects_that_stay_are_said():
    t1_HWC, t2_HWC, places = town(roofs=5)
    detector = add_calibration(engine())
    found = decided(detector, t1_HWC, t2_HWC)
    assert "rest on typical objects" in detector.notes()[0]
    assert all((found.change_HW[place] == 1).all() for place in places["went"] + places["came"])


def test_nothing_changed():
    t1_HWC, _, _ = town()
    found = decided(add_calibration(engine()), t1_HWC, t1_HWC)
    assert not (found.change_HW == 1).any() and np.isnan(found.probability_HW).all()


def test_levels_without_objects_are_refused():
    for level in ("pixel", "mixed", "residual"):
        with pytest.raises(ConfigError, match="--level instance"):
            add_calibration(VLMDetector(Brightness(), PROMPTS, CEGSettings(level=level)))  # type: ignore[arg-type]


def test_the_same_maps_are_asked_for():
    plain, ours = engine(), add_calibration(engine(delta=0.01))
    assert identify_detector(plain)["identity"] == identify_detector(ours)["identity"]
    assert ours.settings.delta == 0.01 and "Calibrated" in ours.description()
    assert ours.description() == add_calibration(engine(delta=0.01)).description()


def test_polygons_have_a_probability(tmp_path: Path):
    t1_HWC, t2_HWC, _ = town()
    for name, image in (("a", t1_HWC), ("b", t2_HWC)):
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    done = write_detection(
        tmp_path / "a.png",
        tmp_path / "b.png",
        tmp_path / "out",
        detector=add_calibration(engine()),
        config=DetectionConfig(tile_px=64, overlap_px=32),
        progress=Console(quiet=True),
    )
    frame = gpd.read_file(tmp_path / "out" / "changes.gpkg", layer="changes")
    assert len(frame) == done.summary.objects == 2 and frame.probability.between(0.8, 1).all()
    assert sorted(frame.kind) == ["appeared", "disappeared"] and (frame.score > 0.5).all()
    assert any("6 of 8 objects" in line for line in done.warnings) and "note: Calibration" in done.format_text()
    assert "probably unchanged" in (tmp_path / "out" / "run.json").read_text()
    page = (tmp_path / "out" / "report.html").read_text()
    assert all(f"probability {value:.2f}" in page for value in frame.probability)
    plain = write_detection(
        tmp_path / "a.png",
        tmp_path / "b.png",
        tmp_path / "plain",
        detector=engine(),
        config=DetectionConfig(tile_px=64, overlap_px=32),
        progress=Console(quiet=True),
    )
    frame = gpd.read_file(tmp_path / "plain" / "changes.gpkg", layer="changes")
    assert plain.summary.objects == 8 and "probability" not in frame.columns
    assert "probability " not in (tmp_path / "plain" / "report.html").read_text()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    t1_HWC, t2_HWC, _ = town()
    for name, image in (("a", t1_HWC), ("b", t2_HWC)):
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    pair = (tmp_path / "a.png", tmp_path / "b.png", "-o", tmp_path / "out", "--calibrate")
    words = ("--vlm", f"{__name__}:Brightness", "--find", "roof", "--background", "grass,road")
    code, printed, complained = command(capsys, "detect", *pair, *words)
    assert code == 0 and "2 changed objects" in printed and "6 of 8 objects" in " ".join(printed.split()), complained
    for wrong, told in (
        (("--method", "cva"), "--calibrate is for detection with a"),
        ((*words, "--level", "pixel"), "--level instance"),
    ):
        code, _, complained = command(capsys, "detect", *pair, *wrong)
        assert code == 2 and told in " ".join(complained.split())
