"""The pseudo-labels that SemiCD-VL's authors publish: PNG files in place of a store, for training.

    CHANGE/train_1_1.png                 change labels: 0, 1, 255 = ignore
    SEGMENTATION/A/train_1_1.png         labels of date 1: 0 background, 1 foreground, 255 = ignore
    SEGMENTATION/B/train_1_1.png         labels of date 2

CHANGE is `gen_cd_label/levir-cd_instance_mask-iou_0.0_direct_abs_ignore_0.8` of the public release, SEGMENTATION is
`gen_seg_label/levir-cd_direct_abs_ignore_0.8`; other data and thresholds follow the same pattern. Names are those of
the split lists.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semicdvl.errors import InputError, StoreError
from semicdvl.types import IGNORE, PairFiles, VLMLabels

DATES = ("A", "B")
_REMEDY = "Download the labels again, or make a store with `semicdvl pseudo`"


@dataclass(frozen=True)
class PublishedLabels:
    """Published labels on disk. Implements `types.VLMLabelSource`.

    Attributes:
        change: folder of the change labels.
        segmentation: folder with `A` and `B`, the labels of either date.
    """

    change: Path
    segmentation: Path

    @classmethod
    def open(cls, change: Path, segmentation: Path, *, pairs: Sequence[PairFiles]) -> PublishedLabels:
        """Check that the labels of all pairs are there.

        Raises:
            StoreError: a folder or files are missing, the first are named; or several pairs have one name.
        """
        labels = cls(change, segmentation)
        for folder in labels._folders:
            if not folder.is_dir():
                raise StoreError(f"{folder}: is no folder. Give the folders of the published labels.")
        distinct = {pair.name: labels._files(pair)[0].name for pair in pairs}
        twice = next((name for name, many in Counter(distinct.values()).items() if many > 1), None)
        if twice is not None:
            raise StoreError(
                f"{change}: {twice} would be the label of several training pairs, whose names differ in their folder "
                "alone. Give the pairs names of their own, or make a store with `semicdvl pseudo`."
            )
        missing = [path for pair in pairs for path in labels._files(pair) if not path.is_file()]
        if missing:
            shown = ", ".join(str(path) for path in missing[:3])
            raise StoreError(
                f"{len(missing)} of {3 * len(pairs)} published label files are missing, such as {shown}. Their names "
                "must be those of the training pairs (data.root in crops of 256 px)."
            )
        return labels

    def read_labels(self, pair: PairFiles) -> VLMLabels:
        """Return the labels of one pair, uint8 maps of 0, 1 and IGNORE.

        Raises:
            InputError: a file is no PNG of one band with these values.
            StoreError: the three maps, or a part of a larger image that the reader cut, differ in size.
        """
        if pair.window_px is not None:
            raise StoreError(
                f"{pair.name}: is a part of a larger image, and the published labels belong to whole files. Use the "
                "data set in crops of 256 px (data.dataset = folder)."
            )
        maps = [_read_map(path) for path in self._files(pair)]
        if len({one.shape for one in maps}) > 1:
            raise StoreError(
                f"{pair.name}: its published labels have the sizes {[one.shape for one in maps]}. {_REMEDY}."
            )
        return VLMLabels(*maps)

    @property
    def _folders(self) -> tuple[Path, ...]:
        """The three folders: change, date 1, date 2."""
        return (self.change, *(self.segmentation / date for date in DATES))

    def _files(self, pair: PairFiles) -> tuple[Path, ...]:
        """Return the three files of a pair."""
        name = f"{Path(pair.name).name.removesuffix('.png')}.png"
        return tuple(folder / name for folder in self._folders)


def _read_map(path: Path) -> NDArray[np.uint8]:
    """Read one map of 0, 1 and IGNORE."""
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            if picture.mode not in ("L", "P", "1"):
                raise InputError(path, f"has the bands {picture.mode} where one is expected", _REMEDY)
            map_HW = np.array(picture, np.uint8)
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(path, f"cannot be read as a PNG ({error})", _REMEDY) from error
    odd = set(np.unique(map_HW).tolist()) - {0, 1, IGNORE}
    if odd:
        raise InputError(path, f"holds {sorted(odd)[:5]} where 0, 1 and 255 = ignore are expected", _REMEDY)
    return map_HW
