"""Polygons as files: four formats, the same bytes for the same objects, and colours that QGIS finds."""

import json
import time
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
from tests.support.object_scenes import PLAIN, UTM, build_plain_frame, build_scene_frame, make_noise

from semicdvl.errors import ConfigError, MissingExtraError, OutputError
from semicdvl.raster.connected_components import find_objects
from semicdvl.raster.vector.files import write_vector
from semicdvl.raster.vector.object_table import build_object_frame
from semicdvl.raster.vector.qgis_style import (
    CHANGE_KIND_STYLE,
)


@pytest.mark.parametrize("grid", [UTM, PLAIN], ids=["utm", "plain"])
def test_parquet_is_geoparquet(tmp_path, grid):
    frame, path = build_plain_frame(grid), tmp_path / "changes.parquet"
    write_vector(path, frame)
    back = gpd.read_parquet(path)
    assert list(back.columns) == list(frame.columns) and back.geometry.geom_equals(frame.geometry).all()
    assert (back.crs is None) == (grid is PLAIN) and (grid is PLAIN or back.crs.to_epsg() == 32615)
    import pyarrow.parquet

    geo = json.loads(pyarrow.parquet.read_schema(path).metadata[b"geo"])
    assert geo["primary_column"] == "geometry" and geo["columns"]["geometry"]["encoding"] == "WKB"


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    frame = build_plain_frame()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"semicdvl\[parquet\]"):
        write_vector(tmp_path / "changes.parquet", frame)
    assert list(tmp_path.iterdir()) == []


def test_geojson_is_rfc_7946(tmp_path):
    frame = build_plain_frame()
    write_vector(tmp_path / "changes.geojson", frame)
    text = json.loads((tmp_path / "changes.geojson").read_text())
    assert "crs" not in text and len(text["features"]) == 5
    for feature in text["features"]:
        for rings in feature["geometry"]["coordinates"]:
            areas = [_signed_area(ring) for ring in rings]
            assert areas[0] > 0 and all(area < 0 for area in areas[1:])  # right-hand rule
            assert -94.6 < rings[0][0][0] < -94.4 and 37.0 < rings[0][0][1] < 37.1
    assert any(len(rings) == 2 for feature in text["features"] for rings in feature["geometry"]["coordinates"])


def _signed_area(ring: list) -> float:
    x, y = np.asarray(ring).T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".fgb", ".parquet"])
def test_same_objects_same_bytes(tmp_path, suffix):
    first, second = tmp_path / f"a{suffix}", tmp_path / "b" / f"a{suffix}"
    write_vector(first, build_plain_frame(), style=CHANGE_KIND_STYLE)
    time.sleep(1.1)  # a GeoPackage's times are whole seconds, or thousandths of them
    write_vector(second, build_plain_frame(), style=CHANGE_KIND_STYLE)
    assert first.read_bytes() == second.read_bytes()
    assert first.with_suffix(".qml").read_bytes() == second.with_suffix(".qml").read_bytes()
    assert sorted(path.name for path in second.parent.iterdir()) == sorted([f"a{suffix}", "a.qml"])


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".fgb"])
@pytest.mark.parametrize("empty", [False, True])
def test_vector_files_read_back(tmp_path, suffix, empty):
    _, frame = build_scene_frame(UTM)
    path = tmp_path / f"changes{suffix}"
    write_vector(path, frame.iloc[:0] if empty else frame)
    back = gpd.read_file(path)
    assert len(back) == (0 if empty else 4)
    if suffix != ".geojson" or not empty:  # an empty GeoJSON holds no columns
        assert list(back.columns) == list(frame.columns)
    if suffix == ".geojson":
        assert json.loads(path.read_text())["type"] == "FeatureCollection"
    elif not empty:
        assert back.sort_values("id")["area_m2"].tolist() == frame.sort_values("id")["area_m2"].tolist()
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_plain_vector_file_has_no_crs(tmp_path):
    _, frame = build_scene_frame(PLAIN)
    write_vector(tmp_path / "changes.gpkg", frame)
    assert gpd.read_file(tmp_path / "changes.gpkg").crs is None


def test_unknown_suffix_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="gpkg"):
        write_vector(Path(tmp_path / "changes.shp"), build_scene_frame(UTM)[1])


def test_full_disk_is_one_error_and_nothing_is_left(tmp_path, full_disk):
    grid = UTM.window(0, 0, 200, 300)
    objects = find_objects((make_noise(grid) > 0.9).astype(np.uint8))
    with pytest.raises(OutputError, match="cannot be written"):
        write_vector(tmp_path / "changes.gpkg", build_object_frame(objects, grid=grid, score_HW=make_noise(grid)))
    assert list(tmp_path.iterdir()) == []
