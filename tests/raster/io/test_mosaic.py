"""Several files of one date as one raster."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from tests.support.synthetic_rasters import MOSAIC_CHW, UTM, at, city, png, same_pixels, tif, write_tiles

from semicdvl.errors import InputError
from semicdvl.raster.io.image_reader import ImageReader
from semicdvl.raster.io.open_image import open_image_reader
from semicdvl.raster.io.open_pair import open_pair


def read_whole(reader: ImageReader) -> tuple[np.ndarray, np.ndarray]:
    return reader.read(0, 0, reader.grid.height, reader.grid.width)


@pytest.mark.parametrize("as_folder", [True, False])
def test_tiles_are_one_image_byte_for_byte(tmp_path, as_folder):
    files = write_tiles(tmp_path / "tiles")
    one = tif(tmp_path / "one.tif", MOSAIC_CHW, at(100, 200))
    with open_pair(one, files[0].parent if as_folder else files) as pair:
        window = pair.read(0, 0, *pair.shape_hw)
        assert pair.shape_hw == (60, 90) and pair.grid.transform == at(100, 200) and pair.notes == ()
        assert (
            same_pixels(window.t1_HWC, MOSAIC_CHW) and same_pixels(window.t2_HWC, MOSAIC_CHW) and window.valid_HW.all()
        )
        assert (pair.read(20, 30, 25, 33).t2_HWC == window.t2_HWC[20:45, 30:63]).all()


def test_ground_without_a_tile_is_no_data_and_the_grid_grows_up_and_left(tmp_path):
    files = write_tiles(tmp_path / "tiles")
    date = open_image_reader([files[3], files[0]])  # the grid is that of the tile at the bottom right
    image_HWC, valid_HW = read_whole(date)
    wanted_HW = np.zeros((60, 90), bool)
    wanted_HW[:32, :40] = wanted_HW[32:, 40:] = True
    assert date.grid.transform == at(100, 200) and (valid_HW == wanted_HW).all()
    assert (image_HWC[wanted_HW] == MOSAIC_CHW.transpose(1, 2, 0)[wanted_HW]).all()
    date.close()


@pytest.mark.parametrize("way", ["tag", "alpha", "mask", "none"])
def test_later_files_lie_over_earlier_ones_where_they_have_data(tmp_path, way):
    under, over = city(30, 44), city(30, 44, seed=1)
    has_HW = np.zeros((30, 44), bool)
    has_HW[5:25, 10:30] = True
    low, high = tif(tmp_path / "low.tif", under, at(0, 90)), tmp_path / "high.tif"
    over = np.where(has_HW | (way == "none"), over, 0).astype(np.uint8)
    tif(high, over, at(0, 90), alpha=has_HW if way == "alpha" else None, **({"nodata": 0} if way == "tag" else {}))
    if way == "mask":
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(high, "r+") as target:
            target.write_mask(has_HW)
    date = open_image_reader([low, high])
    image_HWC, valid_HW = read_whole(date)
    wanted = over if way == "none" else np.where(has_HW, over, under)
    assert same_pixels(image_HWC, wanted) and valid_HW.all()
    date.close()
    alone = open_image_reader([high, high])
    assert (read_whole(alone)[1] == (has_HW if way != "none" else True)).all()
    alone.close()


def test_tile_of_another_crs_and_resolution_lands_on_its_ground(tmp_path):
    """Light blocks in UTM at 0.6 m, and the right half of them in degrees at about 0.5 m."""
    image = np.full((3, 120, 140), 60, np.uint8)
    image[:, 40:60, 20:50] = image[:, 70:100, 90:120] = 220
    transform = at(366676, 4104256, 0.6)
    one = tif(tmp_path / "one.tif", image, transform)
    left = tif(tmp_path / "left.tif", image[:, :, :70], transform)
    crs = rasterio.CRS.from_epsg(4326)
    place = rasterio.warp.transform_bounds(UTM, crs, 366676 + 60 * 0.6, 4104256 - 72, 366676 + 84, 4104256)
    width, height = round((place[2] - place[0]) / 5e-6), round((place[3] - place[1]) / 5e-6)
    to = Affine(5e-6, 0, place[0], 0, -5e-6, place[3])
    turned = np.zeros((3, height, width), np.uint8)
    rasterio.warp.reproject(image, turned, src_transform=transform, src_crs=UTM, dst_transform=to, dst_crs=crs,
                            resampling=1)  # fmt: skip
    with open_pair(one, [left, tif(tmp_path / "right.tif", turned, to, crs, nodata=0)]) as pair:
        window = pair.read(0, 0, *pair.shape_hw)
        bright = [image_HWC[..., 0] > 140 for image_HWC in (window.t1_HWC, window.t2_HWC)]
        assert pair.grid.crs == UTM and window.valid_HW.mean() > 0.97 and not pair.after.warped
        assert (bright[0] & bright[1]).sum() / (bright[0] | bright[1]).sum() > 0.93
        assert np.array_equal(window.t1_HWC[:, :55], window.t2_HWC[:, :55])


def test_mosaic_of_mosaics_is_warped_onto_the_other_date(tmp_path):
    """A virtual mosaic with holes, warped: what no tile covers must not become black ground."""
    files = write_tiles(tmp_path / "tiles")
    one = tif(tmp_path / "one.tif", MOSAIC_CHW, at(100.2, 199.9))
    with open_pair(one, [files[0], files[3]]) as pair:
        window = pair.read(0, 0, *pair.shape_hw)
        assert pair.after.warped and 0.45 < window.valid_HW.mean() < 0.56
        assert (window.t2_HWC[window.valid_HW] > 0).all()


@pytest.mark.parametrize("case", ["bands", "type", "no crs", "missing", "truncated", "all plain"])
def test_tiles_that_do_not_fit_are_named(tmp_path, case):
    files = write_tiles(tmp_path / "tiles", compress="deflate")
    bad = tmp_path / "bad.tif"
    match case:
        case "bands":
            tif(bad, city(20, 30, bands=5), at(0, 90))
        case "type":
            tif(bad, city(20, 30).astype(np.uint16), at(0, 90))
        case "no crs":
            png(bad, city(20, 30))
        case "truncated":
            bad.write_bytes(files[3].read_bytes()[:-900])
        case "all plain":
            files, bad = [png(tmp_path / name, city(20, 30)) for name in ("bad.tif", "b.png")], tmp_path / "bad.tif"
    with pytest.raises(InputError) as caught:
        date = open_image_reader([*files, bad])
        read_whole(date)
    words = {"bands": "5 bands", "type": "UInt16", "missing": "does not exist", "truncated": "truncated"}
    assert "bad.tif" in str(caught.value) and words.get(case, "has no CRS") in str(caught.value)


# ------------------------------------------------------------------------------------------------ bands, not tiles
def test_one_file_per_band_is_refused_with_the_command_that_stacks_them(tmp_path):
    names = ["T33_B02_10m.tif", "T33_B03_10m.tif", "T33_B04_10m.tif", "T33_B08_10m.tif"]
    files = [tif(tmp_path / name, city(40, 50, seed=at_)[:1], at(0, 90)) for at_, name in enumerate(names)]
    with pytest.raises(InputError, match="one band each and show the same ground: they are bands, not tiles") as caught:
        open_image_reader(tmp_path)
    order = [caught.value.remedy.index(name) for name in (names[2], names[1], names[0], names[3])]
    assert order == sorted(order) and "gdalbuildvrt -separate" in caught.value.remedy
    coarse = tif(tmp_path / "T33_B11_20m.tif", city(20, 25)[:1], at(0, 90, 1.0))
    with pytest.raises(InputError, match="The 5 files have one band each"):
        open_image_reader([*files, coarse])
