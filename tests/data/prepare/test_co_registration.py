"""Patches of a pair that does not lie on itself: `prepare` reads it as `detect` does, with --align and --normalise."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
from affine import Affine
from shapely.geometry import box
from tests.support.command import command
from tests.support.synthetic_rasters import tif
from tests.support.synthetic_town import paint, photograph

from semicdvl.data.images.reading import read_rgb
from semicdvl.data.readers import folder

PLACE = Affine(0.5, 0, 366676, 0, -0.5, 4104256)
SIZE = 230, 290
SHIFT_PX = {"row_px": 4.25, "col_px": -5.5}
PLAIN = ["--size-px", "64", "--val-frac", "0", "--test-frac", "0"]
FAKE = ["--vlm", "fake", "--find", "building", "--background", "grass"]


def write(name: str, image_HWC: np.ndarray) -> None:
    tif(Path(name), image_HWC.transpose(2, 0, 1), PLACE)


def run(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    """Run a command, which must end with `code`, and return all that it said."""
    found, printed, complained = command(capsys, *words)
    assert found == code, complained
    return printed + complained


@pytest.fixture
def shifted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with before.tif, after.tif, which shows the same town displaced and darker, and changes.gpkg."""
    monkeypatch.chdir(tmp_path)
    town = paint(*SIZE, seed=4)
    write("before.tif", photograph(town))
    write("after.tif", np.rint(photograph(town, **SHIFT_PX) * 0.8 + 10).astype(np.uint8))
    changes = gpd.GeoDataFrame(geometry=[box(366700, 4104200, 366710, 4104210)], crs="EPSG:32615")
    changes.to_file(tmp_path / "changes.gpkg")
    return tmp_path


def prepare(capsys: pytest.CaptureFixture[str], out: str, *options: str, code: int = 0) -> str:
    pair = ["--before", "before.tif", "--after", "after.tif", "--labels", "changes.gpkg", "-o", out]
    return run(capsys, "prepare", *pair, *PLAIN, *options, code=code)


def measure_difference_dn(data: Path) -> float:
    """Return the mean absolute difference between the dates of all patches, once their grey values are alike."""
    differences = []
    for pair in folder.read_folder(data).pairs:
        t1_HWC, t2_HWC = (read_rgb(path).astype(float) for path in (pair.before, pair.after))
        seen_HW = (t1_HWC.max(axis=2) > 0) & (t2_HWC.max(axis=2) > 0)
        differences.append(np.abs(t1_HWC - (t2_HWC - 10) / 0.8)[seen_HW].mean())
    return float(np.mean(differences))


def test_patches_are_co_registered_where_that_is_asked_for(shifted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "co-registered" not in prepare(capsys, "PLAIN")
    printed = prepare(capsys, "ALIGNED", "--align")
    assert "The after image was co-registered: it was misregistered by" in printed
    assert measure_difference_dn(Path("PLAIN")) > 9
    assert measure_difference_dn(Path("ALIGNED")) < 4
    assert "other inputs or settings" in prepare(capsys, "PLAIN", "--align", code=2), "patches of another reading stay"


def test_patches_are_normalised_where_that_is_asked_for(shifted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = prepare(capsys, "DATA", "--align", "--normalise", "match")
    assert "The radiometry of the after image was matched" in printed
    means = [
        [read_rgb(path).mean() for path in (pair.before, pair.after)] for pair in folder.read_folder(Path("DATA")).pairs
    ]
    before, after = np.mean(means, axis=0)
    assert after == pytest.approx(before, abs=2), "0.8 times as bright plus 10 before the match"
    assert json.loads(Path("DATA/prepare.json").read_text())["settings"]["normalise"] == "match"


def test_a_pair_that_cannot_be_moved_is_left_and_that_is_said(
    shifted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("after.tif", photograph(paint(*SIZE, seed=4)))
    assert "px is too small to be corrected" in prepare(capsys, "SAME", "--align")
    assert measure_difference_dn(Path("SAME")) > 0


def test_next_command_of_an_aligned_map_cuts_aligned_patches(shifted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command that `suggest` prints is run as it is printed."""
    run(capsys, "detect", "before.tif", "after.tif", "-o", "out", "--align", *FAKE)
    printed = run(capsys, "suggest", "out", "--count", "6", "--patch-px", "64")
    line = next(line for line in printed.splitlines() if "semicdvl prepare" in line)
    words = shlex.split(line[line.index("semicdvl prepare") :])
    assert "--align" in words
    run(capsys, *words[1:], "--val-frac", "0", "--test-frac", "0")
    assert measure_difference_dn(Path("DATA")) < 4
