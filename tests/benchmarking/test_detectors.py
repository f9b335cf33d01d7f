"""Detectors that are not trained, in a benchmark: on the test pairs of trained methods, by side or pair by pair."""

import csv
import json
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from tests.support.pairs_in_memory import detect as detected_in_memory
from tests.support.pairs_in_memory import pair as pair_in_memory
from tests.support.tiny_suite import TINY, write_suite

from semicdvl.benchmarking.config import DetectorEntry, Suite, load_suite
from semicdvl.benchmarking.data import prepare_data
from semicdvl.benchmarking.detectors import build_detector
from semicdvl.benchmarking.jobs import plan_jobs
from semicdvl.benchmarking.pair_mosaic import MosaicStrips, PairMosaic
from semicdvl.benchmarking.plot import write_plot
from semicdvl.benchmarking.results import build_difference_table, compare_methods
from semicdvl.benchmarking.run import BenchmarkResult, run_benchmark
from semicdvl.ceg.config import CEGSettings
from semicdvl.ceg.prompts import PROMPT_SETS
from semicdvl.data.images.cache import ImageCache
from semicdvl.data.pairs import read_pair
from semicdvl.data.split_file import read_split
from semicdvl.detection.detectors.calibrated import CalibratedVLMDetector
from semicdvl.detection.detectors.unsupervised import build_unsupervised_detector
from semicdvl.detection.detectors.vlm_ceg import VLMDetector, build_vlm_detector
from semicdvl.errors import ConfigError
from semicdvl.metrics.change import ConfusionCounts
from semicdvl.types import ChangeMap, Detector, PairFiles
from semicdvl.vlms.models import fake

DETECTORS = f"""
[[detectors]]
name = "PCA-KM"
method = "pca_km"

[[detectors]]
name = "CVA by pair"
method = "cva"
fit = "pair"
options = {{threshold = 1.5}}

[[detectors]]
name = "brighter"
method = "{__name__}:brighter"

[[data]]
"""
ALONE = (
    TINY.split("labelled = ")[0]
    + "seeds = [1, 2]\n"
    + DETECTORS.replace("[[data]]\n", "[[data]]" + TINY.split("[[data]]")[1])
)


@dataclass(frozen=True)
class Brighter(Detector):
    """A detector from outside of the package: changed where date 2 is brighter."""

    name: str = "brighter"
    map_count: int = 1

    def predict_scores(self, t1_HWC, t2_HWC, *, gsd_m=None):
        assert gsd_m == 0.5
        return np.maximum(t2_HWC.mean(axis=2) - t1_HWC.mean(axis=2), 0)[None].astype(np.float32) / 255

    def decide(self, strips):
        for strip in strips:
            changed_HW = strip.scores_PHW[0] > 0.1
            yield ChangeMap(np.where(strip.valid_HW, changed_HW, 255).astype(np.uint8), strip.scores_PHW[0])


def brighter():
    return Brighter()


def run(suite: Suite, out: Path) -> tuple[BenchmarkResult, str]:
    said = StringIO()
    return run_benchmark(suite, out, jobs=0, console=Console(file=said, width=200)), said.getvalue()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Suite, Path, BenchmarkResult]:
    folder = tmp_path_factory.mktemp("detectors")
    suite = load_suite(write_suite(folder, ALONE))
    return suite, folder / "out", run(suite, folder / "out")[0]


@pytest.mark.parametrize("given", ["0=unchanged,128=unknown,255=changed", {"0": 0, "128": 255, "255": 1}])
def test_detectors_read_labels_as_the_recipes_do(finished: tuple[Suite, Path, BenchmarkResult], given: object) -> None:
    suite, out, _ = finished
    place = prepare_data(suite.data[0], out / "data")
    assert place is not None
    changed = suite.model_copy(update={"set": {"data": {"label_values": given}}})
    assert all(job.label_values == {0: 0, 128: 255, 255: 1} for job in plan_jobs(changed, {"city": place}, out).jobs)
    wrong = suite.model_copy(update={"set": {"data": {"label_values": "255=chnged"}}})
    with pytest.raises(ConfigError, match=r"suite 'tiny', set\.data: label_values = .*does not say what a value means"):
        plan_jobs(wrong, {"city": place}, out)


def _test_pairs(suite: Suite, out: Path) -> tuple[PairFiles, ...]:
    place = prepare_data(suite.data[0], out / "data")
    assert place is not None
    return read_split(place.write_split_file(1.0, 1)).test


