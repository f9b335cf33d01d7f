"""What a detection writes: rasters, objects, the record of the run; with bounded memory."""

import json
import tracemalloc
from dataclasses import dataclass, field, replace
from functools import partial

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image
from tests.support.brightness_detector import QUIET, TILES, UTM, Brighter, read

from semicdvl.detection import pipeline
from semicdvl.detection.config import DetectionConfig
from semicdvl.detection.output_folder import OUTPUT_FILES
from semicdvl.detection.pair_check.check import CheckedPair, measure_pair
from semicdvl.detection.pipeline import write_detection
from semicdvl.detection.tiles.score_store import ScoreStore
from semicdvl.errors import ConfigError
from semicdvl.raster.io.open_pair import open_pair
from semicdvl.types import IGNORE


# ------------------------------------------------------------------------------------------------ what is written
def test_everything_is_written_and_right(tifs, tmp_path):
    out = tmp_path / "new" / "out"
    result = write_detection(*tifs, out, detector=Brighter(), config=replace(TILES, min_area_m2=2.0), progress=QUIET)
    assert sorted(path.name for path in out.iterdir()) == sorted(OUTPUT_FILES)
    change = read(out / "change.tif")
    wanted = np.zeros((150, 230), np.uint8)
    wanted[60:100, 80:150] = wanted[10:20, 200:220] = 1
    wanted[:, :42] = IGNORE  # black border, 2 px wider
    assert (change == wanted).all(), "the object of 6 px = 1.5 m2 is left out of the map, too"
    with rasterio.open(out / "change.tif") as source:
        assert source.crs == UTM and source.transform == Affine(0.5, 0, 366676, 0, -0.5, 4104256)
    frame = gpd.read_file(out / "changes.gpkg", layer="changes")
    assert frame["area_m2"].tolist() == [700, 50] and frame["kind"].tolist() == ["appeared", "disappeared"]
    assert frame["to_class"].tolist() == ["bright", "dark"]
    assert (read(out / "t2.tif")[60:100, 80:150] == 1).all()
    score = read(out / "score.tif")
    assert np.isnan(score[:, :42]).all() and score[70, 90] > 0.4 and (score * 1024 % 1 == 0)[:, 42:].all()
    assert (result.summary.objects, result.summary.changed_px, result.summary.changed_m2) == (2, 3000, 750)
    assert result.summary.by_kind == {"appeared": 1, "disappeared": 1} and "2 changed objects" in result.format_text()


def test_record_says_what_was_run_on_what(tifs, tmp_path):
    write_detection(*tifs, tmp_path / "out", detector=Brighter(), config=TILES, progress=QUIET)
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["format"] == "semicdvl-detect" and record["settings"]["tile_px"] == 96
    assert len(record["inputs"]["before"]["sha256"]) == 64 and record["inputs"]["after"]["path"] == str(tifs[1])
    assert record["grid"]["crs"] == "EPSG:32615" and record["grid"]["gsd_m"] == pytest.approx(0.5)
    assert record["result"]["objects"] == 3 and record["peak_memory_mib"] > 10
    assert set(record["seconds"]) == {"open", "detect", "decide", "write", "report"}
    assert any("black border" in line for line in record["warnings"])


