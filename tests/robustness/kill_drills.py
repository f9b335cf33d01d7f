# ruff: noqa: E501, T201  (a script that prints a table)
"""Kill every long command again and again, and compare what the next start makes with an undisturbed run.

    python tests/robustness/kill_drills.py --kills 20 --seed 0 [--only detect,train] [--full-disk]

Each drill forks this process, which has everything imported already, lets the child work until its first part is saved,
and kills it after a random further moment. The same command is then started again and must end with the same bytes as
an undisturbed run. The table that it prints stands in docs/reliability.md. `--full-disk` needs root, to mount small
file systems in memory.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
import shapely
from rasterio.transform import Affine
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support.tiny_training import build_tiny_recipe

from semicdvl.ceg.config import CEGSettings
from semicdvl.ceg.prompts import Prompts
from semicdvl.data.prepare.config import PrepareSettings
from semicdvl.data.prepare.run import prepare_patches
from semicdvl.data.readers import folder as folder_reader
from semicdvl.detection.batch.pairs_table import BatchPair, PairsTable
from semicdvl.detection.batch.run import detect_batch
from semicdvl.detection.config import DetectionConfig
from semicdvl.detection.detectors.unsupervised import build_unsupervised_detector
from semicdvl.detection.pipeline import write_detection
from semicdvl.errors import SemicdvlError
from semicdvl.evaluation.active_learning.select import SuggestConfig, suggest_patches
from semicdvl.evaluation.evaluate import score_map
from semicdvl.pseudo_labels.generate import generate_labels
from semicdvl.synthetic.config import CitySpec
from semicdvl.synthetic.generate import generate_city
from semicdvl.synthetic.write import write_city_patches
from semicdvl.training.run import train_recipe
from semicdvl.vlms.models.fake import build_fake

HEIGHT, WIDTH = 330, 270
QUIET = Console(quiet=True)
FINISHED, REFUSED, BROKEN = 0, 2, 70
TIMED = ("seconds", "started", "finished", "peak_mib")
"""Keys of records that differ between equal runs."""


@dataclass(frozen=True)
class Drill:
    """One command.

    Attributes:
        work: does it, for a folder to write.
        parts: pattern, below the folder of the drill, of what it saves on the way; empty: it saves nothing before its end.
        spread_s: the kill comes up to so much later.
    """

    work: Callable[[Path], None]
    parts: str = ""
    spread_s: float = 0.4


def make_inputs(home: Path) -> dict[str, Path]:
    """Write a pair of images, polygons of its changes and labelled patches."""
    rng = np.random.default_rng(0)
    before_CHW = rng.integers(60, 200, (3, HEIGHT, WIDTH)).astype(np.uint8)
    after_CHW, boxes = before_CHW.copy(), []
    for row, col in rng.integers(10, 230, (24, 2)):
        after_CHW[:, row : row + 14, col : col + 17] = 250
        boxes.append(shapely.box(500_000 + col, 5_000_000 - row - 14, 500_000 + col + 17, 5_000_000 - row))
    profile: dict[str, Any] = {"driver": "GTiff", "count": 3, "height": HEIGHT, "width": WIDTH, "dtype": "uint8"}
    for name, image_CHW in (("before", before_CHW), ("after", after_CHW)):
        place = Affine(1, 0, 500_000, 0, -1, 5_000_000)
        with rasterio.open(home / f"{name}.tif", "w", crs="EPSG:32632", transform=place, **profile) as target:
            target.write(image_CHW)
    gpd.GeoDataFrame(geometry=boxes, crs="EPSG:32632").to_file(home / "changes.gpkg", engine="pyogrio")
    write_city_patches(generate_city(CitySpec(size_px=(256, 256), seed=3)), home / "patches", size_px=64)
    write_detection(home / "before.tif", home / "after.tif", home / "map", detector=_detector(), progress=QUIET)
    return {name: home / name for name in ("before.tif", "after.tif", "changes.gpkg", "patches", "map")}


def _detector() -> Any:
    return build_unsupervised_detector("cva", options={"threshold": "otsu"})


def list_drills(home: Path) -> dict[str, Drill]:
    """Return the commands by name."""
    before, after, truth = home / "before.tif", home / "after.tif", home / "changes.gpkg"
    tiles = DetectionConfig(tile_px=64, overlap_px=16)
    recipe = build_tiny_recipe(home / "patches", None, method__name="supervised", train__steps=12, train__eval_every=1)
    pairs = folder_reader.read_folder(home / "patches").pairs
    settings = CEGSettings(gamma=0.5, gamma_segmentation=0.5)

    def pseudo(out: Path) -> None:
        words = Prompts(("building",), ("grass", "water"))
        list(generate_labels(pairs, vlm=build_fake(), prompts=words, settings=settings, root=out))

    def on_map(out: Path, work: Callable[[Path], object]) -> None:
        if not out.exists():
            shutil.copytree(home / "map", out)
        work(out)

    table = PairsTable(home / "pairs.csv", tuple(BatchPair(f"p{at}", str(before), str(after)) for at in range(3)), ())
    cut = PrepareSettings(size_px=32, val_frac=0.0, test_frac=0.0)
    return {
        "detect": Drill(
            lambda out: void(write_detection(before, after, out, detector=_detector(), config=tiles, progress=QUIET)),
            ".out.partial/tiles/*.json",
        ),
        "detect --pairs": Drill(
            lambda out: void(detect_batch(table, out, detector=_detector(), config=tiles, progress=QUIET)),
            "out/p0/run.json",
            0.8,
        ),
        "prepare": Drill(
            lambda out: void(prepare_patches(before, after, out, labels=truth, settings=cut, console=QUIET)),
            "out/A/*.png",
            0.3,
        ),
        "pseudo": Drill(pseudo, "out/labels/*/*.json", 0.3),
        "train": Drill(lambda out: void(train_recipe(recipe, out, quiet=True)), "out/state/0*", 1.5),
        "evaluate": Drill(lambda out: on_map(out, lambda at: score_map(at, truth, sample=20)), "", 0.6),
        "suggest": Drill(
            lambda out: on_map(out, lambda at: suggest_patches(at, config=SuggestConfig(patch_px=32, count=3))), "", 0.6
        ),
    }


def void(_: object) -> None:
    """Drop a result."""


# ------------------------------------------------------------------------------------------------ processes
def start(drill: Drill, out: Path, log: Path) -> int:
    """Fork a child that does the work; its exit code says how that ended."""
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    code = BROKEN
    try:
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda given, _: sys.exit(128 + given))
        drill.work(out)
        code = FINISHED
    except SemicdvlError as error:
        log.write_text(str(error))
        code = REFUSED
    except SystemExit as stop:
        code = int(stop.code or 0)
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        log.write_text(traceback.format_exc())
    finally:
        os._exit(code)
    raise AssertionError("unreachable")


def finish(pid: int) -> int:
    """Wait for a child and return its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def disturb(drill: Drill, folder: Path, number: int, rng: random.Random) -> int:
    """Start the work, send it a signal after its first saved part, and return how it ended."""
    pid, until = start(drill, folder / "out", folder / "log"), time.monotonic() + 120
    while drill.parts and not any(folder.glob(drill.parts)) and time.monotonic() < until:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return finish(pid)
        time.sleep(0.001)
    time.sleep(rng.uniform(0, drill.spread_s))
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
    return finish(pid)


