"""Draw the settlements that the embedded model trains on, onto UC Merced scenes without buildings; kept as files.

python tools/aerial_settlements.py --data ../shared/data --out scratch/aerial/settlements --count 600
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from aerial_clutter import draw_clutter
from aerial_data import Scenes, read_scenes
from aerial_roofs import Image, draw_buildings, draw_light, draw_slabs, draw_trees
from aerial_words import CONCEPT_NAMES, SCENE_NAMES, SCENES

BARE = tuple(SCENE_NAMES.index(name) for name, (words, _) in SCENES.items() if "building" not in words.split())
FOREST = SCENE_NAMES.index("forest")


def draw_scene(scenes: Scenes, seed: int) -> tuple[Image, NDArray[np.uint8]]:
    """Return the image and the label ids of one settlement: 154 m, or every third time 230 m."""
    rng = np.random.default_rng(seed)
    count = 9 if seed % 3 == 0 else 4
    first = int(rng.choice(BARE))
    ids = [first] * count if rng.random() < 0.5 else [first, *rng.choice(BARE, size=count - 1).tolist()]
    image, both = scenes.canvas(ids, rng)
    foliage, _ = scenes.canvas([FOREST] * count, rng)
    label = np.ascontiguousarray(both[..., 0])
    light, angle = draw_light(rng), rng.uniform(0, np.pi)
    label[draw_slabs(image, angle, rng) > 127] = CONCEPT_NAMES.index("road")
    draw_clutter(image, label, light, angle, rng, most=6)
    label[draw_buildings(image, light, angle, rng) > 127] = CONCEPT_NAMES.index("building")
    label[draw_trees(image, foliage, light, rng) > 127] = CONCEPT_NAMES.index("tree")
    if rng.random() < 0.5:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.0))  # drawn edges are sharper than real ones
    return image, label


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, default=Path("../shared/data"))
    p.add_argument("--out", type=Path, default=Path("scratch/aerial/settlements"))
    p.add_argument("--count", type=int, default=600)
    a = p.parse_args()
    cv2.setNumThreads(1)
    a.out.mkdir(parents=True, exist_ok=True)
    plain = read_scenes(a.data / "ucmerced")
    for number in range(a.count):
        drawn, ids = draw_scene(plain, number)
        fast = (cv2.IMWRITE_PNG_COMPRESSION, 1)
        cv2.imwrite(str(a.out / f"{number:04d}_image.png"), cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR), fast)
        cv2.imwrite(str(a.out / f"{number:04d}_labels.png"), ids, fast)
