"""Files that other programs write: the right pixels of each, for the truth of a map and for training patches."""

from __future__ import annotations

import sqlite3
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp

from semicdvl.data.images.reading import read_opaque, read_rgb
from semicdvl.data.labels.files import read_mask
from semicdvl.data.pair_checks import check_pair_files
from semicdvl.data.prepare.polygon_layer import read_polygons
from semicdvl.errors import InputError
from semicdvl.evaluation.map_vs_truth import read_truth
from semicdvl.raster.grid import Grid
from semicdvl.raster.io.georeference_warnings import ignore_not_georeferenced
from semicdvl.raster.io.open_pair import open_pair
from semicdvl.types import IGNORE, PairFiles

HEIGHT, WIDTH = 60, 80
UTM = rasterio.CRS.from_epsg(32614)
CORNER = Affine(0.5, 0, 600_000, 0, -0.5, 3_350_000)
GRID = Grid(UTM, CORNER, HEIGHT, WIDTH)
CHANGED = shapely.box(600_010, 3_349_985, 600_025, 3_349_995)
TRUTH_HW = np.zeros((HEIGHT, WIDTH), np.uint8)
TRUTH_HW[10:30, 20:50] = 1
LEFT_HW = np.broadcast_to(np.arange(WIDTH) < 5, (HEIGHT, WIDTH))
IMAGE_CHW = np.random.default_rng(0).integers(40, 200, (3, HEIGHT, WIDTH)).astype(np.uint8)


def write(path: Path, data: np.ndarray, *, crs: Any = UTM, transform: Affine | None = CORNER, **extra: Any) -> Path:
    """Write a raster HW or CHW."""
    data_CHW = data if data.ndim == 3 else data[None]
    profile = {"driver": "GTiff", "dtype": data_CHW.dtype, "count": len(data_CHW), "height": HEIGHT, "width": WIDTH}
    with rasterio.open(path, "w", crs=crs, transform=transform, **profile | extra) as target:
        target.write(data_CHW)
    return path


def count(map_HW: np.ndarray) -> tuple[int, int, int]:
    """Return the pixels that are unchanged, changed and not known."""
    return int((map_HW == 0).sum()), int((map_HW == 1).sum()), int((map_HW == IGNORE).sum())


def read(path: Path, grid: Grid = GRID, **more: Any) -> np.ndarray:
    return read_truth(path, grid=grid, **more).read_strip(grid, 0)[0]


# ------------------------------------------------------------------------------------------------ masks
def write_grey_alpha(path: Path, nodata: int | None) -> Path:
    return write(
        path, np.stack([TRUTH_HW * 255, np.where(LEFT_HW, 0, 255).astype(np.uint8)]), alpha="YES", nodata=nodata
    )


def write_masked(path: Path) -> Path:
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(write(path, TRUTH_HW), "r+") as target:
        target.write_mask(~LEFT_HW)
    return path


def write_located_by_points(path: Path) -> Path:
    """A mask with control points in place of a geotransform."""
    corners = [(0, 0), (0, WIDTH), (HEIGHT, 0), (HEIGHT, WIDTH)]
    points = [GroundControlPoint(row, col, *(CORNER @ (col, row))) for row, col in corners]
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "height": HEIGHT, "width": WIDTH}
    with ignore_not_georeferenced(), rasterio.open(path, "w", **profile) as target:
        target.write(TRUTH_HW, 1)
        target.gcps = (points, UTM)
    return path