def read_content(out: Path) -> dict[str, Any]:
    """Return what a folder holds, without times and without what differs by the place it lies in."""
    return {str(path.relative_to(out)): _read_file(path, out) for path in sorted(out.rglob("*")) if path.is_file()}


def _read_file(path: Path, out: Path) -> Any:
    if path.suffix in (".html", ".jsonl") or path.name == "batch.json":
        return "present"
    if path.suffix == ".json":
        return _without_times(json.loads(path.read_text().replace(str(out.parent), "")))
    return path.read_bytes()


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        drop = (*TIMED, "tiles")
        return {key: _without_times(one) for key, one in value.items() if key not in drop}
    return [_without_times(one) for one in value] if isinstance(value, list) else value


@contextlib.contextmanager
def scratch(home: Path) -> Iterator[Path]:
    """Give an empty folder beside the inputs."""
    folder = Path(tempfile.mkdtemp(dir=home))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# ------------------------------------------------------------------------------------------------ drills
def drill_signals(name: str, drill: Drill, home: Path, *, number: int, count: int, rng: random.Random) -> Counter[str]:
    """Disturb a command many times; return how often what happened."""
    seen: Counter[str] = Counter()
    with scratch(home) as folder:
        assert finish(start(drill, folder / "out", folder / "log")) == FINISHED, (folder / "log").read_text()
        wanted = read_content(folder / "out")
    for _ in range(count):
        with scratch(home) as folder:
            ended = disturb(drill, folder, number, rng)
            seen["sent"] += 1
            seen["ended before the signal"] += ended == FINISHED
            seen["broken"] += ended in (BROKEN, REFUSED)
            if number != signal.SIGKILL:
                seen["left unfinished files"] += any(folder.rglob(".part-*"))
            again = finish(start(drill, folder / "out", folder / "log"))
            same = again == FINISHED and read_content(folder / "out") == wanted
            clean = not any(path.name.startswith((".part-", ".old-", ".out.")) for path in folder.rglob("*"))
            seen["equal after the next start"] += same
            seen["nothing left over"] += clean
            if not (same and clean):
                said = (folder / "log").read_text() if (folder / "log").exists() else ""
                left = [str(path.relative_to(folder)) for path in folder.rglob(".*")]
                found = read_content(folder / "out") if (folder / "out").exists() else {}
                differ = [key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key)]
                print(f"{name}: not as undisturbed: {again} {said[-400:]} left {left} differ {differ}", flush=True)
    return seen


