"""A `detect` result against polygons, a mask or checked places: hand-made maps with known answers."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console
from shapely.geometry import box
from tests.support.command import command

from semicdvl.detection.config import DetectionConfig
from semicdvl.detection.pipeline import detect_to_folder
from semicdvl.errors import ConfigError, DataError, InputError
from semicdvl.evaluation import map_vs_truth as truth_module
from semicdvl.evaluation.evaluate import draw_sample, evaluate_map
from semicdvl.evaluation.map_vs_truth import DetectedMap, compare_with_truth, read_detected_map, read_truth
from semicdvl.evaluation.stratified_sample import draw_stratified_sample
from semicdvl.metrics.change import ConfusionCounts
from semicdvl.metrics.objects import count_objects
from semicdvl.types import IGNORE, ChangeMap, Detector

UTM, CORNER, GSD = "EPSG:32633", (400_000.0, 5_600_000.0), 0.5
HEIGHT, WIDTH = 90, 130
FOUND = [(5, 10, 20, 10), (40, 10, 10, 10), (60, 80, 10, 20)]  # row, col, height, width in px
REAL = [(5, 10, 20, 14), (40, 18, 10, 10), (10, 100, 6, 5)]  # IoU 5/7, IoU 2/18, missed; the third found is invented


class Red(Detector):
    """Changed where date 2 is red."""

    name, map_count = "red", 1

    def predict_scores(self, t1_HWC, t2_HWC, *, gsd_m=None):
        return (t2_HWC[None, ..., 0] == 255).astype(np.float32)

    def decide(self, strips):
        for strip in strips:
            red_HW, valid_HW = strip.scores_PHW[0], strip.valid_HW
            change_HW = np.where(valid_HW, red_HW > 0.5, IGNORE).astype(np.uint8)
            yield ChangeMap(change_HW, np.where(valid_HW, red_HW, np.nan).astype(np.float32))


def burned(boxes: list[tuple[int, int, int, int]]) -> np.ndarray:
    mask_HW = np.zeros((HEIGHT, WIDTH), np.uint8)
    for row, col, height, width in boxes:
        mask_HW[row : row + height, col : col + width] = 1
    return mask_HW


def on_map(row: float, col: float, height: float, width: float):
    x, y = CORNER[0] + col * GSD, CORNER[1] - row * GSD
    return box(x, y - height * GSD, x + width * GSD, y)


def raster(path: Path, image: np.ndarray, *, crs: str | None = UTM, **options: object) -> Path:
    bands = image[None] if image.ndim == 2 else np.moveaxis(image, 2, 0)
    transform = Affine(GSD, 0, CORNER[0], 0, -GSD, CORNER[1])
    profile = {"driver": "GTiff", "dtype": "uint8", "count": len(bands), "height": HEIGHT, "width": WIDTH, **options}
    with rasterio.open(path, "w", crs=crs, transform=transform, **profile) as target:
        target.write(bands)
    return path


def vectors(path: Path, boxes: list[tuple[int, int, int, int]]) -> Path:
    gpd.GeoDataFrame(geometry=[on_map(*each) for each in boxes], crs=UTM).to_file(path)
    return path


def detected(root: Path, found: list[tuple[int, int, int, int]]) -> Path:
    t1_HWC = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    t2_HWC = t1_HWC.copy()
    t2_HWC[burned(found) == 1, 0] = 255
    t2_HWC[-10:] = 7  # no data
    before = raster(root / "before.tif", t1_HWC, photometric="RGB")
    after = raster(root / "after.tif", t2_HWC, photometric="RGB", nodata=7)
    tiles = DetectionConfig(tile_px=64, overlap_px=0)
    return detect_to_folder(
        before, after, root / "out", detector=Red(), config=tiles, progress=Console(quiet=True)
    ).folder


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return detected(tmp_path_factory.mktemp("truth"), FOUND)


# ------------------------------------------------------------------------------------------------ polygons and masks
def test_polygons_give_the_scores_that_one_counts_by_hand(out: Path, tmp_path: Path) -> None:
    done = evaluate_map(out, vectors(tmp_path / "truth.gpkg", REAL), sample=0)
    pixels = done.comparison.pixels
    assert pixels == ConfusionCounts(tn=80 * 130 - 690, fp=80 + 200, fn=80 + 80 + 30, tp=200 + 20)
    scores = done.comparison.objects.counts
    assert (scores.predicted, scores.actual, scores.matched) == (3, 3, 1)
    assert (scores.predicted_touching, scores.actual_touched) == (2, 2)
    record = json.loads((out / "evaluation.json").read_text())
    assert record["area_m2"] == {"truth": 410 / 4, "found": 220 / 4, "missed": 190 / 4, "invented": 280 / 4}
    assert record["objects"]["missed"] == 1 and record["objects"]["missed_px"] == 30
    assert record["objects"]["invented_px"] == 200 and record["objects"]["f1"] == pytest.approx(1 / 3)
    objects = gpd.read_file(out / "evaluation.gpkg")
    assert sorted(zip(objects.source, objects.outcome, objects.pixels, strict=True)) == [
        ("result", "invented", 200),
        ("result", "matched", 200),
        ("result", "touched", 100),
        ("truth", "matched", 280),
        ("truth", "missed", 30),
        ("truth", "touched", 100),
    ]
    missed = objects[objects.outcome == "missed"].geometry.iloc[0]
    assert missed.symmetric_difference(on_map(*REAL[2])).area < 1e-6


@pytest.mark.parametrize("kind", ["polygons", "mask", "strips"])
def test_every_kind_of_truth_agrees_with_the_plain_metrics(
    out: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "strips":
        monkeypatch.setattr(truth_module, "STRIP_PX", 7 * WIDTH)
    result = read_detected_map(out)
    path = tmp_path / "truth.tif"
    real_HW = burned(REAL)
    truth = raster(path, real_HW * 255) if kind == "mask" else vectors(tmp_path / "truth.fgb", REAL)
    found = compare_with_truth(result, read_truth(truth, grid=result.grid), min_iou=0.1)
    with rasterio.open(out / "change.tif") as source:
        change_HW = source.read(1)
    assert found.pixels == ConfusionCounts.from_maps(change_HW, real_HW)
    assert found.objects.counts == count_objects(change_HW, real_HW, min_iou=0.1)
    assert found.objects.counts.matched == 2


def test_an_area_and_unknown_ground_leave_pixels_out(out: Path, tmp_path: Path) -> None:
    area = vectors(tmp_path / "aoi.gpkg", [(0, 0, 90, 15)])
    done = evaluate_map(out, vectors(tmp_path / "truth.gpkg", REAL), area=area, sample=0)
    assert done.comparison.pixels.total == 80 * 15
    scores = done.comparison.objects.counts
    assert (scores.predicted, scores.actual, scores.matched) == (2, 1, 1)  # cut at the area's edge, the IoU is 1
    assert "2 objects of the truth without a pixel" in done.notes[-1]
    mask_HW = burned(REAL) * np.uint8(255)
    mask_HW[:, 15:] = 128
    masked = compare_with_truth(
        read_detected_map(out), read_truth(raster(tmp_path / "m.tif", mask_HW), grid=read_detected_map(out).grid)
    )
    assert masked.pixels == done.comparison.pixels and masked.objects.counts == scores


def test_a_mask_on_another_grid_is_laid_onto_the_result(out: Path, tmp_path: Path) -> None:
    result = read_detected_map(out)
    fine_HW = np.repeat(np.repeat(burned(REAL), 2, axis=0), 2, axis=1)[:, :200]  # 0.25 m, ends at column 100
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "height": 180, "width": 200, "crs": UTM}
    path = tmp_path / "fine.tif"
    with rasterio.open(path, "w", transform=Affine(0.25, 0, CORNER[0], 0, -0.25, CORNER[1]), **profile) as target:
        target.write(fine_HW, 1)
    truth_HW, _ = read_truth(path, grid=result.grid).read_strip(result.grid, 0)
    np.testing.assert_array_equal(truth_HW[:, :100], burned(REAL)[:, :100])
    assert (truth_HW[:, 100:] == IGNORE).all()


def test_a_result_without_objects_and_a_plain_pair(tmp_path: Path) -> None:
    for name, value in (("a", 90), ("b", 90)):
        Image.fromarray(np.full((HEIGHT, WIDTH, 3), value, np.uint8)).save(tmp_path / f"{name}.png")
    plain = detect_to_folder(
        tmp_path / "a.png", tmp_path / "b.png", tmp_path / "out", detector=Red(), progress=Console(quiet=True)
    ).folder
    Image.fromarray(burned(REAL) * np.uint8(255)).save(tmp_path / "label.png")
    done = evaluate_map(plain, tmp_path / "label.png", sample=100)
    assert done.comparison.pixels == ConfusionCounts(tn=HEIGHT * WIDTH - 410, fn=410)
    rows = dict(done.format_rows())
    assert rows["area missed"] == "410 px" and rows["pixels: precision"] == "not defined"
    assert rows["objects missed"] == "3, 410 px"
    assert json.loads((plain / "evaluation.json").read_text())["pixels"]["precision"] is None


# ------------------------------------------------------------------------------------------------ samples
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 900))
def test_places_are_drawn_within_the_classes(seed: int, total: int) -> None:
    change_HW = (np.random.default_rng(seed).random((31, 17)) < 0.3).astype(np.uint8)
    change_HW[3:5] = IGNORE

    class Made(DetectedMap):
        def read_change(self, row: int, height: int) -> np.ndarray:
            return change_HW[row : row + height]

        def list_strips(self):
            return ((row, self.grid.window(row, 0, min(4, 31 - row), 17)) for row in range(0, 31, 4))

    grid = truth_module.Grid(None, Affine.identity(), 31, 17)
    sample = draw_stratified_sample(Made(Path("made"), grid, None, None), total=total, seed=seed)
    assert sample.class_px == ((change_HW == 0).sum(), (change_HW == 1).sum())
    np.testing.assert_array_equal(change_HW[sample.rows_N, sample.cols_N], sample.mapped_N)
    places = set(zip(sample.rows_N.tolist(), sample.cols_N.tolist(), strict=True))
    assert len(places) == len(sample.rows_N) >= min(total, sum(sample.class_px)) and sample.checked_count == 0


def test_places_checked_by_hand_tell_the_area(out: Path, tmp_path: Path) -> None:
    path = draw_sample(out, count=400, seed=1)
    places = gpd.read_file(path)
    assert places.truth.isna().all() and places.geometry.area.round(6).eq(GSD**2).all()
    with pytest.raises(InputError, match="checked"):
        evaluate_map(out, path)
    with pytest.raises(ConfigError, match="may hold answers"):
        draw_sample(out, count=400)
    centres = places.geometry.centroid
    real = gpd.GeoSeries([on_map(*each) for each in REAL], crs=UTM).union_all()
    places["truth"] = centres.within(real).astype(int)
    places.loc[:9, "truth"] = pd.NA
    for name, geometry in (("checked.gpkg", places.geometry), ("points.fgb", centres)):
        places.set_geometry(geometry).to_file(tmp_path / name)
        done = evaluate_map(out, tmp_path / name)
        assert done.comparison is None and done.sample.checked_count == len(places) - 10
        area = done.accuracy.estimated_areas[1]
        assert abs(area.value - 410 / 4) < 1.5 * area.half_width and area.half_width < 60
        assert done.accuracy.mapped_areas[1] == 500 / 4
        assert done.accuracy.users_accuracies[1].value == pytest.approx(220 / 500, abs=0.2)
    places["truth"] = 3
    places.to_file(tmp_path / "odd.gpkg")
    with pytest.raises(DataError, match="holds 3"):
        evaluate_map(out, tmp_path / "odd.gpkg")


def test_a_sample_of_known_truth_brackets_it(out: Path, tmp_path: Path) -> None:
    done = evaluate_map(out, vectors(tmp_path / "truth.gpkg", REAL), sample=800, seed=2)
    assert done.sample.checked_count == 800 and done.sample.class_px == (80 * 130 - 500, 500)
    area = done.accuracy.estimated_areas[1]
    assert abs(area.value - 410 / 4) < 1.5 * area.half_width
    again = evaluate_map(out, tmp_path / "truth.gpkg", sample=800, seed=2)
    assert again.accuracy.estimated_areas == done.accuracy.estimated_areas


# ------------------------------------------------------------------------------------------------ the command
def test_the_command(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = vectors(tmp_path / "truth.gpkg", REAL)
    code, printed, _ = command(capsys, "evaluate", out, "--truth", truth, "--sample", 200)
    assert code == 0 and "objects by any overlap: recall" in printed and "changed area adjusted" in printed
    assert "0.6667" in printed and "evaluation.json" in printed
    for arguments, problem in (
        ((out,), "give RUN DATA"),
        ((out, tmp_path, "--truth", truth), "Leave one out"),
        ((tmp_path, "--truth", truth), "run.json"),
        ((out, "--truth", tmp_path / "none.gpkg"), "does not exist"),
        ((out, "--truth", tmp_path / "none.tif"), "does not exist"),
    ):
        code, _, complained = command(capsys, "evaluate", *arguments)
        assert code == 2 and problem in complained and "Traceback" not in complained


def test_masks_that_cannot_be_used_say_why(out: Path, tmp_path: Path) -> None:
    grid = read_detected_map(out).grid
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(tmp_path / "small.png")
    odd = raster(tmp_path / "odd.tif", burned(REAL) * np.uint8(77))
    colour = raster(tmp_path / "colour.tif", np.zeros((HEIGHT, WIDTH, 3), np.uint8), photometric="RGB")
    far = tmp_path / "far.tif"
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "height": 9, "width": 9, "crs": UTM}
    with rasterio.open(far, "w", transform=Affine(1, 0, 500_000, 0, -1, 5_000_000), **profile) as target:
        target.write(np.zeros((9, 9), np.uint8), 1)
    for path, problem in (
        (tmp_path / "small.png", "is 30 x 20 px, but the result is 130 x 90 px"),
        (odd, "holds the values 77"),
        (colour, "has 3 bands"),
        (far, "does not overlap"),
    ):
        with pytest.raises(InputError, match=problem):
            read_truth(path, grid=grid)
