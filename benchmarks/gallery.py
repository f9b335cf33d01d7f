"""Draw the gallery of the documentation: where detection without labels is right on synthetic cities, and where not.

    python benchmarks/gallery.py -o docs/img

Two cities of seeds on which nothing was chosen are detected with the defaults. They are cut into crops of 256 px; of
those with at least 1 % of change in the truth the four with the highest and the four with the lowest IoU are drawn, so
that nobody picks the examples. Pictures of real pairs come from `benchmarks/real_pairs.py`; their licences do not
allow publishing them here.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

import semicdvl as cd
from classic import color_errors
from semicdvl.synthetic.config import CitySpec
from semicdvl.synthetic.generate import generate_city

SEEDS = (50, 51)
CROP_PX, GAP_PX, ROWS = 256, 4, 4
MIN_CHANGE_FRAC = 0.01


@dataclass(frozen=True)
class Crop:
    """Both dates, the truth and what was found in one square of a city."""

    name: str
    t1_HWC: np.ndarray
    t2_HWC: np.ndarray
    truth_HW: np.ndarray
    found_HW: np.ndarray

    @property
    def iou(self) -> float:
        """IoU of the changed class."""
        return float((self.truth_HW & self.found_HW).sum() / max((self.truth_HW | self.found_HW).sum(), 1))

    def draw(self) -> np.ndarray:
        """Return before, after, truth and the agreement side by side."""
        truth_HWC = np.repeat(np.where(self.truth_HW, 40, 245).astype(np.uint8)[..., None], 3, axis=2)
        cells = (self.t1_HWC, self.t2_HWC, truth_HWC, color_errors(self.found_HW, self.truth_HW))
        gap_HWC = np.full((CROP_PX, GAP_PX, 3), 255, np.uint8)
        return np.concatenate([part for cell in cells for part in (cell, gap_HWC)][:-1], axis=1)


def find_crops(seed: int) -> list[Crop]:
    """Detect the changes of one city and cut it into crops with enough change."""
    city = generate_city(CitySpec(seed=seed))
    config = cd.DetectionConfig(gsd_m=city.spec.gsd_m)
    found_HW = np.asarray(cd.detect(city.t1_HWC, city.t2_HWC, config=config).change) == 1
    truth_HW = np.asarray(city.change_HW) == 1
    crops = []
    for row in range(0, truth_HW.shape[0] - CROP_PX + 1, CROP_PX):
        for col in range(0, truth_HW.shape[1] - CROP_PX + 1, CROP_PX):
            at = slice(row, row + CROP_PX), slice(col, col + CROP_PX)
            if truth_HW[at].mean() >= MIN_CHANGE_FRAC:
                name = f"city {seed}, row {row}, column {col}"
                crops.append(Crop(name, city.t1_HWC[at], city.t2_HWC[at], truth_HW[at], found_HW[at]))
    return crops


def save_rows(crops: list[Crop], path: Path) -> None:
    """Write crops below each other, and print which they are."""
    gap_HWC = np.full((GAP_PX, 4 * CROP_PX + 3 * GAP_PX, 3), 255, np.uint8)
    rows = [part for crop in crops for part in (crop.draw(), gap_HWC)][:-1]
    Image.fromarray(np.concatenate(rows, axis=0)).save(path, quality=82)
    print(path, *(f"  {crop.name}: IoU {crop.iou:.2f}" for crop in crops), sep="\n", flush=True)


def main() -> None:
    """Read the options, detect, and draw the best and the worst crops."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, default=Path("docs/img"))
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    crops = sorted((crop for seed in SEEDS for crop in find_crops(seed)), key=lambda crop: -crop.iou)
    print(f"{len(crops)} crops, median IoU {np.median([crop.iou for crop in crops]):.2f}")
    save_rows(crops[:ROWS], out / "gallery-good.jpg")
    save_rows(crops[-ROWS:], out / "gallery-bad.jpg")


if __name__ == "__main__":
    main()
