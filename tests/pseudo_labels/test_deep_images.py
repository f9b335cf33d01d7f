"""Pseudo-labels of patches with more than 8 bits: one stretch for all pairs and both dates, which the store keeps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.support.dataset_files import save
from tests.support.deep_patches import NEW_HOUSE, OLD_HOUSE, make_date, write_deep_patches
from tests.support.synthetic_rasters import at, tif
from tests.support.tiny_training import HOUSE_PROMPTS, build_tiny_recipe

import semicdvl as cd
from semicdvl.data.images.reading import read_rgb
from semicdvl.data.pair_checks import measure_pairs_stretch
from semicdvl.data.readers import folder
from semicdvl.errors import InputError
from semicdvl.pseudo_labels.store import PseudoLabelStore
from semicdvl.pseudo_labels.workers import WorkerSettings
from semicdvl.training.run import train_recipe
from semicdvl.types import PairFiles, Segments

CEG = {"level": "pixel", "gamma": 0.8}


class BrightRed:
    """A VLM for tests: bright red is house, all else is grass; it counts how often it is asked."""

    identity = "bright-red-1"
    gamma = 0.8

    def __init__(self) -> None:
        self.asked = 0

    def segment(self, image_HWC, prompts, *, gsd_m=None) -> Segments:
        self.asked += 1
        assert image_HWC.dtype == np.uint8
        house_HW = (image_HWC[..., 0] > 230) & (image_HWC[..., 1] < 25)
        scores = np.stack([np.where(house_HW == (word == "house"), 0.95, 0.05) for word in prompts])
        return Segments(scores.astype(np.float32), tuple(prompts))


def fill(data: Path, store: Path, vlm: BrightRed, **more) -> cd.FillResult:
    """Make pseudo-labels with the test's VLM."""
    return cd.pseudo_label(data, store, vlm=vlm, prompts=HOUSE_PROMPTS, ceg=CEG, progress=False, **more)


def read_pairs(data: Path) -> tuple[PairFiles, ...]:
    return folder.read_folder(data).pairs


@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_labels_are_those_of_the_stretched_images(tmp_path, suffix):
    data, vlm = write_deep_patches(tmp_path / "data", suffix=suffix), BrightRed()
    filled = fill(data, tmp_path / "store", vlm, report=True)
    assert filled.quality[0].valid.iou == 1.0, "as seen by its grey values, and unlike its 16-bit values"
    stretch = measure_pairs_stretch(read_pairs(data))
    for pair in read_pairs(data):
        for part, path in (("A", pair.before), ("B", pair.after)):
            save(tmp_path / "grey" / part / f"{pair.name}.png", read_rgb(path, stretch=stretch))
    fill(tmp_path / "grey", tmp_path / "grey-store", BrightRed())
    deep, grey = (PseudoLabelStore.open(tmp_path / name) for name in ("store", "grey-store"))
    for pair, grey_pair in zip(read_pairs(data), read_pairs(tmp_path / "grey"), strict=True):
        labels = deep.read_labels(pair)
        assert (labels.change_HW[NEW_HOUSE] == 1).all() and int((labels.change_HW == 1).sum()) == 18 * 20
        assert (labels.t1_HW[OLD_HOUSE] == 1).all() and (labels.t2_HW[OLD_HOUSE] == 1).all()
        for name, map_HW in vars(grey.read_labels(grey_pair)).items():
            np.testing.assert_array_equal(getattr(labels, name), map_HW)


def test_store_says_its_stretch_and_an_8_bit_store_has_none(tmp_path):
    for name, deep in (("deep", True), ("grey", False)):
        fill(write_deep_patches(tmp_path / name, deep=deep, suffix="png"), tmp_path / f"{name}-store", BrightRed())
    deep, grey = (json.loads((tmp_path / f"{name}-store" / "manifest.json").read_text()) for name in ("deep", "grey"))
    low, high = (float(number) for number in deep["stretch"].split(";")[0].split(","))
    assert 500 < low < 960 < high < 1400, "grass has about 60 * 11 + 300 in red"
    assert "stretch" not in grey


def test_further_pairs_of_the_same_range_keep_the_stretch_and_all_answers(tmp_path):
    data, store, vlm = write_deep_patches(tmp_path / "data", numbers=range(4)), tmp_path / "store", BrightRed()
    fill(data, store, vlm)
    stretch, asked = PseudoLabelStore.open(store).spec.stretch, vlm.asked
    assert asked == 8
    fill(data, store, vlm)
    assert vlm.asked == asked
    write_deep_patches(tmp_path / "more", numbers=range(6))
    for path in [*(tmp_path / "more").rglob("p04.*"), *(tmp_path / "more").rglob("p05.*")]:
        path.rename(data / path.relative_to(tmp_path / "more"))
    fill(data, store, vlm)
    assert PseudoLabelStore.open(store).spec.stretch == stretch and vlm.asked == asked + 4


def test_pairs_of_another_range_get_a_stretch_of_their_own(tmp_path):
    store, other = tmp_path / "store", write_deep_patches(tmp_path / "other", gain=150)
    fill(write_deep_patches(tmp_path / "data"), store, BrightRed())
    assert fill(other, store, BrightRed()).quality[0].valid.iou == 1.0
    stretch = PseudoLabelStore.open(store).spec.get_stretch()
    assert stretch is not None and stretch.high_C[0] > 8000


def test_workers_use_the_stretch_of_the_store(tmp_path):
    data = write_deep_patches(tmp_path / "data", numbers=range(2))
    fill(data, tmp_path / "store", BrightRed())
    spec = PseudoLabelStore.open(tmp_path / "store").spec
    labeler = WorkerSettings(BrightRed).build_labeler(tmp_path / "again", spec, cd.CEGSettings(**CEG))
    record = labeler.label_pair(read_pairs(data)[0])
    assert record["changed_frac"] == 18 * 20 / 64**2


def test_training_takes_a_store_of_deep_images(tmp_path):
    data, store = write_deep_patches(tmp_path / "data"), tmp_path / "store"
    fill(data, store, BrightRed())
    train_recipe(build_tiny_recipe(data, store), tmp_path / "run", quiet=True)
    guide = json.loads((tmp_path / "run" / "run.json").read_text())["guide"]
    assert guide is None or guide["iou"] == 1.0


def test_mixed_types_and_a_damaged_stretch_are_refused(tmp_path):
    data = write_deep_patches(tmp_path / "data", numbers=range(2))
    fill(data, tmp_path / "store", BrightRed())
    manifest = tmp_path / "store" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"stretch": "', '"stretch": "9,'))
    with pytest.raises(cd.StoreError, match=r"manifest\.json: The stretch .* is unknown"):
        fill(data, tmp_path / "store", BrightRed())
    tif(data / "B" / "p01.tif", make_date(np.random.default_rng(1), new=True).transpose(2, 0, 1), at(40, 90))
    with pytest.raises(InputError, match=r"has 8 bits per band, but"):
        fill(data, tmp_path / "new-store", BrightRed())
    assert not (tmp_path / "new-store").exists()


def test_stretch_is_part_of_the_key_of_an_answer(tmp_path):
    data = write_deep_patches(tmp_path / "data", numbers=range(1))
    fill(data, tmp_path / "store", BrightRed())
    store, image = PseudoLabelStore.open(tmp_path / "store"), read_pairs(data)[0].before
    other = PseudoLabelStore(store.root, replace(store.spec, stretch="0,65535"))
    assert other.answer_key(image, None) != store.answer_key(image, None)
