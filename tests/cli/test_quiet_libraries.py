"""No line that a command prints is a library's own warning or log, on images that give libraries reasons to warn."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from tests.support.paths import ROOT
from tests.support.synthetic_rasters import tif
from tests.support.tiny_suite import TINY, write_suite

from semicdvl.raster.io.georeference_warnings import ignore_not_georeferenced

RAW = re.compile(
    r"""
    .*\.py:\d+:\ .*(Warning|Error)                 # the warnings module
    | \s*warnings\.warn\(
    | (DEBUG|INFO|WARNING|WARN|ERROR|CRITICAL)\b[:\ ]  # the logging module
    | (Warning|ERROR)\ \d+:                        # GDAL and PROJ
    | \[[WEI]:onnxruntime
    | [WEI]\d{4}\ \d\d:\d\d                        # absl
    | \d{4}-\d\d-\d\d[T\ ]\d\d:\d\d.*(WARN|INFO|ERROR)
    | TIFF\w*:\ |libpng\ warning|Corrupt\ JPEG
    | Traceback\ |.*\bDeprecat(ed|ion)
    """,
    re.VERBOSE,
)
RUN_ALL = """
import json, sys
from semicdvl.__main__ import main

for arguments in json.load(open(sys.argv[1])):
    print("$", *arguments, flush=True)
    sys.argv = ["semicdvl", *arguments]
    try:
        main()
    except SystemExit as stop:
        print("code", stop.code or 0, flush=True)
"""
FAKE = ["--vlm", "fake", "--find", "building", "--background", "grass"]
FEW = ["--set", "train.steps=2", "--set", "train.eval_every=1", "--set", "model.pretrained=none"]


def test_the_pattern_finds_what_libraries_print():
    for line in (
        "/usr/lib/x.py:12: UserWarning: beware",
        "WARNING:root:beware",
        "Warning 1: TIFFReadDirectory: beware",
        "ERROR 4: no such file",
        "2026-01-01 10:00:00.1 [W:onnxruntime:, graph.cc] beware INFO",
    ):
        assert RAW.match(line), line
    for line in (
        "warning: The images are misregistered",
        "error: a.tif: does not exist",
        "note: WARNING signs are red",
    ):
        assert not RAW.match(line), line


def write_images(root: Path) -> None:
    """Write pairs that are no plain GeoTIFFs: a palette, 16 bits without georeference, no data, EXIF, several pages."""
    noise_CHW = np.random.default_rng(0).integers(-6, 7, (3, 96, 128))
    grass_CHW = (np.array([110, 170, 80])[:, None, None] + noise_CHW).astype(np.uint8)
    colours = {"before": grass_CHW, "after": grass_CHW.copy()}
    colours["after"][:, 20:60, 30:80] = np.array([190, 80, 60], np.uint8)[:, None, None]
    for name, image_CHW in colours.items():
        picture = Image.fromarray(image_CHW.transpose(1, 2, 0))
        picture.convert("P", palette=Image.Palette.ADAPTIVE, colors=64).save(root / f"{name}.png")
        exif = Image.Exif()
        exif[274] = 1
        picture.save(root / f"{name}.jpg", exif=exif, quality=95)
        deep_CHW = image_CHW.astype(np.uint16) * 10 + 200
        deep_CHW[:, :8] = 0
        tif(root / f"{name}-deep.tif", deep_CHW, crs=None, nodata=0)
        for part, date in (("A", "before"), ("B", "after")):
            if date == name:
                (root / "deep" / part).mkdir(parents=True)
                for at in range(4):
                    cut_CHW = deep_CHW[:, 8:72, 16 * at : 16 * at + 64]
                    tif(root / "deep" / part / f"p{at}.tif", cut_CHW, crs=None, nodata=0)
    (root / "deep" / "label").mkdir()
    mask_HW = np.zeros((96, 128), np.uint8)
    mask_HW[20:60, 30:80] = 255
    for at in range(4):
        Image.fromarray(mask_HW[8:72, 16 * at : 16 * at + 64]).save(root / "deep" / "label" / f"p{at}.png")
    Image.fromarray(mask_HW).save(root / "truth.png")
    write_suite(root, TINY)


def list_commands() -> list[list[str]]:
    """Return a call of every command."""
    palette, deep, photo = (
        ["before.png", "after.png"],
        ["before-deep.tif", "after-deep.tif"],
        ["before.jpg", "after.jpg"],
    )
    tiny = ["--backbone", "test_resnet", "--pretrained", "none", "--device", "cpu"]
    return [
        ["--version"],
        ["list", "recipes"],
        ["init", "project"],
        *(["check", *pair] for pair in (palette, deep, photo)),
        *(["detect", *pair, "-o", f"out{at}", *FAKE] for at, pair in enumerate((palette, deep, photo))),
        ["detect", *deep, "-o", "out-cva", "--method", "cva"],
        ["evaluate", "out0", "--truth", "truth.png"],
        ["evaluate", "out1", "--truth", "truth.png"],
        ["suggest", "out1", "-n", "1", "--patch-px", "32"],
        ["pseudo", "deep", "-o", "store", *FAKE],
        ["train", "recipes/small-supervised.toml", "-o", "run", "--set", "data.root=deep", "--set", "data.labelled=1.0",
         "--set", "data.crop_px=64", "--set", "train.labelled_batch=1", *FEW],
        ["evaluate", "run", "deep", "--split", "all"],
        ["detect", *deep, "-o", "out-run", "--model", "run"],
        ["export", "run", "-o", "run.onnx"],
        ["detect", *deep, "-o", "out-onnx", "--model", "run.onnx"],
        ["adapt", *palette, "-o", "adapted", "--steps", "2", "--patches", "2", "--patch-px", "128",
         "--level", "pixel", *tiny, *FAKE],
        ["benchmark", "suite.toml", "-o", "suite", "--jobs", "0"],
        ["detect", "missing.tif", "after.png", "-o", "none"],
        ["serve", "missing"],
        ["prepare", "--before", "before-deep.tif", "--after", "after-deep.tif", "--labels", "truth.png", "-o", "none"],
    ]  # fmt: skip


@pytest.mark.slow
def test_no_command_prints_what_a_library_says(tmp_path):
    write_images(tmp_path)
    (tmp_path / "calls.json").write_text(json.dumps(list_commands()))
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONWARNINGS"}
    environment |= {"PYTHONPATH": str(ROOT / "src"), "COLUMNS": "200"}
    call = [sys.executable, "-c", RUN_ALL, "calls.json"]
    done = subprocess.run(
        call, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    lines = done.stdout.splitlines()
    assert [line for line in lines if RAW.match(line)] == []
    codes = [int(line.split()[1]) for line in lines if line.startswith("code ")]
    assert len(codes) == len(list_commands()), done.stdout[-2000:]
    wanted = [2 if calls[-1] in ("none", "missing") else (0, 1) for calls in list_commands()]
    wrong = [
        calls for calls, code, each in zip(list_commands(), codes, wanted, strict=True) if code not in np.ravel(each)
    ]
    assert wrong == [], done.stdout[-6000:]
    with ignore_not_georeferenced(), rasterio.open(tmp_path / "out1" / "change.tif") as change:
        assert change.crs is None and (change.read(1)[:8] == 255).all()
