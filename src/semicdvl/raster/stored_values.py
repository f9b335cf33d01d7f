"""The values that a file stores, a sample of them, and what makes physical and grey values of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Stretch:
    """A linear map of data values to grey values 0-255, per band.

    Attributes:
        low_C, high_C: the data values of each band that become 0 and 255; the low one is the larger one where brighter
            ground has smaller values.
    """

    low_C: NDArray[np.float64]
    high_C: NDArray[np.float64]

    def __call__(self, data_CHW: NDArray[Any]) -> NDArray[np.uint8]:
        """Return the data as uint8; values beyond the limits are clipped, NaN becomes 0."""
        scale_C = 255.0 / self._range_C
        scaled_CHW = (data_CHW - self.low_C[:, None, None]) * scale_C[:, None, None]
        image_CHW: NDArray[np.uint8] = np.nan_to_num(np.clip(np.rint(scaled_CHW), 0, 255), nan=0.0).astype(np.uint8)
        return image_CHW

    @property
    def _range_C(self) -> NDArray[np.float64]:
        """The range of each band, never 0."""
        range_C = self.high_C - self.low_C
        return np.where(np.abs(range_C) < 1e-12, 1e-12, range_C)

    def format_limits(self) -> str:
        """Return the limits of every band: `200-3000 210-2900 190-3100`."""
        return " ".join(f"{low:.4g}-{high:.4g}" for low, high in zip(self.low_C, self.high_C, strict=True))

    def scale(self, data_CHW: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the data as grey values from 0 to 255 that are not rounded."""
        scaled_CHW = 255.0 * (data_CHW - self.low_C[:, None, None]) / self._range_C[:, None, None]
        return np.asarray(np.clip(scaled_CHW, 0, 255))


@dataclass(frozen=True)
class OverviewSample:
    """A decimated read of a whole image.

    Attributes:
        data_CHW: values of the bands.
        valid_HW: where the file has data.
        black_HW: where a black border lies that no tag declares as no-data.
    """

    data_CHW: NDArray[Any]
    valid_HW: NDArray[np.bool_]
    black_HW: NDArray[np.bool_]

    @property
    def usable_HW(self) -> NDArray[np.bool_]:
        """Where there is data and no black border."""
        return self.valid_HW & ~self.black_HW


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
