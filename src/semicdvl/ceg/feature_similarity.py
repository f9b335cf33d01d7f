"""What the objects of a whole raster look like at either date: their mean features, summed up piece by piece.

Tiles are described one by one, and every pixel takes its features from the tile in whose middle it lies: the seams run
through the middle of the overlaps. The cosines are those of `events.cosines`, which has one map of the whole image,
up to what a network sees beyond the edge of a tile; for a raster of one tile they are the same numbers, summed in
another order. Sums are remembered only as long as more of their object may come.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.sparse import coo_array

from semicdvl.types import TileInstanceReader

_Ints = NDArray[np.int64]
Window = tuple[slice, slice]
"""Rows and columns of the raster."""


@dataclass(frozen=True)
class FeatureWindow:
    """A rectangle of the raster that one tile describes.

    Attributes:
        window: its rows and columns in the raster.
        cell_HW: for each pixel the cell of the features that it lies in.
        cells_KE: features of the cells, those of date 1 and then those of date 2.
    """

    window: Window
    cell_HW: _Ints
    cells_KE: NDArray[np.float64]


def tile_core_windows(places: tuple[Window, ...]) -> list[Window]:
    """Return for each tile the part of the raster in whose middle it lies; the parts don't overlap and leave no gap."""
    found = []
    edges = [_core_edges({(place[axis].start, place[axis].stop) for place in places}) for axis in (0, 1)]
    for place in places:
        rows, cols = (edges[axis][part.start] for axis, part in enumerate(place))
        found.append((rows, cols))
    return found


def _core_edges(spans: set[tuple[int, int]]) -> dict[int, slice]:
    """Cut between neighbouring tiles in the middle of what both show; by where a tile starts."""
    ordered = sorted(spans)
    cuts = [(before[1] + after[0]) // 2 for before, after in itertools.pairwise(ordered)]
    starts, stops = [ordered[0][0], *cuts], [*cuts, ordered[-1][1]]
    return {span[0]: slice(start, stop) for span, start, stop in zip(ordered, starts, stops, strict=True)}


class TileIndex:
    """Finds which tiles lie in a window of the raster."""

    def __init__(self, places: tuple[Window, ...] | list[Window]) -> None:
        """Index windows by their place."""
        self._tree = shapely.STRtree([_search_box(place) for place in places])
        self._places = places

    def tiles_in(self, window: Window) -> Iterator[tuple[int, Window]]:
        """Yield the tiles that show a part of the window, in order, and that part."""
        for tile in np.sort(self._tree.query(_search_box(window), predicate="intersects")):
            part = intersect_windows(self._places[tile], window)
            if part is not None:
                yield int(tile), part


def _search_box(window: Window) -> shapely.Polygon:
    rows, cols = window
    return shapely.box(cols.start, rows.start, cols.stop, rows.stop)


def intersect_windows(one: Window, other: Window) -> Window | None:
    """Return what two windows share; None if that is nothing."""
    starts = [max(a.start, b.start) for a, b in zip(one, other, strict=True)]
    stops = [min(a.stop, b.stop) for a, b in zip(one, other, strict=True)]
    if starts[0] >= stops[0] or starts[1] >= stops[1]:
        return None
    return slice(starts[0], stops[0]), slice(starts[1], stops[1])


class MosaickedFeatures:
    """The features of a whole raster, window by window."""

    def __init__(self, finds: TileInstanceReader) -> None:
        """Take features from `finds`."""
        self._finds = finds
        self._index = TileIndex(tile_core_windows(tuple(finds.tile_windows)))

    def read_window(self, window: Window) -> Iterator[FeatureWindow]:
        """Yield the parts of a window, each with the features of the tile that it belongs to."""
        for tile, part in self._index.tiles_in(window):
            shape_hw = self._finds.features_shape_hw(tile)
            if shape_hw is None:  # no pixel has data there
                continue
            rows, cols = (
                (np.arange(span.start, span.stop) - of_tile.start) * cells // size
                for span, of_tile, cells, size in zip(
                    part, self._finds.tile_windows[tile], shape_hw, self._finds.tile_hw, strict=True
                )
            )
            cells_HW2D = self._finds.read_features(tile, slice(int(rows[0]), int(rows[-1]) + 1))[
                :, cols[0] : cols[-1] + 1
            ]
            cells_KE = cells_HW2D.reshape(-1, 2 * cells_HW2D.shape[3]).astype(np.float64)
            cell_HW = (rows - rows[0])[:, None] * cells_HW2D.shape[1] + (cols - cols[0])
            yield FeatureWindow(part, cell_HW, cells_KE)


class FeatureSimilarity:
    """How much the two dates look alike over each of some objects.

    Attributes:
        cosine_N: cosine between the mean features of the dates, by number of the object (from 1, at index 0). 1, that
            is no sign of change, where nothing came or a mean feature is zero.
    """

    def __init__(self, last_N: _Ints) -> None:
        """Wait for objects.

        Args:
            last_N: the last step at which pixels of each object come; -1 for those that nobody asks for.
        """
        self.cosine_N = np.ones(len(last_N))
        self._last_N = last_N
        self._sums_E: dict[int, NDArray[np.float64]] = {}

    def add(self, object_M: _Ints, cell_M: _Ints, cells_KE: NDArray[np.float64]) -> None:
        """Add pixels: the number of their object, and the cell they lie in."""
        wanted = self._last_N[object_M - 1] >= 0
        if not wanted.any():
            return
        numbers, row_M = np.unique(object_M[wanted], return_inverse=True)
        counts_NK = coo_array(
            (np.ones(len(row_M)), (row_M, cell_M[wanted])), shape=(len(numbers), len(cells_KE))
        ).tocsr()
        for number, sum_E in zip(numbers.tolist(), counts_NK @ cells_KE, strict=True):
            held = self._sums_E.get(number)
            self._sums_E[number] = sum_E if held is None else held + sum_E

    def finish_step(self, step: int) -> None:
        """Turn the sums of the objects that are complete after a step into their cosines."""
        for number in [number for number in self._sums_E if self._last_N[number - 1] <= step]:
            t1_D, t2_D = np.split(self._sums_E.pop(number), 2)
            lengths = float(np.linalg.norm(t1_D) * np.linalg.norm(t2_D))
            if lengths > 0:
                self.cosine_N[number - 1] = float(t1_D @ t2_D) / lengths
