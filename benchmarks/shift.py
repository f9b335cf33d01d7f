"""Evaluate the measured shift: on real pairs, on unrelated images, and on pairs shifted by a known amount.

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

from semicdvl.raster.io.open_pair import open_pair
from semicdvl.raster.registration.estimate import measure_shift
from semicdvl.raster.registration.shift import Shift

FOLDERS = ("levir", "fotbcd", "oscd", "xbd", "dsifn", "sztaki")
"""Folders of pairs, with their images in A and B."""
ONE_PLACE = ("sztaki",)
"""Folders whose pairs overlap one another, so images of different pairs are related."""
MAX_PAIRS = 6
MAX_UNRELATED = 4
KNOWN_SHIFTS_PX = ((3, -2), (17, 9), (-40, 25))


def measure_files(before: Path, after: Path) -> Shift:
    """Measure the shift between two files."""
    with open_pair(before, after) as pair:
        return measure_shift(pair)


def list_pairs(folder: Path) -> list[tuple[Path, Path]]:
    """Return the first few pairs of a folder."""
    before, after = (sorted((folder / date).iterdir())[:MAX_PAIRS] for date in "AB")
    return list(zip(before, after, strict=True))


def crop_shifted(before: Path, after: Path, shift_px: tuple[int, int], folder: Path) -> tuple[Path, Path]:
    """Crop both images so that the after image is shifted by (row, col) pixels more; return the cropped files."""
    margin = max(abs(value) for value in shift_px)
    images = [cv2.imread(str(path)) for path in (before, after)]
    height, width = images[0].shape[:2]
    paths = folder / "before.png", folder / "after.png"
    for path, image, (row, col) in zip(paths, images, ((0, 0), shift_px), strict=True):
        top, left = margin - row, margin - col
        cv2.imwrite(str(path), image[top : top + height - 2 * margin, left : left + width - 2 * margin])
    return paths


def measure_unrelated(pairs: list[tuple[Path, Path]]) -> list[Shift]:
    """Measure images of one size that show different places."""
    shifts = []
    for (before, _), (_, after) in product(pairs[:MAX_UNRELATED], pairs[:MAX_UNRELATED]):
        sizes = {cv2.imread(str(path)).shape for path in (before, after)}
        if before.stem != after.stem and len(sizes) == 1:
            shifts.append(measure_files(before, after))
    return shifts


def measure_errors_px(pair: tuple[Path, Path], shift: Shift) -> list[float]:
    """Return by how much each known shift is missed, in pixels; NaN where it is not known."""
    errors = []
    with tempfile.TemporaryDirectory() as folder:
        for row_px, col_px in KNOWN_SHIFTS_PX:
            shifted = measure_files(*crop_shifted(*pair, (row_px, col_px), Path(folder)))
            error_px = np.hypot(shifted.row_px - shift.row_px - row_px, shifted.col_px - shift.col_px - col_px)
            errors.append(float(error_px) if shifted.is_known else np.nan)
    return errors


def print_pairs(shifts_of: dict[str, list[Shift]]) -> None:
    """Print a table of the real pairs."""
    print("real pairs           known  shift px (median)  windows that agree  peak in sigmas (least)")
    for name, shifts in shifts_of.items():
        known = [shift for shift in shifts if shift.is_known]
        length, agree = "-", "-"
        if known:
            length = f"{np.median([shift.length_px for shift in known]):.2f}"
            agree = f"{np.median([shift.agree_frac for shift in known]):.0%}"
        least = min(shift.sigmas for shift in shifts)
        print(f"{name:20s} {len(known)}/{len(shifts)}    {length:>17s}  {agree:>18s}  {least:22.1f}")


def main() -> None:
    """Print what was measured on real, unrelated and shifted pairs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of the folders of pairs")
    data = parser.parse_args().data
    warnings.simplefilter("ignore", NotGeoreferencedWarning)
    shifts_of: dict[str, list[Shift]] = {}
    unrelated: list[Shift] = []
    errors: list[float] = []
    for name in FOLDERS:
        pairs = list_pairs(data / name)
        shifts_of[name] = [measure_files(*pair) for pair in pairs]
        unrelated += [] if name in ONE_PLACE else measure_unrelated(pairs)
        for pair, shift in zip(pairs, shifts_of[name], strict=True):
            errors += measure_errors_px(pair, shift) if shift.is_known else []
    print_pairs(shifts_of)
    greatest = max(shift.sigmas for shift in unrelated)
    known = sum(shift.is_known for shift in unrelated)
    print(f"unrelated images: {known} of {len(unrelated)} called known, peak of at most {greatest:.1f} sigmas")
    found = [error for error in errors if np.isfinite(error)]
    print(
        f"known shifts: {len(errors)} cases, {len(errors) - len(found)} not known, error median "
        f"{np.median(found):.2f} px, 90 % below {np.percentile(found, 90):.2f} px, greatest {max(found):.2f} px"
    )


if __name__ == "__main__":
    main()
