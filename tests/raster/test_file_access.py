# ruff: noqa: E501, UP031  (texts of XML and JSON)
"""Local files lead nowhere: no connection, no other file, nothing written beside them."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from PIL import Image
from rasterio.errors import RasterioError

from semicdvl.data.images.files import open_image_raster
from semicdvl.errors import InputError, SemicdvlError
from semicdvl.raster.io.open_image import open_image_reader
from semicdvl.raster.io.open_pair import open_pair
from semicdvl.raster.vector.reading import find_vector_kind, list_layers, read_layer
from semicdvl.types import ReadingSettings

SIDE = 48


@pytest.fixture
def server() -> Iterator[tuple[str, list[bytes]]]:
    """A server on this machine that notes every connection."""
    listening, seen = socket.create_server(("127.0.0.1", 0)), list[bytes]()

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(2)
                try:
                    seen.append(connection.recv(100))
                    connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                except OSError:
                    seen.append(b"?")

    threading.Thread(target=serve, daemon=True).start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}", seen
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()


def list_names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def write_tiff(path: Path, *, value: int = 7, overviews: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    transform = Affine(1, 0, 500_000, 0, -1, 5_000_000)
    profile: dict[str, Any] = {"driver": "GTiff", "count": 3, "height": SIDE, "width": SIDE, "dtype": "uint8"}
    with rasterio.open(path, "w", crs="EPSG:32632", transform=transform, **profile) as target:
        target.write(np.full((3, SIDE, SIDE), value, np.uint8))
        if overviews is not None:
            target.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=overviews)
    return path


def write_vrt(
    path: Path, source: str, *, kind: str = "SimpleSource", extra: str = "", relative: str = "0", of_class: str = ""
) -> Path:
    """Write a VRT of three bands that are made of one source, or of other content."""
    shape = f'<{kind}><SourceFilename relativeToVRT="{relative}">{source}</SourceFilename><SourceBand>BAND</SourceBand></{kind}>'
    if of_class == "VRTRawRasterBand":
        shape = f'<SourceFilename relativetoVRT="0">{source}</SourceFilename><PixelOffset>1</PixelOffset><LineOffset>4</LineOffset>'
    subclass = f' subClass="{of_class}"' if of_class else ""
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}"{subclass}>{shape.replace("BAND", str(band))}</VRTRasterBand>'
        for band in (1, 2, 3)
    )
    head = f'<VRTDataset rasterXSize="{SIDE}" rasterYSize="{SIDE}"><SRS>EPSG:32632</SRS>{extra}'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{head}<GeoTransform>500000,1,0,5000000,0,-1</GeoTransform>{bands}</VRTDataset>")
    return path


def refuse(path: Path, match: str) -> str:
    """Open an image as every command does, and as data sets do; return the message."""
    for opens in (lambda: open_image_reader(path), lambda: open_image_raster(path)):
        with pytest.raises(InputError, match=match) as refused:
            opens().close()
        assert path.name in str(refused.value) and "root:" not in str(refused.value)
    return str(refused.value)


def hostile_rasters(folder: Path, address: str) -> dict[str, Path]:
    """Files that lead to the network; all of them were followed before there was a list of formats."""
    wms = (
        f"<GDAL_WMS><Service name='TMS'><ServerUrl>{address}/${{z}}/${{x}}/${{y}}.png</ServerUrl></Service><DataWindow>"
        "<SizeX>64</SizeX><SizeY>64</SizeY></DataWindow><BandsCount>3</BandsCount></GDAL_WMS>"
    )
    (folder / "wms.xml").write_text(wms)
    (folder / "wmts.xml").write_text(f"<GDAL_WMTS><GetCapabilitiesUrl>{address}/c</GetCapabilitiesUrl></GDAL_WMTS>")
    (folder / "wcs.xml").write_text(
        f"<WCS_GDAL><ServiceURL>{address}/w?</ServiceURL><CoverageName>x</CoverageName></WCS_GDAL>"
    )
    Image.fromarray(np.zeros((SIDE, SIDE, 3), np.uint8)).save(folder / "pam.png")
    pam = f"<PAMDataset><Metadata domain='OVERVIEWS'><MDI key='OVERVIEW_FILE'>/vsicurl/{address}/p.tif</MDI></Metadata></PAMDataset>"
    (folder / "pam.png.aux.xml").write_text(pam)
    (folder / "inner.vrt").write_text("")
    return {
        "curl": write_vrt(folder / "curl.vrt", f"/vsicurl/{address}/a.tif"),
        "http": write_vrt(folder / "http.vrt", f"{address}/a.tif"),
        "wms in vrt": write_vrt(folder / "wms.vrt", wms.replace("<", "&lt;").replace(">", "&gt;")),
        "wms file in vrt": write_vrt(folder / "wmsfile.vrt", "wms.xml", relative="1"),
        "vrt in vrt": write_vrt(folder / "outer.vrt", "curl.vrt", relative="1"),
        "overviews": write_tiff(folder / "ov.tif", overviews=f"/vsicurl/{address}/o.tif"),
        "overviews of a service": write_tiff(folder / "ovwms.tif", overviews=wms),
        "overviews of a source": write_vrt(folder / "ovsource.vrt", "ov.tif", relative="1"),
        "wms": folder / "wms.xml",
        "wmts": folder / "wmts.xml",
        "wcs": folder / "wcs.xml",
        "pam": folder / "pam.png",
    }


def test_no_image_file_reaches_for_the_network(tmp_path: Path, server: tuple[str, list[bytes]]) -> None:
    address, seen = server
    for name, path in hostile_rasters(tmp_path, address).items():
        refuse(path, "cannot be opened as an image|no local file|not an image|overviews outside|cannot be used as an")
        assert seen == [], name
    with rasterio.Env(GDAL_HTTP_TIMEOUT="2", GDAL_HTTP_MAX_RETRY="0"), pytest.raises(RasterioError):
        rasterio.open(tmp_path / "wcs.xml")
    assert seen != [], "GDAL alone does, so this test sees it"


def test_no_image_file_shows_the_bytes_of_another_file(tmp_path: Path) -> None:
    raw = write_vrt(tmp_path / "raw.vrt", "/etc/passwd", of_class="VRTRawRasterBand")
    with rasterio.open(raw) as followed:
        assert bytes(followed.read(1)[0, :5]) == b"root:", "GDAL alone shows it"
    refuse(raw, "holds 'VRTRawRasterBand'")
    refuse(write_vrt(tmp_path / "passwd.vrt", "/etc/passwd"), "/etc/passwd lies outside of its folder.*--allow-outside")
    refuse(write_vrt(tmp_path / "passwd2.vrt", "passwd", relative="1"), "passwd does not exist")
    (tmp_path / "link").symlink_to("/etc/passwd")
    refuse(write_vrt(tmp_path / "linked.vrt", "link", relative="1"), "link lies outside of its folder")
    refuse(write_vrt(tmp_path / "lower.vrt", "/etc/passwd").with_name("lower.vrt"), "lies outside")
    lower = tmp_path / "lower.vrt"
    lower.write_text(lower.read_text().replace("SourceFilename", "sourcefilename").replace("VRTDataset", "vrtdataset"))
    refuse(lower, "lies outside of its folder")
    with pytest.raises(InputError, match=r"passwd cannot be used as an image"):
        open_pair(tmp_path / "passwd.vrt", tmp_path / "passwd.vrt", allow_outside=True)


@pytest.mark.parametrize(
    ("extra", "match"),
    [
        ("<PixelFunctionCode>import os</PixelFunctionCode>", "holds 'PixelFunctionCode'"),
        ("<OpenOptions><OOI key='A'>B</OOI></OpenOptions>", "holds 'OpenOptions'"),
        ("<ProcessingSteps/>", "holds 'ProcessingSteps'"),
    ],
)
def test_virtual_rasters_hold_nothing_unknown(tmp_path: Path, extra: str, match: str) -> None:
    write_tiff(tmp_path / "a.tif")
    refuse(write_vrt(tmp_path / "a.vrt", "a.tif", relative="1", extra=extra), match)
    for of_class in ("VRTDerivedRasterBand", "VRTProcessedRasterBand"):
        refuse(write_vrt(tmp_path / "b.vrt", "a.tif", relative="1", of_class=of_class), of_class)


def test_damaged_virtual_rasters_are_refused(tmp_path: Path) -> None:
    path = write_vrt(tmp_path / "a.vrt", "a.tif", relative="1")
    text = path.read_text()
    for damaged in (text[:-20], "<!DOCTYPE a [<!ENTITY b 'c'>]>" + text, "<VRTDataset>" * 200):
        path.write_text(damaged)
        refuse(path, "The VRT a.vrt is damaged")
    path.write_text("<VRTDataset " + "x" * 5)
    refuse(path, "is damaged")
    loop = write_vrt(tmp_path / "loop.vrt", "loop.vrt", relative="1")
    refuse(loop, "levels deep")


def test_virtual_rasters_of_their_own_folder_are_read(tmp_path: Path) -> None:
    write_tiff(tmp_path / "tiles" / "a.tif", value=9)
    inner = write_vrt(tmp_path / "tiles" / "a.vrt", "a.tif", relative="1", kind="ComplexSource")
    for path in (
        inner,
        write_vrt(tmp_path / "relative.vrt", "tiles/a.vrt", relative="1"),
        write_vrt(tmp_path / "absolute.vrt", str(tmp_path / "tiles" / "a.tif")),
    ):
        with open_image_reader(path).dataset as dataset:
            assert dataset.read(1)[3, 4] == 9
    link = tmp_path / "elsewhere" / "link.vrt"
    link.parent.mkdir()
    link.symlink_to(tmp_path / "relative.vrt")
    with open_image_reader(link).dataset as dataset:
        assert dataset.read(1)[3, 4] == 9


def test_a_user_allows_sources_outside(tmp_path: Path) -> None:
    source = write_tiff(tmp_path / "tiles" / "a.tif", value=9)
    path = write_vrt(tmp_path / "mosaics" / "a.vrt", str(source))
    refuse(path, "lies outside of its folder")
    with open_pair(path, path, allow_outside=True) as pair:
        assert pair.read(0, 0, 8, 8).t1_HWC[2, 3, 1] == 9
    refuse(write_vrt(tmp_path / "mosaics" / "up.vrt", "../tiles/a.tif", relative="1"), "lies outside of its folder")


def test_nothing_is_written_beside_images(tmp_path: Path) -> None:
    before = write_tiff(tmp_path / "a.tif")
    Image.fromarray(np.full((SIDE, SIDE, 3), 90, np.uint8)).save(tmp_path / "b.png")
    Image.fromarray(np.full((SIDE, SIDE, 3), 90, np.uint8)).save(tmp_path / "c.jpg")
    there = set(list_names(tmp_path))
    for name in sorted(there):
        with open_pair(tmp_path / name, tmp_path / name) as pair:
            pair.read_overview(max_px=16)
    with open_pair(before, before, ReadingSettings(grid="finest", normalise="match")) as pair:
        pair.read(0, 0, 8, 8)
    assert set(list_names(tmp_path)) == there


# ------------------------------------------------------------------------------------------------ vectors
SQUARE = shapely.box(500_000, 4_999_960, 500_010, 4_999_990)
FEATURES = '"features": [{"type": "Feature", "properties": {}, "geometry": ' + shapely.to_geojson(SQUARE) + "}]"
GML = (
    '<?xml version="1.0"?><wfs:FeatureCollection xmlns:wfs="http://www.opengis.net/wfs" xmlns:ogr="http://ogr.maptools.org/" '
    'xmlns:gml="http://www.opengis.net/gml" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
    'xsi:schemaLocation="http://ogr.maptools.org/ ADDRESS/wfs?SERVICE=WFS&amp;REQUEST=DescribeFeatureType&amp;TYPENAME=x">'
    '<gml:featureMember><ogr:x fid="x.0"><ogr:g><gml:Polygon srsName="EPSG:32632"><gml:outerBoundaryIs><gml:LinearRing>'
    "<gml:coordinates>0,0 1,0 1,1 0,0</gml:coordinates></gml:LinearRing></gml:outerBoundaryIs></gml:Polygon></ogr:g></ogr:x>"
    "</gml:featureMember></wfs:FeatureCollection>"
)


def hostile_vectors(folder: Path, address: str) -> dict[str, str]:
    def geojson(crs: str, key: str = '"crs"') -> str:
        return '{"type": "FeatureCollection", %s: %s, %s}' % (key, crs, FEATURES)

    link = '{"type": "link", "properties": {"href": "%s/crs", "type": "ogcwkt"}}' % address
    return {
        "link.geojson": geojson(link),
        "hidden.geojson": geojson(link, r'"\u0063RS"'),
        "url.geojson": geojson('{"type": "url", "properties": {"url": "%s/crs"}}' % address),
        "ogr.gml": f'<OGRVRTDataSource><OGRVRTLayer name="x"><SrcDataSource>/vsicurl/{address}/x</SrcDataSource></OGRVRTLayer></OGRVRTDataSource>',
        "ogr2.gml": f'<?xml version="1.0"?><!-- www.opengis.net/gml --><OGRVRTDataSource><OGRVRTLayer name="x"><SrcDataSource>{folder}/secret.csv</SrcDataSource></OGRVRTLayer></OGRVRTDataSource>',
        "wfs.gml": f"<OGRWFSDataSource><URL>{address}/wfs</URL></OGRWFSDataSource>",
        "gdalg.json": '{"type": "gdal_streamed_alg", "command_line": "gdal vector pipeline ! read /vsicurl/%s/x"}'
        % address,
        "secret.csv": "id,WKT\n1,POINT(0 0)\n",
        "entities.gml": '<!DOCTYPE a [<!ENTITY x SYSTEM "%s/e">]>' % address + GML.partition("?>")[2],
    }


def test_no_vector_file_leads_anywhere(tmp_path: Path, server: tuple[str, list[bytes]]) -> None:
    address, seen = server
    for name, text in hostile_vectors(tmp_path, address).items():
        (tmp_path / name).write_text(text)
    there = set(list_names(tmp_path))
    for name in there:
        for read in (list_layers, read_layer):
            with pytest.raises(InputError, match=rf"{name}: (leads to|has a CRS behind|is not a vector)"):
                read(tmp_path / name)
            assert seen == [], name
    assert set(list_names(tmp_path)) == there


def test_plain_vector_files_are_read_and_nothing_is_written_beside_them(
    tmp_path: Path, server: tuple[str, list[bytes]]
) -> None:
    address, seen = server
    frame = gpd.GeoDataFrame({"name": ["a"]}, geometry=[SQUARE], crs="EPSG:32632")
    kinds = {
        "gpkg": "GPKG",
        "geojson": "GeoJSON",
        "fgb": "FlatGeobuf",
        "shp": "ESRI Shapefile",
        "kml": "KML",
        "sqlite": "SQLite",
    }
    for suffix, driver in kinds.items():
        (frame.to_crs(4326) if suffix == "kml" else frame).to_file(
            tmp_path / f"a.{suffix}", driver=driver, engine="pyogrio"
        )
    (tmp_path / "a.gml").write_text(GML.replace("ADDRESS", address))
    (tmp_path / "named.geojson").write_text(
        '{"type": "FeatureCollection", "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32632"}}, %s}'
        % FEATURES
    )
    there = set(list_names(tmp_path))
    for suffix in (*kinds, "gml"):
        path = tmp_path / f"a.{suffix}"
        assert len(list_layers(path)) >= 1 and len(read_layer(path)) == 1, suffix
    assert read_layer(tmp_path / "named.geojson").crs.to_epsg() == 32632
    assert json.loads((tmp_path / "named.geojson").read_text())["crs"]["type"] == "name"
    assert read_layer(tmp_path / "a.gpkg").geometry[0].equals(SQUARE)
    assert set(list_names(tmp_path)) == there and seen == []
    with pytest.raises(SemicdvlError, match="cannot be read"):
        find_vector_kind(tmp_path / "none.gpkg")


def test_a_name_that_is_no_text_is_refused_in_a_sentence(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif").rename(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.tif"))
    with pytest.raises(InputError, match="bytes that are no UTF-8"):
        open_image_reader(path)
