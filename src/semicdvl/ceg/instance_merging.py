"""A VLM's own instances over a raster that is too large to hold: finds of single tiles, joined to objects.

Every tile told the objects that it shows (`crop_tile_instances`). Finds of neighbouring tiles that are the same object
are
joined by the rules of `vlms.instance_stitching`. An object's pixels in any window are the union of its finds there. At
any time
only the finds around one window are masks; what is remembered are a few numbers per find.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from semicdvl.ceg.masks import CroppedMask
from semicdvl.ceg.tile_windows import TileIndex, Window, intersect_windows
from semicdvl.errors import ConfigError
from semicdvl.raster.connected_components import group_labels
from semicdvl.types import Instance, Segments, TileInstance, TileInstanceReader
from semicdvl.vlms.instance_stitching import InstanceFragment, decode_mask, find_same_instances


# ------------------------------------------------------------------------------------------------ one tile
def crop_tile_instances(
    t1: Segments, t2: Segments, *, foreground: Sequence[int], valid_HW: NDArray[np.bool_]
) -> tuple[TileInstance, ...] | None:
    """Return the foreground objects of two answers for a tile; None from a VLM that gives maps only.

    Args:
        t1: the answer for date 1.
        t2: the answer for date 2.
        foreground: prompts that are looked for.
        valid_HW: where both dates have data, of the tile's part of the raster: objects end there.

    Raises:
        ConfigError: one date has instances and the other has none.
    """
    if t1.instances is None and t2.instances is None:
        return None
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
    """Cut an instance to its box; None where nothing is left of it."""
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
def has_instances(finds: TileInstanceReader) -> bool:
    """Tell whether the VLM gave instances; one that left them out for a single tile gave maps only."""
    return all(finds.read_instances(tile) is not None for tile in range(len(finds.tile_windows)))


@dataclass(frozen=True)
class InstancePart:
    """What one tile shows of an object.

    Attributes:
        number: of the object, at its date, from 1.
        tile: which tile.
        tile_window: rows and columns of the raster that the tile shows.
        instance: what was told of it.
    """

    number: int
    tile: int
    tile_window: Window
    instance: TileInstance

    @property
    def date(self) -> int:
        """0 or 1."""
        return self.instance.date

    @property
    def box(self) -> Window:
        """Its rows and columns of the raster."""
        (height, width), (rows, cols) = self.instance.mask["size"], self.tile_window
        top, left = rows.start + self.instance.row, cols.start + self.instance.col
        return slice(top, top + height), slice(left, left + width)

    def to_stitching_part(self, shape_hw: tuple[int, int]) -> InstanceFragment:
        """Return it as `vlms.instance_stitching` wants it."""
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
    """The objects of a raster, each made of the finds of one tile or several.

    Attributes:
        tile_instances: what was told of the tiles.
        counts: number of objects at date 1 and at date 2.
        classes_N: prompt of each, per date.
    """

    def __init__(self, finds: TileInstanceReader) -> None:
        """Join the finds: objects are numbered by their first finds, date by date."""
        self.tile_instances, self._index = finds, TileIndex(tuple(finds.tile_windows))
        facts = [
            _instance_table(finds.read_instances(tile) or (), place) for tile, place in enumerate(finds.tile_windows)
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
        """Yield the finds whose box reaches into a window, tile by tile."""
        for tile, _ in self._index.tiles_in(window):
            for at, told in self._instances_near(tile, window):
                number = int(self._number_L[self._starts[tile] + at])
                yield InstancePart(number, tile, self.tile_instances.tile_windows[tile], told)

    def _instances_near(self, tile: int, window: Window) -> Iterator[tuple[int, TileInstance]]:
        """Yield the finds of a tile whose box reaches into a window, with their place in its list."""
        told, (rows, cols) = self.tile_instances.read_instances(tile) or (), window
        box_N4 = self._box_L4[self._starts[tile] : self._starts[tile + 1]]
        near_N = (box_N4[:, :2] < (rows.stop, cols.stop)).all(axis=1) & (box_N4[:, 2:] > (rows.start, cols.start)).all(
            axis=1
        )
        for at in np.flatnonzero(near_N).tolist():
            yield at, told[at]

    def masks_in(self, window: Window, date: int) -> dict[int, CroppedMask]:
        """Return each object's pixels in a window, cut to their box, by number in ascending order."""
        of_object: dict[int, list[tuple[InstancePart, Window]]] = {}
        for find in self.parts_in(window):
            part = intersect_windows(find.box, window)
            if find.date == date and part is not None:
                of_object.setdefault(find.number, []).append((find, part))
        found = {number: _merge_masks(of_object[number]) for number in sorted(of_object)}
        return {number: piece for number, piece in found.items() if piece.mask_HW.any()}

    def _links(self) -> Iterator[tuple[int, int]]:
        """Yield the pairs of finds, counted over all tiles, that are one object."""
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
        """Return the finds of a tile in what it shares with another, per date; as finds of window `at`."""
        found: list[list[tuple[int, InstanceFragment]]] = [[], []]
        for index, told in self._instances_near(tile, strip):
            find = InstancePart(0, at, self.tile_instances.tile_windows[tile], told)
            found[told.date].append(
                (int(self._starts[tile]) + index, find.to_stitching_part(self.tile_instances.shape_hw))
            )
        return found


def _instance_table(told: Sequence[TileInstance], place: Window) -> NDArray[np.int64]:
    """Return the finds of a tile as numbers: date, prompt, and its box (from row, from column, to row, to column)."""
    rows, cols = place
    corners = ((rows.start + one.row, cols.start + one.col, one.mask["size"]) for one in told)
    boxes = ((top, left, top + size[0], left + size[1]) for top, left, size in corners)
    facts = [(one.date, one.prompt, *box) for one, box in zip(told, boxes, strict=True)]
    return np.array(facts, np.int64).reshape(-1, 6)


def _merge_masks(parts: list[tuple[InstancePart, Window]]) -> CroppedMask:
    """Return the pixels of some finds within windows of their boxes."""
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
