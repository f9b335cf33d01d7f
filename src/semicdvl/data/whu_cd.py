"""WHU-CD: building change in Christchurch, 2012 and 2016, 0.2 m; 7434 patches of 256 px from one mosaic.

Source: Ji, Wei and Lu 2019, "Fully Convolutional Networks for Multisource Building Extraction from an Open Aerial and
Satellite Imagery Data Set". The semi-supervised literature uses patches `whucd_00001` to `whucd_07434` in random lists
of 5947 / 743 / 744: neighbours in the mosaic are neighbours in number, and nearly every test patch has a training patch
beside it (`splits.leaks` counts them).
"""

from __future__ import annotations

import re
from pathlib import Path

from semicdvl.data import folder
from semicdvl.data.pairs import DataSet


def read(root: Path | str) -> DataSet:
    """Return WHU-CD's pairs with the subsets of the lists in `root` or `root/list`.

    Args:
        root: folder with A/ B/ label/ (or one such folder per subset) and train.txt, val.txt, test.txt.

    Raises:
        InputError, DataError: as in `folder.read`.
    """
    return folder.read(root, name="whu_cd")


_NUMBER = re.compile(r"^whucd_(\d+)$")
_STRIP = 126
"""Whole patches of 256 px in a row of the mosaic, 32507 px wide (and 59 rows of them: 7434)."""


def borders(name: str) -> frozenset[str]:
    """Return the borders to the patch before and after, by number: two patches with a common one are neighbours."""
    match = _NUMBER.match(name)
    if match is None:
        return frozenset()
    number = int(match[1])
    return frozenset({f"whucd_{number - 1}|{number}", f"whucd_{number}|{number + 1}"})


def mosaic_strip(name: str) -> str | None:
    """Return the strip of consecutive patches that a patch belongs to, or None for another kind of name."""
    match = _NUMBER.match(name)
    return f"whucd_strip_{(int(match[1]) - 1) // _STRIP}" if match else None
