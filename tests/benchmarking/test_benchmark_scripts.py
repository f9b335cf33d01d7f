"""The speed benchmarks compare like with like: the plain variants give the package's losses and images."""

import importlib.util
import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from tests.support.dataset_files import save
from tests.support.paths import ROOT
from tests.support.tiny_training import HOUSE_PROMPTS, ColourVLM

from semicdvl.ceg.config import CEGSettings
from semicdvl.data.readers.folder import read_folder
from semicdvl.metrics.semantic import SemanticCounts
from semicdvl.pseudo_labels.generate import generate_labels
from semicdvl.pseudo_labels.store import PseudoLabelStore

BENCHMARKS = ROOT / "benchmarks"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_plain_step_does_the_same_maths() -> None:
    """Losses by name at the first step; at the second, the same weights up to rounding have come out of the first."""
    bench = script("train_step")
    setup = bench.Setup("resnet18", 8, 64, 2, 2, "cpu")
    plain, ours = bench.measure_plain(setup), bench.measure_ours(setup, "fp32")
    assert bench.require_same_losses(plain, ours, "fp32") < 1e-4
    assert all(value > 0 for value in plain.losses[0].values()), "every term has something to say"
    second = [sum(one.losses[1].values()) for one in (plain, ours)]
    assert second[0] == pytest.approx(second[1], rel=1e-3)
    assert second[0] != pytest.approx(sum(plain.losses[0].values()), rel=1e-3), "the first step changed the weights"
    assert plain.step_s > 0 and ours.peak_mib > 100


def test_losses_that_differ_are_refused() -> None:
    bench = script("train_step")
    one, other = (bench.Measured([{"supervised": value}] * 2, 1.0, 1.0, 1.0) for value in (0.5, 0.51))
    with pytest.raises(SystemExit, match="differ"):
        bench.require_same_losses(one, other, "fp32")


@pytest.mark.parametrize("size_px", [64, 96])
def test_both_augmentations_give_the_same_pictures(size_px: int) -> None:
    bench = script("loader")
    grey, masks = bench.compare_samples(bench.render_sources(2, size_px), Namespace(crop=64))
    assert grey < 6, "grey values of 255; edges of a synthetic city are sharp at this size"
    assert masks < 0.03


def test_naming_is_scored_apart_from_finding() -> None:
    """A network that finds no change but names every class right has a SeK of 1 by the true change alone."""
    bench = script("class_naming")
    counts = {"found": [[4, 2, 1], [0, 0, 0], [0, 0, 0]], "given": [[4, 0, 0], [0, 2, 0], [0, 0, 1]]}
    found, given = (SemanticCounts(np.array(one), np.array(one), *np.zeros((2, 2, 2), int)) for one in counts.values())
    scores = bench.NamingScores(np.array([[6, 0], [2, 2]]), found, given)
    assert scores.accuracy == 0.8 and scores.iou_K.tolist() == [0.75, 0.5]
    assert scores.found.scores.sek <= 0 and scores.given.scores.sek == 1


def test_table_6_by_hand(tmp_path: Path) -> None:
    """A new house; the VLM is sure of it and of half of the grass, and finds a second one where there is none."""
    bench = script("table6")
    label = np.zeros((10, 10), np.uint8)
    before, after = np.full((2, 10, 10, 3), (0, 250, 0), np.uint8)
    after[2:4, 2:6] = after[6:8, 2:6] = (250, 0, 0)
    before[:, 6:] = after[:, 6:] = (0, 100, 0)
    label[2:4, 2:6] = 255
    for folder, image in (("A", before), ("B", after), ("label", label)):
        save(tmp_path / folder / "x.png", image)
    pairs = read_folder(tmp_path).pairs
    settings = CEGSettings(min_area_px=1)
    list(generate_labels(pairs, vlm=ColourVLM(), prompts=HOUSE_PROMPTS, settings=settings, root=tmp_path / "store"))
    store = PseudoLabelStore.open(tmp_path / "store")
    pixel, instance = (
        bench.Row("", CEGSettings(level=level, gamma=0.8, min_area_px=1), ()) for level in ("pixel", "instance")
    )
    assert bench.measure_row(pixel, pairs, store) == pytest.approx((50, 100 * 2 / 3, 50, 100 * 2 / 3, 60))
    assert bench.measure_row(instance, pairs, store) == pytest.approx((50, 100 * 2 / 3, 50, 100 * 2 / 3, 100))
