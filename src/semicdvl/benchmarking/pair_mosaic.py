"""The test pairs of a data set as one raster, and a detector's maps of it: what `detectors` fits a method to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semicdvl.data.images import ImageCache
from semicdvl.data.pairs import read_pair, read_pair_size
from semicdvl.types import Detector, PairFiles, PairTile, ScoreStrip, ScoreStrips


class PairMosaic:
    """Pairs below each other, as `types.PairTiles`: a tile is a pair, with nothing to the right of a narrow one."""

    def __init__(self, pairs: Sequence[PairFiles], cache: ImageCache, *, gsd_m: float | None) -> None:
        """Keep the pairs; they are decoded as they are gone through."""
        self.pairs, self.cache, self.gsd_m = pairs, cache, gsd_m
        sizes = [read_pair_size(pair) for pair in pairs]
        self.shape_hw = sum(height for height, _ in sizes), max(width for _, width in sizes)

    def iterate_images(self) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
        """Give both dates of every pair as they are."""
        for pair in self.pairs:
            arrays = read_pair(pair, cache=self.cache, with_label=False)
            yield arrays.t1_HWC, arrays.t2_HWC

    def __iter__(self) -> Iterator[PairTile]:
        """Give the tiles, from the top."""
        for t1_HWC, t2_HWC in self.iterate_images():
            height, width = t1_HWC.shape[:2]
            more = ((0, 0), (0, self.shape_hw[1] - width), (0, 0))
            valid_HW = np.zeros((height, self.shape_hw[1]), bool)
            valid_HW[:, :width] = True
            yield PairTile(np.pad(t1_HWC, more), np.pad(t2_HWC, more), valid_HW)


class MosaicStrips(ScoreStrips):
    """A fitted detector's maps of a side, as `types.ScoreStrips`: a strip is a pair. They lie in files."""

    def __init__(self, side: PairMosaic, detector: Detector, room: Path) -> None:
        """Have the detector look at every pair."""
        self.shape_hw = side.shape_hw
        self._paths: list[Path] = []
        self._widths: list[int] = []
        for at, (t1_HWC, t2_HWC) in enumerate(side.iterate_images()):
            self._paths.append(room / f"{at}.npy")
            self._widths.append(t1_HWC.shape[1])
            np.save(self._paths[-1], detector.predict_scores(t1_HWC, t2_HWC, gsd_m=side.gsd_m))

    def __iter__(self) -> Iterator[ScoreStrip]:
        """Give the strips, from the top."""
        row = 0
        for path, width in zip(self._paths, self._widths, strict=True):
            planes_PHW = np.load(path)
            wide_PHW = np.pad(planes_PHW, ((0, 0), (0, 0), (0, self.shape_hw[1] - width)))
            valid_HW = np.zeros(wide_PHW.shape[1:], bool)
            valid_HW[:, :width] = True
            yield ScoreStrip(row, wide_PHW, valid_HW)
            row += len(valid_HW)
