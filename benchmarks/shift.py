"""What the measured shift says on real pairs, on pairs that don't belong together, and on pairs that were moved.

python benchmarks/shift.py ../shared/data
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from itertools import product
from pathlib import Path

import cv2
import numpy as np
from rasterio.errors import NotGeoreferencedWarning

from semicdvl.raster.io.pair_reader import open_pair
from semicdvl.raster.registration.estimate import measure_shift
from semicdvl.raster.registration.shift import Shift

FOLDERS = ("levir", "fotbcd", "oscd", "xbd", "dsifn", "sztaki")
MOST = 6
MOVES = ((3, -2), (17, 9), (-40, 25))


def shift_of(before: Path, after: Path) -> Shift:
    """Measure one pair of files."""
    with open_pair(before, after) as pair:
        return measure_shift(pair)


def pairs_of(folder: Path) -> list[tuple[Path, Path]]:
    """Return the first few pairs of a folder of A and B."""
    sides = [sorted((folder / side).iterdir())[:MOST] for side in "AB"]
    return list(zip(*sides, strict=True))


def moved(before: Path, after: Path, by: tuple[int, int], scratch: Path) -> tuple[Path, Path]:
    """Cut both images so that the after image lies `by` (row, col) pixels further on."""
    margin = max(abs(value) for value in by)
    images = [cv2.imread(str(path)) for path in (before, after)]
    height, width = images[0].shape[:2]
    paths = scratch / "before.png", scratch / "after.png"
    for path, image, (row, col) in zip(paths, images, ((0, 0), by), strict=True):
        top, left = margin - row, margin - col
        cv2.imwrite(str(path), image[top : top + height - 2 * margin, left : left + width - 2 * margin])
    return paths


def main() -> None:
    """Print the three tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data
    warnings.simplefilter("ignore", NotGeoreferencedWarning)
    true, apart, errors = {}, [], []
    for name in FOLDERS:
        pairs = pairs_of(data / name)
        true[name] = [shift_of(*pair) for pair in pairs]
        for (before, _), (_, after) in product(pairs[:4], pairs[:4]):
            sizes = {cv2.imread(str(path)).shape for path in (before, after)}
            if before.stem != after.stem and len(sizes) == 1 and name != "sztaki":  # those show one town
                apart.append(shift_of(before, after))
        with tempfile.TemporaryDirectory() as scratch:
            for pair, was in zip(pairs, true[name], strict=True):
                for by in MOVES if was.is_known else ():
                    now = shift_of(*moved(*pair, by, Path(scratch)))
                    off = np.hypot(now.row_px - was.row_px - by[0], now.col_px - was.col_px - by[1])
                    errors.append(float(off) if now.is_known else np.nan)
    print("true pairs           known  shift px (median)  windows that agree  stands out (least)")
    for name, shifts in true.items():
        known = [shift for shift in shifts if shift.is_known]
        length, agree = "-", "-"
        if known:
            length = f"{np.median([shift.length_px for shift in known]):.2f}"
            agree = f"{np.median([shift.agree_frac for shift in known]):.0%}"
        least = min(shift.sigmas for shift in shifts)
        print(f"{name:20s} {len(known)}/{len(shifts)}    {length:>17s}  {agree:>18s}  {least:18.1f}")
    most = max(shift.sigmas for shift in apart)
    print(
        f"unrelated: {sum(s.is_known for s in apart)} of {len(apart)} called known; they stand out {most:.1f} at most"
    )
    found = [error for error in errors if np.isfinite(error)]
    lost = len(errors) - len(found)
    print(f"moved by a known amount: {len(errors)} cases, {lost} not known, error median {np.median(found):.2f} px, "
          f"90 % below {np.percentile(found, 90):.2f} px, greatest {max(found):.2f} px")  # fmt: skip


if __name__ == "__main__":
    main()