HIDDEN = (3900, 600, 300)
MASKS: dict[str, tuple[Callable[[Path], Path], tuple[int, int, int]]] = {
    "grey and alpha": (lambda path: write_grey_alpha(path, None), HIDDEN),
    "grey and alpha, no data 0": (lambda path: write_grey_alpha(path, 0), HIDDEN),
    "internal mask": (write_masked, HIDDEN),
    "1 bit, no data 0": (lambda path: write(path, TRUTH_HW, NBITS=1, nodata=0), (4200, 600, 0)),
    "negative no data": (
        lambda path: write(path, np.where(LEFT_HW, np.int16(-32768), TRUTH_HW.astype(np.int16)), nodata=-32768),
        HIDDEN,
    ),
    "fractions, NaN": (lambda path: write(path, np.where(LEFT_HW, np.float32("nan"), TRUTH_HW)), HIDDEN),
    "fractions, infinite": (lambda path: write(path, np.where(LEFT_HW, np.float32("inf"), TRUTH_HW)), HIDDEN),
    "fractions, least float": (
        lambda path: write(path, np.where(LEFT_HW, np.float32(-3.4e38), TRUTH_HW).astype(np.float32), nodata=-3.4e38),
        HIDDEN,
    ),
    "south up": (
        lambda path: write(path, TRUTH_HW[::-1], transform=Affine(0.5, 0, 600_000, 0, 0.5, 3_349_970)),
        (4200, 600, 0),
    ),
    "control points": (write_located_by_points, (4200, 600, 0)),
    "pixel is point": (lambda path: tag_point(write(path, TRUTH_HW)), (4200, 600, 0)),
    "compound CRS": (
        lambda path: write(path, TRUTH_HW, crs=rasterio.CRS.from_user_input("EPSG:32614+5703")),
        (4200, 600, 0),
    ),
    "CRS as text": (
        lambda path: write(path, TRUTH_HW, crs=rasterio.CRS.from_string("+proj=utm +zone=14 +datum=WGS84 +units=m")),
        (4200, 600, 0),
    ),
}


def tag_point(path: Path) -> Path:
    with rasterio.open(path, "r+") as target:
        target.update_tags(AREA_OR_POINT="Point")
    return write(path, TRUTH_HW) if rasterio.open(path).transform != CORNER else path


@pytest.mark.parametrize("name", MASKS)
def test_mask(tmp_path, name):
    make, wanted = MASKS[name]
    found_HW = read(make(tmp_path / "truth.tif"))
    assert count(found_HW) == wanted
    assert (found_HW[10:30, 20:50] == 1).all(), "and in its place"


def test_rotated_mask_covers_what_it_shows(tmp_path):
    turned = Affine.translation(600_010, 3_349_990) @ Affine.rotation(10) @ Affine.scale(0.5, -0.5)
    unchanged, changed, unknown = count(read(write(tmp_path / "truth.tif", TRUTH_HW, transform=turned)))
    assert abs(changed - 600) <= 6 and unchanged + changed + unknown == HEIGHT * WIDTH and unknown > 2000


@pytest.mark.parametrize("values", [(0, 1, 2), (0, -1), (0, 1, 256), (0, 1, -9999)])
def test_masks_of_other_values_are_refused_and_none_is_cut_to_8_bits(tmp_path, values):
    data_HW = TRUTH_HW.astype(np.int32) * values[1]
    if len(values) > 2:
        data_HW[LEFT_HW] = values[2]
    path = write(tmp_path / "mask.tif", data_HW.astype(np.int16))
    with pytest.raises(InputError, match=rf"is a label with the values .*{values[-1]}"):
        read_mask(path)
    if len(values) > 2:
        assert count(read_mask(path, label_values={0: 0, 1: 1, values[2]: IGNORE})) == HIDDEN


