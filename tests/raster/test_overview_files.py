"""Overviews beside an image are used only where they are those of the image; pixels, stretch and shift are its own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio.enums import Resampling
from tests.support.synthetic_rasters import at, city, tif

import semicdvl as cd
from semicdvl.data.images.files import open_image_raster
from semicdvl.errors import InputError
from semicdvl.raster.io.open_image import open_image_reader
from semicdvl.raster.io.open_pair import open_pair

HEIGHT, WIDTH = 400, 600


def write(path: Path, data_CHW: np.ndarray, *, resampling=Resampling.average, factors=(2, 4, 8), **extra) -> Path:
    """Write an image and overviews beside it."""
    tif(path, data_CHW, at(0, 900), **extra)
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(path, "r+") as image:
        image.build_overviews(list(factors), resampling)
    assert path.with_name(f"{path.name}.ovr").is_file()
    return path


def make_deep(seed: int = 0, *, gain: int = 20) -> np.ndarray:
    return city(HEIGHT, WIDTH, seed=seed).astype(np.uint16) * gain + 300


def add_stale(folder: Path, image_CHW: np.ndarray, stale_CHW: np.ndarray, **extra) -> Path:
    """Write an image whose overviews are those of another one."""
    (folder / "other").mkdir()
    other = write(folder / "other" / "a.tif", stale_CHW, **extra)
    path = tif(folder / "a.tif", image_CHW, at(0, 900))
    shutil.copy(f"{other}.ovr", folder / "a.tif.ovr")
    return path


def count_levels(path: Path) -> int:
    with open_image_raster(path) as raster:
        return len(raster.overviews(1))


@pytest.mark.parametrize("name", ["nearest", "average", "cubic", "lanczos", "gauss", "mode", "rms"])
def test_own_overviews_are_used_however_they_were_made(tmp_path, name):
    image = city(HEIGHT, WIDTH) + np.random.default_rng(1).integers(0, 5, (3, HEIGHT, WIDTH), dtype=np.uint8)
    path = write(tmp_path / "a.tif", image, resampling=Resampling[name])
    assert count_levels(path) == 3 and open_image_reader(path).notes == ()
    deep = write(tmp_path / "b.tif", make_deep(), resampling=Resampling[name], factors=(3, 7))
    assert count_levels(deep) == 2


def test_lossy_overviews_of_an_odd_size_and_no_data_are_used(tmp_path):
    image = city(HEIGHT, WIDTH)[:, :397, :583]
    with rasterio.Env(COMPRESS_OVERVIEW="JPEG", JPEG_QUALITY_OVERVIEW="60"):
        assert count_levels(write(tmp_path / "a.tif", image)) == 3
    values = make_deep().astype(np.float32)
    values[:, :200, :300] = np.nan
    assert count_levels(write(tmp_path / "b.tif", values)) == 3
    whole = make_deep()
    whole[:, 100:300] = 0
    assert count_levels(write(tmp_path / "c.tif", whole, nodata=0)) == 3


@pytest.mark.parametrize("case", ["other place", "other values", "other shape", "other type", "damaged"])
def test_overviews_of_another_image_are_not_used(tmp_path, case):
    image = make_deep()
    stale = {
        "other place": make_deep(7),
        "other values": (image * 1.5).astype(np.uint16),
        "other shape": make_deep()[:, :250],
        "other type": make_deep().astype(np.float32),
        "damaged": image,
    }[case]
    path = add_stale(tmp_path, image, stale)
    if case == "damaged":
        kept = (tmp_path / "a.tif.ovr").read_bytes()
        (tmp_path / "a.tif.ovr").write_bytes(kept[: len(kept) // 3])
    reader = open_image_reader(path).prepare()
    assert count_levels(path) == 0 and len(reader.notes) == 1
    assert reader.notes[0].startswith("Overviews beside a.tif are not used, which is slower: ")
    sample = reader.read_sample()
    assert sample.data_CHW.shape == (3, HEIGHT, WIDTH) and (sample.data_CHW == image).all()
    reader.close()


def test_older_overviews_are_not_used_though_only_a_part_was_edited(tmp_path):
    path = write(tmp_path / "a.tif", city(HEIGHT, WIDTH))
    before = path.stat().st_mtime_ns
    with rasterio.open(path, "r+") as image:
        image.write(np.full((3, 20, 20), 255, np.uint8), window=((300, 320), (100, 120)))
    os.utime(f"{path}.ovr", ns=(before, before))
    os.utime(path, ns=(before + 10**10, before + 10**10))
    assert count_levels(path) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("semicdvl.raster.io.image_reader.MAX_SAMPLE_PX", 60)
        with open_pair(path, path) as pair:
            assert any("a.tif.ovr is older than the image" in note for note in pair.notes)
            assert (pair.before.read_sample().data_CHW[:, 30:32, 10:12] == 255).all()
    os.utime(f"{path}.ovr", ns=(before + 9 * 10**9, before + 9 * 10**9))
    assert count_levels(path) == 3, "copied a second before the image"


def test_result_is_that_without_the_stale_overviews(tmp_path, monkeypatch):
    """Stretch, border, shift and pictures are read from fewer pixels than the image has."""
    monkeypatch.setattr("semicdvl.raster.io.image_reader.MAX_SAMPLE_PX", 150)
    before, after = make_deep(0), make_deep(0)
    after[:, 200:240, 300:360] = 9000
    path = add_stale(tmp_path, after, make_deep(3, gain=90))
    first = tif(tmp_path / "before.tif", before, at(0, 900))
    detector = cd.create_detector("cva")
    stale = cd.detect(first, path, detector=detector)
    checked = cd.check_pair(first, path)
    (tmp_path / "a.tif.ovr").unlink()
    clean = cd.detect(first, path, detector=detector)
    assert (stale.change == clean.change).all() and np.array_equal(stale.score, clean.score, equal_nan=True)
    assert (stale.change[205:235, 305:355] == 1).mean() > 0.9
    again = cd.check_pair(first, path)
    assert checked.after.stretch == again.after.stretch and checked.radiometry == again.radiometry


def test_mosaic_palette_and_vrt(tmp_path):
    stale = add_stale(tmp_path, make_deep(), make_deep(7))
    beside = tif(tmp_path / "b.tif", make_deep(5), at(WIDTH / 2, 900))
    mosaic = open_image_reader([stale, beside])
    assert any("a.tif are not used" in note for note in mosaic.notes)
    read_CHW = mosaic.dataset.read(out_shape=(3, HEIGHT // 4, WIDTH // 2))
    assert (read_CHW[:, :, : WIDTH // 4] == make_deep()[:, 2::4, 2::4]).mean() > 0.99
    mosaic.close()
    vrt = tmp_path / "a.vrt"
    with rasterio.open(stale) as source:
        rasterio.shutil.copy(source, vrt, driver="VRT")
    with pytest.raises(InputError, match=r"Of its source a\.tif, the overviews in a\.tif\.ovr show something else"):
        open_image_reader(vrt)
    shutil.rmtree(tmp_path / "other")
    own = write(tmp_path / "own.tif", make_deep())
    old = own.stat().st_mtime_ns - 10**11
    os.utime(f"{own}.ovr", ns=(old, old))
    with rasterio.open(own) as source:
        rasterio.shutil.copy(source, tmp_path / "own.vrt", driver="VRT")
    assert open_image_reader(tmp_path / "own.vrt").notes == ()  # older, but of this image wherever it was compared


def test_palette_image_with_stale_overviews(tmp_path):
    numbers = (city(HEIGHT, WIDTH, bands=1) // 64).astype(np.uint8)
    for folder, colours in ((tmp_path, numbers), (tmp_path / "other", 3 - numbers)):
        folder.mkdir(exist_ok=True)
        with rasterio.open(
            folder / "p.tif", "w", driver="GTiff", dtype="uint8", count=1, height=HEIGHT, width=WIDTH,
            crs="EPSG:32615", transform=at(0, 900),
        ) as target:  # fmt: skip
            target.write(colours)
            target.write_colormap(1, {number: (60 * number, 200 - 50 * number, 90, 255) for number in range(4)})
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(tmp_path / "other" / "p.tif", "r+") as image:
        image.build_overviews([2, 4], Resampling.nearest)
    shutil.copy(tmp_path / "other" / "p.tif.ovr", tmp_path / "p.tif.ovr")
    reader = open_image_reader(tmp_path / "p.tif")
    assert any("p.tif are not used" in note for note in reader.notes)
    small_CHW = reader.dataset.read(out_shape=(3, HEIGHT // 2, WIDTH // 2))
    assert (small_CHW[0] == 60 * numbers[0, 1::2, 1::2]).mean() > 0.99
    reader.close()


def test_virtual_raster_that_was_built_anew_beside_its_old_overviews(tmp_path):
    for folder, seed in ((tmp_path / "old", 7), (tmp_path, 0)):
        folder.mkdir(exist_ok=True)
        with rasterio.open(tif(folder / "tile.tif", make_deep(seed), at(0, 900))) as source:
            rasterio.shutil.copy(source, folder / "all.vrt", driver="VRT")
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(tmp_path / "old" / "all.vrt", "r+") as image:
        image.build_overviews([2, 4], Resampling.average)
    shutil.copy(tmp_path / "old" / "all.vrt.ovr", tmp_path / "all.vrt.ovr")
    reader = open_image_reader(tmp_path / "all.vrt")
    assert any("all.vrt are not used" in note for note in reader.notes)
    small_CHW = reader.dataset.read(out_shape=(3, HEIGHT // 4, WIDTH // 4))
    assert (small_CHW == make_deep()[:, 2::4, 2::4]).mean() > 0.99
    reader.close()
    assert open_image_reader(tmp_path / "old" / "all.vrt").notes == ()


@pytest.mark.parametrize("suffix", [".ovr", ".msk", ".msk.ovr", ".OVR"])
def test_companions_that_lead_to_other_files_are_refused(tmp_path, suffix):
    """GDAL opens what is named like overviews or a mask with any driver."""
    (tmp_path / "elsewhere").mkdir()
    secret = tif(tmp_path / "elsewhere" / "secret.tif", make_deep()[:, ::2, ::2], at(0, 900))
    path = tif(tmp_path / "a.tif", make_deep(), at(0, 900))
    if suffix == ".msk.ovr":
        tif(tmp_path / "a.tif.msk", np.full((1, HEIGHT, WIDTH), 255, np.uint8), driver="GTiff")
    bands = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{band}"><SimpleSource><SourceFilename relativeToVRT="0">{secret}'
        f"</SourceFilename><SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>"
        for band in (1, 2, 3)
    )
    companion = tmp_path / f"a.tif{suffix}"
    companion.write_text(f'<VRTDataset rasterXSize="{WIDTH // 2}" rasterYSize="{HEIGHT // 2}">{bands}</VRTDataset>')
    for read in (open_image_raster, open_image_reader):
        with pytest.raises(InputError, match=r"The file a\.tif\.\w+(\.ovr)? beside it is no TIFF"):
            read(path)
    companion.unlink()
    companion.symlink_to("/dev/zero")
    with pytest.raises(InputError, match=r"The file a\.tif\.\w+(\.ovr)? beside it is a device"):
        open_image_raster(path)
