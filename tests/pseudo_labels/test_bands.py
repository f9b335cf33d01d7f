"""Patches of five bands: the VLM looks at red, green and blue as they are tagged, the network reads all of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from tests.support.dataset_files import save
from tests.support.deep_patches import NEW_HOUSE, make_date
from tests.support.synthetic_rasters import at, tif
from tests.support.tiny_training import HOUSE_PROMPTS, build_tiny_recipe

import semicdvl as cd
from semicdvl.checkpoint import read_run, read_run_bands
from semicdvl.errors import InputError
from semicdvl.pseudo_labels.store import PseudoLabelStore
from semicdvl.training.run import train_recipe
from semicdvl.types import Segments

BLUE_FIRST = (ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.undefined, ColorInterp.undefined)


class BrightRed:
    """A VLM for tests: what is red is house, all else is grass."""

    identity = "red-1"
    gamma = 0.8

    def segment(self, image_HWC, prompts, *, gsd_m=None) -> Segments:
        house_HW = (image_HWC[..., 0] > 230) & (image_HWC[..., 1] < 25)
        scores = np.stack([np.where(house_HW == (word == "house"), 0.95, 0.05) for word in prompts])
        return Segments(scores.astype(np.float32), tuple(prompts))


def write_data(root: Path, *, tags: tuple[ColorInterp, ...]) -> Path:
    """Write pairs of 64 px: blue, green, red, and two bands of noise, with 16 bits."""
    rng = np.random.default_rng(0)
    for index in range(12):
        label = np.zeros((64, 64), np.uint8)
        label[NEW_HOUSE] = 255
        save(root / "label" / f"p{index:02d}.png", label)
        for part in "AB":
            rgb_HWC = make_date(rng, new=part == "B").astype(np.uint16) * 11 + 300
            values_HWC = np.dstack([rgb_HWC[..., ::-1], rng.integers(100, 4000, (64, 64, 2))]).astype(np.uint16)
            path = root / part / f"p{index:02d}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            tif(path, values_HWC.transpose(2, 0, 1), at(index * 40, 90))
            with rasterio.open(path, "r+") as raster:
                raster.colorinterp = tags
    return root


def test_a_vlm_guides_a_network_of_five_bands(tmp_path):
    data = write_data(tmp_path / "data", tags=BLUE_FIRST)
    filled = cd.pseudo_label(
        data,
        tmp_path / "store",
        vlm=BrightRed(),
        prompts=HOUSE_PROMPTS,
        ceg={"level": "pixel", "gamma": 0.8},
        progress=False,
    )
    assert filled.quality[0].valid.iou == 1.0, "the VLM saw red as red"
    recipe = build_tiny_recipe(data, tmp_path / "store", data__bands=[3, 2, 1, 4, 5])
    result = train_recipe(recipe, tmp_path / "run", quiet=True)
    assert result.fit_result.last["iou"] >= 0
    bands = read_run_bands(read_run(tmp_path / "run"))
    assert bands is not None and bands.numbers == (3, 2, 1, 4, 5) and bands.mean[3] == pytest.approx(2050, abs=20)
    assert PseudoLabelStore.open(tmp_path / "store").spec.stretch is not None


def test_bands_without_colours_are_not_guessed(tmp_path):
    data = write_data(tmp_path / "data", tags=(ColorInterp.gray, *(ColorInterp.undefined,) * 4))
    with pytest.raises(InputError, match=r"has 5 bands, which it does not call red, green and blue.*gdal_edit\.py"):
        cd.pseudo_label(data, tmp_path / "store", vlm=BrightRed(), prompts=HOUSE_PROMPTS, progress=False)
    assert not (tmp_path / "store").exists()
