"""`detect` on what people have: tiles, other grids and bands; and the polygons in the forms they ask for."""

from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from rich.console import Console
from shapely import get_num_coordinates
from tests.support.synthetic_rasters import at, city, tif

from semicdvl.detection.config import DetectionConfig
from semicdvl.detection.detectors.network import NetworkDetector
from semicdvl.detection.pair_check.check import check_image_pair
from semicdvl.detection.pipeline import write_detection
from semicdvl.errors import ConfigError
from semicdvl.types import ChangeMap, Detector

QUIET = Console(quiet=True)


class Differences(Detector):
    """Change is where the bands differ by more than 60 in the mean."""

    name, map_count = "differences", 1

    def predict_scores(self, t1_HWC, t2_HWC, *, gsd_m=None):
        apart_HW = np.abs(t1_HWC.astype(np.float32) - t2_HWC).mean(axis=2) / 255
        return apart_HW[None]

    def decide(self, strips):
        for strip in strips:
            score_HW = np.where(strip.valid_HW, strip.scores_PHW[0], np.nan).astype(np.float32)
            change_HW = np.where(strip.valid_HW, score_HW > 60 / 255, 255).astype(np.uint8)
            yield ChangeMap(change_HW, score_HW)


@pytest.fixture
def dates(tmp_path: Path) -> tuple[Path, Path]:
    """Four bands; before as two tiles, after with a third of the contrast and a slanting house of 60 x 30 px."""
    ground = city(140, 180, bands=4) // 5 * 3
    (tmp_path / "pre").mkdir()
    for row in (0, 70):
        tif(tmp_path / "pre" / f"{row}.tif", ground[:, row : row + 70], at(366676, 4104256 - row / 2))
    after = ground // 3 + 110
    rows, cols = np.mgrid[:140, :180]
    along, across = (cols - 90) * 0.9 + (rows - 70) * 0.43, (rows - 70) * 0.9 - (cols - 90) * 0.43
    after[:, (abs(along) < 30) & (abs(across) < 15)] = 255
    return tmp_path / "pre", tif(tmp_path / "post.tif", after, at(366676, 4104256))


def run(dates: tuple[Path, Path], out: Path, **settings) -> gpd.GeoDataFrame:
    write_detection(*dates, out, detector=Differences(), config=DetectionConfig(tile_px=96, overlap_px=32, **settings),
           progress=QUIET)  # fmt: skip
    return gpd.read_file(out / "changes.gpkg", layer="changes")


def test_matching_the_light_leaves_the_house(dates, tmp_path):
    plain, matched = run(dates, tmp_path / "a"), run(dates, tmp_path / "b", normalise="match", bands=(1, 2, 3, 4))
    house_m2 = matched["area_m2"].iloc[0]
    assert house_m2 == pytest.approx(60 * 30 / 4, rel=0.06) and matched["area_m2"].sum() < 1.1 * house_m2
    assert plain["area_m2"].sum() > 1.1 * house_m2 or len(plain) > len(matched)


def test_polygons_are_drawn_and_written_as_asked(dates, tmp_path):
    out = tmp_path / "out"
    plain = run(dates, tmp_path / "plain", normalise="match", min_area_m2=50)
    square = run(dates, out, normalise="match", min_area_m2=50, regularise=True, polygons=("geojson", "parquet"))
    assert len(square) == len(plain) == 1 and get_num_coordinates(square.geometry[0]) == 5
    assert square["area_m2"][0] == plain["area_m2"][0] and square["perimeter_m"][0] < plain["perimeter_m"][0]
    assert len(gpd.read_file(out / "changes.geojson")) == len(gpd.read_parquet(out / "changes.parquet")) == 1
    assert (out / "changes.qml").read_text().startswith("<!DOCTYPE qgis")
    run(dates, out, normalise="match")  # and all of it counts as an earlier result, which may be replaced
    assert not (out / "changes.geojson").exists()


def test_grid_of_the_after_image(dates, tmp_path):
    shifted = tif(tmp_path / "shifted.tif", city(100, 120), at(366680.2, 4104250.3, 0.75))
    run((dates[0], shifted), tmp_path / "out", grid="after")
    with rasterio.open(tmp_path / "out" / "change.tif") as made:
        assert made.transform.a == 0.75 and (made.transform.c - 366680.2) / 0.75 == pytest.approx(0, abs=1e-6)
    checked = check_image_pair(dates[0], shifted, tmp_path / "check", config=DetectionConfig(grid="after"))
    shares = checked.overlap_before_frac, checked.overlap_after_frac
    assert shares[0] == pytest.approx(checked.overlap_m2 / (140 * 180 * 0.25), rel=0.01)
    assert shares[1] == pytest.approx(checked.height_px * checked.width_px / (100 * 120))


def test_what_would_only_fail_at_the_end_fails_at_once(dates, tmp_path):
    with pytest.raises(ConfigError, match="vector format is unknown"):
        run(dates, tmp_path / "out", polygons=("shp",))
    network = object.__new__(NetworkDetector)
    object.__setattr__(network, "name", "a network")
    with pytest.raises(ConfigError, match=r"accepts 3 bands .*1,2,3,4"):
        write_detection(
            *dates, tmp_path / "out", detector=network, config=DetectionConfig(bands=(1, 2, 3, 4)), progress=QUIET
        )
    assert not (tmp_path / "out").exists()
