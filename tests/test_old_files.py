"""Files that version 0.1 wrote are still read: `data/made_by_0.1`, whose README says how each was made.

Everything goes through the command line. Files hold the absolute paths of where they were made; `place` puts its own
there, as if they had been made in a test's folder.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio

from semicdvl.__main__ import main
from semicdvl.benchmarking.job_files import build_file_name
from semicdvl.benchmarking.jobs import RECIPE_MODEL, TrainingJob
from semicdvl.config import parse_recipe
from semicdvl.vlms.aerial import build

OLD = Path(__file__).parent / "data" / "made_by_0.1"
WHERE_MADE = "/old/place"
TILES = ("--tile", 64, "--overlap", 16)
AS_IN_0_1 = ("--vlm-set", "views=4", "--vlm-set", "dtype=float32")
"""What the embedded VLM did by default; the store was made so."""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the old files, and the working directory; the embedded VLM passes for the one that made them.

    Its weights are others since 0.1, so a store of 0.1 would rightly be answered anew: here the files are at stake.
    """
    monkeypatch.setattr(build, "hash_file", lambda path: "ff1ed94e9d1f")
    root = tmp_path / "old"
    shutil.copytree(OLD, root)
    for path in (*root.rglob("*.json"), *root.rglob("*.jsonl")):
        content = path.read_text(encoding="utf-8")
        if WHERE_MADE in content:
            path.write_text(content.replace(WHERE_MADE, str(root)), encoding="utf-8")
    monkeypatch.chdir(root)
    return root


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run `semicdvl ARGUMENTS` in this process and return what it printed."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(sys, "argv", ["semicdvl", *map(str, arguments)])
        patch.setenv("COLUMNS", "200")
        main()
    printed = capsys.readouterr()
    assert not stop.value.code, printed.err
    return printed.out


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def read_raster(path: Path) -> np.ndarray:
    with rasterio.open(path) as source:
        band_HW: np.ndarray = source.read(1)
    return band_HW


def scores_in(text: str) -> dict[str, float]:
    """Return the scores of a printed table with one column."""
    return {name: float(value) for name, value in re.findall(r"^\s*(\w+)\s+([01]\.\d{4})\s*$", text, re.MULTILINE)}


