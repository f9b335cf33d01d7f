"""A VLM's own instances over a raster that is too large for memory: those of single tiles, merged to whole instances.

Every tile has the instances that it shows (`crop_tile_instances`). Parts of the same instance in neighbouring tiles are
merged by the rules of `vlms.instance_stitching`. The pixels of an instance in any window are the union of its parts
there. Only the parts around one window are decoded to masks at any time; of the others, a few numbers each are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from semicdvl.ceg.instances.masks import CroppedMask
from semicdvl.ceg.instances.tile_windows import TileIndex, Window, intersect_windows
from semicdvl.errors import ConfigError
from semicdvl.raster.connected_components import group_labels
from semicdvl.types import Instance, Segments, TileInstance, TileInstanceReader
from semicdvl.vlms.instance_stitching import InstanceFragment, decode_mask, find_same_instances


# ------------------------------------------------------------------------------------------------ one tile
def crop_tile_instances(
    t1: Segments, t2: Segments, *, foreground: Sequence[int], valid_HW: NDArray[np.bool_]
) -> tuple[TileInstance, ...]:
    """Return the foreground instances of two answers for a tile.

    Args:
        t1: the answer for date 1.
        t2: the answer for date 2.
        foreground: prompts that are searched for.
        valid_HW: where both dates have data, for the part of the tile that lies in the raster; instances are cropped to
            it.

    Raises:
        ConfigError: a date has no instances; both come from a VLM that gives some.
    """
    if t1.instances is None or t2.instances is None:
        raise ConfigError("one date has instances and the other has none; ask the same VLM for both.")
    found = (
        _crop_instance(instance, date, valid_HW)
        for date, instances in enumerate((t1.instances, t2.instances))
        for instance in instances
        if instance.prompt in foreground
    )
    return tuple(one for one in found if one is not None)


def _crop_instance(instance: Instance, date: int, valid_HW: NDArray[np.bool_]) -> TileInstance | None:
    """Crop an instance to its valid bounding box; None if nothing is left of it."""
    height, width = valid_HW.shape
    mask_HW = decode_mask(instance.mask)[:height, :width] & valid_HW
    rows, cols = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    if not len(rows):
        return None
    inside_HW = mask_HW[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    code = rle.encode(np.asfortranarray(inside_HW, dtype=np.uint8))
    mask = {"size": list(inside_HW.shape), "counts": code["counts"].decode()}
    return TileInstance(date, int(rows[0]), int(cols[0]), mask, int(instance.prompt), float(instance.score))


# ------------------------------------------------------------------------------------------------ the whole raster
def has_instances(tile_instances: TileInstanceReader) -> bool:
    """Return whether the VLM gave instances for all tiles; else its score maps are used."""
    return all(tile_instances.read_instances(tile) is not None for tile in range(len(tile_instances.tile_windows)))


@dataclass(frozen=True)
class InstancePart:
    """The part of an instance that one tile shows.

    Attributes:
        number: number of the merged instance at its date, from 1.
        tile: index of the tile.
        tile_window: rows and columns of the raster that the tile shows.
        instance: the instance in the tile.
    """

    number: int
    tile: int
    tile_window: Window
    instance: TileInstance

    @property
    def date(self) -> int:
        """0 (before) or 1 (after)."""
        return self.instance.date

    @property
    def box(self) -> Window:
        """Its bounding box, as rows and columns of the raster."""
        (height, width), (rows, cols) = self.instance.mask["size"], self.tile_window
        top, left = rows.start + self.instance.row, cols.start + self.instance.col
        return slice(top, top + height), slice(left, left + width)

    def to_stitching_part(self, shape_hw: tuple[int, int]) -> InstanceFragment:
        """Return the part as `vlms.instance_stitching` takes it."""
        cut = any(
            (side.start == of_tile.start and side.start > 0) or (side.stop == of_tile.stop and side.stop < size)
            for side, of_tile, size in zip(self.box, self.tile_window, shape_hw, strict=True)
        )
        mask_HW, (rows, cols) = decode_mask(self.instance.mask), self.box
        return InstanceFragment(
            mask_HW, rows.start, cols.start, self.instance.prompt, self.instance.score, self.tile, cut
        )

    def crop_mask(self, part: Window) -> NDArray[np.bool_]:
        """Return its pixels in a window that lies within its box."""
        rows, cols = (
            slice(span.start - side.start, span.stop - side.start) for span, side in zip(part, self.box, strict=True)
        )
        return decode_mask(self.instance.mask)[rows, cols]


class MergedInstances:
    """The instances of a raster, each merged from the parts in one or several tiles.

    Attributes:
        tile_instances: the instances of the tiles.
        counts: number of merged instances at date 1 and at date 2.
        classes_N: prompt of each merged instance, per date.
    """

    def __init__(self, tile_instances: TileInstanceReader) -> None:
        """Merge the instances; they are numbered by their first part, date by date."""
        self.tile_instances, self._index = tile_instances, TileIndex(tuple(tile_instances.tile_windows))
        facts = [
            _instance_table(tile_instances.read_instances(tile) or (), window)
            for tile, window in enumerate(tile_instances.tile_windows)
        ]
        self._starts = np.concatenate([[0], np.cumsum([len(of_tile) for of_tile in facts])]).astype(np.int64)
        facts_L6 = np.concatenate(facts)
        self._box_L4, facts_L2 = facts_L6[:, 2:], facts_L6[:, :2]
        self._number_L = np.zeros(len(facts_L2), np.int64)
        links = np.array(list(self._links()), np.int64).reshape(-1, 2)
        group_L = group_labels(links.T, count=len(facts_L2)) if len(facts_L2) else np.zeros(0, np.int64)
        self.classes_N: list[NDArray[np.int64]] = []
        for date in (0, 1):
            of_date = np.flatnonzero(facts_L2[:, 0] == date)
            _, first, inverse = np.unique(group_L[of_date], return_index=True, return_inverse=True)
            self._number_L[of_date] = first.argsort().argsort()[inverse] + 1
            self.classes_N.append(facts_L2[of_date[np.sort(first)], 1])
        self.counts = len(self.classes_N[0]), len(self.classes_N[1])

    def parts_in(self, window: Window) -> Iterator[InstancePart]:
        """Yield the parts whose box overlaps a window, tile by tile."""
        for tile, _ in self._index.tiles_in(window):
            for at, instance in self._instances_near(tile, window):
                number = int(self._number_L[self._starts[tile] + at])
                yield InstancePart(number, tile, self.tile_instances.tile_windows[tile], instance)

    def _instances_near(self, tile: int, window: Window) -> Iterator[tuple[int, TileInstance]]:
        """Yield the instances of a tile whose box overlaps a window, with their index in the tile."""
        instances, (rows, cols) = self.tile_instances.read_instances(tile) or (), window
        box_N4 = self._box_L4[self._starts[tile] : self._starts[tile + 1]]
        near_N = (box_N4[:, :2] < (rows.stop, cols.stop)).all(axis=1) & (box_N4[:, 2:] > (rows.start, cols.start)).all(
            axis=1
        )
        for at in np.flatnonzero(near_N).tolist():
            yield at, instances[at]

    def masks_in(self, window: Window, date: int) -> dict[int, CroppedMask]:
        """Return the pixels of each instance in a window, cropped to their box, by ascending number."""
        of_instance: dict[int, list[tuple[InstancePart, Window]]] = {}
        for part in self.parts_in(window):
            inside = intersect_windows(part.box, window)
            if part.date == date and inside is not None:
                of_instance.setdefault(part.number, []).append((part, inside))
        merged = {number: _merge_masks(of_instance[number]) for number in sorted(of_instance)}
        return {number: mask for number, mask in merged.items() if mask.mask_HW.any()}

    def _links(self) -> Iterator[tuple[int, int]]:
        """Yield the pairs of parts, numbered through all tiles, that belong to one instance."""
        places = self.tile_instances.tile_windows
        for second in range(len(places)):
            for first, strip in self._index.tiles_in(places[second]):
                if first >= second:
                    break
                here, there = (self._stitching_parts(tile, strip, at) for at, tile in enumerate((first, second)))
                for date in (0, 1):
                    both = here[date] + there[date]
                    windows = places[first], places[second]
                    for one, other in find_same_instances([piece for _, piece in both], windows):
                        yield both[one][0], both[other][0]

    def _stitching_parts(self, tile: int, strip: Window, at: int) -> list[list[tuple[int, InstanceFragment]]]:
        """Return the instances of a tile in its overlap with another, per date, as fragments of window `at`."""
        found: list[list[tuple[int, InstanceFragment]]] = [[], []]
        for index, instance in self._instances_near(tile, strip):
            part = InstancePart(0, at, self.tile_instances.tile_windows[tile], instance)
            found[instance.date].append(
                (int(self._starts[tile]) + index, part.to_stitching_part(self.tile_instances.shape_hw))
            )
        return found


def _instance_table(instances: Sequence[TileInstance], place: Window) -> NDArray[np.int64]:
    """Return the instances of a tile as rows of date, prompt, and box (first row and column, end row and column)."""
    rows, cols = place
    corners = ((rows.start + one.row, cols.start + one.col, one.mask["size"]) for one in instances)
    boxes = ((top, left, top + size[0], left + size[1]) for top, left, size in corners)
    facts = [(one.date, one.prompt, *box) for one, box in zip(instances, boxes, strict=True)]
    return np.array(facts, np.int64).reshape(-1, 6)


def _merge_masks(parts: list[tuple[InstancePart, Window]]) -> CroppedMask:
    """Return the union of some parts, each within a window of its box."""
    rows, cols = (
        slice(min(part[axis].start for _, part in parts), max(part[axis].stop for _, part in parts)) for axis in (0, 1)
    )
    mask_HW = np.zeros((rows.stop - rows.start, cols.stop - cols.start), bool)
    for find, (own_rows, own_cols) in parts:
        place = (
            slice(own_rows.start - rows.start, own_rows.stop - rows.start),
            slice(own_cols.start - cols.start, own_cols.stop - cols.start),
        )
        mask_HW[place] |= find.crop_mask((own_rows, own_cols))
    return CroppedMask(rows.start, cols.start, mask_HW)
