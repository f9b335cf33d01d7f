"""Speed of change event generation against the public code, on the same synthetic scenes, bit-exact.

    python benchmarks/ceg.py             in memory, and with files
    python benchmarks/ceg.py --large     also 4096 px with 3,400 instances a date (minutes, for the public code)

The public code (re-written from its description): IoU matrix by pycocotools, every changed instance decoded and joined
by OR one by one; reliability by an argmax over the score maps with a constant gamma map appended, per date. Ours: the
RLEs of changed instances are merged and decoded once; concepts by maxima, labels by bits. Both give the mixed label and
the labels of both dates; the script stops if they differ in a single pixel.

With files, both read the same: scores as .npy, instances as COCO JSON. The public code has one script per step: the
first writes the instance label, the second reads it again and writes the mixed one, the third reads the scores again
and writes the labels of both dates. Ours reads once and writes one image with the three labels, as the store does.

Rates are pairs per second of processor time, so that other work on the machine counts less.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from semicdvl.atomic_files import write_bytes_atomically
from semicdvl.ceg import rules
from semicdvl.ceg.instances import rule as instance_rule
from semicdvl.pseudo_labels.label_png import encode_labels, read_label_png
from semicdvl.types import VLMLabels

GAMMA, FOREGROUND = 0.8, (0, 1)
ROUNDS = 15
S = TypeVar("S")
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
    """Return a box as RLE, from the strip of columns that it covers: the whole image would take long at 4096 px."""
    points = corners.round().astype(np.int32)
    left = int(np.clip(points[:, 0].min(), 0, side_px - 1))
    right = int(np.clip(points[:, 0].max() + 1, left + 1, side_px))
    strip = np.zeros((side_px, right - left), np.uint8)
    cv2.fillPoly(strip, [points - np.array([left, 0], np.int32)], 1)
    flat = np.concatenate([[0], strip.ravel(order="F"), [0]])
    edges = np.flatnonzero(np.diff(flat)) + left * side_px
    ends = edges if edges.size and edges[-1] == side_px**2 else [*edges, side_px**2]
    runs = np.diff([0, *ends]).tolist()
    return rle.frPyObjects({"size": [side_px, side_px], "counts": runs}, side_px, side_px)


def make_labels_as_published(scene: Scene) -> Labels:
    """Make the labels as the public code does."""
    change_HW = public_instances(*scene.instances, shape=scene.scores[0].shape[1:])
    classes = [public_classes(scores_CHW) for scores_CHW in scene.scores]
    return public_mixed(classes, change_HW), classes[0], classes[1]


def public_instances(first: list[dict], second: list[dict], *, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Decode the changed instances one by one."""
    change_HW = np.zeros(shape, np.uint8)
    iou = rle.iou(second, first, [0] * len(first))
    for instances, totals in ((second, iou.sum(axis=1)), (first, iou.sum(axis=0))):
        for instance, total in zip(instances, totals, strict=True):
            if total <= 0:
                change_HW[rle.decode(instance) == 1] = 255
    return change_HW


