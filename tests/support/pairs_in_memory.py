"""A pair of images as the engine gives it to a detector, without files: tiles in, blended maps out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from semicdvl.types import IGNORE, ChangeMap, Detector, PairTile, ScoreStrip, ScoreStrips


@dataclass(frozen=True)
class Pair:
    """Tiles of a pair in memory; `passes` counts how often they were gone through."""

    t1_HWC: np.ndarray
    t2_HWC: np.ndarray
    valid_HW: np.ndarray
    tile_px: int = 64
    gsd_m: float | None = None
    passes: list[int] = field(default_factory=list)

    @property
    def shape_hw(self) -> tuple[int, int]:
        return self.valid_HW.shape

    def __iter__(self) -> Iterator[PairTile]:
        self.passes.append(1)
        for row in range(0, self.shape_hw[0], self.tile_px):
            for col in range(0, self.shape_hw[1], self.tile_px):
                part = slice(row, row + self.tile_px), slice(col, col + self.tile_px)
                valid_HW = self.valid_HW[part]
                dates = (np.where(valid_HW[..., None], image[part], 0) for image in (self.t1_HWC, self.t2_HWC))
                yield PairTile(*dates, valid_HW)


@dataclass(frozen=True)
class Strips(ScoreStrips):
    """Planes in memory as strips."""

    scores_PHW: np.ndarray
    valid_HW: np.ndarray
    height_px: int = 16

    @property
    def shape_hw(self) -> tuple[int, int]:
        return self.valid_HW.shape

    def __iter__(self) -> Iterator[ScoreStrip]:
        for row in range(0, self.shape_hw[0], self.height_px):
            rows = slice(row, row + self.height_px)
            yield ScoreStrip(row, self.scores_PHW[:, rows], self.valid_HW[rows])


def pair(t1_HWC, t2_HWC, valid_HW=None, *, tile_px: int = 64) -> Pair:
    """Return a pair; all of it valid unless said."""
    valid_HW = np.ones(t1_HWC.shape[:2], bool) if valid_HW is None else valid_HW
    return Pair(t1_HWC, t2_HWC, valid_HW, tile_px)


def fitted(detector: Detector, tiles: Pair) -> Detector:
    """Return the detector with the pair's statistics, where it wants some."""
    return detector.prepare(tiles)


def planes(detector: Detector, tiles: Pair, *, tile_px: int = 1024) -> np.ndarray:
    """Return a fitted detector's planes of the whole pair: tiles without overlap, padded to multiples of 32 px."""
    height, width = tiles.shape_hw
    found_PHW = np.zeros((detector.map_count, height, width), np.float32)
    images = [np.where(tiles.valid_HW[..., None], image, 0) for image in (tiles.t1_HWC, tiles.t2_HWC)]
    for row in range(0, height, tile_px):
        for col in range(0, width, tile_px):
            cut = [image[row : row + tile_px, col : col + tile_px] for image in images]
            rows, cols = cut[0].shape[:2]
            missing = ((0, -rows % 32), (0, -cols % 32), (0, 0))
            maps_PHW = detector.predict_scores(*(np.pad(image, missing, mode="reflect") for image in cut))
            assert maps_PHW.shape == (detector.map_count, rows + missing[0][1], cols + missing[1][1])
            assert maps_PHW.dtype == np.float32 and np.isfinite(maps_PHW).all()
            found_PHW[:, row : row + rows, col : col + cols] = maps_PHW[:, :rows, :cols]
    return found_PHW


def detect(detector: Detector, tiles: Pair, *, tile_px: int = 1024) -> ChangeMap:
    """Return the change map of a pair as the engine makes it."""
    ready = fitted(detector, tiles)
    maps = list(ready.decide(Strips(planes(ready, tiles, tile_px=tile_px), tiles.valid_HW)))
    change_HW, score_HW = (np.concatenate([getattr(part, name) for part in maps]) for name in ("change_HW", "score_HW"))
    assert change_HW.shape == tiles.shape_hw and change_HW.dtype == np.uint8
    assert (change_HW[~tiles.valid_HW] == IGNORE).all() and np.isin(change_HW[tiles.valid_HW], (0, 1)).all()
    assert np.isnan(score_HW[~tiles.valid_HW]).all() and score_HW.dtype == np.float32
    assert (score_HW[tiles.valid_HW] >= 0).all() and (score_HW[tiles.valid_HW] <= 1).all()
    return ChangeMap(change_HW, score_HW)
