"""Maps that lie in memory, given to a detector as `detect` gives them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from semicdvl.types import ScoreStrip, ScoreStrips


@dataclass
class Strips(ScoreStrips):
    """Maps of a whole raster, cut into strips."""

    scores_PHW: np.ndarray
    valid_HW: np.ndarray
    rows: int

    @property
    def shape_hw(self):
        return self.valid_HW.shape

    def __iter__(self):
        for row in range(0, len(self.valid_HW), self.rows):
            yield ScoreStrip(row, self.scores_PHW[:, row : row + self.rows], self.valid_HW[row : row + self.rows])
