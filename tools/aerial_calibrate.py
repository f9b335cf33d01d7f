"""Choose the bias of the embedded model's scores: where "is a building" at a score of 0.5 fits held-out places best.

    python tools/aerial_calibrate.py scratch/aerial/aerial.safetensors --data ../shared/data

Prints the building IoU at a score of 0.5 for a range of biases of the log odds, and the negative log likelihood per
pixel, for the held-out Dubai tiles, the second half of Banepa (OpenStreetMap's footprints), our held-out outlines.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from aerial_data import BANEPA_GSD_M, HELD_OUT_TILES, SCENE_GSD_M, Image, is_own_held_out, read_dubai, read_rgb
from aerial_words import COARSE_NAMES, FIRST_COARSE, UNLABELLED
from semicdvl.vlms.aerial.build import build_aerial

Sample = tuple[Image, NDArray[np.bool_], NDArray[np.bool_], float]
DUBAI_GSD_M = 0.8
BIASES = np.arange(-1.0, 2.01, 0.25)


def list_dubai(data: Path) -> Iterator[Sample]:
    """Yield image, building mask, known pixels and metres per pixel of every second held-out Dubai image."""
    dubai = read_dubai(data / "dubai")
    building = FIRST_COARSE + COARSE_NAMES.index("building")
    chosen = [i for i, tile in enumerate(dubai.tiles) if tile in HELD_OUT_TILES][::2]
    for i in chosen:
        yield dubai.images[i], dubai.labels[i] == building, dubai.labels[i] != UNLABELLED, DUBAI_GSD_M


def list_banepa(data: Path) -> Iterator[Sample]:
    """Yield the held-out tiles of Banepa."""
    for path in sorted((data / "banepa" / "image").glob("*.jpg")):
        if is_own_held_out(path.stem):
            truth = cv2.imread(str(data / "banepa" / "buildings" / f"{path.stem}.png"), cv2.IMREAD_GRAYSCALE) > 127
            yield read_rgb(path), truth, np.ones_like(truth), BANEPA_GSD_M


def list_own(data: Path, labels: Path) -> Iterator[Sample]:
    """Yield the held-out outlines of our own."""
    for path in sorted((labels / "ucmerced").glob("*.png")):
        if is_own_held_out(path.stem):
            classes = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            image = read_rgb(data / "ucmerced" / path.stem.rstrip("0123456789") / f"{path.stem}.jpg")
            yield cv2.resize(image, classes.shape[::-1]), classes == 1, classes != UNLABELLED, SCENE_GSD_M


def measure(odds_N: NDArray[np.float32], truth_N: NDArray[np.bool_], bias: float) -> tuple[float, float]:
    """Return IoU at a score of 0.5 and the mean negative log likelihood, with `bias` added to the log odds."""
    found_N = odds_N + bias >= 0
    iou = (found_N & truth_N).sum() / max((found_N | truth_N).sum(), 1)
    loss = np.logaddexp(0, np.where(truth_N, -1, 1) * (odds_N + bias)).mean()
    return float(iou), float(loss)


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("weights", type=Path, help="a published weights file; its own bias is the zero of the table")
    p.add_argument("--data", type=Path, default=Path("../shared/data"))
    p.add_argument("--labels", type=Path, default=Path("data_sets/aerial_labels/labels"))
    p.add_argument("--views", type=int, default=4)
    a = p.parse_args()
    torch.set_num_threads(1)
    vlm = build_aerial(weights=a.weights, views=a.views)
    table = {}
    for name, samples in (
        ("dubai", list_dubai(a.data)),
        ("banepa", list_banepa(a.data)),
        ("own", list_own(a.data, a.labels)),
    ):
        odds, truths = [], []
        for image, truth, known, gsd_m in samples:
            scores = (
                vlm.segment(image, ("house", "building"), gsd_m=gsd_m).scores_CHW.max(0)[known].clip(1e-4, 1 - 1e-4)
            )
            odds.append(np.log(scores / (1 - scores)))
            truths.append(truth[known])
        table[name] = [measure(np.concatenate(odds), np.concatenate(truths), bias) for bias in BIASES]
        print(
            name,
            *(f"{b:+.2f}: {iou:.3f} ({nll:.3f})" for b, (iou, nll) in zip(BIASES, table[name], strict=True)),
            flush=True,
        )
    mean = np.mean([[iou for iou, _ in row] for row in table.values()], axis=0)
    print("mean", *(f"{b:+.2f}: {value:.3f}" for b, value in zip(BIASES, mean, strict=True)))
