"""A layer that is read in batches from a spool has the rows of one that is made at once, and so have its files."""

from __future__ import annotations

import tracemalloc
import weakref
from collections.abc import Iterator
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from affine import Affine
from geopandas.testing import assert_geodataframe_equal
from rasterio.crs import CRS

from semicdvl.raster.grid import Grid
from semicdvl.raster.vector import object_layer, object_spool
from semicdvl.raster.vector.files import write_vector
from semicdvl.raster.vector.formats import VECTOR_FORMATS
from semicdvl.raster.vector.object_layer import ObjectLayer
from semicdvl.raster.vector.object_spool import ObjectSpool
from semicdvl.raster.vector.object_stats import ObjectStats
from semicdvl.raster.vector.qgis_style import CHANGE_KIND_STYLE
from semicdvl.raster.vector.streaming_objects import ObjectCollector
from semicdvl.types import ChangeMap

CLASSES = ("house", "road", "grass")
GRIDS = {
    "metres": (CRS.from_epsg(32633), Affine(0.5, 0, 366_676.3, 0, -0.5, 4_104_256.7)),
    "degrees": (CRS.from_epsg(4326), Affine(1e-5, 0, 13.0, 0, -1e-5, 47.0)),
    "pixels": (None, Affine.identity()),
}


def make_layer(place: str, *, classes: bool = True, batch: int = object_layer.BATCH, seed: int = 0) -> ObjectLayer:
    crs, transform = GRIDS[place]
    rng, shape = np.random.default_rng(seed), (60, 70)
    change_HW = (rng.random(shape) < 0.15).astype(np.uint8)
    dates = rng.integers(0, 3, (2, *shape)).astype(np.uint8) if classes else (None, None)
    collector = ObjectCollector(Grid(crs, transform, *shape))
    names = {"classes": CLASSES, "foreground": (0,)} if classes else {}
    for row in range(0, 60, 20):
        cut = np.s_[row : row + 20]
        t1_HW, t2_HW = (None if date_HW is None else date_HW[cut] for date_HW in dates)
        score_HW = rng.random((20, 70)).astype(np.float32)
        collector.add_strip(ChangeMap(change_HW[cut], score_HW, t1_HW=t1_HW, t2_HW=t2_HW, **names))
    spool = collector._get_spool()
    return ObjectLayer(spool, object_layer.LayerSettings(collector.grid, collector.classes, collector.foreground),
                       batch=batch)  # fmt: skip


@pytest.mark.parametrize("place", GRIDS)
@pytest.mark.parametrize("classes", [True, False])
def test_batches_are_the_rows_of_the_whole_layer(place: str, classes: bool) -> None:
    whole, cut = make_layer(place, classes=classes), make_layer(place, classes=classes, batch=7)
    frames = list(cut.iterate_frames())
    assert len(frames) > 20 and {len(frame) for frame in frames[:-1]} == {7}
    pd.testing.assert_frame_equal(pd.concat(frames, ignore_index=True), whole.frame)
    assert sorted(cut.number_N) == list(range(1, len(whole) + 1))
    area = whole.frame["area_px" if place == "pixels" else "area_m2"]
    np.testing.assert_array_equal(cut.area_N, area)
    for rank in (0, 5, len(cut) - 1):
        np.testing.assert_array_equal(cut.read_box(rank), whole.read_box(rank))
        assert cut.read_rows(rank, rank + 1)["id"].item() == whole.frame["id"][rank]


def test_sums_are_those_of_the_rows() -> None:
    layer = make_layer("metres", batch=7)
    frame = layer.frame
    assert list(layer.count_kinds().items()) == list(frame["kind"].value_counts().items())
    kinds = ("appeared", "disappeared", "replaced", "changed")
    assert [kinds[code] for code in layer.code_kinds(kinds)] == list(frame["kind"])
    groups = frame.groupby(["kind", "from_class", "to_class"], dropna=False)["area_m2"].agg(["count", "sum"])
    assert [(one.kind, one.from_class, one.to_class) for one in layer.groups] == list(groups.index)
    assert [one.count for one in layer.groups] == list(groups["count"])
    assert [one.area for one in layer.groups] == pytest.approx(list(groups["sum"]))


