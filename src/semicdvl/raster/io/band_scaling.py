"""Physical values of bands: stored values times a scale plus an offset, as the tags of a file say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semicdvl.raster.radiometric_normalisation import Stretch


@dataclass(frozen=True)
class BandScaling:
    """What makes physical values of stored ones: `scale * stored + offset`, per band.

    Two dates of one sensor may be stored differently, as Sentinel-2 is before and after January 2022.

    Attributes:
        scale_C: the factors; none is 0.
        offset_C: what is added.
    """

    scale_C: NDArray[np.float64]
    offset_C: NDArray[np.float64]

    @classmethod
    def read(cls, dataset: Any, bands: Sequence[int]) -> BandScaling:
        """Return the tags of the bands of an open dataset; a scale of 0, which some writers leave, counts as none."""
        scale_C = np.array([dataset.scales[band - 1] for band in bands], np.float64)
        offset_C = np.array([dataset.offsets[band - 1] for band in bands], np.float64)
        usable_C = np.isfinite(scale_C) & (scale_C != 0) & np.isfinite(offset_C)
        return cls(np.where(usable_C, scale_C, 1.0), np.where(usable_C, offset_C, 0.0))

    @property
    def is_identity(self) -> bool:
        """Whether stored values are physical ones."""
        return bool((self.scale_C == 1).all() and (self.offset_C == 0).all())

    def select(self, count: int) -> BandScaling:
        """Return the scaling of the first bands."""
        return BandScaling(self.scale_C[:count], self.offset_C[:count])

    def apply(self, stored_CHW: NDArray[Any]) -> NDArray[np.float32]:
        """Return the physical values of stored ones."""
        if self.is_identity:
            return stored_CHW.astype(np.float32)
        return (stored_CHW * self.scale_C[:, None, None] + self.offset_C[:, None, None]).astype(np.float32)

    def equals(self, other: BandScaling) -> bool:
        """Tell whether the bands of both are stored alike."""
        return np.array_equal(self.scale_C, other.scale_C) and np.array_equal(self.offset_C, other.offset_C)

    def to_stored(self, stretch: Stretch) -> Stretch:
        """Return a stretch of physical values as one of stored values."""
        return Stretch(*((limit_C - self.offset_C) / self.scale_C for limit_C in (stretch.low_C, stretch.high_C)))

    def to_physical(self, stretch: Stretch) -> Stretch:
        """Return a stretch of stored values as one of physical values."""
        return Stretch(*(limit_C * self.scale_C + self.offset_C for limit_C in (stretch.low_C, stretch.high_C)))
