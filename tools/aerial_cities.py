"""Render the synthetic cities that the embedded model trains on: images with exact class maps, kept as files.

    python tools/aerial_cities.py --out scratch/aerial/cities --count 80

Every city has its own ground sampling, sun, haze, season and sensor; view angle and shift are off, so that roofs lie on
their footprints. The seeds start far above those of the demonstrations, tests and tables.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from semicdvl.synthetic.config import CitySpec
from semicdvl.synthetic.generate import generate_city

FIRST_SEED = 910_000
SIZE_PX = 512


def draw_spec(seed: int) -> CitySpec:
    """Return the settings of one city: 0.35 to 0.8 m, any weather."""
    rng = np.random.default_rng(seed)
    return CitySpec(
        size_px=SIZE_PX,
        seed=seed,
        gsd_m=float(np.exp(rng.uniform(np.log(0.35), np.log(0.8)))),
        season=float(rng.uniform(0, 1)),
        sun_deg=float(rng.uniform(20, 80)),
        haze=float(rng.uniform(0, 0.4)),
        white_balance=float(rng.uniform(0.02, 0.1)),
        noise_dn=float(rng.uniform(0, 5)),
        blur_px=float(rng.uniform(0, 0.7)),
        parallax=0.02,
        shift_px=0.0,
        change_frac=0.1,
        reroof=0.3,
        repaint=0.5,
    )


def render_city(seed: int, out: Path) -> None:
    """Write both dates of a city, image and classes beside each other; skip it where it is there."""
    last = out / f"{seed}_2_classes.png"
    if last.exists():
        return
    city = generate_city(draw_spec(seed))
    for date, image, classes in ((1, city.t1_HWC, city.classes_t1_HW), (2, city.t2_HWC, city.classes_t2_HW)):
        cv2.imwrite(str(out / f"{seed}_{date}_image.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        cv2.imwrite(str(out / f"{seed}_{date}_classes.png"), classes)


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, default=Path("scratch/aerial/cities"))
    p.add_argument("--count", type=int, default=80)
    a = p.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    for number in range(a.count):
        render_city(FIRST_SEED + number, a.out)
