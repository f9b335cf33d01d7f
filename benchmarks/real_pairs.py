"""Few labels on real building-change pairs: Sup-only, FixMatch and SemiCD-VL under one protocol.

    python benchmarks/real_pairs.py ../shared/data -o runs/real-pairs

Data: every pair of `fotbcd`, `fotbcd_instances` (0.2 m, halved to 0.4 m), `levir` and `levir_crops` (0.5 m), cut into
crops of 256 px. Sides are drawn by source image: no crop of a training image is tested on. Per seed: one LEVIR tile and
a quarter of the French images are the test, some others the validation; of the training crops `--labelled` keep their
label, the rest take part without. The recipes are recipes/small-*.toml: all methods get the same crops, steps,
network and start, and `best` is chosen on the validation crops. What the table does *not* say: anything about the
LEVIR-CD benchmark; this is a handful of images.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np

from semicdvl.config import load_recipe
from semicdvl.data import folder
from semicdvl.data.pairs import DataSet
from semicdvl.data.split_file import write_split
from semicdvl.data.splits import SplitNames, pick
from semicdvl.pseudo.coverage import fill
from semicdvl.pseudo.generate import CEGSettings
from semicdvl.pseudo.prompts import PROMPT_SETS
from semicdvl.train.run import train
from semicdvl.vlms import aerial

SOURCES = {"fotbcd": 0.5, "fotbcd_instances": 0.5, "levir": 1.0, "levir_crops": 1.0}
"""Folder -> factor by which its images are resized."""
CROP_PX = 256
GSD_M = 0.45
RECIPES = Path(__file__).parents[1] / "recipes"
PLAIN = {"method.change_weight": 1.0}
"""The recipes weigh rare change by now; the table in docs/real-pairs.md is from before."""
METHODS = {"Sup-only": "supervised", "FixMatch": "fixmatch", "SemiCD-VL": "semicd_vl"}


def prepare(data: Path, out: Path) -> DataSet:
    """Cut the real pairs into crops `<source>_<image>-<row>-<col>.png` below `out` and read them."""
    if not (out / "A").exists():
        for source, factor in SOURCES.items():
            for path in sorted((data / source / "A").iterdir()):
                for part in ("A", "B", "label"):
                    _cut(
                        next((data / source / part).glob(f"{path.stem}.*")), out / part, f"{source}_{path.stem}", factor
                    )
    return folder.read(out)


def _cut(path: Path, out: Path, name: str, factor: float) -> None:
    """Resize one image (a label by nearest pixel) and write its crops."""
    out.mkdir(parents=True, exist_ok=True)
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE if out.name == "label" else cv2.IMREAD_COLOR)
    how = cv2.INTER_NEAREST if out.name == "label" else cv2.INTER_AREA
    image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=how)
    for row in range(0, image.shape[0] - CROP_PX + 1, CROP_PX):
        for col in range(0, image.shape[1] - CROP_PX + 1, CROP_PX):
            crop = image[row : row + CROP_PX, col : col + CROP_PX]
            cv2.imwrite(str(out / f"{name}-{row}-{col}.png"), crop)


def draw_sides(dataset: DataSet, *, seed: int, labelled: int) -> SplitNames:
    """Draw test, validation and training images by source, then the crops that keep their label."""
    rng = np.random.default_rng(seed)
    crops = defaultdict(list)
    for pair in dataset.pairs:
        crops[pair.name.rsplit("-", 2)[0]].append(pair.name)
    tiles = sorted(name for name in crops if name.startswith("levir_test"))
    french = list(rng.permutation(sorted(name for name in crops if name.startswith("fotbcd"))))
    small = list(rng.permutation(sorted(name for name in crops if name.startswith("levir_crops"))))
    quarter = len(french) // 4
    test = [tiles[seed % len(tiles)], *french[:quarter]]
    val = [*french[quarter : quarter + quarter], *small[:2]]
    pool = [crop for image in sorted(set(crops) - set(test) - set(val)) for crop in crops[image]]
    changed = [crop for crop in pool if cv2.imread(str(dataset.by_name[crop].label), 0).any()]
    kept = [str(name) for name in rng.permutation(changed)[:labelled]]
    return SplitNames(
        tuple(kept),
        tuple(crop for crop in pool if crop not in kept),
        tuple(crop for image in val for crop in crops[image]),
        tuple(crop for image in test for crop in crops[image]),
    )


def run(options: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """Train every method with every seed; return the test scores."""
    dataset = prepare(options.data, options.out / "pairs")
    store, vlm = options.out / "store", aerial.build()
    fill(
        dataset.pairs,
        vlm=vlm,
        prompts=PROMPT_SETS["buildings"],
        settings=CEGSettings(gamma=vlm.gamma, gamma_segmentation=vlm.gamma),
        root=store,
        gsd_m=GSD_M,
    )
    results = defaultdict(list)
    for seed in range(options.seeds):
        split = options.out / f"split-{seed}.json"
        names = draw_sides(dataset, seed=seed, labelled=options.labelled)
        write_split(split, pick(dataset, names), root=options.out / "pairs", notes={"seed": seed})
        for title, method in METHODS.items():
            name = f"{method}-{seed}"
            changes = {
                "name": name,
                "seed": seed,
                "data.root": options.out / "pairs",
                "data.split": split,
                "train.steps": options.steps,
                **({"pseudo.store": store} if method == "semicd_vl" else {}),
                **PLAIN,
                **({"method.confidence_min_changed": 0.95} if method == "fixmatch" else {}),
            }
            overrides = tuple(f"{key}={json.dumps(value, default=str)}" for key, value in changes.items())
            recipe = load_recipe(RECIPES / f"small-{method}.toml", overrides=overrides)
            trained = train(recipe, options.out / name)
            results[title].append(trained.test)
            print(f"{title:10s} seed {seed}: test IoU {trained.test['iou']:.3f}", flush=True)
    return results


def table(results: dict[str, list[dict[str, float]]]) -> str:
    """Return mean and spread (standard deviation over seeds) as Markdown."""
    lines = ["| method | IoU | F1 | precision | recall |", "|---|---|---|---|---|"]
    for title, runs in results.items():
        cells = []
        for name in ("iou", "f1", "precision", "recall"):
            values = [scores[name] for scores in runs]
            cells.append(f"{np.mean(values):.3f} +- {np.std(values, ddof=1) if len(values) > 1 else 0:.3f}")
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Read the options, run, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that holds fotbcd/, fotbcd_instances/, levir/, levir_crops/")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/real-pairs"))
    parser.add_argument("--labelled", type=int, default=4, help="crops that keep their label")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    results = run(options)
    (options.out / "results.json").write_text(json.dumps(results, indent=2))
    print(table(results))


if __name__ == "__main__":
    main()
