"""Extract the changed objects of a map that comes strip by strip, each one whole, however many strips it crosses.

The objects are those of `connected_components.find_objects` and `object_table.build_object_frame` on the whole map,
with the same numbers, outlines and attributes. Memory holds one strip and the masks of the objects that reach its last
row; finished objects go to a file (`object_spool`). An outline is traced on the whole mask of its object, so it has no
corners where strips meet.

Why not GDAL's sieve and polygonize on the whole map: they need it in memory, and the sieve gives small regions the
value of their largest neighbour, so it also fills holes and joins small objects to larger ones. On a map of 4096 x 4096
and of 8192 x 8192 px (`python benchmarks/polygonize.py --size 8192`) this extraction took 120 and 155 MiB, sieve and
polygonize 68 and 228 MiB, in the same time; of the larger map 13 % of their polygons were equal and 38,273 px differed.
Without the sieve the polygons are identical (GDAL's polygonize is what traces each object here, too), but at
748 MiB, six times as slow, and with the small objects still in the map.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from semicdvl.raster.connected_components import find_touching_labels, group_labels
from semicdvl.raster.grid import Grid
from semicdvl.raster.vector.object_layer import LayerSettings, ObjectLayer
from semicdvl.raster.vector.object_spool import ObjectSpool
from semicdvl.raster.vector.object_stats import ObjectStats, concatenate_stats, measure_objects
from semicdvl.raster.vector.polygonise import PackedMask, polygonise_labels, polygonise_masks
from semicdvl.raster.vector.simplify import SimplifySettings
from semicdvl.types import ChangeMap


@dataclass(frozen=True)
class _OpenObject:
    """An object that reaches the last row so far and may continue in the next strip."""

    stats: ObjectStats
    masks: list[PackedMask]


@dataclass
class ObjectCollector:
    """Collects the 8-connected objects of a change map that comes in strips of rows from the top.

    Attributes:
        grid: grid of the raster.
        min_area_px: smaller objects are left out.
        folder: where finished objects are kept, see `object_spool.ObjectSpool`.
        row_count: rows that were added.
        classes: names of the single-date classes, which the first rows tell, as they do what follows.
        foreground: the classes of interest.
        has_probability: whether the map has probabilities of change.
        class_score: support from which a class is named; None for classes without scores.
        left_out: number of objects that were left out.
        left_out_px: their pixels.
    """

    grid: Grid
    min_area_px: float = 0
    folder: Path | None = None
    row_count: int = 0
    classes: tuple[str, ...] = ()
    foreground: tuple[int, ...] = ()
    has_probability: bool = False
    class_score: float | None = None
    left_out: int = 0
    left_out_px: int = 0
    _open: list[_OpenObject] = field(default_factory=list)
    _edge_W: NDArray[np.int64] | None = None
    _spool: ObjectSpool | None = None

    def add_strip(self, change: ChangeMap) -> list[PackedMask]:
        """Add the next rows.

        Objects that are too small are set to 0 in `change.change_HW`.

        Returns:
            The pixels of small objects that reach over an edge of the strip, once they are known to be small; they must
            be set to 0 in what has been written already.
        """
        row, (height, width) = self.row_count, change.change_HW.shape
        if self._edge_W is None:
            self._edge_W = np.zeros(width, np.int64)
            self.classes, self.foreground = change.classes, change.foreground
            self.has_probability = change.probability_HW is not None
            self.class_score = None if change.t1_score_HW is None else change.class_score
        self.row_count += height
        changed_HW = (change.change_HW == 1).view(np.uint8)
        if not changed_HW.any():
            labels_HW = np.zeros((height, width), np.int32)
            stats = concatenate_stats([], classes=len(self.classes))
        else:
            labels_HW = cv2.connectedComponents(changed_HW, connectivity=8)[1]
            stats = measure_objects(labels_HW, change, row=row, classes=len(self.classes))
        edge_labels = self._link_labels(labels_HW, is_last=self.row_count >= self.grid.height)
        inside_N = np.ones(len(stats.area_N), bool)
        inside_N[edge_labels.label_N - 1] = False
        self._finish_inner_objects(labels_HW, stats, inside_N, change.change_HW, row=row)
        return self._continue_edge_objects(labels_HW, stats, edge_labels, row=row)

    def build_layer(self, *, gsd_m: float | None = None, simplify: SimplifySettings | None = None) -> ObjectLayer:
        """Return the objects, once every row of the map has been added.

        Args:
            gsd_m: metres per pixel of a grid without a CRS.
            simplify: how the outlines are simplified; None: not at all.
        """
        assert not self._open, "rows are missing"
        settings = LayerSettings(
            self.grid, self.classes, self.foreground, self.has_probability, gsd_m, simplify, self.class_score
        )
        return ObjectLayer(self._get_spool(), settings)

    def _get_spool(self) -> ObjectSpool:
        """Return where finished objects go; the first rows of a map say how many classes it has."""
        if self._spool is None:
            self._spool = ObjectSpool(classes=len(self.classes), folder=self.folder)
        return self._spool

    # -------------------------------------------------------------------------------------------- one strip
    def _link_labels(self, labels_HW: NDArray[np.int32], *, is_last: bool) -> _EdgeLabels:
        """Find the labels that continue an open object or may continue in the next strip, and group what is joined."""
        assert self._edge_W is not None
        links_2N = find_touching_labels(self._edge_W, labels_HW[0])
        last_row_W = np.zeros_like(labels_HW[-1]) if is_last else labels_HW[-1]
        label_N = np.unique(np.concatenate([links_2N[1], last_row_W[last_row_W > 0]])).astype(np.int64)
        open_count = len(self._open)
        pairs_2N = np.stack([links_2N[0] - 1, open_count + np.searchsorted(label_N, links_2N[1])])
        group = group_labels(pairs_2N, count=open_count + len(label_N))
        return _EdgeLabels(label_N, group[:open_count], group[open_count:], last_row_W)

    def _finish_inner_objects(
        self,
        labels_HW: NDArray[np.int32],
        stats: ObjectStats,
        inside_N: NDArray[np.bool_],
        change_HW: NDArray[np.uint8],
        *,
        row: int,
    ) -> None:
        """Finish the objects that touch neither edge of the strip, or erase them from the strip if too small."""
        kept_N = inside_N & (stats.area_N >= self.min_area_px)
        erased_N = inside_N & ~kept_N
        if erased_N.any():
            self.left_out += int(erased_N.sum())
            self.left_out_px += int(stats.area_N[erased_N].sum())
            change_HW[np.concatenate([[False], erased_N])[labels_HW]] = 0
        if kept_N.any():
            kept = stats.select(kept_N)
            numbers = np.concatenate([[0], np.where(kept_N, np.cumsum(kept_N), 0)]).astype(np.int32)
            self._get_spool().add(kept, polygonise_labels(labels_HW, numbers, kept.box_N4, row=row))

    def _continue_edge_objects(
        self, labels_HW: NDArray[np.int32], stats: ObjectStats, edge_labels: _EdgeLabels, *, row: int
    ) -> list[PackedMask]:
        """Join what is connected across the strip's edges; finish what ends, and return the masks of what is small."""
        continuing = edge_labels.find_continuing_groups()
        small: list[PackedMask] = []
        still_open: list[_OpenObject] = []
        number_of_group: dict[int, int] = {}
        for group, parts in self._collect_parts(labels_HW, stats, edge_labels, row=row).items():
            joined = self._join_parts(parts)
            if group in continuing:
                still_open.append(joined)
                number_of_group[group] = len(still_open)
            elif joined.stats.area_N[0] < self.min_area_px:
                small += joined.masks
                self.left_out += 1
                self.left_out_px += int(joined.stats.area_N[0])
            else:
                outline = polygonise_masks(joined.masks, joined.stats.box_N4[0].tolist())
                self._get_spool().add(joined.stats, [outline])
        numbers = np.zeros(int(labels_HW.max(initial=0)) + 1, np.int64)
        for group, label in edge_labels.grouped_labels():
            numbers[label] = number_of_group.get(group, 0)
        self._open, self._edge_W = still_open, numbers[edge_labels.last_row_W]
        return small

    def _collect_parts(
        self, labels_HW: NDArray[np.int32], stats: ObjectStats, edge_labels: _EdgeLabels, *, row: int
    ) -> dict[int, list[_OpenObject]]:
        """Return the parts of each group: the open objects of earlier strips and the labels of this one."""
        members: dict[int, list[_OpenObject]] = {}
        for group, one in zip(edge_labels.group_of_open.tolist(), self._open, strict=True):
            members.setdefault(group, []).append(one)
        for group, label in edge_labels.grouped_labels():
            own = stats.select(np.array([label - 1]))
            top, left, bottom, right = own.box_N4[0].tolist()
            mask_HW = labels_HW[top - row : bottom - row, left:right] == label
            part = _OpenObject(own, [PackedMask.pack(mask_HW, row=top, col=left)])
            members.setdefault(group, []).append(part)
        return members

    def _join_parts(self, parts: list[_OpenObject]) -> _OpenObject:
        stats = concatenate_stats([part.stats for part in parts], classes=len(self.classes)).merge()
        return _OpenObject(stats, [mask for part in parts for mask in part.masks])


@dataclass(frozen=True)
class _EdgeLabels:
    """The labels at the edges of a strip.

    Attributes:
        label_N: labels that continue an open object or reach the last row.
        group_of_open: the group of each open object.
        group_of_label: the group of each label.
        last_row_W: labels of the last row; 0 everywhere where the map ends.
    """

    label_N: NDArray[np.int64]
    group_of_open: NDArray[np.int64]
    group_of_label: NDArray[np.int64]
    last_row_W: NDArray[np.int32]

    def grouped_labels(self) -> list[tuple[int, int]]:
        """Return (group, label) of every label."""
        return list(zip(self.group_of_label.tolist(), self.label_N.tolist(), strict=True))

    def find_continuing_groups(self) -> set[int]:
        """Return the groups that reach the last row."""
        return set(self.group_of_label[np.isin(self.label_N, self.last_row_W)].tolist())
