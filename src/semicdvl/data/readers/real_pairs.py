"""Real building change: crops of FOTBCD (0.2 m, halved to 0.4 m) and LEVIR-CD (0.5 m), as a benchmark uses them.

The images are for research only and not part of this package. A split is drawn by source image: no crop of a training
image is tested on. Per seed one LEVIR tile and a quarter of the French images are the test, another quarter and two
small LEVIR crops the validation. It is a handful of images: no number measured on them says anything about the LEVIR-CD
benchmark.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np

from semicdvl.atomic_files import write_atomically, write_json
from semicdvl.data.change_dataset import ChangeDataset
from semicdvl.data.pairs import read_pair
from semicdvl.data.readers.folder import read_folder
from semicdvl.data.splits import SplitNames
from semicdvl.errors import DataError, InputError

REAL_PAIR_SOURCES = {"fotbcd": 0.5, "fotbcd_instances": 0.5, "levir": 1.0, "levir_crops": 1.0}
"""Folder of a source -> factor by which its images are resized."""
REAL_PAIRS_GSD_M = 0.45
"""Ground sampling distance that a VLM is given, in metres per pixel: between the 0.4 and 0.5 of the sources."""
CUT_FILE = "cut.json"
"""Written last into the folder of the crops: where it lies, they are complete."""


def has_real_pairs(root: Path) -> bool:
    """Tell whether `root` holds every source."""
    return all((root / source / "A").is_dir() for source in REAL_PAIR_SOURCES)


def read_real_pairs(root: Path, *, crops: Path, crop_px: int = 256) -> ChangeDataset:
    """Read the sources as crops `<source>_<image>-<row>-<col>`, which are written once.

    Args:
        root: folder with fotbcd/, fotbcd_instances/, levir/ and levir_crops/, each with A/ B/ label/.
        crops: folder for the crops; complete crops in it are not cut again.
        crop_px: side of a crop, after the images were resized.

    Raises:
        InputError: an image or a source is missing or cannot be read.
        OutputError: `crops` cannot be written.
    """
    if not (crops / CUT_FILE).exists():
        _cut_sources(Path(root), crops, crop_px=crop_px)
    dataset = read_folder(crops)
    return ChangeDataset(
        dataset.name, dataset.pairs, dataset.subsets, {pair.name: _find_image(pair.name) for pair in dataset.pairs}
    )


def _cut_sources(root: Path, crops: Path, *, crop_px: int) -> None:
    """Write the crops of all sources."""
    for source, factor in REAL_PAIR_SOURCES.items():
        for pair in read_folder(root / source).pairs:
            for path, folder in ((pair.before, "A"), (pair.after, "B"), (pair.label, "label")):
                if path is None:
                    raise InputError(pair.before, "has no label", "Add its file to the folder `label`")
                _cut_image(path, crops / folder, name=f"{source}_{pair.name}", factor=factor, crop_px=crop_px)
    write_json(crops / CUT_FILE, {"sources": REAL_PAIR_SOURCES, "crop_px": crop_px})


def _cut_image(path: Path, out: Path, *, name: str, factor: float, crop_px: int) -> None:
    """Resize one image (a label by nearest pixel) and write its crops."""
    is_label = out.name == "label"
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE if is_label else cv2.IMREAD_COLOR)
    if image is None:
        raise InputError(path, "cannot be read as an image", "Repair or remove it")
    interpolation = cv2.INTER_NEAREST if is_label else cv2.INTER_AREA
    image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=interpolation)
    for row in range(0, image.shape[0] - crop_px + 1, crop_px):
        for col in range(0, image.shape[1] - crop_px + 1, crop_px):
            with write_atomically(out / f"{name}-{row}-{col}.png") as temporary:
                cv2.imwrite(str(temporary), image[row : row + crop_px, col : col + crop_px])


def _find_image(crop: str) -> str:
    """Return the name of the image that a crop was cut from."""
    return crop.rsplit("-", 2)[0]


def draw_real_split(dataset: ChangeDataset, *, seed: int, labelled_frac: float) -> SplitNames:
    """Draw test, validation and training images by source, then the crops that keep their label.

    Crops that show change come first, so that a few labelled ones always show some; the labelled crops of 5 % are among
    those of 10 %.

    Args:
        dataset: what `read_real_pairs` returned.
        seed: of the draw.
        labelled_frac: share of the training crops that keep their label.

    Raises:
        DataError: the share of the training crops is less than one crop.
    """
    rng = np.random.default_rng(seed)
    crops = defaultdict(list)
    for pair in dataset.pairs:
        crops[dataset.source_tiles[pair.name]].append(pair.name)
    val, test = _draw_held_out(list(crops), seed=seed, rng=rng)
    pool = [crop for image in sorted(set(crops) - set(test) - set(val)) for crop in crops[image]]
    order = [str(name) for name in rng.permutation(pool)]
    order.sort(key=lambda name: not np.any(read_pair(dataset.pairs_by_name[name]).label_HW == 1))
    count = int(labelled_frac * len(pool) + 1e-9)
    if labelled_frac > 0 and count == 0:
        raise DataError(f"{labelled_frac:g} of {len(pool)} training crops is less than one crop. Raise the fraction.")
    labelled = set(order[:count])
    return SplitNames(
        tuple(order[:count]),
        tuple(crop for crop in pool if crop not in labelled),
        tuple(crop for image in val for crop in crops[image]),
        tuple(crop for image in test for crop in crops[image]),
    )


def _draw_held_out(images: list[str], *, seed: int, rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """Return the images of validation and test."""
    tiles = sorted(name for name in images if name.startswith("levir_test"))
    french = [str(name) for name in rng.permutation(sorted(name for name in images if name.startswith("fotbcd")))]
    small = [str(name) for name in rng.permutation(sorted(name for name in images if name.startswith("levir_crops")))]
    quarter = len(french) // 4
    test = [tiles[seed % len(tiles)], *french[:quarter]]
    return [*french[quarter : 2 * quarter], *small[:2]], test
