"""The changed objects of a map that comes strip by strip: each whole, however many strips it goes through.

The objects are those of `vector.find_objects` and `vector.polygons` on the whole map, with the same numbers, outlines
and attributes. What is held at any time is a strip, what is finished, and the masks of the objects that reach the
strip's last row. An outline is traced on the object's whole mask, so it carries no trace of the strips.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import MultiPolygon

from semicdvl.raster.grid import Grid
from semicdvl.raster.connected_components import find_touching_labels, group_labels
from semicdvl.raster.vector.files import (
    NO_SIMPLIFICATION,
    ObjectAttributes,
    assemble_object_frame,
    pick_majority_classes,
)
from semicdvl.raster.vector.object_stats import MapStrip, ObjectStats, concatenate_stats, measure_objects
from semicdvl.raster.vector.polygonise import PackedMask, polygonise_labels, polygonise_masks
from semicdvl.raster.vector.simplify import SimplifySettings


@dataclass(frozen=True)
class _OpenObject:
    """An object that reaches the last row that was seen: it may go on."""

    stats: ObjectStats
    masks: list[PackedMask]


@dataclass(frozen=True)
class ObjectTable:
    """The objects of a whole map.

    Attributes:
        frame: one row per object, as `vector.polygons` gives it.
        box_N4: top, left, bottom, right in pixels, ends excluded; of the object with `id` n at n - 1.
        area_px: pixels of all objects together.
    """

    frame: gpd.GeoDataFrame
    box_N4: NDArray[np.int64]
    area_px: int


@dataclass
class ObjectCollector:
    """Takes a change map from the top and gathers its 8-connected objects.

    Attributes:
        grid: the raster's.
        classes: names of the single-date classes, if there are any.
        foreground: which of them were looked for.
        min_area_px: smaller objects are left out.
        has_probability: whether the map says how probably each object changed.
    """

    grid: Grid
    classes: tuple[str, ...] = ()
    foreground: tuple[int, ...] = ()
    min_area_px: float = 0
    has_probability: bool = False
    _open: list[_OpenObject] = field(default_factory=list)
    _edge_W: NDArray[np.int64] | None = None
    _facts: list[ObjectStats] = field(default_factory=list)
    _outlines: list[MultiPolygon] = field(default_factory=list)

    def add_strip(self, strip: MapStrip) -> list[PackedMask]:
        """Take the next rows.

        Objects that are too small are set to 0 in `strip.change_HW`. Where one of them reaches over an edge of the
        strip, its pixels are returned once it is known to be too small, to be set to 0 in what was written.
        """
        height, width = strip.change_HW.shape
        if self._edge_W is None:
            self._edge_W = np.zeros(width, np.int64)
        changed_HW = (strip.change_HW == 1).view(np.uint8)
        if not changed_HW.any():
            labels_HW = np.zeros((height, width), np.int32)
            facts = concatenate_stats([], classes=len(self.classes))
        else:
            labels_HW = cv2.connectedComponents(changed_HW, connectivity=8)[1]
            facts = measure_objects(labels_HW, strip, classes=len(self.classes))
        at_edges = self._link_labels(labels_HW, last=strip.row + height >= self.grid.height)
        inside_N = np.ones(len(facts.area_N), bool)
        inside_N[at_edges.label_N - 1] = False
        self._finish_inner_objects(labels_HW, facts, inside_N, strip)
        return self._continue_edge_objects(labels_HW, facts, at_edges, row=strip.row)

    def build_table(self, *, gsd_m: float | None = None, shaping: SimplifySettings = NO_SIMPLIFICATION) -> ObjectTable:
        """Return the objects, outlined as `shaping` says; every row of the map must have been added."""
        assert not self._open, "rows are missing"
        facts = concatenate_stats(self._facts, classes=len(self.classes))
        order = np.argsort(facts.first_block_N, kind="stable")
        facts = facts.select(order)
        known = ObjectAttributes(
            facts.area_N,
            np.round(facts.score_sum_N / np.maximum(facts.area_N, 1), 4),
            np.round(facts.score_max_N, 4),
            self._majority_classes(facts.class_px_2NK[0]),
            self._majority_classes(facts.class_px_2NK[1]),
            np.round(facts.probability_sum_N / np.maximum(facts.area_N, 1), 4) if self.has_probability else None,
        )
        outlines = np.array(self._outlines, object)[order]
        placed = shapely.transform(outlines, self._to_map_coordinates) if len(outlines) else outlines
        frame = assemble_object_frame(
            list(placed),
            known,
            grid=self.grid,
            classes=self.classes,
            foreground=self.foreground,
            gsd_m=gsd_m,
            simplify=shaping,
        )
        return ObjectTable(frame, facts.box_N4, int(facts.area_N.sum()))

    def _majority_classes(self, table_NK: NDArray[np.int64]) -> list[int | None]:
        return pick_majority_classes(table_NK, self.foreground) if self.classes else [None] * len(table_NK)

    def _to_map_coordinates(self, cols_rows_N2: NDArray[np.float64]) -> NDArray[np.float64]:
        """Turn columns and rows into map coordinates, in the order of operations that GDAL has."""
        col, row = cols_rows_N2.T
        place = self.grid.transform
        return np.stack([place.c + col * place.a + row * place.b, place.f + col * place.d + row * place.e], axis=1)

    # -------------------------------------------------------------------------------------------- one strip
    def _link_labels(self, labels_HW: NDArray[np.int32], *, last: bool) -> _EdgeLabels:
        """Find the labels that continue an open object or may continue in the next strip, and what belongs together."""
        assert self._edge_W is not None
        links_2N = find_touching_labels(self._edge_W, labels_HW[0])
        lower_W = np.zeros_like(labels_HW[-1]) if last else labels_HW[-1]
        label_N = np.unique(np.concatenate([links_2N[1], lower_W[lower_W > 0]])).astype(np.int64)
        many = len(self._open)
        pairs_2N = np.stack([links_2N[0] - 1, many + np.searchsorted(label_N, links_2N[1])])
        group = group_labels(pairs_2N, count=many + len(label_N))
        return _EdgeLabels(label_N, group[:many], group[many:], lower_W)

    def _finish_inner_objects(
        self, labels_HW: NDArray[np.int32], facts: ObjectStats, inside_N: NDArray[np.bool_], strip: MapStrip
    ) -> None:
        """Finish the objects that touch neither edge of the strip, or drop them."""
        kept_N = inside_N & (facts.area_N >= self.min_area_px)
        dropped_N = inside_N & ~kept_N
        if dropped_N.any():
            strip.change_HW[np.concatenate([[False], dropped_N])[labels_HW]] = 0
        if kept_N.any():
            kept = facts.select(kept_N)
            numbers = np.concatenate([[0], np.where(kept_N, np.cumsum(kept_N), 0)]).astype(np.int32)
            self._facts.append(kept)
            self._outlines += polygonise_labels(labels_HW, numbers, kept.box_N4, row=strip.row)

    def _continue_edge_objects(
        self, labels_HW: NDArray[np.int32], facts: ObjectStats, at_edges: _EdgeLabels, *, row: int
    ) -> list[PackedMask]:
        """Join what belongs together over the strip's edges; finish what ends, drop what is too small."""
        members: dict[int, list[_OpenObject]] = {}
        for group, one in zip(at_edges.group_of_open.tolist(), self._open, strict=True):
            members.setdefault(group, []).append(one)
        for group, label in zip(at_edges.group_of_label.tolist(), at_edges.label_N.tolist(), strict=True):
            own = facts.select(np.array([label - 1]))
            top, left, bottom, right = own.box_N4[0].tolist()
            mask_HW = labels_HW[top - row : bottom - row, left:right] == label
            members.setdefault(group, []).append(_OpenObject(own, [PackedMask.pack(mask_HW, row=top, col=left)]))
        onward = {int(group) for group in at_edges.group_of_label[np.isin(at_edges.label_N, at_edges.last_row_W)]}
        small: list[PackedMask] = []
        still_open: list[_OpenObject] = []
        number_of_group: dict[int, int] = {}
        for group, parts in members.items():
            facts_of_all = concatenate_stats([part.stats for part in parts], classes=len(self.classes)).merge()
            whole = _OpenObject(facts_of_all, [patch for part in parts for patch in part.masks])
            if group in onward:
                still_open.append(whole)
                number_of_group[group] = len(still_open)
            elif whole.stats.area_N[0] < self.min_area_px:
                small += whole.masks
            else:
                self._facts.append(whole.stats)
                self._outlines.append(polygonise_masks(whole.masks, whole.stats.box_N4[0].tolist()))
        numbers = np.zeros(int(labels_HW.max(initial=0)) + 1, np.int64)
        for group, label in zip(at_edges.group_of_label.tolist(), at_edges.label_N.tolist(), strict=True):
            numbers[label] = number_of_group.get(group, 0)
        self._open, self._edge_W = still_open, numbers[at_edges.last_row_W]
        return small


@dataclass(frozen=True)
class _EdgeLabels:
    """What happens at a strip's edges.

    Attributes:
        label_N: labels that continue an open object or reach the last row.
        group_of_open: which group each open object belongs to.
        group_of_label: the same of the labels.
        last_row_W: labels of the last row; none where the map ends.
    """

    label_N: NDArray[np.int64]
    group_of_open: NDArray[np.int64]
    group_of_label: NDArray[np.int64]
    last_row_W: NDArray[np.int32]
