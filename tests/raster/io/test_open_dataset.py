"""Files that cannot be used: one error that names the file and the remedy, at once and in little memory."""

import struct
import time
import tracemalloc
from pathlib import Path

import pytest
import rasterio
from affine import Affine
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.enums import Resampling
from tests.support.synthetic_rasters import UTM, at, city, tif

from semicdvl.errors import InputError
from semicdvl.raster.io.open_dataset import open_dataset
from semicdvl.raster.io.open_pair import open_pair
from semicdvl.types import ReadingSettings


def refused(before: Path, after: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        with open_pair(before, after) as pair:
            pair.read(0, 0, *pair.shape_hw)
    assert len(caught.value.remedy) > 10 and "previous exception" not in str(caught.value)
    return caught.value


def huge_tiff(path: Path, *, side: int, block: int, striped: bool) -> Path:
    """Write the tags of a TIFF that promise `side` x `side` pixels of RGB, and nothing else."""
    blocks = -(-side // block) if striped else (-(-side // block)) ** 2
    tags = [(256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 2), (277, 3, 1, 3)]
    tags += [(273, 4, blocks, 5000), (278, 4, 1, block), (279, 4, blocks, 9000)] if striped else []
    tags += [] if striped else [(322, 4, 1, block), (323, 4, 1, block), (324, 4, blocks, 5000), (325, 4, blocks, 9000)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0))
    return path


@pytest.mark.parametrize(("block", "striped"), [(512, False), (1, True), (500_000, True)])
def test_huge_header_without_pixels_is_refused_at_once(tmp_path, capfd, block, striped):
    path = huge_tiff(tmp_path / "huge.tif", side=500_000, block=block, striped=striped)
    tracemalloc.start()
    start = time.monotonic()
    error = refused(path, path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert error.path == str(path) and "500,000 x 500,000 px" in error.problem and "gdalinfo" in error.remedy
    assert time.monotonic() - start < 5 and peak < 20e6 and capfd.readouterr().err == ""


def test_huge_png_header_is_refused(tmp_path):
    size = struct.pack(">II", 500_000, 500_000)
    png = tmp_path / "huge.png"
    png.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + size + b"\x08\x02\0\0\0" + b"\0" * 4)
    assert refused(png, png).path == str(png)


def test_truncated_jpeg(tmp_path):
    good, bad = tmp_path / "good.jpg", tmp_path / "bad.jpg"
    Image.fromarray(city(64, 96).transpose(1, 2, 0)).save(good)
    bad.write_bytes(good.read_bytes()[:1500])
    assert "JPEG file is damaged" in refused(good, bad).problem
    with open_pair(good, good) as pair:
        assert pair.shape_hw == (64, 96)


def test_unusable_control_points_are_refused(tmp_path):
    good, two, mosaic = (tif(tmp_path / f"{name}.tif", city(40, 50), at(0, 90)) for name in ("a", "b", "c"))
    tif(two, city(40, 50), crs=UTM, gcps=[GroundControlPoint(0, 0, 100, 90), GroundControlPoint(40, 50, 150, 50)])
    assert "2 ground control points" in refused(good, two).problem
    corners = [GroundControlPoint(row, col, 100 + col, 90 - row) for row in (0, 40) for col in (0, 50)]
    tif(mosaic, city(40, 50), crs=UTM, gcps=corners)
    assert "no grid with north up" in refused(f"{good},{mosaic}", good).problem


@pytest.mark.parametrize(
    "extra", [{}, {"BIGTIFF": "YES"}, {"ENDIANNESS": "BIG"}, {"ENDIANNESS": "BIG", "BIGTIFF": "YES"}]
)
def test_directories_of_a_tiff_end_in_it(tmp_path, extra):
    """Overviews are further directories; the last one names another that there is not, or one that was before."""
    path = tif(tmp_path / "a.tif", city(400, 600), at(0, 400), **extra)
    with rasterio.open(path, "r+") as target:
        target.build_overviews([2, 4], Resampling.nearest)
    with open_pair(path, path) as pair:
        assert pair.shape_hw == (400, 600)
    content = path.read_bytes()
    order, big = (">" if extra.get("ENDIANNESS") else "<"), "BIGTIFF" in extra
    kind, counter, entry = ("Q", "Q", 20) if big else ("I", "H", 12)
    first = at_ = struct.unpack_from(order + kind, content, 8 if big else 4)[0]
    while at_:
        count = struct.unpack_from(order + counter, content, at_)[0]
        place = at_ + struct.calcsize(counter) + count * entry
        at_ = struct.unpack_from(order + kind, content, place)[0]
    for wrong in (len(content) + 50, len(content) - 1, first):
        broken = bytearray(content)
        struct.pack_into(order + kind, broken, place, wrong)
        (tmp_path / "b.tif").write_bytes(broken)
        assert "one of its directories lies beyond its end" in refused(tmp_path / "b.tif", path).problem


@pytest.mark.parametrize(
    ("head", "problem", "remedy"),
    [
        (b"PK\x03\x04", "a zip archive", "/vsizip/"),
        (b"CDF\x01", "netCDF", "gdal_translate"),
        (b"\x89HDF\r\n", "HDF5", "gdal_translate"),
        (b"%PDF-1.7", "PDF", "gdal_translate"),
    ],
)
def test_other_formats_are_named_and_never_read_as_raw_pixels(tmp_path, head, problem, remedy):
    path = tmp_path / "scene.dat"
    path.write_bytes(head + bytes(3 * 20 * 30))
    with pytest.raises(InputError, match=problem) as refused:
        open_dataset(str(path), display_name="scene.dat")
    assert remedy in str(refused.value)
    header = "ENVI\nsamples = 30\nlines = 20\nbands = 3\ndata type = 1\ninterleave = bsq\nbyte order = 0\n"
    (tmp_path / "scene.hdr").write_text(header)
    with pytest.raises(InputError, match=r"scene\.hdr beside it is of another file"):
        open_dataset(str(path), display_name="scene.dat")
    path.write_bytes(bytes(3 * 20 * 30))
    with open_dataset(str(path), display_name="scene.dat") as dataset:
        assert dataset.driver == "ENVI" and dataset.shape == (20, 30)


@pytest.mark.parametrize(
    ("crs", "x", "y"),
    [("EPSG:4326", 500_000, 5_000_000), ("EPSG:4326", 45, 120), ("EPSG:32633", 1e9, 1e9), ("EPSG:3857", 0, 1e9)],
)
def test_coordinates_that_are_none_of_the_crs_are_named(tmp_path, crs, x, y):
    good, bad = tif(tmp_path / "good.tif", city(40, 60), at(500_000, 5_000_000)), tmp_path / "bad.tif"
    tif(bad, city(40, 60), at(x, y, 1e-5 if x == 45 else 0.5), rasterio.CRS.from_user_input(crs))
    for first, second in ((bad, bad), (good, bad)):
        error = refused(first, second)
        assert error.path == str(bad) and f"do not exist in its CRS ({crs})" in error.problem
    with pytest.raises(InputError, match="do not exist in its CRS"):
        open_pair(good, good, ReadingSettings(grid=str(bad)))


def test_a_disk_of_the_earth_is_read_though_its_corners_lie_beside_it(tmp_path):
    crs = rasterio.CRS.from_string("+proj=geos +h=35785831 +lon_0=0")
    disk = tif(tmp_path / "disk.tif", city(40, 60), Affine(2e5, 0, -6e6, 0, -3e5, 6e6), crs)
    with open_pair(disk, disk) as pair:
        assert pair.shape_hw == (40, 60)


def test_a_crs_that_no_layer_can_store_is_refused_at_once(tmp_path):
    crs = rasterio.CRS.from_string("+proj=ob_tran +o_proj=longlat +o_lon_p=0 +o_lat_p=40 +lon_0=10")
    path = tif(tmp_path / "rotated.tif", city(40, 60), Affine(1e-5, 0, 3, 0, -1e-5, 4), crs)
    assert "cannot be stored in layers of polygons" in refused(path, path).problem
