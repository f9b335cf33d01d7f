"""How often is the class right that the embedded VLM names before or after a change? Measured on synthetic cities.

    python benchmarks/class_reliability.py --seeds 0        # the score from which a class is named is chosen on these
    python benchmarks/class_reliability.py --seeds 1,2      # and shown on these

Every truly changed building of at least 20 m2 is one object, with its true class at either date (that of at least 60 %
of its pixels), so that only the naming is measured and not the detection. Printed is, for the classes that are searched
for and for the others, how many are named from a score on, and how many of these are right.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from semicdvl.ceg.prompts import PROMPT_SETS
from semicdvl.raster.connected_components import find_objects
from semicdvl.raster.vector.object_stats import count_classes, pick_majority_classes, score_classes
from semicdvl.synthetic.config import CitySpec
from semicdvl.synthetic.generate import generate_city
from semicdvl.synthetic.materials import LAND_COVER_CLASSES
from semicdvl.vlms import create_vlm

MEANINGS = {
    "building": ("house", "building"), "road": ("road",), "pavement": ("road",), "grass": ("grass",), "tree": ("tree",),
    "water": ("water",), "field": ("grass",), "soil": (), "car": (),
}  # fmt: skip
"""True class -> the words that are right for it; no word of the prompt set is right for bare soil."""
LEAST_AREA_M2, LEAST_SHARE = 20.0, 0.6
THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9)


@dataclass(frozen=True)
class NamedSide:
    """One changed object at one date: is the word one that is searched for, its support, and whether it is right."""

    searched: bool
    score: float
    right: bool


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0", help="cities, such as 1,2")
    parser.add_argument("--size", default="1536,2048", help="height and width in pixels")
    arguments = parser.parse_args()
    size_px = tuple(map(int, arguments.size.split(",")))
    sides = [side for seed in arguments.seeds.split(",") for side in name_changes(int(seed), size_px=size_px)]
    for searched, title in ((True, "words that are searched for"), (False, "other words")):
        ours = [side for side in sides if side.searched == searched]
        print(f"{title}: {len(ours)}")
        for least in THRESHOLDS:
            named = [side for side in ours if side.score >= least]
            share = sum(side.right for side in named) / max(len(named), 1)
            print(f"  from a score of {least:4.2f} on: {len(named):4d} named, {share:.0%} of them right")


def name_changes(seed: int, *, size_px: tuple[int, ...]) -> Iterator[NamedSide]:
    """Yield what the VLM names the changed objects of one city, at both dates."""
    city = generate_city(CitySpec(size_px=(size_px[0], size_px[1]), seed=seed))
    prompts, vlm = PROMPT_SETS["buildings"], create_vlm("aerial")
    found = find_objects(city.change_HW, min_area_px=round(LEAST_AREA_M2 / city.spec.gsd_m**2))
    inside_HW = found.labels_HW > 0
    labels_N, objects = found.labels_HW[inside_HW], len(found) + 1
    for image_HWC, truth_HW in ((city.t1_HWC, city.classes_t1_HW), (city.t2_HWC, city.classes_t2_HW)):
        scores_CN = vlm.segment(image_HWC, prompts.words, gsd_m=city.spec.gsd_m).scores_CHW[:, inside_HW]
        best_N = scores_CN.argmax(axis=0).astype(np.uint8)
        counted = {"count": objects, "classes": len(prompts.words)}
        class_px_NK = count_classes(labels_N, best_N, **counted)[1:]
        score_NK = count_classes(labels_N, best_N, **counted, weights_N=scores_CN.max(axis=0))[1:]
        named = pick_majority_classes(class_px_NK, prompts.foreground)
        support_N = score_classes(named, score_NK, found.area_px[1:], prompts.foreground)
        true_px_NK = count_classes(labels_N, truth_HW[inside_HW], count=objects, classes=len(LAND_COVER_CLASSES))[1:]
        for one, support, true_px_K in zip(named, support_N, true_px_NK, strict=True):
            if one is not None and true_px_K.max() >= LEAST_SHARE * true_px_K.sum():
                words = MEANINGS[LAND_COVER_CLASSES[int(true_px_K.argmax())]]
                yield NamedSide(one in prompts.foreground, float(support), prompts.words[one] in words)


if __name__ == "__main__":
    main()
