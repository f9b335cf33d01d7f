"""The pairs and pseudo-labels that tests of training share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.support.dataset_files import save
from tests.support.tiny_training import GREEN, HOUSE_PROMPTS, PAIRS, RED, ColourVLM

from semicdvl.ceg.config import CEGSettings
from semicdvl.data.readers import folder
from semicdvl.pseudo_labels.generate import generate_labels


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pairs of 64 px: grass, with a red house that stands at both dates and one that is new."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for index in range(PAIRS):
        before = rng.normal(0, 6, (64, 64, 3)) + GREEN
        row, col = rng.integers(4, 36, 2)
        before[4:14, 44:58] = RED
        after = before + rng.normal(0, 6, (64, 64, 3))
        after[row : row + 18, col : col + 20] = RED
        label = np.zeros((64, 64), np.uint8)
        label[row : row + 18, col : col + 20] = 255
        label[4:14, 44:58] = 0
        for part, image in (("A", before), ("B", after), ("label", label)):
            save(root / part / f"p{index:02d}.png", np.clip(image, 0, 255).astype(np.uint8))
    return root


@pytest.fixture(scope="module")
def store(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pseudo-labels of these pairs."""
    root = tmp_path_factory.mktemp("pseudo") / "store"
    pairs, settings = folder.read_folder(data).pairs, CEGSettings(gamma=0.4, gamma_segmentation=0.4)
    records = list(generate_labels(pairs, vlm=ColourVLM(), prompts=HOUSE_PROMPTS, settings=settings, root=root))
    assert len(records) == PAIRS
    return root
