"""Patches that can be labelled, and the files of the training set that they become.

Of a result, these are the boxes that `suggest` recommends; images and labels are written to `OUT/labels`. Of a folder
of pairs they are its pairs; the labels are written beside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError

from semicdvl.data.change_dataset import ChangeDataset
from semicdvl.data.images.reading import read_image_size, read_rgb
from semicdvl.data.labels.files import read_stored_label
from semicdvl.data.labels.masks import decode_label
from semicdvl.data.pair_checks import measure_pairs_stretch
from semicdvl.data.patch_files import CHANGED, UNCHANGED, UNKNOWN, list_patch_files, write_patch, write_png
from semicdvl.data.readers.folder import LABEL_FOLDERS, read_folder
from semicdvl.errors import DataError, InputError
from semicdvl.evaluation.active_learning.select import SuggestConfig, suggest_patches
from semicdvl.raster.grid import Grid
from semicdvl.raster.stored_values import Stretch
from semicdvl.raster.vector.reading import read_layer
from semicdvl.review.session import PairSession
from semicdvl.types import PairFiles

LABEL_FOLDER = "labels"
"""In the folder of a result."""
PATCH_PX, SUGGESTED = 256, 20
MAX_PATCH_PX = 1024
"""Larger pairs are no patches: `semicdvl prepare` cuts them."""


@dataclass(frozen=True)
class PatchImages:
    """The images of a patch.

    Attributes:
        t1_HWC: date 1.
        t2_HWC: date 2.
        valid_HW: where both have data.
    """

    t1_HWC: NDArray[np.uint8]
    t2_HWC: NDArray[np.uint8]
    valid_HW: NDArray[np.bool_]


class LabelSource(Protocol):
    """Where patches come from and where their labels go."""

    @property
    def root(self) -> Path:
        """The folder of the training set."""
        ...

    @property
    def gsd_m(self) -> float | None:
        """Metres per pixel, None if not known."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """The patches, the first to label first."""
        ...

    @property
    def owns_lists(self) -> bool:
        """Whether the lists of the training set are made here."""
        ...

    def describe(self, name: str) -> str:
        """Return why a patch is worth labelling, in a few words."""
        ...

    def read_images(self, name: str) -> PatchImages:
        """Read the images of a patch."""
        ...

    def read_proposal(self, name: str) -> NDArray[np.uint8] | None:
        """Return the mask that the source itself knows, in the values of label files; None if it knows none."""
        ...

    def get_label_path(self, name: str) -> Path:
        """Return the file of a patch's label."""
        ...

    def write(self, name: str, label_HW: NDArray[np.uint8]) -> None:
        """Write a label, and the images where they are not there yet."""
        ...


@dataclass(frozen=True)
class Box:
    """A patch of a result: its place in pixels and how uncertain the map is there."""

    row: int
    col: int
    side_px: int
    doubt: float


class MapPatches:
    """The boxes that `suggest` recommends of a result."""

    owns_lists = True

    def __init__(self, session: PairSession) -> None:
        """Read the boxes; where there are none yet, let `suggest` choose them.

        Raises:
            InputError: the boxes are damaged or those of another map.
            ConfigError: the map is smaller than a patch.
        """
        self.session, self.root = session, session.pair.folder / LABEL_FOLDER
        path = session.pair.folder / "suggest.gpkg"
        if not path.is_file():
            _suggest(session)
        self.boxes = _read_boxes(path, session)
        facts = session.pair.facts
        self.gsd_m = (facts.grid.gsd_m if facts else None) or session.grid.gsd_m

    @property
    def names(self) -> tuple[str, ...]:
        """The patches, the most useful first."""
        return tuple(self.boxes)

    def describe(self, name: str) -> str:
        """Return how much of the map may be wrong there."""
        return f"the map may be wrong on {self.boxes[name].doubt:.0%} of it"

    def read_images(self, name: str) -> PatchImages:
        """Read both dates as the detection read them."""
        box = self.boxes[name]
        with self.session.open_images().borrow() as handle:
            t1_HWC, valid1_HW = handle.before.read(box.row, box.col, box.side_px, box.side_px)
            t2_HWC, valid2_HW = handle.after.read(box.row, box.col, box.side_px, box.side_px)
        return PatchImages(t1_HWC[..., :3], t2_HWC[..., :3], valid1_HW & valid2_HW)

    def read_proposal(self, name: str) -> NDArray[np.uint8] | None:
        """Return the change map there."""
        box = self.boxes[name]
        result = self.session.get_detected_map()
        change_HW = result.read_change(box.row, box.side_px)[:, box.col : box.col + box.side_px]
        return np.select([change_HW == 1, change_HW == 0], [CHANGED, UNCHANGED], UNKNOWN).astype(np.uint8)

    def get_label_path(self, name: str) -> Path:
        """Return the file of a patch's label."""
        return list_patch_files(self.root, name)[2]

    def write(self, name: str, label_HW: NDArray[np.uint8]) -> None:
        """Write both images and the label."""
        images = self.read_images(name)
        write_patch(self.root, name, images.t1_HWC, images.t2_HWC, label_HW)


def _suggest(session: PairSession) -> None:
    """Let `suggest` choose boxes of the usual size, or of the largest that fits."""
    config, side_px = session.config, choose_patch_px(session.grid)
    suggest_patches(
        session.pair.folder,
        config=SuggestConfig(count=SUGGESTED, patch_px=side_px, before=config.before, after=config.after),
    )