# ------------------------------------------------------------------------------------------------ end to end
def test_a_suite_of_detectors_alone_needs_no_labels(finished: tuple[Suite, Path, BenchmarkResult]) -> None:
    suite, out, result = finished
    assert result.failed_count == 0, [one["error"] for one in result.outcomes]
    places = [(one["method"], one["seed"], one["seeds"]) for one in result.outcomes]
    assert places == [("PCA-KM", 1, [1]), ("PCA-KM", 2, [2]), ("CVA by pair", 1, [1, 2]), ("brighter", 1, [1, 2])]
    with (out / "results.csv").open(encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    for row, one in zip(rows, result.outcomes, strict=True):
        assert (row["labelled"], row["labelled_pairs"], row["test_pairs"], row["iou_last"]) == ("0.0", "0", "9", "")
        assert float(row["iou_val_best"]) == pytest.approx(one["test"]["iou"], abs=1e-5)
        assert float(row["seconds"]) > 0 and float(row["peak_mib"]) > 100
    table = result.table.read_text(encoding="utf-8")
    assert "| CVA by pair | 0 % |" in table and "use one threshold for them" in table
    assert len(result.plots) == 2 and "CVA by pair" in result.report.read_text(encoding="utf-8")
    assert not (out / "runs").exists()
    assert "4 runs, 4 of them done already" in run(suite, out)[1]


def test_scores_are_those_of_the_test_side(finished: tuple[Suite, Path, BenchmarkResult]) -> None:
    suite, out, result = finished
    counts = {"CVA by pair": ConfusionCounts(), "brighter": ConfusionCounts()}
    for pair in _test_pairs(suite, out):
        arrays = read_pair(pair)
        brighter_HW = arrays.t2_HWC.mean(axis=2) - arrays.t1_HWC.mean(axis=2) > 25.5
        cva = build_unsupervised_detector("cva", {"threshold": 1.5})
        cva_HW = detected_in_memory(cva, pair_in_memory(arrays.t1_HWC, arrays.t2_HWC)).change_HW
        for name, found_HW in (("CVA by pair", cva_HW), ("brighter", brighter_HW)):
            counts[name] += ConfusionCounts.from_maps(found_HW, arrays.label_HW)
    for name, total in counts.items():
        (one,) = (one for one in result.outcomes if one["method"] == name)
        assert one["test"]["iou"] == pytest.approx(total.iou, abs=1e-3) and 0 < total.iou < 1


def test_a_side_is_one_raster(finished: tuple[Suite, Path, BenchmarkResult]) -> None:
    """What is found in a side is what is found in an image that holds the pairs below each other."""
    suite, out, result = finished
    pairs = _test_pairs(suite, out)
    arrays = [read_pair(pair) for pair in pairs]
    t1_HWC, t2_HWC, label_HW = (np.concatenate(parts) for parts in zip(*arrays, strict=True))
    side = PairMosaic(pairs, ImageCache(2**24), gsd_m=None)
    assert side.shape_hw == t1_HWC.shape[:2]
    for name, options in (("cva", {}), ("irmad", {}), ("log_ratio", {})):
        whole = detected_in_memory(
            build_unsupervised_detector(name, options), pair_in_memory(t1_HWC, t2_HWC), tile_px=64
        )
        detector = build_unsupervised_detector(name, options).prepare(side)
        room = out / f"room-{name}"
        room.mkdir()
        strips = list(detector.decide(MosaicStrips(side, detector, room)))
        assert np.array_equal(np.concatenate([strip.change_HW for strip in strips]), whole.change_HW)
    assert {one["pairs"]["test"] for one in result.outcomes} == {len(pairs)} and label_HW.any()


def test_pairs_of_two_widths_make_a_side(tmp_path: Path) -> None:
    from PIL import Image

    rng, pairs = np.random.default_rng(0), []
    for at, shape in enumerate(((32, 64), (48, 96))):
        paths = [tmp_path / f"{side}{at}.png" for side in "AB"]
        for path in paths:
            Image.fromarray(rng.integers(0, 255, (*shape, 3)).astype(np.uint8)).save(path)
        pairs.append(PairFiles(str(at), *paths))
    side = PairMosaic(pairs, ImageCache(0), gsd_m=None)
    tiles = list(side)
    assert side.shape_hw == (80, 96) and [tile.valid_HW.sum() for tile in tiles] == [32 * 64, 48 * 96]
    detector = build_unsupervised_detector("pca_km", {}).prepare(side)
    strips = list(MosaicStrips(side, detector, tmp_path))
    assert [(strip.row, strip.scores_PHW.shape) for strip in strips] == [(0, (2, 32, 96)), (32, (2, 48, 96))]
    assert all(np.array_equal(strip.valid_HW, tile.valid_HW) for strip, tile in zip(strips, tiles, strict=True))


def test_a_vlm_is_asked_without_training(finished: tuple[Suite, Path, BenchmarkResult], tmp_path: Path) -> None:
    """Pair by pair, whatever `fit` says."""
    suite, out, _ = finished
    text = {
        "name": "zero labels",
        "vlm": "semicdvl.vlms.models.fake:build_fake",
        "ceg": {"level": "pixel", "gamma": 0},
        "fit": "side",
    }
    entry = DetectorEntry.model_validate(text)
    (one,) = run(suite.model_copy(update={"detectors": (entry,), "seeds": (0,)}), tmp_path / "out")[0].outcomes
    assert one["status"] == "finished", one["error"]
    settings, counts = CEGSettings(level="pixel", gamma=0, gamma_segmentation=0), ConfusionCounts()
    for pair in _test_pairs(suite, out):
        arrays = read_pair(pair)
        detector = build_vlm_detector(fake.build_fake(), prompts=PROMPT_SETS["buildings"], settings=settings)
        found = detected_in_memory(detector, pair_in_memory(arrays.t1_HWC, arrays.t2_HWC))
        counts += ConfusionCounts.from_maps(found.change_HW, arrays.label_HW)
    assert one["test"]["iou"] == pytest.approx(counts.iou, abs=1e-6) and 0.02 < counts.iou < 1


def test_options_of_the_engine_reach_it() -> None:
    text = {"name": "zero labels", "vlm": "semicdvl.vlms.models.fake:build_fake"}
    text |= {"ceg": {"calibrate": True, "shift_px": 2, "gamma": 0.6}}
    detector = build_detector(DetectorEntry.model_validate(text))
    assert isinstance(detector, CalibratedVLMDetector) and "fake" in detector.name
    assert (detector.settings.shift_px, detector.settings.gamma, detector.settings.level) == (2, 0.6, "instance")


@pytest.mark.parametrize(
    ("ceg", "level"),
    [
        (None, "residual"),
        ({"calibrate": True}, "instance"),
        ({"delta": 0.1}, "instance"),
        ({"level": "pixel"}, "pixel"),
    ],
)
def test_a_vlm_is_compared_as_detect_does_unless_the_suite_says_otherwise(ceg: Any, level: str) -> None:
    text = {"name": "zero labels", "vlm": "semicdvl.vlms.models.fake:build_fake", "ceg": ceg}
    entry = DetectorEntry.model_validate(text)
    for again in (entry, DetectorEntry.model_validate(entry.model_dump(mode="json"))):  # as a job's file holds it
        detector = build_detector(again)
        assert isinstance(detector, VLMDetector | CalibratedVLMDetector) and detector.settings.level == level
        assert (detector.features is not None) == (level == "residual")


# ------------------------------------------------------------------------------------------------ beside methods
def test_they_stand_beside_trained_methods_and_are_compared(
    finished: tuple[Suite, Path, BenchmarkResult], tmp_path: Path
) -> None:
    _, out, _ = finished
    text = TINY.replace("[[data]]", DETECTORS).replace(
        'name = "tiny"', 'name = "tiny"\ncompare = [["Sup-only", "PCA-KM"]]'
    )
    suite = load_suite(write_suite(tmp_path, text))
    jobs = plan_jobs(suite, {"city": prepare_data(suite.data[0], out / "data")}, out).jobs
    assert [job.method for job in jobs[:3]] == ["PCA-KM", "CVA by pair", "brighter"] and len(jobs) == 3 + 3
    assert suite.list_comparisons() == (("Sup-only", "PCA-KM"),)
    assert suite.model_copy(update={"compare": None}).list_comparisons() == (("SemiCD-VL", "Sup-only"),)


def line(method: str, labelled: float, seed: int, iou: float, **more: object) -> dict[str, object]:
    """Return the outcome of a finished run, as far as tables and plots look at it."""
    steps = 9 if labelled else None
    place = {"data": "d", "method": method, "model": "recipe's", "labelled": labelled, "seed": seed, "steps": steps}
    return place | {"status": "finished", "test": {"iou": iou}} | more


def test_a_detector_that_ran_once_is_compared_with_every_seed() -> None:
    lines = [line("a", 0.1, 0, 0.5), line("a", 0.1, 1, 0.7), line("once", 0.0, 0, 0.2, seeds=[0, 1])]
    lines += [line("other", 0.0, 0, 0.1, seeds=[0]), line("other", 0.0, 1, 0.3, seeds=[1])]
    tests = compare_methods(lines, "a", "once", labelled=0.1, model="recipe's")
    assert tests is not None and (tests.count, tests.mean) == (2, pytest.approx(0.4))
    between = [compare_methods(lines, "once", "other", labelled=share, model="recipe's") for share in (0.0, 0.1)]
    assert between[0] is not None and between[0].mean == pytest.approx(0.0) and between[1] is None
    assert compare_methods(lines, "a", "once", labelled=0.0, model="recipe's") is None


def test_detectors_are_compared_once_where_a_suite_names_networks() -> None:
    lines = [line("a", 0.1, 0, 0.5, model=name) for name in ("light", "heavy")]
    lines += [line("one", 0.0, 0, 0.2, model="-"), line("two", 0.0, 0, 0.3, model="-")]
    table = build_difference_table(lines, [("two", "one"), ("a", "one")])
    assert table is not None
    assert [row[:3] for row in table.lines] == [
        ("two - one, -", "0 %", "+0.100"),
        ("a - one, light", "10 %", "+0.300"),
        ("a - one, heavy", "10 %", "+0.300"),
    ]


@pytest.mark.parametrize("shares", [(0.1,), (0.1, 0.2)])
def test_they_are_drawn_beside_methods(shares: tuple[float, ...], tmp_path: Path) -> None:
    lines = [line("a", share, seed, 0.5 + share + seed / 10) for share in shares for seed in (0, 1)]
    svg = write_plot(tmp_path, [line("once", 0.0, 0, 0.2, seeds=[0, 1]), *lines], title="both")[0].read_text()
    assert "<!-- once (no labels) -->" in svg and "<!-- a -->" in svg
    assert ("<!-- pairs with a label -->" in svg) == (len(shares) > 1)  # a line over the shares, or a list


def test_what_cannot_look_at_the_pairs_becomes_a_row(
    finished: tuple[Suite, Path, BenchmarkResult], tmp_path: Path
) -> None:
    suite, _, _ = finished
    bad = tuple(
        DetectorEntry.model_validate({"name": f"bad {at}", "method": "cva", "options": options})
        for at, options in enumerate(({"treshold": 3}, {"threshold": "mean"}))
    )
    result, said = run(suite.model_copy(update={"detectors": bad, "seeds": (0,)}), tmp_path / "out")
    assert result.failed_count == 2 and "Did you mean 'threshold'" in said and "give 'otsu'" in said
    assert json.loads(next((tmp_path / "out" / "jobs").glob("*.result.json")).read_text())["status"] == "failed"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('method = "pca_km"', 'method = "pca"', "unknown method 'pca'. Did you mean 'pca_km'"),
        ('method = "pca_km"', 'vlm = "aerail"', "unknown VLM 'aerail'. Did you mean 'aerial'"),
        ('method = "pca_km"', "", "needs exactly one of method"),
        ('method = "pca_km"', 'method = "pca_km"\nvlm = "aerial"', "needs exactly one of method"),
        ('method = "pca_km"', 'method = "pca_km"\nceg = {calibrate = true}', "ceg is an option of a vlm"),
        ('method = "pca_km"', 'vlm = "aerial"\nceg = {prompts = "cars"}', "prompts 'cars'; known:"),
        ('fit = "pair"', 'fit = "tile"', "'side' or 'pair'"),
        ('name = "brighter"', 'name = "PCA-KM"', "two methods are called 'PCA-KM'"),
        (DETECTORS, "\n[[data]]\n", "nothing to compare"),
    ],
)
def test_a_wrong_detector_is_refused_with_the_remedy(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in ALONE
    with pytest.raises(ConfigError) as error:
        load_suite(write_suite(tmp_path, ALONE.replace(old, new)))
    assert says in str(error.value)


def test_methods_need_shares_of_labels(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the key 'labelled' is missing"):
        load_suite(write_suite(tmp_path, TINY.replace("labelled = [0.5, 1.0]\n", "")))
