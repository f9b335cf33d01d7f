"""A training of seconds: grass with red houses, a VLM that knows both by colour, and a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from semicdvl.ceg.prompts import Prompts
from semicdvl.config import Recipe, parse_recipe
from semicdvl.types import Segments

PAIRS = 12
RED, GREEN = (220, 40, 30), (60, 150, 70)
HOUSE_PROMPTS = Prompts(("house",), ("grass",))


class ColourVLM:
    """A VLM for tests: red is house, green is grass."""

    identity = "colours-1"

    def segment(self, image_HWC, prompts, *, gsd_m=None) -> Segments:
        scores = image_HWC[..., [0 if word == "house" else 1 for word in prompts]].astype(np.float32) / 255
        return Segments(np.ascontiguousarray(scores.transpose(2, 0, 1)), tuple(prompts))


def build_tiny_recipe(data: Path, store: Path | None, **changes: Any) -> Recipe:
    """Return a recipe of a few steps; `section__key=value` changes it."""
    content: dict[str, Any] = {
        "name": "tiny",
        "data": {"root": str(data), "labelled": 0.34, "val_frac": 0.25, "test_frac": 0.25, "crop_px": 64},
        "model": {"name": "siam_light", "backbone": "test_resnet", "pretrained": "none", "decoder_channels": 16},
        "method": {"name": "semicd_vl"},
        "train": {"steps": 4, "labelled_batch": 2, "unlabelled_batch": 2, "lr": 0.01, "eval_every": 2, "device": "cpu"},
    }
    if store is not None:
        content["pseudo"] = {"store": str(store)}
    for key, value in changes.items():
        section, _, field = key.partition("__")
        content[section][field] = value
    return parse_recipe(content, source="test")
