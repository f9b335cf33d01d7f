"""Images whose georeferencing is half there: a geotransform without CRS, a CRS without geotransform, a local CRS."""

from dataclasses import replace

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.warp import transform
from tests.support.brightness_detector import QUIET, TILES, UTM, Brighter, pair_of_images, read
from tests.support.synthetic_rasters import tif

from semicdvl.detection.config import DetectionConfig
from semicdvl.detection.pair_check.check import check_image_pair
from semicdvl.detection.pipeline import write_detection
from semicdvl.errors import InputError
from semicdvl.raster.io.open_pair import open_pair

HALF_METRE = Affine(0.5, 0, 366676, 0, -0.5, 4104256)
SETTINGS = replace(TILES, polygons=("geojson",))
LOCAL = rasterio.CRS.from_wkt('LOCAL_CS["site grid",UNIT["metre",1],AXIS["E",EAST],AXIS["N",NORTH]]')


def write_pair(folder, transform=HALF_METRE, crs=None, **extra):
    """Write two dates with changes of 2,800, 200 and 6 px."""
    images = zip(("t1", "t2"), pair_of_images(), strict=True)
    return [tif(folder / f"{name}.tif", data.transpose(2, 0, 1), transform, crs, **extra) for name, data in images]


def detect(pair, out, config=SETTINGS):
    result = write_detection(*pair, out, detector=Brighter(), config=config, progress=QUIET)
    return result, gpd.read_file(out / "changes.gpkg", layer="changes")


def test_geotransform_without_crs_counts_pixels_and_keeps_coordinates(tmp_path):
    result, frame = detect(write_pair(tmp_path), tmp_path / "out")
    assert frame["area_px"].tolist() == [2800, 200, 6] and result.summary.changed_px == 3006
    assert frame["perimeter_px"].tolist() == [220, 60, 10]
    with rasterio.open(tmp_path / "out" / "change.tif") as source:
        assert source.crs is None and source.transform == HALF_METRE
        inside = [source.index(*shape.representative_point().coords[0]) for shape in frame.geometry]
    change = read(tmp_path / "out" / "change.tif")
    assert [int(change[row, col]) for row, col in inside] == [1, 1, 1]
    left, bottom, right, top = frame.geometry.iloc[0].bounds
    assert (left, top, right, bottom) == (366716, 4104226, 366751, 4104206)


def test_given_pixel_size_is_that_of_a_pixel_and_not_of_a_map_unit(tmp_path):
    pair = write_pair(tmp_path)
    config = DetectionConfig(tile_px=96, overlap_px=32, gsd_m=0.5, min_area_m2=10)
    result, frame = detect(pair, tmp_path / "out", config)
    assert frame["area_m2"].tolist() == [700, 50] and frame["perimeter_m"].tolist() == [110, 30]
    assert result.summary.changed_m2 == 750


def test_pixels_that_are_not_square_are_counted_without_crs(tmp_path):
    pair = write_pair(tmp_path, Affine(0.5, 0, 100, 0, -0.25, 900))
    frame = detect(pair, tmp_path / "out")[1]
    assert frame["area_px"].tolist() == [2800, 200, 6] and frame["perimeter_px"].tolist() == [220, 60, 10]


def test_one_date_with_a_world_file_and_one_without_are_compared_pixel_by_pixel(tmp_path):
    pair = write_pair(tmp_path)
    tif(pair[1], pair_of_images()[1].transpose(2, 0, 1), None, None)
    frame = detect(pair, tmp_path / "out")[1]
    assert frame["area_px"].tolist() == [2800, 200, 6]
    with rasterio.open(tmp_path / "out" / "change.tif") as source:
        assert source.transform == HALF_METRE


@pytest.mark.parametrize("run", [check_image_pair, lambda *pair: write_detection(*pair, detector=Brighter())])
def test_crs_without_geotransform_is_refused(tmp_path, run):
    pair = write_pair(tmp_path, transform=None, crs=UTM)
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"names a CRS \(EPSG:32615\) but has no geotransform.*-a_srs None"):
        run(*pair, out)
    assert not out.exists()


