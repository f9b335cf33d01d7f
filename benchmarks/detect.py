"""CPU seconds of `semicdvl detect` without labels by stage, memory and IoU; two versions of the code in one run.

    python benchmarks/detect.py -o runs/detect                                # a synthetic city of 2048 px
    python benchmarks/detect.py -o runs/detect --px 1024 --real ../shared/data --pairs 2
    python benchmarks/detect.py -o runs/detect --against ../old/src           # the same with the code of another tree
    python benchmarks/detect.py -o runs/detect --options="--residual-outlines 0"

Every run is a process of its own, as a user starts it, and versions take turns; the round with the fewest CPU seconds
counts (user and system, all threads). Wall time is printed beside it and means something on a quiet machine only. A
stage is the time inside the functions of `STAGES`; `start-up and rest` is what remains: imports, above all.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1] / "src"
DETECTORS = "semicdvl.detection.detectors.vlm_ceg"
PIPELINE = "semicdvl.detection.pipeline"
STAGES = {
    "open and check": ((PIPELINE, "open_checked_pair"),),
    "network": (
        ("semicdvl.vlms.aerial.model:AerialVLM", "segment"),
        ("semicdvl.vlms.aerial.model:AerialVLM", "segment_with_features"),
    ),
    "features alone": (("semicdvl.vlms.aerial.features:AerialFeatureExtractor", "extract_features"),),
    "outlines": ((DETECTORS, "prepare_residual_answers"),),
    "decide and write rasters": ((f"{PIPELINE}:_DetectionRun", "decide"),),
    "polygons, report": ((f"{PIPELINE}:_DetectionRun", "write_files"),),
}
"""Stage -> functions, each by its module (and class) and name; those that a version does not have are left out."""
GSD_M = {"levir": 0.5, "fotbcd": 0.2}


@dataclass(frozen=True)
class LabelledPair:
    """Two images, where they differ, and how many metres a pixel is."""

    name: str
    before: Path
    after: Path
    truth: Path
    gsd_m: float


# ------------------------------------------------------------------------------------------------ one run, in a child
def measure_stages() -> dict[str, float]:
    """Make the functions of the stages count their CPU seconds; return the dict that holds them."""
    seconds = dict.fromkeys(STAGES, 0.0)
    running: list[str] = []

    def count(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            began, nested = time.process_time(), bool(running)
            running.append(stage)
            try:
                return function(*args, **kwargs)
            finally:
                running.pop()
                if not nested:
                    seconds[stage] += time.process_time() - began

        return run

    for stage, places in STAGES.items():
        for place, name in places:
            module, _, of = place.partition(":")
            owner = importlib.import_module(module)
            owner = getattr(owner, of) if of else owner
            if hasattr(owner, name):
                setattr(owner, name, count(stage, getattr(owner, name)))
    return seconds


def run_one(arguments: list[str], record: Path) -> None:
    """Run the command line in this process and write what it cost."""
    began = time.monotonic()
    seconds = measure_stages()
    from semicdvl.__main__ import main

    sys.argv = ["semicdvl", "detect", *arguments]
    try:
        main()
    except SystemExit as stop:
        if stop.code:
            raise
    usage = resource.getrusage(resource.RUSAGE_SELF)
    total = usage.ru_utime + usage.ru_stime
    seconds["start-up and rest"] = total - sum(seconds.values())
    cost = {"stages": seconds, "cpu_s": total, "wall_s": time.monotonic() - began, "peak_mib": usage.ru_maxrss / 1024}
    record.write_text(json.dumps(cost))


# ------------------------------------------------------------------------------------------------ the parent
def make_city(folder: Path, px: int, seed: int) -> LabelledPair:
    """Return a synthetic city, made where it does not lie yet."""
    from semicdvl.synthetic.config import CitySpec
    from semicdvl.synthetic.generate import generate_city
    from semicdvl.synthetic.write import write_city

    if not (folder / "change.tif").exists():
        write_city(generate_city(CitySpec(size_px=px, seed=seed)), folder)
    return LabelledPair(f"city {px} px", folder / "before.tif", folder / "after.tif", folder / "change.tif", 0.5)


def list_real_pairs(root: Path, most: int) -> list[LabelledPair]:
    """Return the first pairs of each real data set."""
    from semicdvl.data.readers import folder

    found = []
    for data, gsd_m in GSD_M.items():
        for pair in folder.read_folder(root / data).pairs[:most] if (root / data).is_dir() else ():
            assert pair.label is not None, "these pairs all have labels"
            found.append(LabelledPair(f"{data} {pair.name}", pair.before, pair.after, pair.label, gsd_m))
    return found


def compute_iou(found: Path, truth: Path) -> tuple[float, int]:
    """Return the IoU of the changed class, and the number of pixels."""
    import rasterio

    from semicdvl.data.labels.files import read_mask
    from semicdvl.metrics.change import ConfusionCounts

    with rasterio.open(found) as dataset:
        change_HW = dataset.read(1)
    return ConfusionCounts.from_maps(change_HW, (read_mask(truth) == 1)).iou, change_HW.size


def run_version(source: Path, pair: LabelledPair, out: Path, options: list[str]) -> dict[str, Any]:
    """Return the cost of one detection with the code of a tree, and its IoU."""
    shutil.rmtree(out, ignore_errors=True)
    record = out.with_suffix(".json")
    detect = [str(pair.before), str(pair.after), "-o", str(out), "--gsd", str(pair.gsd_m), *options]
    environment = {**os.environ, "PYTHONPATH": str(source)}
    command = [sys.executable, __file__, "--one", str(record), *detect]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    cost: dict[str, Any] = json.loads(record.read_text())
    cost["iou"], cost["px"] = compute_iou(out / "change.tif", pair.truth)
    return cost


def render(pair: LabelledPair, costs: dict[str, dict[str, Any]]) -> str:
    """Return the table of one pair: a row per stage, a column per version, in CPU seconds per megapixel."""
    mpix = next(iter(costs.values()))["px"] / 1e6
    lines = [f"| {pair.name}, {mpix:.2f} MPix | " + " | ".join(costs) + " |", "|---" * (len(costs) + 1) + "|"]
    for stage in (*STAGES, "start-up and rest"):
        cells = (f"{cost['stages'][stage] / mpix:.2f}" for cost in costs.values())
        lines.append(f"| {stage}, CPU s/MPix | " + " | ".join(cells) + " |")
    for title, key, scale in (("all, CPU s/MPix", "cpu_s", mpix), ("wall s", "wall_s", 1), ("peak MiB", "peak_mib", 1)):
        lines.append(f"| {title} | " + " | ".join(f"{cost[key] / scale:.2f}" for cost in costs.values()) + " |")
    lines.append("| IoU^c | " + " | ".join(f"{cost['iou']:.4f}" for cost in costs.values()) + " |")
    return "\n".join(lines)


def main() -> None:
    """Read the options, run the versions in turns, print a table for each pair."""
    if "--one" in sys.argv[1:2]:
        run_one(sys.argv[3:], Path(sys.argv[2]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/detect"))
    parser.add_argument("--px", type=int, default=2048, help="side of the synthetic city; 0: none")
    parser.add_argument("--seed", type=int, default=40)
    parser.add_argument("--real", type=Path, help="folder that holds levir/ and fotbcd/")
    parser.add_argument("--pairs", type=int, default=1, help="of each real data set")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--against", type=Path, help="the folder src of another version")
    parser.add_argument("--options", default="", help="options of detect for this version")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    pairs = (
        [make_city(options.out / f"city-{options.px}-{options.seed}", options.px, options.seed)] if options.px else []
    )
    pairs += list_real_pairs(options.real, options.pairs) if options.real else []
    versions = {"before": options.against} if options.against else {}
    for pair in pairs:
        costs: dict[str, dict[str, Any]] = {}
        for _ in range(options.rounds):
            for name, source in (versions | {"now": HERE}).items():
                more = options.options.split() if name == "now" else []
                cost = run_version(source.resolve(), pair, (options.out / f"out-{name}").resolve(), more)
                costs[name] = min(costs.get(name, cost), cost, key=lambda one: one["cpu_s"])
        print(render(pair, costs), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
