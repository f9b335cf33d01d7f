"""Sums over the objects of a raster that comes strip by strip: an object cut by the strips is one object.

Memory grows with the number of objects, not with the raster.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from semicdvl.raster.connected_components import find_touching_labels, group_labels


def label_regions(changed_HW: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Return the 8-connected regions of a strip as a label image; 0 is outside."""
    _, labels_HW = cv2.connectedComponents(changed_HW.astype(np.uint8), connectivity=8, ltype=cv2.CV_32S)
    return np.asarray(labels_HW, np.int32)


@dataclass
class ObjectSums:
    """Sums per label, collected strip by strip, and the links between labels of one object.

    Attributes:
        count: labels so far.
        sums_FL: one array per strip: for each label its pixels, then the sums of the given maps.
    """

    count: int = 0
    sums_FL: list[NDArray[np.float64]] = field(default_factory=list)
    links_2N: list[NDArray[np.int64]] = field(default_factory=list)
    last_W: NDArray[np.int64] | None = None

    def add(self, labels_HW: NDArray[np.int32], *maps_HW: NDArray[np.floating] | NDArray[np.bool_]) -> None:
        """Add a strip."""
        inside_HW = labels_HW > 0
        labels, most = labels_HW[inside_HW], int(labels_HW.max(initial=0)) + 1
        sums = [np.bincount(labels, weights=map_HW[inside_HW], minlength=most)[1:] for map_HW in maps_HW]
        self.sums_FL.append(np.stack([np.bincount(labels, minlength=most)[1:], *sums]).astype(np.float64))
        numbered_HW = [np.where(row > 0, row.astype(np.int64) + self.count, 0) for row in labels_HW[[0, -1]]]
        if self.last_W is not None:
            self.links_2N.append(find_touching_labels(self.last_W, numbered_HW[0]))
        self.last_W, self.count = numbered_HW[1], self.count + most - 1

    def merge_objects(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the object of every label, from 0, and the sums of every object, FN."""
        links_2N = np.concatenate([np.zeros((2, 0), np.int64), *self.links_2N], axis=1)
        group_L = group_labels(links_2N - 1, count=self.count)
        sums_FL = np.concatenate(self.sums_FL, axis=1)
        many = int(group_L.max(initial=-1)) + 1
        return group_L, np.stack([np.bincount(group_L, weights=sums, minlength=many) for sums in sums_FL])
