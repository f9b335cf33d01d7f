"""What lies beside a file and is opened with it: pipes, devices and endless texts are refused before anybody waits."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import pytest
from tests.robustness.targets import OLD

from semicdvl.data.images.reading import read_rgb
from semicdvl.errors import InputError
from semicdvl.raster.io.open_pair import open_pair
from semicdvl.raster.vector.reading import list_layers, read_layer, read_layer_info
from semicdvl.reading.limits import MAX_COMPANION_TEXT_BYTES

RASTER_READERS: tuple[Callable[[Path], Any], ...] = (read_rgb, lambda path: open_pair(path, path))
VECTOR_READERS: tuple[Callable[[Path], Any], ...] = (read_layer, list_layers, read_layer_info)


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def make_giant(path: Path) -> None:
    path.touch()
    os.truncate(path, MAX_COMPANION_TEXT_BYTES + 1)


@pytest.mark.parametrize(
    "name",
    [
        "a.tif.aux.xml", "a.aux", "a.RPB", "a_RPC.TXT", "a_rpc.txt", "a.IMD", "a_MTL.txt", "a.xml", "a_metadata.txt",
        "METADATA.DIM", "a.tfw", "a.prj", "DIM_a.XML",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    ("make", "why"),
    [(make_pipe, "is a named pipe"), (make_device, "is a device"), (make_giant, "has 256 MiB of text")],
)
def test_no_image_waits_for_what_lies_beside_it(
    make: Callable[[Path], None], why: str, name: str, tmp_path: Path
) -> None:
    shutil.copy(OLD / "after.tif", tmp_path / "a.tif")
    for read in RASTER_READERS:
        read(tmp_path / "a.tif")
    make(tmp_path / name)
    for read in RASTER_READERS:
        with pytest.raises(InputError, match=f"The file {name} beside it {why}"):
            read(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("layer", "name"),
    [("a.shp", "a.dbf"), ("a.shp", "a.shx"), ("a.shp", "a.prj"), ("a.shp", "a.cpg"), ("a.gpkg", "a.gpkg-journal"),
     ("a.gpkg", "a.gpkg-wal"), ("a.geojson", "a.geojson.aux.xml")],
)  # fmt: skip
@pytest.mark.parametrize("make", [make_pipe, make_device])
def test_no_layer_waits_for_what_lies_beside_it(
    make: Callable[[Path], None], layer: str, name: str, tmp_path: Path
) -> None:
    gpd.read_file(OLD / "truth.geojson", engine="pyogrio").to_file(tmp_path / layer, engine="pyogrio")
    for read in VECTOR_READERS:
        read(tmp_path / layer)
    (tmp_path / name).unlink(missing_ok=True)
    make(tmp_path / name)
    for read in VECTOR_READERS:
        with pytest.raises(InputError, match=f"The file {name} beside it is a"):
            read(tmp_path / layer)


def test_no_part_of_a_geodatabase_is_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / "a.gdb"
    folder.mkdir()
    (folder / "a00000001.gdbtable").write_bytes(b"x")
    os.mkfifo(folder / "a00000002.gdbtable")
    with pytest.raises(InputError, match=r"a00000002\.gdbtable: is a named pipe"):
        read_layer(folder)


def test_what_belongs_to_other_files_is_left_alone(tmp_path: Path) -> None:
    shutil.copy(OLD / "after.tif", tmp_path / "a.tif")
    for name in ("queue", "bar", "a1.sock"):  # "a" is in some of them
        os.mkfifo(tmp_path / name)
    for name in ("points.txt", "data.xml"):
        make_giant(tmp_path / name)
    (tmp_path / "b.tif.ovr").symlink_to("/dev/zero")
    (tmp_path / "a.tif.aux.xml").symlink_to("nothing")
    (tmp_path / "a.lnk").symlink_to("a.lnk")
    for read in RASTER_READERS:
        read(tmp_path / "a.tif")
