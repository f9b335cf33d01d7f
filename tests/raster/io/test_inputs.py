"""What may be given for one date: files, folders, mosaics, archives, addresses; on whose grid, and with which bands."""

import socket
import zipfile
from pathlib import Path

import pytest
from rasterio.io import MemoryFile
from tests.support.range_server import served
from tests.support.synthetic_rasters import MOSAIC_CHW, UTM, at, same_pixels, tif, write_tiles

from semicdvl.errors import InputError
from semicdvl.raster.io import inputs
from semicdvl.raster.io.inputs import resolve_input
from semicdvl.raster.io.open_image import open_image_reader
from semicdvl.raster.io.open_pair import open_pair


# ------------------------------------------------------------------------------------------------ names
@pytest.mark.parametrize(
    ("given", "parts", "shown"),
    [
        ("a.tif", ["a.tif"], "a.tif"),
        ("a.tif,b.tif", ["a.tif", "b.tif"], "a.tif,b.tif"),
        (["a.tif", Path("x/b.tif")], ["a.tif", "x/b.tif"], "a.tif,x/b.tif"),
        ("https://h/x/a.tif", ["/vsicurl/https://h/x/a.tif"], "https://h/x/a.tif"),
        (Path("https://h/x/a.tif"), ["/vsicurl/https://h/x/a.tif"], "https://h/x/a.tif"),
        (Path("/vsicurl/https://h/a.tif"), ["/vsicurl/https://h/a.tif"], "/vsicurl/https://h/a.tif"),
        ("https://me:word@h/a.tif?sig=s,x", ["/vsicurl/https://me:word@h/a.tif?sig=s,x"], "https://h/a.tif"),
        ("s3://b/a.tif,s3://b/c.tif", ["/vsis3/b/a.tif", "/vsis3/b/c.tif"], "s3://b/a.tif,s3://b/c.tif"),
        ("gs://b/a.tif", ["/vsigs/b/a.tif"], "gs://b/a.tif"),
        ("file:///d/a.tif", ["/d/a.tif"], "file:///d/a.tif"),
        ("/vsizip/t.zip/a.tif,/vsizip/t.zip/b.tif", ["/vsizip/t.zip/a.tif", "/vsizip/t.zip/b.tif"], None),
        ("GTIFF_DIR:2:a.tif", ["GTIFF_DIR:2:a.tif"], None),
    ],
)
def test_names_are_resolved_to_what_gdal_opens(given, parts, shown):
    name = resolve_input(given)
    assert list(name.gdal_names) == parts and str(name) == (shown or given)
    assert name.is_remote == any(word in str(given) for word in ("http", "s3:", "gs:"))


def test_folders_patterns_and_commas_in_names(tmp_path):
    for file in ("b.tif", "a.TIF", ".hidden.tif", "notes.txt", "c,d.tif"):
        (tmp_path / file).write_text("")
    inside = [str(tmp_path / file) for file in ("a.TIF", "b.tif", "c,d.tif")]
    assert list(resolve_input(tmp_path).gdal_names) == inside == list(resolve_input(str(tmp_path)).gdal_names)
    assert list(resolve_input(str(tmp_path / "*.tif")).gdal_names) == [inside[1], inside[2]]
    assert resolve_input(inside[2]).gdal_names == (inside[2],)
    assert resolve_input([tmp_path, inside[1]]).gdal_names == (*inside, inside[1])


@pytest.mark.parametrize(
    ("given", "words"),
    [("", "No image was given"), ([], "No image was given"), ("hdfs2://a/b.tif", "address scheme hdfs2:// is unknown"),
     ("nowhere/*.tif", "No file matches"), ("nowhere/a**b*.tif", "no pattern of files|No file matches")],
)  # fmt: skip
def test_unusable_names_are_refused(given, words):
    with pytest.raises(InputError, match=words):
        resolve_input(given)


def test_folder_without_images(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(InputError, match="folder contains no raster"):
        open_image_reader(tmp_path)


# ------------------------------------------------------------------------------------------------ file systems of GDAL
def test_memory_and_archives(tmp_path):
    files = write_tiles(tmp_path / "tiles")
    with zipfile.ZipFile(tmp_path / "tiles.zip", "w") as archive:
        for file in files:
            archive.write(file, file.name)
    inside = [f"/vsizip/{tmp_path}/tiles.zip/{file.name}" for file in files]
    one = tif(tmp_path / "one.tif", MOSAIC_CHW, at(100, 200))
    with MemoryFile(one.read_bytes(), filename="one.tif") as memory, open_pair(memory.name, inside) as pair:
        window = pair.read(0, 0, *pair.shape_hw)
        assert memory.name.startswith("/vsimem/") and str(pair.after.input) == ",".join(inside)
        assert same_pixels(window.t1_HWC, MOSAIC_CHW) and same_pixels(window.t2_HWC, MOSAIC_CHW)


def test_virtual_file(tmp_path):
    tif(tmp_path / "a.tif", MOSAIC_CHW, at(100, 200))
    (tmp_path / "a.vrt").write_text(
        f'<VRTDataset rasterXSize="90" rasterYSize="60"><SRS>{UTM.to_string()}</SRS>'
        "<GeoTransform>100, 0.5, 0, 200, 0, -0.5</GeoTransform>"
        + "".join(
            f'<VRTRasterBand dataType="Byte" band="{band}"><SimpleSource><SourceFilename relativeToVRT="1">a.tif'
            f"</SourceFilename><SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>"
            for band in (1, 2, 3)
        )
        + "</VRTDataset>"
    )
    with open_pair(tmp_path / "a.tif", tmp_path / "a.vrt") as pair:
        assert same_pixels(pair.read(0, 0, 60, 90).t2_HWC, MOSAIC_CHW)


def test_addresses_are_read(tmp_path):
    files = write_tiles(tmp_path / "tiles", tiled=True, blockxsize=16, blockysize=16)
    one = tif(tmp_path / "one.tif", MOSAIC_CHW, at(100, 200))
    with served(tmp_path) as address:
        remote = [f"{address}/tiles/{file.name}?key=secret" for file in files]
        with open_pair(one, remote) as pair:
            assert same_pixels(pair.read(0, 0, 60, 90).t2_HWC, MOSAIC_CHW)
            assert pair.after.input.is_remote and "secret" not in str(pair.after.input)
        with open_pair(f"/vsicurl/{address}/one.tif", Path(f"{address}/one.tif")) as pair:
            assert same_pixels(pair.read(0, 0, 60, 90).t1_HWC, MOSAIC_CHW) and pair.after.path.name == "one.tif"
        with pytest.raises(InputError, match="cannot be reached or is no image") as caught:
            open_pair(one, f"{address}/nowhere.tif?key=secret")
        assert "secret" not in str(caught.value) and "Check the address" in caught.value.remedy


def test_silent_address_times_out(tmp_path, monkeypatch):
    one = tif(tmp_path / "one.tif", MOSAIC_CHW, at(100, 200))
    monkeypatch.setitem(inputs.NETWORK_TIMEOUTS, "GDAL_HTTP_LOW_SPEED_TIME", "1")
    monkeypatch.setitem(inputs.NETWORK_TIMEOUTS, "GDAL_HTTP_MAX_RETRY", "0")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(InputError, match="cannot be reached"):
            open_pair(one, f"{address}/a.tif")
    with pytest.raises(InputError, match="cannot be reached"):  # and now nobody listens at all
        open_pair(one, f"{address}/b.tif")
