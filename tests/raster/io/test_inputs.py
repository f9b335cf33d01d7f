"""What may be given for one date: files, folders, mosaics, archives, addresses; on whose grid, and with which bands."""

import socket
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.io import MemoryFile
from tests.support.range_server import served
from tests.support.synthetic_rasters import UTM, at, city, png, tif

from semicdvl.errors import ConfigError, InputError
from semicdvl.raster.grid import Grid, find_covering_window
from semicdvl.raster.io import inputs
from semicdvl.raster.io.image_reader import ImageReader
from semicdvl.raster.io.inputs import resolve_input
from semicdvl.raster.io.open_image import open_image_reader
from semicdvl.raster.io.pair_reader import RasterPair, open_pair
from semicdvl.raster.warp import Alignment

WHOLE = city(60, 90)


def tiles(folder: Path, **extra) -> list[Path]:
    """Cut `WHOLE`, whose corner lies at (100, 200), into four tiles."""
    folder.mkdir(exist_ok=True)
    cuts = [(row, col) for row in (0, 32) for col in (0, 40)]
    return [
        tif(folder / f"{row}-{col}.tif", WHOLE[:, row : row + 32 + row, col : col + 40 + 2 * col],
            at(100 + col / 2, 200 - row / 2), **extra)
        for row, col in cuts
    ]  # fmt: skip


def whole(date: ImageReader) -> tuple[np.ndarray, np.ndarray]:
    return date.read(0, 0, date.grid.height, date.grid.width)


def same(first: np.ndarray, second_CHW: np.ndarray) -> bool:
    return bool((first == second_CHW.transpose(1, 2, 0)).all())


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
def test_names_become_what_gdal_opens(given, parts, shown):
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
     ("nowhere/*.tif", "No file matches")],
)  # fmt: skip
def test_names_that_mean_nothing(given, words):
    with pytest.raises(InputError, match=words):
        resolve_input(given)


