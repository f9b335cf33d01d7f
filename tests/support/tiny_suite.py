"""A benchmark of seconds: two methods on a synthetic city of a few patches."""

from __future__ import annotations

from pathlib import Path

from tests.support.paths import ROOT

RECIPES = ROOT / "recipes"
TINY = f"""
name = "tiny"
labelled = [0.5, 1.0]
seeds = [1]

[set.train]
steps = 2
eval_every = 1
labelled_batch = 1
unlabelled_batch = 2

[set.model]
pretrained = "none"
decoder_channels = 8

[[methods]]
name = "Sup-only"
recipe = "{RECIPES.as_posix()}/small-supervised.toml"

[[methods]]
name = "SemiCD-VL"
recipe = "{RECIPES.as_posix()}/small-semicd_vl.toml"
labelled = [1.0]

[methods.set.data]
crop_px = 64

[[data]]
kind = "city"
city_px = 192
patch_px = 64
train_cities = 1
test_cities = 1
first_seed = 7

[data.city]
change_frac = 0.2

[data.vlm]
miss_frac = 0.2
"""


def write_suite(folder: Path, text: str) -> Path:
    """Write a suite's TOML file and return its path."""
    path = folder / "suite.toml"
    path.write_text(text, encoding="utf-8")
    return path
