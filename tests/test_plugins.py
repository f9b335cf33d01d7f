"""One module outside the package with a part of each kind, used through the command line as its author would.

The tests of each room look at its own kind closely; here all of them work together, named `module:builder`, and all are
listed once they have a registry line.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from tests.support.command import command
from tests.support.dataset_files import folder_of_pairs
from tests.support.synthetic_rasters import at, tif

from semicdvl.catalog import REGISTRIES, describe_parts
from semicdvl.raster.vector.formats import VECTOR_FORMATS

MODULE = '''"""Parts of a project of its own: a data set, a network, a method, a VLM, a detector and a vector format."""

from dataclasses import dataclass

import numpy as np
from torch import nn

from semicdvl.data.readers.folder import read_folder
from semicdvl.models.common.heads import resolve_heads
from semicdvl.types import ChangeMap, Detector, Method, Outputs, Segments


def read_pairs(root, *, only=""):
    """A data set: the folder layout, perhaps one part of its pairs."""
    dataset = read_folder(root)
    assert not only or any(only in pair.name for pair in dataset.pairs)
    return dataset


class Difference(nn.Module):
    symmetric, heads = True, frozenset({"change"})

    def __init__(self, width):
        super().__init__()
        self.features, self.classify = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 2, 1)

    def forward(self, t1_BCHW, t2_BCHW, *, heads=None):
        resolve_heads(heads, has=self.heads)
        return Outputs(self.classify((self.features(t1_BCHW) - self.features(t2_BCHW)).abs()))


def build_difference(*, width=4):
    """A network."""
    return Difference(width)


@dataclass(frozen=True)
class CrossEntropy(Method):
    """A method."""

    weight: float = 1.0

    def step(self, model, teacher, labelled, unlabelled, progress):
        logits_BKHW = model(labelled.t1_BCHW, labelled.t2_BCHW, heads=self.heads).change_BKHW
        loss = nn.functional.cross_entropy(logits_BKHW, labelled.label_BHW, ignore_index=255)
        return {"cross_entropy": self.weight * loss}


class Bright:
    gamma, identity = 0.5, "bright"

    def segment(self, image_HWC, prompts, *, gsd_m=None):
        score_HW = image_HWC.mean(axis=2, dtype=np.float32) / 255
        scores = [score_HW if prompt == "roof" else 1 - score_HW for prompt in prompts]
        return Segments(np.stack(scores), tuple(prompts))


def build_bright():
    """A VLM: roofs are bright."""
    return Bright()


class Brighter(Detector):
    name, map_count = "brighter", 1

    def __init__(self, limit):
        self.limit = limit

    def predict_scores(self, t1_HWC, t2_HWC, *, gsd_m=None):
        difference_HW = t2_HWC.mean(axis=2, dtype=np.float32) - t1_HWC.mean(axis=2, dtype=np.float32)
        return np.clip(difference_HW / 255, 0, 1)[None]

    def decide(self, strips):
        for strip in strips:
            score_HW = strip.scores_PHW[0]
            yield ChangeMap((score_HW > self.limit).astype(np.uint8), score_HW)


def build_brighter(*, limit: float = 0.5):
    """A detector without training."""
    return Brighter(limit)


class CentreList:
    def write(self, path, frame, *, layer, style):
        lines = [f"{number} {point.x:.1f} {point.y:.1f}" for number, point in zip(frame["id"], frame.centroid)]
        path.write_text(chr(10).join(lines))


def build_centre_list():
    """A vector format: the centre of each polygon."""
    return CentreList()
'''
NAME = "plugins_of_a_project"
BUILDERS = {
    "datasets": "read_pairs",
    "models": "build_difference",
    "methods": "CrossEntropy",
    "vlms": "build_bright",
    "classic": "build_brighter",
}
HEIGHT, WIDTH = 48, 80
NEW = (slice(10, 30), slice(40, 66))
"""Where the new roof is."""


@pytest.fixture(autouse=True)
def _plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / f"{NAME}.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path / "modules")


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    """A dark ground at both dates; at the second one there is a bright roof."""
    dates = []
    for date in (1, 2):
        image_CHW = np.full((3, HEIGHT, WIDTH), 40, np.uint8)
        if date == 2:
            image_CHW[:, *NEW] = 230
        dates.append(tif(tmp_path / f"{date}.tif", image_CHW, at(5e5, 4e6)))
    return dates


def _read_change(folder: Path) -> np.ndarray:
    with rasterio.open(folder / "change.tif") as source:
        return source.read(1)


def _expected() -> np.ndarray:
    change_HW = np.zeros((HEIGHT, WIDTH), np.uint8)
    change_HW[NEW] = 1
    return change_HW


def test_a_network_is_trained_by_a_method_on_a_data_set(
    tmp_path: Path, pair: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = folder_of_pairs(tmp_path / "data", [f"site-{number}" for number in range(10)]), tmp_path / "run"
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'[data]\ndataset = "{NAME}:read_pairs"\nroot = "{data.as_posix()}"\ncrop_px = 32\n'
        '[data.options]\nonly = "site"\n'
        f'[model]\nname = "{NAME}:build_difference"\nwidth = 6\n'
        f'[method]\nname = "{NAME}:CrossEntropy"\nweight = 2.0\n'
        '[train]\nsteps = 2\nlabelled_batch = 2\ndevice = "cpu"\n'
    )
    code, printed, complaint = command(capsys, "train", recipe, "-o", run)
    assert code == 0 and "weights and record" in printed, complaint
    assert json.loads((run / "run.json").read_text())["recipe"]["model"] == {
        "name": f"{NAME}:build_difference",
        "width": 6,
    }
    code, printed, complaint = command(
        capsys, "evaluate", run, data, "--dataset", f"{NAME}:read_pairs", "--trust", NAME
    )
    assert code == 0 and "iou" in printed, complaint
    words = ("detect", *pair, "-o", tmp_path / "out", "--model", run, "--device", "cpu")
    code, _, complaint = command(capsys, *words)
    assert code == 2 and f"give --trust {NAME}" in complaint
    code, _, complaint = command(capsys, *words, "--trust", NAME)
    assert code == 0 and _read_change(tmp_path / "out").shape == (HEIGHT, WIDTH), complaint


def test_a_vlm_detects_and_labels(tmp_path: Path, pair: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--vlm", f"{NAME}:build_bright", "--find", "roof", "--background", "ground")
    code, _, complaint = command(capsys, "detect", *pair, "-o", tmp_path / "out", *words)
    assert code == 0, complaint
    assert np.array_equal(_read_change(tmp_path / "out"), _expected())
    data, store = folder_of_pairs(tmp_path / "data", ["a", "b", "c"]), tmp_path / "store"
    code, _, complaint = command(capsys, "pseudo", data, "-o", store, *words, "--dataset", f"{NAME}:read_pairs")
    assert code == 0 and (store / "manifest.json").is_file(), complaint


def test_a_detector_and_a_vector_format(
    tmp_path: Path, pair: list[Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(VECTOR_FORMATS, "centres", f"{NAME}:build_centre_list")
    words = ("--method", f"{NAME}:build_brighter", "--method-set", "limit=0.4", "--polygons", "centres")
    code, _, complaint = command(capsys, "detect", *pair, "-o", tmp_path / "out", *words)
    assert code == 0, complaint
    assert np.array_equal(_read_change(tmp_path / "out"), _expected())
    x, y = 5e5 + 0.5 * (40 + 66) / 2, 4e6 - 0.5 * (10 + 30) / 2
    assert (tmp_path / "out" / "changes.centres").read_text() == f"1 {x:.1f} {y:.1f}"


@pytest.mark.parametrize("kind", BUILDERS)
def test_one_registry_line_lists_a_part(
    kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(BUILDERS) == set(REGISTRIES), "every kind that can be listed is tested here"
    monkeypatch.setitem(REGISTRIES[kind], "ours", f"{NAME}:{BUILDERS[kind]}")
    assert dict(describe_parts(kind))["ours"].startswith("Parts of a project of its own")
    code, printed, complaint = command(capsys, "list", kind)
    assert code == 0 and "ours" in printed, complaint