def test_folder_without_images(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(InputError, match="folder contains no raster"):
        open_image_reader(tmp_path)


# ------------------------------------------------------------------------------------------------ mosaics
@pytest.mark.parametrize("as_folder", [True, False])
def test_tiles_are_one_image_byte_for_byte(tmp_path, as_folder):
    files = tiles(tmp_path / "tiles")
    one = tif(tmp_path / "one.tif", WHOLE, at(100, 200))
    with open_pair(one, files[0].parent if as_folder else files) as pair:
        window = pair.read(0, 0, *pair.shape_hw)
        assert pair.shape_hw == (60, 90) and pair.grid.transform == at(100, 200) and pair.notes == ()
        assert same(window.t1_HWC, WHOLE) and same(window.t2_HWC, WHOLE) and window.valid_HW.all()
        assert (pair.read(20, 30, 25, 33).t2_HWC == window.t2_HWC[20:45, 30:63]).all()


def test_what_no_tile_covers_is_no_data_and_the_grid_grows_up_and_left(tmp_path):
    files = tiles(tmp_path / "tiles")
    date = open_image_reader([files[3], files[0]])  # the grid is that of the tile at the bottom right
    image_HWC, valid_HW = whole(date)
    wanted_HW = np.zeros((60, 90), bool)
    wanted_HW[:32, :40] = wanted_HW[32:, 40:] = True
    assert date.grid.transform == at(100, 200) and (valid_HW == wanted_HW).all()
    assert (image_HWC[wanted_HW] == WHOLE.transpose(1, 2, 0)[wanted_HW]).all()
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
    image_HWC, valid_HW = whole(date)
    wanted = over if way == "none" else np.where(has_HW, over, under)
    assert same(image_HWC, wanted) and valid_HW.all()
    date.close()
    alone = open_image_reader([high, high])
    assert (whole(alone)[1] == (has_HW if way != "none" else True)).all()
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
    files = tiles(tmp_path / "tiles")
    one = tif(tmp_path / "one.tif", WHOLE, at(100.2, 199.9))
    with open_pair(one, [files[0], files[3]]) as pair:
        window = pair.read(0, 0, *pair.shape_hw)
        assert pair.after.warped and 0.45 < window.valid_HW.mean() < 0.56
        assert (window.t2_HWC[window.valid_HW] > 0).all()


@pytest.mark.parametrize("case", ["bands", "type", "no crs", "missing", "truncated", "all plain"])
def test_tiles_that_do_not_fit_are_named(tmp_path, case):
    files = tiles(tmp_path / "tiles", compress="deflate")
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
        whole(date)
    words = {"bands": "5 bands", "type": "UInt16", "missing": "does not exist", "truncated": "truncated"}
    assert "bad.tif" in str(caught.value) and words.get(case, "has no CRS") in str(caught.value)


# ------------------------------------------------------------------------------------------------ file systems of GDAL
def test_memory_and_archives(tmp_path):
    files = tiles(tmp_path / "tiles")
    with zipfile.ZipFile(tmp_path / "tiles.zip", "w") as archive:
        for file in files:
            archive.write(file, file.name)
    inside = [f"/vsizip/{tmp_path}/tiles.zip/{file.name}" for file in files]
    one = tif(tmp_path / "one.tif", WHOLE, at(100, 200))
    with MemoryFile(one.read_bytes(), filename="one.tif") as memory, open_pair(memory.name, inside) as pair:
        window = pair.read(0, 0, *pair.shape_hw)
        assert memory.name.startswith("/vsimem/") and str(pair.after.input) == ",".join(inside)
        assert same(window.t1_HWC, WHOLE) and same(window.t2_HWC, WHOLE)


def test_virtual_file(tmp_path):
    tif(tmp_path / "a.tif", WHOLE, at(100, 200))
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
        assert same(pair.read(0, 0, 60, 90).t2_HWC, WHOLE)


def test_addresses_are_read(tmp_path):
    files = tiles(tmp_path / "tiles", tiled=True, blockxsize=16, blockysize=16)
    one = tif(tmp_path / "one.tif", WHOLE, at(100, 200))
    with served(tmp_path) as address:
        remote = [f"{address}/tiles/{file.name}?key=secret" for file in files]
        with open_pair(one, remote) as pair:
            assert same(pair.read(0, 0, 60, 90).t2_HWC, WHOLE)
            assert pair.after.input.is_remote and "secret" not in str(pair.after.input)
        with open_pair(f"/vsicurl/{address}/one.tif", Path(f"{address}/one.tif")) as pair:
            assert same(pair.read(0, 0, 60, 90).t1_HWC, WHOLE) and pair.after.path.name == "one.tif"
        with pytest.raises(InputError, match="cannot be reached or is no image") as caught:
            open_pair(one, f"{address}/nowhere.tif?key=secret")
        assert "secret" not in str(caught.value) and "Check the address" in caught.value.remedy


def test_address_that_answers_nothing_is_given_up(tmp_path, monkeypatch):
    one = tif(tmp_path / "one.tif", WHOLE, at(100, 200))
    monkeypatch.setitem(inputs.NETWORK_TIMEOUTS, "GDAL_HTTP_LOW_SPEED_TIME", "1")
    monkeypatch.setitem(inputs.NETWORK_TIMEOUTS, "GDAL_HTTP_MAX_RETRY", "0")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(InputError, match="cannot be reached"):
            open_pair(one, f"{address}/a.tif")
    with pytest.raises(InputError, match="cannot be reached"):  # and now nobody listens at all
        open_pair(one, f"{address}/b.tif")


# ------------------------------------------------------------------------------------------------ whose grid
def grids(tmp_path: Path) -> tuple[Path, Path]:
    """Two dates half a pixel apart, the after image with pixels of half the size."""
    before = tif(tmp_path / "a.tif", city(40, 50), at(0, 90, 1.0))
    return before, tif(tmp_path / "b.tif", city(70, 84, seed=1), at(2.25, 88.75, 0.5))


def test_grid_of_the_after_image_leaves_it_untouched(tmp_path):
    before, after = grids(tmp_path)
    for grid in ("after", "finest", after):
        with open_pair(before, after, grid=grid) as pair:
            window = pair.read(0, 0, *pair.shape_hw)
            assert pair.grid.transform == at(2.25, 88.75, 0.5) and pair.shape_hw == (70, 84)
            assert same(window.t2_HWC, city(70, 84, seed=1)) and not pair.after.warped and pair.before.warped
            assert "The before image was resampled" in pair.notes[0] and window.valid_HW.all()
    with open_pair(before, after) as pair:
        assert pair.grid.transform == at(3, 88, 1.0) and pair.shape_hw == (34, 41) and not pair.before.warped
    with open_pair(after, before, grid="finest") as pair:
        assert not pair.before.warped and pair.shape_hw == (70, 84)


def test_grid_of_a_file(tmp_path):
    before, after = grids(tmp_path)
    third = tif(tmp_path / "third.tif", city(30, 36), at(4, 86, 0.75))
    with open_pair(before, after, grid=third) as pair:
        assert pair.grid.transform == at(4, 86, 0.75) and pair.shape_hw == (30, 36)
        assert "Both images were resampled" in pair.notes[0] and pair.read(0, 0, 30, 36).valid_HW.all()
    far = tif(tmp_path / "far.tif", city(30, 36), at(4000, 86, 0.75))
    cases = [
        (far, "does not overlap the reference grid"),
        (png(tmp_path / "p.png", city(8, 9)), "has no CRS"),
        (tmp_path / "none.tif", "does not exist"),
        ([before, after], "a single raster"),
    ]
    for grid, words in cases:
        with pytest.raises(InputError, match=words):
            open_pair(before, after, grid=grid)


def test_move_on_the_grid_of_the_after_image(tmp_path):
    ground = city(80, 90)
    before = tif(tmp_path / "a.tif", ground[:, 10:70, 20:80], at(10, 95))
    after = tif(tmp_path / "b.tif", ground[:, 13:73, 18:78], at(10, 95))  # the same place, said to lie 3 up, 2 right
    with open_pair(before, after, grid="after", alignment=Alignment(-3, 2)) as pair:
        window = pair.read(0, 0, *pair.shape_hw)
        assert pair.shape_hw == (57, 58) and (pair.row, pair.col) == (3, 0) and (window.t1_HWC == window.t2_HWC).all()


def test_covering_rounds_outward_and_goes_beyond_the_edge():
    grid = Grid(UTM, at(0, 90, 1.0), 40, 50)
    assert find_covering_window(grid, Grid(UTM, at(-2.5, 91.5, 0.5), 11, 13)) == (-2, -3, 6, 7)
    assert find_covering_window(grid, Grid(UTM, at(3, 80, 1.0), 4, 5)) == (10, 3, 4, 5)


# ------------------------------------------------------------------------------------------------ bands
def test_four_bands(tmp_path):
    images = [city(30, 40, bands=5), city(30, 40, bands=5, seed=1)]
    files = [tif(tmp_path / f"{n}.tif", image, at(0, 90)) for n, image in enumerate(images)]
    with open_pair(*files, bands=(1, 2, 3, 5), after_bands=(3, 2, 1, 4)) as pair:
        window = pair.read(2, 3, 20, 25)
        assert same(window.t1_HWC, images[0][[0, 1, 2, 4], 2:22, 3:28])
        assert same(window.t2_HWC, images[1][[2, 1, 0, 3], 2:22, 3:28])
        assert pair.read_overview(max_px=10).t1_HWC.shape == (8, 10, 4)
        coloured = pair.select_rgb().read(2, 3, 20, 25)
        assert (coloured.t1_HWC == window.t1_HWC[..., :3]).all() and (coloured.t2_HWC == window.t2_HWC[..., :3]).all()
    with pytest.raises(ConfigError, match="4 bands of the before image cannot be compared with 3 bands"):
        open_pair(*files, bands=(1, 2, 3, 5), after_bands=(3, 2, 1))


def test_four_deep_bands_keep_their_stretch_in_colour(tmp_path):
    image = city(30, 40, bands=4).astype(np.uint16) * np.array([9, 5, 3, 40], np.uint16)[:, None, None]
    files = [tif(tmp_path / name, image, at(0, 90)) for name in ("a.tif", "b.tif")]
    with open_pair(*files, bands=(4, 1, 2, 3)) as pair:
        assert (pair.select_rgb().read(0, 0, 30, 40).t1_HWC == pair.read(0, 0, 30, 40).t1_HWC[..., :3]).all()


def test_deep_grey_image_as_three_bands(tmp_path):
    grey = tif(tmp_path / "grey.tif", city(30, 40, bands=1).astype(np.uint16) * 9, at(0, 90))
    with open_pair(grey, grey, bands=(1, 1, 1)) as pair:
        image_HWC = pair.read(0, 0, 30, 40).t1_HWC
        assert (image_HWC[..., 0] == image_HWC[..., 2]).all() and np.ptp(image_HWC) == 255


# ------------------------------------------------------------------------------------------------ again
def test_reopened_pair_reads_the_same_in_another_thread(tmp_path):
    deep = city(90, 100).astype(np.uint16) * 40
    deep[:, :, :70] = 0  # an untagged border
    files = tif(tmp_path / "a.tif", deep, at(0, 90)), tif(tmp_path / "b.tif", deep * 2, at(0.2, 89.9))
    with open_pair(*files, normalise="match") as pair:
        wanted, got = pair.read(0, 0, *pair.shape_hw), []

        def work(again: RasterPair) -> None:
            with again:
                got.append(again.read(0, 0, *again.shape_hw))

        thread = threading.Thread(target=work, args=[pair.reopen()])
        thread.start()
        thread.join()
        assert pair.after.warped and not wanted.valid_HW.all() and wanted.valid_HW.any()
        for name in ("t1_HWC", "t2_HWC", "valid_HW"):
            assert (getattr(got[0], name) == getattr(wanted, name)).all()
