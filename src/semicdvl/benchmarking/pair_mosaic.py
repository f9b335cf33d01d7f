"""The test pairs of a data set as the tiles of one mosaic, and a detector's score maps of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semicdvl.data.images.cache import ImageCache
from semicdvl.data.pairs import read_pair, read_pair_size
from semicdvl.types import Detector, PairFiles, PairTile, ScoreStrip, ScoreStrips


class PairMosaic:
    """Pairs below each other, as `types.PairTiles`: a tile is a pair, a narrow one padded on the right with no data."""

    def __init__(self, pairs: Sequence[PairFiles], cache: ImageCache, *, gsd_m: float | None) -> None:
        """Take the pairs; they are decoded while iterating."""
        self.pairs, self.cache, self.gsd_m = pairs, cache, gsd_m
        sizes = [read_pair_size(pair) for pair in pairs]
        self.shape_hw = sum(height for height, _ in sizes), max(width for _, width in sizes)

    def iterate_images(self) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
        """Yield both dates of every pair as they are."""
        for pair in self.pairs:
            arrays = read_pair(pair, cache=self.cache, with_label=False)
            yield arrays.t1_HWC, arrays.t2_HWC

    def __iter__(self) -> Iterator[PairTile]:
        """Yield the tiles, from the top."""
        for t1_HWC, t2_HWC in self.iterate_images():
            height, width = t1_HWC.shape[:2]
            more = ((0, 0), (0, self.shape_hw[1] - width), (0, 0))
            valid_HW = np.zeros((height, self.shape_hw[1]), bool)
            valid_HW[:, :width] = True
            yield PairTile(np.pad(t1_HWC, more), np.pad(t2_HWC, more), valid_HW)


class MosaicStrips(ScoreStrips):
    """A prepared detector's score maps of a mosaic, as `types.ScoreStrips`: a strip is a pair, kept in a file."""

    def __init__(self, mosaic: PairMosaic, detector: Detector, folder: Path) -> None:
        """Compute the score maps of every pair and write them into `folder`."""
        self.shape_hw = mosaic.shape_hw
        self._paths: list[Path] = []
        self._widths: list[int] = []
        for at, (t1_HWC, t2_HWC) in enumerate(mosaic.iterate_images()):
            self._paths.append(folder / f"{at}.npy")
            self._widths.append(t1_HWC.shape[1])
            np.save(self._paths[-1], detector.predict_scores(t1_HWC, t2_HWC, gsd_m=mosaic.gsd_m))

    def __iter__(self) -> Iterator[ScoreStrip]:
        """Yield the strips, from the top."""
        row = 0
        for path, width in zip(self._paths, self._widths, strict=True):
            scores_PHW = np.load(path)
            wide_PHW = np.pad(scores_PHW, ((0, 0), (0, 0), (0, self.shape_hw[1] - width)))
            valid_HW = np.zeros(wide_PHW.shape[1:], bool)
            valid_HW[:, :width] = True
            yield ScoreStrip(row, wide_PHW, valid_HW)
            row += len(valid_HW)
