"""What passes between a raster and a detector: tiles of a pair in, strips of score maps and change maps out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ChangeMap:
    """The result of a detector for a pair, or for some rows of it.

    Attributes:
        change_HW: uint8 of 0 (unchanged), 1 (changed) and IGNORE (no data in either date).
        score_HW: float32 change score in [0, 1]; NaN where there is no data.
        classes: names of the single-date classes, index = value in t1_HW and t2_HW; empty if the detector has none.
        foreground: indices of the classes that were searched for (the others are background).
        t1_HW: uint8 class map of date 1, IGNORE where there is no data; None if the detector has no classes.
        t2_HW: the same for date 2.
        probability_HW: float32 probability that the object of a pixel changed, constant over the object; NaN outside of
            objects and for objects without a known probability. None if the detector is not calibrated.
        t1_score_HW: float32 score of the class in t1_HW; None if the detector's classes have no scores.
        t2_score_HW: the same for date 2.
        class_score: lowest mean score from which the class of an object is named; below it the class is "unsure". Where
            the class is one that was searched for, `raster.vector.object_stats.FOREGROUND_SCORE` is enough.
    """

    change_HW: NDArray[np.uint8]
    score_HW: NDArray[np.float32]
    classes: tuple[str, ...] = ()
    foreground: tuple[int, ...] = ()
    t1_HW: NDArray[np.uint8] | None = None
    t2_HW: NDArray[np.uint8] | None = None
    probability_HW: NDArray[np.float32] | None = None
    t1_score_HW: NDArray[np.float32] | None = None
    t2_score_HW: NDArray[np.float32] | None = None
    class_score: float = 0.0


# ------------------------------------------------------------------------------------------------ tiles of a pair
@dataclass(frozen=True)
class PairTile:
    """A part of both dates at full resolution, without padding.

    Attributes:
        t1_HWC: uint8 image of date 1 (C is 3 unless more bands were selected); 0 where not valid.
        t2_HWC: uint8 image of date 2.
        valid_HW: False where either date has no data.
    """

    t1_HWC: NDArray[np.uint8]
    t2_HWC: NDArray[np.uint8]
    valid_HW: NDArray[np.bool_]


class PairTiles(Protocol):
    """A whole pair as tiles without overlap, row by row; it can be iterated over any number of times."""

    @property
    def shape_hw(self) -> tuple[int, int]:
        """Height and width of the raster in pixels."""
        ...

    @property
    def gsd_m(self) -> float | None:
        """Metres per pixel, if known."""
        ...

    def __iter__(self) -> Iterator[PairTile]:
        """Yield the tiles."""
        ...


@dataclass(frozen=True)
class TileInstance:
    """The part of one instance that one tile shows at one date. It is sent and stored as it is, so its mask is small.

    Attributes:
        date: 0 (before) or 1 (after).
        row: first row of its bounding box in the tile.
        col: first column of its bounding box in the tile.
        mask: COCO RLE of the bounding box, without pixels that have no data; the box is tight.
        prompt: index of the prompt that it answers.
        score: of this detection, in [0, 1].
    """

    date: int
    row: int
    col: int
    mask: Mapping[str, Any]
    prompt: int
    score: float


@dataclass(frozen=True)
class TilePrediction:
    """Everything that a detector returns for one tile: plain values, so that they can come from another process.

    Attributes:
        scores_PHW: score maps of the tile's full size; None where no pixel has data in both dates.
        valid_HW: where both dates have data, for the part of the tile that lies in the raster.
        instances: the instances found; None from a detector that gives score maps only.
        features_2DHW: float32 feature maps of both dates that cover the tile's full size (any H and W), or None.
    """

    scores_PHW: NDArray[np.float32] | None
    valid_HW: NDArray[np.bool_]
    instances: tuple[TileInstance, ...] | None = None
    features_2DHW: NDArray[np.float32] | None = None


# ------------------------------------------------------------------------------------------------ a whole raster
class TileInstanceReader(Protocol):
    """Instances and features of all tiles of a raster, read from files tile by tile."""

    @property
    def shape_hw(self) -> tuple[int, int]:
        """Height and width of the raster in pixels."""
        ...

    @property
    def tile_hw(self) -> tuple[int, int]:
        """Full size of a tile in pixels: its features cover it, also where the tile extends beyond the raster."""
        ...

    @property
    def tile_windows(self) -> Sequence[tuple[slice, slice]]:
        """Rows and columns of the raster that each tile shows; neighbours overlap."""
        ...

    def read_instances(self, tile: int) -> Sequence[TileInstance] | None:
        """Return the instances of a tile; None if the detector gave score maps only."""
        ...

    def features_shape_hw(self, tile: int) -> tuple[int, int] | None:
        """Return the number of rows and columns of a tile's features; None if it has none."""
        ...

    def read_features(self, tile: int, rows: slice) -> NDArray[np.float32]:
        """Return some rows of a tile's features, with the axes H, W, date, D."""
        ...


@dataclass(frozen=True)
class ScoreStrip:
    """Some rows of a detector's blended score maps, over the raster's whole width.

    Attributes:
        row: first row of the strip in the raster.
        scores_PHW: float32, finite; arbitrary where not valid.
        valid_HW: False where either date has no data.
    """

    row: int
    scores_PHW: NDArray[np.float32]
    valid_HW: NDArray[np.bool_]


class ScoreStrips(ABC):
    """A detector's score maps of the whole raster as strips from the top; iterable any number of times.

    Attributes:
        shape_hw: height and width of the raster in pixels.
        tile_instances: the instances and features of the tiles, where they are kept; else None.
    """

    shape_hw: tuple[int, int]
    tile_instances: TileInstanceReader | None = None

    @abstractmethod
    def __iter__(self) -> Iterator[ScoreStrip]:
        """Yield the strips."""
