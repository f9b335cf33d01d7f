import json
import os
import resource
import signal
import warnings
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.errors import NotGeoreferencedWarning
from rasterio.features import rasterize
from scipy import ndimage

from semicdvl.errors import ConfigError, OutputError
from semicdvl.raster.connected_components import find_objects
from semicdvl.raster.grid import Grid
from semicdvl.raster.io.cog import BandDescription, create_cog
from semicdvl.raster.vector.files import write_vector
from semicdvl.raster.vector.object_table import build_object_frame

UTM = Grid(rasterio.CRS.from_epsg(32615), Affine(0.5, 0, 366676, 0, -0.5, 4104256), 70, 90)
DEGREES = Grid(rasterio.CRS.from_epsg(4326), Affine(6e-6, 0, -94.5, 0, -6e-6, 37.07), 70, 90)
PLAIN = Grid(None, Affine.identity(), 70, 90)


def noise(grid: Grid, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((grid.height, grid.width)).astype(np.float32)


def write_cog(path: Path, array: np.ndarray, *, grid: Grid, rows: int = 100, **band) -> None:
    """Write an array rows by rows."""
    with create_cog(path, grid=grid, band=BandDescription(str(array.dtype), **band)) as cog:
        for row in range(0, len(array), rows):
            cog.write_rows(row, array[row : row + rows])


# ------------------------------------------------------------------------------------------------ rasters
def test_cog_keeps_grid_values_nodata_colours_and_tags(tmp_path):
    grid = UTM.window(0, 0, 1100, 1300)
    classes = np.random.default_rng(0).integers(0, 3, (1100, 1300), dtype=np.uint8)
    classes[:9] = 255
    path = tmp_path / "t1.tif"
    write_cog(path, classes, grid=grid, nodata=255, colours=[(9, 8, 7), (1, 2, 3)], tags={"CLASS_1": "roof"})
    with rasterio.open(path) as source:
        assert (source.read(1) == classes).all()
        assert source.crs == grid.crs and source.transform == grid.transform and source.nodata == 255
        assert source.colormap(1)[1] == (1, 2, 3, 255) and source.tags()["CLASS_1"] == "roof"
        assert source.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG" and source.overviews(1)
        assert source.block_shapes == [(512, 512)] and source.compression.value == "DEFLATE"
    assert [entry.name for entry in tmp_path.iterdir()] == ["t1.tif"]


def test_float_cog_has_nan_for_no_data(tmp_path):
    score = noise(UTM)
    score[3, 5] = np.nan
    write_cog(tmp_path / "score.tif", score, grid=UTM, nodata=float("nan"))
    with rasterio.open(tmp_path / "score.tif") as source:
        assert np.array_equal(source.read(1), score, equal_nan=True) and np.isnan(source.nodata)
        assert source.tags(ns="IMAGE_STRUCTURE")["PREDICTOR"] == "3"
        assert (source.dataset_mask() > 0).sum() == score.size - 1


def test_plain_cog_has_no_crs_and_says_so(tmp_path):
    write_cog(tmp_path / "change.tif", np.ones((70, 90), np.uint8), grid=PLAIN, nodata=255)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(tmp_path / "change.tif") as source:
            assert source.crs is None and "no CRS" in source.tags()["NOTE"]


def test_same_input_same_bytes_however_it_comes(tmp_path):
    grid = UTM.window(0, 0, 700, 530)
    for name, rows in (("a.tif", 700), ("b.tif", 700), ("c.tif", 77)):
        write_cog(tmp_path / name, noise(grid), grid=grid, rows=rows, nodata=float("nan"))
    first = (tmp_path / "a.tif").read_bytes()
    assert first == (tmp_path / "b.tif").read_bytes() == (tmp_path / "c.tif").read_bytes()


def test_pixels_that_were_written_can_be_cleared(tmp_path):
    with create_cog(tmp_path / "change.tif", grid=UTM, band=BandDescription("uint8", 255)) as cog:
        cog.write_rows(0, np.ones((70, 90), np.uint8))
        cog.clear_pixels(60, 3, np.array([[True, False, True]]))
    with rasterio.open(tmp_path / "change.tif") as source:
        values = source.read(1)
    assert values[60, 3] == values[60, 5] == 0 and values.sum() == 70 * 90 - 2


def test_what_fails_leaves_nothing(tmp_path):
    with (
        pytest.raises(KeyError),
        create_cog(tmp_path / "change.tif", grid=UTM, band=BandDescription("uint8", 255)) as cog,
    ):
        cog.write_rows(0, np.ones((7, 90), np.uint8))
        raise KeyError
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def full_disk():
    """Let no file of this process grow over 100 KB: writes fail as on a full disk."""
    old_limit, old_handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, old_limit[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, old_limit)
    signal.signal(signal.SIGXFSZ, old_handler)


@pytest.mark.parametrize("kind", ["raster", "vector"])
def test_full_disk_is_one_error_and_nothing_is_left(tmp_path, full_disk, kind):
    grid = UTM.window(0, 0, 200, 300)
    objects = find_objects((noise(grid) > 0.9).astype(np.uint8))
    with pytest.raises(OutputError, match="cannot be written"):
        if kind == "raster":
            write_cog(tmp_path / "score.tif", noise(grid), grid=grid, nodata=float("nan"))
        else:
            write_vector(tmp_path / "changes.gpkg", build_object_frame(objects, grid=grid, score_HW=noise(grid)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder_is_one_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="cannot be written"):
        write_cog(tmp_path / "score.tif", noise(UTM), grid=UTM, nodata=float("nan"))


def test_folder_that_cannot_be_made_is_one_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        write_cog(tmp_path / "file" / "score.tif", noise(UTM), grid=UTM, nodata=float("nan"))


# ------------------------------------------------------------------------------------------------ objects
def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Four objects: appeared, disappeared, replaced, and two squares that touch at a corner (not known: one object)."""
    change, t1, t2 = (np.zeros((70, 90), np.uint8) for _ in range(3))
    t1[:], t2[:] = 2, 3  # road, grass
    for rows, cols, start, end in (
        (slice(2, 12), slice(3, 23), 3, 0),
        (slice(20, 26), slice(40, 47), 1, 2),
        (slice(50, 60), slice(60, 80), 0, 1),
        (slice(40, 42), slice(5, 7), 2, 3),
        (slice(42, 45), slice(7, 10), 2, 3),
    ):
        change[rows, cols], t1[rows, cols], t2[rows, cols] = 1, start, end
    change[65:, :] = 255
    score = np.where(change == 1, 0.25, 0).astype(np.float32)
    score[5, 5] = 0.75
    return change, score, t1, t2


CLASSES = ("house", "building", "road", "grass")


def frame_of(grid: Grid, **more):
    change, score, t1, t2 = scene()
    objects = find_objects(change)
    given = {"t1_HW": t1, "t2_HW": t2, "classes": CLASSES, "foreground": (0, 1)} | more
    return objects, build_object_frame(objects, grid=grid, score_HW=score, **given)


def test_rows_say_what_happened():
    objects, frame = frame_of(UTM)
    assert len(objects) == 4 and frame["area_m2"].is_monotonic_decreasing
    rows = frame.set_index("id")
    assert rows["kind"].to_dict() == {1: "appeared", 2: "disappeared", 3: "changed", 4: "replaced"}
    assert rows.loc[1, ["from_class", "to_class"]].tolist() == ["grass", "house"]
    assert rows.loc[1, "area_m2"] == 50 and rows.loc[1, "perimeter_m"] == 30
    assert rows.loc[1, "score_max"] == 0.75 and rows.loc[1, "score"] == pytest.approx(0.2525, abs=1e-4)
    assert rows.loc[3, "area_m2"] == 13 * 0.25 and rows.loc[3].geometry.geom_type == "MultiPolygon"
    assert frame.is_valid.all() and frame.crs.to_epsg() == 32615


def test_without_classes_the_kind_is_changed():
    _, frame = frame_of(UTM, t1_HW=None, t2_HW=None, classes=(), foreground=())
    assert set(frame["kind"]) == {"changed"} and frame["from_class"].isna().all()


def test_class_is_taken_within_the_winning_concept():
    change = np.ones((1, 20), np.uint8)
    t1 = np.full((1, 20), 3, np.uint8)
    t2 = np.array([[0] * 7 + [1] * 5 + [2] * 8], np.uint8)  # 35 % house, 25 % building, 40 % road
    score = np.ones((1, 20), np.float32)
    frame = build_object_frame(
        find_objects(change), grid=UTM, score_HW=score, t1_HW=t1, t2_HW=t2, classes=CLASSES, foreground=(0, 1)
    )
    assert frame.loc[0, ["kind", "to_class"]].tolist() == ["appeared", "house"]


def test_areas_are_metres_on_the_ground_in_degrees_and_mercator():
    _, frame = frame_of(DEGREES)
    wanted = (DEGREES.gsd_m or 0) ** 2
    assert frame.set_index("id").loc[1, "area_m2"] == pytest.approx(200 * wanted, rel=0.005)
    mercator = Grid(rasterio.CRS.from_epsg(3857), Affine(1.0, 0, 1_000_000, 0, -1.0, 8_399_738), 70, 90)  # 60 deg N
    _, frame = frame_of(mercator)
    assert frame.set_index("id").loc[1, "area_m2"] == pytest.approx(200 / 4, rel=0.02)
    assert frame.set_index("id").loc[1, "perimeter_m"] == pytest.approx(60 / 2, rel=0.02)


def test_without_crs_areas_are_pixels_unless_the_size_is_told():
    _, frame = frame_of(PLAIN)
    assert frame.set_index("id").loc[1, ["area_px", "perimeter_px"]].tolist() == [200, 60]
    _, frame = frame_of(PLAIN, gsd_m=0.2)
    assert frame.set_index("id").loc[1, "area_m2"] == pytest.approx(8) and "area_px" not in frame


@given(st.integers(0, 10_000), st.integers(2, 30), st.integers(2, 40))
@settings(max_examples=40, deadline=None)
def test_polygons_burn_back_to_the_mask(seed, height, width):
    change = (ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(height, width)), 1) > 0.1).astype(
        np.uint8
    )
    grid = UTM.window(0, 0, height, width)
    objects = find_objects(change)
    frame = build_object_frame(objects, grid=grid, score_HW=noise(grid))
    labels, count = ndimage.label(change, np.ones((3, 3)))
    assert len(frame) == count and frame.is_valid.all()
    assert frame["area_m2"].sum() == pytest.approx(change.sum() * 0.25)
    if count:
        shapes = zip(frame.geometry, frame["id"], strict=True)
        burnt = rasterize(shapes, out_shape=change.shape, transform=grid.transform, dtype="int32")
        assert (burnt == objects.labels_HW).all() and ((labels > 0) == (burnt > 0)).all()


def test_small_objects_are_left_out():
    change = scene()[0]
    assert len(find_objects(change, min_area_px=14)) == 3
    assert len(find_objects(change, min_area_px=13)) == 4
    assert find_objects(change, min_area_px=14).area_px.tolist() == [6300 - 442, 200, 42, 200]


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".fgb"])
@pytest.mark.parametrize("empty", [False, True])
def test_vector_files_read_back(tmp_path, suffix, empty):
    _, frame = frame_of(UTM)
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
    _, frame = frame_of(PLAIN)
    write_vector(tmp_path / "changes.gpkg", frame)
    assert gpd.read_file(tmp_path / "changes.gpkg").crs is None


def test_unknown_suffix_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="gpkg"):
        write_vector(Path(tmp_path / "changes.shp"), frame_of(UTM)[1])
