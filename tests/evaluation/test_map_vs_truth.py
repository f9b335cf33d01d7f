"""A `detect` result against polygons, a mask or checked places: hand-made maps with known answers."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image
from rich.console import Console
from tests.support.reference_maps import (
    CORNER,
    HEIGHT,
    REAL,
    UTM,
    WIDTH,
    Red,
    burned,
    on_map,
    raster,
    vectors,
)

from semicdvl.detection.pipeline import write_detection
from semicdvl.errors import InputError
from semicdvl.evaluation import map_vs_truth as truth_module
from semicdvl.evaluation.evaluate import score_map
from semicdvl.evaluation.map_vs_truth import compare_with_truth, read_detected_map, read_truth
from semicdvl.metrics.change import ConfusionCounts
from semicdvl.metrics.objects import count_objects
from semicdvl.types import IGNORE


# ------------------------------------------------------------------------------------------------ polygons and masks
def test_polygons_give_the_scores_that_one_counts_by_hand(out: Path, tmp_path: Path) -> None:
    done = score_map(out, vectors(tmp_path / "truth.gpkg", REAL), sample=0)
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
    done = score_map(out, vectors(tmp_path / "truth.gpkg", REAL), area=area, sample=0)
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
    plain = write_detection(
        tmp_path / "a.png", tmp_path / "b.png", tmp_path / "out", detector=Red(), progress=Console(quiet=True)
    ).folder
    Image.fromarray(burned(REAL) * np.uint8(255)).save(tmp_path / "label.png")
    done = score_map(plain, tmp_path / "label.png", sample=100)
    assert done.comparison.pixels == ConfusionCounts(tn=HEIGHT * WIDTH - 410, fn=410)
    rows = dict(done.format_rows())
    assert rows["area missed"] == "410 px" and rows["pixels: precision"] == "undefined"
    assert rows["objects missed"] == "3, 410 px"
    assert rows["objects by IoU: f1"] == rows["objects by any overlap: f1"] == rows["pixels: f1"] == "0.0000"
    assert json.loads((plain / "evaluation.json").read_text())["pixels"]["precision"] is None


def test_masks_that_cannot_be_used_say_why(out: Path, tmp_path: Path) -> None:
    grid = read_detected_map(out).grid
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(tmp_path / "small.png")
    odd = raster(tmp_path / "odd.tif", burned(REAL) * np.uint8(77))
    colour = raster(tmp_path / "colour.tif", np.eye(3, dtype=np.uint8)[burned(REAL)] * 200, photometric="RGB")
    far = tmp_path / "far.tif"
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "height": 9, "width": 9, "crs": UTM}
    with rasterio.open(far, "w", transform=Affine(1, 0, 500_000, 0, -1, 5_000_000), **profile) as target:
        target.write(np.zeros((9, 9), np.uint8), 1)
    for path, problem in (
        (tmp_path / "small.png", "is 30 x 20 px, but the result is 130 x 90 px"),
        (odd, r"with the values \{0, 77\}"),
        (colour, "is a colour image"),
        (far, "does not overlap"),
    ):
        with pytest.raises(InputError, match=problem):
            read_truth(path, grid=grid)


def test_a_result_whose_objects_are_a_named_pipe_is_refused_at_once(out: Path, tmp_path: Path) -> None:
    shutil.copytree(out, tmp_path / "out")
    (tmp_path / "out" / "changes.gpkg").unlink()
    os.mkfifo(tmp_path / "out" / "changes.gpkg")
    with pytest.raises(InputError, match=r"changes\.gpkg: is a named pipe"):
        read_detected_map(tmp_path / "out")
