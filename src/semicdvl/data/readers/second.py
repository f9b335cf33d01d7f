"""SECOND: what changed into what, 4,662 pairs of 512 px at 0.5 to 3 m; 2,968 for training and 1,694 for test published.

Source: Yang et al., Asymmetric Siamese Networks for Semantic Change Detection in Aerial Images (2020/21). The label of
each date is a picture that names a class where the ground changed, and is white elsewhere: that is where the pair has
not changed, and where its classes are not known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from semicdvl.data.change_dataset import ChangeDataset
from semicdvl.data.readers.folder import list_labels, read_folder, require_both_dates
from semicdvl.types import ClassFiles, ClassLegend, PairFiles

SECOND_LEGEND = ClassLegend(
    ("water", "non-vegetated ground", "low vegetation", "tree", "building", "playground"),
    ((0, 0, 255), (128, 128, 128), (0, 128, 0), (0, 255, 0), (128, 0, 0), (255, 0, 0)),
    unknown_colours=((255, 255, 255),),
)
"""The classes in their published order; there white, unchanged, is class 0 and the others are 1 to 6."""
LABEL_FOLDERS = ("label1", "label2")


def read_second(root: Path | str) -> ChangeDataset:
    """Read the pairs of SECOND.

    Args:
        root: folder with im1/ im2/ label1/ label2/, or with one such folder per subset (train/, test/).

    Raises:
        InputError: as in `folder.read_folder`; or there is a label1 without label2, or the reverse.
        DataError: as in `folder.read_folder`.
    """
    dataset = read_folder(root, name="second")
    return replace(dataset, pairs=tuple(_add_classes(dataset.pairs)))


def _add_classes(pairs: tuple[PairFiles, ...]) -> Iterator[PairFiles]:
    """Yield the pairs with the labels of both dates where they have some."""
    labels: dict[Path, list[dict[str, Path]]] = {}
    for root in dict.fromkeys(pair.before.parent.parent for pair in pairs):
        require_both_dates(root, LABEL_FOLDERS)
        images = {pair.before.stem: pair.before for pair in pairs if pair.before.parent.parent == root}
        labels[root] = [list_labels(root / folder, images=images) for folder in LABEL_FOLDERS]
    for pair in pairs:
        before, after = (of_date.get(pair.before.stem) for of_date in labels[pair.before.parent.parent])
        if before is None and after is None:
            yield pair
        else:
            yield replace(pair, classes=ClassFiles(SECOND_LEGEND, before, after, give_change=pair.label is None))
