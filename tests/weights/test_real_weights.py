"""The VLMs of transformers with real weights: each test runs where an environment variable names them.

    SEMICDVL_SAM3=sam3 SEMICDVL_CLIPSEG=clipseg-rd64-refined pytest tests/weights -rs

A folder (or hub name) per variable; see `docs/models/vlms.md` for what to download. Every VLM has to locate the houses
of a drawn town better than by chance, and to give the same answer for the image turned by a quarter.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from semicdvl.types import Segments
from semicdvl.vlms.models import clip_dense, clipseg, grounded_sam, owl_sam, sam3

pytest.importorskip("transformers", reason="needs semicdvl[vlm]")

WORDS = ["building", "grass"]
CASES: dict[str, tuple[Callable[..., Any], dict[str, str]]] = {
    "sam3": (sam3.build_sam3, {"weights": "SEMICDVL_SAM3"}),
    "grounded_sam": (grounded_sam.build_grounded_sam, {"weights": "SEMICDVL_GROUNDING_DINO", "sam": "SEMICDVL_SAM2"}),
    "owl_sam": (owl_sam.build_owl_sam, {"weights": "SEMICDVL_OWLV2", "sam": "SEMICDVL_SAM2"}),
    "clipseg": (clipseg.build_clipseg, {"weights": "SEMICDVL_CLIPSEG"}),
    "clip": (clip_dense.build_clip_dense, {"weights": "SEMICDVL_CLIP"}),
    "siglip": (clip_dense.build_clip_dense, {"weights": "SEMICDVL_SIGLIP"}),
    "remoteclip": (clip_dense.build_clip_dense, {"weights": "SEMICDVL_REMOTECLIP"}),
}


def town(side_px: int = 512) -> tuple[np.ndarray, np.ndarray]:
    """Return a lawn with six red roofs, each with a ridge and a shadow, and where the roofs are."""
    rng = np.random.default_rng(11)
    image = np.array((86, 132, 62)) + rng.normal(0, 9, (side_px, side_px, 1)) + rng.normal(0, 4, (side_px, side_px, 3))
    roof_HW = np.zeros((side_px, side_px), bool)
    for top, left in ((60, 70), (60, 300), (220, 60), (240, 310), (380, 120), (390, 340)):
        image[top + 10 : top + 84, left + 10 : left + 114] *= 0.45
        image[top : top + 37, left : left + 104] = (196, 92, 70)
        image[top + 37 : top + 74, left : left + 104] = (150, 64, 50)
        roof_HW[top : top + 74, left : left + 104] = True
    return np.clip(image, 0, 255).astype(np.uint8), roof_HW


def above_chance(answer: Segments, roof_HW: np.ndarray) -> float:
    """Return how much higher the building score is on roofs than elsewhere, in standard deviations."""
    scores_HW = answer.scores_CHW[0]
    return float((scores_HW[roof_HW].mean() - scores_HW[~roof_HW].mean()) / (scores_HW.std() + 1e-6))


@pytest.mark.parametrize("name", CASES)
def test_real_weights(name: str) -> None:
    build, wanted = CASES[name]
    given = {option: os.environ.get(variable) for option, variable in wanted.items()}
    if not all(given.values()):
        pytest.skip(f"set {' and '.join(wanted.values())} to folders of weights to run this")
    vlm = build(**given)
    image_HWC, roof_HW = town()
    answer = vlm.segment(image_HWC, WORDS)
    assert above_chance(answer, roof_HW) > 0.5
    turned = vlm.segment(np.ascontiguousarray(np.rot90(image_HWC)), WORDS)
    assert above_chance(turned, np.rot90(roof_HW)) > 0.5
