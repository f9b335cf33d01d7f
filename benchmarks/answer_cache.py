"""What `semicdvl detect --cache DIR` saves: CPU seconds of a first and of later runs, size on disk, effect on the map.

    python benchmarks/answer_cache.py --px 1024

A synthetic city is detected without a cache, with an empty one, and three times with what the second run kept: with the
same words, with another rule, and with the words of another prompt set. Every run is the command in a process of its
own, imports included.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import rasterio

from semicdvl.synthetic.config import CitySpec
from semicdvl.synthetic.generate import generate_city
from semicdvl.synthetic.write import write_city


def run_detect(city: Path, out: Path, *options: str) -> float:
    """Run the command and return its CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "semicdvl", "detect", city / "before.tif", city / "after.tif", "-o", out, *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def compare_maps(first: Path, second: Path) -> tuple[float, float]:
    """Return the share of pixels whose change differs between two results, and the largest difference of the score."""
    maps = []
    for folder in (first, second):
        with rasterio.open(folder / "change.tif") as change, rasterio.open(folder / "score.tif") as score:
            maps.append((change.read(1), score.read(1)))
    return float((maps[0][0] != maps[1][0]).mean()), float(np.nanmax(np.abs(maps[0][1] - maps[1][1])))


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--px", type=int, default=1024, help="side of the city")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        city, cache = root / "city", root / "cache"
        write_city(generate_city(CitySpec(size_px=options.px, seed=42)), city)
        kept = ("--cache", str(cache))
        runs = {
            "without a cache": (),
            "empty cache": kept,
            "kept answers, same words": kept,
            "kept answers, --residual-score 0.5": (*kept, "--residual-score", "0.5"),
            "kept answers, --prompts roads": (*kept, "--prompts", "roads"),
        }
        print(f"| city of {options.px} px | CPU s |\n|---|---|")
        for number, (name, given) in enumerate(runs.items()):
            print(f"| {name} | {run_detect(city, root / f'out{number}', *given):.1f} |", flush=True)
        size = sum(path.stat().st_size for path in cache.glob("*/*.npz"))
        differing, most = compare_maps(root / "out0", root / "out1")
        same = compare_maps(root / "out1", root / "out2") == (0.0, 0.0)
        recorded = json.loads((root / "out0/run.json").read_text())["inputs"]
        images = sum(recorded[date]["bytes"] for date in ("before", "after"))
        print(
            f"\n{size / 1e6:.1f} MB are kept, {size / options.px**2:.1f} bytes a pixel (images: {images / 1e6:.1f} MB)."
        )
        print(f"With a cache {differing:.4%} of the pixels have another change, scores differ by up to {most:.4f};")
        print(f"kept answers give {'the same' if same else 'another'} map.")


if __name__ == "__main__":
    main()
