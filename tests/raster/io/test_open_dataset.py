"""Files that cannot be used: one error that names the file and the remedy, at once and in little memory."""

import struct
import time
import tracemalloc
from pathlib import Path

import pytest
import rasterio
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.enums import Resampling
from tests.support.synthetic_rasters import UTM, at, city, tif

from semicdvl.errors import InputError
from semicdvl.raster.io.open_dataset import open_dataset
from semicdvl.raster.io.open_pair import open_pair


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
