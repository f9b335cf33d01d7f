"""Which patches to label next: doubtful ones, unlike each other, on ground that both dates show."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console
from shapely.geometry import box
from tests.support.command import command

from semicdvl.data.prepare.config import PrepareSettings
from semicdvl.data.prepare.run import prepare_patches
from semicdvl.data.readers import folder
from semicdvl.detection.config import DetectionConfig
from semicdvl.detection.pipeline import write_detection
from semicdvl.errors import ConfigError, InputError
from semicdvl.evaluation.active_learning.patch_scores import compute_uncertainty, score_patches
from semicdvl.evaluation.active_learning.select import SuggestConfig, select_patches, suggest_patches
from semicdvl.evaluation.map_vs_truth import read_detected_map
from semicdvl.types import IGNORE, ChangeMap, Detector

UTM, CORNER, GSD_M, SIDE = "EPSG:32633", (400_000.0, 5_600_000.0), 0.5, 32
ROWS, COLS = 4, 7  # patches
HEIGHT, WIDTH = ROWS * SIDE + 5, COLS * SIDE + 11  # and a rest that holds no whole patch
SURE, UNSURE = 5, 120  # grey values: score 0.02 and 0.47
DOUBTFUL = [(0, 2), (1, 5), (2, 0), (3, 3), (3, 6)]
EMPTY = (2, 4)


class Grey(Detector):
    """Changed where date 2 is bright; the score is its brightness."""

    name, map_count = "grey", 1

    def predict_scores(self, t1_HWC, t2_HWC, *, gsd_m=None):
        return t2_HWC[None, ..., 0].astype(np.float32) / 255

    def decide(self, strips):
        for strip in strips:
            score_HW, valid_HW = strip.scores_PHW[0], strip.valid_HW
            change_HW = np.where(valid_HW, score_HW >= 0.5, IGNORE).astype(np.uint8)
            yield ChangeMap(change_HW, np.where(valid_HW, score_HW, np.nan).astype(np.float32))


def patch(row: int, col: int) -> tuple[slice, slice]:
    return slice(row * SIDE, (row + 1) * SIDE), slice(col * SIDE, (col + 1) * SIDE)


def dates(doubtful: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Two dates: every patch has a colour of its own at date 1; the doubtful ones are nearly bright at date 2."""
    rng = np.random.default_rng(0)
    t1_HWC = rng.integers(60, 200, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    t2_HWC = np.full((HEIGHT, WIDTH, 3), SURE, np.uint8)
    for row in range(ROWS):
        for col in range(COLS):
            t1_HWC[patch(row, col)] //= np.uint8(rng.integers(1, 5))
    for place in doubtful:
        t2_HWC[patch(*place)] = UNSURE
    t2_HWC[patch(*EMPTY)] = 255, 0, 255  # bright, and without data
    return t1_HWC, t2_HWC


def written(path: Path, image_HWC: np.ndarray, valid_HW: np.ndarray, *, crs: str | None = UTM) -> Path:
    transform = Affine(GSD_M, 0, CORNER[0], 0, -GSD_M, CORNER[1])
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 4, "height": HEIGHT, "width": WIDTH, "photometric": "RGB"}
    with rasterio.open(path, "w", crs=crs, transform=transform, alpha="yes", **profile) as target:
        target.write(np.concatenate([np.moveaxis(image_HWC, 2, 0), 255 * valid_HW[None].astype(np.uint8)]))
    return path


def detected(root: Path, doubtful: list[tuple[int, int]] = DOUBTFUL) -> Path:
    t1_HWC, t2_HWC = dates(doubtful)
    valid_HW = np.ones((HEIGHT, WIDTH), bool)
    before = written(root / "before.tif", t1_HWC, valid_HW)
    valid_HW[patch(*EMPTY)] = False
    after = written(root / "after.tif", t2_HWC, valid_HW)
    tiles = DetectionConfig(tile_px=64, overlap_px=0)
    return write_detection(
        before, after, root / "out", detector=Grey(), config=tiles, progress=Console(quiet=True)
    ).folder


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return detected(tmp_path_factory.mktemp("suggest"))


