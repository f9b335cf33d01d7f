"""Bands beside RGB: read unchanged, standardised by the training data, from training to map, ONNX file and Python."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from tests.support.dataset_files import save
from tests.support.synthetic_rasters import at, tif
from tests.support.tiny_training import build_tiny_recipe

import semicdvl as cd
from semicdvl.checkpoint import read_run, read_run_bands
from semicdvl.config import parse_recipe
from semicdvl.data.images.cache import ImageCache
from semicdvl.data.images.reading import read_bands
from semicdvl.data.pair_checks import measure_pairs_bands
from semicdvl.data.readers import folder
from semicdvl.errors import CheckpointError, ConfigError, InputError
from semicdvl.training.run import train_recipe
from semicdvl.types import InputBands

GROUND, HOUSE = 800, 2600


def write_pairs(root: Path, *, bands: int, dtype: str = "uint16", count: int = 12) -> Path:
    """Write pairs of 64 px in which a house is new; the last band alone shows it, the others are noise."""
    rng = np.random.default_rng(0)
    for index in range(count):
        label = np.zeros((64, 64), np.uint8)
        label[20:38, 8:28] = 255
        save(root / "label" / f"p{index:02d}.png", label)
        for part in "AB":
            values_CHW = rng.normal(GROUND, 40, (bands, 64, 64))
            values_CHW[-1, 4:14, 44:58] = HOUSE
            if part == "B":
                values_CHW[-1, 20:38, 8:28] = HOUSE
            path = root / part / f"p{index:02d}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            tif(path, values_CHW.astype(dtype), at(index * 40, 90))
    return root


def train_bands(data: Path, run: Path, bands: object, **changes: object) -> Path:
    """Train a few steps."""
    train_recipe(
        build_tiny_recipe(data, None, data__bands=bands, method__name="supervised", **changes), run, quiet=True
    )
    return run


@pytest.mark.parametrize(("bands", "dtype"), [(4, "uint16"), (13, "float32")])
def test_all_bands_go_from_training_to_map_and_onnx(tmp_path, bands, dtype):
    data = write_pairs(tmp_path / "data", bands=bands, dtype=dtype)
    run = train_bands(data, tmp_path / "run", bands, train__steps=6, train__sheet_every=3)
    record = read_run(run)
    found = read_run_bands(record)
    assert found is not None and found.numbers == tuple(range(1, bands + 1))
    assert np.allclose(found.mean[:-1], GROUND, atol=2) and np.allclose(found.std[:-1], 40, atol=1)
    assert found.mean[-1] > GROUND + 50, "the houses are in the last band alone"
    assert record["recipe"]["model"]["bands"] == bands and "stretch" not in record
    pair = folder.read_folder(data).pairs[0]
    scored = cd.evaluate(run, data, split="test")
    assert scored["iou"] == pytest.approx(record["test"]["iou"] or 0.0, nan_ok=True)
    dates = [read_bands(path, found.numbers) for path in (pair.before, pair.after)]
    assert dates[0].dtype == dtype and dates[0].shape == (64, 64, bands)
    predicted = cd.load_model(run).predict(*dates)
    detected = cd.detect(pair.before, pair.after, detector=cd.load_detector(run))
    np.testing.assert_allclose(detected.score, predicted.score_HW, atol=1e-3)  # scores are kept in 16 bits
    exported = cd.export(run, tmp_path / "run.onnx")
    from_file = cd.detect(pair.before, pair.after, detector=cd.load_detector(exported.path))
    np.testing.assert_allclose(from_file.score, predicted.score_HW, atol=1e-3)


def test_the_band_that_shows_the_change_is_learned(tmp_path):
    data = write_pairs(tmp_path / "data", bands=4)
    changes = {"train__steps": 40, "train__optimizer": "adamw", "train__lr": 0.003, "train__eval_every": 40}
    run = train_bands(data, tmp_path / "run", [1, 2, 3, 4], data__labelled=0.9, **changes)
    rgb = train_bands(data, tmp_path / "rgb", [1, 2, 3], data__labelled=0.9, **changes)
    assert read_run(run)["test"]["iou"] > 0.6
    assert (read_run(rgb)["test"]["iou"] or 0.0) < 0.2, "the other bands show nothing"


def test_order_of_the_bands_in_a_raster_is_the_users(tmp_path):
    data = write_pairs(tmp_path / "data", bands=4)
    run = train_bands(data, tmp_path / "run", [3, 2, 1, 4])
    pair = folder.read_folder(data).pairs[0]
    detector = cd.load_detector(run)
    plain = cd.detect(pair.before, pair.after, detector=detector)
    for path in (pair.before, pair.after):
        with rasterio.open(path) as raster:
            values_CHW, profile = raster.read(), raster.profile
        with rasterio.open(tmp_path / f"{path.parent.name}.tif", "w", **profile) as target:
            target.write(values_CHW[[3, 0, 1, 2]])
    reordered = cd.detect(
        tmp_path / "A.tif", tmp_path / "B.tif", detector=detector, config=cd.DetectionConfig(bands=(4, 3, 2, 1))
    )
    np.testing.assert_array_equal(plain.score, reordered.score)
    with pytest.raises(ConfigError, match=r"trained with 4 bands \(3,2,1,4\), but 3 were given \(3,2,1\)"):
        cd.detect(pair.before, pair.after, detector=detector, config=cd.DetectionConfig(bands=(3, 2, 1)))


def test_hidden_ground_has_the_mean_of_each_band_and_counts_for_nothing(tmp_path):
    values_CHW = np.full((4, 32, 40), 500, "float32")
    values_CHW[:, :, 20:] = 700
    values_CHW[:, :10] = np.nan
    tif(tmp_path / "a.tif", values_CHW, at(0, 0))
    tif(tmp_path / "b.tif", np.full((4, 32, 40), 600, "float32"), at(0, 0))
    pair = cd.PairFiles("p", tmp_path / "a.tif", tmp_path / "b.tif")
    bands = measure_pairs_bands([pair], (1, 2, 3, 4))
    assert bands.mean == pytest.approx([600.0] * 4)
    assert bands.std == pytest.approx([np.sqrt((22 * 40 * 100**2) / (22 * 40 + 32 * 40))] * 4)
    cache = ImageCache(0, bands=bands)
    standardised_HWC = bands.standardise(cache.read_image(tmp_path / "a.tif"))
    assert (standardised_HWC[:10] == 0).all() and (standardised_HWC[10:, 20:] > 0.5).all()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float64"])
def test_values_of_any_type_are_kept(tmp_path, dtype):
    values_CHW = np.arange(4 * 24 * 20).reshape(4, 24, 20).astype(dtype)
    tif(tmp_path / "a.tif", values_CHW, at(0, 0))
    read_HWC = read_bands(tmp_path / "a.tif", (4, 1, 2), window_px=(3, 5, 7, 9))
    np.testing.assert_array_equal(read_HWC, values_CHW[[3, 0, 1], 3:10, 5:14].transpose(1, 2, 0))


def test_tags_of_scale_and_offset_are_heard(tmp_path):
    tif(tmp_path / "a.tif", np.full((4, 8, 8), 3000, "uint16"), at(0, 0))
    with rasterio.open(tmp_path / "a.tif", "r+") as raster:
        raster.scales, raster.offsets = (0.0001,) * 4, (-0.1,) * 4
    np.testing.assert_allclose(read_bands(tmp_path / "a.tif", (1, 2, 3, 4)), 0.2, rtol=1e-6)


# ------------------------------------------------------------------------------------------------ refused
def test_band_that_a_file_lacks_is_named(tmp_path):
    data = write_pairs(tmp_path / "data", bands=4)
    with pytest.raises(InputError, match=r"p\d\d\.tif: has 4 bands, but band 5 is to be read"):
        train_bands(data, tmp_path / "run", 5)
    assert not (tmp_path / "run").exists()


def test_dates_with_different_bands_are_refused(tmp_path):
    data = write_pairs(tmp_path / "data", bands=4)
    tif(data / "B" / "p03.tif", np.zeros((5, 64, 64), "uint16"), at(3 * 40, 90))
    with pytest.raises(InputError, match=r"B.p03\.tif: has 5 bands, but p03\.tif of the same pair has 4"):
        train_bands(data, tmp_path / "run", 4)


@pytest.mark.parametrize(
    ("bands", "message"),
    [
        (2, "2 bands are named. Name 3 to 512"),
        ([1, 2, 2, 4], "band 2 is named twice"),
        ([0, 1, 2], "there is no band 0: bands are counted from 1"),
        ("nir", "data.bands"),
    ],
)
def test_impossible_bands_are_refused(tmp_path, bands, message):
    with pytest.raises(ConfigError, match=message):
        build_tiny_recipe(tmp_path, None, data__bands=bands, method__name="supervised")


def test_network_for_other_bands_than_the_data_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"model\.bands = 4, but data\.bands names none"):
        build_tiny_recipe(tmp_path, None, model__bands=4, method__name="supervised")
    with pytest.raises(ConfigError, match=r"model\.bands = 5, but data\.bands names 4"):
        build_tiny_recipe(tmp_path, None, data__bands=4, model__bands=5, method__name="supervised")


def test_raster_with_too_few_bands_for_a_run_is_refused(tmp_path):
    data = write_pairs(tmp_path / "data", bands=4)
    run = train_bands(data, tmp_path / "run", 4)
    for name in "ab":
        tif(tmp_path / f"{name}.tif", np.full((3, 64, 64), 90, "uint16"), at(0, 0))
    with pytest.raises(InputError, match=r"has 3 bands, but the bands 1,2,3,4 were requested"):
        cd.detect(tmp_path / "a.tif", tmp_path / "b.tif", detector=cd.load_detector(run))
    with pytest.raises(ConfigError, match=r"t1 is an array of shape \(8, 9, 3\).*4 bands \(1, 2, 3, 4\)"):
        cd.load_model(run).predict(np.zeros((8, 9, 3)), np.zeros((8, 9, 3)))


def test_record_with_statistics_of_other_bands_is_refused(tmp_path):
    run = train_bands(write_pairs(tmp_path / "data", bands=4), tmp_path / "run", 4)
    record = json.loads((run / "run.json").read_text())
    record["bands"]["std"] = [1.0, 2.0, 3.0]
    (run / "run.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match="4 bands have 4 means and 3 standard deviations"):
        cd.load_model(run)


def test_bands_are_standardised():
    bands = InputBands((1, 2, 3), (10.0, 20.0, 30.0), (1.0, 2.0, 4.0))
    image_HWC = np.array([[[11, 20, np.nan], [10, 16, 38]]], np.float32)
    np.testing.assert_array_equal(bands.standardise(image_HWC), [[[1, 0, 0], [0, -2, 2]]])
    with pytest.raises(ConfigError, match="3 bands have 3 means and 2"):
        InputBands((1, 2, 3), (0.0, 0.0, 0.0), (1.0, 1.0))


def test_three_bands_by_number_need_no_wider_network(tmp_path):
    recipe = parse_recipe(
        {"data": {"root": str(tmp_path), "bands": [4, 3, 2]}, "method": {"name": "supervised"}}, source="test"
    )
    assert recipe.data.bands == (4, 3, 2) and recipe.model.options["bands"] == 3
    torch.manual_seed(0)
    plain = cd.create_model("fc_siam_diff", width=4)
    torch.manual_seed(0)
    same = cd.create_model("fc_siam_diff", width=4, bands=3)
    assert all(torch.equal(one, other) for one, other in zip(plain.parameters(), same.parameters(), strict=True))
