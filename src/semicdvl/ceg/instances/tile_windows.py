"""Windows of a raster, and which of its overlapping tiles show them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import shapely

Window = tuple[slice, slice]
"""Rows and columns of the raster."""


def intersect_windows(first: Window, second: Window) -> Window | None:
    """Return the common part of two windows; None if they have none."""
    starts = [max(a.start, b.start) for a, b in zip(first, second, strict=True)]
    stops = [min(a.stop, b.stop) for a, b in zip(first, second, strict=True)]
    if starts[0] >= stops[0] or starts[1] >= stops[1]:
        return None
    return slice(starts[0], stops[0]), slice(starts[1], stops[1])


def tile_core_windows(tile_windows: tuple[Window, ...]) -> list[Window]:
    """Return for each tile the part of the raster that is nearest to its centre.

    The parts neither overlap nor leave a gap: the seams run through the middle of the overlaps.
    """
    edges = [_core_edges({(window[axis].start, window[axis].stop) for window in tile_windows}) for axis in (0, 1)]
    return [(edges[0][rows.start], edges[1][cols.start]) for rows, cols in tile_windows]


def _core_edges(spans: set[tuple[int, int]]) -> dict[int, slice]:
    """Cut in the middle of what neighbouring tiles both show; keys are the starts of the tiles."""
    ordered = sorted(spans)
    cuts = [(before[1] + after[0]) // 2 for before, after in itertools.pairwise(ordered)]
    starts, stops = [ordered[0][0], *cuts], [*cuts, ordered[-1][1]]
    return {span[0]: slice(start, stop) for span, start, stop in zip(ordered, starts, stops, strict=True)}


class TileIndex:
    """Finds the tiles that show a window of the raster."""

    def __init__(self, tile_windows: tuple[Window, ...] | list[Window]) -> None:
        """Index tiles by their windows."""
        self._tree = shapely.STRtree([_search_box(window) for window in tile_windows])
        self._tile_windows = tile_windows

    def tiles_in(self, window: Window) -> Iterator[tuple[int, Window]]:
        """Yield the tiles that show a part of the window, in order, and that part."""
        for tile in np.sort(self._tree.query(_search_box(window), predicate="intersects")):
            part = intersect_windows(self._tile_windows[tile], window)
            if part is not None:
                yield int(tile), part


def _search_box(window: Window) -> shapely.Polygon:
    """Return a window as a box whose x are columns and y are rows."""
    rows, cols = window
    return shapely.box(cols.start, rows.start, cols.stop, rows.stop)
