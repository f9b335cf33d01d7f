"""The files of a detection in QGIS itself, where it is installed: names, colours, places."""

import json
import os
import subprocess
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from tests.support.brightness_detector import Brighter
from tests.support.paths import ROOT
from tests.support.synthetic_rasters import at, city, tif

from semicdvl.detection.pipeline import write_detection
from semicdvl.evaluation.evaluate import score_map
from semicdvl.reports.colours import KIND_COLOURS, OUTCOME_COLOURS, choose_class_colours

SYSTEM_PYTHON = Path("/usr/bin/python3")
"""Debian's bindings of QGIS belong to the Python of the system."""


def _has_qgis() -> bool:
    if not SYSTEM_PYTHON.is_file():
        return False
    asked = subprocess.run([SYSTEM_PYTHON, "-c", "import qgis.core"], capture_output=True, check=False)
    return asked.returncode == 0


def _format_hex(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


@pytest.mark.skipif(not _has_qgis(), reason="QGIS is not installed")
def test_qgis_shows_classes_by_name_at_their_place_and_complains_of_nothing(tmp_path):
    before, after = city(120, 160), city(120, 160)
    before[:], after[:] = 60, 60
    after[:, 20:50, 30:80] = 250
    tif(tmp_path / "a.tif", before, at(0, 0)), tif(tmp_path / "b.tif", after, at(0, 0))
    write_detection(tmp_path / "a.tif", tmp_path / "b.tif", tmp_path / "out", detector=Brighter())
    truth = gpd.GeoDataFrame(geometry=[shapely.box(15, -25, 40, -10), shapely.box(50, -50, 55, -45)], crs=32615)
    truth.to_file(tmp_path / "truth.gpkg")
    score_map(tmp_path / "out", tmp_path / "truth.gpkg", sample=0)
    command = [SYSTEM_PYTHON, ROOT / "tools/check_in_qgis.py", tmp_path / "out", "--picture", tmp_path / "seen.png"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "GDAL", "PROJ"))}
    run = subprocess.run(
        command, env={**environment, "QT_QPA_PLATFORM": "offscreen"}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    seen = json.loads(run.stdout)
    assert seen["messages"] == [] and seen["changes.gpkg"]["sublayers"] == ["changes"]
    assert seen["change.tif"]["legend"] == {"unchanged": "#f5f5f0", "changed": _format_hex(KIND_COLOURS["changed"])}
    assert seen["score.tif"]["renderer"] == "singlebandpseudocolor" and seen["score.tif"]["nodata"] == "nan"
    kinds = seen["changes.gpkg"]["legend"]
    assert {kind: kinds[kind] for kind in KIND_COLOURS} == {k: _format_hex(c) for k, c in KIND_COLOURS.items()}
    assert seen["changes.gpkg"]["features"] == 1
    outcomes = seen["evaluation.gpkg"]
    assert outcomes["features"] == 3 and outcomes["sublayers"] == ["evaluation"] and outcomes["crs"] == "EPSG:32615"
    assert outcomes["legend"] == {
        "matched": _format_hex(OUTCOME_COLOURS["correctly detected"]),
        "touched": "#f0c828",
        "missed": _format_hex(OUTCOME_COLOURS["missed"]),
        "invented": _format_hex(OUTCOME_COLOURS["falsely detected"]),
        "other": "#808080",
    }
    for name in ("t1.tif", "t2.tif", "change.tif", "score.tif"):
        np.testing.assert_allclose(seen[name]["extent"], seen["change.tif"]["extent"])
    assert (tmp_path / "seen.png").stat().st_size > 1000
    dark, bright = map(_format_hex, choose_class_colours(("dark", "bright")))
    assert seen["t1.tif"]["legend"] == {"dark": dark}, "what does not occur is not in the legend"
    assert seen["t2.tif"]["legend"] == {"dark": dark, "bright": bright}
