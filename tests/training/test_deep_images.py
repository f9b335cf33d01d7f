"""Patches of more than 8 bits: one stretch for all pairs and both dates, which the run keeps."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from tests.support.dataset_files import save
from tests.support.synthetic_rasters import at, tif
from tests.support.tiny_training import GREEN, RED, build_tiny_recipe

import semicdvl as cd
from semicdvl.checkpoint import read_run, read_run_stretch
from semicdvl.data.images import read_rgb
from semicdvl.data.pair_checks import measure_pairs_stretch
from semicdvl.data.readers import folder
from semicdvl.errors import InputError
from semicdvl.raster.io.pair_reader import open_pair
from semicdvl.training.run import train_recipe

GAIN, OFFSET = 11, 300


def make_date(rng, *, new: bool) -> np.ndarray:
    """Return grey values HWC of grass with a red house, and another one that is new."""
    image_HWC = rng.normal(0, 6, (64, 64, 3)) + GREEN
    image_HWC[4:14, 44:58] = RED
    if new:
        image_HWC[20:38, 8:28] = RED
    return np.clip(image_HWC, 1, 255).astype(np.uint8)


def write_data(root: Path, *, suffix: str, deep: bool = True) -> Path:
    """Write twelve pairs of 64 px; deep ones have values of 16 bits in the place of grey values."""
    rng = np.random.default_rng(0)
    for index in range(12):
        label = np.zeros((64, 64), np.uint8)
        label[20:38, 8:28] = 255
        save(root / "label" / f"p{index:02d}.png", label)
        for part in "AB":
            image_HWC = make_date(rng, new=part == "B")
            values_HWC = image_HWC.astype(np.uint16) * GAIN + OFFSET if deep else image_HWC
            path = root / part / f"p{index:02d}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if suffix == "tif":
                tif(path, values_HWC.transpose(2, 0, 1), at(index * 40, 90))
            elif deep:
                cv2.imwrite(str(path), values_HWC[..., ::-1])
            else:
                save(path, values_HWC)
    return root


@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_stretch_of_the_training_is_kept_and_used_by_all(tmp_path, suffix):
    data = write_data(tmp_path / "data", suffix=suffix)
    recipe = build_tiny_recipe(data, None, method__name="supervised", train__steps=4)
    result = train_recipe(recipe, tmp_path / "run", quiet=True)
    stretch = read_run_stretch(read_run(tmp_path / "run"))
    assert stretch is not None
    pairs = folder.read_folder(data).pairs
    values = [read_rgb(path, stretch=stretch) for pair in pairs[:2] for path in (pair.before, pair.after)]
    assert all(np.ptp(image_HWC) > 200 for image_HWC in values), "the ground keeps its contrast"
    scored = cd.evaluate(tmp_path / "run", data, split="test")
    assert scored["iou"] == pytest.approx(result.test["iou"], nan_ok=True)
    network = cd.load_model(tmp_path / "run")
    dates = [read_rgb(path, stretch=stretch) for path in (pairs[0].before, pairs[0].after)]
    if suffix == "tif":
        deep = [make_deep(path) for path in (pairs[0].before, pairs[0].after)]
        np.testing.assert_array_equal(network.predict(*deep).score_HW, network.predict(*dates).score_HW)
        detected = cd.detect(pairs[0].before, pairs[0].after, detector=cd.load_detector(tmp_path / "run"))
        np.testing.assert_array_equal(detected.change == 1, network.predict(*dates).change_HW == 1)


def make_deep(path: Path) -> np.ndarray:
    """Return the stored values HWC."""
    with rasterio.open(path) as source:
        return source.read().transpose(1, 2, 0)


def test_run_of_8_bit_images_knows_no_stretch(tmp_path):
    data = write_data(tmp_path / "data", suffix="png", deep=False)
    train_recipe(build_tiny_recipe(data, None, method__name="supervised"), tmp_path / "run", quiet=True)
    assert "stretch" not in json.loads((tmp_path / "run" / "run.json").read_text())
    assert cd.load_model(tmp_path / "run").stretch is None


def test_mixed_types_are_refused_before_anything_is_written(tmp_path):
    data = write_data(tmp_path / "data", suffix="tif")
    tif(data / "B" / "p03.tif", make_date(np.random.default_rng(1), new=True).transpose(2, 0, 1), at(120, 90))
    with pytest.raises(InputError, match=r"B/p03\.tif.*has 8 bits per band, but A/p\d\d\.tif"):
        train_recipe(build_tiny_recipe(data, None, method__name="supervised"), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_stretch_leaves_out_cloud_and_untagged_no_data(tmp_path):
    data = write_data(tmp_path / "data", suffix="tif")
    clear = measure_pairs_stretch(folder.read_folder(data).pairs)
    assert clear is not None
    for index in range(12):
        values = make_deep(data / "A" / f"p{index:02d}.tif").astype(np.float32)
        values[:6] = -9999
        values[6:8] = 60000
        for part, written in (("A", values), ("B", make_deep(data / "B" / f"p{index:02d}.tif").astype(np.float32))):
            tif(data / part / f"p{index:02d}.tif", written.transpose(2, 0, 1), at(index * 40, 90))
    cloudy = measure_pairs_stretch(folder.read_folder(data).pairs)
    assert cloudy is not None
    spread_C = clear.high_C - clear.low_C
    assert (np.abs(cloudy.low_C - clear.low_C) < 0.3 * spread_C).all()
    assert (np.abs(cloudy.high_C - clear.high_C) < 0.6 * spread_C).all()


def test_setting_of_a_stretch_per_band(tmp_path):
    values = np.arange(3 * 20 * 30, dtype=np.uint16).reshape(3, 20, 30)
    paths = [tif(tmp_path / f"{name}.tif", values, at(0, 90)) for name in "ab"]
    with open_pair(*paths, stretch="0,255;600,855;1200,1455") as pair:
        t1_HWC = pair.read(0, 0, 20, 30).t1_HWC
    assert (t1_HWC[0, :30] == np.arange(30)[:, None]).all()
    with pytest.raises(cd.ConfigError, match="for 2 bands, but 3 are read"):
        open_pair(*paths, stretch="0,255;600,855")
