"""Finished objects of a map, kept in a file until all are known: memory holds none of them.

An object is a record of its statistics (`object_stats.ObjectStats`) and its outline in pixel coordinates. They come in
the order in which the map shows them and are read in any other one.
"""

from __future__ import annotations

import tempfile
import weakref
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import MultiPolygon

from semicdvl.raster.vector.object_stats import ObjectStats

MEMORY_BYTES = 2**24
"""Up to this size a file is held in memory: most results never reach the disk."""


@dataclass(frozen=True)
class SpooledObjects:
    """Some objects of a spool.

    Attributes:
        stats: their statistics.
        outlines: their outlines in pixel coordinates (col, row).
    """

    stats: ObjectStats
    outlines: NDArray[np.object_]


class ObjectSpool:
    """Objects in two files without a name, which vanish with the spool: records of one size, and outlines as WKB.

    Attributes:
        sizes: bytes of the outline of each object.
    """

    def __init__(self, *, classes: int, folder: Path | None = None) -> None:
        """Start empty.

        Args:
            classes: number of classes of the map.
            folder: where the files lie, once they are too large for memory; None: the system's folder for such files.
        """
        self._dtype = np.dtype(
            [
                ("first_block", "i8"), ("area", "i8"), ("score_sum", "f8"), ("score_max", "f8"),
                ("probability_sum", "f8"), ("box", "i8", (4,)), ("class_px", "i8", (2, classes)),
                ("class_score", "f8", (2, classes)),
                ("at", "i8"), ("size", "i8"),
            ]
        )  # fmt: skip
        place = None if folder is None else str(folder)
        self._records: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=MEMORY_BYTES, dir=place)
        self._shapes: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=MEMORY_BYTES, dir=place)
        self.sizes = array("I")
        self._end = 0
        for file in (self._records, self._shapes):
            weakref.finalize(self, file.close)

    def __len__(self) -> int:
        """Return the number of objects."""
        return len(self.sizes)

    def add(self, stats: ObjectStats, outlines: Sequence[MultiPolygon]) -> None:
        """Append objects.

        Raises:
            OSError: the disk is full.
        """
        coded: list[bytes] = shapely.to_wkb(np.array(outlines, object)).tolist() if len(outlines) else []
        sizes = np.array([len(one) for one in coded], np.int64)
        records = np.zeros(len(coded), self._dtype)
        for name in ("first_block", "area", "score_sum", "score_max", "probability_sum"):
            records[name] = getattr(stats, f"{name}_N")
        records["box"], records["class_px"] = stats.box_N4, stats.class_px_2NK.transpose(1, 0, 2)
        records["class_score"] = stats.class_score_2NK.transpose(1, 0, 2)
        records["size"], records["at"] = sizes, self._end + np.cumsum(sizes) - sizes
        self._records.seek(len(self) * self._dtype.itemsize)
        self._records.write(records.tobytes())
        self._shapes.seek(self._end)
        self._shapes.write(b"".join(coded))
        self.sizes.extend(sizes.tolist())
        self._end += int(sizes.sum())

    def read(self, places: NDArray[np.integer[Any]]) -> SpooledObjects:
        """Return the objects at some places, in their order."""
        kept, coded = list[bytes](), list[bytes]()
        for place in places.tolist():
            self._records.seek(place * self._dtype.itemsize)
            kept.append(self._records.read(self._dtype.itemsize))
        records = np.frombuffer(b"".join(kept), self._dtype)
        for start, size in zip(records["at"].tolist(), records["size"].tolist(), strict=True):
            self._shapes.seek(start)
            coded.append(self._shapes.read(size))
        return _unpack(records, coded)

    def read_range(self, start: int, stop: int) -> SpooledObjects:
        """Return consecutive objects."""
        self._records.seek(start * self._dtype.itemsize)
        records = np.frombuffer(self._records.read((stop - start) * self._dtype.itemsize), self._dtype)
        if not len(records):
            return _unpack(records, [])
        first, end = int(records["at"][0]), int(records["at"][-1] + records["size"][-1])
        self._shapes.seek(first)
        block = memoryview(self._shapes.read(end - first))
        coded = [bytes(block[at : at + size]) for at, size in zip(records["at"] - first, records["size"], strict=True)]
        return _unpack(records, coded)


def _unpack(records: NDArray[Any], coded: list[bytes]) -> SpooledObjects:
    """Return records and outlines as objects."""
    named = {f"{name}_N": records[name] for name in ("first_block", "area", "score_sum", "score_max")}
    stats = ObjectStats(
        **named,
        class_px_2NK=records["class_px"].transpose(1, 0, 2),
        box_N4=records["box"],
        probability_sum_N=records["probability_sum"],
        class_score_2NK=records["class_score"].transpose(1, 0, 2),
    )
    outlines = np.empty(len(coded), object)
    outlines[:] = shapely.from_wkb(coded) if coded else []
    return SpooledObjects(stats, outlines)
