"""Patches of more than 8 bits: one stretch for all pairs and both dates, which the run keeps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from tests.support.dataset_files import save
from tests.support.deep_patches import make_date, write_deep_patches
from tests.support.synthetic_rasters import at, tif
from tests.support.tiny_training import build_tiny_recipe

import semicdvl as cd
from semicdvl.benchmarking.detectors import run_detector_job
from semicdvl.checkpoint import read_run, read_run_stretch
from semicdvl.data.images.reading import read_rgb
from semicdvl.data.pair_checks import measure_pairs_stretch
from semicdvl.data.readers import folder
from semicdvl.data.split_file import write_split
from semicdvl.errors import InputError
from semicdvl.raster.io.open_pair import open_pair
from semicdvl.review.labels.sources import FolderPatches
from semicdvl.training.run import train_recipe
from semicdvl.types import ReadingSettings, Split


@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_stretch_of_the_training_is_kept_and_used_by_all(tmp_path, suffix):
    data = write_deep_patches(tmp_path / "data", suffix=suffix)
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
    data = write_deep_patches(tmp_path / "data", suffix="png", deep=False)
    train_recipe(build_tiny_recipe(data, None, method__name="supervised"), tmp_path / "run", quiet=True)
    assert "stretch" not in json.loads((tmp_path / "run" / "run.json").read_text())
    assert cd.load_model(tmp_path / "run").stretch is None


def test_mixed_types_are_refused_before_anything_is_written(tmp_path):
    data = write_deep_patches(tmp_path / "data", suffix="tif")
    tif(data / "B" / "p03.tif", make_date(np.random.default_rng(1), new=True).transpose(2, 0, 1), at(120, 90))
    with pytest.raises(InputError, match=r"B/p03\.tif.*has 8 bits per band, but A/p\d\d\.tif"):
        train_recipe(build_tiny_recipe(data, None, method__name="supervised"), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_stretch_leaves_out_cloud_and_untagged_no_data(tmp_path):
    data = write_deep_patches(tmp_path / "data", suffix="tif")
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
    with open_pair(*paths, ReadingSettings(stretch="0,255;600,855;1200,1455")) as pair:
        t1_HWC = pair.read(0, 0, 20, 30).t1_HWC
    assert (t1_HWC[0, :30] == np.arange(30)[:, None]).all()
    with pytest.raises(cd.ConfigError, match="for 2 bands, but 3 are read"):
        open_pair(*paths, ReadingSettings(stretch="0,255;600,855"))


def test_the_label_page_and_untrained_detectors_show_and_score_deep_patches(tmp_path):
    data = write_deep_patches(tmp_path / "data")
    stretch = measure_pairs_stretch(folder.read_folder(data).pairs)
    shown = FolderPatches(data).read_images("p03")
    np.testing.assert_array_equal(shown.t1_HWC, read_rgb(data / "A" / "p03.tif", stretch=stretch))
    scores = []
    for pair in folder.read_folder(data).pairs:
        save(tmp_path / "grey" / "label" / f"{pair.name}.png", np.array(Image.open(pair.label)))
        for part, path in (("A", pair.before), ("B", pair.after)):
            save(tmp_path / "grey" / part / f"{pair.name}.png", read_rgb(path, stretch=stretch))
    for root in (data, tmp_path / "grey"):
        write_split(root / "split.json", Split((), (), (), folder.read_folder(root).pairs), root=root, notes={})
        job = {"split": str(root / "split.json"), "label_values": None, "gsd_m": None}
        scores.append(run_detector_job({**job, "detector": {"name": "CVA", "method": "cva", "fit": "pair"}})["test"])
    assert scores[0] == scores[1] and scores[0]["iou"] > 0.1