def test_local_crs_in_metres_gives_square_metres(tmp_path):
    pair = write_pair(tmp_path, crs=LOCAL)
    assert check_image_pair(*pair, tmp_path / "check").overlap_m2 == 150 * 230 * 0.25
    result, frame = detect(pair, tmp_path / "out")
    assert frame["area_m2"].tolist() == [700, 50, 1.5] and result.summary.changed_m2 == 751.5
    assert "x 366" in (tmp_path / "out" / "report.html").read_text()


def test_rotated_geotransform_without_crs_is_refused(tmp_path):
    pair = write_pair(tmp_path, Affine.translation(100, 900) @ Affine.rotation(20) @ Affine.scale(0.5, -0.5))
    with pytest.raises(InputError, match="rotated"):
        check_image_pair(*pair)


def test_place_of_an_object_is_in_map_coordinates(tmp_path):
    pair = write_pair(tmp_path)
    detect(pair, tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text()
    assert "col 366" not in text and "x 366" in text and np.isfinite(read(tmp_path / "out" / "score.tif")).any()


# ------------------------------------------------------------------------------------------------ odd grids
def test_south_up_images_are_read_north_up(tmp_path):
    north_up = write_pair(tmp_path, crs=UTM)
    (tmp_path / "flipped").mkdir()
    t1, t2 = (data[::-1] for data in pair_of_images())
    south_up = HALF_METRE @ Affine(1, 0, 0, 0, -1, 150)
    flipped = [tif(tmp_path / "flipped" / f"t{at}.tif", data.transpose(2, 0, 1), south_up, UTM) for at, data in
               ((1, t1), (2, t2))]  # fmt: skip
    frame = detect(north_up, tmp_path / "a")[1]
    for pair in (flipped, [north_up[0], flipped[1]], [flipped[0], north_up[1]]):
        result, same = detect(pair, tmp_path / "b")
        assert same.equals(frame) and not any("resampled" in line for line in result.warnings)
        assert (read(tmp_path / "a" / "change.tif") == read(tmp_path / "b" / "change.tif")).all()
        with open_pair(*pair) as opened:
            assert (opened.read_overview(max_px=999).t2_HWC == pair_of_images()[1]).all()


@pytest.mark.parametrize("east", [-177.0, 183.0])
@pytest.mark.parametrize("utm_first", [True, False])
def test_longitudes_beyond_180_lie_where_they_are(tmp_path, east, utm_first):
    x, y = (values[0] for values in transform("EPSG:4326", "EPSG:32601", [-177.0], [54.0]))
    size = Affine.scale(0.5 / 65_500, -0.5 / 111_300)
    degrees = Affine.translation(east, 54.0) @ size
    metres = Affine(0.5, 0, x, 0, -0.5, y)
    t1, t2 = (np.full((3, 150, 230), 80, np.uint8) for _ in range(2))
    t2[:, 60:100, 80:150] = 230  # 40 x 70 px = 700 m2
    first, second = ((metres, "EPSG:32601"), (degrees, "EPSG:4326"))[:: 1 if utm_first else -1]
    pair = [tif(tmp_path / "t1.tif", t1, *first), tif(tmp_path / "t2.tif", t2, *second)]
    frame = detect(pair, tmp_path / "out")[1]
    assert frame["area_m2"].sum() == pytest.approx(700, rel=0.05)


def test_unknown_datum_transformation_is_said(tmp_path):
    no_datum = rasterio.CRS.from_string("+proj=utm +zone=15 +ellps=intl +units=m")
    t1, t2 = write_pair(tmp_path, crs=UTM)
    tif(t2, pair_of_images()[1].transpose(2, 0, 1), HALF_METRE, no_datum)
    result = detect((t1, t2), tmp_path / "out")[0]
    assert any("No transformation is known between the datums" in line for line in result.warnings)
    assert any("No transformation is known" in line for line in check_image_pair(t1, t2).notes)
    nad83 = rasterio.CRS.from_epsg(26915)
    tif(t2, pair_of_images()[1].transpose(2, 0, 1), HALF_METRE, nad83)
    assert not any("No transformation is known" in line for line in check_image_pair(t1, t2).notes)


def test_local_crs_and_a_crs_on_earth_are_refused(tmp_path):
    t1, t2 = write_pair(tmp_path, crs=UTM)
    tif(t2, pair_of_images()[1].transpose(2, 0, 1), HALF_METRE, LOCAL)
    with pytest.raises(InputError, match=r"t2\.tif.*local CRS, which cannot be related to EPSG:32615"):
        check_image_pair(t1, t2)