def files_of(folder: Path) -> dict[str, tuple[str, int]]:
    """Return hash and time of all files."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and "locks" not in path.parts]
    return {
        str(path.relative_to(folder)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in paths
    }


# ------------------------------------------------------------------------------------------------ runs
def test_a_run_is_evaluated(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = run(capsys, "evaluate", "run", "pairs")
    stored = read_json(place / "run" / "run.json")["test"]
    assert stored["predicted_changed_frac"] == 0
    for name in ("precision", "object_precision"):  # 0 in the records of 0.1, though nothing was detected
        assert stored.pop(name) == 0 and re.search(rf"^\s*{name}\s+undefined\s*$", printed, re.MULTILINE)
    assert scores_in(printed) == pytest.approx(stored, abs=2e-3)


@pytest.mark.parametrize("model", ["run", "model.onnx"])
def test_a_run_and_its_exported_network_find_change(
    place: Path, capsys: pytest.CaptureFixture[str], model: str
) -> None:
    run(capsys, "detect", "before.tif", "after.tif", "--model", model, "-o", "found")
    score_HW = read_raster(place / "found" / "score.tif")
    assert score_HW.shape == (128, 128)
    values = [score_HW.mean(), score_HW.std(), score_HW.min(), score_HW.max()]
    assert values == pytest.approx([0.484617, 0.004534, 0.461914, 0.492188], abs=1e-4)


def test_a_finished_training_is_only_read(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files_of(place / "run")
    run(capsys, "train", "guided.toml", "-o", "run")
    assert files_of(place / "run") == before


def test_an_interrupted_training_goes_on(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = (place / "interrupted" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    run(capsys, "train", "teacher.toml", "-o", "interrupted")
    record = read_json(place / "interrupted" / "run.json")
    assert record["status"] == "finished" and record["best_step"] == 10
    assert [path.name for path in (place / "interrupted" / "state").iterdir()] == ["00000040"]
    after = (place / "interrupted" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    assert after[: len(lines)] == lines
    losses = {one["step"]: one["loss"] for one in map(json.loads, after) if "loss" in one}
    assert sorted(losses) == list(range(1, 41))
    straight = [0.424052, 0.433230, 0.501918]  # steps 38 to 40 of the same training in one go
    assert [losses[step] for step in (38, 39, 40)] == pytest.approx(straight, abs=5e-3)


# ------------------------------------------------------------------------------------------------ labels, benchmark
def test_a_store_is_whole_and_the_vlm_is_not_asked_again(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files_of(place / "store")
    run(capsys, "pseudo", "pairs", "-o", "store", *AS_IN_0_1)
    assert files_of(place / "store") == before
    run(capsys, "pseudo", "pairs", "-o", "store", "--level", "instance", *AS_IN_0_1)
    after = files_of(place / "store")
    kept = {name: value for name, value in before.items() if name != "manifest.json"}
    assert {name: after[name] for name in kept} == kept
    new = [name for name in after if name not in before]
    assert {name.partition("/")[0] for name in new} == {"labels"} and len(new) == 2 * 10


def test_prepared_patches_are_a_data_set(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert read_json(place / "prepared" / "prepare.json")["status"] == "finished"
    scores = scores_in(run(capsys, "evaluate", "run", "prepared", "--split", "all"))
    assert scores["accuracy"] == pytest.approx(0.9738, abs=1e-3)


def test_a_benchmark_finds_everything_done(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files_of(place / "suite" / "jobs") | files_of(place / "suite" / "runs")
    run(capsys, "benchmark", "suite.toml", "-o", "suite", "--jobs", 0)
    assert files_of(place / "suite" / "jobs") | files_of(place / "suite" / "runs") == before
    table = (place / "suite" / "table.md").read_text(encoding="utf-8")
    assert "| CVA | 0 % | 0.042 | 0.081 |" in table and "Mean teacher" in table


# ------------------------------------------------------------------------------------------------ detections
def test_a_result_is_evaluated_sampled_and_replaced(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = gpd.read_file(place / "detected" / "changes.gpkg", layer="changes")
    assert len(frame) == 3 and sorted(frame["kind"]) == ["appeared", "disappeared", "disappeared"]
    run(capsys, "evaluate", "detected", "--truth", "truth.geojson")
    numbers = read_json(place / "detected" / "evaluation.json")
    assert numbers["pixels"]["iou"] == pytest.approx(0.452855, abs=1e-6)
    run(capsys, "suggest", "detected", "-n", 2, "--patch-px", 32)
    assert len(gpd.read_file(place / "detected" / "suggest.gpkg")) == 2
    run(capsys, "detect", "before.tif", "after.tif", "-o", "detected", "--method", "cva")
    assert read_json(place / "detected" / "run.json")["detector"]["name"] == "cva"
    assert not (place / "detected" / "t1.tif").exists()


def as_if_made_here(partial: Path, *, versions: dict[str, str]) -> None:
    """Give what an interrupted detection left the versions of this machine, and the key that belongs to its content."""
    manifest = read_json(partial / "manifest.json")
    manifest["parts"]["versions"] = versions | {"torch": version("torch")}
    content = json.dumps([manifest["format"], manifest["parts"]], sort_keys=True, separators=(",", ":"))
    manifest["key"] = hashlib.sha256(content.encode()).hexdigest()
    (partial / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def forget_head(run: Path, head: str) -> None:
    """Make a run one whose method did not train this head."""
    record = read_json(run / "run.json")
    record["heads"].remove(head)
    (run / "run.json").write_text(json.dumps(record), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vlm", ("--find", "house", "--background", "road", "--level", "instance")),  # the default of 0.1
        ("model", ("--model", "run")),
        ("method", ("--method", "cva")),
    ],
)
def test_an_interrupted_detection_starts_anew(
    place: Path, capsys: pytest.CaptureFixture[str], name: str, options: tuple[str, ...]
) -> None:
    """Unavoidable: tiles lie elsewhere since 0.2, and a network with classes maps what is on the ground as well."""
    arguments = ("detect", "before.tif", "after.tif", *options, *TILES)
    run(capsys, *arguments, "-o", "anew")
    record = read_json(place / "anew" / "run.json")
    as_if_made_here(place / f"{name}.partial", versions=record["versions"])
    (place / f"{name}.partial").rename(place / f".{name}.partial")
    run(capsys, *arguments, "-o", name)
    again = read_json(place / name / "run.json")
    assert again["tiles"] == {"all": record["tiles"]["all"], "from_an_interrupted_run": 0}
    assert again["result"]["objects"] == record["result"]["objects"]
    for file in ("change.tif", "score.tif"):
        np.testing.assert_array_equal(read_raster(place / name / file), read_raster(place / "anew" / file))
    assert not (place / f".{name}.partial").exists()


def test_names_of_benchmark_runs_leave_out_younger_keys_without_influence(place: Path) -> None:
    """A run that learns from a store, whose section of pseudo-labels has grown, too."""
    old = read_json(place / "run" / "run.json")["recipe"]

    def name(recipe: dict[str, Any]) -> str:
        return TrainingJob("pairs", "Guided", RECIPE_MODEL, 0.5, 3, parse_recipe(recipe, source="run"), 12, place).name

    assert old["pseudo"] == {"store": "store"}
    assert name(old) == build_file_name(["pairs", "Guided", "0.5", "s3"], old | {"name": ""}, out=place)
    younger = (
        old | {"data": old["data"] | {"group": "^(.+)_[0-9]+$"}},
        old | {"train": old["train"] | {"ema_ramp": True}},
        old | {"pseudo": {"source": "semicdvl_png", "change": "c", "segmentation": "s"}},
    )
    assert len({name(recipe) for recipe in (old, *younger)}) == 4
