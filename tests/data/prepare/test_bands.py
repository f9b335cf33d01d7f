"""Patches of more bands than RGB: values as they are stored, and the way back to the bands of the raster."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rich.console import Console
from shapely.geometry import box
from tests.support.command import command
from tests.support.synthetic_rasters import at, tif
from tests.support.tiny_training import build_tiny_recipe

import semicdvl as cd
from semicdvl.checkpoint import read_run, read_run_bands
from semicdvl.data.images.reading import read_bands, read_opaque, read_rgb
from semicdvl.data.patch_files import read_source_bands
from semicdvl.data.prepare.config import PrepareSettings
from semicdvl.data.prepare.run import prepare_patches
from semicdvl.data.readers import folder
from semicdvl.errors import ConfigError, InputError
from semicdvl.training.run import train_recipe

SIDE, BANDS = 320, (4, 3, 2, 6)
SETTINGS = PrepareSettings(size_px=32, buffer_px=0, block_m=32, min_known_frac=1.0, bands=BANDS)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two dates of six bands of 16 bits, in the last of which houses are new; no data in one corner of date 2."""
    root = tmp_path_factory.mktemp("scene")
    rng = np.random.default_rng(0)
    dates = [rng.integers(500, 900, (6, SIDE, SIDE)).astype("uint16") for _ in range(2)]
    corners = [(row, col) for row in range(8, SIDE, 32) for col in range(8, SIDE, 32)]
    for row, col in corners:
        dates[1][5, row : row + 14, col : col + 14] = 3000
    dates[1][:, :20, :20] = 0
    for name, values in zip(("before", "after"), dates, strict=True):
        tif(root / f"{name}.tif", values, at(0, 0), nodata=0)
    with rasterio.open(root / "before.tif") as raster:
        transform, crs = raster.transform, raster.crs
    houses = []
    for row, col in corners:
        (x0, y0), (x1, y1) = transform @ (col, row + 14), transform @ (col + 14, row)
        houses.append(box(x0, y0, x1, y1))
    gpd.GeoDataFrame(geometry=houses, crs=crs).to_file(root / "changes.gpkg")
    return {"before": root / "before.tif", "after": root / "after.tif", "labels": root / "changes.gpkg"}


@pytest.fixture(scope="module")
def patches(scene: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "patches"
    prepare_patches(**scene, out=out, settings=SETTINGS, console=Console(quiet=True))
    return out


def test_patches_hold_the_stored_values_in_the_order_asked_for(scene, patches):
    with rasterio.open(scene["after"]) as raster:
        stored_CHW, whole, crs = raster.read(BANDS), raster.transform, raster.crs
    pairs = folder.read_folder(patches).pairs
    assert len(pairs) > 90 and {pair.after.suffix for pair in pairs} == {".tif"}
    for pair in pairs[3:9]:
        with rasterio.open(pair.after) as patch:
            row, col = (round(value) for value in reversed(~whole @ (patch.transform.c, patch.transform.f)))
            np.testing.assert_array_equal(patch.read(), stored_CHW[:, row : row + 32, col : col + 32])
            assert patch.dtypes == ("uint16",) * 4 and patch.crs == crs
            assert patch.colorinterp[:3] == (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
            assert patch.colorinterp[3] != ColorInterp.alpha
        assert read_source_bands(pair.after) == BANDS


def test_next_command_trains_on_all_bands(scene, patches):
    prepared = prepare_patches(**scene, out=patches, settings=SETTINGS, console=Console(quiet=True))
    assert "--set data.bands=4" in prepared.summary


def test_ground_without_data_is_hidden_in_both_dates(patches):
    first = folder.read_folder(patches).pairs[0]
    for path in (first.before, first.after):
        opaque_HW = read_opaque(path)
        assert opaque_HW is not None and not opaque_HW[:20, :20].any() and opaque_HW[20:, 20:].all()


def test_run_finds_the_bands_of_the_raster_again(scene, patches, tmp_path):
    recipe = build_tiny_recipe(patches, None, data__bands=4, data__crop_px=32, method__name="supervised")
    train_recipe(recipe, tmp_path / "run", quiet=True)
    bands = read_run_bands(read_run(tmp_path / "run"))
    assert bands is not None and bands.numbers == (1, 2, 3, 4) and bands.raster_numbers == BANDS
    detector = cd.load_detector(tmp_path / "run")
    assert detector.bands == BANDS
    found = cd.detect(scene["before"], scene["after"], detector=detector)
    with rasterio.open(scene["before"]) as raster:
        t1_HWC = raster.read(BANDS).transpose(1, 2, 0)
    with rasterio.open(scene["after"]) as raster:
        t2_HWC = raster.read(BANDS).transpose(1, 2, 0)
    wanted = cd.load_model(tmp_path / "run").predict(t1_HWC, t2_HWC)
    np.testing.assert_allclose(found.score[64:, 64:], wanted.score_HW[64:, 64:], atol=1e-3)
    assert not any("stretched to 8 bits" in note for note in found.warnings)


def test_same_folder_is_resumed_and_other_bands_are_another_one(scene, patches):
    before = {path: path.stat().st_mtime_ns for path in (patches / "A").iterdir()}
    prepare_patches(**scene, out=patches, settings=SETTINGS, console=Console(quiet=True))
    assert {path: path.stat().st_mtime_ns for path in (patches / "A").iterdir()} == before


def test_command_keeps_bands(scene, tmp_path, capsys):
    inputs = [word for name, path in scene.items() for word in (f"--{name}", path)]
    cut = ["--size-px", 32, "--buffer-px", 0, "--block-m", 32, "--bands", "3,2,1,4,6"]
    code, _, error = command(capsys, "prepare", *inputs, "-o", tmp_path / "out", *cut)
    assert code == 0, error
    pair = folder.read_folder(tmp_path / "out").pairs[0]
    assert read_bands(pair.before, (1, 2, 3, 4, 5)).shape == (32, 32, 5)
    assert read_source_bands(pair.before) == (3, 2, 1, 4, 6)
    with pytest.raises(InputError, match="holds uint16 values, but 8-bit RGB is needed"):
        read_rgb(pair.before)


def test_impossible_bands_are_refused(scene, tmp_path):
    with pytest.raises(ConfigError, match="band 4 is named twice"):
        PrepareSettings(bands=(4, 4, 2, 1))
    settings = PrepareSettings(size_px=32, bands=(1, 2, 3, 9))
    with pytest.raises(InputError, match="has 6 bands, but the bands 1,2,3,9 were requested"):
        prepare_patches(**scene, out=tmp_path / "out", settings=settings, console=Console(quiet=True))
    assert not (tmp_path / "out").exists()