def choose_patch_px(grid: Grid) -> int:
    """Return the side of a patch: the usual one, or the largest that fits."""
    return next((side for side in (PATCH_PX, 128, 64) if side <= min(grid.height, grid.width)), 32)


def name_patch(row: int, col: int) -> str:
    """Return the name of the patch of a map."""
    return f"r{row:05d}_c{col:05d}"


def _read_boxes(path: Path, session: PairSession) -> dict[str, Box]:
    """Read the boxes of `suggest` by name."""
    remedy = "Run `semicdvl suggest` again"
    try:
        frame = read_layer(path, layer="suggest")
        rows = [(int(row.row_px), int(row.col_px), float(row.doubt)) for row in frame.itertuples()]
    except (DataSourceError, DataLayerError, AttributeError, ValueError, TypeError) as error:
        raise InputError(path, f"does not hold the boxes of `suggest` ({error})", remedy) from error
    pixel = abs(session.grid.transform.a)
    boxes = {}
    for (row, col, doubt), shape in zip(rows, frame.geometry, strict=True):
        side_px = round((shape.bounds[2] - shape.bounds[0]) / pixel) if shape is not None else 0
        inside = 0 <= row <= session.grid.height - side_px and 0 <= col <= session.grid.width - side_px
        if not inside or not 16 <= side_px <= MAX_PATCH_PX:
            raise InputError(path, "holds a box that is not on this map", remedy)
        boxes[name_patch(row, col)] = Box(row, col, side_px, doubt if np.isfinite(doubt) else 0.0)
    if not boxes:
        raise InputError(path, "holds no box", remedy)
    return boxes


class FolderPatches:
    """The pairs of a folder in the training layout."""

    gsd_m = None

    def __init__(self, root: Path) -> None:
        """Read the pairs; those without a label come first.

        Raises:
            InputError, DataError: the folder is not in the layout, or holds no patches.
        """
        self.root = root
        dataset: ChangeDataset = read_folder(root)
        self.pairs = {pair.name: pair for pair in dataset.pairs}
        self.owns_lists = False
        self.has_lists = bool(dataset.subsets)
        for pair in self.pairs.values():
            for path in (pair.before, pair.after, *([pair.label] if pair.label else [])):
                if not path.resolve().is_relative_to(root):
                    raise InputError(path, "is a symbolic link that leads out of the served folder", "Copy the file")
        held_out = {name for subset in ("val", "test") for name in dataset.subsets.get(subset, ())}
        order = sorted(self.pairs, key=lambda name: (self.pairs[name].label is not None, name in held_out, name))
        self._names = tuple(order)

    @property
    def names(self) -> tuple[str, ...]:
        """The pairs."""
        return self._names

    def describe(self, name: str) -> str:
        """Return nothing: all pairs are alike."""
        return ""

    @cached_property
    def _stretch(self) -> Stretch | None:
        """What makes grey values of images with more than 8 bits, as for a training."""
        return measure_pairs_stretch(list(self.pairs.values()))

    def read_images(self, name: str) -> PatchImages:
        """Read both images as a training reads them."""
        pair = self.pairs[name]
        for path in (pair.before, pair.after):
            if max(read_image_size(path)) > MAX_PATCH_PX:
                raise InputError(
                    path, f"is larger than {MAX_PATCH_PX} px", "Cut the pair into patches with `semicdvl prepare` first"
                )
        t1_HWC, t2_HWC = (read_rgb(path, stretch=self._stretch) for path in (pair.before, pair.after))
        if t1_HWC.shape != t2_HWC.shape:
            raise DataError(
                f"{pair.before} and {pair.after} differ in size. Both dates of a pair need the same pixels."
            )
        return PatchImages(t1_HWC, t2_HWC, np.ones(t1_HWC.shape[:2], bool))

    def read_proposal(self, name: str) -> NDArray[np.uint8] | None:
        """Return nothing: there is no map."""
        return None

    def get_label_path(self, name: str) -> Path:
        """Return the file of a pair's label: the one that is there, or a PNG in the label folder."""
        pair: PairFiles = self.pairs[name]
        if pair.label is not None:
            return pair.label
        parent = pair.before.parent.parent
        folder = next((parent / each for each in LABEL_FOLDERS if (parent / each).is_dir()), parent / "label")
        return folder / f"{pair.before.stem}.png"

    def write(self, name: str, label_HW: NDArray[np.uint8]) -> None:
        """Write the label beside the images.

        Raises:
            DataError: there is one in another format than PNG.
        """
        path = self.get_label_path(name)
        if path.suffix.lower() != ".png":
            raise DataError(
                f"{path}: is the label of this pair and not a PNG file. Convert it to PNG, then label again."
            )
        write_png(path, label_HW)


def read_stored_mask(path: Path) -> NDArray[np.uint8] | None:
    """Return a label as a training reads it, in the values of label files; None where there is none yet.

    Raises:
        InputError: it is damaged, or it does not say what has changed.
    """
    if not path.is_file():
        return None
    if max(read_image_size(path)) > MAX_PATCH_PX:
        raise InputError(path, f"is larger than {MAX_PATCH_PX} px", "Give the label of a patch")
    change_HW = decode_label(read_stored_label(path), unknown_values=frozenset({UNKNOWN}))
    return np.select([change_HW == 1, change_HW == 0], [CHANGED, UNCHANGED], UNKNOWN).astype(np.uint8)