@pytest.mark.parametrize("tile_px", [64, 256])
def test_same_bytes_whatever_the_tile(tifs, tmp_path, tile_px):
    write_detection(*tifs, tmp_path / "one", detector=Brighter(), config=TILES, progress=QUIET)
    settings = DetectionConfig(tile_px=tile_px, overlap_px=32)
    write_detection(*tifs, tmp_path / "two", detector=Brighter(), config=settings, progress=QUIET)
    for name in ("change.tif", "score.tif", "t1.tif", "t2.tif"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_same_result_however_few_rows_are_held_at_once(tifs, tmp_path, monkeypatch):
    settings = replace(TILES, min_area_m2=2.0)
    one = write_detection(*tifs, tmp_path / "one", detector=Brighter(), config=settings, progress=QUIET)
    monkeypatch.setattr(pipeline, "ScoreStore", partial(ScoreStore, strip_bytes=1))  # two rows at a time
    two = write_detection(*tifs, tmp_path / "two", detector=Brighter(), config=settings, progress=QUIET)
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == sorted(OUTPUT_FILES)
    for name in ("change.tif", "score.tif", "t1.tif", "t2.tif"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    frames = [gpd.read_file(tmp_path / name / "changes.gpkg", layer="changes") for name in ("one", "two")]
    assert frames[0].equals(frames[1]) and len(frames[0]) == 2
    assert (one.summary.changed_px, one.summary.seen_px, one.summary.by_kind) == (
        two.summary.changed_px,
        two.summary.seen_px,
        two.summary.by_kind,
    )


def test_plain_images(pngs, tmp_path):
    result = write_detection(*pngs, tmp_path / "out", detector=Brighter(), config=TILES, progress=QUIET)
    frame = gpd.read_file(tmp_path / "out" / "changes.gpkg", layer="changes")
    assert result.summary.changed_m2 is None and frame["area_px"].tolist() == [2800, 200, 6] and frame.crs is None
    assert any("no CRS" in line for line in result.warnings) and any("--gsd" in line for line in result.warnings)
    settings = replace(TILES, gsd_m=0.5, min_area_m2=10)
    told = write_detection(*pngs, tmp_path / "out", detector=Brighter(), config=settings, progress=QUIET)
    assert told.summary.changed_m2 == 750 and told.summary.objects == 2


def test_nothing_found_is_a_result(pngs, tmp_path):
    result = write_detection(pngs[0], pngs[0], tmp_path / "out", detector=Brighter(), config=TILES, progress=QUIET)
    assert result.summary.objects == 0 and len(gpd.read_file(tmp_path / "out" / "changes.gpkg", layer="changes")) == 0
    assert any("No change" in line for line in result.warnings)


@dataclass(frozen=True)
class Deviates(Brighter):
    """Changed where the difference is far from its mean over the pair: it must see all of it first."""

    mean: float | None = None
    rounds: int = 1
    shown: list = field(default_factory=list)

    def prepare(self, tiles):
        sums = [0.0, 0]
        for _ in range(self.rounds):
            for tile in tiles:
                self.shown.append(tile)
                sums[0] += float((tile.t2_HWC[tile.valid_HW].astype(np.float64) - tile.t1_HWC[tile.valid_HW]).sum())
                sums[1] += 3 * int(tile.valid_HW.sum())
        assert tiles.shape_hw == (150, 230) and tiles.gsd_m == pytest.approx(0.5)
        return replace(self, mean=sums[0] / sums[1])

    def predict_scores(self, t1_HWC, t2_HWC, *, gsd_m=None):
        assert self.mean is not None, "fitted before the first tile"
        return super().predict_scores(t1_HWC, t2_HWC)


def test_a_detector_that_fits_sees_the_pair_once_and_whole(tifs, tmp_path):
    detector = Deviates(rounds=2)
    write_detection(*tifs, tmp_path / "out", detector=detector, config=TILES, progress=QUIET)
    shapes = [tile.valid_HW.shape for tile in detector.shown]
    assert shapes == 2 * [(96, 96), (96, 96), (96, 38), (54, 96), (54, 96), (54, 38)], "two rounds, no overlap"
    with open_pair(*tifs) as pair:
        whole = pair.read(0, 0, 150, 230)
    tiles = detector.shown[:6]
    for name in ("t1_HWC", "t2_HWC", "valid_HW"):
        parts = [getattr(tile, name) for tile in tiles]
        joined = np.concatenate([np.concatenate(parts[:3], axis=1), np.concatenate(parts[3:], axis=1)])
        assert (joined == getattr(whole, name)).all()


def test_memory_does_not_grow_with_the_raster(tmp_path, monkeypatch):
    """Measured is what Python holds, arrays and all; only samples of rasters this large are looked at first."""
    monkeypatch.setattr(pipeline, "ScoreStore", partial(ScoreStore, strip_bytes=30_000))
    monkeypatch.setattr(pipeline, "open_checked_pair", lambda *pair, **_: CheckedPair(open_pair(*pair), check))
    monkeypatch.setattr(pipeline, "write_detection_report", lambda *_, **__: None)
    rng, peaks = np.random.default_rng(0), []
    image = rng.integers(60, 120, (256, 96, 3), dtype=np.uint8)
    for height in (256, 1280, 6400):  # the first warms up
        paths = tmp_path / f"{height}-A.png", tmp_path / f"{height}-B.png"
        for path, value in zip(paths, (60, 230), strict=True):
            image[30:40, 50:60] = value
            Image.fromarray(np.tile(image, (height // 256, 1, 1))).save(path, compress_level=1)
        if not peaks:
            check = measure_pair(open_pair(*paths))
        tracemalloc.start()
        result = write_detection(*paths, tmp_path / "out", detector=Brighter(), config=TILES, progress=QUIET)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert result.summary.objects == height // 256
    assert peaks[2] < 1.2 * peaks[1] and peaks[2] < 6400 * 96 * 4, "less than one map"


@pytest.mark.parametrize("gsd_m", [0.0, 1e-300, 1e300, float("nan")])
def test_pixels_of_a_size_that_nothing_can_be_computed_with_are_refused(gsd_m):
    """The square of the one is 0, that of the other infinite."""
    with pytest.raises(ConfigError, match="gsd_m"):
        DetectionConfig(gsd_m=gsd_m)
