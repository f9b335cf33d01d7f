"""Classes that are only a guess are "unsure"; objects that are too small for what is looked for are left out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
from rich.console import Console
from tests.support.synthetic_rasters import at, tif

import semicdvl as cd
from semicdvl.ceg.config import CEGSettings
from semicdvl.detection.config import DetectionConfig
from semicdvl.detection.detectors.vlm_ceg import BUILDING_AREA_M2, OTHER_AREA_M2, VLMDetector
from semicdvl.detection.pipeline import detect_in_memory, write_detection
from semicdvl.types import DescribedVLM, Segments
from semicdvl.vlms.aerial.build import CARD

WORDS = cd.Prompts(("house", "building"), ("road", "grass", "tree", "rubble"))
GRASS, TREE, HOUSE, RUBBLE = 3, 4, 0, 5
QUIET = Console(quiet=True)


@dataclass(frozen=True)
class Painted(DescribedVLM):
    """Reads the class from the red channel and its score, in hundredths, from the green one."""

    identity: str = "painted-1"
    gamma: float = 0.5
    class_score = 0.85
    class_reliability = "right in 7 of 10"

    def segment(self, image_HWC, prompts, *, gsd_m=None):
        red_HW, score_HW = image_HWC[..., 0], image_HWC[..., 1].astype(np.float32) / 100
        return Segments(np.stack([np.where(red_HW == 10 * at, score_HW, 0) for at in range(len(prompts))]), prompts)


def paint(*patches: tuple[slice, slice, int, float], ground: int = GRASS) -> np.ndarray:
    image_CHW = np.zeros((3, 80, 120), np.uint8)
    image_CHW[0], image_CHW[1] = 10 * ground, 95
    for rows, cols, word, score in patches:
        image_CHW[0, rows, cols], image_CHW[1, rows, cols] = 10 * word, round(100 * score)
    return image_CHW


FIRST, SECOND, THIRD = np.s_[10:20, 10:20], np.s_[10:20, 40:50], np.s_[10:20, 70:80]


@pytest.fixture
def razed(tmp_path: Path) -> tuple[Path, Path]:
    """Three houses; then a sure tree, a guessed tree and guessed rubble."""
    before = paint(*((*place, HOUSE, 0.9) for place in (FIRST, SECOND, THIRD)))
    after = paint((*FIRST, TREE, 0.9), (*SECOND, TREE, 0.8), (*THIRD, RUBBLE, 0.6))
    return tif(tmp_path / "a.tif", before, at(0, 0)), tif(tmp_path / "b.tif", after, at(0, 0))


def detect(pair: tuple[Path, Path], **settings: Any) -> gpd.GeoDataFrame:
    detector = VLMDetector(Painted(), WORDS, **settings)
    with detect_in_memory(*pair, detector=detector, progress=QUIET) as result:
        return result.objects.sort_values("id")


def test_a_class_below_its_score_is_unsure_and_the_kind_stays(razed: tuple[Path, Path]) -> None:
    found = detect(razed)
    assert found["kind"].tolist() == ["disappeared"] * 3
    assert found["from_class"].tolist() == ["house"] * 3
    assert found["to_class"].tolist() == ["tree", "unsure", "unsure"]
    np.testing.assert_allclose(found["to_score"], [0.9, 0.8, 0.6], atol=1e-4)
    np.testing.assert_allclose(found["from_score"], [0.9] * 3, atol=1e-4)


@pytest.mark.parametrize(
    ("least", "named"),
    [(0.0, ["tree", "tree", "rubble"]), (0.7, ["tree", "tree", "unsure"]), (0.95, ["unsure"] * 3)],
)
def test_the_score_can_be_given(razed: tuple[Path, Path], least: float, named: list[str]) -> None:
    found = detect(razed, class_score=least)
    assert found["to_class"].tolist() == named
    assert found["from_class"].tolist() == ["house"] * 3, "what is looked for is named from 0.5 on"


def test_a_mixed_answer_is_worth_less(tmp_path: Path) -> None:
    before = paint((*FIRST, HOUSE, 0.9))
    after = paint((*FIRST, TREE, 0.95), (np.s_[10:20], np.s_[10:14], RUBBLE, 0.95))
    pair = tif(tmp_path / "a.tif", before, at(0, 0)), tif(tmp_path / "b.tif", after, at(0, 0))
    found = detect(pair)
    assert found["to_class"].tolist() == ["unsure"] and found["to_score"].tolist() == [pytest.approx(0.57)]


def test_words_that_are_looked_for_add_up(tmp_path: Path) -> None:
    after = paint((*FIRST, HOUSE, 0.7), (np.s_[10:20], np.s_[10:14], 1, 0.7))
    pair = tif(tmp_path / "a.tif", paint(), at(0, 0)), tif(tmp_path / "b.tif", after, at(0, 0))
    found = detect(pair)
    assert found["to_class"].tolist() == ["house"] and found["to_score"].tolist() == [pytest.approx(0.7)]
    assert found["from_class"].tolist() == ["grass"]


def test_files_and_report_say_from_which_score_on_and_how_reliable(razed: tuple[Path, Path], tmp_path: Path) -> None:
    write_detection(*razed, tmp_path / "out", detector=VLMDetector(Painted(), WORDS), progress=QUIET)
    saved = gpd.read_file(tmp_path / "out" / "changes.gpkg").sort_values("id")
    assert saved["to_class"].tolist() == ["tree", "unsure", "unsure"]
    told = json.loads((tmp_path / "out" / "run.json").read_text())["detector"]["Classes"]
    assert told.startswith("named from a mean score of 0.85 on (0.5 for what is looked for), else 'unsure'")
    assert told.endswith("right in 7 of 10")
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("right in 7 of 10") == 2 and "house → unsure" in page


def test_the_embedded_vlm_says_what_was_measured() -> None:
    told = CARD.class_reliability
    assert CARD.class_score == 0.85 and "10 of 13" in told and "aerial-vlm.md" in told


def test_the_set_for_demolition_asks_for_what_is_left() -> None:
    prompts = cd.resolve_prompts(prompt_set="demolition")
    assert {"rubble", "bare ground", "construction site"} <= set(prompts.background)
    cd.create_vlm("aerial").check_words(prompts.words)


# ------------------------------------------------------------------------------------------------ small objects
@pytest.fixture
def sizes(tmp_path: Path) -> tuple[Path, Path]:
    """New houses of 25, 16 and 9 m2 at 0.5 m per pixel: 10 x 10, 8 x 8 and 6 x 6 px."""
    after = paint(*((slice(10, 10 + side), slice(col, col + side), HOUSE, 0.9) for side, col in SIDES_PX))
    return tif(tmp_path / "a.tif", paint(), at(0, 0)), tif(tmp_path / "b.tif", after, at(0, 0))


SIDES_PX = ((10, 10), (8, 40), (6, 70))


def find_areas(pair: tuple[Path, Path], prompts: cd.Prompts = WORDS, **given: Any) -> tuple[list[float], list[str]]:
    ceg = given.pop("ceg", CEGSettings(level="instance"))
    detector = VLMDetector(Painted(), prompts, ceg)
    with detect_in_memory(*pair, detector=detector, config=DetectionConfig(**given), progress=QUIET) as result:
        assert (result.change == 1).sum() == result.summary.changed_px
        return _list_areas(result), list(result.warnings)


def _list_areas(result: cd.DetectionResult) -> list[float]:
    column = "area_m2" if "area_m2" in result.objects else "area_px"
    return result.objects[column].tolist()


def test_small_objects_are_left_out_by_what_is_looked_for(sizes: tuple[Path, Path]) -> None:
    areas, notes = find_areas(sizes)
    assert areas == [25.0] and BUILDING_AREA_M2 == 20
    assert any(
        note == "2 objects below 20 m² were left out (25 m² in all). Give --min-area-m2 0 to keep all."
        for note in notes
    )
    other = cd.Prompts(("vehicle", "building"), WORDS.background)
    areas, notes = find_areas(sizes, other)
    assert areas == [25.0, 16.0] and OTHER_AREA_M2 == 10
    assert any(note.startswith("1 object below 10 m² was left out (9 m² in all)") for note in notes)


def test_the_user_decides(sizes: tuple[Path, Path]) -> None:
    areas, notes = find_areas(sizes, min_area_m2=0)
    assert areas == [25.0, 16.0, 9.0] and not any("left out" in note for note in notes)
    assert find_areas(sizes, min_area_m2=16)[0] == [25.0, 16.0]


def test_an_object_of_just_the_least_area_stays(tmp_path: Path) -> None:
    """100 px of 0.7 m: 49 / 0.7**2 is a little more than 100 in floating point."""
    after = paint((slice(10, 20), slice(20, 30), HOUSE, 0.9))
    pair = tif(tmp_path / "p.tif", paint(), crs=None), tif(tmp_path / "q.tif", after, crs=None)
    assert find_areas(pair, gsd_m=0.7, min_area_m2=49)[0] == [pytest.approx(49.0)]
    assert find_areas(pair, gsd_m=0.7, min_area_m2=49.01)[0] == []


def test_nothing_is_left_out_where_the_size_of_a_pixel_is_not_known(tmp_path: Path, sizes: tuple[Path, Path]) -> None:
    after = paint(*((slice(10, 10 + side), slice(col, col + side), HOUSE, 0.9) for side, col in SIDES_PX))
    pair = tif(tmp_path / "p.tif", paint(), crs=None), tif(tmp_path / "q.tif", after, crs=None)
    areas, notes = find_areas(pair)
    assert areas == [100.0, 64.0, 36.0] and not any("left out" in note for note in notes)
    areas, notes = find_areas(pair, min_area_m2=40)
    assert areas == [100.0, 64.0] and any(note.startswith("1 object below 40 px was left out") for note in notes)
    assert find_areas(pair, gsd_m=0.5)[0] == [25.0]


def test_the_residual_level_has_one_least_area(sizes: tuple[Path, Path]) -> None:
    residual = CEGSettings(
        level="residual", residual_open_m=0, residual_apart_m=0, residual_regrow_m=0, residual_outlines=0
    )  # without outlines, whose segments may share the corners of a flat square either way
    assert find_areas(sizes, ceg=residual)[0] == [25.0, 16.0], "its own 12 m2"
    assert find_areas(sizes, ceg=residual, min_area_m2=0)[0] == [25.0, 16.0, 9.0], (
        "0 keeps what its own limit would drop"
    )
    assert find_areas(sizes, ceg=residual, min_area_m2=20)[0] == [25.0]


def test_run_json_states_what_was_left_out(sizes: tuple[Path, Path], tmp_path: Path) -> None:
    detector = VLMDetector(Painted(), WORDS)
    write_detection(*sizes, tmp_path / "out", detector=detector, progress=QUIET)
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["settings"]["min_area_m2"] == 20 and record["result"]["objects"] == 1
    assert record["left_out"] == {"by_default": True, "unit": "m2", "least_area": 20.0, "objects": 2, "px": 100}
    kept = DetectionConfig(min_area_m2=0)
    write_detection(*sizes, tmp_path / "out", detector=detector, config=kept, progress=QUIET)
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["left_out"] == {"by_default": False, "unit": "m2", "least_area": 0, "objects": 0, "px": 0}


def test_detectors_without_words_leave_out_nothing() -> None:
    assert cd.create_detector("cva").usual_area_m2 == 0
