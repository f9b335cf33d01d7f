"""Pairs per CPU second of `semicdvl pseudo` with the embedded VLM, for two versions of the code in turns.

    python benchmarks/pseudo.py ../shared/data/levir_crops                        # a folder with A/ and B/
    python benchmarks/pseudo.py ../shared/data/levir_crops --against OLD/src      # and with the code of another tree
    python benchmarks/pseudo.py ../shared/data/levir_crops --against OLD/src --dtype int8

What is timed is the work on the pairs: reading, the VLM, change event generation, writing. Start-up is not.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parents[1] / "src"
OWN = ("device", "dtype")
"""Options of the VLM that the version before does not get."""


def label_pairs(data: Path, *, most: int, gsd_m: float, options: dict[str, str]) -> dict[str, float]:
    """Label the pairs of a folder in this process; return their number, the CPU seconds and those of the clock."""
    import numpy as np

    import semicdvl as cd
    from semicdvl.ceg.config import CEGSettings
    from semicdvl.ceg.prompts import PROMPT_SETS
    from semicdvl.data.readers import folder
    from semicdvl.pseudo_labels.generate import generate_labels

    places = ("semicdvl.process_memory", "semicdvl.worker_processes")  # today's, and that of earlier versions
    memory = importlib.import_module(next(place for place in places if importlib.util.find_spec(place)))
    getattr(memory, "keep_freed_memory", lambda: None)()  # as the command line does, if this version does
    vlm, prompts = cd.create_vlm("aerial", **options), PROMPT_SETS["buildings"]
    settings = CEGSettings(gamma=vlm.gamma, gamma_segmentation=vlm.gamma)
    vlm.segment(np.zeros((256, 256, 3), np.uint8), prompts.words)  # the first call loads code
    pairs = folder.read_folder(data).pairs[:most]
    with tempfile.TemporaryDirectory() as store:
        began, began_wall = time.process_time(), time.monotonic()
        done = list(generate_labels(pairs, vlm=vlm, prompts=prompts, settings=settings, root=Path(store), gsd_m=gsd_m))
        return {"pairs": len(done), "cpu_s": time.process_time() - began, "s": time.monotonic() - began_wall}


def make_pairs(folder: Path, *, px: int) -> None:
    """Cut a synthetic city into pairs of 256 px, where there are none yet."""
    from PIL import Image

    from semicdvl.synthetic.config import CitySpec
    from semicdvl.synthetic.generate import generate_city

    if (folder / "B").is_dir():
        return
    city = generate_city(CitySpec(size_px=px, seed=0))
    for side, image_HWC in (("A", city.t1_HWC), ("B", city.t2_HWC)):
        (folder / side).mkdir(parents=True)
        for row in range(0, px, 256):
            for col in range(0, px, 256):
                Image.fromarray(image_HWC[row : row + 256, col : col + 256]).save(folder / side / f"{row}_{col}.png")


def main() -> None:
    """Read the options, run the versions in turns, print pairs per CPU second."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that holds A/ and B/")
    parser.add_argument("--gsd", type=float, default=0.5, help="metres per pixel")
    parser.add_argument("--pairs", type=int, default=8, help="at most so many")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--against", type=Path, help="the folder src of another version")
    parser.add_argument("--city", type=int, help="make the pairs of a synthetic city of this size first")
    parser.add_argument("--device", help="of this version")
    parser.add_argument("--dtype", help="of this version")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.city:
        make_pairs(options.data, px=options.city)
    if options.one:
        chosen = {name: getattr(options, name) for name in OWN if getattr(options, name)}
        print(json.dumps(label_pairs(options.data, most=options.pairs, gsd_m=options.gsd, options=chosen)))
        return
    versions = {"now": HERE} | ({"before": options.against.resolve()} if options.against else {})
    best, wall = dict.fromkeys(versions, 0.0), dict.fromkeys(versions, 0.0)
    for _ in range(options.rounds):
        for name, source in versions.items():
            own = [f"--{key}={value}" for key in OWN if (value := getattr(options, key)) and name == "now"]
            shared = [str(options.data), f"--gsd={options.gsd}", f"--pairs={options.pairs}", *own, "--one"]
            command, environment = [sys.executable, __file__, *shared], {**os.environ, "PYTHONPATH": str(source)}
            run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
            cost = json.loads(run.stdout.splitlines()[-1])
            best[name] = max(best[name], cost["pairs"] / cost["cpu_s"])
            wall[name] = max(wall[name], cost["pairs"] / cost["s"])
    for name, rate in best.items():
        times = f", {rate / best['before']:.2f} times the version before" if "before" in best else ""
        print(f"{name:8} {rate:6.2f} pairs/CPU s, {wall[name]:6.2f} pairs/s{times}")


if __name__ == "__main__":
    main()