def read(path: Path) -> gpd.GeoDataFrame:
    return gpd.read_parquet(path) if path.suffix == ".parquet" else gpd.read_file(path, layer="changes")


@pytest.mark.parametrize("place", GRIDS)
@pytest.mark.parametrize("kind", VECTOR_FORMATS)
def test_files_hold_the_same_rows_in_the_same_order(kind: str, place: str, tmp_path: Path) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    whole, cut = tmp_path / f"whole.{kind}", tmp_path / f"cut.{kind}"
    write_vector(whole, make_layer(place).frame, style=CHANGE_KIND_STYLE)
    for path in (cut, tmp_path / f"again.{kind}"):
        write_vector(path, make_layer(place, batch=11).iterate_frames(), style=CHANGE_KIND_STYLE)
    assert_geodataframe_equal(read(cut), read(whole))
    assert cut.read_bytes() == (tmp_path / f"again.{kind}").read_bytes(), "the same polygons give the same bytes"
    if kind == "geojson":
        assert cut.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        f"{name}.{suffix}" for name in ("again", "cut", "whole") for suffix in (kind, "qml")
    )


def test_a_format_of_a_plug_in_gets_all_rows_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Plain:
        def write(self, path: Path, frame: gpd.GeoDataFrame, **_: object) -> None:
            seen.append(frame)

    monkeypatch.setattr("semicdvl.raster.vector.files.get_vector_format", lambda _: Plain())
    write_vector(tmp_path / "a.own", make_layer("metres", batch=11).iterate_frames())
    pd.testing.assert_frame_equal(seen[0], make_layer("metres").frame)


def measure_peak_bytes(count: int, tmp_path: Path) -> int:
    """Return the memory that a layer of many objects takes to be made, read in batches and summed."""
    square = shapely.multipolygons([shapely.box(0, 0, 1, 1)])
    tracemalloc.start()
    spool = ObjectSpool(classes=0, folder=tmp_path)
    for start in range(0, count, 500):
        block_N = np.arange(start, start + 500)
        stats = ObjectStats(
            block_N, np.ones(500, np.int64), np.ones(500), np.ones(500), np.zeros((2, 500, 0), np.int64),
            np.zeros((500, 4), np.int64), np.zeros(500), np.zeros((2, 500, 0)),
        )  # fmt: skip
        spool.add(stats, [shapely.affinity.translate(square, float(at), 0.0) for at in block_N])
    layer = ObjectLayer(spool, object_layer.LayerSettings(Grid(None, Affine.identity(), 9, 9)), batch=500)
    assert sum(len(frame) for frame in layer.iterate_frames()) == len(layer) == count
    assert layer.count_kinds() == {"changed": count}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_number_of_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_spool, "MEMORY_BYTES", 2**16)
    few, many = (measure_peak_bytes(count, tmp_path) for count in (2_000, 16_000))
    assert many - few < 100 * 14_000, "bytes an object, where each row takes 4,000"


def test_batches_hold_few_large_outlines(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make_layer("metres")
    sizes = [len(shapely.to_wkb(outline)) for outline in whole.frame.geometry]
    monkeypatch.setattr(object_layer, "BATCH_BYTES", 2 * max(sizes))
    frames = list(make_layer("metres").iterate_frames())
    assert 1 < len(frames) < len(sizes)
    for frame in frames:
        assert sum(len(shapely.to_wkb(outline)) for outline in frame.geometry) <= 2 * max(sizes)
    pd.testing.assert_frame_equal(pd.concat(frames, ignore_index=True), whole.frame)
    monkeypatch.setattr(object_layer, "BATCH_BYTES", 1)
    assert [len(frame) for frame in make_layer("metres").iterate_frames()] == [1] * len(sizes)


def test_batches_are_gone_once_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, most = list[weakref.ref[pd.DataFrame]](), 0

    def watch() -> Iterator[pd.DataFrame]:
        nonlocal most
        for frame in make_layer("metres", batch=7).iterate_frames():
            seen.append(weakref.ref(frame))
            most = max(most, sum(one() is not None for one in seen))
            yield frame
            del frame

    write_vector(tmp_path / "a.gpkg", watch())
    assert len(seen) > 6 and most <= 2  # the one that is being written and the next one
