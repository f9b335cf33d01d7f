"""The bands that a network reads beside red, green and blue, and how they are standardised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semicdvl.errors import ConfigError

MIN_BANDS, MAX_BANDS = 3, 512
"""Numbers of bands that a network can be built for."""


@dataclass(frozen=True)
class InputBands:
    """The bands of an image that a network reads, with the statistics of its training data.

    Attributes:
        numbers: 1-based numbers of the bands in the files; red, green and blue come first, for pictures.
        mean: mean of each band over the training data, in physical values.
        std: standard deviation of each band, above 0.
        source_numbers: the numbers of these bands in the raster that training patches were cut from, where they tell;
            None: they are `numbers`.

    Raises:
        ConfigError: a band occurs twice, the numbers of entries differ, or one is beyond what 32 bits hold.

    Examples:
        >>> from semicdvl.types import InputBands
        >>> InputBands((3, 2, 1, 4), (900.0, 800.0, 700.0, 2400.0), (300.0, 250.0, 240.0, 600.0)).count
        4
    """

    numbers: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source_numbers: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse bands that occur twice, and statistics of other bands."""
        check_band_numbers(self.numbers)
        check_band_numbers(self.raster_numbers)
        if len(self.raster_numbers) != self.count:
            raise ConfigError(
                f"{self.count} bands have {len(self.raster_numbers)} numbers in the raster. Give as many."
            )
        if not len(self.numbers) == len(self.mean) == len(self.std) or min(self.std) <= 0:
            raise ConfigError(
                f"{len(self.numbers)} bands have {len(self.mean)} means and {len(self.std)} standard deviations. Give"
                " one mean and one standard deviation above 0 for each band."
            )
        least, most = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
        if min(self.std) < least or max(map(abs, (*self.mean, *self.std))) > most:
            raise ConfigError(
                "a mean or a standard deviation is beyond the numbers of 32 bits, so all values would become 0."
                " Give those of the training data."
            )

    @property
    def raster_numbers(self) -> tuple[int, ...]:
        """The numbers of the bands in a raster that the network is applied to."""
        return self.numbers if self.source_numbers is None else self.source_numbers

    @property
    def count(self) -> int:
        """Number of bands."""
        return len(self.numbers)

    def describe(self) -> str:
        """Return the numbers in a raster in words: `4 bands (3, 2, 1, 4)`."""
        return f"{self.count} bands ({', '.join(map(str, self.raster_numbers))})"

    def fill_hidden(self, image_HWC: NDArray[Any], visible_HW: NDArray[np.bool_] | None) -> NDArray[Any]:
        """Return an image with the mean of each band where nothing is known; the same one if all is known."""
        if visible_HW is None:
            return image_HWC
        return np.where(visible_HW[..., None], image_HWC, np.array(self.mean, np.float32)).astype(np.float32)

    def standardise(self, image_HWC: NDArray[Any]) -> NDArray[np.float32]:
        """Return physical values HWC minus mean, divided by the standard deviation; 0 where they are not finite."""
        mean_C, std_C = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        scaled_HWC = (image_HWC.astype(np.float32) - mean_C) / std_C
        return np.asarray(np.nan_to_num(scaled_HWC, copy=False, nan=0.0, posinf=0.0, neginf=0.0))


def check_band_numbers(numbers: tuple[int, ...]) -> None:
    """Refuse bands that a network cannot read.

    Raises:
        ConfigError: too few or too many, a number below 1, or one that occurs twice.
    """
    if not MIN_BANDS <= len(numbers) <= MAX_BANDS:
        raise ConfigError(
            f"{len(numbers)} bands are named. Name {MIN_BANDS} to {MAX_BANDS}, red, green and blue first."
        )
    if min(numbers) < 1:
        raise ConfigError(f"there is no band {min(numbers)}: bands are counted from 1.")
    if repeated := sorted(number for number in set(numbers) if numbers.count(number) > 1):
        raise ConfigError(f"band {repeated[0]} is named twice. Name each band once.")