def drill_two_writers(drill: Drill, home: Path) -> Counter[str]:
    """Start a command while another process, stopped in its middle, works on the same output."""
    seen: Counter[str] = Counter()
    with scratch(home) as folder:
        first = start(drill, folder / "out", folder / "first")
        while drill.parts and not any(folder.glob(drill.parts)) and os.waitpid(first, os.WNOHANG) == (0, 0):
            time.sleep(0.001)
        os.kill(first, signal.SIGSTOP)
        second = finish(start(drill, folder / "out", folder / "log"))
        said = (folder / "log").read_text() if (folder / "log").exists() else ""
        os.kill(first, signal.SIGCONT)
        seen["second refused, first named"] = int(second == REFUSED and f"process {first}" in said)
        seen["first finished"] = int(finish(first) == FINISHED)
    return seen


def drill_full_disk(name: str, drill: Drill, home: Path, *, kib: tuple[int, ...]) -> Counter[str]:
    """Run a command on file systems that are too small; what it wrote before must stay, and the message must be one."""
    seen: Counter[str] = Counter()
    for size in kib:
        with scratch(home) as folder:
            disk = folder / "disk"
            disk.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(disk)], check=True)
            try:
                ended = finish(start(drill, disk / "out", folder / "log"))
                said = (folder / "log").read_text() if (folder / "log").exists() else ""
                seen["runs"] += 1
                seen["fitted"] += ended == FINISHED
                seen["one clear error"] += ended == REFUSED and "cannot be written" in said and "\n" not in said.strip()
                left = [path for path in disk.rglob(".part-*")]
                seen["no unfinished file"] += not left
                if ended not in (FINISHED, REFUSED) or (ended == REFUSED and "cannot be written" not in said) or left:
                    print(f"{name} on {size} KiB: {ended}: {said[-1500:]} {left}", flush=True)
            finally:
                subprocess.run(["umount", str(disk)], check=True)
    return seen


def drill_vanishing_input(drill: Drill, home: Path) -> Counter[str]:
    """Take an image away after the first saved part, and change it; the run ends in words, and the next one is right."""
    seen: Counter[str] = Counter()
    image = home / "after.tif"
    kept = image.read_bytes()
    for change in ("gone", "cut"):
        with scratch(home) as folder:
            pid = start(drill, folder / "out", folder / "log")
            while drill.parts and not any(folder.glob(drill.parts)) and os.waitpid(pid, os.WNOHANG) == (0, 0):
                time.sleep(0.001)
            if change == "gone":
                image.unlink()
            else:
                os.truncate(image, len(kept) // 2)
            ended = finish(pid)
            image.write_bytes(kept)
            seen["finished or refused in words"] += ended in (FINISHED, REFUSED)
            if ended == BROKEN:
                print((folder / "log").read_text()[-1500:], flush=True)
            seen["equal after the next start"] += finish(start(drill, folder / "out", folder / "log")) == FINISHED
    return seen


def main() -> None:
    """Run the drills and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="SIGKILLs per command")
    parser.add_argument("--signals", type=int, default=3, help="SIGTERM, SIGINT and SIGHUP, each, per command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--full-disk", action="store_true")
    options = parser.parse_args()
    rng, total = random.Random(options.seed), Counter[str]()
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        # In a child: threads of GDAL that this process had started would be missing in all that are forked from it.
        inputs = Drill(lambda at: void(make_inputs(at.parent)))
        assert finish(start(inputs, home / "out", home / "log")) == FINISHED, (home / "log").read_text()
        for name, drill in list_drills(home).items():
            if options.only and name not in options.only.split(","):
                continue
            found = drill_signals(name, drill, home, number=signal.SIGKILL, count=options.kills, rng=rng)
            total.update(found)
            print(f"| {name} | SIGKILL | {dict(found)} |", flush=True)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP) if options.signals else ():
                found = drill_signals(name, drill, home, number=number, count=options.signals, rng=rng)
                print(f"| {name} | {number.name} | {dict(found)} |", flush=True)
            if drill.parts and name != "pseudo":
                print(f"| {name} | two writers | {dict(drill_two_writers(drill, home))} |", flush=True)
            if name in ("detect", "prepare"):
                print(f"| {name} | vanishing input | {dict(drill_vanishing_input(drill, home))} |", flush=True)
            if options.full_disk:
                found = drill_full_disk(name, drill, home, kib=(16, 64, 200, 600, 1500))
                print(f"| {name} | full disk | {dict(found)} |", flush=True)
    print(f"| all | SIGKILL | {dict(total)} |", flush=True)


if __name__ == "__main__":
    main()
