"""Real building-change pairs for a benchmark: crops of FOTBCD (0.2 m, halved to 0.4 m) and LEVIR-CD (0.5 m).

The images are research-only and not part of this package; their folder is named in the suite. Sides are drawn by
source image: no crop of a training image is tested on. Per seed one LEVIR tile and a quarter of the French images are
the test, another quarter and two small LEVIR crops the validation. It is a handful of images: no number measured on
them says anything about the LEVIR-CD benchmark.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np

from semicdvl.atomic_files import write_atomically, write_json
from semicdvl.data.pairs import ChangeDataset, read_pair
from semicdvl.data.readers import folder
from semicdvl.data.splits import SplitNames
from semicdvl.errors import DataError, InputError

REAL_PAIR_SOURCES = {"fotbcd": 0.5, "fotbcd_instances": 0.5, "levir": 1.0, "levir_crops": 1.0}
"""Folder -> factor by which its images are resized."""
REAL_PAIRS_GSD_M = 0.45
"""Metres per pixel that the VLM is told: between the 0.4 and 0.5 of the sources."""
CUT_FILE = "cut.json"


def has_real_pairs(root: Path) -> bool:
    """Tell whether `root` holds every source."""
    return all((root / source / "A").is_dir() for source in REAL_PAIR_SOURCES)


def cut_real_pairs(root: Path, out: Path, *, crop_px: int) -> ChangeDataset:
    """Cut the sources into crops `<source>_<image>-<row>-<col>.png` below `out`, if not done, and read them."""
    if not (out / CUT_FILE).exists():
        for source, factor in REAL_PAIR_SOURCES.items():
            for pair in folder.read_folder(root / source).pairs:
                for path, side in ((pair.before, "A"), (pair.after, "B"), (pair.label, "label")):
                    assert path is not None, "the shared pairs all have labels"
                    _cut_image(path, out / side, name=f"{source}_{pair.name}", factor=factor, crop_px=crop_px)
        write_json(out / CUT_FILE, {"sources": REAL_PAIR_SOURCES, "crop_px": crop_px})
    return folder.read_folder(out)


def _cut_image(path: Path, out: Path, *, name: str, factor: float, crop_px: int) -> None:
    """Resize one image (a label by nearest pixel) and write its crops."""
    is_label = out.name == "label"
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE if is_label else cv2.IMREAD_COLOR)
    if image is None:
        raise InputError(path, "cannot be read as an image", "Repair or remove it")
    image = cv2.resize(
        image, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST if is_label else cv2.INTER_AREA
    )
    for row in range(0, image.shape[0] - crop_px + 1, crop_px):
        for col in range(0, image.shape[1] - crop_px + 1, crop_px):
            with write_atomically(out / f"{name}-{row}-{col}.png") as temporary:
                cv2.imwrite(str(temporary), image[row : row + crop_px, col : col + crop_px])


def draw_real_split(dataset: ChangeDataset, *, seed: int, labelled_frac: float) -> SplitNames:
    """Draw test, validation and training images by source, then the crops that keep their label.

    Crops that show change come first, so that a few labelled ones always show some; 5 % are among the 10 %.

    Raises:
        DataError: the fraction of the training crops is less than one.
    """
    rng = np.random.default_rng(seed)
    crops = defaultdict(list)
    for pair in dataset.pairs:
        crops[pair.name.rsplit("-", 2)[0]].append(pair.name)
    tiles = sorted(name for name in crops if name.startswith("levir_test"))
    french = [str(name) for name in rng.permutation(sorted(name for name in crops if name.startswith("fotbcd")))]
    small = [str(name) for name in rng.permutation(sorted(name for name in crops if name.startswith("levir_crops")))]
    quarter = len(french) // 4
    test = [tiles[seed % len(tiles)], *french[:quarter]]
    val = [*french[quarter : 2 * quarter], *small[:2]]
    pool = [crop for image in sorted(set(crops) - set(test) - set(val)) for crop in crops[image]]
    order = [str(name) for name in rng.permutation(pool)]
    order.sort(key=lambda name: not np.any(read_pair(dataset.pairs_by_name[name]).label_HW == 1))
    count = int(labelled_frac * len(pool) + 1e-9)
    if count == 0:
        raise DataError(f"{labelled_frac:g} of {len(pool)} training crops is no crop at all. Raise the fraction.")
    kept = set(order[:count])
    return SplitNames(
        tuple(order[:count]),
        tuple(crop for crop in pool if crop not in kept),
        tuple(crop for image in val for crop in crops[image]),
        tuple(crop for image in test for crop in crops[image]),
    )
