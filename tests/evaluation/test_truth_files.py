"""The truth of a map in every kind of file: the scores are those that one counts by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from PIL import Image
from rich.console import Console
from tests.support.reference_maps import HEIGHT, REAL, UTM, WIDTH, Red, burned, on_map, raster, vectors

from semicdvl.detection.pipeline import write_detection
from semicdvl.errors import InputError
from semicdvl.evaluation.evaluate import score_map
from semicdvl.evaluation.map_vs_truth import read_detected_map, read_truth
from semicdvl.metrics.change import ConfusionCounts
from semicdvl.types import IGNORE

WANTED = ConfusionCounts(tn=80 * 130 - 690, fp=80 + 200, fn=80 + 80 + 30, tp=200 + 20)
"""Of the result `out` against `REAL`, by hand."""


def _mask(path: Path, *, kind: str, crs: str | None = UTM) -> Path:
    """Write `REAL` as one kind of mask."""
    grey_HW = burned(REAL) * np.uint8(255)
    solid_HW = np.full_like(grey_HW, 255)
    if kind == "palette":
        raster(path, 1 - burned(REAL), crs=crs, photometric="PALETTE")
        with rasterio.open(path, "r+") as target:
            target.write_colormap(1, {0: (255, 255, 255, 255), 1: (0, 0, 0, 255)})
        return path
    if kind == "min is white":
        return raster(path, 1 - burned(REAL), crs=crs, nbits=1, photometric="MINISWHITE")
    options: dict[str, tuple[np.ndarray, dict[str, object]]] = {
        "no data 0": (grey_HW, {"nodata": 0}),
        "no data 0 of 1": (burned(REAL), {"nodata": 0}),
        "grey and alpha": (np.dstack([grey_HW, solid_HW]), {"alpha": "yes"}),
        "equal bands": (np.dstack([grey_HW] * 3), {"photometric": "RGB"}),
        "JPEG": (grey_HW, {"compress": "JPEG"}),
    }
    image, profile = options[kind]
    return raster(path, image, crs=crs, **profile)


@pytest.mark.parametrize(
    "kind", ["no data 0", "no data 0 of 1", "palette", "min is white", "grey and alpha", "equal bands", "JPEG"]
)
@pytest.mark.parametrize("crs", [UTM, None])
def test_every_kind_of_mask_gives_the_same_scores(out: Path, tmp_path: Path, kind: str, crs: str | None) -> None:
    done = score_map(out, _mask(tmp_path / "truth.tif", kind=kind, crs=crs), sample=0)
    assert done.comparison.pixels == WANTED
    assert dict(done.format_rows())["area falsely detected"] == "70 m²"


def test_ground_outside_a_mask_with_no_data_0_is_not_known(out: Path, tmp_path: Path) -> None:
    result = read_detected_map(out)
    with rasterio.open(_mask(tmp_path / "whole.tif", kind="no data 0")) as source:
        profile, left = source.profile, source.read(window=((0, HEIGHT), (0, 60)))
    with rasterio.open(tmp_path / "left.tif", "w", **{**profile, "width": 60}) as target:
        target.write(left)
    truth_HW, _ = read_truth(tmp_path / "left.tif", grid=result.grid).read_strip(result.grid, 0)
    np.testing.assert_array_equal(truth_HW[:, :60], burned(REAL)[:, :60])
    assert (truth_HW[:, 60:] == IGNORE).all()


def test_what_is_ambiguous_is_refused_and_the_options_settle_it(out: Path, tmp_path: Path) -> None:
    path = raster(tmp_path / "n.tif", burned(REAL) * np.uint8(255), nodata=255)
    with pytest.raises(InputError, match="--label-values 255=changed,0=unchanged"):
        score_map(out, path, sample=0)
    said = score_map(out, path, sample=0, label_values="255=changed,0=unchanged")
    assert said.comparison.pixels == WANTED
    left_out = score_map(out, path, sample=0, truth_nodata=255)
    assert left_out.comparison.pixels == ConfusionCounts(tn=WANTED.tn, fp=WANTED.fp)
    zero = _mask(tmp_path / "z.tif", kind="no data 0")
    with pytest.raises(InputError, match="no pixel of the result that it is unchanged"):
        score_map(out, zero, sample=0, truth_nodata=0)
    grey = raster(tmp_path / "grey.tif", np.where(burned(REAL) == 1, 180, 60).astype(np.uint8))
    ranges = score_map(out, grey, sample=0, label_values="0-127=unchanged,128-255=changed")
    assert ranges.comparison.pixels == WANTED


@pytest.mark.parametrize("dtype", ["complex64", "complex_int16"])
def test_complex_numbers_are_refused(out: Path, tmp_path: Path, dtype: str) -> None:
    path = raster(tmp_path / "sar.tif", burned(REAL).astype(np.complex64), dtype=dtype)
    with pytest.raises(InputError, match=r"sar\.tif: The pixels are complex numbers"):
        score_map(out, path, sample=0)


# ------------------------------------------------------------------------------------------------ vector files
@pytest.mark.parametrize("kind", ["zip", "gdb"])
def test_archives_and_geodatabases_are_read_as_polygons(out: Path, tmp_path: Path, kind: str) -> None:
    if kind == "gdb":
        path = tmp_path / "truth.gdb"
        gpd.GeoDataFrame(geometry=[on_map(*each) for each in REAL], crs=UTM).to_file(path, driver="OpenFileGDB")
    else:
        (tmp_path / "shape").mkdir()
        vectors(tmp_path / "shape" / "truth.shp", REAL)
        path = Path(shutil.make_archive(str(tmp_path / "truth"), "zip", tmp_path / "shape"))
    assert score_map(out, path, sample=0).comparison.pixels == WANTED


def test_polygons_in_collections_count_and_what_is_dropped_is_not_unchanged(out: Path, tmp_path: Path) -> None:
    inside = [on_map(*each) for each in REAL]
    away = on_map(60.5, 80.5, 0, 0).centroid  # a point in the third object of the result
    shapes = [
        shapely.GeometryCollection([inside[0], away]),
        shapely.GeometryCollection([shapely.GeometryCollection([inside[1]]), shapely.MultiPolygon([inside[2]])]),
        shapely.LineString([away, shapely.Point(away.x + 2, away.y)]),
        shapely.Polygon(),
        None,
    ]
    path = tmp_path / "mixed.gpkg"
    gpd.GeoDataFrame(geometry=shapes, crs=UTM).to_file(path)
    done = score_map(out, path, sample=0)
    pixels = done.comparison.pixels
    assert (pixels.tp, pixels.fn) == (WANTED.tp, WANTED.fn)
    assert pixels.fp == WANTED.fp - 5  # the line of 2 m touches five pixels, of which nothing is known now
    assert any("3 rows have no polygon with an area" in note and "not known" in note for note in done.notes)


def test_labels_smaller_than_a_pixel_are_said_and_their_ground_is_not_known(out: Path, tmp_path: Path) -> None:
    small = on_map(63.6, 83.6, 0.3, 0.3)  # no centre of a pixel lies in it
    path = tmp_path / "small.gpkg"
    gpd.GeoDataFrame(geometry=[*(on_map(*each) for each in REAL), small], crs=UTM).to_file(path)
    done = score_map(out, path, sample=0)
    assert done.comparison.pixels == ConfusionCounts(tn=WANTED.tn, fp=WANTED.fp - 1, fn=WANTED.fn, tp=WANTED.tp)
    assert any("1 row is smaller than a pixel" in note for note in done.notes)


# ------------------------------------------------------------------------------------------------ undefined scores
def test_scores_without_change_in_the_truth_are_undefined(out: Path, tmp_path: Path) -> None:
    mask = raster(tmp_path / "none.tif", np.zeros((HEIGHT, WIDTH), np.uint8))
    done = score_map(out, mask, sample=0)
    rows = dict(done.format_rows())
    for name in ("pixels: iou", "pixels: f1", "pixels: recall", "objects by IoU: recall", "objects by IoU: f1"):
        assert rows[name] == "undefined", name
    assert rows["objects by any overlap: recall"] == rows["objects by any overlap: f1"] == "undefined"
    assert (
        rows["pixels: precision"] == "0.0000"
        and rows["area correctly detected"] == "0 m²"
        and rows["area falsely detected"] == "125 m²"
    )
    stored = json.loads((out / "evaluation.json").read_text())
    assert [stored["objects"][name] for name in ("f1", "any_f1", "recall", "any_recall")] == [None] * 4
    assert [stored["pixels"][name] for name in ("iou", "f1", "recall", "kappa")] == [None] * 4


def test_a_picture_of_the_truth_is_turned_as_viewers_show_it(tmp_path: Path) -> None:
    images = []
    for name, marked in (("a", False), ("b", True)):
        image_HWC = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
        image_HWC[burned(REAL) == 1, 0] = 255 if marked else 90
        exif = Image.Exif()
        exif[274] = 6  # shown after a quarter turn clockwise
        images.append(tmp_path / f"{name}.png")
        Image.fromarray(np.ascontiguousarray(np.rot90(image_HWC))).save(images[-1], exif=exif)
    folder = write_detection(*images, tmp_path / "out", detector=Red(), progress=Console(quiet=True)).folder
    Image.fromarray(burned(REAL) * np.uint8(255)).save(tmp_path / "shown.png")
    pixels = score_map(folder, tmp_path / "shown.png", sample=0).comparison.pixels
    assert pixels == ConfusionCounts(tn=HEIGHT * WIDTH - 410, tp=410)


def test_polygons_that_share_ground_are_said(out: Path, tmp_path: Path) -> None:
    row, col, height, width = REAL[0]
    beside = [REAL[0], (row + height, col, 5, width)]
    apart = score_map(out, vectors(tmp_path / "apart.gpkg", beside), sample=0)
    assert not any("share" in note for note in apart.notes)
    over = score_map(out, vectors(tmp_path / "over.gpkg", [REAL[0], (row + 10, col, height, width)]), sample=0)
    assert over.comparison.objects.truth_area_px.tolist() == [10 * width, height * width]
    assert any("1 polygon of the truth shares ground with a later one" in note for note in over.notes)
    twice = score_map(out, vectors(tmp_path / "twice.gpkg", [REAL[0], REAL[0]]), sample=0)
    assert any("or below another one" in note for note in twice.notes)


def test_inverted_mask_is_remarked(out: Path, tmp_path: Path) -> None:
    assert not any("calls" in note for note in score_map(out, raster(tmp_path / "t.tif", burned(REAL)), sample=0).notes)
    inverted = score_map(out, raster(tmp_path / "i.tif", 1 - burned(REAL)), sample=0)
    assert sum("The truth calls 9" in note and "of the ground changed" in note for note in inverted.notes) == 1


def test_file_that_is_neither_mask_nor_polygons_is_named_with_what_is_wanted(out: Path, tmp_path: Path) -> None:
    table = tmp_path / "truth.csv"
    table.write_text('WKT,id\n"POLYGON ((0 0, 1 0, 1 1, 0 0))",1\n')
    with pytest.raises(InputError, match=r"truth\.csv.*polygons as a GeoPackage"):
        score_map(out, table, sample=0)