def public_classes(scores_CHW: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Take the winner of the maps and a constant one."""
    gamma_1HW = np.full((1, *scores_CHW.shape[1:]), GAMMA, np.float32)
    winner_HW = np.concatenate([scores_CHW, gamma_1HW]).argmax(axis=0)
    label_HW = np.zeros(winner_HW.shape, np.uint8)
    label_HW[winner_HW < 2] = 1
    label_HW[winner_HW == 6] = 255
    return label_HW


def public_mixed(classes: list[NDArray[np.uint8]], change_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Join both levels."""
    mixed_HW = ((classes[0] != classes[1]) & (change_HW == 255)).astype(np.uint8)
    mixed_HW[(classes[0] == 255) | (classes[1] == 255)] = 255
    return mixed_HW


def make_labels(scene: Scene) -> Labels:
    """Make the labels with this package."""
    first, second = scene.scores
    instance_HW = instance_rule.instance_level(*scene.instances, shape_hw=first.shape[1:])
    return rules.make_mixed_labels(
        first, second, instance_HW, foreground=FOREGROUND, gamma=GAMMA, gamma_segmentation=GAMMA
    )


# ------------------------------------------------------------------------------------------------ with files
@dataclass(frozen=True)
class SceneFiles:
    """The same scene on disk: A.npy, B.npy, A.json, B.json; labels go to the same folder."""

    folder: Path


def write_scene(scene: Scene, folder: Path) -> SceneFiles:
    """Write a scene as the public scripts expect it."""
    folder.mkdir()
    for date, scores_CHW, instances in zip("AB", scene.scores, scene.instances, strict=True):
        np.save(folder / f"{date}.npy", scores_CHW)
        found = [
            {"category_id": 0, "score": 0.9, "segmentation": {**each, "counts": each["counts"].decode()}}
            for each in instances
        ]
        (folder / f"{date}.json").write_text(json.dumps(found))
    return SceneFiles(folder)


def _instances(files: SceneFiles) -> list[list[dict]]:
    """Read the instances of both dates."""
    dates = (json.loads((files.folder / f"{date}.json").read_text()) for date in "AB")
    return [[each["segmentation"] for each in date] for date in dates]


def public_with_files(files: SceneFiles) -> None:
    """Run the three steps, each with files of its own."""
    folder = files.folder
    instances = _instances(files)
    shape = tuple(instances[0][0]["size"])
    cv2.imwrite(str(folder / "instance.png"), public_instances(*instances, shape=shape))

    scores = [np.load(folder / f"{date}.npy") for date in "AB"]
    change_HW = cv2.imread(str(folder / "instance.png"), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(folder / "mixed.png"), public_mixed([public_classes(each) for each in scores], change_HW))

    for date in "AB":
        cv2.imwrite(str(folder / f"seg_{date}.png"), public_classes(np.load(folder / f"{date}.npy")))


def _scores(path: Path, into_CHW: NDArray[np.float32]) -> NDArray[np.float32]:
    """Read a .npy file into memory that is there already: new memory for every file takes longer than reading."""
    with path.open("rb", buffering=0) as handle:
        np.lib.format.read_magic(handle)
        shape, _, dtype = np.lib.format.read_array_header_1_0(handle)
        if (shape, dtype) != (into_CHW.shape, into_CHW.dtype) or handle.readinto(into_CHW) != into_CHW.nbytes:  # type: ignore[arg-type]
            raise SystemExit(f"{path}: {shape} {dtype}, wanted {into_CHW.shape} {into_CHW.dtype}")
    return into_CHW


ROOM_2CHW = np.empty((2, 6, 256, 256), np.float32)
"""Where the scores of both dates are read to."""


def ours_with_files(files: SceneFiles) -> None:
    """Read once, write one picture, whole."""
    first, second = (_scores(files.folder / f"{date}.npy", room) for date, room in zip("AB", ROOM_2CHW, strict=True))
    instance_HW = instance_rule.instance_level(*_instances(files), shape_hw=first.shape[1:])
    labels = rules.make_mixed_labels(
        first, second, instance_HW, foreground=FOREGROUND, gamma=GAMMA, gamma_segmentation=GAMMA
    )
    write_bytes_atomically(files.folder / "labels.png", encode_labels(VLMLabels(*labels)))


def read_public(files: SceneFiles) -> Labels:
    """Read what `public_with_files` wrote."""
    mixed, t1, t2 = (
        cv2.imread(str(files.folder / f"{name}.png"), cv2.IMREAD_GRAYSCALE) for name in ("mixed", "seg_A", "seg_B")
    )
    return mixed, t1, t2


def read_ours(files: SceneFiles) -> Labels:
    """Read what `ours_with_files` wrote."""
    labels = read_label_png(files.folder / "labels.png")
    assert labels is not None
    return labels.change_HW, labels.t1_HW, labels.t2_HW


# ------------------------------------------------------------------------------------------------ timing
def pairs_per_second(make: Callable[[S], object], scenes: list[S], *, least_s: float) -> float:
    """Return the rate over at least `least_s` seconds."""
    began, done = time.process_time(), 0
    while time.process_time() - began < least_s:
        for scene in scenes:
            make(scene)
        done += len(scenes)
    return done / (time.process_time() - began)


def require_equal(slow: Labels, fast: Labels) -> None:
    """Stop if a single pixel differs."""
    if not all(np.array_equal(a, b) for a, b in zip(slow, fast, strict=True)):
        raise SystemExit("the two ways differ")


def compare_rates(
    what: str, slow: Callable[[S], object], fast: Callable[[S], object], scenes: list[S], *, least_s: float, goal: float
) -> None:
    """Print the best rates of both ways and their ratio; rounds alternate, so that other work disturbs both alike."""
    rounds = [
        [pairs_per_second(make, scenes, least_s=least_s / ROUNDS) for make in (slow, fast)] for _ in range(ROUNDS)
    ]
    print_row(what, max(rates[0] for rates in rounds), max(rates[1] for rates in rounds), goal=goal)


def print_row(what: str, slow: float, fast: float, *, goal: float) -> None:
    """Print a line of the table."""
    print(f"{what:28} {slow:9.3g} {fast:9.4g} {fast / slow:7.1f} {goal:5g}", flush=True)


def large_scene(rng: np.random.Generator, *, least_s: float) -> None:
    """Time 4096 px; the public code once only, since it takes minutes."""
    scene = make_scene(rng, side_px=4096, count=3400)
    began = time.process_time()
    labels = make_labels_as_published(scene)
    slow = 1 / (time.process_time() - began)
    require_equal(labels, make_labels(scene))
    print_row("4096 px, 3400 instances", slow, pairs_per_second(make_labels, [scene], least_s=least_s), goal=100)


def main() -> None:
    """Check that both ways agree, time them, print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="per measurement")
    parser.add_argument("--large", action="store_true", help="also 4096 px with 3,400 instances")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    print(f"{'pairs/s':28} {'public':>9} {'ours':>9} {'ratio':>7} {'goal':>5}")
    with tempfile.TemporaryDirectory() as folder:
        for count, goal in ((5, 8), (20, 8), (60, 5)):
            scenes = [make_scene(rng, side_px=256, count=count) for _ in range(20)]
            files = [write_scene(scene, Path(folder) / f"{count}-{at}") for at, scene in enumerate(scenes)]
            name = f"256 px, {count} instances"
            for scene in scenes:
                require_equal(make_labels_as_published(scene), make_labels(scene))
            compare_rates(name, make_labels_as_published, make_labels, scenes, least_s=options.seconds, goal=goal)
            compare_rates(f"{name}, files", public_with_files, ours_with_files, files, least_s=options.seconds, goal=4)
            for each in files:
                require_equal(read_public(each), read_ours(each))
        if options.large:
            large_scene(rng, least_s=options.seconds)


if __name__ == "__main__":
    main()
