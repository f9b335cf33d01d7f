"""What near infrared adds: the same small network on red, green and blue, and on these with near infrared.

    python benchmarks/more_bands.py -o runs/more-bands --seeds 0 1 2

Seven synthetic cities of 768 px with near infrared are cut into patches of 96 px: four cities to train, of whose
patches a seed draws the labelled ones, and two of which every third patch is the test. Both networks are trained from
random weights, so that none knows red, green and blue from before; labels are change and the classes of both dates.
IoU per class of the class maps of both dates, over all pixels of the test patches. Interrupted, the same command goes
on.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import semicdvl as cd
from semicdvl.checkpoint import read_run, read_run_bands
from semicdvl.config import Recipe, parse_recipe
from semicdvl.data.images.cache import ImageCache
from semicdvl.data.pairs import read_class_maps, read_pair
from semicdvl.data.readers.folder import read_folder
from semicdvl.data.split_file import read_split, write_split
from semicdvl.synthetic.config import CitySpec
from semicdvl.synthetic.generate import generate_city
from semicdvl.synthetic.write import PATCH_CLASSES, write_city_patches
from semicdvl.training.run import train_recipe
from semicdvl.types import Split

NAMES = tuple(each.name for each in PATCH_CLASSES)
BANDS = {"RGB": (1, 2, 3), "RGB + NIR": (1, 2, 3, 4)}
SUBSETS = {"train": range(100, 104), "val": range(104, 105), "test": range(105, 107)}
"""Seeds of the cities."""


def render(root: Path) -> None:
    """Write the patches of all cities and the lists of the subsets, unless they are there."""
    for subset, seeds in SUBSETS.items():
        if (root / f"{subset}.txt").exists():
            continue
        cities = (generate_city(replace(CitySpec(size_px=768, nir=True), seed=seed)) for seed in seeds)
        pairs = [pair for city in cities for pair in write_city_patches(city, root, size_px=96, classes=PATCH_CLASSES)]
        (root / f"{subset}.txt").write_text("".join(f"{pair.name}\n" for pair in pairs))


def draw_split(root: Path, path: Path, *, labelled: int, seed: int) -> Path:
    """Write the split of a seed."""
    dataset = read_folder(root)
    train, val, test = (dataset.select_subset(subset) for subset in SUBSETS)
    chosen = sorted(np.random.default_rng(seed).permutation(len(train))[:labelled].tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    split = Split(tuple(train[index] for index in chosen), (), val[:2], test[::3])
    write_split(path, split, root=root, notes={"seed": seed})
    return path


def build_recipe(root: Path, split: Path, bands: Sequence[int], *, seed: int, steps: int) -> Recipe:
    """Return the recipe, which differs by the bands alone."""
    return parse_recipe(
        {
            "seed": seed,
            "data": {"root": str(root), "split": str(split), "bands": list(bands), "crop_px": 64, "rot90": True},
            "classes": {"names": list(NAMES), "changing": ["building"]},
            "model": {"name": "siam_light", "backbone": "test_resnet", "pretrained": "none", "decoder_channels": 32},
            "method": {"name": "supervised", "change_weight": 5.0, "dice_weight": 1.0},
            "train": {
                "steps": steps,
                "eval_every": steps,
                "select": "last",
                "optimizer": "adamw",
                "lr": 0.003,
                "head_lr_multiplier": 1.0,
                "labelled_batch": 8,
                "device": "cpu",
            },
        },
        source="benchmark",
    )


def score_classes(run: Path) -> NDArray[np.float64]:
    """Return the IoU of each class over both dates of the test pairs."""
    network, bands = cd.load_model(run, train_heads=True), read_run_bands(read_run(run))
    cache, count = ImageCache(0, bands=bands), len(NAMES)
    confusion_KK = np.zeros((count, count), np.int64)
    for pair in read_split(run / "split.json").test:
        arrays = read_pair(pair, cache=cache)
        found = network.predict(arrays.t1_HWC, arrays.t2_HWC)
        assert found.t1_HW is not None and found.t2_HW is not None
        for found_HW, true_HW in zip((found.t1_HW, found.t2_HW), read_class_maps(pair, cache=cache), strict=True):
            known_HW = true_HW < count
            cells_N = found_HW[known_HW].astype(np.int64) * count + true_HW[known_HW]
            confusion_KK += np.bincount(cells_N, minlength=count**2).reshape(count, count)
    right_K = np.diag(confusion_KK)
    return np.asarray(right_K / (confusion_KK.sum(axis=0) + confusion_KK.sum(axis=1) - right_K))


def main() -> None:
    """Train all, and print one row per selection of bands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--labelled", type=int, default=64, help="labelled patches, of 256")
    parser.add_argument("--steps", type=int, default=250)
    asked = parser.parse_args()
    root = asked.output / "pairs"
    render(root)
    print("| bands |", " | ".join(NAMES), "|")
    print("| --- |" + " --- |" * len(NAMES))
    for name, bands in BANDS.items():
        scores = []
        for seed in asked.seeds:
            split = draw_split(root, asked.output / f"split-{seed}.json", labelled=asked.labelled, seed=seed)
            run = asked.output / f"{len(bands)}-{seed}"
            train_recipe(build_recipe(root, split, bands, seed=seed, steps=asked.steps), run, quiet=True)
            scores.append(score_classes(run))
        cells = (
            f"{np.mean(of_class):.3f} ± {statistics.stdev(of_class) if len(of_class) > 1 else 0:.3f}"
            for of_class in zip(*scores, strict=True)
        )
        print(f"| {name} |", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
