"""The changed objects of a map as a layer: sorted, numbered, and read in batches, so that any number of them fits.

Twenty-four bytes an object are held (its place in the spool, the size of its outline, number, area and classes);
polygons and attributes of a batch are made when it is read. The rows are those of `object_table.build_object_frame` on
the whole map.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray

from semicdvl.raster.grid import Grid
from semicdvl.raster.vector.object_spool import ObjectSpool, SpooledObjects
from semicdvl.raster.vector.object_stats import (
    CHANGE_KINDS,
    UNSURE,
    classify_change,
    pick_majority_classes,
    score_classes,
)
from semicdvl.raster.vector.object_table import (
    NumberedPolygons,
    ObjectAttributes,
    assemble_object_frame,
    measure_polygons,
)
from semicdvl.raster.vector.simplify import SimplifySettings

if TYPE_CHECKING:
    import geopandas as gpd

BATCH = 20_000
"""Objects that are read at a time at most: some 80 MB with their attributes. A layer of fewer is read once and kept."""
BATCH_BYTES = 2**24
"""Outlines that are read at a time, as they are spooled (16 bytes a corner), of which a few copies are made; one object
may have more."""


@dataclass(frozen=True)
class LayerSettings:
    """What the rows of a layer depend on beside the objects.

    Attributes:
        grid: grid of the raster.
        classes: names of the single-date classes, if there are any.
        foreground: the classes of interest.
        has_probability: whether the map has probabilities of change.
        gsd_m: metres per pixel of a grid without a CRS.
        simplify: how the outlines are simplified; None: not at all. Outlines that would touch a neighbour stay as they
            are, so all of them are held in memory then.
        class_score: support from which a class is named; None for classes without scores.
    """

    grid: Grid
    classes: tuple[str, ...] = ()
    foreground: tuple[int, ...] = ()
    has_probability: bool = False
    gsd_m: float | None = None
    simplify: SimplifySettings | None = None
    class_score: float | None = None


@dataclass(frozen=True)
class ObjectGroup:
    """The objects of one kind of change between two classes.

    Attributes:
        kind: of change.
        from_class: class at the first date, or "unsure"; None where unknown.
        to_class: the same at the second date.
        count: number of objects.
        area: their area, in the unit of the layer.
    """

    kind: str
    from_class: str | None
    to_class: str | None
    count: int
    area: float


class ObjectLayer:
    """The objects of a whole map, the largest first.

    Attributes:
        settings: what the rows depend on beside the objects.
        area_N: float64, area of each, in m² or pixels.
        unit: "m" or "px", of lengths.
        area_px: pixels of all objects together.
    """

    def __init__(self, spool: ObjectSpool, settings: LayerSettings, *, batch: int = BATCH) -> None:
        """Measure and sort the objects of a spool, to which nothing is added any more."""
        self.settings, self._spool = settings, spool
        count, size_N = len(spool), np.array(spool.sizes, np.int64)
        first_block_N, area_N = np.empty(count, np.int64), np.empty(count, np.float64)
        group_N = np.empty(count, np.int32)
        self.area_px, self.unit = 0, self._measure([])[2]
        for start, stop in _cut_batches(size_N, batch):
            part = np.s_[start:stop]
            found = spool.read_range(start, stop)
            area_N[part] = self._measure(self._move_to_map(found))[0]
            first_block_N[part], group_N[part] = found.stats.first_block_N, self._code_groups(found)
            self.area_px += int(found.stats.area_N.sum())
        number_N = np.empty(count, np.int32)
        number_N[np.argsort(first_block_N, kind="stable")] = np.arange(1, count + 1, dtype=np.int32)
        del first_block_N
        self._place_N = np.lexsort((number_N, -area_N)).astype(np.int32)
        self._batches = _cut_batches(size_N[self._place_N], batch)
        self.number_N = number_N[self._place_N]
        self.area_N, self._group_N = area_N[self._place_N], group_N[self._place_N]

    def __len__(self) -> int:
        """Return the number of objects."""
        return len(self.area_N)

    @property
    def frame(self) -> gpd.GeoDataFrame:
        """All rows at once; of a large layer this takes 4 kB an object."""
        return self.read_rows(0, len(self)) if self._kept is None else self._kept

    def iterate_frames(self) -> Iterator[gpd.GeoDataFrame]:
        """Yield the rows in batches, the largest objects first; an empty layer gives one empty batch."""
        for start, stop in self._batches or [(0, 0)]:
            yield self.read_rows(start, stop)

    def read_rows(self, start: int, stop: int) -> gpd.GeoDataFrame:
        """Return consecutive rows by their rank."""
        return self._assemble(np.s_[start:stop]) if self._kept is None else self._kept[start:stop]

    def read_box(self, rank: int) -> NDArray[np.int64]:
        """Return top, left, bottom, right of an object in pixels, ends excluded."""
        box_4: NDArray[np.int64] = self._spool.read(self._place_N[rank : rank + 1]).stats.box_N4[0]
        return box_4

    @cached_property
    def _kept(self) -> gpd.GeoDataFrame | None:
        """All rows, where they are few or are simplified together; None: they are made anew whenever they are read."""
        if len(self._batches) > 1 and self.settings.simplify is None:
            return None
        return self._assemble(np.s_[:])

    def _assemble(self, part: slice) -> gpd.GeoDataFrame:
        """Make some rows."""
        found, settings = self._spool.read(self._place_N[part]), self.settings
        outlines = self._move_to_map(found)
        _, perimeter_N, unit = self._measure(outlines)
        return assemble_object_frame(
            outlines,
            self._make_attributes(found),
            grid=settings.grid,
            classes=settings.classes,
            foreground=settings.foreground,
            gsd_m=settings.gsd_m,
            simplify=settings.simplify,
            known=NumberedPolygons(self.number_N[part].astype(np.int64), self.area_N[part], perimeter_N, unit),
        )

    def _measure(self, outlines: list[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64], str]:
        """Return areas and perimeters of outlines in map coordinates, and the unit."""
        return measure_polygons(outlines, grid=self.settings.grid, gsd_m=self.settings.gsd_m)

    def _make_attributes(self, found: SpooledObjects) -> ObjectAttributes:
        """Return the attributes of some objects."""
        stats, settings, area_N = found.stats, self.settings, np.maximum(found.stats.area_N, 1)
        majority: list[list[int | None]] = [[None] * len(area_N)] * 2
        if settings.classes:
            majority = [pick_majority_classes(class_px_NK, settings.foreground) for class_px_NK in stats.class_px_2NK]
        support: list[NDArray[np.float64] | None] = [None, None]
        if settings.class_score is not None:
            support = [
                score_classes(classes, sums_NK, stats.area_N, settings.foreground)
                for classes, sums_NK in zip(majority, stats.class_score_2NK, strict=True)
            ]
        return ObjectAttributes(
            stats.area_N,
            np.round(stats.score_sum_N / area_N, 4),
            np.round(stats.score_max_N, 4),
            majority[0],
            majority[1],
            np.round(stats.probability_sum_N / area_N, 4) if settings.has_probability else None,
            from_score=support[0],
            to_score=support[1],
            class_score=settings.class_score or 0.0,
        )

    def _move_to_map(self, found: SpooledObjects) -> list[Any]:
        """Return outlines in map coordinates."""
        outlines = found.outlines
        return list(shapely.transform(outlines, self._to_map_coordinates)) if len(outlines) else []

    def _to_map_coordinates(self, cols_rows_N2: NDArray[np.float64]) -> NDArray[np.float64]:
        """Convert columns and rows to map coordinates, in GDAL's order of operations."""
        col, row = cols_rows_N2.T
        to_map = self.settings.grid.transform
        x, y = to_map.c + col * to_map.a + row * to_map.b, to_map.f + col * to_map.d + row * to_map.e
        return np.stack([x, y], axis=1)

    # -------------------------------------------------------------------------------------------- sums
    def _code_groups(self, found: SpooledObjects) -> NDArray[np.int32]:
        """Return kind and classes of each object as one number."""
        attributes, names = self._make_attributes(found), (None, *self.settings.classes, UNSURE)
        place = {name: at for at, name in enumerate(names)}
        columns = attributes.name_classes(self.settings.classes, self.settings.foreground)
        pairs = zip(attributes.from_class, attributes.to_class, strict=True)
        kinds = [CHANGE_KINDS.index(classify_change(*pair, self.settings.foreground)) for pair in pairs]
        before, after = (
            np.array([place[name] for name in columns[f"{date}_class"]], np.int32) for date in ("from", "to")
        )
        coded: NDArray[np.int32] = (np.array(kinds, np.int32) * len(names) + before) * len(names) + after
        return coded

    @cached_property
    def groups(self) -> tuple[ObjectGroup, ...]:
        """The objects summed by kind and classes, in the order of these; unknown classes come last."""
        groups = []
        for code in np.unique(self._group_N).tolist():
            own_N = self._group_N == code
            count, area = int(np.count_nonzero(own_N)), float(self.area_N[own_N].sum())
            groups.append(ObjectGroup(*self._decode_group(code), count, area))
        groups.sort(key=lambda one: (one.kind, [(name is None, name or "") for name in (one.from_class, one.to_class)]))
        return tuple(groups)

    def _decode_group(self, code: int) -> tuple[str, str | None, str | None]:
        """Return kind and classes of a group."""
        names = (None, *self.settings.classes, UNSURE)
        rest, after = divmod(code, len(names))
        kind, before = divmod(rest, len(names))
        return CHANGE_KINDS[kind], names[before], names[after]

    def count_kinds(self) -> dict[str, int]:
        """Return the number of objects of each kind: the most frequent first, then that of the larger object."""
        counts: dict[str, int] = {}
        first: dict[str, int] = {}
        codes, at_N = np.unique(self._group_N, return_index=True)
        for code, at in zip(codes.tolist(), at_N.tolist(), strict=True):
            kind = self._decode_group(code)[0]
            first[kind] = min(first.get(kind, at), at)
        for group in self.groups:
            counts[group.kind] = counts.get(group.kind, 0) + group.count
        return dict(sorted(counts.items(), key=lambda item: (-item[1], first[item[0]])))

    def code_kinds(self, kinds: Sequence[str]) -> NDArray[np.int8]:
        """Return for each object, largest first, the index of its kind in `kinds`."""
        kind_N = np.zeros(len(self), np.int8)
        for code in np.unique(self._group_N).tolist():
            kind_N[self._group_N == code] = kinds.index(self._decode_group(code)[0])
        return kind_N


def _cut_batches(size_N: NDArray[np.int64], most: int) -> list[tuple[int, int]]:
    """Return first and end of batches of consecutive objects: `most` each, or fewer that have large outlines."""
    end_N, batches, start = np.cumsum(size_N), list[tuple[int, int]](), 0
    while start < len(size_N):
        fitting = int(np.searchsorted(end_N, end_N[start] - size_N[start] + BATCH_BYTES, side="right"))
        stop = max(start + 1, min(fitting, start + most))
        batches.append((start, stop))
        start = stop
    return batches
