"""A CRS that names a file is refused before PROJ opens it; virtual rasters that GDAL warps are read."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.vrt import WarpedVRT
from tests.raster.test_file_access import SIDE, refuse, write_tiff, write_vrt

from semicdvl.errors import InputError
from semicdvl.raster.crs_files import require_plain_crs
from semicdvl.raster.io.open_image import open_image_reader
from semicdvl.raster.vector.reading import read_layer

SHIFTED = "+proj=utm +zone=32 +ellps=intl +nadgrids="


@pytest.mark.parametrize("grids", ["/etc/passwd", "@/etc/passwd", "foo.gsb,./a.gsb", "~/a.gsb", "http://127.0.0.1:1/a"])
def test_a_crs_that_names_a_path_is_refused(grids: str) -> None:
    for text in (
        SHIFTED + grids,
        pyproj.CRS(SHIFTED + grids).to_wkt(),
        pyproj.CRS(SHIFTED + grids).to_wkt("WKT1_GDAL"),
    ):
        with pytest.raises(InputError, match=r"^a\.tif: Its CRS names the file"):
            require_plain_crs(text, "a.tif")


@pytest.mark.parametrize("grids", ["@null", "ntf_r93.gsb", "@conus,@alaska"])
def test_grids_of_proj_are_no_paths(grids: str) -> None:
    require_plain_crs(pyproj.CRS(SHIFTED + grids).to_wkt(), "a.tif")


def test_images_do_not_make_proj_wait_for_a_pipe(tmp_path: Path) -> None:
    write_tiff(tmp_path / "a.tif")
    os.mkfifo(tmp_path / "pipe")
    named = SHIFTED + str(tmp_path / "pipe")
    path = write_vrt(tmp_path / "a.vrt", "a.tif", relative="1")
    path.write_text(path.read_text().replace("EPSG:32632", named.replace("/", "&#47;")))
    refuse(path, "names the file")
    named = SHIFTED + "/nowhere/a.gsb"  # whoever writes the file opens a pipe, too
    profile = {"driver": "GTiff", "count": 3, "height": SIDE, "width": SIDE, "dtype": "uint8"}
    transform = Affine(1, 0, 500_000, 0, -1, 5_000_000)
    with rasterio.open(tmp_path / "b.tif", "w", crs=named, transform=transform, **profile) as target:
        target.write(np.full((3, SIDE, SIDE), 7, np.uint8))
    refuse(tmp_path / "b.tif", "names the file")


def write_warped(path: Path, *, option: str = 'key="AREA_OF_INTEREST">9,45,10,46') -> np.ndarray:
    """Write what `gdalwarp -of VRT -t_srs EPSG:3857 a.tif` writes, and return what it shows."""
    with rasterio.open(write_tiff(path.with_name("a.tif"))) as source, WarpedVRT(source, crs="EPSG:3857") as view:
        seen, there, here = view.read(1), view.transform, source.transform
        wkt, target = source.crs.to_wkt().replace('"', "&quot;"), view.crs.to_wkt().replace('"', "&quot;")

    def numbers(transform: Affine) -> str:
        return ",".join(map(repr, transform.to_gdal()))

    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}" subClass="VRTWarpedRasterBand"/>' for band in (1, 2, 3)
    )
    mapping = "".join(f'<BandMapping src="{band}" dst="{band}"/>' for band in (1, 2, 3))
    path.write_text(
        f'<VRTDataset rasterXSize="{seen.shape[1]}" rasterYSize="{seen.shape[0]}" subClass="VRTWarpedDataset">'
        f"<SRS>{target}</SRS><GeoTransform>{numbers(there)}</GeoTransform>{bands}"
        "<BlockXSize>128</BlockXSize><BlockYSize>128</BlockYSize><GDALWarpOptions><WarpMemoryLimit>6e7</WarpMemoryLimit>"
        "<ResampleAlg>NearestNeighbour</ResampleAlg><WorkingDataType>Byte</WorkingDataType>"
        '<Option name="INIT_DEST">0</Option><SourceDataset relativeToVRT="1">a.tif</SourceDataset><Transformer>'
        f"<GenImgProjTransformer><SrcGeoTransform>{numbers(here)}</SrcGeoTransform>"
        f"<SrcInvGeoTransform>{numbers(~here)}</SrcInvGeoTransform><DstGeoTransform>{numbers(there)}</DstGeoTransform>"
        f"<DstInvGeoTransform>{numbers(~there)}</DstInvGeoTransform><ReprojectTransformer><ReprojectionTransformer>"
        f"<SourceSRS>{wkt}</SourceSRS><TargetSRS>{target}</TargetSRS><Options><Option {option}</Option></Options>"
        "</ReprojectionTransformer></ReprojectTransformer></GenImgProjTransformer></Transformer>"
        f"<BandList>{mapping}</BandList></GDALWarpOptions></VRTDataset>"
    )
    return seen


def test_a_virtual_raster_that_gdal_warps_is_read(tmp_path: Path) -> None:
    seen = write_warped(tmp_path / "a.vrt")
    with open_image_reader(tmp_path / "a.vrt").dataset as dataset:
        assert np.array_equal(dataset.read(1), seen) and (seen == 7).mean() > 0.9


@pytest.mark.parametrize("name", ["key", "KEY"])
def test_a_pipeline_of_proj_is_refused(tmp_path: Path, name: str) -> None:
    write_warped(tmp_path / "a.vrt", option=f'{name}="COORDINATE_OPERATION">+proj=hgridshift +grids=x')
    refuse(tmp_path / "a.vrt", "holds 'COORDINATE_OPERATION'")


def test_a_filter_kernel_of_any_size_is_refused(tmp_path: Path) -> None:
    write_tiff(tmp_path / "a.tif")
    kernel = f"<Kernel><Size>301</Size><Coefs>{'1 ' * 301**2}</Coefs></Kernel>"
    path = write_vrt(tmp_path / "a.vrt", "a.tif", relative="1", kind="KernelFilteredSource")
    path.write_text(path.read_text().replace("</SourceBand>", f"</SourceBand>{kernel}"))
    refuse(path, "holds 'KernelFilteredSource'")


def test_texts_beside_an_image_are_looked_at_before_gdal_opens_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    path = write_tiff(tmp_path / "a.tif")
    text = f"<PAMDataset><SRS>{SHIFTED}&#47;{tmp_path}/pipe</SRS></PAMDataset>"
    path.with_name("a.tif.aux.xml").write_text(text)
    refuse(path, "names the file")


def test_layers_are_looked_at_before_their_crs_is_built(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    named, square = SHIFTED + str(tmp_path / "pipe"), gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)], crs=32632)
    ring = {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]}
    crs = {"type": "name", "properties": {"name": named}}
    feature = {"type": "Feature", "properties": {}, "geometry": ring, "crs": crs}
    (tmp_path / "a.geojson").write_text(json.dumps(feature))
    square.to_file(tmp_path / "b.shp")
    (tmp_path / "b.prj").write_text(f'LOCAL_CS["x",EXTENSION["PROJ4_GRIDS","{tmp_path}/pipe"]]')
    square.to_file(tmp_path / "c.gpkg")
    with contextlib.closing(sqlite3.connect(tmp_path / "c.gpkg")) as database:
        database.execute("UPDATE gpkg_spatial_ref_sys SET definition = ?", (named,))
        database.commit()
    square.to_file(tmp_path / "d.gml", driver="GML")
    (tmp_path / "d.gml").write_text((tmp_path / "d.gml").read_text().replace("urn:ogc:def:crs:EPSG::32632", named))
    for name in ("a.geojson", "b.shp", "c.gpkg", "d.gml"):
        with pytest.raises(InputError, match="names the file"):
            read_layer(tmp_path / name)


def test_images_in_databases_are_looked_at_before_gdal_opens_them(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    transform = Affine(1, 0, 500_000, 0, -1, 5_000_000)
    profile = {"driver": "GPKG", "count": 3, "height": SIDE, "width": SIDE, "dtype": "uint8"}
    path = tmp_path / "a.gpkg"
    with rasterio.open(path, "w", crs="EPSG:32632", transform=transform, **profile) as target:
        target.write(np.full((3, SIDE, SIDE), 7, np.uint8))
    with open_image_reader(path).dataset as dataset:
        assert dataset.crs.to_epsg() == 32632
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
    for statement, problem in (
        (f"UPDATE gpkg_spatial_ref_sys SET definition = '{SHIFTED}{tmp_path}/pipe'", "names the file"),
        (f"CREATE VIEW rows AS {endless}", "holds the view 'rows' of more than 5,000,000 rows"),
    ):
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.execute(statement)
            database.commit()
        refuse(path, problem)


def test_kml_is_known_without_a_declaration(tmp_path: Path) -> None:
    ring = "9,45 9.1,45 9.1,45.1 9,45"
    line = f"<LinearRing><coordinates>{ring}</coordinates></LinearRing>"
    shape = f"<Polygon><outerBoundaryIs>{line}</outerBoundaryIs></Polygon>"
    kml = f'<kml xmlns="http://www.opengis.net/kml/2.2"><Document><Placemark>{shape}</Placemark></Document></kml>'
    for head in ("", '<?xml version="1.0"?>\n'):
        (tmp_path / "a.kml").write_text(head + kml)
        assert shapely.area(read_layer(tmp_path / "a.kml").geometry.to_numpy()) == pytest.approx(0.005)
