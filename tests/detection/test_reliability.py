"""Whether a result lies within what its detector was measured on: said in the text, the record and the report."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
from affine import Affine
from tests.support.brightness_detector import QUIET, TILES, Brighter
from tests.support.synthetic_rasters import at, city, tif

from semicdvl.ceg.prompts import resolve_prompts
from semicdvl.detection.config import DetectionConfig
from semicdvl.detection.detectors.vlm_ceg import build_vlm_detector
from semicdvl.detection.pair_check.check import judge_reliability, open_checked_pair
from semicdvl.detection.pipeline import write_detection
from semicdvl.types import MeasuredRange, Reliability, SourceFacts
from semicdvl.vlms import create_vlm
from semicdvl.vlms.models.fake import FakeVLM


@dataclass(frozen=True)
class MeasuredVLM(FakeVLM):
    """The VLM of the tests, as if it had been measured."""

    measured = MeasuredRange(("house", "road"), ("swimming pool",), (0.3, 0.8))


def detector(find):
    return build_vlm_detector(MeasuredVLM(), prompts=resolve_prompts(find=find, background="grass"))


def judge(find="house", gsd_m=0.5, **facts):
    return detector(find).judge_source(SourceFacts(gsd_m, **facts))


def test_inside_the_measured_range_it_is_reliable():
    assert judge() == Reliability(True) and judge("Houses,ROAD").reliable
    assert judge(pixel_m=(0.5, 0.6), size_px=(100, 100)).reliable
    assert judge(gsd_m=0.29).reliable and judge(gsd_m=0.83).reliable, "5 % are not beyond it"


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"gsd_m": 5.0}, "A pixel is 5 m wide; fake was measured on 0.3 to 0.8 m."),
        ({"gsd_m": 0.05}, "A pixel is 0.05 m wide; fake was measured on 0.3 to 0.8 m."),
        ({"pixel_m": (0.4, 0.62)}, "A pixel is 0.4 m wide and 0.62 m high; fake was measured on square pixels."),
        ({"size_px": (300, 8)}, "only 8 x 300 px in common"),
        ({"dtypes": ("uint8", "uint16")}, "values of type uint16"),
        ({"bands": ((1, 1, 1), (1, 2, 3))}, "used more than once"),
        ({"grey": (True, False)}, "The before image is grey (the bands are equal)"),
        ({"grey": (True, True)}, "Both images are grey"),
        ({"find": "swimming pools"}, "was measured to find next to nothing of 'swimming pools'"),
        ({"find": "carport"}, "was not measured on 'carport'"),
    ],
)
def test_beyond_it_is_not_and_the_reason_is_named(facts, reason):
    judged = judge(**facts)
    assert judged.reliable is False and len(judged.reasons) == 1 and reason in judged.reasons[0]


def test_what_was_not_measured_cannot_be_told():
    assert judge(gsd_m=None).reliable is None
    assert judge(colours_told=False) == Reliability(
        None, ("Which bands are red, green and blue is not known. Give --bands.",)
    )
    prompts = resolve_prompts(find="house", background="grass")
    fake = build_vlm_detector(create_vlm("fake"), prompts=prompts)
    assert fake.judge_source(SourceFacts(0.5)).reliable is None
    assert Brighter().judge_source(SourceFacts(5.0)).reliable is None


def write_pair(folder, size_m):
    """Write grass on which a house of 1,200 px appears."""
    grass = np.array([110, 170, 80])[:, None, None]
    before = np.clip(grass + np.random.default_rng(0).integers(-3, 4, (3, 100, 120)), 0, 255).astype(np.uint8)
    after = before.copy()
    after[:, 20:50, 30:70] = 220
    return [tif(folder / f"{name}.tif", data, at(0, 90, size_m)) for name, data in (("a", before), ("b", after))]


def run(folder, size_m, **settings):
    config = replace(TILES, **settings)
    saved = write_detection(
        *write_pair(folder, size_m), folder / "out", detector=detector("house"), config=config, progress=QUIET
    )
    return saved, json.loads((folder / "out" / "run.json").read_text()), (folder / "out" / "report.html").read_text()


def test_text_record_and_report_say_that_pixels_are_too_large(tmp_path):
    saved, record, page = run(tmp_path, 5.0)
    reason = "A pixel is 5 m wide; fake was measured on 0.3 to 0.8 m."
    assert saved.format_text().startswith(f"warning: This result is not reliable. {reason}\n")
    assert saved.format_text().count(reason) == 1
    assert record["reliable"] is False and record["reliability_reasons"] == [reason]
    assert record["warnings"][0] == f"This result is not reliable. {reason}" and reason in page
    assert record["result"]["changed_px"] == saved.summary.changed_px == 1200, "the result is shown all the same"


def test_user_may_call_it_reliable_and_the_result_is_the_same(tmp_path):
    saved, record, page = run(tmp_path, 5.0, force=True)
    assert record["reliable"] is True and len(record["reliability_reasons"]) == 1
    assert not saved.format_text().startswith("warning") and saved.summary.changed_px == 1200
    assert "called this result reliable" in page


def test_reliable_result_has_no_warning(tmp_path):
    saved, record, _ = run(tmp_path, 0.5)
    assert record["reliable"] is True and record["reliability_reasons"] == []
    assert "not reliable" not in saved.format_text()


def test_coarse_date_below_a_fine_grid_counts(tmp_path):
    before = city(100, 120)
    coarse = tif(tmp_path / "b.tif", before[:, ::10, ::10], at(0, 90, 5.0))
    fine = tif(tmp_path / "a.tif", before, at(0, 90, 0.5))
    write_detection(fine, coarse, tmp_path / "out", detector=detector("house"), config=TILES, progress=QUIET)
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["reliable"] is False and record["grid"]["gsd_m"] == pytest.approx(0.5)
    assert any("pixel sizes differ" in reason for reason in record["reliability_reasons"])
    assert sum("pixel sizes differ" in warning for warning in record["warnings"]) == 1, "it is said once"


@pytest.mark.parametrize("force", [False, True])
def test_oblong_pixels_are_told_once(tmp_path, force):
    image = city(110, 120)
    pair = [tif(tmp_path / f"{name}.tif", image, Affine(0.4, 0, 0, 0, -0.7, 90)) for name in "ab"]
    config = replace(TILES, force=force)
    saved = write_detection(*pair, tmp_path / "out", detector=detector("house"), config=config, progress=QUIET)
    assert saved.format_text().count("A pixel is 0.4 m wide and 0.7 m high") == 1
    assert ("was measured on square pixels" in saved.format_text()) is not force


def test_oblong_pixels_are_told_where_the_detector_has_no_word_on_them(tmp_path):
    pair = [tif(tmp_path / f"{name}.tif", city(110, 120), Affine(0.4, 0, 0, 0, -0.7, 90)) for name in "ab"]
    saved = write_detection(*pair, tmp_path / "out", detector=Brighter(), config=TILES, progress=QUIET)
    assert saved.format_text().count("A pixel is 0.4 m wide and 0.7 m high: objects look squeezed") == 1


def test_one_image_twice_and_black_and_white_images_are_not_reliable(tmp_path):
    colour, other = (tif(tmp_path / f"{n}.tif", city(150, 200, seed=n), at(0, 90)) for n in (0, 1))
    grey = tif(tmp_path / "grey.tif", np.repeat(city(150, 200, bands=1), 3, axis=0), at(0, 90))
    fake, config = detector("house"), DetectionConfig()

    def judge(before, after):
        checked = open_checked_pair(before, after, config=config)
        try:
            return judge_reliability(checked, fake, config)
        finally:
            checked.pair.close()

    assert judge(colour, other).reliable is True
    assert judge(colour, colour).reliable is False and "one image twice" in judge(colour, colour).reasons[0]
    assert judge(colour, grey).reliable is False and "The after image is grey" in judge(colour, grey).reasons[0]
