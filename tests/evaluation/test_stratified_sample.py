"""Places drawn by the classes of a map, and what they say of the whole map."""

from __future__ import annotations

import shutil
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.reference_maps import (
    GSD,
    REAL,
    UTM,
    on_map,
    vectors,
)

from semicdvl.errors import ConfigError, DataError, InputError
from semicdvl.evaluation import map_vs_truth as truth_module
from semicdvl.evaluation.evaluate import draw_reference_sample, score_map
from semicdvl.evaluation.map_vs_truth import DetectedMap
from semicdvl.evaluation.stratified_sample import draw_stratified_sample
from semicdvl.types import IGNORE


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
    path = draw_reference_sample(out, count=400, seed=1)
    places = gpd.read_file(path)
    assert places.truth.isna().all() and places.geometry.area.round(6).eq(GSD**2).all()
    with pytest.raises(InputError, match="checked"):
        score_map(out, path)
    with pytest.raises(ConfigError, match="may hold answers"):
        draw_reference_sample(out, count=400)
    centres = places.geometry.centroid
    real = gpd.GeoSeries([on_map(*each) for each in REAL], crs=UTM).union_all()
    places["truth"] = centres.within(real).astype(int)
    places.loc[:9, "truth"] = pd.NA
    for name, geometry in (("checked.gpkg", places.geometry), ("points.fgb", centres)):
        places.set_geometry(geometry).to_file(tmp_path / name)
        done = score_map(out, tmp_path / name)
        assert done.comparison is None and done.sample.checked_count == len(places) - 10
        area = done.accuracy.estimated_areas[1]
        assert abs(area.value - 410 / 4) < 1.5 * area.half_width and area.half_width < 60
        assert done.accuracy.mapped_areas[1] == 500 / 4
        assert done.accuracy.users_accuracies[1].value == pytest.approx(220 / 500, abs=0.2)
    places["truth"] = 3
    places.to_file(tmp_path / "odd.gpkg")
    with pytest.raises(DataError, match="holds 3"):
        score_map(out, tmp_path / "odd.gpkg")


def test_a_sample_of_another_map_is_called_one(out: Path, tmp_path: Path) -> None:
    """Its places are denser on what that map showed as changed, whatever this map shows there."""
    out = Path(shutil.copytree(out, tmp_path / "out", ignore=shutil.ignore_patterns("sample.*")))
    places = gpd.read_file(draw_reference_sample(out, count=60, seed=1))
    places["truth"] = places["map"]
    places.to_file(tmp_path / "same.gpkg")
    assert score_map(out, tmp_path / "same.gpkg").notes == ()
    places.loc[places.index[:3], "map"] = 1 - places["map"][:3]
    places.to_file(tmp_path / "other.gpkg")
    done = score_map(out, tmp_path / "other.gpkg")
    assert done.sample.moved_count == 3
    assert done.notes[0].startswith("Of the sample, 3 places had another class on the map from which it was drawn.")
    places.drop(columns="map").to_file(tmp_path / "own.gpkg")
    assert score_map(out, tmp_path / "own.gpkg").notes == ()


def test_a_sample_of_known_truth_brackets_it(out: Path, tmp_path: Path) -> None:
    done = score_map(out, vectors(tmp_path / "truth.gpkg", REAL), sample=800, seed=2)
    assert done.sample.checked_count == 800 and done.sample.class_px == (80 * 130 - 500, 500)
    area = done.accuracy.estimated_areas[1]
    assert abs(area.value - 410 / 4) < 1.5 * area.half_width
    again = score_map(out, tmp_path / "truth.gpkg", sample=800, seed=2)
    assert again.accuracy.estimated_areas == done.accuracy.estimated_areas
