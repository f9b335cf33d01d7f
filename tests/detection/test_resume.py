"""A detection that was interrupted goes on where it was, and gives what it would have given."""

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from tests.support.paths import ROOT

from semicdvl.detection.config import DetectionConfig
from semicdvl.detection.pipeline import write_detection
from semicdvl.errors import OutputError
from semicdvl.types import IGNORE, ChangeMap, Detector

QUIET = Console(quiet=True)
TILES = DetectionConfig(tile_px=64, overlap_px=32)
COUNT = 5 * 7  # rows x columns of tiles


@dataclass
class Blurred(Detector):
    """Looks around each pixel, so that blending matters; `stop_at` is the tile at which it stops or is killed."""

    seen: list = field(default_factory=list)
    stop_at: int = -1
    kill: bool = False
    name: str = "blurred"
    map_count: int = 1

    @property
    def identity(self):
        return self.name

    def predict_scores(self, t1_HWC, t2_HWC, *, gsd_m=None):
        if len(self.seen) == self.stop_at:
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise KeyboardInterrupt
        self.seen.append(1)
        difference_HW = np.abs(t1_HWC.astype(np.float32) - t2_HWC).mean(axis=2) / 255
        return np.stack([(difference_HW + np.roll(difference_HW, 9, axis=0) + np.roll(difference_HW, 9, axis=1)) / 3])

    def decide(self, strips):
        for strip in strips:
            change_HW = np.where(strip.valid_HW, strip.scores_PHW[0] > 0.3, IGNORE).astype(np.uint8)
            yield ChangeMap(change_HW, np.where(strip.valid_HW, strip.scores_PHW[0], np.nan).astype(np.float32))


@pytest.fixture
def images(tmp_path) -> tuple[Path, Path]:
    rng = np.random.default_rng(0)
    paths = tmp_path / "A.png", tmp_path / "B.png"
    for path in paths:
        coarse = rng.integers(0, 256, (20, 28, 3), dtype=np.uint8)
        Image.fromarray(coarse.repeat(9, axis=0).repeat(9, axis=1)[:170, :230]).save(path)
    return paths


def result_of(out: Path) -> dict:
    """What must be the same, byte by byte; a GeoPackage carries the time when it was written, so its rows."""
    rows = gpd.read_file(out / "changes.gpkg", layer="changes").to_json(drop_id=True)
    return {name: (out / name).read_bytes() for name in ("change.tif", "score.tif")} | {"changes": rows}


@pytest.fixture
def wanted(images, tmp_path) -> dict:
    detector = Blurred()
    write_detection(*images, tmp_path / "whole", detector=detector, config=TILES, progress=QUIET)
    assert len(detector.seen) == COUNT
    return result_of(tmp_path / "whole")


def interrupt(images, out: Path, *, after: int, **more) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_detection(*images, out, detector=Blurred(stop_at=after), config=TILES, progress=QUIET, **more)


def test_goes_on_after_an_interruption(images, tmp_path, wanted):
    out = tmp_path / "out"
    interrupt(images, out, after=17)  # in the third row of tiles
    assert not out.exists() and (tmp_path / ".out.partial").is_dir()
    interrupt(images, out, after=10)  # and again, in the fourth
    detector = Blurred()
    write_detection(*images, out, detector=detector, config=TILES, progress=QUIET)
    tiles = json.loads((out / "run.json").read_text())["tiles"]
    assert tiles["all"] == COUNT and tiles["from_an_interrupted_run"] + len(detector.seen) == COUNT
    assert tiles["from_an_interrupted_run"] >= 14, "two rows of tiles were done by the first run"
    assert result_of(out) == wanted
    assert sorted(path.name for path in tmp_path.iterdir()) == ["A.png", "B.png", "out", "whole"]


def test_goes_on_after_a_kill(images, tmp_path, wanted):
    out = tmp_path / "out"
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import tests.detection.test_resume as t;"
        "from pathlib import Path;"
        "t.write_detection(*map(Path, sys.argv[2:5]), detector=t.Blurred(stop_at=25, kill=True), config=t.TILES)"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(ROOT), *map(str, images), str(out)], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert not out.exists()
    detector = Blurred()
    write_detection(*images, out, detector=detector, config=TILES, progress=QUIET)
    assert 0 < len(detector.seen) <= COUNT - 14 and result_of(out) == wanted
    assert sorted(path.name for path in tmp_path.iterdir()) == ["A.png", "B.png", "out", "whole"]


def test_another_size_for_small_objects_uses_the_same_tiles(images, tmp_path):
    interrupt(images, tmp_path / "out", after=COUNT - 1)
    detector = Blurred()
    settings = replace(TILES, min_area_m2=200.0, title="Other words")
    result = write_detection(*images, tmp_path / "out", detector=detector, config=settings, progress=QUIET)
    assert len(detector.seen) <= 7 and result.summary.objects > 0
    assert gpd.read_file(tmp_path / "out" / "changes.gpkg", layer="changes")["area_px"].min() >= 200


@pytest.mark.parametrize("other", ["detector", "tiles", "image", "manifest"])
def test_starts_anew_where_anything_else_differs(images, tmp_path, other):
    out = tmp_path / "out"
    interrupt(images, out, after=30)
    detector = Blurred(name="another" if other == "detector" else "blurred")
    settings = replace(TILES, overlap_px=0) if other == "tiles" else TILES
    if other == "image":
        Image.fromarray(np.asarray(Image.open(images[1]))[::-1]).save(images[1])
    if other == "manifest":
        (tmp_path / ".out.partial" / "manifest.json").write_text("{")
    write_detection(*images, out, detector=detector, config=settings, progress=QUIET)
    tiles = json.loads((out / "run.json").read_text())["tiles"]
    assert len(detector.seen) == tiles["all"] and tiles["from_an_interrupted_run"] == 0
    assert not (tmp_path / ".out.partial").exists()


def test_damaged_tiles_are_made_anew(images, tmp_path, wanted):
    out = tmp_path / "out"
    interrupt(images, out, after=34)
    path = tmp_path / ".out.partial" / "tiles" / "00001.planes"
    path.write_bytes(bytes(100) + path.read_bytes()[100:])
    detector = Blurred()
    write_detection(*images, out, detector=detector, config=TILES, progress=QUIET)
    assert len(detector.seen) == COUNT - 7 and result_of(out) == wanted


def test_two_runs_on_one_folder_are_refused(images, tmp_path):
    partial = tmp_path / ".out.partial"
    partial.mkdir()
    with (tmp_path / ".out.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        handle.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": "today"}))
        handle.flush()
        with pytest.raises(OutputError, match="another run"):
            write_detection(*images, tmp_path / "out", detector=Blurred(), config=TILES, progress=QUIET)
    assert partial.is_dir(), "it is the other run's"
    write_detection(*images, tmp_path / "out", detector=Blurred(), config=TILES, progress=QUIET)
    assert not partial.exists()


def test_result_moves_as_a_whole(images, tmp_path, monkeypatch):
    """What an earlier result holds is there until the new one is whole."""
    out = tmp_path / "out"
    write_detection(*images, out, detector=Blurred(), config=TILES, progress=QUIET)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    interrupt(images, out, after=3)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    shutil.rmtree(tmp_path / ".out.partial", ignore_errors=True)
