"""Detectors: tiles of a pair in, the change map of the whole raster out, strip by strip."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ChangeMap:
    """What a detector says about a pair, or about some rows of it.

    Attributes:
        change_HW: uint8 of 0 (unchanged), 1 (changed) and IGNORE (no data in either date).
        score_HW: float32 change score in [0, 1]; NaN where there is no data.
        classes: names of the single-date classes, index = value in t1_HW and t2_HW; empty when the route has none.
        foreground: index of the classes that were looked for (the others are background).
        t1_HW: uint8 class of date 1, IGNORE where there is no data; None when the route has no classes.
        t2_HW: the same of date 2.
    """

    change_HW: NDArray[np.uint8]
    score_HW: NDArray[np.float32]
    classes: tuple[str, ...] = ()
    foreground: tuple[int, ...] = ()
    t1_HW: NDArray[np.uint8] | None = None
    t2_HW: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class PairTile:
    """A piece of both dates at full resolution, without padding.

    Attributes:
        t1_HWC: uint8 of date 1 (C is 3 unless more bands were asked for); black where not valid.
        t2_HWC: the same of date 2.
        valid_HW: False where either date has no data.
    """

    t1_HWC: NDArray[np.uint8]
    t2_HWC: NDArray[np.uint8]
    valid_HW: NDArray[np.bool_]


class PairTiles(Protocol):
    """A whole pair as tiles that do not overlap, row by row; it can be gone through as often as one likes."""

    @property
    def shape_hw(self) -> tuple[int, int]:
        """Height and width of the raster."""
        ...

    @property
    def gsd_m(self) -> float | None:
        """Metres per pixel, if known."""
        ...

    def __iter__(self) -> Iterator[PairTile]:
        """Give the tiles."""
        ...


@dataclass(frozen=True)
class PlaneStrip:
    """Some rows of a detector's blended maps, over the raster's whole width.

    Attributes:
        row: the raster's row that the strip begins with.
        planes_PHW: float32, finite; of no meaning where not valid.
        valid_HW: False where either date has no data.
    """

    row: int
    planes_PHW: NDArray[np.float32]
    valid_HW: NDArray[np.bool_]


class PlaneStrips(Protocol):
    """A detector's maps of the whole raster as strips from the top; it can be gone through as often as one likes."""

    @property
    def shape_hw(self) -> tuple[int, int]:
        """Height and width of the raster."""
        ...

    def __iter__(self) -> Iterator[PlaneStrip]:
        """Give the strips."""
        ...


class Detector(Protocol):
    """Trained network, classic method and VLM + CEG all look the same to `predict/run.py`.

    `planes` is called tile by tile; its maps are blended over overlapping tiles; `decide` goes through the blended maps
    of the whole raster, so that an object cut by a tile border is one object again. Neither ever holds a whole raster:
    memory does not grow with its size.
    """

    @property
    def name(self) -> str:
        """What the report calls it."""
        ...

    @property
    def planes_count(self) -> int:
        """Number of maps P that `planes` gives."""
        ...

    def planes(
        self, t1_HWC: NDArray[np.uint8], t2_HWC: NDArray[np.uint8], *, gsd_m: float | None = None
    ) -> NDArray[np.float32]:
        """Return float32 maps PHW for one pair of tiles (uint8, padded to the tile's full size by reflection)."""
        ...

    def decide(self, strips: PlaneStrips) -> Iterator[ChangeMap]:
        """Give the result, a `ChangeMap` for every strip, of its rows; all of them have the same `classes`."""
        ...


@runtime_checkable
class Fits(Protocol):
    """A detector that must see the whole pair before it can judge a tile (means, principal components, clusters)."""

    def fitted(self, tiles: PairTiles) -> Detector:
        """Return the detector with its statistics of this pair; called once, before the first `planes`."""
        ...
