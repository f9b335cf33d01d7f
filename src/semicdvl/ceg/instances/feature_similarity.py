"""Feature similarity: the cosine between the mean features of the two dates over each object (`min_cosine`).

`compute_feature_similarity` takes one feature map of the whole image per date. For a raster, features come tile by
tile: `MosaickedFeatures` gives every pixel the features of the tile whose centre is nearest, and
`SimilarityAccumulator` sums them up part by part. Both give the same cosines, up to what a network sees beyond the edge
of a tile; for a raster of one tile they are the same numbers, summed in another order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array

from semicdvl.ceg.features import PairFeatures
from semicdvl.ceg.instances.masks import CroppedMask
from semicdvl.ceg.instances.tile_windows import TileIndex, Window, tile_core_windows
from semicdvl.types import TileInstanceReader

_IntArray = NDArray[np.int64]


# ------------------------------------------------------------------------------------------------ a whole image
def compute_feature_similarity(
    masks: Sequence[CroppedMask], features: PairFeatures, *, shape_hw: tuple[int, int]
) -> NDArray[np.float64]:
    """Return the cosine between the mean features of the dates, over the pixels of each mask.

    It is 1 (no sign of change) for a mask without pixels, and where a mean feature is zero.

    Args:
        masks: the objects.
        features: feature maps of both dates.
        shape_hw: height and width of the image in pixels.
    """
    t1_DHW, t2_DHW = features.t1_DHW, features.t2_DHW
    cosine_N = np.ones(len(masks))
    rows, cols = (np.arange(size) * cells // size for size, cells in zip(shape_hw, t1_DHW.shape[1:], strict=True))
    for index, mask in enumerate(masks):
        inside_rows, inside_cols = np.nonzero(mask.mask_HW)
        cells, weights = np.unique(
            rows[inside_rows + mask.row] * t1_DHW.shape[2] + cols[inside_cols + mask.col], return_counts=True
        )
        sums = [date.reshape(len(date), -1)[:, cells].astype(np.float64) @ weights for date in (t1_DHW, t2_DHW)]
        lengths = float(np.linalg.norm(sums[0]) * np.linalg.norm(sums[1]))
        if lengths > 0:
            cosine_N[index] = float(sums[0] @ sums[1]) / lengths
    return cosine_N


# ------------------------------------------------------------------------------------------------ a raster in tiles
@dataclass(frozen=True)
class FeatureWindow:
    """A window of the raster with the features of one tile.

    Attributes:
        window: rows and columns in the raster.
        cell_HW: index of the feature cell that each pixel lies in.
        cells_KE: features of the cells: those of date 1, then those of date 2 (E = 2 D).
    """

    window: Window
    cell_HW: _IntArray
    cells_KE: NDArray[np.float64]


class MosaickedFeatures:
    """The features of a whole raster, read window by window: each pixel has those of the tile nearest to it."""

    def __init__(self, tile_instances: TileInstanceReader) -> None:
        """Read features from `tile_instances`."""
        self._tiles = tile_instances
        self._index = TileIndex(tile_core_windows(tuple(tile_instances.tile_windows)))

    def read_window(self, window: Window) -> Iterator[FeatureWindow]:
        """Yield the parts of a window, each with the features of its tile; parts without data are left out."""
        for tile, part in self._index.tiles_in(window):
            shape_hw = self._tiles.features_shape_hw(tile)
            if shape_hw is None:
                continue
            rows, cols = (
                (np.arange(span.start, span.stop) - of_tile.start) * cells // size
                for span, of_tile, cells, size in zip(
                    part, self._tiles.tile_windows[tile], shape_hw, self._tiles.tile_hw, strict=True
                )
            )
            cells_HW2D = self._tiles.read_features(tile, slice(int(rows[0]), int(rows[-1]) + 1))
            cells_HW2D = cells_HW2D[:, cols[0] : cols[-1] + 1]
            cells_KE = cells_HW2D.reshape(-1, 2 * cells_HW2D.shape[3]).astype(np.float64)
            cell_HW = (rows - rows[0])[:, None] * cells_HW2D.shape[1] + (cols - cols[0])
            yield FeatureWindow(part, cell_HW, cells_KE)


class SimilarityAccumulator:
    """Feature similarity of objects whose pixels come in steps; sums are kept only until an object is complete.

    Attributes:
        cosine_N: cosine between the mean features of the dates, per object (object 1 at index 0). 1 (no sign of change)
            for an object without pixels, and where a mean feature is zero.
    """

    def __init__(self, last_step_N: _IntArray) -> None:
        """Start without pixels.

        Args:
            last_step_N: the last step in which pixels of each object come; -1 for objects that are not measured.
        """
        self.cosine_N = np.ones(len(last_step_N))
        self._last_step_N = last_step_N
        self._sums_E: dict[int, NDArray[np.float64]] = {}

    def add(self, object_M: _IntArray, cell_M: _IntArray, cells_KE: NDArray[np.float64]) -> None:
        """Add pixels, given the number of their object and the feature cell that they lie in."""
        measured_M = self._last_step_N[object_M - 1] >= 0
        if not measured_M.any():
            return
        numbers, row_M = np.unique(object_M[measured_M], return_inverse=True)
        counts_NK = coo_array(
            (np.ones(len(row_M)), (row_M, cell_M[measured_M])), shape=(len(numbers), len(cells_KE))
        ).tocsr()
        for number, sum_E in zip(numbers.tolist(), counts_NK @ cells_KE, strict=True):
            known = self._sums_E.get(number)
            self._sums_E[number] = sum_E if known is None else known + sum_E

    def finish_step(self, step: int) -> None:
        """Compute the cosines of the objects that are complete after a step."""
        for number in [number for number in self._sums_E if self._last_step_N[number - 1] <= step]:
            t1_D, t2_D = np.split(self._sums_E.pop(number), 2)
            lengths = float(np.linalg.norm(t1_D) * np.linalg.norm(t2_D))
            if lengths > 0:
                self.cosine_N[number - 1] = float(t1_D @ t2_D) / lengths