# ------------------------------------------------------------------------------------------------ polygons
def write_curve(path: Path) -> Path:
    """A circle with a radius of 5 m, as a CURVEPOLYGON."""
    gpd.GeoDataFrame(geometry=[CHANGED], crs=UTM.to_wkt()).to_file(path, layer="c")
    points = [(600_015, 3_349_985), (600_020, 3_349_990), (600_025, 3_349_985), (600_020, 3_349_980)]
    ring = b"".join(struct.pack("<dd", *point) for point in (*points, points[0]))
    shape = struct.pack("<BII", 1, 10, 1) + struct.pack("<BII", 1, 8, 5) + ring
    connection = sqlite3.connect(path)
    for (trigger,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        connection.execute(f'DROP TRIGGER "{trigger}"')
    connection.execute("UPDATE c SET geom = ?", (b"GP\0\x01" + struct.pack("<i", 32614) + shape,))
    connection.execute("UPDATE gpkg_geometry_columns SET geometry_type_name = 'CURVEPOLYGON'")
    connection.commit()
    connection.close()
    return path


def test_curves_and_heights(tmp_path):
    circle = read(write_curve(tmp_path / "curve.gpkg")) == 1
    assert abs(int(circle.sum()) - np.pi * 100) < 6, "10 px radius"
    gpd.GeoDataFrame(geometry=[shapely.force_3d(CHANGED, 7.0)], crs=32614).to_file(tmp_path / "z.gpkg")
    assert (read(tmp_path / "z.gpkg") == TRUTH_HW).all()


@pytest.mark.parametrize("crs", ["EPSG:4326", "OGC:CRS84", "EPSG:3035", "EPSG:6340", "EPSG:32614+5703"])
def test_axes_of_the_polygons_crs_are_those_of_their_coordinates(tmp_path, crs):
    gpd.GeoDataFrame(geometry=[CHANGED], crs=32614).to_crs(crs).to_file(tmp_path / "truth.gpkg")
    assert (read(tmp_path / "truth.gpkg") == TRUTH_HW).all()


@pytest.mark.parametrize("crs", [4326, 32601, "whole"])
@pytest.mark.parametrize("side", [1, -1])
def test_polygons_on_both_sides_of_the_antimeridian(tmp_path, crs, side):
    """The images reach from 179.998 to 180.006 degrees, or from -180.002 to -179.994."""
    grid = Grid(rasterio.CRS.from_epsg(4326), Affine(1e-4, 0, side * 180 - 0.002, 0, -1e-4, 10.0), HEIGHT, WIDTH)
    west, east = shapely.box(179.9985, 9.995, 180, 9.998), shapely.box(-180, 9.995, -179.996, 9.998)
    other = shapely.box(-179.9958, 9.9945, -179.9948, 9.9948)  # east of the meridian only
    frame = gpd.GeoDataFrame(geometry=[shapely.MultiPolygon([west, east]), other], crs=4326)
    if crs == "whole":  # one ring whose longitudes jump
        ring = [(179.9985, 9.995), (-179.996, 9.995), (-179.996, 9.998), (179.9985, 9.998)]
        frame = gpd.GeoDataFrame(geometry=[shapely.Polygon(ring), other], crs=4326)
    elif crs == 32601:
        frame = frame.to_crs(crs)
    frame.to_file(tmp_path / "truth.gpkg")
    wanted_HW = np.zeros((HEIGHT, WIDTH), bool)
    wanted_HW[20:50, 5:60] = wanted_HW[52:55, 62:72] = True
    found_HW = read(tmp_path / "truth.gpkg", grid) == 1
    assert (found_HW != wanted_HW).sum() <= (0 if crs != 32601 else 12)
    assert read_polygons(tmp_path / "truth.gpkg", grid=grid).outside == 0


def test_archive_with_layers_in_a_folder(tmp_path):
    frame = gpd.GeoDataFrame(geometry=[CHANGED], crs=32614)
    for name in ("one", "two"):
        frame.to_file(tmp_path / f"{name}.shp")

    def pack(target: str, *places: str) -> Path:
        with zipfile.ZipFile(tmp_path / target, "w") as archive:
            for place in places:
                for suffix in ("shp", "shx", "dbf", "prj"):
                    archive.write(tmp_path / f"{Path(place).name}.{suffix}", f"{place}.{suffix}")
        return tmp_path / target

    assert (read(pack("a.zip", "delivery/ü 1/one")) == TRUTH_HW).all()
    both = pack("b.zip", "delivery/one", "delivery/two")
    with pytest.raises(InputError, match="holds 2 layers: one, two"):
        read(both)
    assert (read(both, layer="two") == TRUTH_HW).all()
    with pytest.raises(InputError, match="holds layers in 2 folders"):
        read_polygons(pack("c.zip", "x/one", "y/two"), grid=GRID)


# ------------------------------------------------------------------------------------------------ images
def test_colour_that_is_tagged_as_transparent_is_no_data_in_training_and_detection(tmp_path):
    marked_HWC = IMAGE_CHW.transpose(1, 2, 0).copy()
    marked_HWC[LEFT_HW] = (255, 0, 255)
    Image.fromarray(marked_HWC).save(tmp_path / "rgb.png", transparency=(255, 0, 255))
    Image.fromarray(np.where(LEFT_HW, 255, IMAGE_CHW[0]).astype(np.uint8)).save(tmp_path / "grey.png", transparency=255)
    numbers = Image.fromarray(np.where(LEFT_HW, 9, IMAGE_CHW[0] // 40).astype(np.uint8), mode="P")
    numbers.putpalette([value for at in range(256) for value in (at * 9 % 256, at * 5 % 256, at)])
    numbers.save(tmp_path / "palette.png", transparency=9)
    for name in ("rgb", "grey", "palette"):
        opaque_HW = read_opaque(tmp_path / f"{name}.png")
        assert opaque_HW is not None and (~opaque_HW == LEFT_HW).all(), name
    with open_pair(tmp_path / "rgb.png", tmp_path / "rgb.png") as pair:
        assert (~pair.read(0, 0, HEIGHT, WIDTH).valid_HW == LEFT_HW).all()
    Image.fromarray(marked_HWC).save(tmp_path / "plain.png")
    assert read_opaque(tmp_path / "plain.png") is None
    Image.fromarray(marked_HWC).save(tmp_path / "plain.png", transparency=(255, 0, 255))  # written anew
    assert (~read_opaque(tmp_path / "plain.png") == LEFT_HW).all()


@pytest.mark.parametrize("crs", ["EPSG:32614+5703", "ESRI"])
def test_crs_with_heights_or_in_other_words_is_the_same_ground(tmp_path, crs):
    """It is neither resampled nor refused."""
    other = UTM.to_wkt(version="WKT1_ESRI") if crs == "ESRI" else crs
    first = write(tmp_path / "a.tif", IMAGE_CHW)
    second = write(tmp_path / "b.tif", IMAGE_CHW[:, ::-1], crs=rasterio.CRS.from_user_input(other))
    check_pair_files(PairFiles("x", first, second))
    with open_pair(first, second) as pair:
        assert pair.notes == () and not pair.after.warped and pair.gsd_m == 0.5
        assert (pair.read(0, 0, HEIGHT, WIDTH).t2_HWC == IMAGE_CHW[:, ::-1].transpose(1, 2, 0)).all()
    elsewhere = write(tmp_path / "c.tif", IMAGE_CHW, crs=rasterio.CRS.from_epsg(32615))
    with pytest.raises(InputError, match=r"c\.tif: has another CRS \(EPSG:32615\) than a\.tif \(EPSG:32614\)"):
        check_pair_files(PairFiles("x", first, elsewhere))


@pytest.mark.parametrize(
    ("suffix", "extra"), [("tif", {"BIGTIFF": "YES"}), ("jp2", {"QUALITY": "100", "REVERSIBLE": "YES"})]
)
def test_large_tiff_and_lossless_jpeg_2000(tmp_path, suffix, extra):
    driver = {"jp2": {"driver": "JP2OpenJPEG"}}.get(suffix, {})
    path = write(tmp_path / f"a.{suffix}", IMAGE_CHW, **driver, **extra)
    wanted_HWC = IMAGE_CHW.transpose(1, 2, 0)
    assert (read_rgb(path) == wanted_HWC).all()
    with open_pair(path, path) as pair:
        assert (pair.read(0, 0, HEIGHT, WIDTH).t1_HWC == wanted_HWC).all()


def test_infinite_values_are_no_data_and_a_constant_band_is_black(tmp_path):
    values = IMAGE_CHW.astype(np.float32)
    values[:, LEFT_HW] = np.inf
    values[2][~LEFT_HW] = 0.25
    path = write(tmp_path / "a.tif", values)
    opaque_HW = read_opaque(path)
    assert opaque_HW is not None and (~opaque_HW == LEFT_HW).all()
    with open_pair(path, path) as pair:
        window = pair.read(0, 0, HEIGHT, WIDTH)
        assert (~window.valid_HW == LEFT_HW).all() and not window.t1_HWC[..., 2].any()
        assert np.ptp(window.t1_HWC[..., 0][~LEFT_HW]) > 250
    assert ColorInterp.alpha not in rasterio.open(path).colorinterp
