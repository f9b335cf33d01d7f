"""Speed of change event generation against the public way, on the same made-up scenes, bit-exact.

    python benchmarks/ceg.py

The public way (re-written from its description): IoU matrix by pycocotools, every changed instance decoded and joined
by OR one by one; reliability by an argmax over the score maps with a constant gamma map appended, per date. Ours: for
delta = 0 an instance is changed when it misses the union of the other date, RLEs are merged and decoded once; concepts
by two maxima. Both give change, mixed and single-date labels; the script stops if they differ in a single pixel.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from semicdvl.pseudo import ceg

GAMMA, FOREGROUND = 0.8, (0, 1)
Labels = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]


@dataclass(frozen=True)
class Scene:
    """Scores of six prompts and instances as RLE, for two dates."""

    scores: tuple[NDArray[np.float32], NDArray[np.float32]]
    instances: tuple[list[dict], list[dict]]


def make_scene(rng: np.random.Generator, *, side_px: int, count: int) -> Scene:
    """Draw a scene: rotated boxes, most of which stand at both dates, on smooth score maps."""
    both = [_box(rng, side_px) for _ in range(count)]
    dates = []
    for _ in range(2):
        kept = [box for box in both if rng.random() < 0.8]
        new = [_box(rng, side_px) for _ in range(count - len(kept))]
        dates.append([_encode(box, side_px) for box in kept + new])
    coarse = rng.random((2, 6, 17, 17), dtype=np.float32) ** 0.3
    scores = tuple(np.stack([cv2.resize(m, (side_px, side_px)) for m in date]) for date in coarse)
    return Scene(scores, tuple(dates))


def _box(rng: np.random.Generator, side_px: int) -> NDArray[np.float32]:
    """Return the corners of a rotated box of 8 to 24 px."""
    centre, size, angle = rng.uniform(0, side_px, 2), rng.uniform(8, 24, 2), rng.uniform(0, 90)
    return cv2.boxPoints((tuple(centre), tuple(size), angle))


def _encode(corners: NDArray[np.float32], side_px: int) -> dict:
    """Return a box as RLE."""
    mask = np.zeros((side_px, side_px), np.uint8)
    cv2.fillPoly(mask, [corners.round().astype(np.int32)], 1)
    return rle.encode(np.asfortranarray(mask))


def public(scene: Scene) -> Labels:
    """Make the labels in the public way."""
    shape = scene.scores[0].shape[1:]
    change_HW = np.zeros(shape, np.uint8)
    first, second = scene.instances
    iou = rle.iou(second, first, [0] * len(first))
    for instances, totals in ((second, iou.sum(axis=1)), (first, iou.sum(axis=0))):
        for instance, total in zip(instances, totals, strict=True):
            if total <= 0:
                change_HW[rle.decode(instance) == 1] = 255
    classes = []
    for scores_CHW in scene.scores:
        gamma_1HW = np.full((1, *shape), GAMMA, np.float32)
        winner_HW = np.concatenate([scores_CHW, gamma_1HW]).argmax(axis=0)
        label_HW = np.zeros(shape, np.uint8)
        label_HW[winner_HW < 2] = 1
        label_HW[winner_HW == 6] = 255
        classes.append(label_HW)
    mixed_HW = ((classes[0] != classes[1]) & (change_HW == 255)).astype(np.uint8)
    mixed_HW[(classes[0] == 255) | (classes[1] == 255)] = 255
    return mixed_HW, classes[0], classes[1]


def ours(scene: Scene) -> Labels:
    """Make the labels with this package."""
    first, second = scene.scores
    instance_HW = ceg.instance_level(*scene.instances, shape_hw=first.shape[1:])
    return ceg.labels_of(first, second, instance_HW, foreground=FOREGROUND, gamma=GAMMA, gamma_segmentation=GAMMA)


def pairs_per_second(make: Callable[[Scene], Labels], scenes: list[Scene], *, least_s: float) -> float:
    """Return the best rate of three rounds of at least `least_s` seconds."""
    rates = []
    for _ in range(3):
        began, done = time.perf_counter(), 0
        while time.perf_counter() - began < least_s:
            for scene in scenes:
                make(scene)
            done += len(scenes)
        rates.append(done / (time.perf_counter() - began))
    return max(rates)


def main() -> None:
    """Check that both ways agree, time them, print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="per measurement")
    parser.add_argument("--large", action="store_true", help="also 4096 px with 3,400 instances")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    print(f"{'side':>6} {'instances':>9} {'public/s':>9} {'ours/s':>9} {'ratio':>6}")
    cases = [(256, 5, 20), (256, 20, 20), (256, 60, 20)] + ([(4096, 3400, 1)] if options.large else [])
    for side_px, count, scenes_count in cases:
        scenes = [make_scene(rng, side_px=side_px, count=count) for _ in range(scenes_count)]
        for scene in scenes:
            if not all(np.array_equal(a, b) for a, b in zip(public(scene), ours(scene), strict=True)):
                raise SystemExit("the two ways differ")
        slow, fast = (pairs_per_second(make, scenes, least_s=options.seconds) for make in (public, ours))
        print(f"{side_px:6d} {count:9d} {slow:9.1f} {fast:9.1f} {fast / slow:6.1f}", flush=True)


if __name__ == "__main__":
    main()