def places(out: Path) -> list[tuple[int, int]]:
    frame = gpd.read_file(out / "suggest.gpkg")
    return [(row // SIDE, col // SIDE) for row, col in zip(frame.row_px, frame.col_px, strict=True)]


# ------------------------------------------------------------------------------------------------ doubt and choice
def test_doubt_is_what_the_score_says_against_the_map():
    change_HW = np.array([[1, 1, 0, 0, IGNORE, 0]], np.uint8)
    score_HW = np.array([[0.9, 0.2, 0.1, 0.8, np.nan, np.nan]], np.float32)
    np.testing.assert_allclose(compute_uncertainty(change_HW, score_HW), [[0.1, 0.8, 0.1, 0.8, 0, 0]], atol=1e-6)


def test_looks_alike_are_not_taken_twice():
    """Two groups: the doubtful one comes first, then the other one although each of it is less in doubt."""
    doubt_N = np.array([0.30, 0.29, 0.28, 0.10, 0.09])
    looks_ND = np.array([[0, 0], [0.01, 0], [0, 0.01], [5, 5], [5.1, 5]])
    order_N, novelty_N = select_patches(doubt_N, looks_ND, count=3)
    assert order_N[0] == 0 and novelty_N[0] == 1
    assert order_N[1] == 3, "unlike the first, so worth more than what is nearly the same as it"
    assert novelty_N[1] > 0.9 > novelty_N[2]


@given(st.integers(1, 12), st.integers(1, 30), st.integers(0, 5))
def test_every_choice_is_a_choice(many: int, count: int, seed: int):
    rng = np.random.default_rng(seed)
    doubt_N, looks_ND = rng.random(many), rng.normal(size=(many, 3))
    order_N, novelty_N = select_patches(doubt_N, looks_ND, count=count, seed=seed)
    assert len(order_N) == len(set(order_N.tolist())) == min(count, many)
    assert doubt_N[order_N[0]] == doubt_N.max()
    assert ((novelty_N >= 0) & (novelty_N <= 1)).all()


def test_equal_patches_are_drawn_by_the_seed():
    alike = np.full(9, 0.2), np.zeros((9, 2))
    first = [select_patches(*alike, count=4, seed=seed)[0].tolist() for seed in (0, 0, 1)]
    assert first[0] == first[1] != first[2]


def test_windows_do_not_matter(out: Path, monkeypatch: pytest.MonkeyPatch):
    whole = score_patches(read_detected_map(out), side_px=SIDE)
    monkeypatch.setattr("semicdvl.evaluation.active_learning.patch_scores.MAX_WINDOW_PX", 3 * SIDE**2)
    parts = score_patches(read_detected_map(out), side_px=SIDE)
    for name in ("row_N", "col_N", "valid_frac_N", "uncertainty_N"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))
    assert len(whole) == ROWS * COLS


# ------------------------------------------------------------------------------------------------ a whole result
def test_doubtful_patches_come_first(out: Path):
    suggested = suggest_patches(out, config=SuggestConfig(count=5, patch_px=SIDE))
    assert sorted(places(out)) == sorted(DOUBTFUL)
    assert suggested.candidate_count == ROWS * COLS - 1 and suggested.patches.uncertainty_N.min() > 0.4
    frame = gpd.read_file(out / "suggest.gpkg")
    assert frame.crs == UTM and frame["rank"].tolist() == [1, 2, 3, 4, 5]
    row, col = places(out)[0]
    x, y = CORNER[0] + col * SIDE * GSD_M, CORNER[1] - row * SIDE * GSD_M
    assert frame.geometry[0].equals(box(x, y - SIDE * GSD_M, x + SIDE * GSD_M, y))
    page = (out / "suggest.html").read_text()
    assert page.count("<figure") == 4 * 5 and "uncertainty 47" in page
    assert not list(out.glob(".*")), "nothing is left over"


def test_never_overlapping_and_never_without_data(out: Path):
    suggested = suggest_patches(out, config=SuggestConfig(count=1000, patch_px=SIDE))
    found = places(out)
    assert len(found) == len(set(found)) == ROWS * COLS - 1 and EMPTY not in found
    assert any("There are only 27" in note for note in suggested.notes) and "note:" in suggested.summary
    frame = gpd.read_file(out / "suggest.gpkg")
    total = frame.geometry.area.sum()
    assert frame.geometry.union_all().area == pytest.approx(total)


def test_patches_partly_without_data_are_a_last_resort(out: Path):
    settings = SuggestConfig(count=20, patch_px=2 * SIDE)  # 2 x 3 patches, one a quarter empty
    suggested = suggest_patches(out, config=settings)
    assert len(suggested.patches) == 6 and suggested.patches.valid_frac_N.min() == 0.75
    assert any("--min-known-frac" in note for note in suggested.notes)


def test_features_of_a_network_may_say_what_looks_alike(out: Path):
    class Red:
        identity = "red"

        def extract_features(self, image_HWC):
            assert image_HWC.shape == (SIDE, SIDE, 3)
            return image_HWC[None, ..., 0].astype(np.float32)

    suggested = suggest_patches(out, config=SuggestConfig(count=5, patch_px=SIDE), source=Red())
    assert sorted(places(out)) == sorted(DOUBTFUL) and suggested.novelty_N[0] == 1


def test_boxes_are_a_labelled_area(out: Path, tmp_path: Path):
    """What `prepare` labels are exactly the patches that were suggested."""
    suggest_patches(out, config=SuggestConfig(count=6, patch_px=SIDE))
    changes = gpd.read_file(out / "suggest.gpkg")
    changes["geometry"] = changes.geometry.buffer(-4)
    changes.to_file(tmp_path / "changes.gpkg")
    before, after = out.parent / "before.tif", out.parent / "after.tif"
    prepared = prepare_patches(
        before,
        after,
        tmp_path / "data",
        labels=tmp_path / "changes.gpkg",
        labelled_area=out / "suggest.gpkg",
        settings=PrepareSettings(size_px=SIDE, buffer_px=0),
        console=Console(quiet=True),
    )
    labelled = {pair.name for pair in folder.read_folder(prepared.out).pairs if pair.label is not None}
    assert labelled == {f"r{row * SIDE:06d}_c{col * SIDE:06d}" for row, col in places(out)}


def test_plain_pictures_give_boxes_in_pixels(tmp_path: Path):
    t1_HWC, t2_HWC = dates(DOUBTFUL)
    for name, image in (("a", t1_HWC), ("b", t2_HWC)):
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    tiles = DetectionConfig(tile_px=64, overlap_px=0)
    quiet = Console(quiet=True)
    write_detection(
        tmp_path / "a.png", tmp_path / "b.png", tmp_path / "out", detector=Grey(), config=tiles, progress=quiet
    )
    suggested = suggest_patches(tmp_path / "out", config=SuggestConfig(count=2, patch_px=SIDE))
    frame = gpd.read_file(tmp_path / "out" / "suggest.gpkg")
    assert frame.crs is None and any("in pixels" in note for note in suggested.notes)
    left, top = frame.geometry[0].bounds[:2]
    assert (abs(top), left) == (frame.row_px[0], frame.col_px[0])


# ------------------------------------------------------------------------------------------------ bad input
def test_a_folder_that_is_no_result(tmp_path: Path):
    with pytest.raises(InputError, match="is not a folder"):
        suggest_patches(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"run\.json"):
        suggest_patches(tmp_path)
    assert not list(tmp_path.iterdir())


def test_images_that_were_moved(tmp_path: Path):
    out = detected(tmp_path)
    (tmp_path / "after.tif").rename(tmp_path / "moved.tif")
    with pytest.raises(InputError, match=r"after\.tif: does not exist any more.*--after FILE"):
        suggest_patches(out, config=SuggestConfig(patch_px=SIDE))
    assert not list(out.glob("*suggest*"))
    suggest_patches(out, config=SuggestConfig(count=5, patch_px=SIDE, after=str(tmp_path / "moved.tif")))
    assert sorted(places(out)) == sorted(DOUBTFUL)
    with rasterio.open(tmp_path / "before.tif") as source:
        profile, data = source.profile, source.read()
    (tmp_path / "before.tif").unlink()
    profile["transform"] = profile["transform"] @ Affine.translation(3, 0)
    with rasterio.open(tmp_path / "elsewhere.tif", "w", **profile) as target:
        target.write(data)
    elsewhere = {"before": str(tmp_path / "elsewhere.tif"), "after": str(tmp_path / "moved.tif")}
    with pytest.raises(InputError, match="has another grid"):
        suggest_patches(out, config=SuggestConfig(patch_px=SIDE, **elsewhere))


def test_another_image_in_its_place(tmp_path: Path):
    out = detected(tmp_path)
    shutil.copy(out / "score.tif", tmp_path / "after.tif")
    with pytest.raises(InputError, match=r"after\.tif: is not the image that out was made of"):
        suggest_patches(out, config=SuggestConfig(patch_px=SIDE))


def test_patches_that_cannot_be(out: Path):
    with pytest.raises(ConfigError, match="Give a smaller --patch-px"):
        suggest_patches(out, config=SuggestConfig(patch_px=256))
    with pytest.raises(ConfigError, match="at least 1 patch"):
        SuggestConfig(count=0)


def test_a_damaged_raster(tmp_path: Path):
    out = detected(tmp_path)
    (out / "score.tif").write_bytes((out / "score.tif").read_bytes()[:300])
    with pytest.raises(InputError, match=r"score\.tif|pixels cannot be read"):
        suggest_patches(out, config=SuggestConfig(patch_px=SIDE))
    assert not list(out.glob("*suggest*"))


def test_the_command(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    code, printed, _ = command(capsys, "suggest", out, "-n", 3, "--patch-px", SIDE)
    assert code == 0 and "3 of 27 patches" in printed and "semicdvl prepare --before" in printed
    assert len(places(out)) == 3
    code, _, complained = command(capsys, "suggest", tmp_path)
    assert code == 2 and "run.json" in complained


def test_next_command_reads_the_images_as_the_detection_did(tmp_path: Path):
    out = detected(tmp_path)
    record = json.loads((out / "run.json").read_text())
    assert "--collar" not in suggest_patches(out, config=SuggestConfig(count=1, patch_px=SIDE)).next_command
    record["settings"] |= {"collar": "none", "stretch": "0,255", "bands": [3, 2, 1], "normalise": "match"}
    record["settings"] |= {"grid": "finest", "after_bands": [1, 2, 3]}
    (out / "run.json").write_text(json.dumps(record))
    told = suggest_patches(out, config=SuggestConfig(count=1, patch_px=SIDE)).next_command
    reading = "--bands 3,2,1 --after-bands 1,2,3 --grid finest --stretch 0,255 --collar none --normalise match"
    assert f" {reading} --size-px {SIDE} --buffer-px 0 -o DATA" in told


@pytest.mark.parametrize("grid", ["http://127.0.0.1:9/a.tif", "/vsicurl/http://127.0.0.1:9/a.tif", "gone.tif"])
def test_a_grid_elsewhere_is_that_of_the_map(grid: str, tmp_path: Path):
    out = detected(tmp_path)
    record = json.loads((out / "run.json").read_text())
    record["settings"]["grid"] = grid
    (out / "run.json").write_text(json.dumps(record))
    told = suggest_patches(out, config=SuggestConfig(count=1, patch_px=SIDE)).next_command
    assert f"--grid {out / 'change.tif'}" in told and grid not in told


def test_settings_of_no_reading_are_refused_by_the_record(tmp_path: Path):
    out = detected(tmp_path)
    record = json.loads((out / "run.json").read_text())
    record["settings"]["stretch"] = "x"
    (out / "run.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match=r"run\.json: The stretch 'x' is unknown"):
        suggest_patches(out, config=SuggestConfig(count=1, patch_px=SIDE))
