"""Every tutorial does what it says: its commands and its code are run in an empty folder, and its words are printed."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from tests.docs.pages import Command, list_blocks, normalise
from tests.support.command import command
from tests.support.paths import ROOT
from tests.support.tiny_vlms import sam3

from semicdvl.data import DATASETS
from semicdvl.methods import METHODS
from semicdvl.models import MODELS
from semicdvl.raster.vector.formats import VECTOR_FORMATS
from semicdvl.unsupervised import UNSUPERVISED
from semicdvl.vlms import VLMS

TUTORIALS = ROOT / "docs" / "tutorials"
SMALLER: dict[str, dict[str, str]] = {
    "label-train-map": {
        "size_px=1536": "size_px=768",
        "--size-px 128": "--size-px 64",
        "--patch-px 128": "--patch-px 64",
        "PrepareSettings(size_px=128)": "PrepareSettings(size_px=64)",
        "data.crop_px=128": "data.crop_px=64 --set steps=4",
    },
    "compare-methods": {
        "size_px=768": "size_px=384",
        "size_px=128": "size_px=64",
        "crop_px = 128": "crop_px = 64",
        "seeds = [0, 1, 2]": "seeds = [0, 1]",
        "steps = 300": "steps = 2",
        "eval_every = 50": "eval_every = 1",
        "--jobs 2": "--jobs 0",
    },
}
"""Page -> what the page says: the smaller value that the test takes."""
LEFT_BEHIND: dict[str, tuple[str, ...]] = {
    "zero-labels": (
        "out/changes.gpkg",
        "out/report.html",
        "out-roads/change.tif",
        "out/evaluation.gpkg",
        "out-python/run.json",
    ),
    "extend": (
        "runs/ours/model.safetensors",
        "out-network/change.tif",
        "out-vlm/changes.gpkg",
        "store/manifest.json",
        "out-detector/change.tif",
        "out-centres/changes.centres",
    ),
    "label-train-map": (
        "out/changes.gpkg",
        "out-first/suggest.html",
        "runs/patches/model.safetensors",
        "out/evaluation.json",
    ),
    "own-vlm": ("out-sam3/run.json", "store-sam3/manifest.json", "out-own/changes.gpkg", "store-own/manifest.json"),
    "reproduce-a-row": ("dry/run/model.safetensors", "dry/store/manifest.json"),
    "compare-methods": ("runs/ours/table.md", "runs/ours/report.html"),
    "multi-gpu-and-ray": (
        "runs/two/model.safetensors",
        "out-ray/change.tif",
        "store/manifest.json",
        "out-python/run.json",
    ),
}
"""Page -> files and folders that its steps leave."""
REGISTRIES = (DATASETS, METHODS, MODELS, UNSUPERVISED, VECTOR_FORMATS, VLMS)
QUICK = ("extend",)
"""The pages that take seconds."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder with the recipes of a clone, which forgets what is imported from it and registered."""
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.chdir(tmp_path)
    before, parts = set(sys.modules), [(table, dict(table)) for table in REGISTRIES]
    yield tmp_path
    for table, held in parts:
        table.clear()
        table.update(held)
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def _mark(page: str) -> object:
    return pytest.param(page, marks=() if page in QUICK else pytest.mark.slow)


def _read(page: str) -> str:
    text = (TUTORIALS / f"{page}.md").read_text(encoding="utf-8")
    for said, taken in SMALLER.get(page, {}).items():
        assert said in text, f"{page} no longer says {said!r}"
        text = text.replace(said, taken)
    return text


@pytest.mark.parametrize("page", [_mark(page) for page in LEFT_BEHIND])
def test_its_steps_can_be_followed(
    page: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names: dict[str, object] = {"__name__": "tutorial"}
    if page == "own-vlm":
        sam3(folder / "sam3")
    for block in list_blocks(_read(page)):
        if block.language == "console":
            for one in block.list_commands():
                _run_command(one, folder, capsys, monkeypatch)
        elif block.file is not None:
            (folder / block.file).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.file).write_text(block.text, encoding="utf-8")
        else:
            exec(compile(block.text, f"{page}.md", "exec"), names)
    missing = [name for name in LEFT_BEHIND[page] if not (folder / name).exists()]
    assert not missing
    check = {"extend": _check_extend, "multi-gpu-and-ray": _check_multi_gpu_and_ray}.get(page)
    if check is not None:
        check(folder)


def _check_extend(folder: Path) -> None:
    """Every part of the reader's own found the new roof, and nothing else."""
    roof_HW = np.zeros((64, 96), np.uint8)
    roof_HW[10:30, 40:70] = 1
    for name in ("out-vlm", "out-detector", "out-centres"):
        np.testing.assert_array_equal(_read_raster(folder / name / "change.tif"), roof_HW)
    assert (_read_raster(folder / "out-network" / "change.tif") != roof_HW).mean() < 0.03  # its outline is blurred
    assert (folder / "out-centres" / "changes.centres").read_text() == "1 500027.5 4999990.0\n"


def _check_multi_gpu_and_ray(folder: Path) -> None:
    """A map by Ray is the map of one process, byte by byte."""
    for name in ("change.tif", "score.tif", "changes.gpkg"):
        assert (folder / "out-ray" / name).read_bytes() == (folder / "out-local" / name).read_bytes()


def _read_raster(path: Path) -> np.ndarray:
    with rasterio.open(path) as source:
        return source.read(1)


def _run_command(
    one: Command, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run a command as a shell would, and look for what the page says that it prints."""
    if one.line == "export PYTHONPATH=$PWD":
        monkeypatch.syspath_prepend(folder)
        return
    program, *arguments = shlex.split(one.line)
    if program == "semicdvl":
        code, printed, complaint = command(capsys, *arguments)
    else:
        assert program in ("accelerate", "python"), (
            f"no test runs {one.line!r}: write <!-- not run: REASON --> above it"
        )
        code, printed, complaint = _run_program(program, arguments)
    assert code == 0 or (arguments[0] == "check" and code == 1), complaint  # 1: usable, with warnings
    everything = normalise((printed + complaint).replace(str(folder), "/home/you/work"))
    for line in one.shown:
        assert normalise(line) in everything, f"{one.line!r} does not print {line!r}"


def _run_program(program: str, arguments: list[str]) -> tuple[int, str, str]:
    """Run another program of this Python."""
    started = (
        [sys.executable, "-m", "accelerate.commands.accelerate_cli"] if program == "accelerate" else [sys.executable]
    )
    ended = subprocess.run([*started, *arguments], capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout, ended.stderr


def test_every_tutorial_is_run() -> None:
    assert {path.stem for path in TUTORIALS.glob("*.md")} - {"index"} == set(LEFT_BEHIND)
