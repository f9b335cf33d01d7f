"""Detectors: tiles of a pair in, the change map of the whole raster out, strip by strip."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

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
        probability_HW: float32 probability that the object which a pixel belongs to changed, alike all over it; NaN
            elsewhere, and for objects of which it is not known. None when the route has none.
    """

    change_HW: NDArray[np.uint8]
    score_HW: NDArray[np.float32]
    classes: tuple[str, ...] = ()
    foreground: tuple[int, ...] = ()
    t1_HW: NDArray[np.uint8] | None = None
    t2_HW: NDArray[np.uint8] | None = None
    probability_HW: NDArray[np.float32] | None = None


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
class ScoreStrip:
    """Some rows of a detector's blended maps, over the raster's whole width.

    Attributes:
        row: the raster's row that the strip begins with.
        scores_PHW: float32, finite; of no meaning where not valid.
        valid_HW: False where either date has no data.
    """

    row: int
    scores_PHW: NDArray[np.float32]
    valid_HW: NDArray[np.bool_]


class ScoreStrips(Protocol):
    """A detector's maps of the whole raster as strips from the top; it can be gone through as often as one likes."""

    @property
    def shape_hw(self) -> tuple[int, int]:
        """Height and width of the raster."""
        ...

    def __iter__(self) -> Iterator[ScoreStrip]:
        """Give the strips."""
        ...


class Detector(Protocol):
    """Trained network, classic method and VLM + CEG all look the same to `detection/pipeline.py`.

    `predict_scores` is called tile by tile; its maps are blended over overlapping tiles; `decide` goes through the
    blended maps
    of the whole raster, so that an object cut by a tile border is one object again. Neither ever holds a whole raster:
    memory does not grow with its size.
    """

    @property
    def name(self) -> str:
        """What the report calls it."""
        ...

    @property
    def map_count(self) -> int:
        """Number of maps P that `planes` gives."""
        ...

    def predict_scores(
        self, t1_HWC: NDArray[np.uint8], t2_HWC: NDArray[np.uint8], *, gsd_m: float | None = None
    ) -> NDArray[np.float32]:
        """Return float32 maps PHW for one pair of tiles (uint8, padded to the tile's full size by reflection)."""
        ...

    def decide(self, strips: ScoreStrips) -> Iterator[ChangeMap]:
        """Give the result, a `ChangeMap` for every strip, of its rows; all of them have the same `classes`."""
        ...


@runtime_checkable
class Fits(Protocol):
    """A detector that must see the whole pair before it can judge a tile (means, principal components, clusters)."""

    def prepare(self, tiles: PairTiles) -> Detector:
        """Return the detector with its statistics of this pair; called once, before the first `planes`."""
        ...


# ------------------------------------------------------------------------------------------------ objects, and looks
@dataclass(frozen=True)
class TileInstance:
    """What one tile shows of one object at one date. It travels and is kept as it is, so the mask is small.

    Attributes:
        date: 0 (before) or 1 (after).
        row: the tile's row that its box begins with.
        col: the tile's column that its box begins with.
        mask: COCO RLE of the box's size, without ground that has no data; the box is no larger than it must be.
        prompt: index of the word that it answers.
        score: of this find, in [0, 1].
    """

    date: int
    row: int
    col: int
    mask: Mapping[str, Any]
    prompt: int
    score: float


@dataclass(frozen=True)
class TilePrediction:
    """All that a detector tells of one tile: plain values, so that they may come from another process or machine.

    Attributes:
        scores_PHW: its maps, of the tile's full size; None where no pixel has data in both dates.
        valid_HW: where both dates have data, of the tile's part of the raster.
        instances: what it found as objects; None from a detector that gives maps only.
        features_2DHW: float32, what the dates look like place by place, over the tile's full size (any H and W).
    """

    scores_PHW: NDArray[np.float32] | None
    valid_HW: NDArray[np.bool_]
    instances: tuple[TileInstance, ...] | None = None
    features_2DHW: NDArray[np.float32] | None = None


@runtime_checkable
class Looks(Protocol):
    """A detector that tells more of a tile than maps. `predict_tile` is called in place of `planes`.

    What it told of all tiles is handed to `decide` with the strips, which then are `StripsWithInstances`.
    """

    def predict_tile(
        self,
        t1_HWC: NDArray[np.uint8],
        t2_HWC: NDArray[np.uint8],
        *,
        valid_HW: NDArray[np.bool_],
        gsd_m: float | None = None,
    ) -> TilePrediction:
        """Return the maps, objects and features of one pair of tiles (uint8, padded to the tile's full size).

        `valid_HW` has the size of the tile's part of the raster, from the top left; objects end there.
        """
        ...


class TileInstanceReader(Protocol):
    """What a detector told of the tiles of a whole raster beside its maps; read from files, never held at once."""

    @property
    def shape_hw(self) -> tuple[int, int]:
        """Height and width of the raster."""
        ...

    @property
    def tile_hw(self) -> tuple[int, int]:
        """Full size of a tile: what its features are stretched over, also where the tile ends beyond the raster."""
        ...

    @property
    def tile_windows(self) -> Sequence[tuple[slice, slice]]:
        """Rows and columns of the raster that each tile shows; neighbours overlap."""
        ...

    def read_instances(self, tile: int) -> Sequence[TileInstance] | None:
        """Return the objects of a tile; None where maps are all there is, or nothing was to be seen."""
        ...

    def features_shape_hw(self, tile: int) -> tuple[int, int] | None:
        """Return rows and columns of a tile's features; None where there are none."""
        ...

    def read_features(self, tile: int, rows: slice) -> NDArray[np.float32]:
        """Return some rows of a tile's features, as H, W, date, D."""
        ...


@runtime_checkable
class StripsWithInstances(Protocol):
    """`ScoreStrips` of a detector that `Looks`."""

    @property
    def tile_instances(self) -> TileInstanceReader:
        """What it told beside its maps."""
        ...
