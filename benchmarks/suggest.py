"""Share of a map's wrong pixels in the patches of `semicdvl suggest`, against random patches and the best choice.

    python benchmarks/suggest.py -o runs/suggest            # --seeds 22 23 4001 4002, --count 20, --patch-px 128

For each synthetic city: `detect` without labels, then `suggest`. A pixel is wrong where the map differs from the truth.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import rasterio
from rich.console import Console

from semicdvl.ceg.prompts import PROMPT_SETS
from semicdvl.detection.detectors.vlm_ceg import build_vlm_detector
from semicdvl.detection.pipeline import write_detection
from semicdvl.evaluation.active_learning.patch_scores import score_patches
from semicdvl.evaluation.active_learning.select import SuggestConfig, suggest_patches
from semicdvl.evaluation.map_vs_truth import read_detected_map
from semicdvl.synthetic.config import CitySpec
from semicdvl.synthetic.generate import generate_city
from semicdvl.synthetic.write import write_city
from semicdvl.vlms.aerial.build import build_aerial

DRAWS = 1000
"""Number of random choices in the column `random`."""


def compute_shares(seed: int, out: Path, *, count: int, patch_px: int) -> str:
    """Return a line of the table: a city's share of wrong pixels in the suggested, random and best patches."""
    city = generate_city(CitySpec(seed=seed))
    files = write_city(city, out / f"city-{seed}")
    result = out / f"result-{seed}"
    if not (result / "run.json").exists():
        detector = build_vlm_detector(build_aerial(), prompts=PROMPT_SETS["buildings"])
        write_detection(files.before, files.after, result, detector=detector)
    picked = suggest_patches(result, config=SuggestConfig(patch_px=patch_px, count=count)).patches
    every = score_patches(read_detected_map(result), side_px=patch_px)
    with rasterio.open(result / "change.tif") as source:
        wrong_HW = (source.read(1) == 1) != (city.change_HW == 1)
    wrong_N, picked_N = (
        np.array([wrong_HW[r : r + patch_px, c : c + patch_px].sum() for r, c in zip(of.row_N, of.col_N, strict=True)])
        for of in (every, picked)
    )
    random = np.random.default_rng(0)
    chance = np.mean([random.permutation(wrong_N)[:count].sum() for _ in range(DRAWS)])
    best = np.sort(wrong_N)[-count:].sum()
    cells = [f"{part / wrong_HW.sum():.2f}" for part in (picked_N.sum(), chance, best)]
    return f"| {seed} | {count} of {len(every)} | {' | '.join(cells)} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/suggest"))
    parser.add_argument("--seeds", nargs="+", type=int, default=[22, 23, 4001, 4002])
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--patch-px", type=int, default=128)
    given = parser.parse_args()
    console = Console(soft_wrap=True)
    console.print("| city | patches | suggested | random | best |\n|---|---|---|---|---|", markup=False)
    for seed in given.seeds:
        console.print(compute_shares(seed, given.out, count=given.count, patch_px=given.patch_px), markup=False)


if __name__ == "__main__":
    main()
