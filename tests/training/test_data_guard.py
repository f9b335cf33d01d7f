"""Images and labels that are written to while a network is trained, adapted, or a store is filled."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from tests.support.deep_patches import write_deep_patches
from tests.support.synthetic_rasters import at, city, tif
from tests.support.tiny_training import HOUSE_PROMPTS, ColourVLM, build_tiny_recipe

import semicdvl as cd
from semicdvl.errors import CheckpointError, InputError
from semicdvl.reading.regular_files import FileStamps
from semicdvl.training import run, validation
from semicdvl.training.run import train_recipe
from semicdvl.training.self_training import run as adapting
from semicdvl.training.self_training.config import AdaptConfig


def touch_later(path: Path) -> None:
    """Give a file a later time of change."""
    now = path.stat().st_mtime_ns
    os.utime(path, ns=(now, now + 10**9))


@pytest.mark.parametrize("changed", ["A/p03.png", "B/p07.png", "label/p05.png"])
def test_training_names_the_file_and_is_not_resumed(tmp_path, monkeypatch, changed):
    data = write_deep_patches(tmp_path / "data", suffix="png", deep=False)
    recipe = build_tiny_recipe(data, None, method__name="supervised", train__steps=4)
    validations = []

    def build(*args, **more):
        def validate(model, device):
            validations.append(model)
            touch_later(data / changed)
            return {"iou": 0.5, "f1": 0.5, "precision": 0.5, "recall": 0.5}

        return validate

    monkeypatch.setattr(run, "build_run_validator", build)
    with pytest.raises(InputError, match=re.escape(f"{changed}: was changed while it was read, so that the weights")):
        train_recipe(recipe, tmp_path / "run", quiet=True)
    assert len(validations) == 1, "noticed before the second validation"
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "started" and record[validation.CHANGED_DATA].endswith(changed)
    with pytest.raises(CheckpointError, match=re.escape(f"was trained while {data / changed} was changed")):
        train_recipe(recipe, tmp_path / "run", quiet=True)


def test_training_that_is_refused_before_its_first_checkpoint_leaves_nothing(tmp_path, monkeypatch):
    data = write_deep_patches(tmp_path / "data", suffix="png", deep=False)
    check = run._check_data

    def check_and_touch(*args):
        found = check(*args)
        touch_later(data / "label" / "p00.png")
        return found

    monkeypatch.setattr(run, "_check_data", check_and_touch)
    with pytest.raises(InputError, match=r"label/p00\.png: was changed"):
        train_recipe(build_tiny_recipe(data, None, method__name="supervised"), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_adapting_names_the_raster_and_leaves_nothing(tmp_path, monkeypatch):
    dates = [tif(tmp_path / f"{name}.tif", city(128, 128, seed=seed), at(0, 90)) for seed, name in enumerate("ab")]
    cut = adapting.cut_pair_patches

    def cut_and_touch(*args, **more):
        found = cut(*args, **more)
        touch_later(dates[1])
        return found

    monkeypatch.setattr(adapting, "cut_pair_patches", cut_and_touch)
    call = {"vlm": ColourVLM(), "prompts": HOUSE_PROMPTS, "ceg": cd.CEGSettings(level="pixel", gamma=0.3)}
    with pytest.raises(InputError, match=r"b\.tif: was changed while it was read, so that its patches fit no image"):
        adapting.adapt_to_pair(*dates, tmp_path / "run", config=AdaptConfig(patch_px=64, crop_px=64, patches=4), **call)
    assert not (tmp_path / "run").exists()


def test_store_gets_no_answer_of_an_image_that_changed(tmp_path):
    data = write_deep_patches(tmp_path / "data", suffix="png", deep=False, numbers=range(2))

    class Touching(ColourVLM):
        gamma = 0.8

        def segment(self, image_HWC, prompts, *, gsd_m=None):
            touch_later(data / "B" / "p00.png")
            return super().segment(image_HWC, prompts, gsd_m=gsd_m)

    fill = {"prompts": HOUSE_PROMPTS, "ceg": {"level": "pixel"}, "progress": False}
    with pytest.raises(InputError, match=r"B/p00\.png: was changed while it was read, so that no answer fits it"):
        cd.pseudo_label(data, tmp_path / "store", vlm=Touching(), **fill)
    assert not (tmp_path / "store").exists()
    vlm = ColourVLM()
    vlm.gamma = 0.8
    cd.pseudo_label(data, tmp_path / "store", vlm=vlm, **fill)


def test_stamps(tmp_path):
    first, second, missing = (tmp_path / name for name in ("a", "b", "c"))
    first.write_bytes(b"1")
    second.write_bytes(b"2")
    stamps = FileStamps.take([first, second, missing])
    stamps.require_unchanged()
    first.unlink()
    assert stamps.find_changed() is None, "what is gone was read as it was"
    missing.write_bytes(b"3")
    assert stamps.find_changed() == missing
    second.write_bytes(b"22")
    with pytest.raises(InputError, match="b: was changed while it was read, so that no result fits it"):
        stamps.require_unchanged()
