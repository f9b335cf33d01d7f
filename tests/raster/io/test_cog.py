"""Writing cloud-optimised GeoTIFFs: values, metadata, and nothing left behind by a failure."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from tests.support.object_scenes import PLAIN, UTM, make_noise

from semicdvl.errors import OutputError
from semicdvl.raster.grid import Grid
from semicdvl.raster.io.cog import BandDescription, create_cog


def write_cog(path: Path, array: np.ndarray, *, grid: Grid, rows: int = 100, **band) -> None:
    """Write an array rows by rows."""
    with create_cog(path, grid=grid, band=BandDescription(str(array.dtype), **band)) as cog:
        for row in range(0, len(array), rows):
            cog.write_rows(row, array[row : row + rows])


def test_cog_keeps_grid_values_nodata_colours_and_tags(tmp_path):
    grid = UTM.window(0, 0, 1100, 1300)
    classes = np.random.default_rng(0).integers(0, 3, (1100, 1300), dtype=np.uint8)
    classes[:9] = 255
    path = tmp_path / "t1.tif"
    write_cog(path, classes, grid=grid, nodata=255, colours=[(9, 8, 7), (1, 2, 3)], tags={"CLASS_1": "roof"})
    with rasterio.open(path) as source:
        assert (source.read(1) == classes).all()
        assert source.crs == grid.crs and source.transform == grid.transform and source.nodata == 255
        assert source.colormap(1)[1] == (1, 2, 3, 255) and source.tags()["CLASS_1"] == "roof"
        assert source.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG" and source.overviews(1)
        assert source.block_shapes == [(512, 512)] and source.compression.value == "DEFLATE"
    assert [entry.name for entry in tmp_path.iterdir()] == ["t1.tif"]


def test_float_cog_has_nan_for_no_data(tmp_path):
    score = make_noise(UTM)
    score[3, 5] = np.nan
    write_cog(tmp_path / "score.tif", score, grid=UTM, nodata=float("nan"))
    with rasterio.open(tmp_path / "score.tif") as source:
        assert np.array_equal(source.read(1), score, equal_nan=True) and np.isnan(source.nodata)
        assert source.tags(ns="IMAGE_STRUCTURE")["PREDICTOR"] == "3" and source.compression.value == "ZSTD"
        assert (source.dataset_mask() > 0).sum() == score.size - 1


def test_plain_cog_has_no_crs_and_says_so(tmp_path):
    write_cog(tmp_path / "change.tif", np.ones((70, 90), np.uint8), grid=PLAIN, nodata=255)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(tmp_path / "change.tif") as source:
            assert source.crs is None and "no CRS" in source.tags()["NOTE"]


def test_same_input_same_bytes_however_it_comes(tmp_path):
    grid = UTM.window(0, 0, 700, 530)
    for name, rows in (("a.tif", 700), ("b.tif", 700), ("c.tif", 77)):
        write_cog(tmp_path / name, make_noise(grid), grid=grid, rows=rows, nodata=float("nan"))
    first = (tmp_path / "a.tif").read_bytes()
    assert first == (tmp_path / "b.tif").read_bytes() == (tmp_path / "c.tif").read_bytes()


def test_pixels_that_were_written_can_be_cleared(tmp_path):
    with create_cog(tmp_path / "change.tif", grid=UTM, band=BandDescription("uint8", 255)) as cog:
        cog.write_rows(0, np.ones((70, 90), np.uint8))
        cog.clear_pixels(60, 3, np.array([[True, False, True]]))
    with rasterio.open(tmp_path / "change.tif") as source:
        values = source.read(1)
    assert values[60, 3] == values[60, 5] == 0 and values.sum() == 70 * 90 - 2


def test_what_fails_leaves_nothing(tmp_path):
    with (
        pytest.raises(KeyError),
        create_cog(tmp_path / "change.tif", grid=UTM, band=BandDescription("uint8", 255)) as cog,
    ):
        cog.write_rows(0, np.ones((7, 90), np.uint8))
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_one_error_and_nothing_is_left(tmp_path, full_disk):
    grid = UTM.window(0, 0, 200, 300)
    with pytest.raises(OutputError, match="cannot be written"):
        write_cog(tmp_path / "score.tif", make_noise(grid), grid=grid, nodata=float("nan"))
    assert list(tmp_path.iterdir()) == []


def test_pixels_that_the_disk_lost_are_one_error_and_nothing_is_left(tmp_path, monkeypatch):
    grid = UTM.window(0, 0, 600, 4700)

    def lose_the_last_pixel(source, target, *, driver, **options):
        with rasterio.open(source) as plain, rasterio.open(target, "w", **plain.profile) as copy:
            values = plain.read(1)
            values[-1, -1] += 0.25
            copy.write(values, 1)

    monkeypatch.setattr(rasterio.shutil, "copy", lose_the_last_pixel)
    with pytest.raises(OutputError, match="differ from those that were written"):
        write_cog(tmp_path / "score.tif", make_noise(grid), grid=grid, nodata=float("nan"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder_is_one_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="cannot be written"):
        write_cog(tmp_path / "score.tif", make_noise(UTM), grid=UTM, nodata=float("nan"))


def test_folder_that_cannot_be_made_is_one_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        write_cog(tmp_path / "file" / "score.tif", make_noise(UTM), grid=UTM, nodata=float("nan"))
